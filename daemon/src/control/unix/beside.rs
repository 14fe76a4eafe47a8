//! Descriptors that come from programs of other users: no thread of the daemon ever has one that it does not know, for closing it
//! takes as long as the user wants, and may keep the daemon from ending for ever.
//!
//! Closing the last descriptor of a TCP socket waits for its bytes to be taken (SO_LINGER), closing one of a FUSE file asks
//! its server. A descriptor that is under way in a local socket is closed by whoever reads past it. So:
//!
//! ```text
//!  look (MSG_PEEK) ──> bytes alone ───────────────> read here
//!                 └──> a descriptor beside them ──> read by a process of its own, which passes on the bytes, and the descriptor
//!                                                   if it is of the kind that they ask for
//! ```
//! What is closed with a socket: see [`super::graves`].

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::LazyLock;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    socketpair, sockopt,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::Command;

use super::graves::{bury, renounce};
use super::places::{Place, Places};
use super::program_sockets::is_listening_socket;
use super::socket::receive_message;
use crate::children;
use crate::gate;
use crate::os::Owner;

/// Argument that makes the daemon's executable take what a stranger has sent: see [`take_in`].
pub const RECEIVE_ARGUMENT: &str = "__receive";

/// Such processes of one user at one time. Only who begins, or connects an emulated socket, passes descriptors, for a moment.
const MOST_OF_USER: usize = 32;

/// Bytes that are read together.
pub(super) const MOST: usize = 4096;

/// Behind the bytes that were read, whether a descriptor was beside them.
const HAS_ONE: u8 = 1;
const HAS_NONE: u8 = 0;

/// The longest question.
const LONGEST: usize = 32;

static PLACES: LazyLock<Places> = LazyLock::new(Places::default);

/// What a descriptor is asked for as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A network namespace.
    Network,
    /// A local socket that listens.
    Listening,
    /// The socket with the kernel's number.
    Socket(u64),
}

impl Kind {
    fn is_of(self, descriptor: &OwnedFd) -> bool {
        match self {
            Self::Network => gate::is_network_namespace(descriptor),
            Self::Listening => is_listening_socket(descriptor),
            Self::Socket(number) => sockopt::socket_cookie(descriptor) == Ok(number),
        }
    }
}

/// A descriptor that a program passed.
pub struct Beside(Option<Held>);

enum Held {
    /// The daemon's own user's, who may harm it in simpler ways, or one that was known before.
    Here(OwnedFd),
    /// With a process, which says so by this.
    There(UnixDatagram),
}

impl From<OwnedFd> for Beside {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(Held::Here(descriptor)))
    }
}

impl Beside {
    /// The descriptor, if it is of that kind.
    pub async fn take(mut self, kind: Kind) -> Option<OwnedFd> {
        let descriptor = match self.0.take()? {
            Held::Here(descriptor) => descriptor,
            Held::There(process) => ask(&process, kind).await.ok()??,
        };
        kind.is_of(&descriptor).then_some(descriptor)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Others than the daemon's user come to such a socket.
        if let Some(Held::Here(descriptor)) = self.0.take()
            && is_listening_socket(&descriptor)
        {
            bury(Owner::own().uid, descriptor);
        }
    }
}

async fn ask(process: &UnixDatagram, kind: Kind) -> io::Result<Option<OwnedFd>> {
    let question = postcard::to_allocvec(&kind).map_err(io::Error::other)?;
    rustix::net::send(process, &question, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    let (_, descriptor) = next(process, 1).await?;
    Ok(descriptor)
}

/// What a process says next.
async fn next(process: &UnixDatagram, most: usize) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let (mut bytes, mut descriptor) = (vec![0; most], None);
    let length = process.async_io(Interest::READABLE, || receive_message(process, &mut bytes, &mut descriptor)).await?;
    bytes.truncate(length);
    if length == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok((bytes, descriptor)) }
}

/// Reads at most `most` bytes and the descriptor beside them, which waits in a socket of that user's. There is none if it is beside what
/// comes next: a look sees it already.
pub(super) async fn receive(uid: u32, socket: OwnedFd, most: usize) -> io::Result<(Vec<u8>, Option<Beside>)> {
    let busy = || io::Error::new(ErrorKind::ResourceBusy, "too many descriptors of a user are being closed");
    let place = PLACES.take(uid, MOST_OF_USER).ok_or_else(busy)?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    start(uid, theirs, socket, most.min(MOST), place)?;
    let process = UnixDatagram::from_std(ours.into())?;
    let (mut bytes, _) = next(&process, MOST + 1).await?;
    let has_one = bytes.pop() == Some(HAS_ONE);
    Ok((bytes, has_one.then_some(Beside(Some(Held::There(process))))))
}

/// A place of a user's, for a process that was started before.
pub(super) fn take_place(uid: u32) -> Option<Place> {
    PLACES.take(uid, usize::MAX)
}

fn start(uid: u32, ours: OwnedFd, socket: OwnedFd, most: usize, place: Place) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(RECEIVE_ARGUMENT).arg(most.to_string()).env_clear();
    command.stdin(ours).stdout(socket).stderr(Stdio::null());
    let mut process = command.process_group(0).spawn()?;
    let id = process.id();
    children::begun(id, uid);
    tokio::spawn(async move {
        let _ = process.wait().await;
        children::ended(id);
        drop(place);
    });
    Ok(())
}

/// The process that `receive` starts: takes what waits in the socket at standard output, and answers at standard input. It ends when
/// nobody asks any more, which closes the descriptor unless it was passed on.
///
/// # Errors
/// Nobody asks, or nothing came.
pub fn take_in(most: usize) -> io::Result<()> {
    renounce();
    let (daemon, stranger) = (io::stdin(), io::stdout());
    let (mut bytes, mut descriptor) = (vec![0; most.min(MOST)], None);
    let length = receive_message(stranger.as_fd(), &mut bytes, &mut descriptor)?;
    bytes.truncate(length);
    bytes.push(if descriptor.is_some() { HAS_ONE } else { HAS_NONE });
    rustix::net::send(daemon.as_fd(), &bytes, SendFlags::NOSIGNAL)?;
    let mut question = [0; LONGEST];
    let (_, length) = rustix::net::recv(daemon.as_fd(), &mut question, RecvFlags::empty())?;
    let kind: Kind = postcard::from_bytes(&question[..length.min(LONGEST)]).map_err(io::Error::other)?;
    // Any other is closed when nothing depends on it any more.
    let known: Vec<_> = descriptor.iter().filter(|descriptor| kind.is_of(descriptor)).map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !known.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&known)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(daemon.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
