//! Sessions that may outlive their tunnels: where a server finds one again, and what all together may hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phantom_proto::session::{Found, Secret, SessionNo, Table, Tombstone};
use phantom_proto::wire::session::AttemptId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::lock;
use super::unproven::{Place, Unproven};
use crate::driver::OwnPath;
use crate::relay::cells::Tunnel;

/// Attempts that may wait for the task of a session; more than one at a time is somebody else's, or a hasty client's.
const WAITING: usize = 4;

/// Sessions of one identity that wait for their clients; each keeps up to 64 KiB each way and a connection of its program, and costs who
/// left it nothing.
// protocol: S43
pub(super) const WAITING_SESSIONS: usize = 1024;

/// What all sessions may keep for their other ends together: 32 that use all of their window, or thousands that are interactive.
// protocol: S41
const KEPT: u64 = 512 * 1024 * 1024;

/// What each may keep whatever the others do.
const FLOOR: u64 = 64 * 1024;

/// A tunnel over which a client may go on with its session.
pub(super) struct Resumption {
    pub(super) tunnel: Tunnel,
    pub(super) path: Option<OwnPath>,
    pub(super) attempt: u32,
    /// What came behind RESUME.
    pub(super) bytes: Vec<u8>,
}

/// The sessions of one identity that others have opened.
pub(super) struct Sessions {
    table: Mutex<Table<mpsc::Sender<Resumption>>>,
    pub(super) waiting: Arc<Unproven>,
    since: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        let waiting = Arc::new(Unproven::of(WAITING_SESSIONS));
        Self { table: Mutex::default(), waiting, since: Instant::now() }
    }
}

impl Sessions {
    /// A session stands: from now on it is found.
    pub(super) fn enter(self: &Arc<Self>, secret: &Secret) -> Listed {
        let (resumption_tx, resumption_rx) = mpsc::channel(WAITING);
        let no = lock(&self.table).enter(secret, resumption_tx);
        Listed { sessions: self.clone(), no, resumption_rx, ended: false }
    }

    /// Whose attempt it is.
    pub(super) fn find(&self, id: &AttemptId) -> Found<mpsc::Sender<Resumption>> {
        lock(&self.table).find(id, self.now())
    }

    /// The identity is gone: nobody is found any more.
    pub(super) fn close(&self) {
        lock(&self.table).clear();
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A session's place in the table, as long as it lives.
pub(super) struct Listed {
    sessions: Arc<Sessions>,
    no: SessionNo,
    /// Closed when the identity is gone.
    pub(super) resumption_rx: mpsc::Receiver<Resumption>,
    ended: bool,
}

impl Listed {
    pub(super) fn moved(&self, attempt: u32) {
        lock(&self.sessions.table).moved(self.no, attempt);
    }

    /// It has no tunnel, until the place is dropped; what resolves when too many have none.
    pub(super) fn waits(&self) -> (Place, oneshot::Receiver<()>) {
        self.sessions.waiting.enter()
    }

    /// It is over: from now on this is told to whoever asks.
    pub(super) fn end(mut self, tombstone: Option<Tombstone>) {
        self.ended = true;
        lock(&self.sessions.table).end(self.no, tombstone, self.sessions.now());
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if !self.ended {
            lock(&self.sessions.table).end(self.no, None, self.sessions.now());
        }
    }
}

/// What all sessions of the node keep.
#[derive(Default)]
pub(super) struct Budget(AtomicU64);

/// One session's part of it.
#[derive(Default)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: u64,
}

impl Share {
    pub(super) fn of(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0 }
    }

    /// It keeps so much now; whether it may keep more.
    // protocol: S41
    pub(super) fn hold(&mut self, held: u64) -> bool {
        let total = &self.budget.0;
        if held != self.held {
            total.fetch_add(held, Ordering::Relaxed);
            total.fetch_sub(self.held, Ordering::Relaxed);
            self.held = held;
        }
        held < FLOOR || total.load(Ordering::Relaxed) < KEPT
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I7: many sessions whose other ends take nothing.
    // protocol: S41
    #[test]
    fn all_together_keep_no_more_than_the_budget_and_each_has_its_floor() {
        let budget = Arc::<Budget>::default();
        let mut shares: Vec<_> = (0..40).map(|_| Share::of(budget.clone())).collect();
        let each = 16 * 1024 * 1024;
        let full = shares.iter_mut().position(|share| !share.hold(each)).expect("there is a bound");
        assert_eq!(full as u64 + 1, KEPT / each);
        assert!(shares[full + 1].hold(FLOOR - 1) && !shares[full + 1].hold(FLOOR));
        shares.truncate(1);
        assert!(shares[0].hold(each), "what is gone keeps nothing");
        shares.clear();
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
