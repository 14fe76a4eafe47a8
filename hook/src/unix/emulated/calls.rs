//! connect, bind, listen, shutdown, getsockname, getpeername of emulated sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::{c_int, sockaddr, socklen_t};
use phantom_ipc::hook::{Call, SocketName};
use rustix::fs::OFlags;
use rustix::net::sockopt::{self, Timeout};

use super::{address_of, ask, on, read, write};
use crate::outcome::Outcome;
use crate::unix::daemon::{self, Got};
use crate::unix::glue;

redhook::hook! {
    unsafe fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int => phantom_connect {
        // SAFETY: the caller's arguments are as connect wants them.
        glue::conclude(-1, || unsafe { connect_to(fd, address, length) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(connect)(fd, address, length)
        })
    }
}

redhook::hook! {
    unsafe fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int => phantom_bind {
        // SAFETY: the caller's arguments are as bind wants them.
        glue::conclude(-1, || unsafe { bind_to(fd, address, length) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(bind)(fd, address, length)
        })
    }
}

redhook::hook! {
    unsafe fn listen(fd: c_int, backlog: c_int) -> c_int => phantom_listen {
        // SAFETY: integers only.
        glue::conclude(-1, || listen_on(fd, backlog), || unsafe { redhook::real!(listen)(fd, backlog) })
    }
}

redhook::hook! {
    unsafe fn shutdown(fd: c_int, how: c_int) -> c_int => phantom_shutdown {
        // SAFETY: integers only.
        glue::conclude(-1, || end(fd, how), || unsafe { redhook::real!(shutdown)(fd, how) })
    }
}

redhook::hook! {
    unsafe fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => phantom_getsockname {
        // SAFETY: the caller's arguments are as getsockname wants them.
        glue::conclude(-1, || unsafe { name_of(fd, address, length, &Call::Name) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(getsockname)(fd, address, length)
        })
    }
}

redhook::hook! {
    unsafe fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => phantom_getpeername {
        // SAFETY: the caller's arguments are as getpeername wants them.
        glue::conclude(-1, || unsafe { name_of(fd, address, length, &Call::Peer) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(getpeername)(fd, address, length)
        })
    }
}

pub(super) fn prepare() {
    let _ = (redhook::real!(connect), redhook::real!(bind), redhook::real!(listen), redhook::real!(shutdown));
    let _ = (redhook::real!(getsockname), redhook::real!(getpeername));
}

/// # Safety
/// As for connect.
pub(super) unsafe fn connect_to(fd: c_int, address: *const sockaddr, length: socklen_t) -> Outcome<c_int> {
    on(fd, |name| {
        // SAFETY: as the caller says.
        match unsafe { read(fd, name, address, length) }? {
            Some(to) => connection(fd, name, to),
            None => ask(name, &Call::Disconnect),
        }
    })
}

pub(super) fn connection(fd: c_int, name: SocketName, address: SocketAddr) -> Result<c_int, c_int> {
    if !name.stream {
        return Err(libc::ENETUNREACH);
    }
    // SAFETY: the caller's descriptor is open as long as the call, or the kernel says that it is not.
    let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = rustix::fs::fcntl_getfl(descriptor).map_err(|error| error.raw_os_error())?;
    let wait = !flags.contains(OFlags::NONBLOCK);
    let patience =
        if wait { sockopt::socket_timeout(descriptor, Timeout::Send).ok().flatten() } else { Some(daemon::PATIENCE) };
    match daemon::connect_emulated(name.socket, descriptor, &Call::Connect { address, wait }, patience) {
        Ok(Got::Pending) => Err(libc::EINPROGRESS),
        Ok(_) => Ok(0),
        // SO_SNDTIMEO is over: it goes on by itself.
        Err(libc::EAGAIN) if wait && patience > Some(Duration::ZERO) => Err(libc::EINPROGRESS),
        Err(error) => Err(error),
    }
}

/// # Safety
/// As for bind.
pub(super) unsafe fn bind_to(fd: c_int, address: *const sockaddr, length: socklen_t) -> Outcome<c_int> {
    on(fd, |name| {
        // SAFETY: as the caller says.
        let address = match unsafe { read(fd, name, address, length) }? {
            Some(address) => address,
            // An old habit that the kernel allows: no family, and the wildcard.
            // SAFETY: as the caller says.
            None if !name.v6 => unsafe { unspecified(address, length) }.ok_or(libc::EAFNOSUPPORT)?,
            None => return Err(libc::EAFNOSUPPORT),
        };
        ask(name, &Call::Bind { address })
    })
}

/// # Safety
/// `address` points to `length` bytes.
unsafe fn unspecified(address: *const sockaddr, length: socklen_t) -> Option<SocketAddr> {
    if (length as usize) < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: the length was checked.
    let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
    (v4.sin_addr.s_addr == 0).then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), u16::from_be(v4.sin_port)))
}

pub(super) fn listen_on(fd: c_int, backlog: c_int) -> Outcome<c_int> {
    on(fd, |name| {
        ask(name, &Call::Listen { backlog })?;
        // SAFETY: as in `connection`.
        let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
        // Marks a listener where accept() sees it without asking anybody: local sockets have no other use for it.
        sockopt::set_socket_broadcast(descriptor, true).map_err(|error| error.raw_os_error())?;
        Ok(0)
    })
}

pub(super) fn end(fd: c_int, how: c_int) -> Outcome<c_int> {
    on(fd, |name| {
        let how = match how {
            libc::SHUT_RD => rustix::net::Shutdown::Read,
            libc::SHUT_WR => rustix::net::Shutdown::Write,
            libc::SHUT_RDWR => rustix::net::Shutdown::Both,
            _ => return Err(libc::EINVAL),
        };
        ask(name, &Call::Shutdown)?;
        // SAFETY: as in `connection`.
        let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::net::shutdown(descriptor, how).map_err(|error| error.raw_os_error())?;
        Ok(0)
    })
}

/// # Safety
/// As for getsockname.
pub(super) unsafe fn name_of(fd: c_int, to: *mut sockaddr, length: *mut socklen_t, call: &Call) -> Outcome<c_int> {
    on(fd, |name| {
        if to.is_null() || length.is_null() {
            return Err(libc::EFAULT);
        }
        let address = address_of(name, call)?;
        // SAFETY: as the caller says.
        unsafe { write(&address, to, length) }.map(|()| 0)
    })
}
