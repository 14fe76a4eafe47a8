//! What the kernel does not know of this process's sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use windows_sys::Win32::Networking::WinSock::SOCKET;

use super::daemon::Line;
use super::real::Issue;

/// A socket that was bound, connected, or told not to wait.
#[derive(Default)]
pub(super) struct Entry {
    /// As the program bound it, where that was not to loopback.
    pub(super) claim: Option<SocketAddr>,
    /// Whom it is connected to, or is about to be.
    pub(super) peer: Option<SocketAddr>,
    /// Calls do not wait.
    pub(super) is_non_blocking: bool,
    /// Others reach it, as long as this.
    pub(super) listening: Option<Line>,
    /// A connection that the daemon opens meanwhile.
    pub(super) attempt: Option<Attempt>,
}

impl Entry {
    /// As what it is to be offered again, where the daemon that it was offered to is gone.
    pub(super) fn lost(&self) -> Option<SocketAddr> {
        self.listening.as_ref().filter(|line| !line.lasts()).and(self.claim)
    }
}

/// One of them, by a number of its own: handles are used again.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) number: u64,
    /// What is to be done when there is an answer; nothing where the program's own call waits for it.
    pub(super) issue: Option<Issue>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<SOCKET, Entry>,
    last: u64,
}

impl Table {
    /// What is known of a socket; nothing so far.
    pub(super) fn of(&mut self, socket: SOCKET) -> &mut Entry {
        self.entries.entry(socket).or_default()
    }

    /// The same, if anything is.
    pub(super) fn known(&mut self, socket: SOCKET) -> Option<&mut Entry> {
        self.entries.get_mut(&socket)
    }

    /// Forgets a socket that is closed, or one whose handle is another's now.
    pub(super) fn forget(&mut self, socket: SOCKET) -> Option<Entry> {
        self.entries.remove(&socket)
    }

    /// Listeners that no daemon has any more, and as what they are to be seen.
    pub(super) fn lost(&self) -> Vec<(SOCKET, SocketAddr)> {
        let lost = |(socket, entry): (&SOCKET, &Entry)| Some((*socket, entry.lost()?));
        self.entries.iter().filter_map(lost).collect()
    }

    /// A number that no attempt had.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Ends the attempt of that number; whether it was the socket's.
    pub(super) fn ends(&mut self, socket: SOCKET, number: u64) -> Option<Attempt> {
        self.known(socket)?.attempt.take_if(|attempt| attempt.number == number)
    }
}

/// The table. Nobody asks the daemon, or waits for anybody, with it in hand.
pub(super) fn table() -> MutexGuard<'static, Table> {
    static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
