//! The system calls of this module without a safe wrapper; the only unsafe file of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// SO_PASSRIGHTS, which the libc crate does not have yet.
const PASS_RIGHTS: libc::c_int = 83;

const LENGTH: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

/// Lets nobody send descriptors to this local socket.
pub(crate) fn take_no_descriptors(socket: &impl AsFd) -> io::Result<()> {
    take_descriptors(socket, false)
}

/// Whether anybody can.
pub(crate) fn takes_descriptors(socket: &impl AsFd) -> bool {
    let (mut is_on, mut length): (libc::c_int, _) = (1, LENGTH);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the option is written as one int of that length, and both live through the call; the descriptor is open.
    let result =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw mut is_on).cast(), &raw mut length) };
    // Kernels before Linux 6.16 do not know the option.
    result < 0 || is_on != 0
}

/// Tests have with it what kernels before Linux 6.16 have.
pub(crate) fn take_descriptors(socket: &impl AsFd, is_on: bool) -> io::Result<()> {
    let is_on = libc::c_int::from(is_on);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the option is read as one int, which lives through the call; the descriptor is open.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const is_on).cast(), LENGTH) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
