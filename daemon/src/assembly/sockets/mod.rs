//! The sockets of an identity's programs, as this system lets them be.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::Sockets;
#[cfg(windows)]
pub(super) use windows::Sockets;
