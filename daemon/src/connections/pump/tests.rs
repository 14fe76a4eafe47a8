//! Two ends of a session over a tunnel in memory, or one end and what a hostile other one sends.

use async_trait::async_trait;
use futures::FutureExt;
use phantom_proto::cell::CellKind;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::wire::session::{Message, ResetCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;
use crate::assembly::lone::{self, Lone};
use crate::connections::Network;
use crate::relay::cells::pair as tunnel;

mod served;

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

/// Healthy silence: the program at the other end thinks for long about what it was asked.
// protocol: S47, S48
#[tokio::test(start_paused = true)]
async fn a_program_that_takes_its_time_costs_no_tunnel() {
    let (_lone, mut ours, mut theirs) = connected(1 << 16).await;
    ours.write_all(b"question").await.unwrap();
    let mut question = [0; 8];
    theirs.read_exact(&mut question).await.unwrap();
    // Without another tunnel, the loss of this one would be a reset.
    sleep(SILENCE[1] * 30).await;
    theirs.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    timeout(PATIENCE, ours.read_exact(&mut answer)).await.expect("in time").expect("it stands");
    // Nor does one that reads nothing.
    let much = vec![7; 100_000];
    ours.write_all(&much).await.unwrap();
    sleep(SILENCE[1] * 30).await;
    let mut got = vec![0; much.len()];
    theirs.read_exact(&mut got).await.expect("it stands");
}
