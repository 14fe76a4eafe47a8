//! A listening socket to which other users come, and a thread that waits for them: what waits in its queue is closed with it.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, pipe_with};

use super::graves::bury;

/// The socket. Closed by nobody here: see [`super::graves`].
pub(super) struct Entrance {
    /// Until it is dropped.
    socket: Option<UnixListener>,
    uid: u32,
}

/// An entrance as its thread has it.
pub(super) struct Keeping {
    entrance: Arc<Entrance>,
    over: OwnedFd,
}

/// Closed, it ends the thread.
pub(super) struct Life(#[expect(dead_code, reason = "it is closed with this")] OwnedFd);

impl Entrance {
    /// One of that user's, and what is for the thread that waits.
    pub(super) fn new(socket: UnixListener, uid: u32) -> io::Result<(Arc<Self>, Keeping, Life)> {
        let entrance = Arc::new(Self { socket: Some(socket), uid });
        let (over, life) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Arc::clone(&entrance), Keeping { entrance, over }, Life(life)))
    }

    fn socket(&self) -> io::Result<&UnixListener> {
        self.socket.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Refuses whoever comes, at every copy of it.
    pub(super) fn shut(&self) {
        if let Ok(socket) = self.socket() {
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }

    /// Another descriptor of it.
    pub(super) fn another(&self) -> io::Result<UnixListener> {
        self.socket()?.try_clone()
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.socket.take().into_iter().for_each(|socket| bury(self.uid, socket.into()));
    }
}

impl Keeping {
    /// Waits for the next who comes; `None`: the life is over.
    pub(super) fn next(&self) -> Option<io::Result<UnixStream>> {
        let socket = self.entrance.socket().ok()?;
        let mut both = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.over, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) if both[1].revents().is_empty() => Some(socket.accept().map(|(stream, _)| stream)),
            Ok(_) => None,
            Err(Errno::INTR) => Some(Err(ErrorKind::Interrupted.into())),
            Err(error) => Some(Err(error.into())),
        }
    }
}
