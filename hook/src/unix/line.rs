//! The line that a process keeps to whoever makes its sockets, so that not each of them takes a connection of its own.
//!
//! Everything works without it, at a higher price; so whatever is odd about it means: not by it. Nobody ever waits for it.
//!
//! - **Threads and signal handlers**: one of them has it at a time, the others do without. Signals wait while something is
//!   under way on it: a handler that forks or jumps out finds nothing half done.
//! - **fork**: what is known of it lies on a page that the kernel empties in the child, which then opens its own and
//!   closes its copy of this one. A child of vfork has the page and another number: it does without.
//! - **The program** may close it, or put something else in its place: it is looked at before each use, and only what has the
//!   right number among the kernel's files is it. It lies where programs have no descriptors by themselves.
//! - **The daemon** was started anew, or has closed the identity: the line ends with that, and another is opened, once.

use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libc::{c_int, c_long};
use rustix::fs::fstat;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Resource, getpid, getrlimit};

use super::{raw, sandbox, signals};

/// How long an answer may take while signals wait. Then the socket is asked for as without a line, which may take longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where descriptors of programs that have only a few do not come, and select(2) still could.
const HIGH: u64 = 1024;

/// So far below the highest number that is permitted: others keep theirs there as well.
const ROOM: u64 = 6;

/// Programs that are permitted fewer need all of them.
const LEAST: u64 = 16;

/// Sockets to do without after no line was to be had.
const PAUSE: u32 = 32;

/// What is known; all zeros in a process that has just been forked off.
#[repr(C)]
struct Page {
    /// The process; none yet at 0.
    owner: AtomicI32,
    busy: AtomicBool,
    open: Place,
    /// Whether the program was made reachable since it was opened.
    published: AtomicBool,
    /// Sockets to do without.
    pause: AtomicU32,
}

/// A descriptor, and which of the kernel's files it was.
struct Place {
    /// None at 0: standard input is never it.
    number: AtomicI32,
    device: AtomicU64,
    file: AtomicU64,
}

static PAGE: AtomicPtr<Page> = AtomicPtr::new(null_mut());

/// The same as the page says, but in a process that was forked off: its parent's.
static INHERITED: Place = Place { number: AtomicI32::new(0), device: AtomicU64::new(0), file: AtomicU64::new(0) };

impl Place {
    fn set(&self, number: c_int, device: u64, file: u64) {
        self.device.store(device, Ordering::Relaxed);
        self.file.store(file, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
    }

    /// The descriptor, if it is still what it was.
    fn check(&self) -> Option<c_int> {
        let number = self.number.load(Ordering::Relaxed);
        if number == 0 {
            return None;
        }
        // SAFETY: the kernel says whether it is open; the borrow ends here.
        let about = fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
        let same =
            about.st_dev == self.device.load(Ordering::Relaxed) && about.st_ino == self.file.load(Ordering::Relaxed);
        same.then_some(number)
    }

    /// Closes it, if it is still what it was.
    fn close(&self) {
        if let Some(number) = self.check() {
            // SAFETY: it is ours.
            unsafe { rustix::io::close(number) };
        }
        self.set(0, 0, 0);
    }
}

/// Makes the page, while nobody forks.
pub(super) fn prepare() {
    let size = size_of::<Page>() as c_long;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let arguments = [0, size, access.into(), kind.into(), -1, 0];
    // SAFETY: new memory of the kernel's choice.
    let Ok(page) = raw::split(unsafe { raw::syscall(libc::SYS_mmap, arguments) }) else { return };
    // SAFETY: this memory only. It is as large as a page, whatever was asked for.
    let wiped = unsafe { raw::syscall(libc::SYS_madvise, [page, size, libc::MADV_WIPEONFORK.into(), 0, 0, 0]) };
    // Before Linux 4.14 it would be the child's too.
    if raw::split(wiped).is_ok() {
        PAGE.store(page as *mut Page, Ordering::Release);
    }
}

/// The line's turn: nobody else has it meanwhile.
pub(super) struct Turn {
    page: &'static Page,
    own: i32,
}

/// None when another has it, or there may be none here.
pub(super) fn turn() -> Option<Turn> {
    if sandbox::filtered() {
        return None;
    }
    // SAFETY: NULL, or memory that stays and that all zeros are right for.
    let page = unsafe { PAGE.load(Ordering::Acquire).as_ref() }?;
    let own = getpid().as_raw_nonzero().get();
    match page.owner.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(owner) if owner == own => {}
        // A child of vfork, whose memory is its parent's.
        Err(_) => return None,
    }
    if page.busy.swap(true, Ordering::Acquire) { None } else { Some(Turn { page, own }) }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.page.busy.store(false, Ordering::Release);
    }
}

/// A turn in which signals wait, in the process that took it.
pub(super) struct Quiet<'a> {
    turn: &'a Turn,
    _signals: signals::Quiet,
}

impl Quiet<'_> {
    /// The line, if there is one that is still what it was; not to be closed.
    pub(super) fn line(&self) -> Option<ManuallyDrop<OwnedFd>> {
        let number = self.turn.page.open.check()?;
        // SAFETY: it is open, and nobody closes the value.
        Some(ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) }))
    }
}

impl Turn {
    /// Makes signals wait; none when a handler has forked since the turn began, and this is the child.
    pub(super) fn quiet(&self) -> Option<Quiet<'_>> {
        let quiet = Quiet { turn: self, _signals: signals::Quiet::begin()? };
        (self.page.owner.load(Ordering::Relaxed) == self.own).then_some(quiet)
    }

    /// Whether there is one, as far as is known.
    pub(super) fn has_line(&self) -> bool {
        self.page.open.number.load(Ordering::Relaxed) != 0
    }

    /// Whether one is to be asked for; not by a child whose handler forked while this turn lasted.
    pub(super) fn is_due(&self) -> bool {
        let Some(_quiet) = self.quiet() else { return false };
        let pause = self.page.pause.load(Ordering::Relaxed);
        self.page.pause.store(pause.saturating_sub(1), Ordering::Relaxed);
        pause == 0
    }

    /// None was to be had.
    pub(super) fn pause(&self) {
        let Some(_quiet) = self.quiet() else { return };
        self.page.pause.store(PAUSE, Ordering::Relaxed);
    }

    /// Keeps a line, out of the program's way.
    pub(super) fn keep(&self, line: &OwnedFd) -> Result<(), Errno> {
        let _quiet = self.quiet().ok_or(Errno::CHILD)?;
        INHERITED.close();
        let most = getrlimit(Resource::Nofile).current.map_or(HIGH, |most| most.min(HIGH));
        let least = most.checked_sub(ROOM).filter(|least| *least >= LEAST).ok_or(Errno::MFILE)?;
        // Below HIGH.
        let line = fcntl_dupfd_cloexec(line, least as c_int)?;
        set_socket_timeout(&line, Timeout::Recv, Some(PATIENCE))?;
        let about = fstat(&line)?;
        let number = line.into_raw_fd();
        self.page.open.set(number, about.st_dev, about.st_ino);
        INHERITED.set(number, about.st_dev, about.st_ino);
        self.page.published.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// It leads nowhere any more. A child whose handler forked while this turn lasted still has its parent's to close.
    pub(super) fn drop_line(&self) {
        let Some(_quiet) = self.quiet() else { return };
        self.page.open.close();
        INHERITED.set(0, 0, 0);
    }

    /// Whether the program was made reachable since the line was opened.
    pub(super) fn is_published(&self) -> bool {
        self.page.published.load(Ordering::Relaxed)
    }

    /// It was.
    pub(super) fn published(&self) {
        let Some(_quiet) = self.quiet() else { return };
        self.page.published.store(true, Ordering::Relaxed);
    }
}
