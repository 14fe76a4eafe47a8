//! Descriptors that come from programs of other users: no thread of the runtime ever closes one, for that takes as long as
//! the user wants.
//!
//! Closing the last descriptor of a TCP socket waits for its bytes to be taken (SO_LINGER), closing one of a FUSE file asks
//! its server. A descriptor that is under way in a local socket is closed by whoever reads past it, and by whoever closes
//! the socket. So:
//!
//! ```text
//!  look (MSG_PEEK) ──> bytes alone ───────────────> read here
//!                 └──> a descriptor beside them ──> read by a thread that may wait, at most MAX_PLACES of them
//!  close ──> a descriptor in the queue ──> a process inherits the socket, closes it by ending, which waits for nobody
//! ```

use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, Shutdown};
use tokio::process::{ChildStdin, Command};
use tokio::sync::oneshot;

use super::socket::receive_message;

/// Argument that makes the daemon's executable close what it inherits: see `bury`.
pub const BURY_ARGUMENT: &str = "__bury";

/// Descriptors of other users that are in use, or being closed, at one time. Only connections of emulated sockets need one,
/// for a moment.
const MAX_PLACES: usize = 256;

/// The threads do next to nothing.
const STACK: usize = 128 * 1024;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// One of the [`MAX_PLACES`].
struct Place;

impl Place {
    fn take() -> io::Result<Self> {
        let more = |taken: usize| (taken < MAX_PLACES).then_some(taken + 1);
        let busy = |_| io::Error::new(ErrorKind::ResourceBusy, "too many descriptors of other users are being closed");
        TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(|_| Self).map_err(busy)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A descriptor that a program passed.
pub struct Beside {
    descriptor: Option<OwnedFd>,
    /// None when the program is the daemon's own user's, who may harm it in simpler ways.
    place: Option<Place>,
}

impl From<OwnedFd> for Beside {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor: Some(descriptor), place: None }
    }
}

impl Beside {
    /// The descriptor, if it is one that may be closed anywhere.
    pub fn known_by(mut self, is_ours: impl FnOnce(&OwnedFd) -> bool) -> Option<OwnedFd> {
        if self.descriptor.as_ref().is_some_and(is_ours) { self.descriptor.take() } else { None }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let (Some(descriptor), Some(place)) = (self.descriptor.take(), self.place.take()) else { return };
        // Without a thread it is closed right here: the system has none left, and other things to fear.
        let _ = spawn(move || drop((descriptor, place)));
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name("beside".into()).stack_size(STACK).spawn(work).map(drop)
}

/// What a stranger's socket holds, left there: how many bytes, and whether a descriptor is beside them.
pub(super) fn look(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, bool)> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut none = RecvAncillaryBuffer::default();
    let seen = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut none, flags)?;
    Ok((seen.bytes, seen.flags.contains(ReturnFlags::CTRUNC)))
}

/// Reads at most `most` bytes and the descriptor beside them.
pub(super) async fn receive(socket: OwnedFd, most: usize) -> io::Result<(Vec<u8>, Option<Beside>)> {
    let place = Place::take()?;
    let (done, received) = oneshot::channel();
    spawn(move || {
        let (mut bytes, mut descriptor) = (vec![0; most], None);
        let result = receive_message(&socket, &mut bytes, &mut descriptor);
        let beside = descriptor.map(|descriptor| Beside { descriptor: Some(descriptor), place: Some(place) });
        let _ = done.send(result.map(|length| {
            bytes.truncate(length);
            (bytes, beside)
        }));
    })?;
    received.await.unwrap_or_else(|_| Err(ErrorKind::Other.into()))
}

/// Makes a stranger's socket, which is about to be closed, one that may be: to be kept until it was closed.
pub(super) fn bury(socket: impl AsFd) -> Option<ChildStdin> {
    // Nothing more comes, so that this ends.
    let _ = rustix::net::shutdown(&socket, Shutdown::Read);
    let mut bytes = [0; 4096];
    loop {
        match look(&socket, &mut bytes) {
            Ok((_, true)) => break,
            Ok((length @ 1.., false)) => {
                let _ = rustix::net::recv(&socket, &mut bytes[..length], RecvFlags::DONTWAIT);
            }
            _ => return None,
        }
    }
    let inherited = socket.as_fd().try_clone_to_owned().ok()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(BURY_ARGUMENT).env_clear().stdin(Stdio::piped()).stdout(inherited).stderr(Stdio::null());
    command.process_group(0).spawn().map_or_else(
        |error| {
            tracing::warn!("no process to close a socket with: {error}");
            None
        },
        |mut child| child.stdin.take(),
    )
}

/// The process that `bury` starts: ends after the daemon has closed the socket that both have.
pub fn end_last() {
    let _ = io::stdin().read(&mut [0]);
}
