//! Standard descriptors that were closed when we were started, and are to be closed for the program too.
//!
//! Before main() the runtime opens /dev/null in their places, which is no error to who reads or writes.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys;

/// One bit for each.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Runs before the runtime's start.
#[ctor::ctor(unsafe)]
fn look() {
    let closed = (0..=2).filter(|number| !sys::is_open(*number)).fold(0, |all, number| all | 1 << number);
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Lets exec close those in this process that were closed at the start.
pub(crate) fn close_again() {
    let closed = CLOSED.load(Ordering::Relaxed);
    (0..=2).filter(|number| closed & 1 << number != 0).for_each(sys::close_on_exec);
}
