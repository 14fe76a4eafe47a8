//! The data plane: what carries bytes once a tunnel stands. Its tasks share nothing with the control task.

pub mod cells;
pub mod entry;
pub mod exit;
pub mod hop;
pub mod join;
mod taken;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

pub use taken::{Back, Fresh, Taken};
pub(crate) use watch::Watch;

/// Counts of the data plane, for `phantom status`.
#[derive(Debug, Default)]
pub struct Counters {
    relayed_bytes: AtomicU64,
    open_relays: AtomicU64,
}

impl Counters {
    /// Bytes of cells that this node has passed on for others.
    pub fn relayed_bytes(&self) -> u64 {
        self.relayed_bytes.load(Ordering::Relaxed)
    }

    /// Tunnels that this node carries for others just now.
    pub fn open_relays(&self) -> u64 {
        self.open_relays.load(Ordering::Relaxed)
    }

    /// Room for one more relay, taken as long as the value lives. `None`: there are `most`.
    pub fn relay(self: &std::sync::Arc<Self>, most: u64) -> Option<Relayed> {
        let taken = |open: u64| (open < most).then_some(open + 1);
        self.open_relays.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Relayed(self.clone()))
    }
}

/// See [`Counters::relay`].
pub struct Relayed(std::sync::Arc<Counters>);

impl Relayed {
    pub(crate) fn bytes(&self, bytes: usize) {
        self.0.relayed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.0.open_relays.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The clock of one use of a tunnel: milliseconds since it began, which no leap of the wall clock changes.
pub(crate) struct Steps(Instant);

impl Default for Steps {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Steps {
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for a time of this clock.
    pub(crate) async fn until(&self, due: u64) {
        sleep_until(self.0 + Duration::from_millis(due)).await;
    }

    /// Does `work` until a time of this clock. `None`: it was over.
    pub(crate) async fn by<T>(&self, due: Option<u64>, work: impl Future<Output = T>) -> Option<T> {
        match due {
            Some(due) => timeout_at(self.0 + Duration::from_millis(due), work).await.ok(),
            None => Some(work.await),
        }
    }
}

/// Why a stretch of the data plane ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The link broke.
    #[error("link broke: {0}")]
    Link(#[from] std::io::Error),
    /// The link ended where it must not.
    #[error("link ended early")]
    Ended,
    /// A cell was changed on its way: by a node of the path, since its ends make none like it.
    #[error("noise instead of a cell")]
    Noise,
    /// The peer sent something that does not belong here.
    #[error("peer misbehaved: {0}")]
    Misbehaved(&'static str),
    /// The far side gave up for this reason.
    #[error("given up: {0}")]
    Aborted(phantom_proto::wire::frame::Reason),
    /// A wait was over.
    #[error("timed out")]
    TimedOut,
}

impl RelayError {
    /// What the other end of the tunnel is told.
    pub fn reason(&self) -> phantom_proto::wire::frame::Reason {
        use phantom_proto::wire::frame::Reason;
        match self {
            Self::Link(_) | Self::Ended => Reason::Unreachable,
            Self::Misbehaved(_) | Self::Noise => Reason::Protocol,
            Self::Aborted(reason) => *reason,
            Self::TimedOut => Reason::Busy,
        }
    }
}
