//! Signals that were ignored when we were started, and so are to be ignored by the program.
//!
//! Our own processes cannot have it so: who ignores SIGCHLD never hears how its children end. And who does not ignore SIGPIPE
//! dies of a closed pipe; the runtime ignores it before main(), and gives programs the default.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// Those that we need otherwise.
static CHILD: AtomicBool = AtomicBool::new(false);
static PIPE: AtomicBool = AtomicBool::new(false);

/// Runs before the runtime's start.
#[ctor::ctor(unsafe)]
fn look() {
    CHILD.store(sys::is_ignored(libc::SIGCHLD), Ordering::Relaxed);
    PIPE.store(sys::is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// As this process needs them.
pub(crate) fn ours() {
    sys::ignore(libc::SIGCHLD, false);
    sys::ignore(libc::SIGPIPE, true);
}

/// Has the command begin as whoever started us would have begun it.
pub(crate) fn restore(command: &mut Command) {
    sys::before_exec(command, || {
        sys::ignore(libc::SIGCHLD, CHILD.load(Ordering::Relaxed));
        // Whoever ignores a signal loses the one that waits: ours, for a line that nobody read.
        sys::ignore(libc::SIGPIPE, true);
        sys::ignore(libc::SIGPIPE, PIPE.load(Ordering::Relaxed));
    });
}
