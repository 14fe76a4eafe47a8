//! The little netlink that is spoken here: links, addresses, routes, which TCP sockets a namespace holds, whose one of
//! them is, and what local ones are called.

mod contents;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

pub(crate) use contents::Link;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const LWTUNNEL_ENCAP_SEG6: u16 = 5;
const SEG6_IPTUNNEL_SRH: u16 = 1;
const SEG6_IPTUN_MODE_ENCAP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_ANY: u8 = 255;

const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_UNREACHABLE: u8 = 7;

/// Table with the routes of datagrams that are refused; any number that nobody else uses.
const RT_TABLE_REFUSED: u8 = 99;

/// An address that leads nowhere, not even here: RFC 6666 keeps it for what is thrown away.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;

/// Where an inet_diag_msg of a listener says how many connections wait for accept(), and how many may.
const QUEUED: usize = 56;
const QUEUE_LIMIT: usize = 60;

/// Where it says the state of a socket, and whose it is.
const STATE: usize = 1;
const OWNER: usize = 64;

/// Bytes of an inet_diag_msg.
const SOCKET: usize = 72;

/// Local sockets, and bytes of a unix_diag_msg.
const AF_UNIX: u8 = 1;
const LOCAL_SOCKET: usize = 16;
const UDIAG_SHOW_NAME: u32 = 1;
const UNIX_DIAG_NAME: u16 = 0;

/// In place of a socket's cookie: any.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// Index of `lo` in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The kernel gives up on an answer after this long; it answers at once or never.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A listing of sockets ends here, so that a program with a silly number of them costs bounded memory.
pub(crate) const MAX_LISTED: usize = 4096;

/// A connection to one family of netlink, in the network namespace that the process was in when it was opened.
pub(crate) struct Netlink(OwnedFd);

/// One TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Port it listens on.
    pub(crate) port: u16,
    /// Whether it takes IPv6 connections.
    pub(crate) v6: bool,
    /// Whether only the loopback device reaches it.
    pub(crate) loopback: bool,
    /// Whether its queue is full: the kernel would not answer a SYN now.
    pub(crate) full: bool,
}

/// What sockets speak; the numbers are those of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp = 6,
    Udp = 17,
}

impl Transport {
    /// The states in which a socket has, or wants, a far end that somebody may wait for.
    fn connected(self) -> u32 {
        match self {
            Self::Tcp => !((1 << TCP_LISTEN) | (1 << TCP_TIME_WAIT)),
            Self::Udp => 1 << u32::from(TCP_ESTABLISHED),
        }
    }
}

impl Netlink {
    /// Opens the routing family.
    pub(crate) fn route() -> io::Result<Self> {
        // Its number is zero, which socket(2) means by no protocol.
        Self::open(None)
    }

    /// Opens the family that lists sockets.
    pub(crate) fn sock_diag() -> io::Result<Self> {
        Self::open(Some(netlink::SOCK_DIAG))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(socket))
    }

    /// Brings a device up; `device` = (MTU, length of its queue) for other devices than `lo`.
    pub(crate) fn link_up(&self, index: u32, device: Option<(u32, u32)>) -> io::Result<()> {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        if let Some((mtu, queue)) = device {
            attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
            attribute(&mut body, IFLA_TXQLEN, &queue.to_ne_bytes());
            // No link-local address: nothing but the AP address shall be seen on the wire.
            let mut inet6 = Vec::new();
            attribute(&mut inet6, IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
            let mut families = Vec::new();
            attribute(&mut families, u16::from(AF_INET6), &inet6);
            attribute(&mut body, IFLA_AF_SPEC, &families);
        }
        self.request(RTM_NEWLINK, 0, &body)
    }

    /// Takes a device away, and all routes into it.
    pub(crate) fn remove_link(&self, name: &str) -> io::Result<()> {
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.request(RTM_DELLINK, 0, &body)
    }

    /// Gives a device an address, alone in its subnet.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let raw = octets(address);
        let prefix = u8::try_from(raw.len() * 8).unwrap_or(u8::MAX);
        let mut body = vec![family(address), prefix, IFA_F_NODAD, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &raw);
        attribute(&mut body, IFA_ADDRESS, &raw);
        self.request(RTM_NEWADDR, NLM_F_CREATE, &body)
    }

    /// Routes everything of the address's family into a device, with `source` as the preferred source.
    pub(crate) fn add_default_route(&self, index: u32, source: IpAddr) -> io::Result<()> {
        self.request(RTM_NEWROUTE, NLM_F_CREATE, &default_route(index, source, RT_TABLE_MAIN))
    }

    /// Takes the default routes of both families away, which the kernel does at once.
    pub(crate) fn remove_default_routes(&self) -> io::Result<()> {
        let remove =
            |family| self.request(RTM_DELROUTE, 0, &[family, 0, 0, 0, RT_TABLE_MAIN, 0, RT_SCOPE_ANY, 0, 0, 0, 0, 0]);
        // The second whatever became of the first.
        let (v6, v4) = (remove(AF_INET6), remove(AF_INET));
        v6.and(v4)
    }

    /// Lets datagrams to other ports than `port` fail at once with ENETUNREACH, in the family of `source`; but connect(),
    /// by which programs ask for their own address and never send, keeps its answer.
    ///
    /// No kind of route does that. But a tunnel's route has an address, and sends only when there is a way to where the
    /// tunnel ends: so these go into a tunnel to nowhere.
    ///
    /// # Errors
    /// Also when the kernel has no such tunnels (`CONFIG_IPV6_SEG6_LWTUNNEL`); then nothing has changed.
    pub(crate) fn refuse_datagrams(&self, index: u32, source: IpAddr, port: u16) -> io::Result<()> {
        let mut header = SEG6_IPTUN_MODE_ENCAP.to_ne_bytes().to_vec();
        // A routing header of type 4 with one segment.
        header.extend([0, 2, 4, 0, 0, 0, 0, 0]);
        header.extend(NOWHERE.octets());
        let mut tunnel = Vec::new();
        attribute(&mut tunnel, SEG6_IPTUNNEL_SRH, &header);
        let mut route = default_route(index, source, RT_TABLE_REFUSED);
        attribute(&mut route, RTA_ENCAP_TYPE, &LWTUNNEL_ENCAP_SEG6.to_ne_bytes());
        attribute(&mut route, RTA_ENCAP, &tunnel);
        self.request(RTM_NEWROUTE, NLM_F_CREATE, &route)?;
        if source.is_ipv6() {
            let nowhere: &[(u16, &[u8])] = &[(FRA_DST, &NOWHERE.octets())];
            self.add_rule(AF_INET6, 128, 10, (FR_ACT_UNREACHABLE, 0), nowhere)?;
        }
        let ports = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
        let family = family(source);
        let allowed: &[(u16, &[u8])] = &[(FRA_IP_PROTO, &[Transport::Udp as u8]), (FRA_DPORT_RANGE, &ports)];
        self.add_rule(family, 0, 20, (FR_ACT_TO_TBL, RT_TABLE_MAIN), allowed)?;
        self.add_rule(family, 0, 30, (FR_ACT_TO_TBL, RT_TABLE_REFUSED), &allowed[..1])
    }

    /// Adds a rule before those that look into the main table; after the kernel's own for local addresses. Once: a namespace that had
    /// a gate before has it still.
    fn add_rule(
        &self,
        family: u8,
        destination_bits: u8,
        priority: u32,
        (action, table): (u8, u8),
        conditions: &[(u16, &[u8])],
    ) -> io::Result<()> {
        let mut body = vec![family, destination_bits, 0, 0, table, 0, 0, action, 0, 0, 0, 0];
        attribute(&mut body, FRA_PRIORITY, &priority.to_ne_bytes());
        for (kind, value) in conditions {
            attribute(&mut body, *kind, value);
        }
        match self.request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &body) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// The TCP sockets that listen, at most [`MAX_LISTED`].
    pub(crate) fn listeners(&self) -> io::Result<Vec<Listener>> {
        let mut found = Vec::new();
        for family in [AF_INET6, AF_INET] {
            self.dump(family, 1 << TCP_LISTEN, |socket| {
                found.push(Listener {
                    port: u16::from_be_bytes([socket[4], socket[5]]),
                    v6: family == AF_INET6,
                    loopback: is_loopback(family, &socket[8..24]),
                    full: number(socket, QUEUED) > number(socket, QUEUE_LIMIT),
                });
                found.len() < MAX_LISTED
            })?;
        }
        Ok(found)
    }

    /// Aborts every connection: whoever waits, reads or writes there gets an error at once. Says how many it aborted.
    pub(crate) fn abort(&self, transport: Transport) -> io::Result<usize> {
        self.abort_of(transport, |_, _| true)
    }

    /// The same of those alone that lead to other addresses than the own and loopback.
    pub(crate) fn abort_beyond(&self, transport: Transport) -> io::Result<usize> {
        self.abort_of(transport, |family, socket| {
            socket[8..24] != socket[24..40] && !is_loopback(family, &socket[24..40])
        })
    }

    fn abort_of(&self, transport: Transport, is_meant: impl Fn(u8, &[u8]) -> bool) -> io::Result<usize> {
        let mut aborted = 0;
        for family in [AF_INET6, AF_INET] {
            let mut ids = Vec::new();
            self.dump_of(transport, family, transport.connected(), |socket| {
                ids.extend(is_meant(family, socket).then(|| socket[4..52].to_vec()));
                true
            })?;
            for id in ids {
                let mut body = vec![family, transport as u8, 0, 0];
                body.extend(u32::MAX.to_ne_bytes());
                body.extend(id);
                match self.request(SOCK_DESTROY, 0, &body) {
                    Ok(()) => aborted += 1,
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Err(error),
                    // It may be gone already: that is what is wanted.
                    Err(_) => {}
                }
            }
        }
        Ok(aborted)
    }

    /// The user whose socket stands at `own` and is connected to `other`; none when there is none (any more).
    pub(crate) fn owner(&self, own: SocketAddr, other: SocketAddr) -> io::Result<Option<u32>> {
        // Where nothing is connected the kernel names who listens at `own`; what was closed it shows as root's.
        let is_it = |socket: &[u8]| socket[STATE] == TCP_ESTABLISHED;
        Ok(self.socket(own, other)?.filter(|socket| is_it(socket)).map(|socket| number(&socket, OWNER)))
    }

    /// Whether something listens at `own`, be it for all addresses.
    pub(crate) fn listens(&self, own: SocketAddr) -> io::Result<bool> {
        let nobody: IpAddr = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let found = self.socket(own, SocketAddr::new(nobody, 0))?;
        Ok(found.is_some_and(|socket| u32::from(socket[STATE]) == TCP_LISTEN))
    }

    /// What the kernel has at `own` for who comes from `other`, as an inet_diag_msg. It looks in one place for it, however many connections
    /// there are.
    fn socket(&self, own: SocketAddr, other: SocketAddr) -> io::Result<Option<Vec<u8>>> {
        let family = family(own.ip());
        let mut body = vec![family, Transport::Tcp as u8, 0, 0];
        body.extend(u32::MAX.to_ne_bytes());
        body.extend([own.port().to_be_bytes(), other.port().to_be_bytes()].concat());
        for ip in [own.ip(), other.ip()] {
            let mut field = octets(ip);
            field.resize(16, 0);
            body.extend(field);
        }
        body.extend(LOOPBACK.to_ne_bytes());
        body.extend(ANY_COOKIE);
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_ACK, &body)?;
        let mut found = None;
        let asked = self.receive(|kind, payload| {
            if kind == SOCK_DIAG_BY_FAMILY && payload.len() >= SOCKET {
                found = Some(payload[..SOCKET].to_vec());
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// What the local socket of that number is called, as addresses have it: names of no file begin with a zero byte. None when there is no
    /// such socket, or the kernel does not tell of any; nothing for one without a name.
    pub(crate) fn local_name(&self, inode: u64) -> io::Result<Option<Vec<u8>>> {
        let Ok(inode) = u32::try_from(inode) else { return Ok(None) };
        let mut body = vec![AF_UNIX, 0, 0, 0];
        body.extend([u32::MAX, inode, UDIAG_SHOW_NAME].map(u32::to_ne_bytes).concat());
        body.extend(ANY_COOKIE);
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_ACK, &body)?;
        let mut found = None;
        let asked = self.receive(|kind, payload| {
            if kind == SOCK_DIAG_BY_FAMILY {
                let name = payload.get(LOCAL_SOCKET..).and_then(|attributes| value_of(attributes, UNIX_DIAG_NAME));
                found = Some(name.unwrap_or_default().to_vec());
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    fn dump(&self, family: u8, states: u32, each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.dump_of(Transport::Tcp, family, states, each)
    }

    /// Calls `each` with every inet_diag_msg of the family and states, until it says false.
    fn dump_of(
        &self,
        transport: Transport,
        family: u8,
        states: u32,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let mut body = vec![family, transport as u8, 0, 0];
        body.extend(states.to_ne_bytes());
        body.extend([0; 48]);
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body)?;
        let mut wanted = true;
        self.receive(|kind, payload| {
            if kind == SOCK_DIAG_BY_FAMILY && payload.len() >= SOCKET && wanted {
                wanted = each(&payload[..SOCKET]);
            }
        })
    }

    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, flags | NLM_F_ACK, body)?;
        self.receive(|_, _| ())
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        rustix::net::send(&self.0, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Reads messages until the acknowledgement, the error, or the end of a dump.
    fn receive(&self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while rest.len() >= 16 {
                let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                if size < 16 || size > rest.len() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let payload = &rest[16..size];
                match u16::from_ne_bytes([rest[4], rest[5]]) {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error_of(payload),
                    kind => each(kind, payload),
                }
                rest = &rest[size.next_multiple_of(4).min(rest.len())..];
            }
        }
    }
}

fn default_route(index: u32, source: IpAddr, table: u8) -> Vec<u8> {
    let scope = if source.is_ipv4() { RT_SCOPE_LINK } else { 0 };
    let mut body = vec![family(source), 0, 0, 0, table, RTPROT_STATIC, scope, RTN_UNICAST, 0, 0, 0, 0];
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    attribute(&mut body, RTA_PREFSRC, &octets(source));
    body
}

fn number(message: &[u8], at: usize) -> u32 {
    message.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |raw| u32::from_ne_bytes(*raw))
}

fn error_of(payload: &[u8]) -> io::Result<()> {
    let Some(code) = payload.first_chunk::<4>() else { return Err(io::ErrorKind::InvalidData.into()) };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

fn is_loopback(family: u8, address: &[u8]) -> bool {
    if family == AF_INET { address[0] == 127 } else { address[..15].iter().all(|b| *b == 0) && address[15] == 1 }
}

/// The value of the first attribute of that kind.
fn value_of(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let size = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..size)?;
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(size.next_multiple_of(4)..)?;
    }
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
