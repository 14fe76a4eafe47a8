//! Socket activation: what listens where only this computer reaches it becomes a listener of the identity, at the same port.
//!
//! The manager's own socket belongs to this computer's network; the program gets another one in its place.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use phantom_ipc::hook::IdentityRef;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, sockopt};

use crate::control::{Contact, Line};
use crate::sys;

/// As long as the kernel permits: the manager's own cannot be asked for.
const BACKLOG: i32 = 4096;

/// A listener of the identity, and the descriptor that it stands for.
pub(crate) struct Listener {
    pub(crate) number: RawFd,
    anew: OwnedFd,
}

impl Listener {
    /// Puts it in its place, which is free once foreign sockets are closed.
    pub(crate) fn place(self) -> io::Result<()> {
        if sys::is_open(self.number) {
            Err(io::ErrorKind::AlreadyExists.into())
        } else {
            sys::place(self.anew, self.number)
        }
    }
}

/// New ones for those of `passed` that can have one.
///
/// # Errors
/// When the daemon gives no socket, or the port is somebody else's.
pub(crate) fn renew(passed: &[RawFd], contact: &Contact, identity: &IdentityRef) -> Result<Vec<Listener>> {
    let mut line = None;
    let mut made = Vec::new();
    for number in passed {
        let Some(old) = sys::borrowed(*number).filter(|old| is_of_this_computer(old).unwrap_or(false)) else {
            continue;
        };
        let line = match &mut line {
            Some(line) => line,
            None => line.insert(Line::open(&contact.socket)?),
        };
        let address: SocketAddr = getsockname(old)?.try_into()?;
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let arguments = [i32::from(family.as_raw()), SocketType::STREAM.as_raw().cast_signed(), 0];
        let anew = line.socket(identity, arguments)?.map_err(io::Error::from_raw_os_error)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&anew, sockopt::ipv6_v6only(old)?)?;
        }
        sockopt::set_socket_reuseaddr(&anew, true)?;
        bind(&anew, &address)
            .and_then(|()| listen(&anew, BACKLOG))
            .with_context(|| format!("listening on {address}"))?;
        made.push(Listener { number: *number, anew });
    }
    Ok(made)
}

/// Whether it listens where nobody outside sees that it does: at an address of loopback, or at any through that device.
fn is_of_this_computer(socket: impl AsFd + Copy) -> Result<bool> {
    if sockopt::socket_type(socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(socket)? {
        return Ok(false);
    }
    let address: SocketAddr = getsockname(socket)?.try_into()?;
    let ip = address.ip().to_canonical();
    Ok(ip.is_loopback() || (ip.is_unspecified() && sys::bound_to(socket.as_fd())? == sys::LOOPBACK))
}
