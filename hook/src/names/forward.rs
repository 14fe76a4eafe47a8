//! From names to addresses: what getaddrinfo(3) means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::literal::{self, Scoped};
use super::{Addresses, Directory, Unknown, resolve, services};

/// Socket types and protocols, the same on all systems.
const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;
const TCP: i32 = 6;
const UDP: i32 = 17;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// One that has no names.
    Other,
}

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) node: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) family: Option<Family>,
    /// Socket type; 0 for any.
    pub(crate) kind: i32,
    /// Protocol; 0 for any.
    pub(crate) protocol: i32,
    pub(crate) passive: bool,
    pub(crate) canonical: bool,
    pub(crate) numeric_host: bool,
    pub(crate) numeric_service: bool,
    pub(crate) v4_mapped: bool,
    pub(crate) all: bool,
    /// Flags that have no meaning.
    pub(crate) unknown: bool,
}

/// Something to connect or bind to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) to: Scoped,
    pub(crate) port: u16,
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
}

/// The answer; at least one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    pub(crate) canonical: Option<String>,
}

/// Why there is no answer, as getaddrinfo distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadFlags,
    NoName,
    Family,
    /// The name has no address of that family.
    AddressFamily,
    Service,
    SocketType,
    Again,
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::NotFound => Self::NoName,
            Unknown::Again => Self::Again,
        }
    }
}

/// A way to use an address: socket type, protocol, port.
type Way = (i32, i32, u16);

/// Answers.
pub(crate) fn find(wanted: &Wanted, directory: &impl Directory) -> Result<Found, Refusal> {
    let node = wanted.node.filter(|node| *node != "*");
    let service = wanted.service.filter(|service| *service != "*");
    if node.is_none() && service.is_none() {
        return Err(Refusal::NoName);
    }
    if wanted.unknown || wanted.canonical && node.is_none() {
        return Err(Refusal::BadFlags);
    }
    if wanted.family == Some(Family::Other) {
        return Err(Refusal::Family);
    }
    let ways = ways(wanted, service.filter(|service| !service.is_empty()), directory)?;
    let addresses = match node {
        Some(node) => of_node(wanted, node, directory)?,
        None => of_nobody(wanted),
    };
    let entry = |to: &Scoped, way: &Way| Entry { to: *to, port: way.2, kind: way.0, protocol: way.1 };
    let entries = addresses.iter().flat_map(|to| ways.iter().map(move |way| entry(to, way))).collect();
    let canonical = wanted.canonical.then(|| node.map(|node| node.strip_suffix('.').unwrap_or(node).to_owned()));
    Ok(Found { entries, canonical: canonical.flatten() })
}

/// What libc offers when type or protocol are open, in its order; the rest only when asked for by name.
const OFFERED: [(i32, i32, &str); 2] = [(STREAM, TCP, "tcp"), (DATAGRAM, UDP, "udp")];

fn ways(wanted: &Wanted, service: Option<&str>, directory: &impl Directory) -> Result<Vec<Way>, Refusal> {
    let port = service.map(|service| numeric_port(service).ok_or(service)).unwrap_or(Ok(0));
    if wanted.numeric_service && port.is_err() {
        return Err(Refusal::NoName);
    }
    let fits = |kind, protocol| {
        (wanted.kind == 0 || wanted.kind == kind) && (wanted.protocol == 0 || wanted.protocol == protocol)
    };
    let offered: Vec<_> = OFFERED.into_iter().filter(|(kind, protocol, _)| fits(*kind, *protocol)).collect();
    if offered.is_empty() {
        return only_raw(wanted, service);
    }
    let mut ways: Vec<Way> = match port {
        Ok(port) => offered.into_iter().map(|(kind, protocol, _)| (kind, protocol, port)).collect(),
        Err(name) => named(&directory.services(), name, &offered),
    };
    if ways.is_empty() {
        return Err(Refusal::Service);
    }
    if let (0, 0, Ok(port)) = (wanted.kind, wanted.protocol, port) {
        ways.push((RAW, 0, port));
    }
    Ok(ways)
}

fn named(file: &[u8], name: &str, offered: &[(i32, i32, &str)]) -> Vec<Way> {
    let way = |&(kind, protocol, word): &(i32, i32, &str)| Some((kind, protocol, services::port(file, name, word)?));
    offered.iter().filter_map(way).collect()
}

/// A raw socket takes any protocol, but has no services.
fn only_raw(wanted: &Wanted, service: Option<&str>) -> Result<Vec<Way>, Refusal> {
    match (wanted.kind, service) {
        (0 | RAW, None) => Ok(vec![(RAW, wanted.protocol, 0)]),
        (0 | RAW, Some(_)) => Err(Refusal::Service),
        _ => Err(Refusal::SocketType),
    }
}

/// The port that a text of digits only is. One that is too large is none, nor is it a service's name.
fn numeric_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Addresses where no node is named: to bind to (in libc's order, IPv4 first), or of this machine.
fn of_nobody(wanted: &Wanted) -> Vec<Scoped> {
    let both: [IpAddr; 2] = if wanted.passive {
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    } else {
        [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]
    };
    both.into_iter().filter(|address| of_family(*address, wanted.family)).map(Scoped::plain).collect()
}

fn of_family(address: IpAddr, family: Option<Family>) -> bool {
    family.is_none_or(|family| family == if address.is_ipv4() { Family::V4 } else { Family::V6 })
}

fn of_node(wanted: &Wanted, node: &str, directory: &impl Directory) -> Result<Vec<Scoped>, Refusal> {
    if let Some(literal) = literal::parse(node, |name| directory.interface(name)) {
        return of_literal(wanted, literal).map(|to| vec![to]);
    }
    if wanted.numeric_host {
        return Err(Refusal::NoName);
    }
    let found = of_name(wanted, resolve(node, directory)?);
    // The name is known, but not so: NoName, because that is what programs expect of a name without an address.
    if found.is_empty() { Err(Refusal::NoName) } else { Ok(found.into_iter().map(Scoped::plain).collect()) }
}

fn of_literal(wanted: &Wanted, literal: Scoped) -> Result<Scoped, Refusal> {
    match (literal.address, wanted.family) {
        (IpAddr::V4(address), Some(Family::V6)) if wanted.v4_mapped => Ok(Scoped::plain(address.to_ipv6_mapped())),
        (IpAddr::V6(address), Some(Family::V4)) => {
            address.to_ipv4_mapped().map(Scoped::plain).ok_or(Refusal::AddressFamily)
        }
        (address, family) if of_family(address, family) => Ok(literal),
        _ => Err(Refusal::AddressFamily),
    }
}

/// AP addresses first: whoever can use them needs no translation.
fn of_name(wanted: &Wanted, found: Addresses) -> Vec<IpAddr> {
    let v6 = found.v6.map(IpAddr::from);
    let v4 = found.v4.map(IpAddr::from);
    match wanted.family {
        None => v6.into_iter().chain(v4).collect(),
        Some(Family::V4) => v4.into_iter().collect(),
        Some(Family::V6) => {
            let mapped = found.v4.map(|address| IpAddr::from(address.to_ipv6_mapped()));
            let wants_mapped = wanted.v4_mapped && (wanted.all || v6.is_none());
            v6.into_iter().chain(mapped.filter(|_| wants_mapped)).collect()
        }
        Some(Family::Other) => Vec::new(),
    }
}
