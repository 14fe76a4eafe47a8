//! Local sockets of other users are closed by processes that end, not by any thread of the daemon: what waits in them unread is closed
//! with them, and that takes as long as whoever sent it wants. A thread that waits for it can be one that nothing ends, and then no
//! process becomes another one.
//!
//! ```text
//!  socket ──> one thread, which has processes started ──> a process inherits it, and ends when all copies here are closed
//! ```
//! Such a process may never end, either. So each user has a few, and the rest of what is theirs waits, unclosed.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    socketpair, sockopt,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::beside;
use super::places::Place;
use crate::children;
use crate::os::Owner;
use crate::passed::look;

/// Argument that makes the daemon's executable close what it inherits.
pub const BURY_ARGUMENT: &str = "__bury";

/// Sockets that one process closes: starting one takes milliseconds.
const TOGETHER: usize = 128;

/// Processes of one user that have not ended: those of who passes nothing strange end at once.
const MOST_OF_USER: usize = 16;

/// Between two looks whether processes have ended, and at those for which there was none.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long the last of them may take to be started when the daemon ends.
const LAST_TIME: Duration = Duration::from_secs(2);

/// Bytes of the thread's stack.
const STACK: usize = 256 * 1024;

static ORDERS: LazyLock<Option<Sender<Order>>> = LazyLock::new(|| {
    let (orders_tx, orders) = channel();
    let spawned = Builder::new().name("graves".into()).stack_size(STACK).spawn(move || run(&orders));
    spawned.is_ok().then_some(orders_tx)
});

enum Order {
    Bury {
        uid: u32,
        socket: OwnedFd,
    },
    /// One of the process before, with a place for receiving, since it may be one that received.
    Adopt {
        uid: u32,
        process: u32,
        place: Option<Place>,
    },
    /// Nothing may wait any more.
    Last(SyncSender<()>),
}

/// Has a socket of a user's closed: the only copy of it that is here.
pub(super) fn bury(uid: u32, socket: OwnedFd) {
    // Without the thread it is closed right here: the system has none left, and other things to fear.
    if let Some(orders) = ORDERS.as_ref() {
        let _ = orders.send(Order::Bury { uid, socket });
    }
}

/// The last copy of a socket: buried when this is dropped, after all others.
pub(in crate::control) struct Grave {
    uid: u32,
    socket: Option<OwnedFd>,
}

impl Grave {
    /// For a stranger's socket that is about to be closed, if anything but bytes waits in it.
    pub(super) fn of(uid: u32, socket: impl AsFd) -> Option<Self> {
        let copy = if holds_descriptors(&socket) { socket.as_fd().try_clone_to_owned().ok()? } else { return None };
        Some(Self { uid, socket: Some(copy) })
    }

    /// For any socket of a user's that may have to be closed.
    pub(in crate::control) fn for_any(uid: u32, socket: OwnedFd) -> Self {
        Self { uid, socket: Some(socket) }
    }

    /// It is not to be closed.
    pub(in crate::control) fn take(mut self) -> Option<OwnedFd> {
        self.socket.take()
    }
}

impl Drop for Grave {
    fn drop(&mut self) {
        self.socket.take().into_iter().for_each(|socket| bury(self.uid, socket));
    }
}

/// The same of one of which it is not known whose it is.
pub(crate) fn bury_unknown(sockets: impl IntoIterator<Item = OwnedFd>) {
    sockets.into_iter().for_each(|socket| bury(Owner::own().uid, socket));
}

/// Takes over processes of the process before, each with its user: their ends are to be heard, and until then they count.
pub(crate) fn adopt(processes: Vec<(u32, u32)>) {
    for (process, uid) in processes {
        children::begun(Some(process), uid);
        if let Some(orders) = ORDERS.as_ref() {
            let _ = orders.send(Order::Adopt { uid, process, place: beside::take_place(uid) });
        }
    }
}

/// Returns when all that was to be closed is with processes: to be called before this one ends, or becomes another.
pub fn bury_the_last() {
    let (done, is_done) = sync_channel(1);
    if ORDERS.as_ref().is_some_and(|orders| orders.send(Order::Last(done)).is_ok()) {
        let _ = is_done.recv_timeout(LAST_TIME);
    }
}

/// Whether descriptors wait in a stranger's socket that is about to be closed. Nothing more comes after this.
pub(super) fn holds_descriptors(socket: impl AsFd) -> bool {
    // A byte out of turn is not seen otherwise, nor what is beside it.
    let _ = sockopt::set_socket_oobinline(&socket, true);
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

fn run(orders: &Receiver<Order>) {
    let mut users: HashMap<u32, User> = HashMap::new();
    loop {
        let first = match users.is_empty() {
            true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => orders.recv_timeout(LOOK_EVERY),
        };
        if first.as_ref().is_err_and(|error| *error == RecvTimeoutError::Disconnected) {
            return;
        }
        let mut last = Vec::new();
        for order in first.into_iter().chain(orders.try_iter()) {
            match order {
                Order::Bury { uid, socket } => of(&mut users, uid).waiting.push(socket),
                Order::Adopt { uid, process, place } => {
                    of(&mut users, uid).processes.push(Process::Adopted(process, place));
                }
                Order::Last(done) => last.push(done),
            }
        }
        let most = if last.is_empty() { MOST_OF_USER } else { usize::MAX };
        users.retain(|_, user| user.step(most));
        for done in last {
            let _ = done.try_send(());
        }
    }
}

fn of(users: &mut HashMap<u32, User>, uid: u32) -> &mut User {
    users.entry(uid).or_insert_with(|| User { uid, ..User::default() })
}

/// One that receives or closes.
enum Process {
    /// Started by this process.
    Own(Child),
    /// By the one before; the place is kept until its end.
    Adopted(u32, #[expect(dead_code, reason = "it is kept")] Option<Place>),
}

impl Process {
    /// Asked once.
    fn has_ended(&mut self) -> bool {
        match self {
            Self::Own(child) => {
                let has_ended = matches!(child.try_wait(), Ok(Some(_)));
                if has_ended {
                    children::ended(Some(child.id()));
                }
                has_ended
            }
            Self::Adopted(id, _) => children::has_ended(*id),
        }
    }
}

/// What is to be closed of one user.
#[derive(Default)]
struct User {
    uid: u32,
    processes: Vec<Process>,
    /// One by one.
    waiting: Vec<OwnedFd>,
    /// For a process each.
    ready: Vec<OwnedFd>,
}

impl User {
    /// Starts processes as far as there may be `most`; whether anything is left to be done.
    fn step(&mut self, most: usize) -> bool {
        self.processes.retain_mut(|process| !process.has_ended());
        // Those that wait for long cost a descriptor for as many.
        while self.waiting.len() >= TOGETHER || (!self.waiting.is_empty() && self.processes.len() < most) {
            self.gather();
            self.start(most);
        }
        self.start(most);
        !self.ready.is_empty() || !self.processes.is_empty()
    }

    fn gather(&mut self) {
        let mut some = self.waiting.split_off(self.waiting.len().saturating_sub(TOGETHER));
        if some.len() > 1
            && let Ok(all) = pass(&some)
        {
            some = vec![all];
        }
        // Those that hold sockets in which there are more, and so on, cannot be passed: one by one.
        self.ready.append(&mut some);
    }

    fn start(&mut self, most: usize) {
        while self.processes.len() < most
            && let Some(next) = self.ready.pop()
        {
            match close_elsewhere(&next) {
                Ok(mut process) => {
                    let end = process.stdin.take();
                    drop(next);
                    drop(end);
                    children::begun(Some(process.id()), self.uid);
                    self.processes.push(Process::Own(process));
                }
                Err(error) => {
                    tracing::warn!("no process to close a socket with: {error}");
                    self.ready.push(next);
                    return;
                }
            }
        }
    }
}

/// A socket in whose queue they are: closed with it, unless others have them.
fn pass<S: AsFd>(sockets: &[S]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(theirs)
}

/// A process that has the socket as well: it ends when its standard input is closed.
fn close_elsewhere(socket: &OwnedFd) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(BURY_ARGUMENT).env_clear().stdin(Stdio::piped()).stdout(socket.try_clone()?).stderr(Stdio::null());
    command.process_group(0).spawn()
}

/// What is done for strangers needs no power over anything.
pub(super) fn renounce() {
    let none = CapabilitySet::empty();
    let _ = set_no_new_privs(true);
    let _ = set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none });
}

/// The process that is started for it: ends after the daemon has closed what both have.
pub fn end_last() {
    renounce();
    let _ = io::stdin().read(&mut [0]);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A stranger's socket in which a descriptor waits, and what ends when that is closed.
    fn full() -> (OwnedFd, File) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ends, passed) = rustix::pipe::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let passed = [passed.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        rustix::net::sendmsg(&theirs, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        (ours.into(), ends.into())
    }

    fn all_end(ends: Vec<File>) {
        ends.into_iter().for_each(|mut end| assert_eq!(end.read(&mut [0]).unwrap(), 0));
    }

    #[test]
    fn what_waits_in_a_socket_is_seen_and_closed_by_others() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::net::send(&theirs, b"bytes", SendFlags::empty()).unwrap();
        assert!(Grave::of(1, &ours).is_none(), "bytes are closed by anybody");
        let (sockets, ends): (Vec<_>, _) = (0..2 * TOGETHER + 1).map(|_| full()).unzip();
        for socket in sockets {
            let grave = Grave::of(1, &socket);
            assert!(grave.is_some());
            drop(socket);
            drop(grave);
        }
        bury_the_last();
        all_end(ends);
    }

    #[test]
    fn what_finds_no_process_waits_for_the_descriptor_of_one() {
        let mut user = User::default();
        let (sockets, ends): (Vec<_>, _) = (0..3 * TOGETHER + 1).map(|_| full()).unzip();
        user.waiting.extend(sockets);
        assert!(user.step(0) && user.processes.is_empty());
        assert_eq!((user.waiting.len(), user.ready.len()), (1, 3));
        user.step(2);
        assert!(user.processes.len() <= 2);
        while user.step(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        all_end(ends);
    }

    #[test]
    fn nobody_waits_for_the_processes_of_another_user() {
        let (mut one, mut other) = (User::default(), User::default());
        // One that does not end.
        let stuck = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&stuck);
        one.processes.push(Process::Own(stuck));
        let (socket, end) = full();
        one.waiting.push(socket);
        assert!(one.step(1) && one.ready.is_empty() && one.waiting.len() == 1, "it has as many as it may have");
        let (socket, other_end) = full();
        other.waiting.push(socket);
        other.step(1);
        all_end(vec![other_end]);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while one.step(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        all_end(vec![end]);
    }
}
