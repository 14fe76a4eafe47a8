//! Sockets that stay the programs' own, where nothing can be passed to them: the loopback device is between them and the daemon.
//!
//! ```text
//!  program, bound to a port ──> door: one connection, from that port alone ── splice ──> far::Network
//!  program, listening       <── source, known to be a peer's ── splice ── far end
//! ```
//! What is of this computer alone (127.0.0.1, ::1) is the kernel's and never asked here.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phantom_ipc::errno;
use phantom_ipc::hook::{Loopback as Call, Reply};
use phantom_proto::ident::ApAddress;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::aliases::{OWN_IPV4, SharedAliases, behind, is_reserved, shown_as};
use crate::control::Lasting;
use crate::far::{CONNECT_PATIENCE, ConnectError, Network, Stream};
use crate::splice::splice;

/// Connections of one identity: each costs the daemon two sockets and a task.
const MAX_CONNECTIONS: usize = 4096;

/// Listening programs of one identity.
const MAX_LISTENERS: usize = 1024;

/// How long a program may take to its door: its next call.
const DOOR_TIME: Duration = Duration::from_secs(10);

/// How long a listening program's system may take to accept.
const ACCEPTS: Duration = Duration::from_secs(10);

/// The sockets of one identity; they end with it.
pub(crate) struct Loopback(Arc<Shared>);

struct Shared {
    address: ApAddress,
    network: Arc<dyn Network>,
    aliases: SharedAliases,
    state: Mutex<State>,
    room: Arc<Semaphore>,
    over: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Where programs listen, by port and by whether they are of IPv6.
    listeners: HashMap<(u16, bool), SocketAddr>,
    /// Whose connections to them are, by where they come from.
    peers: HashMap<SocketAddr, SocketAddr>,
}

/// A listening program; none when dropped.
struct Listening(Arc<Shared>, (u16, bool));

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.lock().listeners.remove(&self.1);
    }
}

/// Whose a connection is; nobody's when dropped.
struct Known<'a>(&'a Shared, SocketAddr);

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.0.lock().peers.remove(&self.1);
    }
}

impl Loopback {
    /// No sockets yet.
    pub(crate) fn new(address: ApAddress, network: Arc<dyn Network>, aliases: SharedAliases) -> Self {
        let (state, room, over) =
            (Mutex::default(), Arc::new(Semaphore::new(MAX_CONNECTIONS)), CancellationToken::new());
        Self(Arc::new(Shared { address, network, aliases, state, room, over }))
    }

    /// Does what a program asks; what it gets with it lasts as long as its connection.
    ///
    /// # Errors
    /// With the number for the program, as Linux counts.
    pub(crate) async fn call(&self, call: &Call) -> Result<(Reply, Option<Lasting>), i32> {
        match *call {
            Call::Connect { to, from } => Ok((Reply::Address(self.0.connect(to, from).await?), None)),
            Call::Listen { local, at } => {
                let (listening, seen) = self.0.listen(local, at)?;
                Ok((Reply::Address(seen), Some(Box::new(listening))))
            }
            Call::Peer { source } => {
                let peer = self.0.lock().peers.get(&source).copied();
                Ok((peer.map_or(Reply::NotFound, Reply::Address), None))
            }
        }
    }

    /// Whether a program listens on the port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        self.0.lock().listener(port).is_some()
    }

    /// Ports on which programs listen.
    pub(crate) fn listening_ports(&self) -> Vec<u16> {
        let mut ports: Vec<_> = self.0.lock().listeners.keys().map(|(port, _)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Brings a connection from the network to the program that listens, and carries its bytes. Dropping `far` is a reset.
    pub(crate) async fn serve(&self, peer: ApAddress, source_port: u16, port: u16, far: Box<dyn Stream>) {
        let Some((at, is_v6)) = self.0.lock().listener(port) else { return };
        let ip: IpAddr = if is_v6 { peer.ipv6().into() } else { self.0.alias_of(peer).into() };
        match self.0.enter(at, SocketAddr::new(ip, source_port)).await {
            Ok((tcp, _known)) => self.0.carry(tcp, far).await,
            Err(error) => tracing::debug!(%error, "a program did not take a connection"),
        }
    }

    /// The IPv4 address that stands for `address` here.
    pub(crate) fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.0.alias_of(address)
    }

    /// The AP address that an IPv4 address stands for here.
    pub(crate) fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        self.0.behind(alias)
    }

    /// Whether a program may still have one.
    pub(crate) fn in_use(&self) -> bool {
        self.0.room.available_permits() < MAX_CONNECTIONS || !self.0.lock().listeners.is_empty()
    }

    /// Ends all: connections are reset.
    pub(crate) fn cut(&self) {
        self.0.over.cancel();
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.cut();
    }
}

impl State {
    /// Where the program listens that has the port, and whether it is of IPv6: that one sees all addresses as they are.
    fn listener(&self, port: u16) -> Option<(SocketAddr, bool)> {
        [true, false].into_iter().find_map(|v6| Some((*self.listeners.get(&(port, v6))?, v6)))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        shown_as(&self.aliases, self.address, address)
    }

    fn behind(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        behind(&self.aliases, self.address, alias)
    }

    /// Opens a connection, and a door to it for whoever is bound to `from`.
    async fn connect(self: &Arc<Self>, to: SocketAddr, from: SocketAddr) -> Result<SocketAddr, i32> {
        if !is_of_programs(from) {
            return Err(errno::EINVAL);
        }
        let place = self.room.clone().try_acquire_owned().map_err(|_| errno::EMFILE)?;
        let destination = self.meant(to.ip().to_canonical()).await?;
        let attempt = self.network.connect(self.address, from.port(), destination, to.port());
        let far = timeout(CONNECT_PATIENCE, attempt).await.unwrap_or(Err(ConnectError::TimedOut)).map_err(number)?;
        let door = TcpListener::bind((from.ip(), 0)).await.map_err(|_| errno::EIO)?;
        let at = door.local_addr().map_err(|_| errno::EIO)?;
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            // Who does not come in time has given up: dropping the stream resets the connection.
            let come = shared.over.run_until_cancelled(timeout(DOOR_TIME, entered(door, from))).await;
            if let Some(Ok(Ok(tcp))) = come {
                shared.carry(tcp, far).await;
            }
        });
        Ok(at)
    }

    /// Who is meant by an address. Errors are those that a phantom namespace's kernel gives.
    async fn meant(&self, to: IpAddr) -> Result<ApAddress, i32> {
        let meant = match to {
            ip if ip.is_loopback() || ip.is_unspecified() => return Err(errno::EINVAL),
            IpAddr::V4(ip) if ip != OWN_IPV4 && is_reserved(ip) => return Err(errno::ECONNREFUSED),
            IpAddr::V4(ip) => self.behind(ip).ok_or(errno::EHOSTUNREACH),
            IpAddr::V6(ip) => ApAddress::from_ipv6(ip).ok_or(errno::EACCES),
        };
        if meant.is_err() {
            self.network.refused(to).await;
        }
        meant
    }

    fn listen(self: &Arc<Self>, local: SocketAddr, at: SocketAddr) -> Result<(Listening, SocketAddr), i32> {
        if !is_of_programs(at) {
            return Err(errno::EINVAL);
        }
        let ip = local.ip();
        let is_own = ip == IpAddr::from(self.address.ipv6()) || ip == IpAddr::from(OWN_IPV4);
        if !is_own && !ip.is_unspecified() {
            return Err(errno::EADDRNOTAVAIL);
        }
        let port = if local.port() == 0 { at.port() } else { local.port() };
        let key = (port, local.is_ipv6());
        let mut state = self.lock();
        if state.listeners.contains_key(&key) {
            return Err(errno::EADDRINUSE);
        }
        if state.listeners.len() >= MAX_LISTENERS {
            return Err(errno::EMFILE);
        }
        state.listeners.insert(key, at);
        Ok((Listening(Arc::clone(self), key), SocketAddr::new(ip, port)))
    }

    /// A connection to a listening program, known to be `peer`'s before it is there.
    async fn enter(&self, at: SocketAddr, peer: SocketAddr) -> io::Result<(TcpStream, Known<'_>)> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(at.ip(), 0))?;
        let source = socket.local_addr()?;
        self.lock().peers.insert(source, peer);
        let known = Known(self, source);
        let tcp = timeout(ACCEPTS, socket.connect(at)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok((tcp, known))
    }

    /// Carries bytes until both directions have ended, one end resets, or the identity ends.
    async fn carry(&self, tcp: TcpStream, far: Box<dyn Stream>) {
        let _ = self.over.run_until_cancelled(splice(tcp, far)).await;
    }
}

/// Whether that can be a program's own socket.
fn is_of_programs(address: SocketAddr) -> bool {
    address.ip().is_loopback() && address.port() != 0
}

/// The one connection from `from`; others of this computer, who may come to any port, are sent away.
async fn entered(door: TcpListener, from: SocketAddr) -> io::Result<TcpStream> {
    loop {
        let (tcp, peer) = door.accept().await?;
        if peer == from {
            return Ok(tcp);
        }
    }
}

fn number(error: ConnectError) -> i32 {
    match error {
        ConnectError::Refused => errno::ECONNREFUSED,
        ConnectError::Unreachable | ConnectError::Unsure => errno::EHOSTUNREACH,
        ConnectError::TimedOut => errno::ETIMEDOUT,
        ConnectError::Prohibited => errno::EACCES,
    }
}

#[cfg(test)]
mod tests;
