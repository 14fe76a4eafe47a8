//! Warm links: opening a tunnel must not wait for a TLS handshake, nor show one.
//!
//! Which links may be used again is decided above; the pool only keeps them, and notices when they end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use phantom_proto::ident::NodeId;
use phantom_proto::wire::NodeContact;
use rand::RngExt;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::frame::{LinkReader, LinkWriter};
use super::{Link, LinkError, Purpose, Transport};

/// How often idle links are looked at, and missing ones dialed.
const SWEEP: Duration = Duration::from_secs(5);

/// Dials at once for the sake of warmth: a burst of handshakes is what the pool is to avoid.
const DIALS: usize = 8;

/// Nodes to which links may be kept warm: more than all neighbours of a busy owner's paths.
const WANTS: usize = 256;

/// Longest pause after dials that failed. It begins with [`SWEEP`] and doubles.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Bounds of a [`LinkPool`].
// protocol: L30
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Idle links kept per node: what a burst of tunnels leaves behind, and the next one takes before new ones are dialed.
    pub per_peer: usize,
    /// Idle links kept in total; each costs about 20 KiB and a descriptor.
    pub total: usize,
    /// Longest idle time. Each link draws its own between half of it and the whole, so that links do not end together.
    pub idle: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        // As long as browsers keep idle connections; as many as a page of a hundred connections leaves on one segment.
        Self { per_peer: 128, total: 2048, idle: Duration::from_secs(100) }
    }
}

/// Opens links for frames, and keeps some open for the next use. Needs to be made inside a tokio runtime.
pub struct LinkPool {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    transport: Arc<dyn Transport>,
    limits: PoolLimits,
    table: Mutex<Table>,
    /// Rung when a warm link was taken or is wanted.
    bell: Notify,
}

#[derive(Default)]
struct Table {
    idle: BTreeMap<NodeId, VecDeque<Idle>>,
    wants: BTreeMap<NodeId, Want>,
}

struct Idle {
    link: Link,
    until: Instant,
}

struct Want {
    peer: NodeContact,
    count: usize,
    dialing: usize,
    /// No dial before this time, and the pause that the next failure brings.
    not_before: Instant,
    pause: Duration,
}

impl LinkPool {
    /// A pool over a transport, with the usual limits.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self::with_limits(transport, PoolLimits::default())
    }

    /// A pool over a transport.
    pub fn with_limits(transport: Arc<dyn Transport>, limits: PoolLimits) -> Self {
        let shared = Arc::new(Shared { transport, limits, table: Mutex::default(), bell: Notify::new() });
        let keeper = tokio::spawn(keep(shared.clone())).abort_handle();
        Self { shared, keeper }
    }

    /// A link for frames to `peer`: a warm one if there is one that still stands, else a new one.
    // protocol: L32
    pub async fn take(&self, peer: &NodeContact) -> Result<Link, LinkError> {
        match self.take_warm(peer) {
            Some(link) => Ok(link),
            None => self.dial(peer).await,
        }
    }

    /// A new link for frames to `peer`.
    pub async fn dial(&self, peer: &NodeContact) -> Result<Link, LinkError> {
        self.shared.transport.dial(peer, Purpose::Frames).await
    }

    /// A warm link to `peer`, if there is one that still stands.
    // protocol: L31
    pub fn take_warm(&self, peer: &NodeContact) -> Option<Link> {
        let link = self.shared.lock().take(peer);
        self.shared.bell.notify_one();
        link
    }

    /// Keeps a link that did its work and has nothing in flight; drops it when there are enough, or something is.
    pub fn give_back(&self, reader: LinkReader, writer: LinkWriter) {
        if let Some(link) = Link::from_frames(reader, writer) {
            self.shared.keep(link);
        }
    }

    /// Keeps `count` links to `peer` ready in the background, at most the limit per node; 0 ends that.
    ///
    /// False: so many nodes have warm links already that there is no place for another.
    pub fn warm(&self, peer: &NodeContact, count: usize) -> bool {
        let count = count.min(self.shared.limits.per_peer);
        let kept = self.shared.lock().want(peer, count);
        self.shared.bell.notify_one();
        kept
    }

    /// Warm links to `peer` at this moment.
    pub fn ready(&self, peer: &NodeContact) -> usize {
        self.shared.lock().idle.get(&peer.node_id()).map_or(0, VecDeque::len)
    }
}

impl Drop for LinkPool {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Sweeps and dials until the pool is gone.
async fn keep(shared: Arc<Shared>) {
    let mut dials = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = sweep.tick() => shared.lock().sweep(),
            () = shared.bell.notified() => {}
            Some(dialed) = dials.join_next() => {
                if let Ok((id, result)) = dialed {
                    shared.dialed(id, result);
                }
            }
        }
        while dials.len() < DIALS
            && let Some(peer) = shared.next_dial()
        {
            let transport = shared.transport.clone();
            dials.spawn(async move { (peer.node_id(), transport.dial(&peer, Purpose::Frames).await) });
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, link: Link) {
        let idle = Instant::now() + self.limits.idle.mul_f64(crate::random().random_range(0.5..1.0));
        let until = link.retires.map_or(idle, |retires| idle.min(retires));
        self.lock().keep(Idle { link, until }, &self.limits);
    }

    /// The next node that lacks a warm link; counts the dial as begun.
    fn next_dial(&self) -> Option<NodeContact> {
        let mut table = self.lock();
        if table.len() >= self.limits.total {
            return None;
        }
        let Table { idle, wants } = &mut *table;
        let now = Instant::now();
        let (_, want) = wants.iter_mut().find(|(id, want)| {
            let ready = idle.get(id).map_or(0, VecDeque::len);
            ready + want.dialing < want.count && want.not_before <= now
        })?;
        want.dialing += 1;
        Some(want.peer.clone())
    }

    fn dialed(&self, id: NodeId, result: Result<Link, LinkError>) {
        if let Some(want) = self.lock().wants.get_mut(&id) {
            want.dialing = want.dialing.saturating_sub(1);
            if result.is_ok() {
                want.pause = SWEEP;
            } else {
                want.not_before = Instant::now() + want.pause;
                want.pause = (want.pause * 2).min(PAUSE_MAX);
            }
        }
        if let Ok(link) = result {
            self.keep(link);
        }
    }
}

impl Table {
    fn len(&self) -> usize {
        self.idle.values().map(VecDeque::len).sum()
    }

    /// A link that stands, if there is one. Any of them: their order would show which uses followed each other.
    fn take(&mut self, peer: &NodeContact) -> Option<Link> {
        let id = peer.node_id();
        let links = self.idle.get_mut(&id)?;
        // To where the node is no more: they only look sound.
        // protocol: L45
        links.retain(|idle| idle.link.remote == peer.addr);
        let any =
            || (!links.is_empty()).then(|| links.swap_remove_back(crate::random().random_range(0..links.len())))?;
        let found = std::iter::from_fn(any).find_map(|mut idle| idle.stands().then_some(idle.link));
        if links.is_empty() {
            self.idle.remove(&id);
        }
        found
    }

    fn keep(&mut self, idle: Idle, limits: &PoolLimits) {
        if self.len() >= limits.total {
            self.sweep();
        }
        if self.len() >= limits.total || limits.per_peer == 0 {
            return;
        }
        let links = self.idle.entry(NodeId::of(&idle.link.peer)).or_default();
        if links.len() >= limits.per_peer {
            links.pop_front();
        }
        links.push_back(idle);
    }

    fn want(&mut self, peer: &NodeContact, count: usize) -> bool {
        let id = peer.node_id();
        if count == 0 {
            self.wants.remove(&id);
            return true;
        }
        if !self.wants.contains_key(&id) && self.wants.len() >= WANTS {
            return false;
        }
        let fresh = || Want { peer: peer.clone(), count, dialing: 0, not_before: Instant::now(), pause: SWEEP };
        let want = self.wants.entry(id).or_insert_with(fresh);
        if want.peer != *peer {
            // It has moved: what failed at the old place says nothing of the new one.
            (want.not_before, want.pause) = (Instant::now(), SWEEP);
        }
        (want.peer, want.count) = (peer.clone(), count);
        true
    }

    /// Drops what ended or is too old.
    fn sweep(&mut self) {
        self.idle.retain(|_, links| {
            links.retain_mut(Idle::stands);
            !links.is_empty()
        });
    }
}

impl Idle {
    /// Whether it can be used: nothing may have arrived on an idle link, not even its end.
    fn stands(&mut self) -> bool {
        Instant::now() < self.until && self.link.stream.read(&mut [0]).now_or_never().is_none()
    }
}
