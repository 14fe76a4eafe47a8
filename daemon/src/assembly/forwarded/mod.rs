//! What a forward leads to: a service of this computer that runs outside Phantom.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::Service;
#[cfg(windows)]
pub(super) use windows::Service;
