//! accept and accept4 of emulated sockets: one record of the listener's, and the descriptor beside it.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};

use libc::{c_int, sockaddr, socklen_t};
use phantom_ipc::hook::{RECORD, decode_record};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};

use super::{on, write};
use crate::outcome::Outcome;
use crate::unix::glue;

redhook::hook! {
    unsafe fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int => phantom_accept {
        // SAFETY: the caller's arguments are as accept wants them.
        glue::conclude(-1, || unsafe { take(fd, address, length, 0) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(accept)(fd, address, length)
        })
    }
}

redhook::hook! {
    unsafe fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int => phantom_accept4 {
        // SAFETY: the caller's arguments are as accept4 wants them.
        glue::conclude(-1, || unsafe { take(fd, address, length, flags) }, || unsafe {
            // SAFETY: as above.
            redhook::real!(accept4)(fd, address, length, flags)
        })
    }
}

pub(super) fn prepare() {
    let _ = (redhook::real!(accept), redhook::real!(accept4));
}

/// # Safety
/// As for accept4.
pub(super) unsafe fn take(fd: c_int, to: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> Outcome<c_int> {
    on(fd, |name| {
        if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 {
            return Err(libc::EINVAL);
        }
        if !name.stream {
            return Err(libc::EOPNOTSUPP);
        }
        // SAFETY: the caller's descriptor is open as long as the call, or the kernel says that it is not.
        let listener = unsafe { BorrowedFd::borrow_raw(fd) };
        // The mark of listen().
        if sockopt::socket_broadcast(listener) != Ok(true) {
            return Err(libc::EINVAL);
        }
        let (record, accepted) = next(listener).map_err(Errno::raw_os_error)?;
        let peer = decode_record(&record).ok_or(libc::EPROTO)?;
        prepare_flags(&accepted, flags).map_err(Errno::raw_os_error)?;
        // SAFETY: as the caller says.
        unsafe { write(&peer, to, length) }?;
        Ok(accepted.into_raw_fd())
    })
}

/// One connection; waits if the listener does. As with the kernel's, a full table of descriptors costs no connection.
fn next(listener: BorrowedFd<'_>) -> Result<([u8; RECORD], OwnedFd), Errno> {
    drop(rustix::io::fcntl_dupfd_cloexec(listener, 0)?);
    let mut record = [0; RECORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(listener, &mut [IoSliceMut::new(&mut record)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let accepted = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match accepted {
        Some(accepted) if got.bytes == RECORD => Ok((record, accepted)),
        // The listener was shut down, or the daemon is gone.
        _ if got.bytes == 0 => Err(Errno::INVAL),
        // Another thread took the last descriptor just now.
        _ => Err(Errno::CONNABORTED),
    }
}

fn prepare_flags(accepted: &OwnedFd, flags: c_int) -> Result<(), Errno> {
    if flags & libc::SOCK_NONBLOCK != 0 {
        rustix::fs::fcntl_setfl(accepted, OFlags::NONBLOCK)?;
    }
    if flags & libc::SOCK_CLOEXEC == 0 {
        rustix::io::fcntl_setfd(accepted, FdFlags::empty())?;
    }
    Ok(())
}
