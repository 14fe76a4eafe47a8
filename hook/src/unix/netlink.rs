//! The network interfaces of the phantom namespace, asked over a netlink socket that lives in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use libc::c_int;
use phantom_ipc::hook::{Reply, Request};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::daemon;

/// Longest wait for the kernel's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of one read: what the kernel puts into one part of a dump, at most.
const PART: usize = 32 * 1024;

/// Parts of an answer: thousands of interfaces; the phantom namespace has two.
const PARTS: usize = 64;

/// Messages of route netlink and their parts.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// NLM_F_REQUEST and NLM_F_DUMP.
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;

/// Attributes of links.
const LINK_ADDRESS: u16 = 1;
const LINK_BROADCAST: u16 = 2;
const LINK_NAME: u16 = 3;
const LINK_STATISTICS: u16 = 7;

/// Attributes of addresses.
const PEER: u16 = 1;
const LOCAL: u16 = 2;
const LABEL: u16 = 3;
const BROADCAST: u16 = 4;

/// An interface.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) kind: u16,
    pub(super) name: String,
    pub(super) address: Vec<u8>,
    pub(super) broadcast: Vec<u8>,
    pub(super) statistics: Vec<u8>,
}

/// An address of an interface.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) prefix: u8,
    pub(super) label: Option<String>,
    pub(super) local: IpAddr,
    pub(super) peer: Option<IpAddr>,
    pub(super) broadcast: Option<IpAddr>,
}

/// All interfaces.
pub(super) fn links() -> Result<Vec<Link>, i32> {
    let found = dump(GET_LINK, LINK_HEADER, |kind, body| if kind == NEW_LINK { link(body) } else { None });
    if is_emulated(&found) { Ok(emulated_links()) } else { found }
}

/// All addresses.
pub(super) fn addresses() -> Result<Vec<Address>, i32> {
    let found = dump(GET_ADDRESS, ADDRESS_HEADER, |kind, body| if kind == NEW_ADDRESS { address(body) } else { None });
    if is_emulated(&found) { emulated_addresses() } else { found }
}

/// Whether sockets are emulated, and nobody speaks netlink: then there is what a phantom namespace would have.
fn is_emulated<T>(found: &Result<T, i32>) -> bool {
    matches!(found, Err(libc::EAFNOSUPPORT))
}

fn emulated_links() -> Vec<Link> {
    let link = |index, flags: c_int, kind, name: &str, hardware: usize| Link {
        index,
        flags: (flags | libc::IFF_UP | libc::IFF_RUNNING) as u32,
        kind,
        name: name.to_owned(),
        address: vec![0; hardware],
        broadcast: vec![0; hardware],
        statistics: Vec::new(),
    };
    let tunnel = libc::IFF_POINTOPOINT | libc::IFF_NOARP;
    vec![link(1, libc::IFF_LOOPBACK, libc::ARPHRD_LOOPBACK, "lo", 6), link(2, tunnel, libc::ARPHRD_NONE, "phantom0", 0)]
}

fn emulated_addresses() -> Result<Vec<Address>, i32> {
    let Reply::Info { address, ipv4, .. } = daemon::ask(|identity| Request::Info { identity })? else {
        return Err(libc::EIO);
    };
    let at = |index, prefix, label: Option<&str>, local| Address {
        index,
        prefix,
        label: label.map(str::to_owned),
        local,
        peer: None,
        broadcast: None,
    };
    Ok(vec![
        at(1, 8, Some("lo"), Ipv4Addr::LOCALHOST.into()),
        at(2, 32, Some("phantom0"), Ipv4Addr::from(ipv4).into()),
        at(1, 128, None, Ipv6Addr::LOCALHOST.into()),
        at(2, 128, None, Ipv6Addr::from(address).into()),
    ])
}

/// Asks the kernel for all of a kind.
fn dump<T>(request: u16, header: usize, read: impl Fn(u16, &[u8]) -> Option<T>) -> Result<Vec<T>, i32> {
    let socket = daemon::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)?;
    let mut found = Vec::new();
    ask(&socket, request, header, |kind, body| found.extend(read(kind, body))).map_err(Errno::raw_os_error)?;
    Ok(found)
}

fn ask(socket: &OwnedFd, request: u16, header: usize, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
    let length = HEADER + header;
    let mut message = vec![0; length];
    message[..4].copy_from_slice(&(length as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&request.to_ne_bytes());
    message[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    set_socket_timeout(socket, Timeout::Recv, Some(PATIENCE))?;
    retry_on_intr(|| send(socket, &message, SendFlags::NOSIGNAL))?;
    for _ in 0..PARTS {
        let mut part = Vec::with_capacity(PART);
        retry_on_intr(|| recv(socket, spare_capacity(&mut part), RecvFlags::empty()))?;
        let mut rest = &part[..];
        while let Some((kind, body, after)) = message_at(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    return Err(Errno::from_raw_os_error(-i32::from_ne_bytes(field(body, 0).unwrap_or([0xff; 4]))));
                }
                _ => each(kind, body),
            }
            rest = after;
        }
    }
    Err(Errno::MSGSIZE)
}

/// The first message, and what follows it.
fn message_at(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(field(bytes, 0)?) as usize;
    let body = bytes.get(HEADER..length)?;
    Some((u16::from_ne_bytes(field(bytes, 4)?), body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes behind a header.
fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(field(rest, 0)?));
        let kind = u16::from_ne_bytes(field(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link {
        kind: u16::from_ne_bytes(field(body, 2)?),
        index: u32::from_ne_bytes(field(body, 4)?),
        flags: u32::from_ne_bytes(field(body, 8)?),
        ..Link::default()
    };
    for (kind, value) in attributes(body, LINK_HEADER) {
        match kind {
            LINK_ADDRESS => link.address = value.to_vec(),
            LINK_BROADCAST => link.broadcast = value.to_vec(),
            LINK_NAME => link.name = text(value),
            LINK_STATISTICS => link.statistics = value.to_vec(),
            _ => {}
        }
    }
    Some(link)
}

fn address(body: &[u8]) -> Option<Address> {
    let (mut local, mut peer, mut broadcast, mut label) = (None, None, None, None);
    for (kind, value) in attributes(body, ADDRESS_HEADER) {
        match kind {
            PEER => peer = ip(value),
            LOCAL => local = ip(value),
            BROADCAST => broadcast = ip(value),
            LABEL => label = Some(text(value)),
            _ => {}
        }
    }
    let index = u32::from_ne_bytes(field(body, 4)?);
    // Without a local address, what is called the peer is the interface's own.
    let far = local.and(peer);
    Some(Address { index, prefix: *body.get(1)?, label, local: local.or(peer)?, peer: far, broadcast })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
