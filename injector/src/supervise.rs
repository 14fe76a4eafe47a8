//! The supervisor of a filter: answers each `socket()` with a socket of the phantom namespace.
//!
//! It lives in the keeper. Each worker holds one connection to the daemon, so that an answer that takes long holds up one
//! call and no other. When the daemon does not answer, the program has no network; when the supervisor dies, the kernel
//! answers ENOSYS. Never does a call pass.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use phantom_ipc::hook::policy::{CLOEXEC, NO_SUCH_FAMILY, Verdict, judge};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{Contact, Line};
use crate::seccomp::{self, Call};

/// Calls that wait for the daemon at one time; more wait in the kernel. Each costs a thread and a connection.
const MAX_WORKERS: usize = 32;

/// Workers that wait for calls, if there may be so many: until one has taken a call, a signal interrupts it.
const SPARE: usize = 2;

/// Bytes of a worker's stack: a frame of the dialect several times over.
const STACK: usize = 128 * 1024;

struct Shared {
    listener: OwnedFd,
    contact: Contact,
    workers: AtomicUsize,
    idle: AtomicUsize,
}

/// Begins to answer, in threads of its own. This process must not fork any more.
pub(crate) fn start(listener: OwnedFd, contact: Contact) -> io::Result<()> {
    let shared = Shared { listener, contact, workers: AtomicUsize::new(0), idle: AtomicUsize::new(0) };
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
    let mut line = None;
    loop {
        match seccomp::next(shared.listener.as_fd()) {
            Ok(call) => {
                if shared.idle.fetch_sub(1, Ordering::Relaxed) <= SPARE {
                    // Without another the calls wait for this one's answer, no more.
                    let _ = hire(shared);
                }
                answer(shared, &mut line, call);
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
    let mut polled = [PollFd::new(&shared.listener, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::HUP)
}

fn answer(shared: &Shared, line: &mut Option<Line>, call: Call) {
    let listener = shared.listener.as_fd();
    let answered = match socket(&shared.contact, line, call.arguments) {
        Ok(socket) => {
            let given = seccomp::give(listener, call, socket.as_fd(), call.arguments[1] & CLOEXEC != 0);
            given.or_else(|error| seccomp::refuse(listener, call, error.raw_os_error().unwrap_or(libc::EMFILE)))
        }
        Err(error) => seccomp::refuse(listener, call, error),
    };
    // Who asked may be dead by now: then nobody waits for the answer.
    drop(answered);
}

/// The socket, or the error number that the program sees.
fn socket(contact: &Contact, line: &mut Option<Line>, [domain, kind, protocol]: [i32; 3]) -> Result<OwnedFd, i32> {
    let protocol = match judge(domain, kind, protocol) {
        Verdict::Phantom { protocol } => protocol,
        Verdict::Refused(error) => return Err(error),
        // The filter lets these pass, so this does not happen.
        Verdict::Own => return Err(NO_SUCH_FAMILY),
    };
    let reused = line.is_some();
    let arguments = [domain, kind, protocol];
    let mut answer = request(contact, line, arguments);
    if answer.is_none() && reused {
        // A daemon that was started anew has closed the old connection.
        answer = request(contact, line, arguments);
    }
    answer.unwrap_or(Err(libc::ENETDOWN))
}

/// What the daemon says; none when it does not answer.
fn request(contact: &Contact, line: &mut Option<Line>, arguments: [i32; 3]) -> Option<Result<OwnedFd, i32>> {
    let mut open = match line.take() {
        Some(open) => open,
        None => Line::open(&contact.socket).ok()?,
    };
    let answer = open.socket(&contact.identity, arguments).ok()?;
    *line = Some(open);
    // Zero would tell the program that it worked.
    Some(answer.map_err(|error| if error > 0 { error } else { libc::EIO }))
}
