//! Between C and Rust: outcomes to return values and errno, pointers to values, no panic across.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::{c_char, c_int};

use crate::outcome::Outcome;

/// Runs a hook. errno is the program's: kept on success, set on failure. A panic is a failure too.
pub(super) fn conclude<T>(failed: T, act: impl FnOnce() -> Outcome<T>, real: impl FnOnce() -> T) -> T {
    let before = errno();
    match catch_unwind(AssertUnwindSafe(act)).unwrap_or(Outcome::Fail(libc::EIO)) {
        Outcome::Done(value) => {
            set_errno(before);
            value
        }
        Outcome::Bypass(_) => {
            set_errno(before);
            real()
        }
        Outcome::Fail(error) => {
            set_errno(error);
            failed
        }
    }
}

/// Runs a hook that has no real function to fall back on.
pub(super) fn answer<T: Copy>(failed: T, act: impl FnOnce() -> Outcome<T>) -> T {
    conclude(failed, act, || failed)
}

/// Runs what has no result, without a trace in errno.
pub(super) fn quietly(act: impl FnOnce()) {
    answer((), || {
        act();
        Outcome::Done(())
    });
}

pub(super) fn errno() -> c_int {
    // SAFETY: libc's errno of this thread always exists.
    unsafe { *libc::__errno_location() }
}

pub(super) fn set_errno(value: c_int) {
    // SAFETY: as above, and only this thread uses it.
    unsafe { *libc::__errno_location() = value }
}

unsafe extern "C" {
    fn __h_errno_location() -> *mut c_int;
}

/// Sets the error number of host look-ups.
pub(super) fn set_h_errno(value: c_int) {
    // SAFETY: libc's h_errno of this thread always exists, and only this thread uses it.
    unsafe { *__h_errno_location() = value }
}

/// A C string as text; none when it is NULL. What is not UTF-8 becomes text that is no name.
///
/// # Safety
/// `text` is NULL or a C string that lives as long as the result.
pub(super) unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_str().unwrap_or("\u{fffd}"))
}

/// Memory of libc's allocator, for what the program frees; none when there is no more.
pub(super) fn allocate(size: usize) -> Option<*mut u8> {
    // SAFETY: malloc may be called with any size.
    let memory = unsafe { libc::malloc(size.max(1)) };
    (!memory.is_null()).then_some(memory.cast())
}

/// A C string in libc's memory.
pub(super) fn allocate_text(text: &str) -> Option<*mut c_char> {
    let memory = allocate(text.len() + 1)?;
    // SAFETY: the memory is fresh and holds the text and its final zero.
    unsafe {
        memory.copy_from_nonoverlapping(text.as_ptr(), text.len());
        memory.add(text.len()).write(0);
    }
    Some(memory.cast())
}
