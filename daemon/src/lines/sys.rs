//! The system call of lines without a safe wrapper; the only unsafe file of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// SO_PASSRIGHTS, which the libc crate does not have yet.
const PASS_RIGHTS: libc::c_int = 83;

/// Lets nobody send descriptors to this local socket.
pub(crate) fn take_no_descriptors(socket: &impl AsFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the option is read as one int, which lives through the call; the descriptor is open.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const off).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
