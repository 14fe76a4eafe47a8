//! What a program's connection needs: an identity, a ready tunnel, a session; for connections out and in.

mod pump;
mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::cell::CellKind;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::PathNo;
use phantom_proto::session::Session;
use phantom_proto::wire::NodeContact;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use crate::driver::{Handle, OwnPath};
use crate::gate::{ConnectError, Stream};
use crate::relay::cells::Tunnel;

pub use pump::Incoming;

/// How long a connection waits for a ready tunnel of its identity: the first one of a fresh identity may need a path build and
/// a retry.
const TUNNEL_PATIENCE: Duration = Duration::from_secs(60);

/// Pause before another attempt when the far end's entry node has no tunnel to spare: that of a kernel's second SYN.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How long the far end may take to answer once the tunnel is there.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Connections that have arrived and not proven an address yet, over all identities; each holds a tunnel and up to 64 KiB.
const UNPROVEN: usize = 512;

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
    /// The other end's entry node that the exit node chose; only for outgoing connections.
    pub entry: Option<NodeContact>,
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
        Self { identity, peer, port, incoming, path, entry: None, open: true, since, traffic }
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
    list: BTreeMap<u64, Connection>,
}

/// All identities' connections over the network.
pub struct Network {
    handle: Handle,
    identities: Mutex<BTreeMap<ApAddress, Arc<Identity>>>,
    connections: Arc<Mutex<Connections>>,
    unproven: Arc<Semaphore>,
}

/// One identity that is in use.
pub struct Identity {
    key: Arc<SigningKey>,
    programs: Arc<dyn Programs>,
}

impl Network {
    /// Over the driver; answers what arrives on `incoming_rx`.
    pub fn start(handle: Handle, incoming_rx: mpsc::Receiver<(ApAddress, PathNo, Tunnel)>) -> Arc<Self> {
        let network = Arc::new(Self {
            handle,
            identities: Mutex::default(),
            connections: Arc::default(),
            unproven: Arc::new(Semaphore::new(UNPROVEN)),
        });
        tokio::spawn(network.clone().answer(incoming_rx));
        network
    }

    /// Brings an identity into use: its exit path is prepared.
    pub async fn open(&self, key: Arc<SigningKey>, programs: Arc<dyn Programs>) {
        let address = ApAddress::of(&key.verifying_key());
        self.receive(key, programs);
        self.handle.want_exit(address).await;
    }

    /// Brings an identity into use that only receives, or changes where its connections go: no exit path.
    pub fn receive(&self, key: Arc<SigningKey>, programs: Arc<dyn Programs>) {
        let address = ApAddress::of(&key.verifying_key());
        lock(&self.identities).insert(address, Arc::new(Identity { key, programs }));
    }

    /// A program of the identity listens: make it reachable.
    pub async fn publish(&self, address: ApAddress) {
        if let Some(identity) = self.identity(address) {
            self.handle.want_entry(identity.key.clone()).await;
        }
    }

    /// Takes an identity out of use; its paths are dropped.
    pub async fn close(&self, address: ApAddress) {
        lock(&self.identities).remove(&address);
        self.handle.forget(address).await;
    }

    /// The driver's handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Open and recent connections, oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.connections).list.values().cloned().collect()
    }

    /// Opens a connection; resolves when the far end has answered. An entry node that is busy is asked again, as by a kernel
    /// whose SYN was lost: a program whose connect is not answered would wait for two minutes.
    pub async fn connect(
        &self,
        from: ApAddress,
        src_port: u16,
        to: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let deadline = Instant::now() + TUNNEL_PATIENCE;
        loop {
            match self.attempt(from, src_port, to, port, deadline).await {
                Err(ConnectError::TimedOut) if Instant::now() + BUSY_PAUSE < deadline => sleep(BUSY_PAUSE).await,
                answer => return answer,
            }
        }
    }

    async fn attempt(
        &self,
        from: ApAddress,
        src_port: u16,
        to: ApAddress,
        port: u16,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let identity = self.identity(from).ok_or(ConnectError::Unreachable)?;
        let patience = deadline.saturating_duration_since(Instant::now());
        let (path, mut tunnel) = self.handle.exit_tunnel(from, patience).await.map_err(|_| ConnectError::TimedOut)?;
        let session = Session::connect(&mut crate::random(), &identity.key, to, port, src_port)
            .map_err(|_| ConnectError::Unreachable)?;
        tunnel.outgoing.write(CellKind::Open, &to.octets()).await.map_err(|_| ConnectError::Unreachable)?;
        let connection = Connection::new(from, to, port, false, Some(path));
        let entry = self.remember(connection);
        let connect = pump::connect(session, tunnel, entry);
        tokio::time::timeout(ANSWER_PATIENCE, connect).await.map_err(|_| ConnectError::TimedOut)?
    }

    async fn answer(self: Arc<Self>, mut incoming_rx: mpsc::Receiver<(ApAddress, PathNo, Tunnel)>) {
        while let Some((address, path, tunnel)) = incoming_rx.recv().await {
            let Some(identity) = self.identity(address) else { continue };
            // More that prove nothing: the tunnel is dropped, and costs its sender as much as us.
            let Ok(place) = self.unproven.clone().try_acquire_owned() else { continue };
            let path = self.handle.ready().path(path);
            let place = Mutex::new(Some(place));
            let incoming = Incoming { address, path, network: self.clone(), place };
            tokio::spawn(pump::answer(
                Session::accept(identity.key.clone()),
                tunnel,
                identity.programs.clone(),
                incoming,
            ));
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
            connections.list.remove(&id);
        }
        connections.next += 1;
        let id = connections.next;
        connections.list.insert(id, connection);
        ConnectionEntry { id, connections: self.connections.clone() }
    }
}

/// A connection's line in the list; marks it closed when dropped.
pub(crate) struct ConnectionEntry {
    id: u64,
    connections: Arc<Mutex<Connections>>,
}

impl ConnectionEntry {
    fn entry(&self, entry: NodeContact) {
        if let Some(connection) = lock(&self.connections).list.get_mut(&self.id) {
            connection.entry = Some(entry);
        }
    }

    fn traffic(&self) -> Option<Arc<Traffic>> {
        lock(&self.connections).list.get(&self.id).map(|connection| connection.traffic.clone())
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
            connections.list.remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks; the value would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
