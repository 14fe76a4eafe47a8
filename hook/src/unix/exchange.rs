//! One request to the daemon and its answer, over a connection of its own, whatever handlers of signals do meanwhile.
//!
//! A handler that forks has a child that goes on where its parent is, with the same connection. So it is only looked at while
//! handlers may run; what is sent, and what is taken from it, is so while signals wait, by the process that began. A child
//! lets go of its parent's and begins anew.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use phantom_ipc::hook::{self, PREAMBLE};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, connect, recvmsg, sendmsg, shutdown, socket_with,
};
use rustix::process::{Pid, getpid};

use super::own::Own;
use super::sandbox;
use super::signals::Quiet;

/// Longest wait for the daemon: names of the ordinary DNS are looked up over Phantom, which takes seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Room for a whole frame.
pub(super) type Buffer = [u8; hook::HEADER + hook::MAX_FRAME];

/// A buffer.
pub(super) const EMPTY: Buffer = [0; size_of::<Buffer>()];

/// What is asked.
pub(super) struct Asked<'a> {
    /// The request.
    pub(super) frame: &'a [u8],
    /// A descriptor that goes along.
    pub(super) beside: Option<BorrowedFd<'a>>,
    /// How long the answer is waited for; without one, for as long as it takes.
    pub(super) patience: Option<Duration>,
    /// Whether the wait ends as that of connect(2): by a signal, as the kernel decides, and with EAGAIN when it was long enough.
    pub(super) ends: bool,
}

impl<'a> Asked<'a> {
    /// As nearly all is asked.
    pub(super) fn plainly(frame: &'a [u8]) -> Self {
        Self { frame, beside: None, patience: Some(PATIENCE), ends: false }
    }
}

/// The answer: its length in the buffer, header included, the descriptor beside it, which closes on exec, and the connection.
pub(super) struct Answer {
    pub(super) length: usize,
    pub(super) received: Option<OwnedFd>,
    pub(super) line: OwnedFd,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// What the program is to be told: there is no descriptor left, or its wait has ended.
    Told(Errno),
    /// The daemon does not answer.
    Gone(Errno),
}

/// Why an attempt has ended without an answer.
pub(super) enum Ended {
    /// This is a child, which a handler has forked meanwhile.
    InChild,
    Because(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Because(failure)
    }
}

/// Asks, and has the answer in the buffer. Allocates nothing.
pub(super) fn exchange(own: &Own, asked: &Asked<'_>, buffer: &mut Buffer) -> Result<Answer, Failure> {
    loop {
        match once(own, asked, buffer) {
            Ok(answer) => return Ok(answer),
            Err(Ended::Because(failure)) => return Err(failure),
            Err(Ended::InChild) => {}
        }
    }
}

fn once(own: &Own, asked: &Asked<'_>, buffer: &mut Buffer) -> Result<Answer, Ended> {
    // A filter may end the program for questions that it did not ask.
    let process = (!sandbox::filtered()).then(getpid);
    let line =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(Failure::Told)?;
    let reached = set_socket_timeout(&line, Timeout::Send, Some(PATIENCE))
        .and_then(|()| set_socket_timeout(&line, Timeout::Recv, asked.patience))
        .and_then(|()| reach(own, &line, process.is_some()));
    let quiet = still(process)?;
    reached.and_then(|()| send(&line, asked)).map_err(Failure::Gone)?;
    drop(quiet);
    let (length, received) =
        receive(&line, buffer, RecvFlags::CMSG_CLOEXEC, asked.ends, || look(&line, asked, process))?;
    if asked.patience.is_none() && process.is_some() {
        // A child may look, too, and nothing else would end that: waits without a limit go on after a handler.
        let _ = shutdown(&line, Shutdown::Both);
    }
    Ok(Answer { length, received, line })
}

/// Makes signals wait, in the process that began.
fn still(process: Option<Pid>) -> Result<Option<Quiet>, Ended> {
    let Some(process) = process else { return Ok(None) };
    let quiet = Quiet::begin();
    if getpid() == process { Ok(quiet) } else { Err(Ended::InChild) }
}

/// Connects without a path where that is possible: jails have none, and behind it lies another file when the daemon was
/// started anew. By the path where the program has a network of its own (bubblewrap), or the launcher saw to nothing: root and the
/// daemon's own user by theirs, which other users cannot crowd. It is looked for where that may be asked: not under a filter.
fn reach(own: &Own, line: &OwnedFd, may_look: bool) -> Result<(), Errno> {
    let to = |address| match retry_on_intr(|| connect(line, address)) {
        // A child that a handler forked was first.
        Err(Errno::ISCONN) => Ok(()),
        connected => connected,
    };
    if own.pathless.as_ref().map(to) == Some(Ok(())) {
        return Ok(());
    }
    let operators = own.operators.as_ref().filter(|operators| may_look && operators.is_the_daemons());
    if operators.map(|operators| to(&operators.at)) == Some(Ok(())) {
        return Ok(());
    }
    own.socket.as_ref().map_or(Err(Errno::NAMETOOLONG), to)
}

fn send(line: &OwnedFd, asked: &Asked<'_>) -> Result<(), Errno> {
    let pieces = [IoSlice::new(&PREAMBLE), IoSlice::new(asked.frame)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(beside) = &asked.beside {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(beside)));
    }
    // Far below the size of any socket buffer: all of it is taken or none.
    let length = retry_on_intr(|| sendmsg(line, &pieces, &mut control, SendFlags::NOSIGNAL))?;
    if length == PREAMBLE.len() + asked.frame.len() { Ok(()) } else { Err(Errno::PROTO) }
}

/// Waits until there is something to take, and takes nothing: whoever comes back from here may be a child. Then signals wait.
/// Under a filter neither.
fn look(line: &OwnedFd, asked: &Asked<'_>, process: Option<Pid>) -> Result<Option<Quiet>, Ended> {
    if process.is_none() {
        return Ok(None);
    }
    let begun = Instant::now();
    loop {
        // Without room for descriptors none is taken.
        let looked =
            recvmsg(line, &mut [IoSliceMut::new(&mut [0])], &mut RecvAncillaryBuffer::default(), RecvFlags::PEEK);
        if asked.ends && matches!(looked, Err(Errno::INTR)) {
            return Err(Failure::Told(Errno::INTR).into());
        }
        let quiet = still(process)?;
        match looked {
            Ok(_) => return Ok(quiet),
            // Signals begin the kernel's wait anew; without this, a timer's could stretch it without end.
            Err(Errno::INTR) if begun.elapsed() < PATIENCE => {}
            Err(error) => return Err(over(error, asked.ends).into()),
        }
    }
}

/// The frame that comes: its length in the buffer, header included, and the descriptor beside it, which closes on exec if
/// `close` says so. Before each piece of it `ready` may wait, and make signals wait.
pub(super) fn receive(
    line: &OwnedFd,
    buffer: &mut Buffer,
    close: RecvFlags,
    ends: bool,
    ready: impl Fn() -> Result<Option<Quiet>, Ended>,
) -> Result<(usize, Option<OwnedFd>), Ended> {
    let begun = Instant::now();
    let (mut length, mut received) = (0, None);
    loop {
        let quiet = ready()?;
        let flags = if quiet.is_some() { close | RecvFlags::DONTWAIT } else { close };
        match receive_some(line, &mut buffer[length..], &mut received, flags) {
            Ok(0) => return Err(Failure::Gone(Errno::CONNRESET).into()),
            Ok(more) => length += more,
            Err(Errno::INTR) if !ends && begun.elapsed() < PATIENCE => continue,
            Err(error) => return Err(over(error, ends).into()),
        }
        match hook::split_frame(&buffer[..length]) {
            Ok(Some((_, used))) if used == length => return Ok((length, received)),
            Ok(None) if length < buffer.len() => {}
            _ => return Err(Failure::Gone(Errno::PROTO).into()),
        }
    }
}

fn over(error: Errno, ends: bool) -> Failure {
    if ends && [Errno::INTR, Errno::AGAIN].contains(&error) { Failure::Told(error) } else { Failure::Gone(error) }
}

fn receive_some(
    line: &OwnedFd,
    buffer: &mut [u8],
    received: &mut Option<OwnedFd>,
    flags: RecvFlags,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(line, &mut [IoSliceMut::new(buffer)], &mut beside, flags)?;
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
