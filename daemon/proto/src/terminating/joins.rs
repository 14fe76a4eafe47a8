//! Bounds what exit nodes hold open at an entry node: handles are public, so whoever reads an AP record can send JOIN.

use std::collections::BTreeMap;

use crate::ident::NodeId;

/// Joined links of one peer, waiting ones included: what a busy exit node may have towards all that we serve.
// protocol: U11
const PER_PEER: usize = 256;

/// Joined links of all peers: identities of nodes cost nothing, memory does.
const TOTAL: usize = 16_384;

/// Counts joined links.
#[derive(Debug, Default)]
pub struct Joins {
    total: usize,
    peers: BTreeMap<NodeId, usize>,
}

impl Joins {
    /// One more link of `peer`. False: it or all have enough, and it does not count.
    pub fn enter(&mut self, peer: NodeId) -> bool {
        if self.total >= TOTAL || self.peers.get(&peer).is_some_and(|count| *count >= PER_PEER) {
            return false;
        }
        self.total += 1;
        *self.peers.entry(peer).or_default() += 1;
        true
    }

    /// A link of `peer` that counted is joined no more.
    pub fn leave(&mut self, peer: NodeId) {
        let Some(count) = self.peers.get_mut(&peer) else { return };
        self.total -= 1;
        *count -= 1;
        if *count == 0 {
            self.peers.remove(&peer);
        }
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // protocol: U11
    #[test]
    fn a_peer_that_joins_without_end_is_refused_and_others_are_not() {
        let (mut joins, [greedy, other]) = (Joins::default(), [NodeId([1; 32]), NodeId([2; 32])]);
        assert!((0..PER_PEER).all(|_| joins.enter(greedy)));
        assert!(!joins.enter(greedy));
        assert!(joins.enter(other));
        joins.leave(greedy);
        assert!(joins.enter(greedy) && !joins.enter(greedy));
    }

    // protocol: U11
    #[test]
    fn peers_without_end_are_refused_together() {
        let mut joins = Joins::default();
        let peer = |number: usize| NodeId([(number / PER_PEER) as u8; 32]);
        assert!((0..TOTAL).all(|number| joins.enter(peer(number))));
        assert!(!joins.enter(NodeId([255; 32])));
        joins.leave(peer(0));
        assert!(joins.enter(NodeId([255; 32])));
    }

    proptest! {
        /// Who leaves without having come changes nothing, and nothing is kept of peers that left.
        #[test]
        fn it_counts_those_who_are_there(ops in prop::collection::vec((any::<bool>(), 0..3_u8), 0..2_000)) {
            let (mut joins, mut there) = (Joins::default(), [0_usize; 3]);
            for (enters, peer) in ops {
                let count = &mut there[usize::from(peer)];
                let peer = NodeId([peer; 32]);
                if enters {
                    prop_assert_eq!(joins.enter(peer), *count < PER_PEER);
                    *count = PER_PEER.min(*count + 1);
                } else {
                    joins.leave(peer);
                    *count = count.saturating_sub(1);
                }
                prop_assert_eq!(joins.total(), there.iter().sum::<usize>());
            }
            for (peer, count) in there.iter().enumerate() {
                (0..*count).for_each(|_| joins.leave(NodeId([peer as u8; 32])));
            }
            prop_assert!(joins.peers.is_empty() && joins.total() == 0);
        }
    }
}
