//! The emulated sockets of one identity, as a value: what each is, who has which port, what each call gives.
//!
//! ```text
//!            bind                    listen
//!   Idle ──────────> Idle (bound) ────────────> Listening ──> children: Connected
//!     │ connect                                    settled(Ok)
//!     └────────────> Connecting ───────────────────────────> Connected ──> Ended
//!                        └── settled(error) ──> Idle, with the error for SO_ERROR
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use phantom_ipc::hook::{Call, OptionValue, Reply, SocketName};
use phantom_proto::ident::ApAddress;

use super::options::{About, Options};
use super::ports::{Place, anywhere, endpoint, find_port, plain, seen};

/// As Linux counts.
pub(super) type Errno = i32;

/// Sockets of one identity: as many as a busy server has; each costs the daemon a descriptor and a task.
pub(super) const MAX_SOCKETS: usize = 4096;

/// Sockets that have ended and are remembered, because a program may have one still.
const MAX_ENDED: usize = 1024;

/// The most that listen(2) takes here, as net.core.somaxconn says.
const MAX_BACKLOG: i32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting { peer: SocketAddr },
    Connected { peer: SocketAddr, told: bool },
    Listening { backlog: i32 },
    Ended,
}

#[derive(Debug)]
struct Socket {
    v6: bool,
    stream: bool,
    /// The kernel's number of the program's end.
    inode: u64,
    /// As bind(2) was told, port filled in.
    wanted: Option<SocketAddr>,
    /// bind(2) named the port: it stays the socket's until that is closed, whatever becomes of the connection.
    keeps_port: bool,
    /// As the program sees it.
    local: Option<SocketAddr>,
    phase: Phase,
    error: Option<Errno>,
    options: Options,
}

/// Where a connection is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// To a program of this identity.
    Near { to: IpAddr, port: u16, from: SocketAddr },
    /// Over the network.
    Far { to: ApAddress, port: u16, source_port: u16 },
}

/// What connect(2) begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connect {
    /// Nothing: it has been done since the last call.
    Done,
    /// Nothing: it is under way already.
    UnderWay,
    /// The way to the far end.
    Begin(Route),
}

/// What has become of a connection that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Pending,
    Done,
    Failed(Errno),
}

/// See the module.
pub(super) struct Table {
    address: Ipv6Addr,
    ipv4: Ipv4Addr,
    sockets: HashMap<u64, Socket>,
    ports: HashMap<u16, Vec<u64>>,
    ended: VecDeque<u64>,
    /// Which of several listeners is next.
    turn: usize,
}

impl Table {
    pub(super) fn new(address: ApAddress, ipv4: Ipv4Addr) -> Self {
        let (sockets, ports, ended) = Default::default();
        Self { address: address.ipv6(), ipv4, sockets, ports, ended, turn: 0 }
    }

    /// Sockets that a program may still have.
    pub(super) fn len(&self) -> usize {
        self.sockets.len() - self.ended.len()
    }

    /// socket(2); the number is one that is not in use, and random.
    pub(super) fn open(&mut self, name: SocketName, inode: u64) -> Result<(), Errno> {
        if self.len() >= MAX_SOCKETS {
            return Err(libc::EMFILE);
        }
        let (wanted, keeps_port, local, error, options) = Default::default();
        let (v6, stream, phase) = (name.v6, name.stream, Phase::Idle);
        let socket = Socket { v6, stream, inode, wanted, keeps_port, local, phase, error, options };
        self.sockets.insert(name.socket, socket);
        Ok(())
    }

    /// The calls that concern nobody else.
    pub(super) fn answer(&mut self, id: u64, call: &Call, random: u16) -> Result<Reply, Errno> {
        let done = |()| Reply::Done;
        match call {
            Call::Bind { address } => self.bind(id, *address, random).map(done),
            Call::Disconnect => self.disconnect(id).map(done),
            Call::Name => self.name(id).map(Reply::Address),
            Call::Peer => self.peer(id).map(Reply::Address),
            Call::Option { level, option } => self.option(id, *level, *option).map(Reply::Value),
            Call::SetOption { level, option, value } => self.set_option(id, *level, *option, value.bytes()).map(done),
            Call::Shutdown => self.shutdown(id).map(done),
            Call::Listen { backlog } => self.listen(id, *backlog, random).map(done),
            Call::Open { .. } | Call::Connect { .. } => Err(libc::EOPNOTSUPP),
        }
    }

    fn socket(&mut self, id: u64) -> Result<&mut Socket, Errno> {
        // A socket of another identity, of a daemon that is no more, or one that ended long ago.
        self.sockets.get_mut(&id).ok_or(libc::ENETDOWN)
    }

    /// bind(2).
    fn bind(&mut self, id: u64, wanted: SocketAddr, random: u16) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        if socket.v6 != wanted.is_ipv6() {
            return Err(if socket.v6 { libc::EINVAL } else { libc::EAFNOSUPPORT });
        }
        if socket.local.is_some() || socket.phase != Phase::Idle {
            return Err(libc::EINVAL);
        }
        let ip = plain(wanted.ip());
        if socket.v6 && socket.options.only_v6 && ip.is_ipv4() {
            return Err(libc::EINVAL);
        }
        if !ip.is_unspecified() && !self.is_own(ip) {
            return Err(libc::EADDRNOTAVAIL);
        }
        let port = match wanted.port() {
            0 => self.free_port(id, ip, random)?,
            port => port,
        };
        if self.conflict(id, ip, port, false) {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.socket(id)?;
        socket.wanted = Some(endpoint(wanted.ip(), port));
        socket.keeps_port = wanted.port() != 0;
        self.place(id, endpoint(wanted.ip(), port));
        Ok(())
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip == self.ipv4,
            IpAddr::V6(ip) => ip.is_loopback() || ip == self.address,
        }
    }

    fn free_port(&self, id: u64, ip: IpAddr, random: u16) -> Result<u16, Errno> {
        // As the kernel: what is handed out is nobody else's, whatever they would share.
        let place = |port| self.place_of(id, ip, port);
        let free = |port| {
            let ids = self.ports.get(&port).map_or(&[][..], Vec::as_slice);
            !ids.iter().any(|other| *other != id && self.overlap(*other, place(port)))
        };
        find_port(random, free).ok_or(libc::EADDRINUSE)
    }

    fn place_of(&self, id: u64, ip: IpAddr, port: u16) -> Place {
        let dual = self.sockets.get(&id).is_some_and(|socket| socket.v6 && !socket.options.only_v6);
        Place { ip, port, dual }
    }

    fn overlap(&self, other: u64, place: Place) -> bool {
        let Some(local) = self.sockets.get(&other).and_then(|other| other.local) else { return false };
        self.place_of(other, plain(local.ip()), local.port()).overlaps(&place)
    }

    /// Whether somebody has the place who does not share it; `listening`: only those that listen too.
    fn conflict(&self, id: u64, ip: IpAddr, port: u16, listening: bool) -> bool {
        let Some(own) = self.sockets.get(&id) else { return false };
        let place = self.place_of(id, ip, port);
        let ids = self.ports.get(&port).map_or(&[][..], Vec::as_slice);
        ids.iter().filter(|other| **other != id).any(|id| {
            let Some(other) = self.sockets.get(id) else { return false };
            let listens = matches!(other.phase, Phase::Listening { .. });
            let shares = (own.options.reuse_port && other.options.reuse_port)
                || (own.options.reuse_address && other.options.reuse_address && !listens);
            other.stream == own.stream && !shares && (listens || !listening) && self.overlap(*id, place)
        })
    }

    fn place(&mut self, id: u64, local: SocketAddr) {
        self.displace(id);
        self.ports.entry(local.port()).or_default().push(id);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.local = Some(local);
        }
    }

    fn displace(&mut self, id: u64) {
        let Some(local) = self.sockets.get_mut(&id).and_then(|socket| socket.local.take()) else { return };
        if let Some(ids) = self.ports.get_mut(&local.port()) {
            ids.retain(|at| *at != id);
            if ids.is_empty() {
                self.ports.remove(&local.port());
            }
        }
    }

    /// listen(2).
    fn listen(&mut self, id: u64, backlog: i32, random: u16) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        let first = match socket.phase {
            _ if !socket.stream => return Err(libc::EOPNOTSUPP),
            Phase::Idle => true,
            Phase::Listening { .. } => false,
            _ => return Err(libc::EINVAL),
        };
        let (v6, local) = (socket.v6, socket.local);
        if local.is_none() {
            self.bind(id, endpoint(anywhere(v6), 0), random)?;
        }
        let Some(local) = self.socket(id)?.local else { return Err(libc::EINVAL) };
        if first && self.conflict(id, plain(local.ip()), local.port(), true) {
            return Err(libc::EADDRINUSE);
        }
        // Negative ones are large ones to the kernel.
        let backlog = if backlog < 0 { MAX_BACKLOG } else { backlog.min(MAX_BACKLOG) };
        self.socket(id)?.phase = Phase::Listening { backlog };
        Ok(())
    }

    /// Connections that may wait for accept(2).
    pub(super) fn backlog(&self, id: u64) -> usize {
        match self.sockets.get(&id).map(|socket| socket.phase) {
            // One more than was asked for, as the kernel does.
            Some(Phase::Listening { backlog }) => usize::try_from(backlog).unwrap_or(0) + 1,
            _ => 0,
        }
    }

    /// connect(2); `behind` says which AP address an IPv4 address stands for.
    pub(super) fn connect(
        &mut self,
        id: u64,
        peer: SocketAddr,
        random: u16,
        behind: impl Fn(Ipv4Addr) -> Result<ApAddress, Errno>,
    ) -> Result<Connect, Errno> {
        let socket = self.socket(id)?;
        if socket.v6 != peer.is_ipv6() {
            return Err(libc::EAFNOSUPPORT);
        }
        if !socket.stream {
            return Err(libc::ENETUNREACH);
        }
        match &mut socket.phase {
            Phase::Idle => {}
            Phase::Connecting { .. } => return Ok(Connect::UnderWay),
            Phase::Connected { told: told @ false, .. } => {
                *told = true;
                return Ok(Connect::Done);
            }
            _ => return Err(libc::EISCONN),
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let to = match plain(peer.ip()) {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        if socket.v6 && socket.options.only_v6 && to.is_ipv4() {
            return Err(libc::ENETUNREACH);
        }
        let far = if self.is_own(to) { None } else { Some(self.beyond(to, behind)?) };
        let local = self.leave(id, to, random)?;
        self.socket(id)?.phase = Phase::Connecting { peer: endpoint(seen(to, peer.is_ipv6()), peer.port()) };
        Ok(Connect::Begin(match far {
            None => Route::Near { to, port: peer.port(), from: endpoint(plain(local.ip()), local.port()) },
            Some(to) => Route::Far { to, port: peer.port(), source_port: local.port() },
        }))
    }

    /// Who is meant by an address that is not the identity's own. Errors are those that the gate's kernel gives.
    fn beyond(&self, to: IpAddr, behind: impl Fn(Ipv4Addr) -> Result<ApAddress, Errno>) -> Result<ApAddress, Errno> {
        match to {
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Err(libc::ENETUNREACH),
            IpAddr::V4(ip) => behind(ip),
            IpAddr::V6(ip) if ip.is_multicast() => Err(libc::ENETUNREACH),
            IpAddr::V6(ip) => ApAddress::from_ipv6(ip).ok_or(libc::EACCES),
        }
    }

    /// The local end of a connection to `to`.
    fn leave(&mut self, id: u64, to: IpAddr, random: u16) -> Result<SocketAddr, Errno> {
        let socket = self.socket(id)?;
        let (v6, local) = (socket.v6, socket.local);
        let bound = local.map(|local| plain(local.ip())).filter(|ip| !ip.is_unspecified());
        if let Some(bound) = bound {
            // Loopback leads nowhere else.
            let loopback = |ip: IpAddr| ip.is_loopback();
            if bound.is_ipv4() != to.is_ipv4() || (loopback(bound) && !self.is_own(to)) {
                return Err(libc::EINVAL);
            }
        }
        let ip = bound.unwrap_or_else(|| match to {
            IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V4(_) => self.ipv4.into(),
            IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(_) => self.address.into(),
        });
        let port = match local {
            Some(local) => local.port(),
            None => self.free_port(id, ip, random).map_err(|_| libc::EADDRNOTAVAIL)?,
        };
        let local = endpoint(seen(ip, v6), port);
        self.place(id, local);
        Ok(local)
    }

    /// The far end has answered.
    pub(super) fn settled(&mut self, id: u64, result: Result<(), Errno>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Phase::Connecting { peer } = socket.phase else { return };
        match result {
            Ok(()) => socket.phase = Phase::Connected { peer, told: false },
            Err(error) => {
                socket.phase = Phase::Idle;
                socket.error = Some(error);
                let wanted = socket.wanted;
                self.displace(id);
                if let Some(wanted) = wanted {
                    self.place(id, wanted);
                }
            }
        }
    }

    /// How a connection stands, for whoever waits in connect(2); takes the error.
    pub(super) fn outcome(&mut self, id: u64) -> Outcome {
        let Some(socket) = self.sockets.get_mut(&id) else { return Outcome::Failed(libc::ECONNABORTED) };
        match &mut socket.phase {
            Phase::Connecting { .. } => Outcome::Pending,
            Phase::Connected { told, .. } => {
                *told = true;
                Outcome::Done
            }
            // Another who waited has taken the error.
            _ => Outcome::Failed(socket.error.take().unwrap_or(libc::ECONNABORTED)),
        }
    }

    /// connect(2) to AF_UNSPEC: only what is no connection can be given up here.
    fn disconnect(&mut self, id: u64) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        match socket.phase {
            Phase::Idle => {
                socket.error = None;
                Ok(())
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    /// getsockname(2).
    fn name(&mut self, id: u64) -> Result<SocketAddr, Errno> {
        let socket = self.socket(id)?;
        Ok(socket.local.unwrap_or_else(|| endpoint(anywhere(socket.v6), 0)))
    }

    /// getpeername(2).
    fn peer(&mut self, id: u64) -> Result<SocketAddr, Errno> {
        match self.socket(id)?.phase {
            Phase::Connected { peer, .. } => Ok(peer),
            _ => Err(libc::ENOTCONN),
        }
    }

    /// Whether shutdown(2) may be done.
    fn shutdown(&mut self, id: u64) -> Result<(), Errno> {
        match self.socket(id)?.phase {
            Phase::Connected { .. } | Phase::Listening { .. } => Ok(()),
            _ => Err(libc::ENOTCONN),
        }
    }

    /// getsockopt(2).
    fn option(&mut self, id: u64, level: i32, option: i32) -> Result<OptionValue, Errno> {
        let socket = self.socket(id)?;
        if (level, option) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            return Ok(OptionValue::of(socket.error.take().unwrap_or(0)));
        }
        socket.options.value(socket.about(), level, option)
    }

    /// setsockopt(2).
    fn set_option(&mut self, id: u64, level: i32, option: i32, value: &[u8]) -> Result<(), Errno> {
        let socket = self.socket(id)?;
        let about = socket.about();
        socket.options.set(about, level, option, value)
    }

    /// Whether closing it is a reset.
    pub(super) fn abortive(&self, id: u64) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.options.abortive())
    }

    /// Who listens where a connection to `ip` arrives; several take turns.
    pub(super) fn listener(&mut self, ip: IpAddr, port: u16) -> Option<u64> {
        let ids = self.ports.get(&port)?;
        let listens = |id: &&u64| {
            let socket = self.sockets.get(id);
            socket.is_some_and(|socket| matches!(socket.phase, Phase::Listening { .. }))
        };
        let place = |id: u64| {
            let local = self.sockets.get(&id)?.local?;
            Some(self.place_of(id, plain(local.ip()), local.port()))
        };
        let here: Vec<(u64, Place)> = ids
            .iter()
            .filter(listens)
            .filter_map(|id| Some((*id, place(*id)?)))
            .filter(|(_, at)| at.covers(ip))
            .collect();
        // The kernel prefers the one that names the address, then the one of the address's own family.
        let rank = |at: &Place| (at.ip.is_unspecified(), at.ip.is_ipv4() != ip.is_ipv4());
        let best = here.iter().map(|(_, at)| rank(at)).min()?;
        let equals: Vec<u64> = here.iter().filter(|(_, at)| rank(at) == best).map(|(id, _)| *id).collect();
        self.turn = self.turn.wrapping_add(1);
        Some(equals[self.turn % equals.len()])
    }

    /// Who listens for connections from the network; with the address that it is reached at.
    pub(super) fn public_listener(&mut self, port: u16) -> Option<(u64, IpAddr)> {
        [IpAddr::V6(self.address), IpAddr::V4(self.ipv4)]
            .into_iter()
            .find_map(|ip| self.listener(ip, port).map(|id| (id, ip)))
    }

    /// Where programs listen: for connections from the network, or on loopback.
    pub(super) fn ports(&self, on_loopback: bool) -> Vec<u16> {
        let listening = self.sockets.values().filter(|socket| matches!(socket.phase, Phase::Listening { .. }));
        let wanted = |local: &SocketAddr| plain(local.ip()).is_loopback() == on_loopback;
        listening.filter_map(|socket| socket.local).filter(wanted).map(|local| local.port()).collect()
    }

    /// The socket that accept(2) will give: of the listener's family, with its options.
    pub(super) fn child(
        &mut self,
        listener: u64,
        child: u64,
        inode: u64,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<(), Errno> {
        if self.len() >= MAX_SOCKETS {
            return Err(libc::ENOBUFS);
        }
        let parent = self.socket(listener)?;
        let (v6, options) = (parent.v6, parent.options.clone());
        let view = |address: SocketAddr| endpoint(seen(address.ip(), v6), address.port());
        let phase = Phase::Connected { peer: view(peer), told: true };
        let (wanted, keeps_port, at, error) = Default::default();
        self.sockets
            .insert(child, Socket { v6, stream: true, inode, wanted, keeps_port, local: at, phase, error, options });
        self.place(child, view(local));
        Ok(())
    }

    /// Whether a socket is of AF_INET6.
    pub(super) fn is_v6(&self, id: u64) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.v6)
    }

    /// The program has closed it, or its connection has ended: then the program may have it still, and ask.
    pub(super) fn ended(&mut self, id: u64) {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.phase != Phase::Ended) else { return };
        socket.phase = Phase::Ended;
        if !socket.keeps_port {
            self.closed(id);
        }
        self.ended.push_back(id);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.displace(oldest);
            self.sockets.remove(&oldest);
        }
    }

    /// Sockets at a port that have no connection, not or no more: the kernel frees such a port in the moment of close(2).
    pub(super) fn unconnected_at(&self, port: u16) -> Vec<(SocketName, u64)> {
        let named = |id: &u64| {
            let socket = self.sockets.get(id).filter(|socket| !matches!(socket.phase, Phase::Connected { .. }))?;
            Some((SocketName { socket: *id, v6: socket.v6, stream: socket.stream }, socket.inode))
        };
        self.ports.get(&port).into_iter().flatten().filter_map(named).collect()
    }

    /// The program has closed it: its name is remembered, its port is free.
    pub(super) fn closed(&mut self, id: u64) {
        let local = self.sockets.get(&id).and_then(|socket| socket.local);
        self.displace(id);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.local = local;
        }
    }
}

impl Socket {
    fn about(&self) -> About {
        // As in the kernel's tcp_states.h.
        let state = match self.phase {
            Phase::Connected { .. } => 1,
            Phase::Connecting { .. } => 2,
            Phase::Idle | Phase::Ended => 7,
            Phase::Listening { .. } => 10,
        };
        About { v6: self.v6, stream: self.stream, bound: self.local.is_some(), listening: state == 10, state }
    }
}
