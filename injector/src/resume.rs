//! After the daemon was lost: turns the program's library away, and takes the session up with the next daemon.
//!
//! What was open has ended with the old one. Where sockets come from the daemon one by one, new ones come from the next; a
//! program that lives inside a phantom namespace cannot be moved to another.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Contact, Line, Session, Wanted};
use crate::options::Options;
use crate::program_socket::ProgramSocket;
use crate::{local, publish};

/// Between two looks for a daemon: short for a person, and a local attempt costs little.
const PAUSE: Duration = Duration::from_millis(500);

/// What outlives a daemon.
#[derive(Default)]
pub(crate) struct Heirloom {
    /// By which the program's library comes.
    door: Mutex<Option<UnixListener>>,
    /// The session with the daemon that is now.
    line: Mutex<Option<Line>>,
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heirloom {
    /// Keeps what the daemon serves the program's library at.
    pub(crate) fn keep(&self, door: OwnedFd) {
        *lock(&self.door) = Some(door.into());
    }

    /// A while without a daemon: whoever comes must not wait for it.
    pub(crate) fn turn_away(&self) {
        let end = Instant::now() + PAUSE;
        let door = lock(&self.door);
        let Some(door) = &*door else { return thread::sleep(PAUSE) };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Less than a second.
            let left = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let mut polled = [PollFd::new(door, PollFlags::IN)];
            match poll(&mut polled, Some(&left)) {
                Ok(0) => return,
                Ok(_) if door.accept().is_ok() => {}
                // For want of descriptors: those who wait are turned away later.
                _ => return thread::sleep(end.saturating_duration_since(Instant::now())),
            }
        }
    }

    /// Takes a session up with the next daemon: identity, publications, ports of this computer. A descriptor that is silent
    /// as long as it lasts.
    ///
    /// # Errors
    /// As long as there is no daemon, or none that gives what the session needs.
    pub(crate) fn pass_on(
        &self,
        wanted: Wanted,
        contact: &Contact,
        before: &Session,
        options: &Options,
    ) -> Result<OwnedFd> {
        let Session { mut line, identity, .. } = control::enter_again(contact, wanted, &before.identity)?;
        publish::open(&mut line, &contact.identity, &options.publish()?)?;
        local::serve(&local::open(&mut line, &contact.identity, &options.allow_local)?)?;
        if let Some(door) = &*lock(&self.door) {
            // Last: from now on the daemon takes who comes.
            ProgramSocket { line: &line, identity: &identity }.open_at(door)?;
        }
        let silent = line.try_clone()?;
        *lock(&self.line) = Some(line);
        Ok(silent)
    }
}

/// Waits until a session is over.
pub(crate) fn over(session: &OwnedFd) {
    // It says nothing unasked, and nobody asks here.
    let mut polled = [PollFd::new(session, PollFlags::IN)];
    while rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {}
}

/// A thread that only waits needs little; one that speaks to the daemon a few frames.
const STACK: usize = 256 * 1024;

/// In a thread of its own that may use what lives no longer than `scope`.
pub(crate) fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).map(drop)
}
