//! The pair of local sockets behind an emulated one: the program has one end from the beginning, the daemon the other.
//!
//! One byte that means nothing always waits unread at the daemon's end. It is what makes a reset: when the kernel closes
//! a local socket with bytes unread, the other end gets ECONNRESET, then EPIPE, as with TCP.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use phantom_ipc::hook::SocketName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::Entry;
use super::sys::unreceived;
use crate::control;
use crate::far::Stream;
use crate::netlink::Netlink;
use crate::passed::{look, take_no_descriptors, takes_descriptors};

/// What a program may send ahead: enough that a piece that is mostly read does not keep it from looking writable. The
/// kernel doubles it.
const SEND_ROOM: usize = 212_992;

/// Piece of what fills a connection that is not there yet: about as much as the kernel puts into one buffer of its own.
static FILLING: [u8; 32_768] = [0; 32_768];

/// Pieces at most; some fourteen fill the buffer.
const MAX_FILLINGS: usize = 64;

fn kind(name: SocketName) -> SocketType {
    // A pair of datagram sockets would not tell one end that the other was closed.
    if name.stream { SocketType::STREAM } else { SocketType::SEQPACKET }
}

/// What the program gets, and what the daemon keeps.
pub(super) fn make(name: SocketName) -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = kind(name);
    let (theirs, ours) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&theirs, &SocketAddrUnix::new_abstract_name(&name.encode())?)?;
    if name.stream {
        sockopt::set_socket_send_buffer_size(&theirs, SEND_ROOM)?;
        // Urgent bytes are bytes.
        sockopt::set_socket_oobinline(&ours, true)?;
        rustix::net::send(&theirs, &[0], SendFlags::NOSIGNAL)?;
    } else {
        // There is nowhere to send to.
        rustix::net::shutdown(&ours, Shutdown::Read)?;
    }
    rustix::io::ioctl_fionbio(&ours, true)?;
    // Kernels before Linux 6.16 cannot: see [`End::readable`].
    let _ = take_no_descriptors(&ours);
    Ok((theirs, ours))
}

/// Marks a pair as connected, where a call of the program's that reads sees it without asking anybody: the far end of its
/// socket has a name, whichever. The daemon needs no copy of the program's end for it, and so it hears when that is closed.
pub(super) fn mark(ours: &impl AsFd) -> io::Result<()> {
    // The kernel chooses the name of who gives none.
    match rustix::net::bind(ours.as_fd(), &SocketAddrUnix::new_unnamed()) {
        // It has been connected before.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a program still has the end of that name and number, also where ours is long gone: the kernel keeps names as long as
/// sockets, each kind's apart. A name that others can read they may take once it is free, so it alone says nothing.
pub(super) fn is_open(name: SocketName, inode: u64) -> bool {
    let address = SocketAddrUnix::new_abstract_name(&name.encode());
    let probe = rustix::net::socket_with(AddressFamily::UNIX, kind(name), SocketFlags::CLOEXEC, None);
    let (Ok(probe), Ok(address)) = (probe, address) else { return false };
    rustix::net::bind(&probe, &address) == Err(Errno::ADDRINUSE) && is_called(name, inode, &probe).unwrap_or(true)
}

/// Whether the kernel knows the socket of that number by that name; where it knows not even `ours`, which has none, it tells nothing, and
/// nothing speaks against it.
fn is_called(name: SocketName, number: u64, ours: &OwnedFd) -> io::Result<bool> {
    let kernel = Netlink::sock_diag()?;
    Ok(match kernel.local_name(number)? {
        Some(found) => found == [&[0], &name.encode()[..]].concat(),
        None => kernel.local_name(inode(ours))?.is_none(),
    })
}

/// The kernel's number of a socket, as its lists have it; zero is nobody's.
pub(super) fn inode(socket: &OwnedFd) -> u64 {
    rustix::fs::fstat(socket).map_or(0, |about| about.st_ino)
}

/// The daemon's end. Reading and writing are as with TCP: shutdown is a half-close, dropping it before both directions
/// have ended is a reset, ECONNRESET is the program's reset.
pub(super) struct End {
    /// None once it lives on in a task of its own.
    stream: Option<UnixStream>,
    entry: Option<Entry>,
    heard: bool,
    said: bool,
    /// Whether the program can pass descriptors.
    is_passed: bool,
    /// What a record costs in [`unreceived`]'s count.
    record: usize,
}

impl Stream for End {}

impl End {
    /// Needs a runtime.
    pub(super) fn new(ours: OwnedFd, entry: Entry) -> io::Result<Self> {
        let is_passed = takes_descriptors(&ours);
        let stream = Some(UnixStream::from_std(ours.into())?);
        Ok(Self { stream, entry: Some(entry), heard: false, said: false, is_passed, record: 0 })
    }

    /// Another descriptor of it, to look at.
    pub(super) fn another(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(self.stream()?, 0)?)
    }

    /// Tells whether closing it is a reset by SO_LINGER, also when this is not at hand any more.
    pub(super) fn abortive(&self) -> Option<impl Fn() -> bool + use<>> {
        self.entry.as_ref().map(Entry::abortive_later)
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Resolves when the program has closed its end.
    pub(super) async fn hung_up(&self) {
        if let Some(stream) = &self.stream {
            hung_up(stream).await;
        }
    }

    /// Makes the runtime look anew at what is ready: waiting for [`Self::hung_up`] forgot it.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            self.stream = Some(UnixStream::from_std(stream.into_std()?)?);
        }
        Ok(())
    }

    /// Tells a listener of a connection; `WouldBlock` when as many wait as may.
    pub(super) fn announce(&mut self, child: &OwnedFd, record: &[u8], most: usize) -> io::Result<()> {
        let stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let waiting = unreceived(stream)?;
        if self.record > 0 && waiting / self.record >= most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let children = [child.as_fd()];
        if !beside.push(SendAncillaryMessage::ScmRights(&children)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match rustix::net::sendmsg(stream, &[IoSlice::new(record)], &mut beside, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            // Descriptors under way are bounded by the kernel, too.
            Err(Errno::TOOMANYREFS) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => return Err(error.into()),
        }
        if waiting == 0 {
            self.record = unreceived(stream)?;
        }
        Ok(())
    }

    /// Takes what there is but for the last byte, which stays: see the module.
    fn take(&self, room: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        let waiting = || rustix::io::ioctl_fionread(stream).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut count = waiting()?;
        if count <= 1 {
            let ends = ends(stream);
            // It may have come between the two looks.
            count = waiting()?;
            if count <= 1 {
                return self.ended(ends);
            }
        }
        let length = self.readable((count - 1).min(room.len()))?;
        let mut old = [0];
        let (most, _) = room.split_at_mut(length - 1);
        let mut pieces = [IoSliceMut::new(&mut old), IoSliceMut::new(most)];
        let got = rustix::net::recvmsg(stream, &mut pieces, &mut RecvAncillaryBuffer::default(), RecvFlags::empty())?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        rustix::net::recv(stream, &mut room[got.bytes - 1..got.bytes], RecvFlags::PEEK)?;
        Ok(got.bytes)
    }

    /// How many of the next bytes, at most `length`, can be read without a descriptor that the program passed. Who reads past one closes it,
    /// which may take as long as the program likes; TCP passes none. A look sees those further behind, too.
    fn readable(&self, length: usize) -> io::Result<usize> {
        if !self.is_passed || length == 0 {
            return Ok(length);
        }
        match look(self.stream()?, &mut vec![0; length])? {
            (_, true) => Err(io::ErrorKind::InvalidData.into()),
            (0, false) => Err(io::ErrorKind::WouldBlock.into()),
            (length, false) => Ok(length),
        }
    }

    fn ended(&self, ends: PollFlags) -> io::Result<usize> {
        let reset = || Err(io::ErrorKind::ConnectionReset.into());
        if ends.contains(PollFlags::ERR) {
            return reset();
        }
        if ends.contains(PollFlags::HUP) && self.entry.as_ref().is_some_and(Entry::abortive) {
            return reset();
        }
        if ends.intersects(PollFlags::HUP | PollFlags::RDHUP) {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Resolves when the program has closed; whether that is a reset, if it is not one by SO_LINGER.
pub(super) async fn closed(ours: OwnedFd) -> io::Result<bool> {
    let stream = UnixStream::from_std(ours.into())?;
    hung_up(&stream).await;
    Ok(ends(&stream).contains(PollFlags::ERR))
}

/// Takes what is unread, so that closing is no reset.
fn empty(stream: &UnixStream) {
    // A program that writes as fast as this reads would keep it here for ever.
    let _ = rustix::net::shutdown(stream, Shutdown::Read);
    let mut waste = [0; FILLING.len()];
    while matches!(rustix::net::recv(stream, &mut waste, RecvFlags::DONTWAIT), Ok((1.., _))) {}
}

/// Another copy of it, if descriptors wait in it unread. Nothing more comes after this.
fn with_descriptors(stream: &UnixStream) -> Option<OwnedFd> {
    let _ = rustix::net::shutdown(stream, Shutdown::Read);
    let unread = usize::try_from(rustix::io::ioctl_fionread(stream).ok()?).ok()?;
    let (_, holds_some) = look(stream, &mut vec![0; unread + 1]).ok()?;
    if holds_some { stream.as_fd().try_clone_to_owned().ok() } else { None }
}

/// What has ended: HUP, RDHUP, ERR.
fn ends(stream: &impl AsFd) -> PollFlags {
    let mut look = [PollFd::new(stream, PollFlags::RDHUP)];
    match poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => look[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

async fn hung_up(stream: &UnixStream) {
    loop {
        if ends(stream).intersects(PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        // Forgets what was so, so that what comes wakes.
        let _ = stream.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        if stream.writable().await.is_err() {
            return;
        }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.heard || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let stream = self.stream()?;
            ready!(stream.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || self.take(room)) {
                Ok(length) => {
                    self.heard = length == 0;
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match ready!(Pin::new(&mut *stream).poll_write(cx, buf)) {
            // It reads no more, but lives: TCP would take the bytes and throw them away.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !ends(stream).contains(PollFlags::HUP) => {
                Poll::Ready(Ok(buf.len()))
            }
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.said = true;
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match ready!(Pin::new(stream).poll_shutdown(cx)) {
            // The program was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let (Some(stream), Some(entry)) = (self.stream.take(), self.entry.take()) else { return };
        let grave = if self.is_passed { with_descriptors(&stream) } else { None };
        // Who has had the end of the stream gets EPIPE from a reset, not ECONNRESET; who has left gets nothing.
        if grave.is_none() && (self.said || ends(&stream).contains(PollFlags::HUP)) {
            empty(&stream);
        }
        // First the table, then the program hears of it.
        drop(entry);
        drop(stream);
        // Last: whoever closes it may have to wait.
        control::bury_unknown(grave);
    }
}

/// Fills the buffer of a program's end, so that it does not look writable yet.
pub(super) fn fill(theirs: &OwnedFd) -> io::Result<()> {
    for _ in 0..MAX_FILLINGS {
        match rustix::net::send(theirs, &FILLING, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Empties it: from now on it is writable.
pub(super) fn release(end: &End, connected: bool) -> io::Result<()> {
    let stream = end.stream()?;
    if connected {
        mark(stream)?;
    }
    // What comes after this is the program's already.
    let filling = rustix::io::ioctl_fionread(stream)?.saturating_sub(1);
    let mut left = usize::try_from(filling).unwrap_or(usize::MAX);
    let mut waste = [0; FILLING.len()];
    while left > 0 {
        let most = end.readable(left.min(waste.len()))?;
        match rustix::net::recv(stream, &mut waste[..most], RecvFlags::empty())?.0 {
            0 => break,
            got => left -= got,
        }
    }
    Ok(())
}

/// The kernel's own number of a socket.
pub(super) fn cookie(socket: &OwnedFd) -> Option<u64> {
    sockopt::socket_cookie(socket).ok()
}

#[cfg(test)]
/// The name by which a program's end is known; none when it is not ours.
pub(super) fn name_of(theirs: &OwnedFd) -> Option<SocketName> {
    let address = rustix::net::getsockname(theirs).ok()?;
    let address: SocketAddrUnix = address.try_into().ok()?;
    SocketName::decode(address.abstract_name()?)
}

/// Shared by what must end with the identity.
pub(super) type Over = Arc<tokio_util::sync::CancellationToken>;
