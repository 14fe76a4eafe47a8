//! Signals wait while something is under way that a handler must find done or not begun.

use libc::{c_int, c_long};

use super::raw;

/// From its beginning until it is dropped.
pub(super) struct Quiet {
    before: u64,
}

impl Quiet {
    /// None where the kernel, or a filter around the program, does not let them wait.
    pub(super) fn begin() -> Option<Self> {
        mask(libc::SIG_BLOCK, u64::MAX).map(|before| Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        mask(libc::SIG_SETMASK, self.before);
    }
}

/// rt_sigprocmask(2): the mask before.
fn mask(how: c_int, set: u64) -> Option<u64> {
    let mut before = 0_u64;
    let arguments = [how.into(), &raw const set as c_long, &raw mut before as c_long, size_of::<u64>() as c_long, 0, 0];
    // SAFETY: both masks are of the kernel's size and live through the call.
    raw::split(unsafe { raw::syscall(libc::SYS_rt_sigprocmask, arguments) }).ok().map(|_| before)
}
