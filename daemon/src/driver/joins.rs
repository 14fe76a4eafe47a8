//! Bounds what exit nodes hold open at an entry node: handles are public, so whoever reads an AP record can send JOIN.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phantom_proto::ident::NodeId;

/// Joined links of one peer, waiting ones included: what a busy exit node may have towards all that we serve.
// protocol: U11
const PER_PEER: usize = 256;

/// Joined links of all peers: identities of nodes cost nothing, memory does.
const TOTAL: usize = 16_384;

/// Counts joined links; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Joins(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    total: usize,
    peers: BTreeMap<NodeId, usize>,
}

/// One joined link, as long as it lives.
pub(super) struct Join {
    peer: NodeId,
    joins: Joins,
}

impl Joins {
    /// Room for one more link of `peer`. `None`: it or all have enough.
    pub(super) fn enter(&self, peer: NodeId) -> Option<Join> {
        let mut held = self.lock();
        if held.total >= TOTAL || held.peers.get(&peer).is_some_and(|count| *count >= PER_PEER) {
            return None;
        }
        held.total += 1;
        *held.peers.entry(peer).or_default() += 1;
        Some(Join { peer, joins: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // No code panics while it holds the lock; the counts would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Join {
    fn drop(&mut self) {
        let mut held = self.joins.lock();
        held.total = held.total.saturating_sub(1);
        if let Some(count) = held.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                held.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: U11
    #[test]
    fn a_peer_that_joins_without_end_is_refused_and_others_are_not() {
        let joins = Joins::default();
        let mut held: Vec<_> = (0..PER_PEER).map(|_| joins.enter(NodeId([1; 32])).unwrap()).collect();
        assert!(joins.enter(NodeId([1; 32])).is_none());
        assert!(joins.enter(NodeId([2; 32])).is_some());
        held.pop();
        assert!(joins.enter(NodeId([1; 32])).is_some());
        drop(held);
        assert!(joins.lock().peers.is_empty() && joins.lock().total == 0, "nothing is kept of peers that left");
    }
}
