//! Moves bytes between a session and its tunnel and program. Two tasks share the session: one reads the tunnel, one the program;
//! a third writes the tunnel, so that neither direction can hold up the other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use phantom_proto::ident::ApAddress;
use phantom_proto::session::{Event, Session};
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::{Ends, SessionStream, pair};
use super::unproven::Place;
use super::{Connection, ConnectionEntry, Network, Programs, Traffic, lock};
use crate::driver::OwnPath;
use crate::gate::{ConnectError, Stream};
use crate::relay::RelayError;
use crate::relay::cells::{CellReader, CellWriter, Tunnel};

/// Read from the program at once.
const APP_CHUNK: usize = 64 * 1024;

/// Bytes for the tunnel that may wait for it before the program is not read any more.
const FAR_BACKLOG: usize = 1024 * 1024;

/// How long a client may take from the tunnel to the proof of its address: a slow handshake over slow paths.
// protocol: U17
const PROOF_PATIENCE: Duration = Duration::from_secs(60);

/// How long a program whose queue is full may take to make room: longer than any client waits, so that it is the one that
/// gives up, and takes the silence for what it is.
const ROOM_PATIENCE: Duration = Duration::from_secs(70);

/// How long the other end's END may take after both streams are over.
const LINGER: Duration = Duration::from_secs(10);

/// Session and what moves it.
struct Shared {
    session: Mutex<Session>,
    /// Something for the tunnel waits.
    far_ready: Notify,
    /// Room for the program's bytes may have come.
    room: Notify,
    /// Bytes for the program wait, or its end.
    app_ready: Notify,
    traffic: OnceLock<Arc<Traffic>>,
}

impl Shared {
    fn new(session: Session) -> Arc<Self> {
        Arc::new(Self {
            session: Mutex::new(session),
            far_ready: Notify::new(),
            room: Notify::new(),
            app_ready: Notify::new(),
            traffic: OnceLock::new(),
        })
    }
}

impl Shared {
    fn count(&self, traffic: Option<Arc<Traffic>>) {
        if let Some(traffic) = traffic {
            // Set once: a session is one connection.
            let _ = self.traffic.set(traffic);
        }
    }
}

/// The answer to a connect, sent once.
type Answer = Mutex<Option<oneshot::Sender<Result<(), ConnectError>>>>;

/// Carries a client's session, with its line in the list if it is a program's; resolves when the far end has answered.
pub(super) async fn connect(
    session: Session,
    tunnel: Tunnel,
    entry: Option<ConnectionEntry>,
) -> Result<Box<dyn Stream>, ConnectError> {
    let (answer_tx, answer_rx) = oneshot::channel();
    let (stream, app, ends) = pair();
    let shared = Shared::new(session);
    shared.count(entry.as_ref().and_then(ConnectionEntry::traffic));
    let client = Client { answer: Mutex::new(Some(answer_tx)), _entry: entry };
    let carrying = tokio::spawn(carry(shared, tunnel, Vec::new(), app, ends, Role::Client(client)));
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
    pub(super) place: Mutex<Option<Place>>,
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
    let shared = Shared::new(session);
    let server = Server { programs, incoming, stream: Mutex::new(Some(stream)) };
    carry(shared, tunnel, first, app, ends, Role::Server(server)).await;
}

struct Client {
    answer: Answer,
    /// The connection's line in the list, as long as it lives.
    _entry: Option<ConnectionEntry>,
}

struct Server {
    programs: Arc<dyn Programs>,
    incoming: Incoming,
    stream: Mutex<Option<SessionStream>>,
}

enum Role {
    Client(Client),
    Server(Server),
}

async fn carry(
    shared: Arc<Shared>,
    mut tunnel: Tunnel,
    first: Vec<u8>,
    app: DuplexStream,
    ends: Arc<Ends>,
    role: Role,
) {
    let (app_read, app_write) = tokio::io::split(app);
    let result = {
        let moving = async {
            tokio::try_join!(
                from_far(&shared, first, &mut tunnel.incoming, &role, &ends),
                to_far(&shared, &mut tunnel.outgoing),
                from_app(&shared, app_read, &ends)
            )
        };
        tokio::pin!(moving);
        let to_app = to_app(&shared, app_write);
        tokio::pin!(to_app);
        let mut delivered = false;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut moving => break result,
                () = &mut to_app, if !delivered => delivered = true,
            }
        };
        if result.is_err() {
            ends.reset();
            lock(&shared.session).far_closed();
            shared.app_ready.notify_one();
        }
        if !delivered {
            // What came before the break is still the program's, if it reads.
            let limit = if result.is_err() { LINGER } else { Duration::MAX };
            let _ = timeout(limit, to_app).await;
        }
        result
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a session ended");
        role.fail();
        drop(role);
        let reason = if matches!(error, RelayError::Misbehaved(_)) { Reason::Protocol } else { Reason::GoingAway };
        tunnel.abort(reason).await;
        return;
    }
    // The connection is over for people, too; only its tunnel lingers.
    drop(role);
    tunnel.close().await;
}

impl Role {
    fn fail(&self) {
        if let Self::Client(client) = self {
            client.say(Err(ConnectError::Unreachable));
        }
    }
}

impl Client {
    fn say(&self, answer: Result<(), ConnectError>) {
        if let Some(answer_tx) = lock(&self.answer).take() {
            // Whoever asked may have given up.
            let _ = answer_tx.send(answer);
        }
    }
}

/// Tunnel to session, until the session or the tunnel ends.
// protocol: U29
async fn from_far(
    shared: &Shared,
    first: Vec<u8>,
    incoming: &mut CellReader,
    role: &Role,
    ends: &Ends,
) -> Result<(), RelayError> {
    let mut connection = None;
    let mut proof_due = Instant::now() + PROOF_PATIENCE;
    if !first.is_empty() && far_bytes(shared, &first, role, ends, &mut connection).await? {
        proof_due = Instant::now() + PROOF_PATIENCE;
    }
    loop {
        let unproven = matches!(role, Role::Server(_)) && connection.is_none();
        let cell = if unproven {
            timeout_at(proof_due, incoming.read()).await.map_err(|_| RelayError::TimedOut)?
        } else {
            incoming.read().await
        };
        let (kind, data) = cell?.ok_or(RelayError::Ended)?;
        match (Word::read(kind, data), role) {
            (Ok(Word::Data(bytes)), _) => {
                if far_bytes(shared, bytes, role, ends, &mut connection).await? {
                    proof_due = Instant::now() + PROOF_PATIENCE;
                }
            }
            (Ok(Word::Abort(reason)), role) => {
                if let Role::Client(client) = role {
                    client.say(Err(refusal(reason)));
                }
                return Err(RelayError::Aborted(reason));
            }
            (Ok(Word::Padding), _) => {}
            (Ok(Word::End), _) => {
                let whole = lock(&shared.session).is_over();
                return if whole { Ok(()) } else { Err(RelayError::Ended) };
            }
            _ => return Err(RelayError::Misbehaved("a cell that does not belong here")),
        }
    }
}

/// Bytes of the session; says whether they led to the answer to a HELLO.
async fn far_bytes(
    shared: &Shared,
    bytes: &[u8],
    role: &Role,
    ends: &Ends,
    connection: &mut Option<ConnectionEntry>,
) -> Result<bool, RelayError> {
    let result = lock(&shared.session).far_input(bytes);
    // What the session has to say goes out even when it is its last word.
    let answered = events(shared, role, ends, connection).await?;
    shared.far_ready.notify_one();
    shared.room.notify_one();
    shared.app_ready.notify_one();
    result.map_err(|_| RelayError::Misbehaved("the session does not hold"))?;
    Ok(answered)
}

// protocol: S23
fn refusal(reason: Reason) -> ConnectError {
    match reason {
        Reason::NoSuchAddress | Reason::Unreachable | Reason::Protocol => ConnectError::Unreachable,
        Reason::Busy | Reason::GoingAway | Reason::Expired => ConnectError::TimedOut,
    }
}

/// Does what the session asks for; says whether it was the answer to a HELLO.
async fn events(
    shared: &Shared,
    role: &Role,
    ends: &Ends,
    connection: &mut Option<ConnectionEntry>,
) -> Result<bool, RelayError> {
    let mut answered = false;
    loop {
        let Some(event) = lock(&shared.session).poll() else { return Ok(answered) };
        match (event, role) {
            (Event::Accepted, Role::Client(client)) => client.say(Ok(())),
            (Event::Refused, Role::Client(client)) => client.say(Err(ConnectError::Refused)),
            (Event::Hello { port }, Role::Server(server)) => {
                // A program without room for one more is as silent as a kernel.
                let listens = timeout(ROOM_PATIENCE, server.programs.listens(port));
                let listens = listens.await.map_err(|_| RelayError::TimedOut)?;
                answered = true;
                // A TLS that does not hold shows at the next bytes.
                let _ = lock(&shared.session).verdict(listens);
            }
            (Event::Peer { address, src_port, dst_port }, Role::Server(server)) => {
                let entry = server.serve(address, src_port, dst_port);
                shared.count(entry.traffic());
                *connection = Some(entry);
            }
            (Event::Reset, _) => ends.reset(),
            // Noticed by to_app.
            (Event::End, _) => {}
            // A session gives each side its own events only.
            _ => {}
        }
    }
}

impl Server {
    fn serve(&self, peer: ApAddress, src_port: u16, port: u16) -> ConnectionEntry {
        let Incoming { address, path, network, place } = &self.incoming;
        drop(lock(place).take());
        if let Some(stream) = lock(&self.stream).take() {
            let programs = self.programs.clone();
            tokio::spawn(async move { programs.serve(peer, src_port, port, Box::new(stream)).await });
        }
        network.remember(Connection::new(*address, peer, port, true, path.clone()))
    }
}

/// Session to tunnel, until the session is over and all is sent.
// protocol: U23
async fn to_far(shared: &Shared, outgoing: &mut CellWriter) -> Result<(), RelayError> {
    let mut bytes = Vec::new();
    loop {
        let ready = shared.far_ready.notified();
        let over = {
            let mut session = lock(&shared.session);
            session.take_far(&mut bytes);
            session.is_over()
        };
        shared.room.notify_one();
        if !bytes.is_empty() {
            outgoing.write_data(&bytes).await?;
            bytes.clear();
        } else if over {
            outgoing.say(&Word::End).await?;
            return outgoing.flush().await;
        } else {
            outgoing.flush().await?;
            ready.await;
        }
    }
}

/// Program to session, until the program's end.
async fn from_app(shared: &Shared, mut app: ReadHalf<DuplexStream>, ends: &Ends) -> Result<(), RelayError> {
    let mut chunk = vec![0; APP_CHUNK];
    loop {
        if !wait_for_room(shared).await {
            return Ok(());
        }
        let count = app.read(&mut chunk).await?;
        let result = {
            let mut session = lock(&shared.session);
            match count {
                0 if ends.aborted() => {
                    session.app_abort();
                    Ok(())
                }
                0 => session.app_end(),
                count => session.app_input(&chunk[..count]),
            }
        };
        if let Some(traffic) = shared.traffic.get() {
            traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        shared.far_ready.notify_one();
        shared.app_ready.notify_one();
        result.map_err(|_| RelayError::Misbehaved("the session does not hold"))?;
        if count == 0 {
            after_app_end(shared, ends).await;
            return Ok(());
        }
    }
}

/// The program has half-closed or reset; what it does until the far end has ended, too, is a reset.
async fn after_app_end(shared: &Shared, ends: &Ends) {
    loop {
        let news = shared.room.notified();
        if lock(&shared.session).is_over() {
            return;
        }
        tokio::select! {
            () = ends.gone() => break,
            () = news => {}
        }
    }
    {
        let mut session = lock(&shared.session);
        if !session.is_over() {
            session.app_abort();
        }
    }
    shared.far_ready.notify_one();
    shared.app_ready.notify_one();
}

/// False: the session takes nothing any more.
async fn wait_for_room(shared: &Shared) -> bool {
    loop {
        let room = shared.room.notified();
        {
            let session = lock(&shared.session);
            if session.is_over() {
                return false;
            }
            if session.wants_app() && session.far_waiting() < FAR_BACKLOG {
                return true;
            }
        }
        room.await;
    }
}

/// Session to program, until the far end's end.
async fn to_app(shared: &Shared, mut app: WriteHalf<DuplexStream>) {
    let mut bytes = Vec::new();
    loop {
        let ready = shared.app_ready.notified();
        let ended = {
            let mut session = lock(&shared.session);
            session.take_app(&mut bytes);
            session.app_is_over()
        };
        if !bytes.is_empty() {
            let written = app.write_all(&bytes).await;
            lock(&shared.session).app_took(bytes.len());
            if let Some(traffic) = shared.traffic.get() {
                traffic.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            shared.far_ready.notify_one();
            bytes.clear();
            // The program is gone: from_app learns it and says so to the far end.
            if written.is_err() {
                return;
            }
        } else if ended {
            // As above.
            let _ = app.shutdown().await;
            return;
        } else {
            ready.await;
        }
    }
}
