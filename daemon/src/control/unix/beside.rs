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

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    Shutdown, SocketFlags, SocketType, socketpair,
};
use tokio::process::{ChildStdin, Command};
use tokio::sync::oneshot;

use super::socket::receive_message;

/// Argument that makes the daemon's executable close what it inherits: see `bury`.
pub const BURY_ARGUMENT: &str = "__bury";

/// Descriptors of other users that are in use, or being closed, at one time. Only connections of emulated sockets need one,
/// for a moment.
const MAX_PLACES: usize = 256;

/// Sockets that one process closes: starting one takes milliseconds.
pub(super) const MOST_BURIED: usize = 128;

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

/// Whether a thread may be closing one: it cannot be ended before its file's server lets it, and no process becomes another one with such
/// a thread.
pub(in crate::control) fn closes_descriptors() -> bool {
    TAKEN.load(Ordering::Relaxed) > 0
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

/// Whether descriptors wait in a stranger's socket that is about to be closed. Nothing more comes after this.
pub(super) fn holds_descriptors(socket: impl AsFd) -> bool {
    // So that this ends.
    let _ = rustix::net::shutdown(&socket, Shutdown::Read);
    let mut bytes = [0; 4096];
    loop {
        match look(&socket, &mut bytes) {
            Ok((_, true)) => return true,
            Ok((length @ 1.., false)) => {
                let _ = rustix::net::recv(&socket, &mut bytes[..length], RecvFlags::DONTWAIT);
            }
            _ => return false,
        }
    }
}

/// Makes a stranger's socket, which is about to be closed, one that may be: to be kept until it was closed.
pub(super) fn bury(socket: impl AsFd) -> Option<ChildStdin> {
    if !holds_descriptors(&socket) {
        return None;
    }
    start(socket.as_fd().try_clone_to_owned().ok()?)
}

/// The same for as many as [`MOST_BURIED`] that hold descriptors, by one process; they are closed then.
pub(super) fn bury_all<S: AsFd>(sockets: Vec<S>) {
    match pass(&sockets) {
        Ok(inherited) => {
            let grave = start(inherited);
            drop(sockets);
            drop(grave);
        }
        // Those that hold sockets in which there are more, and so on, cannot be passed.
        Err(_) => sockets.into_iter().for_each(|socket| {
            let grave = bury(&socket);
            drop(socket);
            drop(grave);
        }),
    }
}

/// A socket in whose queue they are: closed with it, unless others have them.
fn pass<S: AsFd>(sockets: &[S]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_BURIED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(theirs)
}

/// The process that has `inherited`, until what is returned is dropped.
fn start(inherited: OwnedFd) -> Option<ChildStdin> {
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
