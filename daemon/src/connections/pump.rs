//! Moves bytes between a session and its tunnel and program. One task owns all three.
//!
//! ```text
//!   program ──read──▶ ┌─────────┐ ──cells──▶ tunnel ✗
//!           ◀─write── │ session │ ◀──cells──
//!                     └─────────┘ ─ ─ ─ ─ ─▶ the next
//! ```
//!
//! Each turn does whatever can be done next, and nothing that may have to wait is done alone, so that neither direction holds up the
//! other. The tunnel is a field like any: when it is lost, a client's pump looks for another while the program waits, a server's is
//! brought one.

mod bequest;
mod moves;
mod role;
mod silence;
mod waits;
mod way;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use phantom_proto::session::{Event, Session, SessionError};
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;
use tokio::io::{AsyncReadExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::kept::{Course, Estate};
use super::redial::{self, Redial};
use super::sessions::Share;
use super::stream::{Ends, pair};
use super::unproven::Place;
use super::{Programs, Traffic};
use crate::clock::Since;
use crate::far::{ConnectError, Stream};
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

pub(super) use bequest::{Continued, deliver_rest, go_on};
pub(super) use role::ForProgram;
pub use role::Incoming;
use role::{Role, Server, Verdict};
use silence::{ACK_WITHIN, CARRIED, DOUBLED_MOST, SILENCE, STILL_THERE, drawn};
use waits::{
    Came, either, search, until, until_evicted, until_given_up, until_known, until_resumed, until_stopped, when, write,
};
pub(super) use way::Over;
use way::{Run, Way, arrive, directions, flush};

/// Read from the program at once.
const APP_CHUNK: usize = 64 * 1024;

/// Bytes for the tunnel that may wait for it before the program is not read any more.
const FAR_BACKLOG: usize = 1024 * 1024;

/// Cells taken from the tunnel before the other direction gets its turn: a batch of the link's.
const AT_ONCE: usize = 16;

/// How long a client may take from the tunnel to the proof of its address: a slow handshake over slow paths.
// protocol: U17
const PROOF_PATIENCE: Duration = Duration::from_secs(60);

/// How long a program whose queue is full may take to make room: longer than any client waits, so that it is the one that
/// gives up, and takes the silence for what it is.
const ROOM_PATIENCE: Duration = Duration::from_secs(70);

/// How long the other end's END may take after both streams are over.
const LINGER: Duration = Duration::from_secs(10);

/// How long a program may take nothing of what came before a reset; what it has not taken then is thrown away.
// protocol: S46
const UNREAD_LIMIT: Duration = Duration::from_secs(120);

/// When sessions that all together keep too much look whether others have become smaller.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a session that waits so looks how late it is: its timer stands still while the computer sleeps.
const LATE_LOOK: Duration = Duration::from_secs(30);

/// Carries a client's session; resolves when the far end has answered.
pub(super) async fn connect(
    session: Session,
    tunnel: Tunnel,
    over: Option<Over>,
    program: Option<ForProgram>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let (answer_tx, answer_rx) = oneshot::channel();
    let (stream, app, ends) = pair();
    let traffic = program.as_ref().and_then(|program| program.entry.traffic());
    let (mut entry, mut redial, mut shared) = (None, None, None);
    if let Some(program) = program {
        (entry, redial) = (Some(program.entry), Some(Box::new(program.redial)));
        shared = Some((program.share, program.course_rx));
    }
    let role = Role::Client { answer_tx: Some(answer_tx), entry, redial };
    let mut pump = Pump::new(session, Some(Way::new(tunnel, over)), app, ends, role, traffic);
    if let Some((share, course_rx)) = shared {
        (pump.share, pump.course_rx) = (share, Some(course_rx));
    }
    tokio::spawn(pump.carry());
    // The task is gone without an answer: the tunnel broke.
    answer_rx.await.unwrap_or(Err(ConnectError::Unreachable))?;
    Ok(Box::new(stream))
}

/// Carries a server's session, whose first bytes came with the tunnel.
pub(super) async fn answer(
    session: Session,
    tunnel: Tunnel,
    first: Vec<u8>,
    programs: Arc<dyn Programs>,
    incoming: Incoming,
) {
    let (stream, app, ends) = pair();
    let network = incoming.network.clone();
    let over = incoming.path.as_ref().map(|path| Over { handle: network.handle.clone(), path: path.no });
    let (stream, proof_due) = (Some(stream), Instant::now() + PROOF_PATIENCE);
    let server = Server { programs, incoming, stream, proof_due, entry: None, listed: None };
    let way = Way { heard: true, ..Way::new(tunnel, over) };
    let mut pump = Pump::new(session, Some(way), app, ends, Role::Server(server), None);
    pump.share = Share::of(network.budget.clone());
    pump.course_rx = Some(network.course_tx.subscribe());
    pump.first = first;
    pump.carry().await;
}

/// The ends of the program's stream.
struct App {
    read: ReadHalf<DuplexStream>,
    /// `None`: the program takes no more, or has everything.
    write: Option<WriteHalf<DuplexStream>>,
    /// It sends no more.
    ended: bool,
    ends: Arc<Ends>,
}

/// A client on its way to another tunnel.
type Searching = Pin<Box<dyn Future<Output = (Box<Redial>, Option<redial::Found>)> + Send>>;

struct Pump {
    session: Session,
    /// `None`: lost, and there is no other yet.
    way: Option<Way>,
    /// Since when the other end has not been heard of on any.
    lost: Option<Since>,
    searching: Option<Searching>,
    /// What came of the last tunnel.
    left: Option<&'static str>,
    /// When what has come is acknowledged at the latest.
    ack_at: Option<Instant>,
    /// Tunnels in a row that were left for their silence.
    silences: u32,
    /// A server's place among those that wait for their clients.
    waiting: Option<(Place, oneshot::Receiver<()>)>,
    app: App,
    role: Role,
    traffic: Option<Arc<Traffic>>,
    share: Share,
    /// Says when the daemon stops or hands over, which waits until all of these are gone.
    course_rx: Option<watch::Receiver<Course>>,
    stopping: bool,
    /// To whom it is left, once it is; or once the client has proven itself, until then.
    heir: Option<Estate>,
    proof_awaited: Option<(Estate, Instant)>,
    /// Whose turn it is when both the far end and the program have said something.
    far_is_next: bool,
    /// Bytes of the session that came with the tunnel.
    first: Vec<u8>,
    to_app: Run,
    /// The session does not hold: its last word says so.
    faulty: bool,
    /// Until it is there, nothing is read from the tunnel.
    verdict: Option<Verdict>,
}

/// What a turn has led to.
enum Turn {
    Goes,
    Over,
}

impl Pump {
    fn new(
        session: Session,
        way: Option<Way>,
        app: DuplexStream,
        ends: Arc<Ends>,
        role: Role,
        traffic: Option<Arc<Traffic>>,
    ) -> Self {
        let (read, write) = tokio::io::split(app);
        Self {
            session,
            way,
            lost: None,
            searching: None,
            left: None,
            ack_at: None,
            silences: 0,
            waiting: None,
            app: App { read, write: Some(write), ended: false, ends },
            role,
            traffic,
            share: Share::default(),
            course_rx: None,
            stopping: false,
            heir: None,
            proof_awaited: None,
            far_is_next: true,
            first: Vec::new(),
            to_app: Run::default(),
            faulty: false,
            verdict: None,
        }
    }

    async fn carry(mut self) {
        let result = self.run().await;
        if let Some(heir) = self.heir.take() {
            return self.bequeath(&heir).await;
        }
        if result.is_err() {
            self.app.ends.reset();
            self.session.give_up();
        }
        self.role.over(&self.session);
        if result.is_err() {
            self.role.say(Err(ConnectError::Unreachable));
        }
        let leaves = leave(self.way.take(), &mut self.session, result, self.faulty);
        // What came before the end is still the program's, if it reads.
        let delivers = async move {
            self.deliver().await;
            if let Some(heir) = self.heir.take() {
                self.bequeath(&heir).await;
            }
            // The connection is over for people, too; only its tunnel may linger.
        };
        tokio::join!(leaves, delivers);
    }

    /// Until both streams and both ends of the tunnel are over.
    async fn run(&mut self) -> Result<(), RelayError> {
        let mut chunk = vec![0; APP_CHUNK];
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            let taken = self.session.far_input(&first);
            self.far_took(taken)?;
        }
        loop {
            let turn = match self.turn(&mut chunk).await {
                Err(error) => self.lose(error).await?,
                Ok(turn) => turn,
            };
            if matches!(turn, Turn::Over) {
                return Ok(());
            }
        }
    }

    /// Does the next thing that can be done.
    async fn turn(&mut self, chunk: &mut [u8]) -> Result<Turn, RelayError> {
        // Whatever else was there in the same moment: nothing of it leaves.
        if self.role.is_given_up() {
            return self.given_up();
        }
        if let Some(turn) = self.leaves_if_proven().await? {
            return Ok(turn);
        }
        self.fill()?;
        if self.way.as_ref().is_some_and(Way::is_over) {
            return Ok(Turn::Over);
        }
        let (held, unread) = (self.session.held(), self.session.unread());
        self.share.hold(held + unread);
        let (keeps, takes) = (self.share.has_room(held), self.share.has_room(unread));
        self.expect(takes);
        let room =
            keeps && self.session.wants_app() && (self.way.is_none() || self.session.far_waiting() < FAR_BACKLOG);
        let hears = takes && self.verdict.is_none() && self.way.as_ref().is_some_and(|way| !way.end_heard);
        let flushes = self.way.as_ref().is_some_and(|way| way.unflushed);
        let lingers = self.app.ended && !self.session.is_over();
        let for_app = !self.to_app.rest().is_empty() || self.session.app_is_over();
        let due = self.proof_due().into_iter().chain(self.due()).min();
        if due.is_some_and(|due| due <= Instant::now()) {
            return self.was_due();
        }
        let (incoming, outgoing) = directions(&mut self.way);
        let (listed, asked) = self.role.waits();
        let far = when(hears, arrive(incoming));
        let app = when(room && !self.app.ended, self.app.read.read(chunk));
        // First what is rare, then what makes room, then what fills it, from the far end and the program by turns.
        tokio::select! {
            biased;
            () = until_given_up(asked) => return self.given_up(),
            resumption = until_resumed(listed) => return self.resumed(resumption),
            () = until_evicted(self.waiting.as_mut()) => return Err(RelayError::TimedOut),
            course = until_stopped(self.course_rx.as_mut()), if !self.stopping => return self.is_to_end(course).await,
            listens = until_known(self.verdict.as_mut()), if self.verdict.is_some() => {
                self.verdict = None;
                self.judged(listens?)?;
            }
            (redial, found) = search(self.searching.as_mut()), if self.searching.is_some() => {
                self.searching = None;
                self.found(redial, found)?;
            }
            () = until(self.ack_at) => {
                self.ack_at = None;
                self.session.acknowledge_all();
            }
            flushed = flush(outgoing), if flushes => {
                flushed?;
                if let Some(way) = &mut self.way {
                    way.unflushed = false;
                    way.silence.took();
                    way.end_left = way.end_said.then(Instant::now);
                }
            }
            count = write(self.app.write.as_mut(), self.to_app.rest()), if for_app && self.app.write.is_some() => self.app_took(count),
            // It has half-closed or reset; what it does until the far end has ended, too, is a reset.
            () = self.app.ends.gone(), if lingers => self.session.app_abort(),
            came = either(self.far_is_next, far, app) => {
                self.far_is_next = matches!(came, Came::App(_));
                match came {
                    Came::Far(arrived) => {
                        arrived?;
                        self.hear().await?;
                    }
                    Came::App(count) => self.app_said(&chunk[..count?])?,
                }
            }
            () = until(due) => return self.was_due(),
            () = sleep(LOOK_AGAIN), if !(keeps && takes) => {}
        }
        Ok(Turn::Goes)
    }

    /// The server has had no proof yet, and is to have none.
    fn given_up(&mut self) -> Result<Turn, RelayError> {
        self.way = None;
        Err(RelayError::Ended)
    }

    /// Moves what the session has to where it goes, as far as there is room.
    fn fill(&mut self) -> Result<(), RelayError> {
        if let Some(way) = &mut self.way {
            way.fill(&mut self.session)?;
        }
        if self.session.is_over() {
            self.role.over(&self.session);
        }
        if self.app.write.is_some() {
            self.to_app.next(|bytes| self.session.take_app(bytes));
        }
        Ok(())
    }

    /// By when this end says what has come, and the other must; `takes`: what comes is read.
    // protocol: S45, S47, S48
    fn expect(&mut self, takes: bool) {
        let Some(way) = self.way.as_mut().filter(|_| self.session.secret().is_some()) else {
            self.ack_at = None;
            return;
        };
        way.silence.owes(self.session.is_owed());
        // The other end is told that this one is there, and is heard by nobody meanwhile.
        let within = match (takes, self.session.has_unsaid()) {
            (_, true) => Some(ACK_WITHIN),
            (false, false) => Some(STILL_THERE),
            (true, false) => None,
        };
        if !takes {
            way.silence.broke();
        }
        self.ack_at = within.map(|within| self.ack_at.unwrap_or_else(|| Instant::now() + drawn(within)));
    }

    /// Takes the cells that have arrived, but not so many that all else would wait.
    // protocol: U29
    async fn hear(&mut self) -> Result<(), RelayError> {
        for _ in 0..AT_ONCE {
            let Some(way) = &mut self.way else { break };
            let (kind, data) = way.tunnel.incoming.read().await?.ok_or(RelayError::Ended)?;
            way.heard = true;
            match Word::read(kind, data) {
                Ok(Word::Data(bytes)) => {
                    let taken = self.session.far_input(bytes);
                    self.far_took(taken)?;
                    self.showed_life();
                }
                Ok(Word::Padding) => {}
                Ok(Word::End) if self.session.is_over() => way.end_heard = true,
                Ok(Word::End) => return Err(RelayError::Aborted(Reason::Unreachable)),
                Ok(Word::Abort(reason)) => {
                    self.role.say(Err(refusal(reason)));
                    return Err(RelayError::Aborted(reason));
                }
                _ => return Err(RelayError::Misbehaved("a cell that does not belong here")),
            }
            let more = self.way.as_ref().is_some_and(|way| !way.end_heard && way.tunnel.incoming.has_frame());
            if self.verdict.is_some() || !more {
                break;
            }
        }
        self.answered();
        Ok(())
    }

    /// Something has come; whether it is of the other end is seen when it opens.
    fn showed_life(&mut self) {
        let opened = self.session.has_opened();
        if let Some(way) = self.way.as_mut().filter(|_| opened) {
            way.silence.broke();
            if way.begun.elapsed() >= CARRIED {
                self.silences = 0;
            }
        }
    }

    /// When a tunnel on which an answer is owed has been silent for too long.
    // protocol: S48
    fn suspected_at(&self, way: &Way) -> Option<Instant> {
        let [client, server] = SILENCE;
        let limit = if matches!(self.role, Role::Client { .. }) { client } else { server };
        way.silence.is_too_long_at(limit * (1 << self.silences.min(DOUBLED_MOST)))
    }

    /// When something must have happened: a proof, an answer, another tunnel, or the other end's END.
    fn due(&self) -> Option<Instant> {
        let Some(way) = &self.way else { return Some(Instant::now() + self.left_to_wait()?.min(LATE_LOOK)) };
        match &self.role {
            _ if way.end_said => way.end_left.map(|left| left + LINGER),
            Role::Server(server) if server.entry.is_none() && self.verdict.is_none() => Some(server.proof_due),
            Role::Client { redial: Some(redial), .. } if self.lost.is_some() => Some(way.begun + redial.patience()),
            _ => self.suspected_at(way),
        }
    }

    fn was_due(&mut self) -> Result<Turn, RelayError> {
        match &self.way {
            // Where END has left, the other one may be missing.
            Some(way) if way.end_said => Ok(Turn::Over),
            Some(way) => {
                let suspected = self.lost.is_none() && self.suspected_at(way).is_some_and(|at| at <= Instant::now());
                self.silences += u32::from(suspected);
                Err(RelayError::TimedOut)
            }
            None if self.left_to_wait().is_some_and(|left| !left.is_zero()) => Ok(Turn::Goes),
            None => Err(RelayError::TimedOut),
        }
    }

    /// Gives the program what there is for it, and its end.
    // protocol: S46
    async fn deliver(&mut self) {
        while self.app.write.is_some() && !self.stopping {
            self.to_app.next(|bytes| self.session.take_app(bytes));
            self.share.hold(self.session.unread());
            let due = self.app.ends.is_reset().then(|| Instant::now() + UNREAD_LIMIT);
            tokio::select! {
                biased;
                count = write(self.app.write.as_mut(), self.to_app.rest()) => self.app_took(count),
                () = until(due) => return,
                course = until_stopped(self.course_rx.as_mut()) => {
                    self.stopping = true;
                    match course {
                        Course::HandsOver(heir) => self.heir = Some(heir),
                        _ => self.app.ends.reset(),
                    }
                }
            }
        }
    }

    /// The session has had bytes from the tunnel. What it has to say goes out even when it is its last word.
    fn far_took(&mut self, taken: Result<(), SessionError>) -> Result<(), RelayError> {
        self.events();
        match taken {
            Ok(()) => Ok(()),
            Err(SessionError::Lost(why)) => Err(RelayError::Misbehaved(why)),
            Err(_) => {
                self.faulty = true;
                Err(RelayError::Misbehaved("the session does not hold"))
            }
        }
    }

    /// Does what the session asks for.
    fn events(&mut self) {
        while let Some(event) = self.session.poll() {
            match (event, &mut self.role) {
                (Event::Accepted, role) => role.say(Ok(())),
                (Event::Refused, role) => role.say(Err(ConnectError::Refused)),
                (Event::Hello { port }, Role::Server(server)) => {
                    let programs = server.programs.clone();
                    self.verdict = Some(Box::pin(async move {
                        // A program without room for one more is as silent as a kernel.
                        let listens = timeout(ROOM_PATIENCE, programs.listens(port));
                        listens.await.map_err(|_| RelayError::TimedOut)
                    }));
                }
                (Event::Peer { address, src_port, dst_port }, Role::Server(server)) => {
                    if server.enters(&self.session) {
                        self.traffic = server.serve(address, src_port, dst_port);
                    } else {
                        // Its client was told that there is no such session, and may have asked again since.
                        self.session.app_abort();
                    }
                }
                (Event::Reset, _) => self.app.ends.reset(),
                // Noticed when there is nothing more for the program; a session gives each side its own events only.
                (Event::End | Event::Hello { .. } | Event::Peer { .. }, _) => {}
            }
        }
    }

    /// It is known whether a program listens.
    fn judged(&mut self, listens: bool) -> Result<(), RelayError> {
        if let Role::Server(server) = &mut self.role {
            server.proof_due = Instant::now() + PROOF_PATIENCE;
        }
        let taken = self.session.verdict(listens);
        self.far_took(taken)
    }

    /// The program sent this, or nothing any more.
    fn app_said(&mut self, bytes: &[u8]) -> Result<(), RelayError> {
        let taken = match bytes {
            [] if self.app.ends.aborted() => {
                self.session.app_abort();
                Ok(())
            }
            [] => self.session.app_end(),
            bytes => self.session.app_input(bytes),
        };
        self.app.ended |= bytes.is_empty();
        if let Some(traffic) = &self.traffic {
            traffic.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        taken.map_err(|_| {
            self.faulty = true;
            RelayError::Misbehaved("the session does not hold")
        })
    }

    /// The program has taken so many bytes; none: that was the end. It may be gone, and then reading from it says so.
    fn app_took(&mut self, count: io::Result<usize>) {
        let count = count.unwrap_or(0);
        if count == 0 {
            self.app.write = None;
            return;
        }
        self.to_app.gone += count;
        self.session.app_took(count);
        if let Some(traffic) = &self.traffic {
            traffic.received.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

/// Leaves the last tunnel of a session, after its end.
fn leave(
    way: Option<Way>,
    session: &mut Session,
    result: Result<(), RelayError>,
    faulty: bool,
) -> impl Future<Output = ()> + Send + use<> {
    let mut last = Vec::new();
    if let Some(way) = way.as_ref().filter(|_| faulty) {
        last.extend_from_slice(way.to_far.rest());
        session.take_far(&mut last);
    }
    async move {
        match (result, way) {
            (Ok(()), Some(way)) => way.tunnel.close().await,
            // The other end broke the session: it hears RESET, behind what was said before, and that this is the end.
            (Err(_), Some(way)) if faulty => say_last(way.tunnel, last).await,
            (Err(error), Some(mut way)) => {
                tracing::debug!(%error, "a session ended");
                way.blame(&error).await;
                way.abort(&error).await;
            }
            (_, None) => {}
        }
    }
}

/// Says this as the last on a tunnel.
// protocol: U23
pub(super) async fn say_last(mut tunnel: Tunnel, bytes: Vec<u8>) {
    let last = async {
        tunnel.outgoing.write_data(&bytes).await?;
        tunnel.outgoing.say(&Word::End).await?;
        tunnel.outgoing.flush().await
    };
    // A neighbour that reads nothing must not hold the tunnel.
    if matches!(timeout(LINGER, last).await, Ok(Ok(()))) {
        tunnel.close().await;
    }
}

// protocol: S23
fn refusal(reason: Reason) -> ConnectError {
    match reason {
        Reason::NoSuchAddress | Reason::Unreachable | Reason::Protocol => ConnectError::Unreachable,
        Reason::Busy | Reason::GoingAway | Reason::Expired => ConnectError::TimedOut,
    }
}

#[cfg(test)]
mod tests;
