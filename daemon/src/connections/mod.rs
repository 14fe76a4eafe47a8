//! What a program's connection needs: an identity, a ready tunnel, a session; for connections out and in.

mod kept;
mod pump;
mod records;
mod redial;
mod sessions;
mod stream;
mod unproven;
mod visits;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::Work;
use phantom_proto::record::{ApRecord, RoutingEntry};
use phantom_proto::session::{self, Found, Session};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::cells::{Open, Word};
use phantom_proto::wire::frame::{Handle as EntryHandle, Reason};
use phantom_proto::wire::session::AttemptId;
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::driver::{Arrival, Handle, Incoming as ForIdentity, OwnPath};
use crate::far::{ConnectError, Stream};
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

use kept::Course;
use records::Records;
use redial::Redial;
use sessions::{Budget, Resumption, Sessions};
use unproven::Unproven;
use visits::Visits;

pub use kept::{Kept, Line};
pub use pump::Incoming;

/// How long a connection waits for a ready tunnel of its identity: the first one of a fresh identity may need a path build and
/// a retry.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(60);

/// Pause before another attempt when the far end's entry node has no tunnel to spare: that of a kernel's second SYN.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How long the far end may take to answer once the tunnel is there.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// How long the far end may take by one of its entry nodes while another has not been tried.
// protocol: U21
const ENTRY_PATIENCE: Duration = Duration::from_secs(15);

/// How long the record of an address whose entry nodes all fail is looked up again: its owner publishes another one 5 s after it has
/// lost the last of them, on average, if it has a spare path, and a build takes some seconds more.
// protocol: U22
const RENEWAL_PATIENCE: Duration = Duration::from_secs(15);

/// Connections remembered for `phantom connection list`.
const REMEMBERED: usize = 64;

/// Where connections that arrive for an identity go.
#[async_trait]
pub trait Programs: Send + Sync + 'static {
    /// Whether a program of the identity listens on the port; while its queue is full, the answer waits for room.
    async fn listens(&self, port: u16) -> bool;
    /// Connects to it from the peer's address, and carries bytes until the end.
    async fn serve(&self, peer: ApAddress, src_port: u16, port: u16, far: Box<dyn Stream>);
}

/// A connection, for people who want to see its way.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Own identity.
    pub identity: ApAddress,
    /// The other end.
    pub peer: ApAddress,
    /// Destination port.
    pub port: u16,
    /// Whether it came from there.
    pub incoming: bool,
    /// Own path that it uses.
    pub path: Option<OwnPath>,
    /// The other end's entry node that was chosen; only for outgoing connections.
    pub entry: Option<NodeContact>,
    /// How often it went on another way.
    pub moves: u32,
    /// Why it did so last, in words.
    pub last_move: Option<&'static str>,
    /// Whether it is still open.
    pub open: bool,
    /// When it began.
    pub since: Instant,
    /// Bytes of the programs.
    pub traffic: Arc<Traffic>,
}

impl Connection {
    fn new(identity: ApAddress, peer: ApAddress, port: u16, incoming: bool, path: Option<OwnPath>) -> Self {
        let (since, traffic) = (Instant::now(), Arc::default());
        let (entry, moves, last_move, open) = (None, 0, None, true);
        Self { identity, peer, port, incoming, path, entry, moves, last_move, open, since, traffic }
    }
}

/// Counts a connection's bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes from the local program.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes to the local program.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Connections {
    next: u64,
    /// Bytes from and to programs of connections that are not in the list any more.
    past: [u64; 2],
    list: BTreeMap<u64, Connection>,
}

impl Connections {
    fn forget(&mut self, id: u64) {
        if let Some(gone) = self.list.remove(&id) {
            self.past[0] += gone.traffic.sent();
            self.past[1] += gone.traffic.received();
        }
    }
}

/// All identities' connections over the network.
pub struct Network {
    handle: Handle,
    identities: Mutex<BTreeMap<ApAddress, Arc<Identity>>>,
    connections: Arc<Mutex<Connections>>,
    /// What sessions keep for their other ends.
    budget: Arc<Budget>,
    /// Whether the daemon stops or hands over; each session looks at it, as long as it lives.
    course_tx: watch::Sender<Course>,
    /// Whether sessions of the process before are still to come.
    expects: AtomicBool,
}

/// What an attempt is about.
struct Target<'a> {
    from: ApAddress,
    src_port: u16,
    record: &'a ApRecord,
    port: u16,
    steps: &'a Steps,
}

/// What a connection takes, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The other end's record, asked for over a path of the identity's own.
    #[default]
    Record,
    /// A tunnel of the identity's own.
    Path,
    /// The other end's answer, by one of its entry nodes.
    Answer,
}

/// In which step a connection is, or has failed: for people.
#[derive(Debug, Default)]
pub struct Steps(Mutex<Step>);

impl Steps {
    fn begin(&self, step: Step) {
        *lock(&self.0) = step;
    }

    /// The step of now.
    pub fn now(&self) -> Step {
        *lock(&self.0)
    }
}

/// One identity that is in use.
pub struct Identity {
    key: Arc<SigningKey>,
    programs: Arc<dyn Programs>,
    /// Where others are, as this identity has found it: another one that knew as much would be known to be its neighbour.
    records: Arc<Records>,
    /// Those who have arrived and not proven an address yet. Each identity has a bound of its own: what a stranger fills at one
    /// must not be felt at another.
    // protocol: U19
    unproven: Arc<Unproven>,
    /// Those who have, as they may come again over another tunnel.
    sessions: Arc<Sessions>,
    /// Own visits that are under way.
    visits: Arc<Visits>,
}

impl Network {
    /// Over the driver; answers what arrives on `incoming_rx`.
    pub fn start(handle: Handle, incoming_rx: mpsc::Receiver<ForIdentity>) -> Arc<Self> {
        let (identities, connections, budget, course_tx, expects) = Default::default();
        let network = Arc::new(Self { handle, identities, connections, budget, course_tx, expects });
        tokio::spawn(network.clone().answer(incoming_rx));
        network
    }

    /// Brings an identity into use: its exit path is prepared.
    pub async fn open(&self, key: Arc<SigningKey>, programs: Arc<dyn Programs>) {
        self.receive(key.clone(), programs);
        self.handle.want_exit(&key).await;
        self.forget_if_gone(ApAddress::of(&key.verifying_key())).await;
    }

    /// Brings an identity into use that only receives, or changes where its connections go: no exit path.
    pub fn receive(&self, key: Arc<SigningKey>, programs: Arc<dyn Programs>) {
        let address = ApAddress::of(&key.verifying_key());
        let mut identities = lock(&self.identities);
        let (records, unproven, sessions, visits) = match identities.get(&address).cloned() {
            Some(before) => {
                (before.records.clone(), before.unproven.clone(), before.sessions.clone(), before.visits.clone())
            }
            None => Default::default(),
        };
        identities.insert(address, Arc::new(Identity { key, programs, records, unproven, sessions, visits }));
    }

    /// A program of the identity listens: make it reachable.
    pub async fn publish(&self, address: ApAddress) {
        if let Some(identity) = self.identity(address) {
            self.handle.want_entry(identity.key.clone()).await;
            self.forget_if_gone(address).await;
        }
    }

    /// Before it is wanted, an identity's disk is asked; meanwhile it may have gone, and would be kept for ever.
    async fn forget_if_gone(&self, address: ApAddress) {
        if self.identity(address).is_none() {
            self.handle.forget(address).await;
        }
    }

    /// Takes an identity out of use; its paths are dropped.
    pub async fn close(&self, address: ApAddress) {
        if let Some(identity) = lock(&self.identities).remove(&address) {
            identity.sessions.close();
        }
        self.handle.forget(address).await;
    }

    /// Whether anything connects from this identity, or is reached at it.
    pub fn uses(&self, address: ApAddress) -> bool {
        self.identity(address).is_some()
    }

    /// Resets all sessions, as far as their other ends can be told now: who is not told waits for this daemon to come back.
    pub async fn stop(&self) {
        self.course_tx.send_replace(Course::Stops);
        self.course_tx.closed().await;
    }

    /// This computer is in another network: sessions that wait for a way try again, those of each identity after a time of its own.
    // protocol: S49
    pub fn try_again(&self) {
        for identity in lock(&self.identities).values() {
            let again = identity.records.again();
            let wait = redial::AGAIN.mul_f64(crate::random().random_range(0.0..1.0));
            tokio::spawn(async move {
                sleep(wait).await;
                again.notify_waiters();
            });
        }
    }

    /// The driver's handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Open and recent connections with their numbers, which stay theirs; oldest first.
    pub fn connections(&self) -> Vec<(u64, Connection)> {
        lock(&self.connections).list.iter().map(|(id, one)| (*id, one.clone())).collect()
    }

    /// How many connections there have been, and the bytes from and to programs.
    pub fn totals(&self) -> (u64, [u64; 2]) {
        let connections = lock(&self.connections);
        let [mut sent, mut received] = connections.past;
        for connection in connections.list.values() {
            sent += connection.traffic.sent();
            received += connection.traffic.received();
        }
        (connections.next, [sent, received])
    }

    /// Opens a connection; resolves when the far end has answered. Entry nodes are tried in random order. When none of them
    /// leads on, the record is looked up anew, for `RENEWAL_PATIENCE` since a newer one may be on its way, and entry nodes that
    /// are merely busy are asked again, as by a kernel whose SYN was lost: a program whose connect is not answered would wait
    /// for two minutes.
    pub async fn connect(
        &self,
        from: ApAddress,
        src_port: u16,
        to: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        self.connect_by(from, src_port, to, port, &Steps::default()).await
    }

    /// As [`Self::connect`], and says how far it came.
    pub async fn connect_by(
        &self,
        from: ApAddress,
        src_port: u16,
        to: ApAddress,
        port: u16,
        steps: &Steps,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let deadline = Instant::now() + TUNNEL_PATIENCE;
        let identity = self.identity(from).ok_or(ConnectError::Unreachable)?;
        let mut record = identity.records.find(&self.handle, from, to, deadline).await?;
        let renewal = deadline.min(Instant::now() + RENEWAL_PATIENCE);
        loop {
            let target = Target { from, src_port, record: &record, port, steps };
            let answer = self.try_entries(&identity, &target, deadline).await;
            let error = match answer {
                Err(error @ (ConnectError::TimedOut | ConnectError::Unreachable)) => error,
                answer => return answer,
            };
            let newer = identity.records.renew(&self.handle, from, &record, deadline).await;
            let newer = newer.inspect_err(|_| steps.begin(Step::Record))?;
            let same = newer.serial == record.serial;
            record = newer;
            if same {
                let until = if error == ConnectError::Unreachable { renewal } else { deadline };
                if Instant::now() + BUSY_PAUSE >= until {
                    return Err(error);
                }
                sleep(BUSY_PAUSE).await;
            }
        }
    }

    /// One round over the entries of a record; fails as the last of them did.
    async fn try_entries(
        &self,
        identity: &Identity,
        target: &Target<'_>,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let entries = records::usable(target.record);
        let (mut last, mut left) = (ConnectError::Unreachable, entries.len());
        for entry in entries {
            left -= 1;
            let limit = if left > 0 { ENTRY_PATIENCE } else { ANSWER_PATIENCE };
            match self.attempt(identity, target, &entry, deadline, limit).await {
                Err(error @ (ConnectError::TimedOut | ConnectError::Unreachable)) => last = error,
                answer => return answer,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    // protocol: U6
    async fn attempt(
        &self,
        identity: &Identity,
        target: &Target<'_>,
        entry: &RoutingEntry,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let Target { from, src_port, record, port, steps } = *target;
        let patience = deadline.saturating_duration_since(Instant::now());
        steps.begin(Step::Path);
        let tunnel = self.handle.tunnel(from, Work::Connect, patience).await;
        let (path, mut tunnel) = tunnel.map_err(|_| ConnectError::TimedOut)?;
        steps.begin(Step::Answer);
        let to = record.address();
        let session = Session::connect(&mut crate::random(), &identity.key, &record.key, port, src_port);
        let mut session = session.map_err(|_| ConnectError::Unreachable)?;
        let (opening, rest) = opening(&mut session, entry.entry_node.node_id(), entry.handle);
        open(&mut tunnel, opening, &rest).await.map_err(|_| ConnectError::Unreachable)?;
        let over = pump::Over { handle: self.handle.clone(), path: path.no };
        let mut connection = Connection::new(from, to, port, false, Some(path));
        connection.entry = Some(entry.entry_node.clone());
        let program = pump::ForProgram {
            entry: self.remember(connection),
            redial: Redial::new(self.handle.clone(), &identity.records, from, record.clone(), entry.handle),
            share: sessions::Share::of(self.budget.clone()),
            course_rx: self.course_tx.subscribe(),
        };
        let connect = pump::connect(session, tunnel, Some(over), Some(program));
        tokio::time::timeout(limit, connect).await.map_err(|_| ConnectError::TimedOut)?
    }

    async fn answer(self: Arc<Self>, mut incoming_rx: mpsc::Receiver<ForIdentity>) {
        while let Some(incoming) = incoming_rx.recv().await {
            let Arrival { identity: address, path, tunnel, first } = match incoming {
                ForIdentity::Arrival(arrival) => *arrival,
                ForIdentity::Visit(visit) => {
                    let identity = self.identity(visit.identity);
                    tokio::spawn(visits::visit(self.handle.clone(), identity, visit));
                    continue;
                }
                ForIdentity::LookUp(look) => {
                    tokio::spawn(visits::look_up(self.handle.clone(), look));
                    continue;
                }
            };
            // What was left to the next process is here no more, or not yet, and whoever came for it would be told that it is lost.
            // protocol: S51
            if matches!(*self.course_tx.borrow(), Course::HandsOver(_)) || self.expects.load(Ordering::Relaxed) {
                tokio::spawn(tunnel.abort(Reason::GoingAway));
                continue;
            }
            let Some(identity) = self.identity(address) else { continue };
            if let Some(asked) = session::asked(&identity.key.verifying_key(), &first) {
                let bytes = asked.rest.to_vec();
                again(&identity, &asked.id, Resumption { tunnel, path, attempt: 0, bytes });
                continue;
            }
            path.iter().for_each(|path| identity.visits.arrived(path.no, &first));
            let (place, evicted) = identity.unproven.enter();
            let sessions = identity.sessions.clone();
            let incoming = Incoming { address, path, network: self.clone(), sessions, place: Some(place) };
            let session = Session::accept(identity.key.clone());
            let answer = pump::answer(session, tunnel, first, identity.programs.clone(), incoming);
            tokio::spawn(unproven::until(evicted, answer));
        }
    }

    fn identity(&self, address: ApAddress) -> Option<Arc<Identity>> {
        lock(&self.identities).get(&address).cloned()
    }

    fn remember(&self, connection: Connection) -> ConnectionEntry {
        let mut connections = lock(&self.connections);
        while connections.list.len() >= REMEMBERED {
            let closed = connections.list.iter().find(|(_, connection)| !connection.open).map(|(id, _)| *id);
            let Some(id) = closed else { break };
            connections.forget(id);
        }
        connections.next += 1;
        let id = connections.next;
        connections.list.insert(id, connection);
        ConnectionEntry { id, connections: self.connections.clone() }
    }
}

/// Somebody who knows the address comes to go on with a session.
fn again(identity: &Identity, id: &AttemptId, resumption: Resumption) {
    let (answer, tunnel) = match identity.sessions.find(id, &resumption.bytes) {
        Found::Lives(session, attempt) => return sessions::offer(&session, Resumption { attempt, ..resumption }),
        Found::Ended(answer) => (answer, resumption.tunnel),
        Found::Gone => (session::gone(&identity.key, id), resumption.tunnel),
        Found::Nothing => return,
    };
    tokio::spawn(pump::say_last(tunnel, answer));
}

/// OPEN with the session's first bytes, as many as fit into the same cell, and the rest of them.
fn opening(session: &mut Session, node: NodeId, handle: EntryHandle) -> (Open, Vec<u8>) {
    let mut first = Vec::new();
    session.take_far(&mut first);
    let rest = first.split_off(first.len().min(Open::FIRST_MAX));
    (Open { node, handle, first }, rest)
}

async fn open(tunnel: &mut Tunnel, opening: Open, rest: &[u8]) -> Result<(), RelayError> {
    tunnel.outgoing.say(&Word::Open(opening)).await?;
    tunnel.outgoing.write_data(rest).await
}

/// A connection's line in the list; marks it closed when dropped.
pub(crate) struct ConnectionEntry {
    id: u64,
    connections: Arc<Mutex<Connections>>,
}

impl ConnectionEntry {
    fn traffic(&self) -> Option<Arc<Traffic>> {
        lock(&self.connections).list.get(&self.id).map(|connection| connection.traffic.clone())
    }

    /// It goes on another way, since this came of the last.
    fn moved(&self, path: Option<OwnPath>, entry: Option<NodeContact>, why: &'static str) {
        if let Some(connection) = lock(&self.connections).list.get_mut(&self.id) {
            (connection.path, connection.entry) = (path, entry);
            (connection.moves, connection.last_move) = (connection.moves + 1, Some(why));
        }
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let mut connections = lock(&self.connections);
        if let Some(connection) = connections.list.get_mut(&self.id) {
            connection.open = false;
        }
        // More open ones than are remembered: the oldest closed ones go.
        if connections.list.len() > REMEMBERED {
            connections.forget(self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks; the value would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_connections_that_are_forgotten_still_count() {
        let address = ApAddress::of(&SigningKey::from_seed(&[1; 32]).verifying_key());
        let connection = Connection::new(address, address, 80, false, None);
        connection.traffic.sent.store(3, Ordering::Relaxed);
        connection.traffic.received.store(5, Ordering::Relaxed);
        let mut connections =
            Connections { next: 1, list: BTreeMap::from([(1, connection)]), ..Connections::default() };
        for _ in 0..2 {
            connections.forget(1);
            assert_eq!((connections.past, connections.list.len()), ([3, 5], 0));
        }
    }
}
