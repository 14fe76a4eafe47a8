//! What the daemon is asked: over a short connection of its own, or, for a socket, over the line that the process keeps. By raw
//! system calls.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use phantom_ipc::hook::{self, Call, CallReply, OptionValue, Reply, Request, SocketReply};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::complaint::{complain, unpublished};
pub(super) use super::exchange::PATIENCE;
use super::exchange::{Answer, Asked, EMPTY, Failure, exchange, receive};
use super::line::{self, Turn};
use super::own::{Own, own};

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
    let mut buffer = EMPTY;
    let Answer { length, received, mut line } =
        exchange(own, &Asked::plainly(request), &mut buffer).map_err(without_answer)?;
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
    let mut buffer = EMPTY;
    let (length, received) = receive(&line, &mut buffer, close, false, || Ok(None)).ok()?;
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
    let mut buffer = EMPTY;
    let Answer { length, received, .. } = exchange(own, &Asked::plainly(own.line.as_deref()?), &mut buffer).ok()?;
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
        let mut buffer = EMPTY;
        // Without an answer there is no network either, which the socket's own request says.
        let Ok(Answer { length, .. }) = exchange(own, &Asked::plainly(request), &mut buffer) else { return false };
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
    let mut buffer = EMPTY;
    let Answer { length, .. } = exchange(own, &Asked::plainly(&frame), &mut buffer).map_err(without_answer)?;
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
    let mut buffer = EMPTY;
    let Answer { length, .. } = exchange(own, &Asked::plainly(frame.bytes()), &mut buffer).map_err(without_answer)?;
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
    let asked = Asked { frame: frame.bytes(), beside: Some(descriptor), patience, ends: true };
    let mut buffer = EMPTY;
    let Answer { length, .. } = exchange(own, &asked, &mut buffer).map_err(without_answer)?;
    got(&buffer[hook::HEADER..length])
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

/// No identity: the environment's is malformed.
fn nobody() -> i32 {
    complain("PHANTOM_IDENTITY or PHANTOM_SESSION is malformed");
    libc::ENETDOWN
}

fn without_answer(failure: Failure) -> i32 {
    match failure {
        Failure::Told(error) => error.raw_os_error(),
        Failure::Gone(error) => gone(error),
    }
}

/// The daemon does not answer.
fn gone(error: Errno) -> i32 {
    complain(match error {
        Errno::ACCESS | Errno::PERM => "the daemon is not this user's to ask: `phantom doctor` says what to do",
        Errno::NOENT | Errno::NOTDIR => {
            "no daemon's socket is there: `phantom doctor` says what to do; in a jail (chroot) link it to the same path there"
        }
        _ => "no daemon answers: `phantom doctor` says what to do",
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
