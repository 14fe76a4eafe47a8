//! Sockets that arrive by descriptor passing: those of another network than Phantom's become dead local ones.
//!
//! The number stays taken, so that no other descriptor gets it while the program still believes in it.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_long, c_uint, cmsghdr, mmsghdr, msghdr, ssize_t, timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::{daemon, emulated, glue, raw, sandbox};

/// The kernel's number of the phantom namespace, as last seen; zero before.
static PHANTOM: AtomicU64 = AtomicU64::new(0);

redhook::hook! {
    unsafe fn recvmsg(socket: c_int, message: *mut msghdr, flags: c_int) -> ssize_t => phantom_recvmsg {
        // SAFETY: the caller's arguments are as recvmsg wants them.
        let got = emulated::reading(socket, || unsafe { redhook::real!(recvmsg)(socket, message, flags) });
        if got >= 0 {
            // SAFETY: the kernel has just filled the message.
            unsafe { check(message) };
        }
        got
    }
}

redhook::hook! {
    unsafe fn recvmmsg(
        socket: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, limit: *mut timespec
    ) -> c_int => phantom_recvmmsg {
        // SAFETY: the caller's arguments are as recvmmsg wants them.
        let got = unsafe { redhook::real!(recvmmsg)(socket, messages, count, flags, limit) };
        // SAFETY: the kernel has just filled so many messages.
        unsafe { check_many(messages, got) };
        got
    }
}

/// Finds the real functions while nobody forks.
pub(super) fn prepare() {
    let _ = (redhook::real!(recvmsg), redhook::real!(recvmmsg));
}

/// Remembers of which network the sockets are that the daemon gives.
pub(super) fn learn(socket: &OwnedFd) {
    if let Some(network) = network(socket.as_raw_fd()) {
        PHANTOM.store(network, Ordering::Relaxed);
    }
}

/// # Safety
/// `messages` points to at least `count` messages that recvmmsg has filled.
pub(super) unsafe fn check_many(messages: *mut mmsghdr, count: c_int) {
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: as the caller says.
        unsafe { check(&raw mut (*messages.add(at)).msg_hdr) };
    }
}

/// Looks through what lies beside a message.
///
/// # Safety
/// `message` is one that recvmsg has filled.
pub(super) unsafe fn check(message: *mut msghdr) {
    // Chromium's sandbox kills for the question of what kind of socket it is. Nor does it let anything be done with one.
    // SAFETY: as the caller says.
    if sandbox::filtered() || unsafe { (*message).msg_controllen } < size_of::<cmsghdr>() {
        return;
    }
    glue::quietly(|| {
        // SAFETY: the kernel wrote well-formed headers, over which libc's functions lead.
        unsafe {
            let mut at = libc::CMSG_FIRSTHDR(message);
            while !at.is_null() {
                if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                    let bytes = ((*at).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                    let first: *const c_int = libc::CMSG_DATA(at).cast();
                    (0..bytes / size_of::<c_int>()).for_each(|index| disarm(first.add(index).read_unaligned()));
                }
                at = libc::CMSG_NXTHDR(message, at);
            }
        }
    });
}

/// Makes a descriptor harmless if it is a socket of another network.
fn disarm(number: c_int) {
    // SAFETY: the program has just got this descriptor; the borrow ends with this function.
    let received = unsafe { BorrowedFd::borrow_raw(number) };
    // Local sockets and what is no socket lead nowhere by themselves.
    if sockopt::socket_domain(received).map_or(true, |domain| domain == AddressFamily::UNIX) {
        return;
    }
    let own = network(number);
    if own.is_some() && (own == known() || own == ask()) {
        return;
    }
    let close = rustix::io::fcntl_getfd(received).map_or(0, |flags| flags.bits());
    let flags = if close == 0 { rustix::io::DupFlags::empty() } else { rustix::io::DupFlags::CLOEXEC };
    if let Ok(dead) = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None) {
        // SAFETY: the number is open; whatever it was is closed, and it stays open as something else.
        let mut place =
            std::mem::ManuallyDrop::new(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) });
        if rustix::io::dup3(&dead, &mut place, flags).is_ok() {
            return;
        }
    }
    // No descriptor is free for a moment: closed, then.
    // SAFETY: the program will find a number that is not open.
    unsafe { rustix::io::close(number) };
}

fn known() -> Option<u64> {
    Some(PHANTOM.load(Ordering::Relaxed)).filter(|network| *network != 0)
}

/// The phantom namespace of now: that known may be of a daemon that was started anew since.
fn ask() -> Option<u64> {
    let socket = daemon::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).ok()?;
    learn(&socket);
    network(socket.as_raw_fd())
}

/// The kernel's number of the network that a socket belongs to; none of local sockets, which are the daemon's where they
/// stand for others.
fn network(number: c_int) -> Option<u64> {
    // SAFETY: the caller's descriptor is open; the borrow ends with this function.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    if sockopt::socket_domain(socket).map_or(true, |domain| domain == AddressFamily::UNIX) {
        return None;
    }
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET.into(), libc::SO_NETNS_COOKIE.into());
    let (to, room) = (&raw mut cookie as c_long, &raw mut length as c_long);
    // SAFETY: the kernel writes no more than `length` bytes.
    let result = unsafe { raw::syscall(libc::SYS_getsockopt, [number.into(), level, option, to, room, 0]) };
    raw::split(result).ok().map(|_| cookie)
}
