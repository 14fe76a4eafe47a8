//! Lines of programs: on each, sockets are asked for one by one, and nothing else. Short of a namespace, no way is shorter.
//!
//! ```text
//!  program ── Socket ──> helper, or a thread    a message each way: frames of the hook's dialect, without a preamble;
//!     ^                    │                    the descriptor comes first, the rest when it is closed here
//!     └── Descriptor, fd ──┘
//! ```
//! Whoever serves must never wait for a program: who does not take its answers, or says anything else, loses the line. It
//! then asks the daemon for each socket, as who never had one.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phantom_ipc::hook::{self, Reply, Request};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::runtime::Handle;

use crate::passed::take_no_descriptors;

/// Processes of one identity that have a line at one time; each is a descriptor here.
const MAX_LINES: usize = 256;

/// Bytes that a request may have: the longest for a socket is below that.
const MAX_REQUEST: usize = 256;

/// Events that are looked at together: each line has its turn.
const TOGETHER: usize = 64;

/// Bytes of a thread's stack: it makes sockets, and starts tasks.
const STACK: usize = 256 * 1024;

/// Number among the lines of the descriptor that ends serving.
const OTHER: u64 = 0;

/// The open ones.
pub(crate) struct Lines {
    epoll: OwnedFd,
    open: Mutex<Open>,
    used: AtomicBool,
}

/// By number.
struct Open {
    lines: HashMap<u64, Arc<OwnedFd>>,
    last: u64,
}

impl Lines {
    /// None yet; they are served until `other` can be read.
    pub(crate) fn beside(other: impl AsFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, other, epoll::EventData::new_u64(OTHER), epoll::EventFlags::IN)?;
        let open = Open { lines: HashMap::new(), last: OTHER };
        Ok(Self { epoll, open: Mutex::new(open), used: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new line: the program's end.
    ///
    /// # Errors
    /// EAGAIN when there are enough.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let mut open = self.lock();
        if open.lines.len() >= MAX_LINES {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let (theirs, ours) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Closing what a program passes may take as long as it likes. Kernels before Linux 6.16 cannot refuse it: there a
        // program can hold up its own identity.
        let _ = take_no_descriptors(&ours);
        open.last += 1;
        epoll::add(&self.epoll, &ours, epoll::EventData::new_u64(open.last), epoll::EventFlags::IN)?;
        let number = open.last;
        open.lines.insert(number, Arc::new(ours));
        Ok(theirs)
    }

    /// Whether a process that still has its line asked for a socket since this was asked last.
    pub(crate) fn used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed) && !self.lock().lines.is_empty()
    }

    /// Answers programs with what `make` makes, until the other descriptor can be read.
    pub(crate) fn serve(&self, make: impl Fn(i32, i32, i32) -> io::Result<OwnedFd>) -> io::Result<()> {
        let mut events = Vec::with_capacity(TOGETHER);
        loop {
            events.clear();
            rustix::io::retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), None))?;
            let mut called = false;
            for event in &events {
                let which = event.data.u64();
                called |= which == OTHER;
                let line = self.lock().lines.get(&which).cloned();
                let Some(line) = line else { continue };
                match answer(&line, &make) {
                    Ok(()) => self.used.store(true, Ordering::Relaxed),
                    // Closing it ends its place among the events, too.
                    Err(_) => drop(self.lock().lines.remove(&which)),
                }
            }
            if called {
                return Ok(());
            }
        }
    }
}

/// Lines that a thread serves, for the daemon's own sockets.
pub(crate) struct Served {
    lines: Arc<Lines>,
    /// Closed, it ends the thread.
    _life: OwnedFd,
}

impl Served {
    /// Serves with what `make` makes, inside of this runtime, as long as the value lives.
    ///
    /// # Errors
    /// When the system has no threads or descriptors left.
    pub(crate) fn by_thread(make: impl Fn(i32, i32, i32) -> io::Result<OwnedFd> + Send + 'static) -> io::Result<Self> {
        let (ends, life) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let lines = Arc::new(Lines::beside(&ends)?);
        let (served, runtime) = (lines.clone(), Handle::current());
        let serve = move || {
            let (_inside, _ends) = (runtime.enter(), ends);
            // Whatever it ends by: the programs ask the daemon then.
            let _ = served.serve(make);
            served.lock().lines.clear();
        };
        std::thread::Builder::new().name("lines".into()).stack_size(STACK).spawn(serve)?;
        Ok(Self { lines, _life: life })
    }

    /// A new line: the program's end.
    ///
    /// # Errors
    /// EAGAIN when there are enough.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        self.lines.open()
    }

    /// Whether a process that still has its line asked for a socket since this was asked last.
    pub(crate) fn used(&self) -> bool {
        self.lines.used()
    }
}

/// Answers one request.
fn answer(line: &OwnedFd, make: impl Fn(i32, i32, i32) -> io::Result<OwnedFd>) -> io::Result<()> {
    let mut message = [0; MAX_REQUEST];
    let (_, length) = rustix::net::recv(line, &mut message, RecvFlags::DONTWAIT)?;
    let nonsense = || io::Error::from(ErrorKind::InvalidData);
    let whole = hook::split_frame(message.get(..length).ok_or_else(nonsense)?);
    let (body, used) = whole.ok().flatten().ok_or_else(nonsense)?;
    match Request::decode(body) {
        Ok(Request::Socket { domain, kind, protocol, .. }) if used == length => {
            reply(line, make(domain, kind, protocol))
        }
        _ => Err(nonsense()),
    }
}

fn reply(line: &OwnedFd, made: io::Result<OwnedFd>) -> io::Result<()> {
    let encoded = |reply: &Reply| reply.encode().map_err(io::Error::other);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let socket = match made {
        Ok(socket) => socket,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let frame = encoded(&Reply::failed(errno, "there is no such socket here"))?;
            rustix::net::send(line, &frame, flags)?;
            return Ok(());
        }
    };
    let frame = encoded(&Reply::Descriptor)?;
    let (first, rest) = frame.split_at(1);
    let descriptors = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(line, &[IoSlice::new(first)], &mut beside, flags)?;
    // Whoever has all of the answer is the only owner: what it closes is closed, and a port that it gives up is free.
    drop(socket);
    rustix::net::send(line, rest, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use phantom_ipc::hook::{IdentityRef, SocketReply};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage};
    use std::io::IoSliceMut;
    use std::os::unix::net::UnixDatagram;

    fn request(kind: i32) -> Vec<u8> {
        let identity = IdentityRef::Session([7; 16]);
        Request::Socket { identity, domain: libc::AF_UNIX, kind, protocol: 0 }.encode().unwrap()
    }

    fn make(_: i32, kind: i32, _: i32) -> io::Result<OwnedFd> {
        let kind = SocketType::from_raw(kind.cast_unsigned());
        Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
    }

    /// The daemon's two ends, and lines beside one of them.
    fn lines() -> (UnixDatagram, UnixDatagram, Lines) {
        let (daemon, helper) = UnixDatagram::pair().unwrap();
        let lines = Lines::beside(&helper).unwrap();
        (daemon, helper, lines)
    }

    /// Serves what is there.
    fn turn((daemon, helper, lines): &mut (UnixDatagram, UnixDatagram, Lines)) {
        daemon.send(b"now").unwrap();
        lines.serve(make).unwrap();
        helper.recv(&mut [0; 3]).unwrap();
    }

    fn answered(line: &OwnedFd) -> (Vec<u8>, Option<OwnedFd>) {
        let (mut whole, mut socket) = (Vec::new(), None);
        while hook::split_frame(&whole).unwrap().is_none() {
            let mut bytes = [0; 1024];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let pieces = &mut [IoSliceMut::new(&mut bytes)];
            let got = rustix::net::recvmsg(line, pieces, &mut beside, RecvFlags::DONTWAIT).unwrap();
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                    socket = descriptors.next();
                }
            }
            whole.extend_from_slice(&bytes[..got.bytes]);
        }
        (whole, socket)
    }

    fn is_over(line: &OwnedFd) -> bool {
        rustix::net::send(line, &request(libc::SOCK_STREAM), SendFlags::NOSIGNAL) == Err(rustix::io::Errno::PIPE)
    }

    #[test]
    fn each_line_gets_one_socket_after_the_other() {
        let mut helper = lines();
        let lines = [helper.2.open().unwrap(), helper.2.open().unwrap()];
        for round in 0..3 {
            for line in &lines {
                rustix::net::send(line, &request(libc::SOCK_DGRAM), SendFlags::NOSIGNAL).unwrap();
            }
            turn(&mut helper);
            for line in &lines {
                let (frame, socket) = answered(line);
                assert_eq!(SocketReply::decode(&frame[hook::HEADER..]), Ok(SocketReply::Descriptor), "{round}");
                assert_eq!(rustix::net::sockopt::socket_type(socket.unwrap()), Ok(SocketType::DGRAM));
            }
        }
        rustix::net::send(&lines[0], &request(9), SendFlags::NOSIGNAL).unwrap();
        turn(&mut helper);
        let (frame, socket) = answered(&lines[0]);
        assert!(matches!(SocketReply::decode(&frame[hook::HEADER..]), Ok(SocketReply::Failed(..))) && socket.is_none());
        assert!(!is_over(&lines[0]));
    }

    #[test]
    fn whoever_says_anything_else_loses_the_line() {
        let mut helper = lines();
        let identity = IdentityRef::Session([7; 16]);
        let other = Request::Info { identity }.encode().unwrap();
        let longer = [request(libc::SOCK_STREAM), vec![0]].concat();
        for said in [&other[..], &longer, b"GET / HTTP/1.0\r\n\r\n", &[0; MAX_REQUEST + 1]] {
            let line = helper.2.open().unwrap();
            rustix::net::send(&line, said, SendFlags::NOSIGNAL).unwrap();
            turn(&mut helper);
            assert!(is_over(&line), "{said:?}");
        }
        // And who has gone leaves nothing behind.
        drop(helper.2.open().unwrap());
        turn(&mut helper);
        assert!(helper.2.lock().lines.is_empty());
    }

    #[test]
    fn nobody_holds_the_helper_up() {
        let mut helper = lines();
        let line = helper.2.open().unwrap();
        let ask = || rustix::net::send(&line, &request(libc::SOCK_STREAM), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        // It never reads an answer: no buffer of the system's holds that many.
        assert!((0..1_000_000).any(|_| {
            let over = ask() == Err(rustix::io::Errno::PIPE);
            turn(&mut helper);
            over
        }));
    }

    #[test]
    fn lines_are_bounded_and_their_use_is_told_once() {
        let mut helper = lines();
        let mut open: Vec<_> = (0..MAX_LINES).map(|_| helper.2.open().unwrap()).collect();
        assert_eq!(helper.2.open().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!helper.2.used());
        rustix::net::send(&open[5], &request(libc::SOCK_STREAM), SendFlags::NOSIGNAL).unwrap();
        turn(&mut helper);
        assert!(helper.2.used() && !helper.2.used());
        rustix::net::send(&open[5], &request(libc::SOCK_STREAM), SendFlags::NOSIGNAL).unwrap();
        turn(&mut helper);
        open.clear();
        for _ in 0..MAX_LINES.div_ceil(TOGETHER) {
            turn(&mut helper);
        }
        assert!(!helper.2.used(), "of processes that are gone");
        helper.2.open().unwrap();
    }
}
