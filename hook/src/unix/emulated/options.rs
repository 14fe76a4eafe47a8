//! getsockopt and setsockopt of emulated sockets.

use std::os::fd::BorrowedFd;

use libc::{c_int, c_void, socklen_t};
use phantom_ipc::hook::{Call, MAX_OPTION, OptionValue, SocketName};
use rustix::net::sockopt;

use super::{ask, on};
use crate::outcome::{Outcome, Why};
use crate::unix::daemon::{self, Got};
use crate::unix::glue;

/// SO_RCVTIMEO and SO_SNDTIMEO with 64 bits, where both forms exist.
const TIMEOUTS: [c_int; 4] = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, 66, 67];

/// SO_COOKIE, SO_NETNS_COOKIE, SO_MEMINFO.
const COOKIES: [c_int; 3] = [57, 71, 55];

redhook::hook! {
    unsafe fn getsockopt(
        fd: c_int, level: c_int, option: c_int, to: *mut c_void, length: *mut socklen_t
    ) -> c_int => phantom_getsockopt {
        // SAFETY: the caller's arguments are as getsockopt wants them.
        glue::conclude(-1, || unsafe { value(fd, level, option, to, length) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(getsockopt)(fd, level, option, to, length)
        })
    }
}

redhook::hook! {
    unsafe fn setsockopt(
        fd: c_int, level: c_int, option: c_int, from: *const c_void, length: socklen_t
    ) -> c_int => phantom_setsockopt {
        // SAFETY: the caller's arguments are as setsockopt wants them.
        glue::conclude(-1, || unsafe { set(fd, level, option, from, length) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(setsockopt)(fd, level, option, from, length)
        })
    }
}

pub(super) fn prepare() {
    let _ = (redhook::real!(getsockopt), redhook::real!(setsockopt));
}

/// What means the same on the local socket itself.
fn is_native(level: c_int, option: c_int) -> bool {
    let native = option == libc::SO_RCVLOWAT || option == libc::SO_PEEK_OFF;
    level == libc::SOL_SOCKET && (native || TIMEOUTS.contains(&option) || COOKIES.contains(&option))
}

/// # Safety
/// As for getsockopt.
pub(super) unsafe fn value(
    fd: c_int,
    level: c_int,
    option: c_int,
    to: *mut c_void,
    length: *mut socklen_t,
) -> Outcome<c_int> {
    if is_native(level, option) {
        return Outcome::Bypass(Why::Local);
    }
    on(fd, |name| {
        if to.is_null() || length.is_null() {
            return Err(libc::EFAULT);
        }
        // SAFETY: as the caller says.
        let room = unsafe { length.read() };
        // Lengths are ints to the kernel.
        let room = usize::try_from(room as c_int).map_err(|_| libc::EINVAL)?;
        let value = find(fd, name, level, option)?;
        let size = value.bytes().len().min(room);
        // SAFETY: as the caller says, and no more than there is.
        unsafe {
            to.cast::<u8>().copy_from_nonoverlapping(value.bytes().as_ptr(), size);
            length.write(size as socklen_t);
        }
        Ok(0)
    })
}

fn find(fd: c_int, name: SocketName, level: c_int, option: c_int) -> Result<OptionValue, c_int> {
    let (kind, protocol) =
        if name.stream { (libc::SOCK_STREAM, libc::IPPROTO_TCP) } else { (libc::SOCK_DGRAM, libc::IPPROTO_UDP) };
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => {
            Ok(OptionValue::of(if name.v6 { libc::AF_INET6 } else { libc::AF_INET }))
        }
        (libc::SOL_SOCKET, libc::SO_TYPE) => Ok(OptionValue::of(kind)),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => Ok(OptionValue::of(protocol)),
        (libc::SOL_SOCKET, libc::SO_ERROR) => {
            // SAFETY: the caller's descriptor is open as long as the call, or the kernel says that it is not.
            let own = sockopt::socket_error(unsafe { BorrowedFd::borrow_raw(fd) });
            // A reset is the kernel's to report, a connection that did not come about the daemon's.
            match own.map_err(|error| error.raw_os_error())? {
                Err(error) => Ok(OptionValue::of(error.raw_os_error())),
                Ok(()) => asked(name, level, option),
            }
        }
        _ => asked(name, level, option),
    }
}

fn asked(name: SocketName, level: c_int, option: c_int) -> Result<OptionValue, c_int> {
    match daemon::emulated(name.socket, &Call::Option { level, option })? {
        Got::Value(value) => Ok(value),
        _ => Err(libc::EIO),
    }
}

/// # Safety
/// As for setsockopt.
pub(super) unsafe fn set(
    fd: c_int,
    level: c_int,
    option: c_int,
    from: *const c_void,
    length: socklen_t,
) -> Outcome<c_int> {
    if is_native(level, option) {
        return Outcome::Bypass(Why::Local);
    }
    on(fd, |name| {
        let length = usize::try_from(length as c_int).map_err(|_| libc::EINVAL)?;
        if from.is_null() && length > 0 {
            return Err(libc::EFAULT);
        }
        let mut bytes = [0; MAX_OPTION];
        let length = length.min(bytes.len());
        if length > 0 {
            // SAFETY: as the caller says.
            unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from.cast(), length) };
        }
        let value = OptionValue::new(&bytes[..length]).ok_or(libc::EINVAL)?;
        ask(name, &Call::SetOption { level, option, value })
    })
}
