//! Emulation: TCP sockets for programs where no phantom namespace can be.
//!
//! ```text
//!  program ── local socket pair ── task ── splice ──> far::Network
//!     └─ connect, bind, listen … ── control ──> Table: who is what, who has which port
//! ```
//! | module | what it is |
//! |---|---|
//! | `table`, `ports`, `options` | the sockets of an identity, as a value |
//! | `pair` | the pair behind each: pending connections, resets, records for listeners |
//! | `families` | who tries IPv6 and IPv4 at once |
//! | `sys` | a system call |

mod families;
mod options;
mod pair;
mod ports;
mod sys;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phantom_ipc::hook::{Call, Reply, SocketName, encode_record};
use phantom_proto::ident::ApAddress;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::aliases::{OWN_IPV4, SharedAliases, behind, is_reserved, shown_as};
use crate::control::{Beside, Kind};
use crate::far::{self, CONNECT_PATIENCE, ConnectError, Stream};
use crate::lines::Served;
use crate::splice::carry;
use families::{Attempts, Turn};
use pair::{End, Over};
use table::{Connect, Errno, Outcome, Route, Table};

/// How long a connection waits for a place among those that wait for accept().
const BACKLOG_PATIENCE: Duration = Duration::from_secs(15);

/// How often a full backlog is looked at: accept() tells nobody.
const BACKLOG_EVERY: Duration = Duration::from_millis(20);

/// Orders and connections on their way to one socket's task.
const ORDERS: usize = 64;

/// How long the far end may take to end after the program has closed, as the kernel's tcp_fin_timeout.
const ORPHAN: Duration = Duration::from_secs(60);

/// What a call gives, and the descriptor beside it.
type Answer = (Reply, Option<OwnedFd>);

/// The emulated sockets of one identity; they end with it.
pub(crate) struct Emulation {
    shared: Arc<Shared>,
    /// None before a program asks for one.
    lines: Mutex<Option<Served>>,
}

struct Shared {
    address: ApAddress,
    network: Arc<dyn far::Network>,
    aliases: SharedAliases,
    state: Mutex<State>,
    over: Over,
}

struct State {
    table: Table,
    lives: HashMap<u64, Life>,
    attempts: Attempts,
}

/// A socket's task.
struct Life {
    orders: mpsc::Sender<Order>,
    settled: Arc<Notify>,
    /// Of the program's end.
    cookie: Option<u64>,
}

/// A connection that a program has begun, or one that is under way.
struct Begun {
    /// The program's end.
    own: OwnedFd,
    connect: Connect,
    turn: Turn,
    orders: mpsc::Sender<Order>,
    settled: Arc<Notify>,
}

enum Order {
    Connect(Route, Turn),
    Announce(Child),
}

/// A connection that waits for accept().
struct Child {
    theirs: OwnedFd,
    peer: SocketAddr,
    taken: oneshot::Sender<()>,
}

/// A socket's line in the table; gone when dropped.
struct Entry {
    shared: Arc<Shared>,
    id: u64,
}

impl Entry {
    /// Whether closing is a reset.
    fn abortive(&self) -> bool {
        self.shared.lock().table.abortive(self.id)
    }

    fn abortive_later(&self) -> impl Fn() -> bool + use<> {
        let (shared, id) = (Arc::downgrade(&self.shared), self.id);
        move || shared.upgrade().is_some_and(|shared| shared.lock().table.abortive(id))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let life = state.lives.remove(&self.id);
        state.table.ended(self.id);
        drop(state);
        if let Some(life) = life {
            life.settled.notify_waiters();
        }
    }
}

impl Emulation {
    /// No sockets yet. `aliases` are those of the identity's gate, if it has one.
    pub(crate) fn new(address: ApAddress, network: Arc<dyn far::Network>, aliases: SharedAliases) -> Self {
        let state =
            State { table: Table::new(address, OWN_IPV4), lives: HashMap::new(), attempts: Attempts::default() };
        let state = Mutex::new(state);
        let over = Arc::new(CancellationToken::new());
        Self { shared: Arc::new(Shared { address, network, aliases, state, over }), lines: Mutex::default() }
    }

    /// Does what a program asks; `beside` is the descriptor that came with it.
    ///
    /// # Errors
    /// With the errno for the program.
    pub(crate) async fn call(&self, socket: u64, call: &Call, beside: Option<Beside>) -> Result<Answer, i32> {
        let shared = &self.shared;
        let random = rand::random::<u16>();
        if let Call::Open { domain, kind, protocol } = call {
            return shared.open(*domain, *kind, *protocol).map(|socket| (Reply::Descriptor, Some(socket)));
        }
        let reply = match call {
            Call::Connect { address, wait } => shared.connect(socket, *address, *wait, beside).await?,
            call => {
                if let Call::Bind { address } = call {
                    shared.free(address.port());
                }
                shared.lock().table.answer(socket, call, random)?
            }
        };
        Ok((reply, None))
    }

    /// A socket, as socket(2) would make it; the flags in `kind` are the program's side's to set.
    ///
    /// # Errors
    /// With the errno for the program.
    pub(crate) fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, i32> {
        self.shared.open(domain, kind, protocol)
    }

    /// A line of a process's own to a thread that makes such sockets, which ends with the identity: see [`crate::lines`].
    ///
    /// # Errors
    /// When there are enough, or there can be no thread.
    pub(crate) fn line(&self) -> io::Result<OwnedFd> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.over.is_cancelled() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match &*lines {
            Some(served) => served.open(),
            None => lines.insert(self.served()?).open(),
        }
    }

    fn served(&self) -> io::Result<Served> {
        let shared = Arc::downgrade(&self.shared);
        Served::by_thread(move |domain, kind, protocol| {
            let shared = shared.upgrade().ok_or(io::ErrorKind::NotConnected)?;
            shared.open(domain, kind, protocol).map_err(io::Error::from_raw_os_error)
        })
    }

    /// Whether a program listens on the port for the network.
    pub(crate) fn listens(&self, port: u16) -> bool {
        self.shared.lock().table.public_listener(port).is_some()
    }

    /// Brings a connection from the network to the program that listens, and carries its bytes. Dropping `far` is a reset.
    pub(crate) async fn serve(&self, peer: ApAddress, source_port: u16, port: u16, far: Box<dyn Stream>) {
        let Some((listener, own)) = self.shared.lock().table.public_listener(port) else { return };
        let peer = match own {
            IpAddr::V6(_) => SocketAddr::new(peer.ipv6().into(), source_port),
            IpAddr::V4(_) => SocketAddr::new(self.shared.alias_of(peer).into(), source_port),
        };
        match self.shared.offer(listener, SocketAddr::new(own, port), peer).await {
            Ok(end) => self.shared.join(end, far).await,
            Err(errno) => tracing::debug!(errno, "a program did not take a connection"),
        }
    }

    /// Ports on which programs listen for the network.
    pub(crate) fn listening_ports(&self) -> Vec<u16> {
        self.shared.lock().table.ports(false)
    }

    /// Ports on which programs listen on loopback.
    pub(crate) fn loopback_ports(&self) -> Vec<u16> {
        self.shared.lock().table.ports(true)
    }

    /// The IPv4 address that stands for `address` here.
    pub(crate) fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        self.shared.alias_of(address)
    }

    /// The AP address that an IPv4 address stands for here.
    pub(crate) fn behind_alias(&self, alias: Ipv4Addr) -> Option<ApAddress> {
        behind(&self.shared.aliases, self.shared.address, alias)
    }

    /// Whether a program may still have a socket.
    pub(crate) fn in_use(&self) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.as_ref().is_some_and(Served::used) || self.shared.lock().table.len() > 0
    }

    /// Ends all sockets: their connections are reset.
    pub(crate) fn cut(&self) {
        self.shared.over.cancel();
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alias_of(&self, address: ApAddress) -> Ipv4Addr {
        shown_as(&self.aliases, self.address, address)
    }

    /// Who an IPv4 address stands for; else what the gate would report.
    fn behind(&self, ip: Ipv4Addr) -> Result<ApAddress, Errno> {
        if is_reserved(ip) {
            return Err(libc::ECONNREFUSED);
        }
        let behind = self.aliases.lock().unwrap_or_else(PoisonError::into_inner).behind(ip);
        behind.ok_or(libc::EHOSTUNREACH)
    }

    /// Frees a port of sockets that programs have closed, and that have no connection: their tasks may not have noticed yet.
    fn free(&self, port: u16) {
        let mut state = self.lock();
        for (name, inode) in state.table.unconnected_at(port) {
            if !pair::is_open(name, inode) {
                state.table.closed(name.socket);
            }
        }
    }

    fn open(self: &Arc<Self>, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
        let (v6, stream) = (domain == libc::AF_INET6, kind & 0xf == libc::SOCK_STREAM);
        let own = if stream { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
        match (domain, kind & 0xf) {
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_DGRAM) => {}
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW) => return Err(libc::EPERM),
            (libc::AF_INET | libc::AF_INET6, _) => return Err(libc::ESOCKTNOSUPPORT),
            _ => return Err(libc::EAFNOSUPPORT),
        }
        let multipath = stream && protocol == libc::IPPROTO_MPTCP;
        if ![0, own].contains(&protocol) && !multipath {
            return Err(if (0..256).contains(&protocol) { libc::EPROTONOSUPPORT } else { libc::EINVAL });
        }
        let (theirs, ours, name) = self.make(v6, stream)?;
        self.lock().table.open(name, pair::inode(&theirs))?;
        let entry = Entry { shared: self.clone(), id: name.socket };
        let end = End::new(ours, entry).map_err(|error| local(&error))?;
        let (orders_tx, orders_rx) = mpsc::channel(ORDERS);
        let life = Life { orders: orders_tx, settled: Arc::default(), cookie: pair::cookie(&theirs) };
        self.lock().lives.insert(name.socket, life);
        tokio::spawn(live(self.clone(), name.socket, end, orders_rx));
        Ok(theirs)
    }

    fn make(&self, v6: bool, stream: bool) -> Result<(OwnedFd, OwnedFd, SocketName), Errno> {
        let name = SocketName { socket: rand::random(), v6, stream };
        let (theirs, ours) = pair::make(name).map_err(|error| local(&error))?;
        Ok((theirs, ours, name))
    }

    async fn connect(&self, id: u64, to: SocketAddr, wait: bool, own: Option<Beside>) -> Result<Reply, Errno> {
        // By the kernel's number: anybody may take any name.
        let number = self.lock().lives.get(&id).and_then(|life| life.cookie);
        let own = match (own, number) {
            (Some(own), Some(number)) => own.take(Kind::Socket(number)).await,
            _ => None,
        };
        let begun = self.begin(id, to, own.ok_or(libc::ENOTSOCK)?);
        // From here these two say that an address is none of the network.
        if matches!(begun, Err(libc::EACCES | libc::EHOSTUNREACH)) {
            self.network.refused(to.ip().to_canonical()).await;
        }
        let Begun { own, connect, turn, orders, settled } = begun?;
        match connect {
            Connect::Done => return Ok(Reply::Done),
            Connect::UnderWay if !wait => return Err(libc::EALREADY),
            Connect::UnderWay => {}
            Connect::Begin(route) => {
                let filled = pair::fill(&own).map_err(|error| local(&error));
                // Whoever has a copy does not hear when the program closes its own.
                drop(own);
                let sent =
                    filled.and_then(|()| orders.try_send(Order::Connect(route, turn)).map_err(|_| libc::ENOBUFS));
                if let Err(error) = sent {
                    self.lock().table.settled(id, Err(error));
                    return Err(error);
                }
                if !wait {
                    return Ok(Reply::Pending);
                }
            }
        }
        loop {
            let change = settled.notified();
            tokio::pin!(change);
            // What happens after the look must not be missed.
            change.as_mut().enable();
            let outcome = self.lock().table.outcome(id);
            match outcome {
                Outcome::Done => return Ok(Reply::Done),
                Outcome::Failed(error) => return Err(error),
                Outcome::Pending => change.await,
            }
        }
    }

    fn begin(&self, id: u64, to: SocketAddr, own: OwnedFd) -> Result<Begun, Errno> {
        let mut state = self.lock();
        let connect = state.table.connect(id, to, rand::random(), |ip| self.behind(ip))?;
        let turn = match connect {
            Connect::Begin(Route::Far { to: far, port, .. }) => {
                state.attempts.begin(Instant::now(), far, port, !to.ip().to_canonical().is_ipv4())
            }
            _ => Turn::Alone,
        };
        let life = state.lives.get(&id).ok_or(libc::ENOTSOCK)?;
        Ok(Begun { own, connect, turn, orders: life.orders.clone(), settled: life.settled.clone() })
    }

    /// Opens the way to the far end.
    async fn reach(self: &Arc<Self>, route: &Route) -> Result<Box<dyn Stream>, Errno> {
        match *route {
            Route::Near { to, port, from } => {
                let listener = self.lock().table.listener(to, port).ok_or(libc::ECONNREFUSED)?;
                let end = self.offer(listener, SocketAddr::new(to, port), from).await?;
                Ok(Box::new(end))
            }
            Route::Far { to, port, source_port } => {
                let attempt = self.network.connect(self.address, source_port, to, port);
                let result = timeout(CONNECT_PATIENCE, attempt).await.unwrap_or(Err(ConnectError::TimedOut));
                result.map_err(|error| match error {
                    ConnectError::Refused => libc::ECONNREFUSED,
                    ConnectError::Unreachable | ConnectError::Unsure => libc::EHOSTUNREACH,
                    ConnectError::TimedOut => libc::ETIMEDOUT,
                    ConnectError::Prohibited => libc::EACCES,
                })
            }
        }
    }

    /// Gives a listener a connection; the daemon's end of it, once it waits for accept().
    async fn offer(self: &Arc<Self>, listener: u64, local_end: SocketAddr, peer: SocketAddr) -> Result<End, Errno> {
        let v6 = self.lock().table.is_v6(listener);
        let (theirs, ours, name) = self.make(v6, true)?;
        pair::mark(&ours).map_err(|error| local(&error))?;
        let orders = {
            let mut state = self.lock();
            let orders = state.lives.get(&listener).map(|life| life.orders.clone()).ok_or(libc::ECONNREFUSED)?;
            state.table.child(listener, name.socket, pair::inode(&theirs), local_end, peer)?;
            orders
        };
        let entry = Entry { shared: self.clone(), id: name.socket };
        let end = End::new(ours, entry).map_err(|error| local(&error))?;
        let (taken, done) = oneshot::channel();
        let child = Child { theirs, peer: SocketAddr::new(ports::seen(peer.ip(), v6), peer.port()), taken };
        let announced = async {
            orders.send(Order::Announce(child)).await.map_err(|_| libc::ECONNREFUSED)?;
            done.await.map_err(|_| libc::ECONNREFUSED)
        };
        timeout(BACKLOG_PATIENCE, announced).await.unwrap_or(Err(libc::ETIMEDOUT))?;
        Ok(end)
    }

    /// Carries bytes until both directions have ended, one end resets, or the identity ends.
    async fn join(&self, end: End, far: Box<dyn Stream>) {
        tokio::select! {
            () = join(end, far) => {}
            () = self.over.cancelled() => {}
        }
    }
}

/// A socket's task, from socket() to close().
async fn live(shared: Arc<Shared>, id: u64, mut end: End, mut orders: mpsc::Receiver<Order>) {
    let settled = shared.lock().lives.get(&id).map(|life| life.settled.clone()).unwrap_or_default();
    loop {
        let order = tokio::select! {
            biased;
            () = shared.over.cancelled() => return,
            () = end.hung_up() => return,
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Connect(route, mut turn)) => {
                let reached = async {
                    turn.come().await;
                    shared.reach(&route).await
                };
                let result = tokio::select! {
                    result = reached => result,
                    () = shared.over.cancelled() => return,
                    // Given up: nothing is to arrive.
                    () = end.hung_up() => return,
                };
                shared.lock().table.settled(id, result.as_ref().map(|_| ()).map_err(|error| *error));
                // Writable only now that everything else says how it stands.
                if end.refresh().is_err() || pair::release(&end, result.is_ok()).is_err() {
                    return;
                }
                settled.notify_waiters();
                drop(turn);
                if let Ok(far) = result {
                    return shared.join(end, far).await;
                }
            }
            Some(Order::Announce(child)) => {
                let gone = tokio::select! {
                    () = shared.over.cancelled() => true,
                    () = announce(&shared, id, &mut end, child) => false,
                };
                if gone {
                    return;
                }
            }
            None => return,
        }
    }
}

/// Puts a connection before a listener as soon as there is a place; not at all when nobody waits for that any more.
async fn announce(shared: &Shared, id: u64, end: &mut End, mut child: Child) {
    let record = encode_record(&child.peer);
    loop {
        let most = shared.lock().table.backlog(id);
        match end.announce(&child.theirs, &record, most) {
            Ok(()) => {
                // Whoever offered it may have given up.
                let _ = child.taken.send(());
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        tokio::select! {
            () = child.taken.closed() => return,
            () = end.hung_up() => return,
            () = sleep(BACKLOG_EVERY) => {}
        }
    }
}

async fn join(end: End, far: Box<dyn Stream>) {
    let (Ok(near), Some(abortive)) = (end.another(), end.abortive()) else { return };
    let (mut near_read, mut near_write) = tokio::io::split(end);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (said_tx, said_rx) = oneshot::channel();
    let there = async {
        carry(&mut near_read, &mut far_write).await?;
        // Matters to the other direction only, which may be over.
        let _ = said_tx.send(());
        Ok(())
    };
    let back = async {
        tokio::select! {
            biased;
            result = carry(&mut far_read, &mut near_write) => result,
            () = orphaned(near, abortive, said_rx) => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    // The first error ends both directions; what is dropped before its end is reset.
    let _: io::Result<((), ())> = tokio::try_join!(there, back);
}

/// Resolves when the program has half-closed and then reset, or closed and been gone for long enough for the far end to
/// end too.
async fn orphaned(near: OwnedFd, abortive: impl Fn() -> bool, said: oneshot::Receiver<()>) {
    if said.await.is_err() {
        return std::future::pending().await;
    }
    let reset = pair::closed(near).await.unwrap_or(true);
    if !reset && !abortive() {
        sleep(ORPHAN).await;
    }
}

/// What goes wrong here is not the program's doing: mostly, the daemon has no descriptors left.
fn local(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) | None => libc::ENFILE,
        Some(_) => libc::ENOBUFS,
    }
}
