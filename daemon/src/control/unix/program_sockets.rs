//! Listening sockets that launchers pass, by which the programs of one run come, and may ask for little.
//!
//! A thread each, since the launcher has the same socket: it could make our accept() block whenever it likes.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Connection;
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

/// Bytes of a thread's stack: it does nothing but to accept.
const STACK: usize = 128 * 1024;

/// All of them, by user.
pub(in crate::control) struct ProgramSockets {
    places: Places,
    came: mpsc::Sender<Connection>,
    /// Whether the daemon ends.
    ends: Arc<AtomicBool>,
}

/// An open one; shut when dropped, unless the daemon ends: then the launcher offers it to the next one.
pub(in crate::control) struct ProgramSocket {
    /// Until it is dropped.
    listening: Option<(UnixListener, Place)>,
    over: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
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
        self.listening.as_ref()?.0.try_clone().ok().map(OwnedFd::from)
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
        (Self { places: Places::default(), came, ends: Arc::default() }, arriving)
    }

    /// To be dropped before any of them when the daemon ends.
    pub(in crate::control) fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.ends))
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
        let listening = UnixListener::from(listening);
        let (uid, over, emulates): (_, Arc<AtomicBool>, Arc<AtomicBool>) =
            (launcher.peer().uid, Arc::default(), Arc::default());
        let theirs = Accepting {
            listening: listening.try_clone()?,
            over: over.clone(),
            only: only.clone(),
            emulates: emulates.clone(),
            came: self.came.clone(),
            runtime: Handle::current(),
        };
        let place = self.places.take(uid, most).ok_or(ErrorKind::QuotaExceeded)?;
        let program_socket =
            ProgramSocket { listening: Some((listening, place)), over, ends: Arc::clone(&self.ends), emulates };
        spawn(move || theirs.run())?;
        Ok(program_socket)
    }
}

impl Drop for ProgramSocket {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let Some((listening, place)) = self.listening.take() else { return };
        if self.ends.load(Ordering::Acquire) {
            // The process closes it with everything else.
            return std::mem::forget(listening);
        }
        // Wakes whoever waits in accept(), and refuses whoever comes.
        let _ = rustix::net::shutdown(&listening, rustix::net::Shutdown::Both);
        // Those who came and were not accepted may have passed descriptors: see `beside`.
        let _ = spawn(move || drop((listening, place)));
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("programs".into()).stack_size(STACK).spawn(work).map(drop)
}

/// What a program_socket's thread has.
struct Accepting {
    listening: UnixListener,
    over: Arc<AtomicBool>,
    emulates: Arc<AtomicBool>,
    only: IdentityRef,
    came: mpsc::Sender<Connection>,
    runtime: Handle,
}

impl Accepting {
    fn run(self) {
        while !self.over.load(Ordering::Acquire) {
            match self.listening.accept() {
                Ok((stream, _)) => {
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
