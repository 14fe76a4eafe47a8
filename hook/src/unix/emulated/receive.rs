//! recv, recvfrom and recvmsg of emulated sockets that are not connected: TCP says so, where a local socket waits.

use libc::{c_int, c_long, c_void, sa_family_t, size_t, sockaddr, socklen_t, ssize_t};
use phantom_ipc::hook::{Call, SocketName};

use super::known;
use crate::outcome::{Outcome, Why};
use crate::unix::daemon::{self, Got};
use crate::unix::own::own;
use crate::unix::{glue, raw, sandbox};

/// TCP_SYN_SENT, as the kernel's tcp_states.h counts.
const CONNECTING: u8 = 2;

redhook::hook! {
    unsafe fn recv(fd: c_int, to: *mut c_void, length: size_t, flags: c_int) -> ssize_t => phantom_recv {
        // SAFETY: the caller's arguments are as recv wants them.
        reading(fd, || unsafe { redhook::real!(recv)(fd, to, length, flags) })
    }
}

redhook::hook! {
    unsafe fn recvfrom(
        fd: c_int, to: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr, room: *mut socklen_t
    ) -> ssize_t => phantom_recvfrom {
        // SAFETY: the caller's arguments are as recvfrom wants them.
        reading(fd, || unsafe { redhook::real!(recvfrom)(fd, to, length, flags, address, room) })
    }
}

pub(super) fn prepare() {
    let _ = (redhook::real!(recv), redhook::real!(recvfrom));
}

/// Runs a call that reads, unless TCP would refuse it. Who emulates looks before, since the call could wait for what never
/// comes; all others only when nothing came, and pay nothing.
pub(in crate::unix) fn reading(fd: c_int, real: impl FnOnce() -> ssize_t) -> ssize_t {
    // A filter of the program's own may end it for the question.
    if sandbox::filtered() {
        return real();
    }
    let look = || refusal(fd).map_or(Outcome::Bypass(Why::Unrelated), Outcome::Fail);
    if own().emulate {
        return glue::conclude(-1, look, real);
    }
    let got = real();
    if got < 0 && glue::errno() == libc::EAGAIN { glue::conclude(-1, look, || got) } else { got }
}

/// What TCP says instead of bytes, if the socket is an emulated one that has no connection.
pub(super) fn refusal(fd: c_int) -> Option<c_int> {
    if is_unconnected(fd) { known(fd).and_then(error_of) } else { None }
}

/// Whether the far end has no name: the daemon's has one as soon as there is a connection. Other local sockets may be like
/// that too, which `known` sorts out.
fn is_unconnected(fd: c_int) -> bool {
    // SAFETY: all zeros is a value of this type.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_un>() as socklen_t;
    let (to, room) = (&raw mut address as c_long, &raw mut length as c_long);
    // SAFETY: both can be written, and the length says how much.
    let asked = raw::split(unsafe { raw::syscall(libc::SYS_getpeername, [fd.into(), to, room, 0, 0, 0]) });
    asked.is_ok() && length as usize == size_of::<sa_family_t>() && c_int::from(address.sun_family) == libc::AF_UNIX
}

/// What TCP says: nothing yet while it connects, else why there is no connection.
fn error_of(name: SocketName) -> Option<c_int> {
    if !name.stream {
        return None;
    }
    let ask = |level, option| match daemon::emulated(name.socket, &Call::Option { level, option }) {
        Ok(Got::Value(value)) => Some(value),
        _ => None,
    };
    if ask(libc::SOL_TCP, libc::TCP_INFO)?.bytes().first() == Some(&CONNECTING) {
        return None;
    }
    let failed = ask(libc::SOL_SOCKET, libc::SO_ERROR)?;
    let failed = failed.bytes().first_chunk().map_or(0, |bytes| c_int::from_ne_bytes(*bytes));
    Some(if failed == 0 { libc::ENOTCONN } else { failed })
}
