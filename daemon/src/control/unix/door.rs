//! The door that all users of the computer come by: whoever comes is let in, or turned away, by a thread that does nothing else.
//!
//! The kernel keeps a queue of those who have not been let in, the same for all users, and who finds it full waits. So it is to be
//! empty: the thread asks whose a connection is, which the kernel knows, and nothing that takes longer.

use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::net::{Shutdown, shutdown};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Connection;
use super::beside::{MOST_BURIED, bury_all, holds_descriptors};
use super::places::Places;
use crate::control::{ACCEPT_PAUSE, MAX_CONNECTIONS_OF_ALL_OTHERS, MAX_CONNECTIONS_OF_OTHERS};
use crate::os::Owner;

/// Those turned away who left descriptors, and wait to be closed by processes.
const GRAVES: usize = 2 * MOST_BURIED;

/// Bytes of a thread's stack.
const STACK: usize = 128 * 1024;

/// Somebody who was let in, and the number of their process.
pub(super) type Visitor = (Connection, Option<i32>);

/// Open until it is dropped.
pub(super) struct Door {
    came: mpsc::Receiver<Visitor>,
    listening: UnixListener,
    over: Arc<AtomicBool>,
}

/// Who has a share of the places, and not all that they want.
pub(super) type IsOther = fn(u32) -> bool;

impl Door {
    /// At a listening socket; needs a runtime.
    pub(super) fn open(listening: UnixListener, is_other: IsOther) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (let_in, came) = mpsc::channel(MAX_CONNECTIONS_OF_ALL_OTHERS);
        let (graves, to_be_closed) = std::sync::mpsc::sync_channel(GRAVES);
        let runtime = Handle::current();
        let keeper = Keeper {
            listening: listening.try_clone()?,
            over: Arc::clone(&over),
            places: Places::default(),
            is_other,
            let_in,
            graves,
            runtime: runtime.clone(),
        };
        spawn("door", move || keeper.run())?;
        spawn("graves", move || {
            let _inside = runtime.enter();
            while let Ok(first) = to_be_closed.recv() {
                bury_all([first].into_iter().chain(to_be_closed.try_iter()).take(MOST_BURIED).collect());
            }
        })?;
        Ok(Self { came, listening, over })
    }

    /// The next who was let in; waits for ever once nobody comes any more.
    pub(super) async fn next(&mut self) -> Visitor {
        match self.came.recv().await {
            Some(visitor) => visitor,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread.
        let _ = shutdown(&self.listening, Shutdown::Both);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}

/// What the thread has.
struct Keeper {
    listening: UnixListener,
    over: Arc<AtomicBool>,
    places: Places,
    is_other: IsOther,
    let_in: mpsc::Sender<Visitor>,
    graves: std::sync::mpsc::SyncSender<tokio::net::UnixStream>,
    runtime: Handle,
}

impl Keeper {
    fn run(self) {
        let _inside = self.runtime.enter();
        while !self.over.load(Ordering::Acquire) {
            match self.listening.accept().and_then(|(stream, _)| self.receive(stream)) {
                Ok(crowded) => crowded.into_iter().for_each(|stream| self.turn_away(stream)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // No descriptors are left.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    /// Lets somebody in whose user has a place; else it is returned.
    fn receive(&self, stream: UnixStream) -> io::Result<Option<tokio::net::UnixStream>> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let who = stream.peer_cred()?;
        // Of those who are heard, and of those who wait for it.
        let place = self.places.take(who.uid(), MAX_CONNECTIONS_OF_OTHERS);
        let is_crowded = place.is_none() && (self.is_other)(who.uid());
        if is_crowded || self.let_in.capacity() == 0 {
            return Ok(Some(stream));
        }
        let connection = Connection::with_place(stream, Owner { uid: who.uid(), gid: who.gid() }, place);
        // This thread alone sends, so there is room.
        let _ = self.let_in.try_send((connection, who.pid()));
        Ok(None)
    }

    /// Closing it closes what was sent to it, which takes as long as whoever sent it wants.
    fn turn_away(&self, stream: tokio::net::UnixStream) {
        if holds_descriptors(&stream) {
            // Should they come faster than processes can be started, all wait for it.
            let _ = self.graves.send(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    /// Nobody is heard meanwhile: who waits for that keeps no other from being let in, or turned away.
    #[tokio::test]
    async fn who_has_all_places_of_a_user_is_turned_away_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("door");
        let mut door = Door::open(UnixListener::bind(&path).expect("a socket"), |_| true).expect("a door");
        let come = || {
            let stream = UnixStream::connect(&path).expect("nobody waits long");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
            stream
        };
        let let_in: Vec<_> = (0..MAX_CONNECTIONS_OF_OTHERS).map(|_| come()).collect();
        // More than the kernel's queue holds.
        for _ in 0..2 * libc::SOMAXCONN {
            assert_eq!(come().read(&mut [0]).expect("turned away"), 0);
        }
        let (first, process) = door.next().await;
        assert_eq!(process, i32::try_from(std::process::id()).ok());
        drop(first);
        // There is a place again.
        let stays = come();
        for _ in &let_in {
            drop(door.next().await.0);
        }
        drop((stays, let_in));
    }

    #[tokio::test]
    async fn who_is_not_to_share_is_let_in_without_bounds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("door");
        let mut door = Door::open(UnixListener::bind(&path).expect("a socket"), |_| false).expect("a door");
        let all: Vec<_> =
            (0..=MAX_CONNECTIONS_OF_OTHERS).map(|_| UnixStream::connect(&path).expect("let in")).collect();
        for _ in &all {
            door.next().await;
        }
    }
}
