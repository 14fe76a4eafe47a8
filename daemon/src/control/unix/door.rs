//! The door that all users of the computer come by: whoever comes is let in, or turned away, by a thread that does nothing else.
//!
//! The kernel keeps a queue of those who have not been let in, the same for all users, and who finds it full waits. So it is to be
//! empty: the thread asks whose a connection is, which the kernel knows, and nothing that takes longer.

use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Connection;
use super::entrance::{Entrance, Keeping, Life};
use super::graves::Grave;
use super::places::Places;
use crate::control::{ACCEPT_PAUSE, MAX_CONNECTIONS_OF_ALL_OTHERS, MAX_CONNECTIONS_OF_OTHERS};
use crate::os::Owner;

/// Bytes of a thread's stack.
const STACK: usize = 128 * 1024;

/// Somebody who was let in, and the number of their process.
pub(super) type Visitor = (Connection, Option<i32>);

/// Open until it is dropped.
pub(super) struct Door {
    came: mpsc::Receiver<Visitor>,
    listening: Arc<Entrance>,
    /// Ends the thread.
    life: Life,
    thread: JoinHandle<()>,
}

/// Who has a share of the places, and not all that they want.
pub(super) type IsOther = fn(u32) -> bool;

impl Door {
    /// At a listening socket; needs a runtime.
    pub(super) fn open(listening: UnixListener, is_other: IsOther) -> io::Result<Self> {
        let (let_in, came) = mpsc::channel(MAX_CONNECTIONS_OF_ALL_OTHERS);
        let (listening, keeping, life) = Entrance::new(listening, Owner::own().uid)?;
        let (places, runtime) = (Places::default(), Handle::current());
        let keeper = Keeper { keeping, places, is_other, let_in, runtime };
        let thread = thread::Builder::new().name("door".into()).stack_size(STACK).spawn(move || keeper.run())?;
        Ok(Self { came, listening, life, thread })
    }

    /// The next who was let in; waits for ever once nobody comes any more.
    pub(super) async fn next(&mut self) -> Visitor {
        match self.came.recv().await {
            Some(visitor) => visitor,
            None => std::future::pending().await,
        }
    }

    /// For the next process: the socket, where others wait meanwhile, and those who were let in.
    pub(super) fn leave(self) -> io::Result<(UnixListener, Vec<Visitor>)> {
        let Self { mut came, listening, life, thread } = self;
        drop(life);
        // It waits for nobody.
        let _ = thread.join();
        let let_in = std::iter::from_fn(|| came.try_recv().ok()).collect();
        Ok((listening.another()?, let_in))
    }
}

/// What the thread has.
struct Keeper {
    keeping: Keeping,
    places: Places,
    is_other: IsOther,
    let_in: mpsc::Sender<Visitor>,
    runtime: Handle,
}

impl Keeper {
    fn run(self) {
        let _inside = self.runtime.enter();
        while let Some(came) = self.keeping.next() {
            match came.and_then(|stream| self.receive(stream)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // No descriptors are left.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    /// Lets somebody in whose user has a place; else turns them away.
    fn receive(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let who = stream.peer_cred()?;
        // Of those who are heard, and of those who wait for it.
        let place = self.places.take(who.uid(), MAX_CONNECTIONS_OF_OTHERS);
        let is_crowded = place.is_none() && (self.is_other)(who.uid());
        if is_crowded || self.let_in.capacity() == 0 {
            // Closing it closes what was sent to it, which takes as long as whoever sent it wants.
            let grave = Grave::of(who.uid(), &stream);
            drop(stream);
            drop(grave);
            return Ok(());
        }
        let connection = Connection::with_place(stream, Owner { uid: who.uid(), gid: who.gid() }, place);
        // This thread alone sends, so there is room.
        let _ = self.let_in.try_send((connection, who.pid()));
        Ok(())
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
