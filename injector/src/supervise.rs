//! The supervisor of a filter: answers each `socket()` with a socket of the phantom namespace.
//!
//! It lives in the keeper. Where it may enter the phantom namespace it makes the sockets itself, which is fast; elsewhere it
//! asks the daemon. Each worker holds one connection, so that an answer that takes long holds up one call and no other. When the daemon does not answer, the program has no network; when the supervisor dies, the kernel
//! answers ENOSYS. Never does a call pass.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use phantom_ipc::hook::policy::{CLOEXEC, NO_SUCH_FAMILY, NONBLOCK, Verdict, judge};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::control::{Contact, Line};
use crate::seccomp::{self, Call};

/// Calls that wait for the daemon at one time; more wait in the kernel. Each costs a thread and a connection.
const MAX_WORKERS: usize = 32;

/// Workers that wait for calls, if there may be so many: until one has taken a call, a signal interrupts it.
const SPARE: usize = 2;

/// Bytes of a worker's stack: a frame of the dialect several times over.
const STACK: usize = 128 * 1024;

/// What sockets are made with, without the daemon.
pub(crate) struct Workshop {
    /// The phantom namespace.
    pub(crate) network: OwnedFd,
    /// The session's connection: the daemon lives as long as it is open.
    pub(crate) session: OwnedFd,
}

struct Shared {
    listener: OwnedFd,
    contact: Contact,
    workshop: Workshop,
    only_death_interrupts: bool,
    workers: AtomicUsize,
    idle: AtomicUsize,
}

/// Begins to answer, in threads of its own. This process must not fork any more.
pub(crate) fn start(listener: OwnedFd, contact: Contact, workshop: Workshop) -> io::Result<()> {
    let shared = Shared {
        listener,
        contact,
        workshop,
        only_death_interrupts: seccomp::only_death_interrupts(),
        workers: AtomicUsize::new(0),
        idle: AtomicUsize::new(0),
    };
    hire(&Arc::new(shared))
}

/// One worker more, if there may be one.
fn hire(shared: &Arc<Shared>) -> io::Result<()> {
    if shared.workers.fetch_add(1, Ordering::Relaxed) >= MAX_WORKERS {
        shared.workers.fetch_sub(1, Ordering::Relaxed);
        return Ok(());
    }
    shared.idle.fetch_add(1, Ordering::Relaxed);
    let own = Arc::clone(shared);
    let hired = thread::Builder::new().stack_size(STACK).spawn(move || work(&own));
    if hired.is_err() {
        shared.workers.fetch_sub(1, Ordering::Relaxed);
        shared.idle.fetch_sub(1, Ordering::Relaxed);
    }
    hired.map(drop)
}

fn work(shared: &Arc<Shared>) {
    let network = shared.workshop.network.as_fd();
    let is_inside = move_into_link_name_space(network, Some(LinkNameSpaceType::Network)).is_ok();
    let mut worker = Worker { shared, is_inside, line: None };
    loop {
        match seccomp::next(shared.listener.as_fd()) {
            Ok(call) => {
                if shared.idle.fetch_sub(1, Ordering::Relaxed) <= SPARE {
                    // Without another the calls wait for this one's answer, no more.
                    let _ = hire(shared);
                }
                worker.answer(call);
                shared.idle.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The call was over before we came, or there is no process any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && !is_over(shared) => {}
            Err(_) => return,
        }
    }
}

/// Whether no process is left under the filter.
fn is_over(shared: &Shared) -> bool {
    events(shared.listener.as_fd()).is_some_and(|events| events.contains(PollFlags::HUP))
}

/// What a descriptor reports right now.
fn events(descriptor: BorrowedFd<'_>) -> Option<PollFlags> {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).ok()?;
    Some(polled[0].revents())
}

struct Worker<'a> {
    shared: &'a Shared,
    /// Whether this thread is in the phantom namespace.
    is_inside: bool,
    /// A connection to the daemon, if it was needed.
    line: Option<Line>,
}

impl Worker<'_> {
    fn answer(&mut self, call: Call) {
        let listener = self.shared.listener.as_fd();
        let answered = match self.socket(call.arguments) {
            Ok(socket) => {
                let closes = call.arguments[1] & CLOEXEC != 0;
                let given = if self.shared.only_death_interrupts {
                    seccomp::give(listener, call, socket, closes)
                } else {
                    seccomp::give_at_once(listener, call, socket.as_fd(), closes)
                };
                given.or_else(|error| seccomp::refuse(listener, call, error.raw_os_error().unwrap_or(libc::EMFILE)))
            }
            Err(error) => seccomp::refuse(listener, call, error),
        };
        // Who asked may be dead by now: then nobody waits for the answer.
        drop(answered);
    }

    /// The socket, or the error number that the program sees.
    fn socket(&mut self, [domain, kind, protocol]: [i32; 3]) -> Result<OwnedFd, i32> {
        let protocol = match judge(domain, kind, protocol) {
            Verdict::Phantom { protocol } => protocol,
            Verdict::Refused(error) => return Err(error),
            // The filter lets these pass, so this does not happen.
            Verdict::Own => return Err(NO_SUCH_FAMILY),
        };
        let arguments = [domain, kind, protocol];
        // Silence is life: the daemon says nothing unasked.
        if self.is_inside && events(self.shared.workshop.session.as_fd()).is_some_and(|events| events.is_empty()) {
            return make(arguments);
        }
        let reused = self.line.is_some();
        let mut answer = self.request(arguments);
        if answer.is_none() && reused {
            // A daemon that was started anew has closed the old connection.
            answer = self.request(arguments);
        }
        answer.unwrap_or(Err(libc::ENETDOWN))
    }

    /// What the daemon says; none when it does not answer.
    fn request(&mut self, arguments: [i32; 3]) -> Option<Result<OwnedFd, i32>> {
        let mut open = match self.line.take() {
            Some(open) => open,
            None => Line::open(&self.shared.contact.socket).ok()?,
        };
        let answer = open.socket(&self.shared.contact.identity, arguments).ok()?;
        self.line = Some(open);
        // Zero would tell the program that it worked.
        Some(answer.map_err(|error| if error > 0 { error } else { libc::EIO }))
    }
}

/// A socket of the namespace in which this thread is.
fn make([domain, kind, protocol]: [i32; 3]) -> Result<OwnedFd, i32> {
    // Families are small, and flags of types are bits: the policy has seen to it. Negative protocols are none.
    let domain = AddressFamily::from_raw(domain as u16);
    let protocol = u32::try_from(protocol).map_err(|_| libc::EPROTONOSUPPORT)?;
    let flags = SocketFlags::from_bits_retain((kind & NONBLOCK).cast_unsigned()) | SocketFlags::CLOEXEC;
    let kind = SocketType::from_raw((kind & !(NONBLOCK | CLOEXEC)).cast_unsigned());
    socket_with(domain, kind, flags, NonZeroU32::new(protocol).map(Protocol::from_raw)).map_err(Errno::raw_os_error)
}
