//! The daemon's end of the helper process that holds a gate's two network namespaces and makes sockets in them.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use phantom_proto::ident::ApAddress;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, sockopt,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::sync::{mpsc, oneshot};

use super::{AGAIN_ARGUMENT, GateError, Owner};
use crate::children;
use crate::netlink::{Listener, MAX_LISTED};

/// Requests that wait for the helper at one time; who comes later waits in line.
const MAX_WAITING: usize = 256;

/// The helper answers at once; if not, something is badly wrong with it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The thread that waits for the helper's end does nothing else.
const LIFE_STACK: usize = 64 * 1024;

/// Descriptors in one answer: the most is set-up with two TUNs, a listener and two namespaces.
const MAX_DESCRIPTORS: usize = 5;

/// The longest message: a full listing of listeners.
const MAX_MESSAGE: usize = 4 + MAX_LISTED * 4;

/// What the helper says when it has closed its copies of the descriptors that it sent.
const CLOSED: &[u8] = b"closed";

/// Length of a request; the longest is for set-up: kind, address, IPv4 view, owner.
const REQUEST: usize = 32;

/// What the daemon asks the helper for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// First of all: make both namespaces, with this address and this IPv4 view, for programs of this user.
    SetUp(ApAddress, Ipv4Addr, Owner),
    /// A socket (domain, type, protocol) of the phantom namespace.
    ProgramSocket(i32, i32, i32),
    /// A TCP socket of the gate's namespace.
    GateSocket { v4: bool },
    /// Which TCP ports listen in the phantom namespace.
    Listeners,
    /// A program's own line to the helper.
    Line,
    /// Whether such a line was used since this was asked last.
    LinesUsed,
}

/// What it answers.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// Zero, or an errno.
    pub(super) errno: i32,
    /// Listing or error text; one byte when lines were used.
    pub(super) data: Vec<u8>,
    /// Descriptors, in the order that the request says.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Request {
    fn encode(self) -> [u8; REQUEST] {
        let mut raw = [0; REQUEST];
        let numbers = match self {
            Self::SetUp(address, ipv4, owner) => {
                raw[4..20].copy_from_slice(&address.octets());
                raw[20..24].copy_from_slice(&ipv4.octets());
                raw[24..28].copy_from_slice(&owner.uid.to_ne_bytes());
                raw[28..].copy_from_slice(&owner.gid.to_ne_bytes());
                return raw;
            }
            Self::ProgramSocket(domain, kind, protocol) => [1, domain, kind, protocol],
            Self::GateSocket { v4 } => [2, i32::from(v4), 0, 0],
            Self::Listeners => [3, 0, 0, 0],
            Self::Line => [4, 0, 0, 0],
            Self::LinesUsed => [5, 0, 0, 0],
        };
        for (to, number) in raw.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        raw
    }

    fn decode(raw: &[u8]) -> Option<Self> {
        let number = |at: usize| raw.get(at * 4..)?.first_chunk().map(|n| i32::from_ne_bytes(*n));
        Some(match number(0)? {
            0 => {
                let address = ApAddress::from_bytes(*raw.get(4..)?.first_chunk()?)?;
                let ipv4 = Ipv4Addr::from(*raw.get(20..)?.first_chunk::<4>()?);
                let owner = Owner { uid: number(6)?.cast_unsigned(), gid: number(7)?.cast_unsigned() };
                Self::SetUp(address, ipv4, owner)
            }
            1 => Self::ProgramSocket(number(1)?, number(2)?, number(3)?),
            2 => Self::GateSocket { v4: number(1)? != 0 },
            3 => Self::Listeners,
            4 => Self::Line,
            5 => Self::LinesUsed,
            _ => return None,
        })
    }
}

/// Listeners as bytes: port, IPv6 or not, loopback (1) and full (2) or not.
pub(super) fn encode_listeners(listeners: &[Listener]) -> Vec<u8> {
    let entry = |l: &Listener| {
        let port = l.port.to_ne_bytes();
        [port[0], port[1], u8::from(l.v6), u8::from(l.loopback) | u8::from(l.full) << 1]
    };
    listeners.iter().take(MAX_LISTED).flat_map(entry).collect()
}

fn decode_listeners(raw: &[u8]) -> Vec<Listener> {
    let entry = |e: &[u8]| Listener {
        port: u16::from_ne_bytes([e[0], e[1]]),
        v6: e[2] != 0,
        loopback: e[3] & 1 != 0,
        full: e[3] & 2 != 0,
    };
    raw.chunks_exact(4).map(entry).collect()
}

/// Waits for the next request; none when the daemon is gone or talks nonsense.
pub(super) fn receive_request(socket: BorrowedFd<'_>) -> Option<Request> {
    let mut raw = [0; REQUEST];
    let (length, _) = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut raw, RecvFlags::empty())).ok()?;
    Request::decode(&raw[..length])
}

/// Sends an answer, descriptors beside it; then, when there were some, that they are closed on this side.
pub(super) fn send_reply(socket: BorrowedFd<'_>, reply: Reply) -> io::Result<()> {
    let mut message = reply.errno.to_ne_bytes().to_vec();
    message.extend(&reply.data);
    let descriptors: Vec<BorrowedFd<'_>> = reply.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
    if !descriptors.is_empty() {
        drop(reply.descriptors);
        rustix::net::send(socket, CLOSED, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

pub(super) fn receive_reply(socket: &OwnedFd) -> io::Result<Reply> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?
    .bytes;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            descriptors.extend(passed);
        }
    }
    // A second owner would keep a port in use that the program has closed.
    if !descriptors.is_empty() {
        let mut closed = [0; CLOSED.len()];
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut closed, RecvFlags::empty()))?;
    }
    let errno = message[..length].first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Reply { errno: i32::from_ne_bytes(*errno), data: message[4..length].to_vec(), descriptors })
}

/// What set-up gives.
pub(super) struct Wires {
    pub(super) program: OwnedFd,
    pub(super) gate: OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) namespace: OwnedFd,
    pub(super) user_namespace: Option<OwnedFd>,
    pub(super) life: Life,
}

/// The helper's process: a child of this one, perhaps begun by what it was before.
pub(super) struct Life {
    process: OwnedFd,
    /// Its number, as far as it is known.
    id: Option<u32>,
    over: oneshot::Receiver<()>,
    /// Told when it does not answer.
    silence: oneshot::Receiver<()>,
}

impl Life {
    fn of(process: OwnedFd, silence: oneshot::Receiver<()>) -> io::Result<Self> {
        let (over_tx, over) = oneshot::channel();
        let child = process.try_clone()?;
        let id = number_of(&process);
        children::begun(id, Owner::own().uid);
        // Whoever waits for it may be gone before it: it is not to stay as a dead child.
        std::thread::Builder::new().name("gate-life".into()).stack_size(LIFE_STACK).spawn(move || {
            // Where a service manager has started this process it is no child of it, and is not waited for.
            let _ = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&child, PollFlags::IN)], None));
            let _ = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            children::ended(id);
            let _ = over_tx.send(());
        })?;
        Ok(Self { process, id, over, silence })
    }

    /// Waits until it has ended; one that does not answer is ended.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = &mut self.over => return,
            Ok(()) = &mut self.silence => {}
        }
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let _ = (&mut self.over).await;
    }

    /// Its number, as far as it is known.
    pub(super) fn id(&self) -> Option<u32> {
        self.id
    }

    /// Another descriptor of it.
    pub(super) fn process(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }
}

/// The number of a process, as /proc has it.
fn number_of(process: &OwnedFd) -> Option<u32> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    about.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// The helper, seen from the daemon. When it is dropped, the helper aborts the programs' connections and exits.
#[derive(Clone)]
pub(super) struct Helper {
    tasks: mpsc::Sender<Task>,
}

/// What the helper's thread has to do.
enum Task {
    Ask(Request, oneshot::Sender<io::Result<Reply>>),
    /// To end, and leave the helper's socket, since another process goes on with it.
    Leave(oneshot::Sender<OwnedFd>),
}

impl Helper {
    /// Starts the helper and lets it make the namespaces, or take the phantom one of a gate `before` up.
    pub(super) async fn start(
        program: &Path,
        arguments: &[OsString],
        request: (ApAddress, Ipv4Addr, Owner),
        before: Option<OwnedFd>,
    ) -> Result<(Self, Wires), GateError> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE)).map_err(io::Error::from)?;
        let child = Command::new(program)
            .args(arguments)
            .args(before.as_ref().map(|_| AGAIN_ARGUMENT))
            .env_clear()
            .stdin(theirs)
            .stdout(before.map_or_else(Stdio::null, Stdio::from))
            // Away from the terminal's signals: it must outlive the daemon, whatever ends that.
            .process_group(0)
            .spawn()
            .map_err(|error| GateError::Helper(program.to_owned(), error))?;
        // Nobody but `Life` waits for it.
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from)?;
        let (helper, life) = Self::over(ours, process)?;
        let (address, ipv4, owner) = request;
        let reply = helper.ask(Request::SetUp(address, ipv4, owner)).await?;
        if reply.errno != 0 {
            return Err(GateError::SetUp(String::from_utf8_lossy(&reply.data).into_owned()));
        }
        let mut descriptors = reply.descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| GateError::Io(io::ErrorKind::InvalidData.into()));
        let (program, gate, listener, namespace) = (next()?, next()?, next()?, next()?);
        Ok((helper, Wires { program, gate, listener, namespace, user_namespace: next().ok(), life }))
    }

    /// The helper that is at the other end of this socket, and its process.
    pub(super) fn over(socket: OwnedFd, process: OwnedFd) -> io::Result<(Self, Life)> {
        let (tasks, queue) = mpsc::channel(MAX_WAITING);
        let (silent, silence) = oneshot::channel();
        std::thread::Builder::new().name("gate-helper".into()).spawn(move || serve(socket, queue, silent))?;
        Ok((Self { tasks }, Life::of(process, silence)?))
    }

    /// Its socket, for another process: from now on it answers nobody here. `None`: it has ended.
    pub(super) async fn leave(&self) -> Option<OwnedFd> {
        let (left, socket) = oneshot::channel();
        self.tasks.send(Task::Leave(left)).await.ok()?;
        socket.await.ok()
    }

    /// A socket of the phantom namespace.
    pub(super) async fn program_socket(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        self.descriptor(Request::ProgramSocket(domain, kind, protocol)).await
    }

    /// A TCP socket of the gate's namespace.
    pub(super) async fn gate_socket(&self, v4: bool) -> io::Result<OwnedFd> {
        self.descriptor(Request::GateSocket { v4 }).await
    }

    /// A program's own line to the helper: see [`crate::lines`].
    pub(super) async fn line(&self) -> io::Result<OwnedFd> {
        self.descriptor(Request::Line).await
    }

    /// Whether such lines were used since this was asked last.
    pub(super) async fn lines_used(&self) -> io::Result<bool> {
        Ok(!self.ask(Request::LinesUsed).await?.data.is_empty())
    }

    /// What listens in the phantom namespace.
    pub(super) async fn listeners(&self) -> io::Result<Vec<Listener>> {
        let reply = self.ask(Request::Listeners).await?;
        if reply.errno != 0 {
            return Err(io::Error::from_raw_os_error(reply.errno));
        }
        Ok(decode_listeners(&reply.data))
    }

    async fn descriptor(&self, request: Request) -> io::Result<OwnedFd> {
        let reply = self.ask(request).await?;
        if reply.errno != 0 {
            return Err(io::Error::from_raw_os_error(reply.errno));
        }
        reply.descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    async fn ask(&self, request: Request) -> io::Result<Reply> {
        let (answer, reply) = oneshot::channel();
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the namespace helper has ended");
        self.tasks.send(Task::Ask(request, answer)).await.map_err(|_| gone())?;
        reply.await.map_err(|_| gone())?
    }
}

/// Passes requests on one by one; ends, and lets the helper end, when nobody can ask any more. Says when it is silent.
fn serve(socket: OwnedFd, mut queue: mpsc::Receiver<Task>, silent: oneshot::Sender<()>) {
    while let Some(task) = queue.blocking_recv() {
        let (request, answer) = match task {
            Task::Ask(request, answer) => (request, answer),
            Task::Leave(left) => {
                let _ = left.send(socket);
                return;
            }
        };
        let sent = rustix::net::send(&socket, &request.encode(), SendFlags::NOSIGNAL).map_err(io::Error::from);
        let reply = sent.and_then(|_| receive_reply(&socket));
        let broken = reply.is_err();
        // Whoever asked may have stopped waiting.
        let _ = answer.send(reply);
        if broken {
            let _ = silent.send(());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_round_trip(domain: i32, kind: i32, protocol: i32, v4: bool, host: [u8; 14], ipv4: [u8; 4],
                uid: u32, gid: u32) {
            let mut address = [0; 16];
            address[..2].copy_from_slice(&phantom_proto::ident::AP_PREFIX.to_be_bytes());
            address[2..].copy_from_slice(&host);
            let address = ApAddress::from_bytes(address).unwrap();
            for request in [
                Request::ProgramSocket(domain, kind, protocol),
                Request::GateSocket { v4 },
                Request::Listeners,
                Request::Line,
                Request::LinesUsed,
                Request::SetUp(address, ipv4.into(), Owner { uid, gid }),
            ] {
                prop_assert_eq!(Request::decode(&request.encode()), Some(request));
            }
        }

        #[test]
        fn listeners_round_trip(entries: Vec<(u16, bool, bool, bool)>) {
            let listeners: Vec<_> =
                entries.iter().map(|&(port, v6, loopback, full)| Listener { port, v6, loopback, full }).collect();
            prop_assert_eq!(decode_listeners(&encode_listeners(&listeners)), listeners);
        }

        #[test]
        fn any_request_is_read_without_panic(raw: Vec<u8>) {
            let _ = Request::decode(&raw);
        }
    }
}
