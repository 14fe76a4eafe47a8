//! What the program sees as the last error is what its own call left, and nothing of ours.

use windows_sys::Win32::Foundation::{GetLastError, SetLastError};

/// Has something done without a trace in it. Looking into a thread's own variables leaves one.
pub(super) fn quietly<T>(decide: impl FnOnce() -> T) -> T {
    // SAFETY: it takes nothing.
    let last = unsafe { GetLastError() };
    let decided = decide();
    // SAFETY: it takes a number.
    unsafe { SetLastError(last) };
    decided
}
