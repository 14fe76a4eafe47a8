//! After the daemon was lost: turns the program's library away, and takes the session up with the next daemon.
//!
//! What was open has ended with the old one; new sockets come from the next. It is handed the phantom namespace that there is, whose ports
//! still listen, and in which programs may live, that cannot be moved to another; where it cannot take that up, it makes another for
//! those whose sockets come from it one by one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{self, Contact, Line, Refused, Session, Wanted};
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

/// A session that was taken up.
pub(crate) struct PassedOn {
    /// Silent as long as it lasts.
    pub(crate) session: OwnedFd,
    /// Whether the phantom namespace is the one from before: what listened there listens.
    pub(crate) is_same: bool,
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

    /// Takes a session up with the next daemon: identity, publications, ports of this computer. Where the program `lives_inside` the
    /// phantom namespace, in no other.
    ///
    /// # Errors
    /// As long as there is no daemon, or none that gives what the session needs; [`Refused`] when one is there.
    pub(crate) fn pass_on(
        &self,
        (wanted, lives_inside): (Wanted, bool),
        contact: &Contact,
        before: &Session,
        options: &Options,
    ) -> Result<PassedOn> {
        let spaces = before.spaces.as_ref().filter(|_| wanted != Wanted::None);
        let again = |network| control::enter_again(contact, wanted, &before.identity, network);
        let session = match again(spaces.map(|spaces| spaces.network.as_fd())) {
            Err(error) if !lives_inside && error.is::<Refused>() => again(None)?,
            session => session?,
        };
        let is_same = spaces.zip(session.spaces.as_ref()).is_some_and(|(one, other)| one.is_same(other));
        if lives_inside && !is_same {
            bail!("the daemon has made another namespace: is it of another version?");
        }
        let Session { mut line, identity, .. } = session;
        publish::open(&mut line, &contact.identity, &options.publish()?)?;
        if !is_same {
            local::serve(&local::open(&mut line, &contact.identity, &options.allow_local)?)?;
        }
        if let Some(door) = &*lock(&self.door) {
            // Last: from now on the daemon takes who comes.
            ProgramSocket { line: &line, identity: &identity }.open_at(door)?;
        }
        let silent = line.try_clone()?;
        *lock(&self.line) = Some(line);
        Ok(PassedOn { session: silent, is_same })
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
