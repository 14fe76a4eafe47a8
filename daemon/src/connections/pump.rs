//! Moves bytes between a session and its tunnel and program. One task owns all three.
//!
//! ```text
//!   program ──read──▶ ┌─────────┐ ──cells──▶ tunnel
//!           ◀─write── │ session │ ◀──cells──
//!                     └─────────┘
//! ```
//!
//! Each turn does whatever can be done next, and nothing that may have to wait is done alone, so that neither direction holds up the
//! other. The tunnel is a field like any: what the session keeps can go on over another.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use phantom_proto::cell::CELL_DATA_MAX;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::PathNo;
use phantom_proto::session::{Event, Session};
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::stream::{Ends, SessionStream, pair};
use super::unproven::Place;
use super::{Connection, ConnectionEntry, Network, Programs, Traffic};
use crate::driver::{Handle, OwnPath};
use crate::gate::{ConnectError, Stream};
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

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

/// An own path, whose nodes answer for noise on its tunnels.
pub(super) struct Over {
    pub(super) handle: Handle,
    pub(super) path: PathNo,
}

/// Carries a client's session, with its line in the list if it is a program's; resolves when the far end has answered.
pub(super) async fn connect(
    session: Session,
    tunnel: Tunnel,
    over: Option<Over>,
    entry: Option<ConnectionEntry>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let (answer_tx, answer_rx) = oneshot::channel();
    let (stream, app, ends) = pair();
    let traffic = entry.as_ref().and_then(ConnectionEntry::traffic);
    let role = Role::Client { answer_tx: Some(answer_tx), _entry: entry };
    let mut pump = Pump::new(session, tunnel, app, ends, role, traffic);
    pump.over = over;
    let carrying = tokio::spawn(pump.carry());
    let unanswered = Unanswered(Some(carrying.abort_handle()));
    // The task is gone without an answer: the tunnel broke.
    let answer = answer_rx.await.unwrap_or(Err(ConnectError::Unreachable));
    unanswered.over();
    answer?;
    Ok(Box::new(stream))
}

/// Ends a session for whose answer nobody waits any more: without it, a far end that stays silent would hold it for ever.
struct Unanswered(Option<tokio::task::AbortHandle>);

impl Unanswered {
    /// The answer is there: from now on the session ends by itself.
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(carrying) = self.0.take() {
            carrying.abort();
        }
    }
}

/// What is known of a connection that arrives.
pub struct Incoming {
    pub(super) address: ApAddress,
    pub(super) path: Option<OwnPath>,
    pub(super) network: Arc<Network>,
    /// A place among those who have not proven anything yet.
    pub(super) place: Option<Place>,
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
    let over = incoming.path.as_ref().map(|path| Over { handle: incoming.network.handle.clone(), path: path.no });
    let server =
        Server { programs, incoming, stream: Some(stream), proof_due: Instant::now() + PROOF_PATIENCE, entry: None };
    let mut pump = Pump::new(session, tunnel, app, ends, Role::Server(server), None);
    (pump.over, pump.heard) = (over, true);
    pump.first = first;
    pump.carry().await;
}

/// Which end of the connection this is.
enum Role {
    Client {
        /// The answer to a connect, sent once.
        answer_tx: Option<oneshot::Sender<Result<(), ConnectError>>>,
        /// The connection's line in the list, as long as it lives.
        _entry: Option<ConnectionEntry>,
    },
    Server(Server),
}

struct Server {
    programs: Arc<dyn Programs>,
    incoming: Incoming,
    /// For the program, once the client has proven its address.
    stream: Option<SessionStream>,
    /// When the client must have proven it.
    proof_due: Instant,
    /// The connection's line in the list, once it has.
    entry: Option<ConnectionEntry>,
}

impl Role {
    fn say(&mut self, answer: Result<(), ConnectError>) {
        if let Self::Client { answer_tx, .. } = self
            && let Some(answer_tx) = answer_tx.take()
        {
            // Whoever asked may have given up.
            let _ = answer_tx.send(answer);
        }
    }
}

/// Whether a program listens; or nobody could say in time.
type Verdict = Pin<Box<dyn Future<Output = Result<bool, RelayError>> + Send>>;

/// Bytes on their way, of which some have gone.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    gone: usize,
}

impl Run {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// Takes the next ones when all have gone.
    fn next(&mut self, take: impl FnOnce(&mut Vec<u8>)) {
        if self.gone == self.bytes.len() {
            self.bytes.clear();
            self.gone = 0;
            take(&mut self.bytes);
        }
    }
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

struct Pump {
    session: Session,
    tunnel: Tunnel,
    app: App,
    role: Role,
    traffic: Option<Arc<Traffic>>,
    over: Option<Over>,
    /// A cell has come.
    heard: bool,
    /// Bytes of the session that came with the tunnel.
    first: Vec<u8>,
    to_far: Run,
    to_app: Run,
    /// Cells wait to leave.
    unflushed: bool,
    end_said: bool,
    /// When END had left.
    end_left: Option<Instant>,
    end_heard: bool,
    /// The session does not hold: its last word says so.
    faulty: bool,
    /// Until it is there, nothing is read from the tunnel.
    verdict: Option<Verdict>,
}

impl Pump {
    fn new(
        session: Session,
        tunnel: Tunnel,
        app: DuplexStream,
        ends: Arc<Ends>,
        role: Role,
        traffic: Option<Arc<Traffic>>,
    ) -> Self {
        let (read, write) = tokio::io::split(app);
        Self {
            session,
            tunnel,
            app: App { read, write: Some(write), ended: false, ends },
            role,
            traffic,
            over: None,
            heard: false,
            first: Vec::new(),
            to_far: Run::default(),
            to_app: Run::default(),
            // OPEN and what follows it are written, and have not left.
            unflushed: true,
            end_said: false,
            end_left: None,
            end_heard: false,
            faulty: false,
            verdict: None,
        }
    }

    async fn carry(mut self) {
        let result = self.run().await;
        if result.is_err() {
            self.app.ends.reset();
            self.session.give_up();
        }
        // What came before the break is still the program's, if it reads.
        let limit = if result.is_err() { LINGER } else { Duration::MAX };
        let _ = timeout(limit, self.deliver()).await;
        let Self { session, tunnel, mut role, over, to_far, faulty, heard, .. } = self;
        if let Err(error) = result {
            tracing::debug!(%error, "a session ended");
            match (&error, over) {
                (RelayError::Noise, Some(Over { handle, path })) => handle.noise(path).await,
                // An exit that reaches nobody says so.
                (RelayError::Link(_) | RelayError::Ended, Some(Over { handle, path })) if !heard => {
                    handle.broke(path).await
                }
                _ => {}
            }
            role.say(Err(ConnectError::Unreachable));
            drop(role);
            if faulty {
                return say_last(tunnel, session, to_far).await;
            }
            let misbehaved = matches!(error, RelayError::Misbehaved(_) | RelayError::Noise);
            return tunnel.abort(if misbehaved { Reason::Protocol } else { Reason::GoingAway }).await;
        }
        // The connection is over for people, too; only its tunnel lingers.
        drop(role);
        tunnel.close().await;
    }

    /// Until both streams and both ends of the tunnel are over.
    async fn run(&mut self) -> Result<(), RelayError> {
        let mut chunk = vec![0; APP_CHUNK];
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            let taken = self.session.far_input(&first);
            self.far_took(taken.is_ok())?;
        }
        loop {
            self.fill()?;
            if self.end_said && self.end_heard && !self.unflushed {
                return Ok(());
            }
            let room = self.session.wants_app() && self.session.far_waiting() < FAR_BACKLOG;
            let hears = self.verdict.is_none() && !self.end_heard;
            let lingers = self.app.ended && !self.session.is_over();
            let for_app = !self.to_app.rest().is_empty() || self.session.app_is_over();
            let due = self.due();
            tokio::select! {
                arrived = self.tunnel.incoming.arrive(), if hears => {
                    arrived?;
                    self.hear().await?;
                }
                flushed = self.tunnel.outgoing.flush(), if self.unflushed => {
                    flushed?;
                    self.unflushed = false;
                    self.end_left = self.end_said.then(Instant::now);
                }
                count = self.app.read.read(&mut chunk), if room && !self.app.ended => self.app_said(&chunk[..count?])?,
                count = write(self.app.write.as_mut(), self.to_app.rest()), if for_app && self.app.write.is_some() => self.app_took(count),
                // It has half-closed or reset; what it does until the far end has ended, too, is a reset.
                () = self.app.ends.gone(), if lingers => self.session.app_abort(),
                listens = until_known(self.verdict.as_mut()), if self.verdict.is_some() => {
                    self.verdict = None;
                    self.judged(listens?)?;
                }
                // Where END has left, the other one may be missing.
                () = until(due) => return if self.end_said { Ok(()) } else { Err(RelayError::TimedOut) },
            }
        }
    }

    /// Moves what the session has to where it goes, as far as there is room.
    // protocol: U23
    fn fill(&mut self) -> Result<(), RelayError> {
        let Self { session, tunnel, to_far, to_app, .. } = self;
        let outgoing = &mut tunnel.outgoing;
        while !outgoing.is_full() {
            to_far.next(|bytes| session.take_far(bytes));
            let rest = to_far.rest();
            let part = &rest[..rest.len().min(CELL_DATA_MAX)];
            if !part.is_empty() {
                outgoing.queue(&Word::Data(part))?;
                to_far.gone += part.len();
            } else if session.is_over() && !self.end_said {
                outgoing.queue(&Word::End)?;
                self.end_said = true;
            } else {
                break;
            }
            self.unflushed = true;
        }
        if self.app.write.is_some() {
            to_app.next(|bytes| session.take_app(bytes));
        }
        Ok(())
    }

    /// Takes the cells that have arrived, but not so many that all else would wait.
    // protocol: U29
    async fn hear(&mut self) -> Result<(), RelayError> {
        for _ in 0..AT_ONCE {
            let (kind, data) = self.tunnel.incoming.read().await?.ok_or(RelayError::Ended)?;
            self.heard = true;
            match Word::read(kind, data) {
                Ok(Word::Data(bytes)) => {
                    let taken = self.session.far_input(bytes);
                    self.far_took(taken.is_ok())?;
                }
                Ok(Word::Padding) => {}
                Ok(Word::End) if self.session.is_over() => self.end_heard = true,
                Ok(Word::End) => return Err(RelayError::Ended),
                Ok(Word::Abort(reason)) => {
                    self.role.say(Err(refusal(reason)));
                    return Err(RelayError::Aborted(reason));
                }
                _ => return Err(RelayError::Misbehaved("a cell that does not belong here")),
            }
            if self.verdict.is_some() || self.end_heard || !self.tunnel.incoming.has_frame() {
                break;
            }
        }
        Ok(())
    }

    /// When something must have happened: a proof, or the other end's END.
    fn due(&self) -> Option<Instant> {
        match &self.role {
            _ if self.end_said => self.end_left.map(|left| left + LINGER),
            Role::Server(server) if server.entry.is_none() && self.verdict.is_none() => Some(server.proof_due),
            _ => None,
        }
    }

    /// Gives the program what there is for it, and its end.
    async fn deliver(&mut self) {
        while self.app.write.is_some() {
            self.to_app.next(|bytes| self.session.take_app(bytes));
            let count = write(self.app.write.as_mut(), self.to_app.rest()).await;
            self.app_took(count);
        }
    }

    /// The session has had bytes from the tunnel. What it has to say goes out even when it is its last word.
    fn far_took(&mut self, holds: bool) -> Result<(), RelayError> {
        self.events();
        self.faulty |= !holds;
        if holds { Ok(()) } else { Err(RelayError::Misbehaved("the session does not hold")) }
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
                    self.traffic = server.serve(address, src_port, dst_port);
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
        self.far_took(taken.is_ok())
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
        taken.map_err(|_| RelayError::Misbehaved("the session does not hold"))
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

impl Server {
    /// Hands the connection to its program; what counts its bytes.
    fn serve(&mut self, peer: ApAddress, src_port: u16, port: u16) -> Option<Arc<Traffic>> {
        let Incoming { address, path, network, place } = &mut self.incoming;
        drop(place.take());
        if let Some(stream) = self.stream.take() {
            let programs = self.programs.clone();
            tokio::spawn(async move { programs.serve(peer, src_port, port, Box::new(stream)).await });
        }
        let entry = network.remember(Connection::new(*address, peer, port, true, path.clone()));
        let traffic = entry.traffic();
        self.entry = Some(entry);
        traffic
    }
}

/// The other end broke the session: it hears RESET, behind what was said before, and that this is the end.
// protocol: U23
async fn say_last(mut tunnel: Tunnel, mut session: Session, mut to_far: Run) {
    let last = async {
        tunnel.outgoing.write_data(to_far.rest()).await?;
        to_far = Run::default();
        to_far.next(|bytes| session.take_far(bytes));
        tunnel.outgoing.write_data(to_far.rest()).await?;
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

/// Some of these bytes; without any, the end of the stream.
async fn write(write: Option<&mut WriteHalf<DuplexStream>>, bytes: &[u8]) -> io::Result<usize> {
    match write {
        Some(write) if bytes.is_empty() => write.shutdown().await.map(|()| 0),
        Some(write) => write.write(bytes).await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn until_known(verdict: Option<&mut Verdict>) -> Result<bool, RelayError> {
    match verdict {
        Some(verdict) => verdict.await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
