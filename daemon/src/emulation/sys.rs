//! The system calls of emulation without a safe wrapper; the only unsafe file of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Memory that what was sent and not yet received takes, as the kernel counts it.
pub(super) fn unreceived(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which lives through the call; the descriptor is open.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}
