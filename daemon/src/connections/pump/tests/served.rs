//! A server's sessions that lose their tunnels, and what strangers bring on others.

use phantom_proto::session::asked;

use super::moves::RESUME_LIMIT;
use super::silence::TAKES;
use super::*;
use crate::clock;
use crate::connections::sessions::{Resumption, Share, WAITING_SESSIONS};
use crate::connections::{ForIdentity, Network, again, lock};
use crate::driver::Arrival;

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

/// The request was heard, though its client had been told that there is no such session, and had asked again.
// protocol: S44
#[tokio::test(start_paused = true)]
async fn what_a_server_said_to_be_gone_is_not_heard_when_it_comes_late() {
    for is_denied in [true, false] {
        let mut served = Served::new();
        let mut session = client(PORT);
        let mut far = served.arrives(said(&mut session)).await;
        while session.poll() != Some(Event::Accepted) {
            hear(&mut session, &mut far).await;
        }
        session.app_input(b"request").unwrap();
        // A node on the way keeps this, and breaks the tunnel off.
        let late = said(&mut session);
        if is_denied {
            let flight = resumes(&mut session);
            hear(&mut session, &mut served.arrives(flight).await).await;
            assert_eq!(session.poll(), Some(Event::Reset), "it is gone");
        }
        far.outgoing.write_data(&late).await.unwrap();
        far.outgoing.flush().await.unwrap();
        let program = timeout(PROOF_PATIENCE * 2, served.far_rx.recv()).await;
        assert_eq!(program.is_err(), is_denied);
    }
}

/// Whoever has seen an attempt filled its session's queue with copies, and the client's next one found no room.
// protocol: S34
#[tokio::test(start_paused = true)]
async fn copies_of_an_attempt_and_forged_ones_do_not_keep_the_next_out() {
    let mut served = Served::new();
    let (mut session, mut program, _far) = served.connected().await;
    let (seen, next) = (resumes(&mut session), resumes(&mut session));
    let mut forged = next.clone();
    *forged.last_mut().unwrap() ^= 1;
    let identity = lock(&served.network.identities)[&address(1)].clone();
    // All of them before the session's task has its turn.
    let arrives = |flight: &[u8]| {
        let [tunnel, far] = tunnel(1 << 16);
        let asked = asked(&key(1).verifying_key(), flight).unwrap();
        let bytes = asked.rest.to_vec();
        again(&identity, &asked.id, Resumption { tunnel, path: None, attempt: 0, bytes });
        far
    };
    let _copies: Vec<_> = [&forged, &seen].into_iter().cycle().take(12).map(|flight| arrives(flight)).collect();
    let mut far = arrives(&next);
    program.write_all(b"answer").await.unwrap();
    assert_eq!(got(&mut session, &mut far, 6).await, b"answer");
}

/// A client that has not heard how its session ended hears it when it comes again.
// protocol: S39
#[tokio::test(start_paused = true)]
async fn an_end_that_got_lost_is_told_to_a_client_that_comes_again() {
    let mut served = Served::new();
    let (mut session, program, far) = served.connected().await;
    drop(far);
    // Nobody can be told of this reset now.
    sleep(Duration::from_secs(1)).await;
    drop(program);
    sleep(Duration::from_secs(1)).await;
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
        sleep(Duration::from_secs(1)).await;
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

/// A computer that sleeps waits no longer than one that is awake: timers stand still meanwhile, and a client is long gone.
// protocol: S40
#[tokio::test(start_paused = true)]
async fn a_servers_sleep_counts_as_time_in_which_its_client_did_not_come() {
    for (count, slept, gives_up) in [(200_000, 80, false), (200_000, 3600, true), (10, 3600, false), (10, 90_000, true)]
    {
        let mut served = Served::new();
        let (_session, mut program, far) = served.connected().await;
        program.write_all(&vec![7; count]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(far);
        sleep(Duration::from_secs(1)).await;
        clock::sleep_for(Duration::from_secs(slept));
        let end = timeout(LATE_LOOK + Duration::from_secs(1), program.read(&mut [0])).await;
        assert_eq!(end.is_ok(), gives_up, "{count} bytes, {slept} s");
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
    sleep(Duration::from_secs(1)).await;
    drop(far);
    sleep(RESUME_LIMIT * 3).await;
    let flight = resumes(&mut session);
    let mut far = served.arrives(flight).await;
    hear(&mut session, &mut far).await;
    assert!(session.is_over() && session.poll() == Some(Event::Reset), "it is given up");
    drop(program);
}

/// A server's session whose client has sent so much, which its program does not read.
async fn unread(served: &mut Served, count: usize) -> (Session, Box<dyn Stream>, Tunnel) {
    let (mut session, program, mut far) = served.connected().await;
    for _ in 0..count / APP_CHUNK {
        session.app_input(&[7; APP_CHUNK]).unwrap();
        say(&mut session, &mut far).await;
    }
    sleep(Duration::from_secs(1)).await;
    (session, program, far)
}

/// I7: whoever sends much and resets had it kept as long as a program pleased, and its tunnel with it.
// protocol: S46
#[tokio::test(start_paused = true)]
async fn what_came_before_a_reset_waits_for_a_program_that_reads_and_not_for_another() {
    for reads in [true, false] {
        let mut served = Served::new();
        let (mut session, mut program, mut far) = unread(&mut served, 16 * APP_CHUNK).await;
        session.app_abort();
        say(&mut session, &mut far).await;
        // Its tunnel ends whatever the program does.
        far.outgoing.say(&Word::End).await.unwrap();
        far.outgoing.flush().await.unwrap();
        while timeout(PATIENCE, hears(&mut far)).await.expect("it ends").is_some() {}
        let mut got = 0;
        let mut part = vec![0; APP_CHUNK];
        if !reads {
            sleep(UNREAD_LIMIT * 2).await;
        }
        let end = loop {
            sleep(UNREAD_LIMIT / 2).await;
            match program.read(&mut part).await {
                Ok(count) => got += count,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!((end, got == 16 * APP_CHUNK), (io::ErrorKind::ConnectionReset, reads), "{got}");
    }
}

/// I7: many clients that send to programs which do not read.
// protocol: S45
#[tokio::test(start_paused = true)]
async fn when_all_keep_much_a_tunnel_is_not_read_for_a_program_that_takes_nothing() {
    let mut served = Served::new();
    let (mut session, mut program, mut far) = unread(&mut served, 8 * APP_CHUNK).await;
    let mut others = Share::of(served.network.budget.clone());
    others.hold(1 << 40);
    for _ in 0..8 {
        session.app_input(&[7; APP_CHUNK]).unwrap();
    }
    let flight = said(&mut session);
    let sent = timeout(PATIENCE, async {
        far.outgoing.write_data(&flight).await?;
        far.outgoing.flush().await
    });
    assert!(sent.await.is_err(), "it is not taken");
    drop(others);
    let mut all = vec![0; 8 * APP_CHUNK];
    timeout(PATIENCE, program.read_exact(&mut all)).await.unwrap().unwrap();
}

/// I7: who opens sessions and vanishes, again and again.
// protocol: S43
#[tokio::test(start_paused = true)]
async fn of_those_that_wait_for_their_clients_the_oldest_goes() {
    let mut served = Served::new();
    let sessions = lock(&served.network.identities)[&address(1)].sessions.clone();
    let (_first, mut program, far) = served.connected().await;
    drop(far);
    sleep(Duration::from_secs(1)).await;
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

/// A terminating node that takes everything and passes nothing on, or one whose computer hangs: no link says so.
// protocol: S48
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_says_nothing_while_an_answer_is_owed_is_left() {
    let mut served = Served::new();
    let (mut session, mut program, mut far) = served.connected().await;
    // An idle one is nothing to wonder at.
    sleep(SILENCE[1] * 10).await;
    program.write_all(b"answer").await.unwrap();
    assert_eq!(got(&mut session, &mut far, 6).await, b"answer");
    let begun = Instant::now();
    assert_eq!(hears(&mut far).await, Some(Word::Abort(Reason::GoingAway)));
    assert!((SILENCE[1]..SILENCE[1] * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // It goes on where it was.
    let mut far = served.arrives(resumes(&mut session)).await;
    program.write_all(b"more").await.unwrap();
    assert_eq!(got(&mut session, &mut far, 4).await, b"more");
    // This one is given twice the time: perhaps it is slow, and not dead.
    let begun = Instant::now();
    assert_eq!(hears(&mut far).await, Some(Word::Abort(Reason::GoingAway)));
    assert!((SILENCE[1] * 2..SILENCE[1] * 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Whoever swallows what he should pass on takes all that a program writes now and then, and could have kept a session for hours.
// protocol: S48
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_takes_everything_and_says_nothing_is_left() {
    for dribbles in [false, true] {
        let mut served = Served::new();
        let (mut session, mut program, mut far) = served.connected().await;
        let writes = tokio::spawn(async move {
            while program.write_all(b"more").await.is_ok() {
                sleep(SILENCE[1] / 9 * 2).await;
            }
        });
        session.app_input(&[7; 4000]).unwrap();
        let message = said(&mut session);
        let (begun, mut byte) = (Instant::now(), message.chunks(1));
        loop {
            // Bytes of a message that never is whole are no life.
            if let (true, Some(byte)) = (dribbles, byte.next()) {
                // It may be left in this moment; what was said there before is still to be heard.
                let _ = far.outgoing.write_data(byte).await;
                let _ = far.outgoing.flush().await;
            }
            if !matches!(hears(&mut far).await, Some(Word::Data(_))) {
                break;
            }
            assert!(begun.elapsed() < SILENCE[1] * TAKES * 2, "it stays");
        }
        assert!((SILENCE[1] * TAKES..SILENCE[1] * (TAKES + 1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        writes.abort();
    }
}

/// A node that keeps too much for its programs reads nothing, and neither leaves a tunnel for that nor has its client leave it.
// protocol: S45, S47, S48
#[tokio::test(start_paused = true)]
async fn an_end_that_reads_nothing_for_a_while_says_that_it_is_there() {
    let mut served = Served::new();
    let (mut session, mut program, mut far) = unread(&mut served, 8 * APP_CHUNK).await;
    let mut others = Share::of(served.network.budget.clone());
    others.hold(1 << 40);
    // Of which it does not hear that it has come.
    program.write_all(b"answer").await.unwrap();
    let (begun, mut heard) = (Instant::now(), Instant::now());
    while begun.elapsed() < SILENCE[1] * TAKES * 2 {
        hear(&mut session, &mut far).await;
        assert!(heard.elapsed() < SILENCE[0], "{:?}", heard.elapsed());
        heard = Instant::now();
    }
}
