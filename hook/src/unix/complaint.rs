//! The one line that the library may write: why the program has no network, or is not reached, on its standard error.
//!
//! Only on what was standard error when the library was loaded. What takes that number later is a file of the program's; a
//! socket there is somebody's connection, whose protocol the line would break, and which it would tell what the server
//! runs under.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Stat, fstat};
use rustix::io::{Errno, IoSlice, writev};
use rustix::stdio::stderr;

use super::own::own;

/// A file, by device and number there.
type Place = (u64, u64);

/// What standard error is, unless it is nothing to write to.
pub(super) fn place() -> Option<Place> {
    let about = fstat(stderr()).ok()?;
    let place = (about.st_dev, about.st_ino);
    (FileType::from_raw_mode(about.st_mode) != FileType::Socket || is_journal(&about)).then_some(place)
}

/// Whether systemd has put its log there, which is a socket, and the only one that is no connection of the program's.
fn is_journal(about: &Stat) -> bool {
    let named = std::env::var("JOURNAL_STREAM");
    named.is_ok_and(|named| named == format!("{}:{}", about.st_dev, about.st_ino))
}

/// Says why there is no network.
pub(super) fn complain(message: &str) {
    write("phantom: no network for this program: ", message);
}

/// Says why others do not reach the program as it wants to be.
pub(super) fn unpublished(message: &str) {
    write("phantom: others do not reach this program: ", message);
}

/// Writes the line, the first time only, without allocation.
fn write(about: &str, message: &str) {
    static COMPLAINED: AtomicBool = AtomicBool::new(false);
    let now = fstat(stderr()).ok().map(|about| (about.st_dev, about.st_ino));
    if now.is_none() || now != own().stderr || COMPLAINED.swap(true, Ordering::Relaxed) {
        return;
    }
    let pieces = [about, message, "\n"].map(|piece| IoSlice::new(piece.as_bytes()));
    without_signal(|| writev(stderr(), &pieces).map(drop));
}

/// Writes where nobody may read any more: then nobody is told, and the program does not get the signal for it, which would
/// end it.
fn without_signal(write: impl FnOnce() -> rustix::io::Result<()>) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: zeros are values of these plain structures; each set is initialized before the kernel reads it, and lives
    // through the call. The mask is this thread's own, and is put back.
    unsafe {
        let [mut pipe, mut before, mut pending]: [libc::sigset_t; 3] = std::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before);
        libc::sigpending(&raw mut pending);
        // One that waits already is the program's.
        let is_programs = libc::sigismember(&raw const pending, libc::SIGPIPE) == 1;
        if write() == Err(Errno::PIPE) && !is_programs {
            libc::sigtimedwait(&raw const pipe, std::ptr::null_mut(), &raw const at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
    }
}
