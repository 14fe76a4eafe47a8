//! Two ends of a session over a tunnel in memory, or one end and what a hostile other one sends.

use async_trait::async_trait;
use futures::FutureExt;
use phantom_proto::cell::CellKind;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::session::asked;
use phantom_proto::wire::session::{Message, ResetCode};
use tokio::sync::mpsc;

use super::*;
use crate::assembly::lone::{self, Lone};
use crate::connections::sessions::WAITING_SESSIONS;
use crate::connections::{ForIdentity, Network, lock};
use crate::driver::Arrival;
use crate::relay::cells::pair as tunnel;

const PATIENCE: Duration = Duration::from_secs(300);

const PORT: u16 = 80;

/// Listens on one port and hands over what arrives.
struct Program(mpsc::Sender<Box<dyn Stream>>);

#[async_trait]
impl Programs for Program {
    async fn listens(&self, port: u16) -> bool {
        port == PORT
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, far: Box<dyn Stream>) {
        self.0.send(far).await.unwrap();
    }
}

fn key(number: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[number; 32]))
}

fn address(number: u8) -> ApAddress {
    ApAddress::of(&key(number).verifying_key())
}

/// Answers on this end of a tunnel; what arrives comes by the channel.
fn answers(tunnel: Tunnel, first: Vec<u8>) -> (Lone, mpsc::Receiver<Box<dyn Stream>>) {
    let lone = lone::driver();
    let network = Network::start(lone.handle.clone(), mpsc::channel(1).1);
    let (far_tx, far_rx) = mpsc::channel(1);
    let incoming = Incoming { address: address(1), path: None, network, sessions: Arc::default(), place: None };
    tokio::spawn(answer(Session::accept(key(1)), tunnel, first, Arc::new(Program(far_tx)), incoming));
    (lone, far_rx)
}

fn client(port: u16) -> Session {
    Session::connect(&mut crate::random(), &key(2), &key(1).verifying_key(), port, 40_000).unwrap()
}

/// Both programs' ends of one connection.
async fn connected(room: usize) -> (Lone, Box<dyn Stream>, Box<dyn Stream>) {
    let [near, far] = tunnel(room);
    let (lone, mut far_rx) = answers(near, Vec::new());
    let ours = connect(client(PORT), far, None, None).await.unwrap();
    (lone, ours, far_rx.recv().await.unwrap())
}

/// What the other end says next.
async fn hears(tunnel: &mut Tunnel) -> Option<Word<'_>> {
    let (kind, data) = timeout(PATIENCE, tunnel.incoming.read()).await.expect("in time").ok()??;
    Some(Word::read(kind, data).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_one_direction_waits_for_does_not_hold_up_the_other() {
    // Less than a cell is under way.
    let (_lone, mut ours, theirs) = connected(1024).await;
    let (mut read, mut write) = tokio::io::split(theirs);
    // Their program reads nothing of this.
    let (mut our_read, mut our_write) = tokio::io::split(&mut ours);
    let stuck = async { our_write.write_all(&vec![1; 8 << 20]).await };
    let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number as u8).collect();
    let (copy, mut got) = (sent.clone(), vec![0; sent.len()]);
    let flows = async {
        let (written, read) = tokio::join!(write.write_all(&copy), our_read.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
    };
    tokio::select! {
        _ = stuck => panic!("nobody has read it"),
        () = async { timeout(PATIENCE, flows).await.expect("it flows") } => {}
    }
    assert!(got == sent, "bytes differ");
    let mut first = [0; 1000];
    read.read_exact(&mut first).await.unwrap();
    assert_eq!(first, [1; 1000]);
}

#[tokio::test(start_paused = true)]
async fn both_programs_read_to_the_end_that_the_other_has_said() {
    let (_lone, mut ours, mut theirs) = connected(1 << 16).await;
    ours.write_all(b"question").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    timeout(PATIENCE, theirs.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"question");
    // A half-close: the other direction goes on.
    theirs.write_all(b"answer").await.unwrap();
    theirs.shutdown().await.unwrap();
    got.clear();
    timeout(PATIENCE, ours.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"answer");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_goes_away_resets_the_other() {
    let (_lone, ours, mut theirs) = connected(1 << 16).await;
    drop(ours);
    let read = timeout(PATIENCE, theirs.read(&mut [0])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// The session's last word was lost: only ABORT left.
// protocol: S16, U23
#[tokio::test(start_paused = true)]
async fn who_sends_what_is_no_session_hears_reset_and_the_end() {
    let [near, mut far] = tunnel(1 << 16);
    let mut first = Vec::new();
    client(PORT).take_far(&mut first);
    let (_lone, _far_rx) = answers(near, first);
    far.outgoing.say(&Word::Data(&[0xff; 100])).await.unwrap();
    far.outgoing.flush().await.unwrap();
    let mut said = Vec::new();
    let last = loop {
        match hears(&mut far).await {
            Some(Word::Data(bytes)) => said.extend_from_slice(bytes),
            other => break other.map(|word| word.kind()),
        }
    };
    let (mut rest, mut word) = (&said[..], None);
    while let Some((message, length)) = Message::read(rest).unwrap() {
        word = Some(message);
        rest = &rest[length..];
    }
    assert_eq!(word, Some(Message::Reset(ResetCode::Protocol)));
    assert_eq!(last, Some(CellKind::End));
}

/// The other end's END may never come: a tunnel was held for ever.
#[tokio::test(start_paused = true)]
async fn an_end_that_has_said_all_does_not_wait_for_ever() {
    let [near, mut far] = tunnel(1 << 16);
    let mut first = Vec::new();
    client(PORT + 1).take_far(&mut first);
    let (_lone, _far_rx) = answers(near, first);
    while hears(&mut far).await != Some(Word::End) {}
    let begun = Instant::now();
    assert_eq!(hears(&mut far).await, None);
    assert!(begun.elapsed() >= LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_proves_nothing_has_a_minute() {
    let [near, mut far] = tunnel(1 << 16);
    let mut first = Vec::new();
    client(PORT).take_far(&mut first);
    let (_lone, _far_rx) = answers(near, first);
    let begun = Instant::now();
    let last = loop {
        match hears(&mut far).await {
            Some(Word::Data(_)) => {}
            other => break other,
        }
    };
    assert_eq!(last, Some(Word::Abort(Reason::GoingAway)));
    assert!((PROOF_PATIENCE..PROOF_PATIENCE + LINGER).contains(&begun.elapsed()));
}

/// A connection that stands: the program's end, and the far end's tunnel and session.
async fn half_connected() -> (Box<dyn Stream>, Tunnel, Session) {
    let [mut far, near] = tunnel(1 << 16);
    let answer = tokio::spawn(connect(client(PORT), near, None, None));
    let server = proven(&mut far).await;
    (answer.await.unwrap().expect("accepted"), far, server)
}

/// The far end's session, once the client has proven itself to it.
async fn proven(far: &mut Tunnel) -> Session {
    let mut server = Session::accept(key(1));
    let mut proven = false;
    while !proven {
        hear(&mut server, far).await;
        while let Some(event) = server.poll() {
            match event {
                Event::Hello { .. } => server.verdict(true).unwrap(),
                Event::Peer { .. } => proven = true,
                _ => {}
            }
        }
        say(&mut server, far).await;
    }
    server
}

/// A connect whose answer was there already was ended in the middle, without a word: its server waited for the session to go on.
// protocol: S15
#[tokio::test]
async fn who_gives_up_when_the_server_has_had_the_proof_resets() {
    let [mut far, near] = tunnel(1 << 16);
    let mut asks = Box::pin(connect(client(PORT), near, None, None));
    assert!((&mut asks).now_or_never().is_none());
    let mut server = proven(&mut far).await;
    drop(asks);
    while server.poll() != Some(Event::Reset) {
        hear(&mut server, &mut far).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_connect_that_is_given_up_before_the_server_hears_nothing_more() {
    let [mut far, near] = tunnel(1 << 16);
    let mut asks = Box::pin(connect(client(PORT), near, None, None));
    assert!((&mut asks).now_or_never().is_none());
    let mut server = Session::accept(key(1));
    while !matches!(server.poll(), Some(Event::Hello { .. })) {
        hear(&mut server, &mut far).await;
    }
    server.verdict(true).unwrap();
    drop(asks);
    tokio::task::yield_now().await;
    // The tunnel may be gone by now; if not, this is what would be answered.
    let _ = far.outgoing.write_data(&said(&mut server)).await;
    let _ = far.outgoing.flush().await;
    assert_eq!(hears(&mut far).await, None);
}

/// Whatever ends a tunnel before both sessions have ended, where there is no way to another: a reset, after the bytes that came before.
// protocol: U25
#[tokio::test]
async fn a_tunnel_that_ends_and_has_no_other_is_a_reset() {
    for end in ["nothing more", "END", "ABORT"] {
        let (mut stream, mut far, mut server) = half_connected().await;
        server.app_input(b"before").unwrap();
        let mut said = Vec::new();
        server.take_far(&mut said);
        far.outgoing.write_data(&said).await.unwrap();
        match end {
            "END" => far.outgoing.write(CellKind::End, &[]).await.unwrap(),
            "ABORT" => far.outgoing.write(CellKind::Abort, &[2]).await.unwrap(),
            _ => {}
        }
        far.outgoing.flush().await.unwrap();
        let mut before = [0; 6];
        stream.read_exact(&mut before).await.unwrap();
        let far = (end != "nothing more").then_some(far);
        let read = timeout(LINGER, stream.read(&mut [0; 9])).await.expect("it hears of it");
        assert_eq!(read.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset), "{end}");
        drop(far);
    }
}

// protocol: U29
#[tokio::test(start_paused = true)]
async fn a_cell_that_does_not_belong_ends_the_connection_with_abort_alone() {
    let [near, mut far] = tunnel(1 << 16);
    let (_lone, _far_rx) = answers(near, Vec::new());
    far.outgoing.say(&Word::Found(b"record")).await.unwrap();
    far.outgoing.flush().await.unwrap();
    assert_eq!(hears(&mut far).await, Some(Word::Abort(Reason::Protocol)));
    assert_eq!(hears(&mut far).await, None);
}

/// A server as tunnels arrive for it, and its program.
struct Served {
    _lone: Lone,
    network: Arc<Network>,
    incoming_tx: mpsc::Sender<ForIdentity>,
    far_rx: mpsc::Receiver<Box<dyn Stream>>,
}

impl Served {
    fn new() -> Self {
        let (lone, (incoming_tx, incoming_rx)) = (lone::driver(), mpsc::channel(8));
        let network = Network::start(lone.handle.clone(), incoming_rx);
        let (far_tx, far_rx) = mpsc::channel(4);
        network.receive(key(1), Arc::new(Program(far_tx)));
        Self { _lone: lone, network, incoming_tx, far_rx }
    }

    /// The client's end of a tunnel that arrives with these bytes.
    async fn arrives(&self, first: Vec<u8>) -> Tunnel {
        let [near, far] = tunnel(1 << 16);
        let arrival = Arrival { identity: address(1), path: None, tunnel: near, first };
        self.incoming_tx.send(ForIdentity::Arrival(Box::new(arrival))).await.unwrap();
        far
    }

    /// A session that stands, the program's end of it, and the client's tunnel.
    async fn connected(&mut self) -> (Session, Box<dyn Stream>, Tunnel) {
        let mut session = client(PORT);
        let mut far = self.arrives(said(&mut session)).await;
        while session.poll() != Some(Event::Accepted) {
            hear(&mut session, &mut far).await;
        }
        say(&mut session, &mut far).await;
        (session, self.far_rx.recv().await.expect("its program"), far)
    }
}

fn said(session: &mut Session) -> Vec<u8> {
    let mut out = Vec::new();
    session.take_far(&mut out);
    out
}

async fn say(session: &mut Session, tunnel: &mut Tunnel) {
    tunnel.outgoing.write_data(&said(session)).await.unwrap();
    tunnel.outgoing.flush().await.unwrap();
}

/// Takes one cell with bytes of the session.
async fn hear(session: &mut Session, tunnel: &mut Tunnel) {
    let Some(Word::Data(bytes)) = hears(tunnel).await else { panic!("the tunnel ended") };
    session.far_input(bytes).unwrap();
}

/// What a client's program has had, when it is so much.
async fn got(session: &mut Session, tunnel: &mut Tunnel, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        session.take_app(&mut got);
        if got.len() >= count {
            return got;
        }
        hear(session, tunnel).await;
    }
}

/// The flight with which a client that has lost its tunnel goes on.
fn resumes(session: &mut Session) -> Vec<u8> {
    session.far_lost();
    session.resume().unwrap();
    said(session)
}

// protocol: S15, S31, S34, S35
#[tokio::test(start_paused = true)]
async fn a_servers_program_does_not_see_that_a_tunnel_was_lost() {
    let mut served = Served::new();
    let (mut session, mut program, far) = served.connected().await;
    for lost in ["its link broke", "it still seems to stand"] {
        let before = (lost != "its link broke").then_some(&far);
        program.write_all(b"answer").await.unwrap();
        session.app_input(b"question").unwrap();
        said(&mut session);
        let mut far = served.arrives(resumes(&mut session)).await;
        let mut question = [0; 8];
        timeout(PATIENCE, program.read_exact(&mut question)).await.unwrap().unwrap();
        assert_eq!((&question, got(&mut session, &mut far, 6).await), (b"question", b"answer".to_vec()), "{lost}");
        assert!(session.is_proven());
        drop((before, far));
    }
    assert_eq!(session.attempt(), 2);
}

/// Whoever was on the way of an attempt may repeat it: he hears nothing, and the session stays where it is.
// protocol: S34, S38
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_repeated_or_forged_changes_nothing() {
    let mut served = Served::new();
    let (mut session, mut program, far) = served.connected().await;
    drop(far);
    let flight = resumes(&mut session);
    let mut forged = flight.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let nothing = served.arrives(forged).await;
    let mut far = served.arrives(flight.clone()).await;
    let again = served.arrives(flight).await;
    for mut other in [nothing, again] {
        let heard = hears(&mut other).await;
        assert!(matches!(heard, None | Some(Word::Abort(Reason::Protocol))), "{heard:?}");
    }
    program.write_all(b"answer").await.unwrap();
    assert_eq!(got(&mut session, &mut far, 6).await, b"answer");
}

/// A server that knows nothing of an attempt says so, a few times; to who does not know the address it says nothing at all.
// protocol: S31, S38
#[tokio::test(start_paused = true)]
async fn what_a_server_does_not_know_is_gone() {
    let mut served = Served::new();
    let (mut session, _program, _far) = served.connected().await;
    served.network.close(address(1)).await;
    served.network.receive(key(1), Arc::new(Program(mpsc::channel(1).0)));
    let flight = resumes(&mut session);
    let mut stranger = flight.clone();
    stranger[3 + 16] ^= 1;
    assert!(asked(&key(1).verifying_key(), &stranger).is_none());
    let mut unheard = served.arrives(stranger).await;
    let mut answered = 0;
    for _ in 0..10 {
        let mut far = served.arrives(flight.clone()).await;
        let Some(Word::Data(gone)) = hears(&mut far).await else { continue };
        answered += 1;
        session.far_input(gone).unwrap();
    }
    assert_eq!((answered, session.poll()), (4, Some(Event::Reset)));
    let begun = Instant::now();
    assert_eq!(hears(&mut unheard).await, Some(Word::Abort(Reason::GoingAway)));
    assert!(begun.elapsed() >= PROOF_PATIENCE / 2, "as whoever proves nothing");
}

/// A client that has not heard how its session ended hears it when it comes again.
// protocol: S39
#[tokio::test(start_paused = true)]
async fn an_end_that_got_lost_is_told_to_a_client_that_comes_again() {
    let mut served = Served::new();
    let (mut session, program, far) = served.connected().await;
    drop(far);
    // Nobody can be told of this reset now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(program);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut far = served.arrives(resumes(&mut session)).await;
    hear(&mut session, &mut far).await;
    assert!(session.is_proven(), "it is not just gone");
    assert_eq!((session.poll(), session.is_over()), (Some(Event::Reset), true));
    assert_eq!(hears(&mut far).await, Some(Word::End));
}

/// A server whose client does not come again gives up, soon when it holds much for it; when it holds little, computers may sleep.
// protocol: S40
#[tokio::test(start_paused = true)]
async fn a_session_whose_client_does_not_come_again_ends() {
    for (count, gives_up) in [(200_000, true), (10, false)] {
        let mut served = Served::new();
        let (mut session, mut program, far) = served.connected().await;
        program.write_all(&vec![7; count]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(far);
        let end = timeout(RESUME_LIMIT * 3, program.read(&mut [0])).await;
        assert_eq!(end.is_ok(), gives_up);
        if let Ok(end) = end {
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        } else {
            let mut far = served.arrives(resumes(&mut session)).await;
            assert_eq!(got(&mut session, &mut far, count).await.len(), count);
        }
    }
}

/// Whoever sends much that a program does not read, and vanishes, had it kept for a day: the memory was the server's alone.
// protocol: S40
#[tokio::test(start_paused = true)]
async fn what_a_program_has_not_read_is_much_as_well() {
    let mut served = Served::new();
    let (mut session, program, mut far) = served.connected().await;
    for _ in 0..8 {
        session.app_input(&[7; APP_CHUNK]).unwrap();
        say(&mut session, &mut far).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(far);
    tokio::time::sleep(RESUME_LIMIT * 3).await;
    let flight = resumes(&mut session);
    let mut far = served.arrives(flight).await;
    hear(&mut session, &mut far).await;
    assert!(session.is_over() && session.poll() == Some(Event::Reset), "it is given up");
    drop(program);
}

/// I7: who opens sessions and vanishes, again and again.
// protocol: S43
#[tokio::test(start_paused = true)]
async fn of_those_that_wait_for_their_clients_the_oldest_goes() {
    let mut served = Served::new();
    let sessions = lock(&served.network.identities)[&address(1)].sessions.clone();
    let (_first, mut program, far) = served.connected().await;
    drop(far);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(timeout(RESUME_LIMIT * 3, program.read(&mut [0])).await.is_err(), "it waits");
    let _others: Vec<_> = (1..WAITING_SESSIONS).map(|_| sessions.waiting.enter()).collect();
    let (mut second, _program, far) = served.connected().await;
    drop(far);
    let end = timeout(PATIENCE, program.read(&mut [0])).await.expect("it goes");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut far = served.arrives(resumes(&mut second)).await;
    hear(&mut second, &mut far).await;
    assert!(second.is_proven() && !second.is_over());
}
