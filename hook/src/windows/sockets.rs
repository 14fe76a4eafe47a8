//! What becomes of a program's calls on sockets.

use std::net::SocketAddr;

use windows_sys::Win32::Networking::WinSock::{
    SOCKET, WSAEADDRNOTAVAIL, WSAEALREADY, WSAECONNRESET, WSAEISCONN, WSAENETUNREACH, WSAENOTSOCK, WSAEWOULDBLOCK,
};

use super::numbers::of_winsock;
use super::real::{Issue, Overlapped};
use super::table::{Attempt, table};
use super::{daemon, deferred, offers, real};
use crate::outcome::{Outcome, Why};

/// Where something leads that names an address.
enum Leads {
    /// This computer's loopback, which is the kernel's.
    Here,
    /// Through the daemon.
    Phantom,
    /// Nowhere: no datagrams are carried.
    Nowhere,
}

fn leads(socket: SOCKET, to: SocketAddr) -> Leads {
    let ip = to.ip().to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        Leads::Here
    } else if real::is_stream(socket) {
        Leads::Phantom
    } else {
        Leads::Nowhere
    }
}

/// An address of this computer's loopback, or none.
fn is_of_computer(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// connect(). A socket whose calls do not wait is connected later.
pub(super) fn connect(socket: SOCKET, to: SocketAddr) -> Outcome<()> {
    match leads(socket, to) {
        Leads::Here => Outcome::Bypass(Why::Local),
        Leads::Nowhere => Outcome::Fail(WSAENETUNREACH),
        Leads::Phantom => begin(socket, to).err().map_or(Outcome::Done(()), Outcome::Fail),
    }
}

fn begin(socket: SOCKET, to: SocketAddr) -> Result<(), i32> {
    let from = bound(socket)?;
    let is_non_blocking = table().known(socket).is_some_and(|entry| entry.is_non_blocking);
    let number = attempt(socket, is_non_blocking.then_some(Issue::NonBlocking))?;
    if is_non_blocking {
        deferred::open(socket, number, to, from)?;
        return Err(WSAEWOULDBLOCK);
    }
    let door = daemon::connect(to, from).map_err(of_winsock);
    // Whoever closed the socket meanwhile may have another of that number now.
    if table().ends(socket, number).is_none() {
        return Err(WSAENOTSOCK);
    }
    real::connect(socket, door?)?;
    table().of(socket).peer = Some(to);
    Ok(())
}

/// ConnectEx(): connected later, always.
pub(super) fn connect_ex(socket: SOCKET, to: SocketAddr, overlapped: Overlapped) -> Outcome<()> {
    let begun = || {
        let from = bound(socket)?;
        let number = attempt(socket, Some(Issue::Overlapped(overlapped)))?;
        deferred::open(socket, number, to, from)
    };
    match leads(socket, to) {
        Leads::Here => Outcome::Bypass(Why::Local),
        Leads::Nowhere => Outcome::Fail(WSAENETUNREACH),
        Leads::Phantom => begun().map_or_else(Outcome::Fail, Outcome::Done),
    }
}

/// Notes that a connection is being opened for a socket; one at a time.
fn attempt(socket: SOCKET, issue: Option<Issue>) -> Result<u64, i32> {
    let mut table = table();
    let number = table.next();
    let entry = table.of(socket);
    if entry.attempt.is_some() {
        return Err(WSAEALREADY);
    }
    if entry.peer.is_some() && real::remote(socket).is_ok() {
        return Err(WSAEISCONN);
    }
    entry.attempt = Some(Attempt { number, issue });
    Ok(number)
}

/// Where the socket is bound, which the daemon knows it by; bound for that where it is not.
fn bound(socket: SOCKET) -> Result<SocketAddr, i32> {
    if let Some(local) = real::local(socket).ok().filter(|local| local.port() != 0) {
        return Ok(local);
    }
    let loopback = real::loopback(real::is_v6(socket)?);
    real::bind(socket, SocketAddr::new(loopback, 0)).and_then(|()| real::local(socket))
}

/// What names the far end of a datagram, or of one that is joined.
pub(super) fn send_to(socket: SOCKET, to: SocketAddr) -> Outcome<()> {
    match leads(socket, to) {
        Leads::Here => Outcome::Bypass(Why::Local),
        // Of a stream the address is not looked at.
        Leads::Phantom => Outcome::Bypass(Why::Unrelated),
        Leads::Nowhere => Outcome::Fail(WSAENETUNREACH),
    }
}

/// bind(): to the loopback device, whatever is asked for, and remembered.
pub(super) fn bind(socket: SOCKET, local: SocketAddr) -> Outcome<()> {
    if is_of_computer(local) {
        return Outcome::Bypass(Why::Local);
    }
    bind_elsewhere(socket, local).map_or_else(Outcome::Fail, Outcome::Done)
}

fn bind_elsewhere(socket: SOCKET, local: SocketAddr) -> Result<(), i32> {
    let ip = local.ip();
    if !ip.is_unspecified() && !daemon::own_addresses().map_err(of_winsock)?.contains(&ip) {
        return Err(WSAEADDRNOTAVAIL);
    }
    // A port that others see need not be free here; that of a datagram socket is seen here alone.
    let is_stream = real::is_stream(socket);
    let port = if is_stream { 0 } else { local.port() };
    real::bind(socket, SocketAddr::new(real::loopback(ip.is_ipv6()), port))?;
    if is_stream {
        table().of(socket).claim = Some(local);
    }
    Ok(())
}

/// listen(): others reach it as it was bound.
pub(super) fn listen(socket: SOCKET, backlog: i32) -> Outcome<()> {
    let known = table().known(socket).map(|entry| (entry.claim, entry.listening.is_some()));
    let Some((Some(claim), false)) = known else { return Outcome::Bypass(Why::Local) };
    let begun = || {
        // First the program's: from the daemon's answer on others may come.
        real::listen(socket, backlog)?;
        let (line, seen) = daemon::listen(claim, real::local(socket)?).map_err(of_winsock)?;
        let mut table = table();
        let entry = table.of(socket);
        (entry.claim, entry.listening) = (Some(seen), Some(line));
        drop(table);
        offers::begin();
        Ok(())
    };
    begun().map_or_else(Outcome::Fail, Outcome::Done)
}

/// accept(): the next that is a peer's; whoever else comes to the port is nobody.
pub(super) fn accept(listener: SOCKET) -> Outcome<(SOCKET, SocketAddr)> {
    if !is_listening(listener) {
        return Outcome::Bypass(Why::Local);
    }
    loop {
        let (accepted, source) = match real::accept(listener) {
            Ok(accepted) => accepted,
            Err(number) => return Outcome::Fail(number),
        };
        let peer = daemon::peer(source);
        if let Ok(Some(peer)) = peer {
            let mut table = table();
            table.forget(accepted);
            table.of(accepted).peer = Some(peer);
            return Outcome::Done((accepted, peer));
        }
        real::close(accepted);
        if peer.is_err() {
            return Outcome::Fail(WSAECONNRESET);
        }
    }
}

fn is_listening(socket: SOCKET) -> bool {
    table().known(socket).is_some_and(|entry| entry.listening.is_some())
}

/// A connection that AcceptEx has taken at a listener: nobody's lets nothing through.
pub(super) fn accepted(socket: SOCKET, listener: SOCKET) {
    if !is_listening(listener) {
        return;
    }
    match real::remote(socket).and_then(daemon::peer) {
        Ok(Some(peer)) => table().of(socket).peer = Some(peer),
        _ => real::shut(socket),
    }
}

/// Whose an address is that a listener's connections come from, where it is a peer's.
pub(super) fn peer_behind(source: SocketAddr) -> Option<SocketAddr> {
    daemon::peer(source).ok().flatten()
}

/// getpeername(): the true one.
pub(super) fn remote(socket: SOCKET) -> Outcome<SocketAddr> {
    let peer = table().known(socket).and_then(|entry| entry.peer);
    match (peer, real::remote(socket)) {
        (Some(peer), Ok(_)) => Outcome::Done(peer),
        _ => Outcome::Bypass(Why::Local),
    }
}

/// getsockname(): as it was bound.
pub(super) fn local(socket: SOCKET) -> Outcome<SocketAddr> {
    let claim = table().known(socket).and_then(|entry| entry.claim);
    match (claim, real::local(socket)) {
        (Some(mut claim), Ok(here)) => {
            if claim.port() == 0 {
                claim.set_port(here.port());
            }
            Outcome::Done(claim)
        }
        _ => Outcome::Bypass(Why::Local),
    }
}

/// The socket's calls wait, or do not.
pub(super) fn set_blocking(socket: SOCKET, waits: bool) {
    table().of(socket).is_non_blocking = !waits;
}

/// A handle that is a new socket's.
pub(super) fn opened(socket: SOCKET) {
    table().forget(socket);
}

/// What was under way is given up, and the program told of it by the kernel; then it is forgotten.
pub(super) fn closing(socket: SOCKET) {
    deferred::give_up(socket, None);
    table().forget(socket);
}
