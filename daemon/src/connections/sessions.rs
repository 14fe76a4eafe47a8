//! Sessions that may outlive their tunnels: where a server finds one again, and what all together may hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_proto::session::{Found, Secret, SessionNo, Table, Tombstone};
use phantom_proto::wire::session::AttemptId;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::lock;
use super::unproven::{Place, Unproven};
use crate::driver::OwnPath;
use crate::relay::cells::Tunnel;

/// Sessions of one identity that wait for their clients; each keeps up to 64 KiB each way and a connection of its program, and costs who
/// left it nothing.
// protocol: S43
pub(super) const WAITING_SESSIONS: usize = 1024;

/// What all sessions may keep for their other ends and for their programs together: 32 that use all of their window, or thousands that
/// are interactive.
// protocol: S41
const KEPT: u64 = 512 * 1024 * 1024;

/// What each may keep in each direction whatever the others do.
const FLOOR: u64 = 64 * 1024;

/// A tunnel over which a client may go on with its session.
pub(super) struct Resumption {
    pub(super) tunnel: Tunnel,
    pub(super) path: Option<OwnPath>,
    pub(super) attempt: u32,
    /// What came behind RESUME.
    pub(super) bytes: Vec<u8>,
}

/// Where an attempt waits for the task of its session: the latest of those that were proven. So nobody keeps a later one out, however
/// often he repeats one that he has seen.
pub(super) type Latest = watch::Sender<Mutex<Option<Resumption>>>;

/// Brings an attempt to its session.
// protocol: S34
pub(super) fn offer(to: &Latest, resumption: Resumption) {
    to.send_if_modified(|waits| {
        let waits = waits.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_later = waits.as_ref().is_none_or(|before| before.attempt < resumption.attempt);
        if is_later {
            *waits = Some(resumption);
        }
        is_later
    });
}

/// The sessions of one identity that others have opened.
pub(super) struct Sessions {
    table: Mutex<Table<Latest>>,
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
    /// A session stands: from now on it is found. `None`: it must not.
    pub(super) fn enter(self: &Arc<Self>, secret: &Secret) -> Option<Listed> {
        let (latest_tx, latest_rx) = watch::channel(Mutex::default());
        let no = lock(&self.table).enter(secret, latest_tx, self.now())?;
        Some(Listed { sessions: self.clone(), no, latest_rx, ended: false })
    }

    /// Whose attempt it is, of whom this was said.
    pub(super) fn find(&self, id: &AttemptId, said: &[u8]) -> Found<Latest> {
        lock(&self.table).find(id, said, self.now())
    }

    /// The identity is gone: nobody is found any more.
    pub(super) fn close(&self) {
        lock(&self.table).close();
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
    latest_rx: watch::Receiver<Mutex<Option<Resumption>>>,
    ended: bool,
}

impl Listed {
    /// The next attempt. `None`: the identity is gone.
    pub(super) async fn resumption(&mut self) -> Option<Resumption> {
        loop {
            self.latest_rx.changed().await.ok()?;
            if let Some(resumption) = lock(&self.latest_rx.borrow_and_update()).take() {
                return Some(resumption);
            }
        }
    }

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

    /// It keeps so much now, of both directions.
    pub(super) fn hold(&mut self, held: u64) {
        let total = &self.budget.0;
        if held != self.held {
            total.fetch_add(held, Ordering::Relaxed);
            total.fetch_sub(self.held, Ordering::Relaxed);
            self.held = held;
        }
    }

    /// Whether it may keep more of a direction of which it keeps so much.
    // protocol: S41, S45
    pub(super) fn has_room(&self, held: u64) -> bool {
        held < FLOOR || self.budget.0.load(Ordering::Relaxed) < KEPT
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

    /// I7: many sessions whose other ends, or programs, take nothing.
    // protocol: S41, S45
    #[test]
    fn all_together_keep_no_more_than_the_budget_and_each_has_its_floor() {
        let budget = Arc::<Budget>::default();
        let mut shares: Vec<_> = (0..40).map(|_| Share::of(budget.clone())).collect();
        let each = 16 * 1024 * 1024;
        let mut fills = |share: &mut Share| {
            share.hold(each);
            !share.has_room(each)
        };
        let full = shares.iter_mut().position(&mut fills).expect("there is a bound");
        assert_eq!(full as u64 + 1, KEPT / each);
        assert!(shares[full + 1].has_room(FLOOR - 1) && !shares[full + 1].has_room(FLOOR));
        shares.truncate(1);
        assert!(shares[0].has_room(each), "what is gone keeps nothing");
        shares.clear();
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
