//! send and relatives of emulated sockets: where they name an address, and where nothing is connected; otherwise they are
//! the kernel's.

use std::ptr;

use libc::{c_int, c_long, c_uint, c_void, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use phantom_ipc::hook::SocketName;

use super::receive::refusal;
use super::{calls, known, on, read};
use crate::outcome::{Outcome, Why};
use crate::unix::own::own;
use crate::unix::{glue, raw, sandbox};

redhook::hook! {
    unsafe fn send(fd: c_int, bytes: *const c_void, length: size_t, flags: c_int) -> ssize_t => phantom_send {
        // SAFETY: the caller's arguments are as send wants them.
        writing(fd, flags, || unsafe { redhook::real!(send)(fd, bytes, length, flags) })
    }
}

redhook::hook! {
    unsafe fn sendto(
        fd: c_int, bytes: *const c_void, length: size_t, flags: c_int, address: *const sockaddr, size: socklen_t
    ) -> ssize_t => phantom_sendto {
        // SAFETY: the caller's arguments are as sendto wants them.
        let real = || unsafe { redhook::real!(sendto)(fd, bytes, length, flags, address, size) };
        if address.is_null() {
            return writing(fd, flags, real);
        }
        // SAFETY: as above.
        glue::conclude(-1, || unsafe { to(fd, bytes, length, flags, address, size) }, real)
    }
}

redhook::hook! {
    unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t => phantom_sendmsg {
        // SAFETY: the caller's arguments are as sendmsg wants them.
        let real = || unsafe { redhook::real!(sendmsg)(fd, message, flags) };
        // SAFETY: NULL or a message.
        if unsafe { message.as_ref() }.is_none_or(|message| message.msg_name.is_null()) {
            return writing(fd, flags, real);
        }
        // SAFETY: as above, and not NULL.
        glue::conclude(-1, || unsafe { message_to(fd, message, flags) }, real)
    }
}

redhook::hook! {
    unsafe fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int => phantom_sendmmsg {
        // SAFETY: the caller's arguments are as sendmmsg wants them.
        let real = || unsafe { redhook::real!(sendmmsg)(fd, messages, count, flags) };
        // Only what could go elsewhere: datagrams.
        let refuse = || match known(fd) {
            Some(name) if !name.stream => Outcome::Fail(libc::ENETUNREACH),
            _ => Outcome::Bypass(Why::Unrelated),
        };
        glue::conclude(-1, refuse, real)
    }
}

pub(super) fn prepare() {
    let _ = (redhook::real!(send), redhook::real!(sendto), redhook::real!(sendmsg), redhook::real!(sendmmsg));
}

/// Runs a call that writes to where the socket is connected, unless it is nowhere: a local socket would take the bytes, and
/// nobody get them. Looks only where sockets are emulated, and costs nothing elsewhere.
fn writing(fd: c_int, flags: c_int, real: impl FnOnce() -> ssize_t) -> ssize_t {
    // A filter of the program's own may end it for the question.
    if !own().emulate || sandbox::filtered() {
        return real();
    }
    let look = || refused(fd, flags).map_or(Outcome::Bypass(Why::Unrelated), Outcome::Fail);
    glue::conclude(-1, look, real)
}

/// What TCP says to bytes for nobody, signal included.
fn refused(fd: c_int, flags: c_int) -> Option<c_int> {
    let error = refusal(fd)?;
    if error != libc::ENOTCONN {
        return Some(error);
    }
    if flags & libc::MSG_NOSIGNAL == 0 {
        // SAFETY: sends this thread a signal, as the kernel would.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    Some(libc::EPIPE)
}

/// # Safety
/// As for sendto; `address` is not NULL.
pub(super) unsafe fn to(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    size: socklen_t,
) -> Outcome<ssize_t> {
    on(fd, |name| {
        // SAFETY: as the caller says.
        unsafe { before(fd, name, flags, address, size) }?;
        let flags = flags & !libc::MSG_FASTOPEN;
        // SAFETY: as the caller says; a connected socket needs no address.
        sent(unsafe {
            raw::syscall(libc::SYS_sendto, [fd.into(), bytes as c_long, length as c_long, flags.into(), 0, 0])
        })
    })
}

/// # Safety
/// As for sendmsg; `message` is not NULL.
unsafe fn message_to(fd: c_int, message: *const msghdr, flags: c_int) -> Outcome<ssize_t> {
    on(fd, |name| {
        // SAFETY: as the caller says.
        let mut copy = unsafe { message.read() };
        // SAFETY: as the caller says.
        unsafe { before(fd, name, flags, copy.msg_name.cast(), copy.msg_namelen) }?;
        (copy.msg_name, copy.msg_namelen) = (ptr::null_mut(), 0);
        let flags = flags & !libc::MSG_FASTOPEN;
        // SAFETY: as the caller says; the copy lives through the call.
        sent(unsafe { raw::syscall(libc::SYS_sendmsg, [fd.into(), &raw const copy as c_long, flags.into(), 0, 0, 0]) })
    })
}

/// What an address asks for: a connection first (MSG_FASTOPEN), nothing with TCP, what is not there with UDP.
///
/// # Safety
/// `address` points to `size` bytes.
unsafe fn before(
    fd: c_int,
    name: SocketName,
    flags: c_int,
    address: *const sockaddr,
    size: socklen_t,
) -> Result<(), c_int> {
    if !name.stream {
        return Err(libc::ENETUNREACH);
    }
    if flags & libc::MSG_FASTOPEN == 0 {
        return refused(fd, flags).map_or(Ok(()), Err);
    }
    // SAFETY: as the caller says.
    let to = unsafe { read(fd, name, address, size) }?.ok_or(libc::EINVAL)?;
    calls::connection(fd, name, to).map(|_| ())
}

fn sent(result: c_long) -> Result<ssize_t, c_int> {
    // Lengths fit: both are as wide as a register.
    raw::split(result).map(|length| length as ssize_t)
}
