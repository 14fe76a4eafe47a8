//! Listening sockets that launchers pass, by which the programs of one run come, and may ask for little.
//!
//! A thread each, since the launcher has the same socket: it could make our accept() block whenever it likes.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Connection;
use super::entrance::{Entrance, Keeping, Life};
use super::places::{Place, Places};
use crate::control::{ACCEPT_PAUSE, IdentityRef, MAX_OPEN, MAX_OPEN_BY_OTHERS};

/// Sockets of one run: one that lies in the place of the daemon's socket, and one without a path.
pub(in crate::control) const MAX_OF_RUN: usize = 2;

/// Sockets at one time of the daemon's own user and root: several runs of each identity.
const MAX_SOCKETS: usize = 4 * MAX_OPEN * MAX_OF_RUN;

/// Sockets of one other user: those of one run for each identity that the user may have open.
const MAX_OF_OTHERS: usize = MAX_OPEN_BY_OTHERS * MAX_OF_RUN;

/// Programs that came and wait to be looked at; then no more are accepted.
const WAITING: usize = 16;

/// How long threads may take that are to end.
const END_TIME: Duration = Duration::from_millis(100);

/// Between two looks at them.
const END_PAUSE: Duration = Duration::from_millis(2);

/// Bytes of a thread's stack: it does nothing but to accept.
const STACK: usize = 128 * 1024;

/// All of them, by user.
pub(in crate::control) struct ProgramSockets {
    places: Places,
    came: mpsc::Sender<Connection>,
    /// Whether the daemon ends.
    ends: Arc<AtomicBool>,
    open: Mutex<Vec<Weak<Entrance>>>,
}

/// An open one; shut when dropped, unless the daemon ends: then the launcher offers it to the next one.
pub(in crate::control) struct ProgramSocket {
    listening: Arc<Entrance>,
    _place: Place,
    _life: Life,
    ends: Arc<AtomicBool>,
    spared: AtomicBool,
    /// Whether any of its programs has emulated sockets.
    emulates: Arc<AtomicBool>,
}

/// Tells all of them that the daemon ends, when it is dropped.
pub(in crate::control) struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whether a descriptor may be such a socket: a listening local stream socket.
pub(in crate::control) fn is_listening_socket(descriptor: &OwnedFd) -> bool {
    sockopt::socket_domain(descriptor) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(descriptor) == Ok(true)
}

impl ProgramSocket {
    /// Another descriptor of it, for a process that takes over.
    pub(in crate::control) fn another(&self) -> Option<OwnedFd> {
        self.listening.another().ok().map(OwnedFd::from)
    }

    /// It is not to be shut: its launcher lives, and offers it again.
    pub(in crate::control) fn spare(&self) {
        self.spared.store(true, Ordering::Relaxed);
    }

    /// Whether any of its programs has emulated sockets.
    pub(in crate::control) fn is_emulating(&self) -> bool {
        self.emulates.load(Ordering::Relaxed)
    }
}

impl ProgramSockets {
    /// None yet, and where those arrive who come.
    pub(in crate::control) fn new() -> (Self, mpsc::Receiver<Connection>) {
        let (came, arriving) = mpsc::channel(WAITING);
        (Self { places: Places::default(), came, ends: Arc::default(), open: Mutex::default() }, arriving)
    }

    /// To be dropped before any of them when the daemon ends.
    pub(in crate::control) fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.ends))
    }

    /// Once the values that [`Self::open`] returned are dropped, and the process is to end: no thread has any of them then.
    pub(in crate::control) async fn end(&self) {
        let begun = Instant::now();
        let open =
            || self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        loop {
            let still: Vec<Arc<Entrance>> = open();
            match begun.elapsed() < END_TIME {
                _ if still.is_empty() => return,
                true => sleep(END_PAUSE).await,
                // Its launcher had accept() wait.
                false => return still.iter().for_each(|listening| listening.shut()),
            }
        }
    }

    /// Serves the programs of an identity at a socket that `launcher` passed and that [`is_listening_socket`].
    ///
    /// # Errors
    /// `QuotaExceeded` when the user has too many.
    pub(in crate::control) fn open(
        &self,
        listening: OwnedFd,
        only: &IdentityRef,
        launcher: &Connection,
    ) -> io::Result<ProgramSocket> {
        let most = if launcher.may_administer() { MAX_SOCKETS } else { MAX_OF_OTHERS };
        let uid = launcher.peer().uid;
        // Those who came and were not accepted may have passed descriptors.
        let (listening, keeping, life) = Entrance::new(listening.into(), uid)?;
        let emulates: Arc<AtomicBool> = Arc::default();
        let theirs = Accepting {
            keeping,
            only: only.clone(),
            emulates: emulates.clone(),
            came: self.came.clone(),
            runtime: Handle::current(),
        };
        let place = self.places.take(uid, most).ok_or(ErrorKind::QuotaExceeded)?;
        thread::Builder::new().name("programs".into()).stack_size(STACK).spawn(move || theirs.run())?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&listening));
        Ok(ProgramSocket {
            listening,
            _place: place,
            _life: life,
            ends: Arc::clone(&self.ends),
            spared: AtomicBool::default(),
            emulates,
        })
    }
}

impl Drop for ProgramSocket {
    fn drop(&mut self) {
        if !self.ends.load(Ordering::Acquire) && !self.spared.load(Ordering::Relaxed) {
            self.listening.shut();
        }
    }
}

/// What a program_socket's thread has.
struct Accepting {
    keeping: Keeping,
    emulates: Arc<AtomicBool>,
    only: IdentityRef,
    came: mpsc::Sender<Connection>,
    runtime: Handle,
}

impl Accepting {
    fn run(self) {
        while let Some(came) = self.keeping.next() {
            match came {
                Ok(stream) => {
                    // Who has gone already is nobody.
                    let Ok(connection) = self.take(stream) else { continue };
                    if self.came.blocking_send(connection).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // No descriptors are left, or the launcher plays with the socket.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    fn take(&self, stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        let _inside = self.runtime.enter();
        let stream = tokio::net::UnixStream::from_std(stream)?;
        Connection::by_program_socket(stream, self.only.clone(), self.emulates.clone())
    }
}
