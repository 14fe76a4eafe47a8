//! One request to the daemon: over a short connection of its own, or, for a socket, over the line that the process keeps. By
//! raw system calls.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use phantom_ipc::hook::{self, Call, CallReply, OptionValue, PREAMBLE, Reply, Request, SocketReply};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

use super::complaint::{complain, unpublished};
use super::line::{self, Turn};
use super::own::{Own, own};

/// Longest wait for the daemon: names of the ordinary DNS are looked up over Phantom, which takes seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Room for a whole frame.
type Buffer = [u8; hook::HEADER + hook::MAX_FRAME];

/// Asks for a socket of the phantom namespace. Allocates nothing. The descriptor is the lowest that was free, as
/// socket(2) promises, and closes on exec if `kind` says so.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, i32> {
    let own = own();
    let request = own.frame.as_ref().ok_or_else(nobody)?.with(domain, kind, protocol);
    if let Some(turn) = line::turn()
        && let Some(given) = by_line(own, &turn, request.bytes(), kind)
    {
        return given;
    }
    if own.emulate {
        let open = Call::Open { domain, kind, protocol };
        let request = own.calls.as_ref().ok_or_else(nobody)?.with(0, &open);
        return without_line(own, request.bytes(), kind);
    }
    without_line(own, request.bytes(), kind)
}

fn without_line(own: &Own, request: &[u8], kind: i32) -> Result<OwnedFd, i32> {
    publish(own, kind);
    let mut line = call(own, request, None, Some(PATIENCE))?;
    let mut buffer = [0; size_of::<Buffer>()];
    let (length, received) = receive(&line, &mut buffer, RecvFlags::CMSG_CLOEXEC).map_err(gone)?;
    let received = granted(&buffer[hook::HEADER..length], received)?;
    settle(&received, &mut line, kind).map_err(Errno::raw_os_error)?;
    Ok(line)
}

/// The socket of a reply.
fn granted(body: &[u8], received: Option<OwnedFd>) -> Result<OwnedFd, i32> {
    match SocketReply::decode(body) {
        // The kernel leaves out what does not fit the program's table.
        Ok(SocketReply::Descriptor) => received.ok_or(libc::EMFILE),
        Ok(SocketReply::Failed(errno, message)) => Err(refused(errno, message)),
        Err(_) => Err(gone(Errno::PROTO)),
    }
}

/// The same by the line that the process keeps, or a new one in its place; none where it is to be asked for without.
fn by_line(own: &Own, turn: &Turn, request: &[u8], kind: i32) -> Option<Result<OwnedFd, i32>> {
    if turn.has_line() {
        if let Some(given) = ask_by(own, turn, request, kind) {
            return Some(given);
        }
        // Nobody is at its other end any more, or it is not what it was.
        turn.drop_line();
    }
    if !turn.is_due() {
        return None;
    }
    if open_line(own, turn).is_none() {
        turn.pause();
        return None;
    }
    ask_by(own, turn, request, kind)
}

fn ask_by(own: &Own, turn: &Turn, request: &[u8], kind: i32) -> Option<Result<OwnedFd, i32>> {
    if !turn.is_published() && publish(own, kind) {
        turn.published();
    }
    let quiet = turn.quiet()?;
    let line = quiet.line()?;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::send(&*line, request, flags);
    if sent != Ok(request.len()) {
        return None;
    }
    let close = if kind & libc::SOCK_CLOEXEC != 0 { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::empty() };
    let mut buffer = [0; size_of::<Buffer>()];
    let (length, received) = receive(&line, &mut buffer, close).ok()?;
    let given = granted(&buffer[hook::HEADER..length], received);
    if kind & libc::SOCK_NONBLOCK != 0
        && let Ok(given) = &given
        && let Err(error) = rustix::fs::fcntl_setfl(given, rustix::fs::OFlags::NONBLOCK)
    {
        return Some(Err(error.raw_os_error()));
    }
    Some(given)
}

/// Has the daemon give a line.
fn open_line(own: &Own, turn: &Turn) -> Option<()> {
    let line = call(own, own.line.as_deref()?, None, Some(PATIENCE)).ok()?;
    let mut buffer = [0; size_of::<Buffer>()];
    let (length, received) = receive(&line, &mut buffer, RecvFlags::CMSG_CLOEXEC).ok()?;
    match SocketReply::decode(&buffer[hook::HEADER..length]) {
        Ok(SocketReply::Descriptor) => turn.keep(&received?).ok(),
        _ => None,
    }
}

/// Before a socket that could listen: what the program offers is published, which is over with the identity, when nobody has
/// used that for a while or the daemon itself was started again. Says whether all of it is. Allocates nothing.
fn publish(own: &Own, kind: i32) -> bool {
    if kind & 0xf != libc::SOCK_STREAM {
        return false;
    }
    let Some(requests) = &own.publish else {
        unpublished("PHANTOM_PUBLISH is malformed; it says ports as in `80`, `80,443:shop` or `all`");
        return false;
    };
    let mut all = true;
    for request in requests {
        // Without an answer there is no network either, which the socket's own request says.
        let Ok(line) = call(own, request, None, Some(PATIENCE)) else { return false };
        let mut buffer = [0; size_of::<Buffer>()];
        let Ok((length, _)) = receive(&line, &mut buffer, RecvFlags::CMSG_CLOEXEC) else { return false };
        if let Ok(SocketReply::Failed(_, message)) = SocketReply::decode(&buffer[hook::HEADER..length]) {
            unpublished(message);
            all = false;
        }
    }
    all
}

/// Puts the received socket in the place of the connection, whose descriptor was the lowest free one.
fn settle(received: &OwnedFd, line: &mut OwnedFd, kind: i32) -> Result<(), Errno> {
    let close = kind & libc::SOCK_CLOEXEC != 0;
    let flags = if close { rustix::io::DupFlags::CLOEXEC } else { rustix::io::DupFlags::empty() };
    let wait = kind & libc::SOCK_NONBLOCK == 0;
    let mode = if wait { rustix::fs::OFlags::empty() } else { rustix::fs::OFlags::NONBLOCK };
    rustix::fs::fcntl_setfl(received, mode)?;
    rustix::io::dup3(received, line, flags)
}

/// Asks anything but for sockets.
pub(super) fn ask(request: impl FnOnce(hook::IdentityRef) -> Request) -> Result<Reply, i32> {
    let own = own();
    let request = request(own.identity.clone().ok_or_else(nobody)?);
    // A text that breaks the limits of the dialect is no name of anything.
    let Ok(frame) = request.encode() else { return Ok(Reply::NotFound) };
    let line = call(own, &frame, None, Some(PATIENCE))?;
    let mut buffer = [0; size_of::<Buffer>()];
    let (length, _) = receive(&line, &mut buffer, RecvFlags::CMSG_CLOEXEC).map_err(gone)?;
    match Reply::decode(&buffer[hook::HEADER..length]) {
        Ok(Reply::Failed { errno, message }) => Err(refused(errno, &message)),
        Ok(reply) => Ok(reply),
        Err(_) => Err(gone(Errno::PROTO)),
    }
}

/// What an emulated socket's call gave.
pub(super) enum Got {
    Done,
    Pending,
    Address(SocketAddr),
    Value(OptionValue),
}

/// Asks for a call on an emulated socket. Allocates nothing.
pub(super) fn emulated(socket: u64, asked: &Call) -> Result<Got, i32> {
    let own = own();
    let frame = own.calls.as_ref().ok_or_else(nobody)?.with(socket, asked);
    let line = call(own, frame.bytes(), None, Some(PATIENCE))?;
    let mut buffer = [0; size_of::<Buffer>()];
    let (length, _) = receive(&line, &mut buffer, RecvFlags::CMSG_CLOEXEC).map_err(gone)?;
    got(&buffer[hook::HEADER..length])
}

/// Asks for a connection of an emulated socket, which goes along. Waits at most for `patience`, then fails with EAGAIN;
/// without one, for as long as it takes. A signal ends the wait as it ends that of connect(2): the kernel decides.
pub(super) fn connect_emulated(
    socket: u64,
    descriptor: BorrowedFd<'_>,
    asked: &Call,
    patience: Option<Duration>,
) -> Result<Got, i32> {
    let own = own();
    let frame = own.calls.as_ref().ok_or_else(nobody)?.with(socket, asked);
    let line = call(own, frame.bytes(), Some(descriptor), patience)?;
    let mut buffer = [0; size_of::<Buffer>()];
    let (mut length, mut nothing) = (0, None);
    loop {
        match receive_some(&line, &mut buffer[length..], &mut nothing, RecvFlags::CMSG_CLOEXEC) {
            Ok(0) => return Err(gone(Errno::CONNRESET)),
            Ok(more) => length += more,
            Err(error @ (Errno::INTR | Errno::AGAIN)) => return Err(error.raw_os_error()),
            Err(error) => return Err(gone(error)),
        }
        match hook::split_frame(&buffer[..length]) {
            Ok(Some((body, used))) if used == length => return got(body),
            Ok(None) if length < buffer.len() => {}
            _ => return Err(gone(Errno::PROTO)),
        }
    }
}

fn got(body: &[u8]) -> Result<Got, i32> {
    match CallReply::decode(body) {
        Ok(CallReply::Done) => Ok(Got::Done),
        Ok(CallReply::Pending) => Ok(Got::Pending),
        Ok(CallReply::Address(address)) => Ok(Got::Address(address)),
        Ok(CallReply::Value(value)) => Ok(Got::Value(value)),
        Ok(CallReply::Failed(errno, message)) => Err(refused(errno, message)),
        Ok(CallReply::Descriptor) | Err(_) => Err(gone(Errno::PROTO)),
    }
}

/// A connection on which the request was sent, with a descriptor beside it.
fn call(own: &Own, frame: &[u8], beside: Option<BorrowedFd<'_>>, patience: Option<Duration>) -> Result<OwnedFd, i32> {
    let line = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Errno::raw_os_error)?;
    let sent = || {
        set_socket_timeout(&line, Timeout::Send, Some(PATIENCE))?;
        set_socket_timeout(&line, Timeout::Recv, patience)?;
        reach(own, &line)?;
        let pieces = [IoSlice::new(&PREAMBLE), IoSlice::new(frame)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(beside) = &beside {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(beside)));
        }
        // Far below the size of any socket buffer: all of it is taken or none.
        retry_on_intr(|| sendmsg(&line, &pieces, &mut control, SendFlags::NOSIGNAL))
    };
    match sent() {
        Ok(length) if length == PREAMBLE.len() + frame.len() => Ok(line),
        Ok(_) => Err(gone(Errno::PROTO)),
        Err(error) => Err(gone(error)),
    }
}

/// Connects without a path where that is possible: jails have none, and behind it lies another file when the daemon was
/// started anew. By the path where the program has a network of its own (bubblewrap), or the launcher saw to nothing.
fn reach(own: &Own, line: &OwnedFd) -> Result<(), Errno> {
    let pathless = own.pathless.as_ref().map(|pathless| retry_on_intr(|| connect(line, pathless)));
    if pathless == Some(Ok(())) {
        return Ok(());
    }
    own.socket.as_ref().map_or(Err(Errno::NAMETOOLONG), |path| retry_on_intr(|| connect(line, path)))
}

/// The frame that comes: its length in the buffer, header included, and the descriptor beside it, which closes on exec if
/// `close` says so.
fn receive(line: &OwnedFd, buffer: &mut Buffer, close: RecvFlags) -> Result<(usize, Option<OwnedFd>), Errno> {
    let begun = Instant::now();
    let (mut length, mut received) = (0, None);
    loop {
        match receive_some(line, &mut buffer[length..], &mut received, close) {
            Ok(0) => return Err(Errno::CONNRESET),
            Ok(more) => length += more,
            // Signals begin the kernel's wait anew; without this, a timer's could stretch it without end.
            Err(Errno::INTR) if begun.elapsed() < PATIENCE => continue,
            Err(error) => return Err(error),
        }
        match hook::split_frame(&buffer[..length]) {
            Ok(Some((_, used))) if used == length => return Ok((length, received)),
            Ok(None) if length < buffer.len() => {}
            _ => return Err(Errno::PROTO),
        }
    }
}

fn receive_some(
    line: &OwnedFd,
    buffer: &mut [u8],
    received: &mut Option<OwnedFd>,
    close: RecvFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(line, &mut [IoSliceMut::new(buffer)], &mut beside, close)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            // Further ones, which no reply to a hook has, are closed here.
            descriptors.for_each(|descriptor| {
                received.get_or_insert(descriptor);
            });
        }
    }
    Ok(got.bytes)
}

/// No identity: the environment's is malformed.
fn nobody() -> i32 {
    complain("PHANTOM_IDENTITY or PHANTOM_SESSION is malformed");
    libc::ENETDOWN
}

/// The daemon does not answer.
fn gone(error: Errno) -> i32 {
    complain(match error {
        Errno::ACCESS | Errno::PERM => {
            "the daemon is not this user's; start one with `phantomd`, or name its socket in PHANTOM_SOCKET"
        }
        Errno::NOENT | Errno::NOTDIR => {
            "no daemon's socket is there; start one with `phantomd`, name its socket in PHANTOM_SOCKET, or, in a jail (chroot), \
             link it to the same path there"
        }
        _ => "no daemon answers; start one with `phantomd`, or name its socket in PHANTOM_SOCKET",
    });
    libc::ENETDOWN
}

/// The daemon refuses. Only what concerns all of the program's network is worth a line on its standard error.
fn refused(errno: i32, message: &str) -> i32 {
    if errno == libc::ENETDOWN {
        complain(message);
    }
    errno
}
