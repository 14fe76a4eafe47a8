//! Bounds what exit nodes hold open at an entry node: handles are public, so whoever reads an AP record can send JOIN.

use std::collections::BTreeMap;

use crate::ident::NodeId;

/// Joined links that a peer may have in any case, waiting ones included, while all are not too many.
// protocol: U11
const PER_PEER: usize = 256;

/// Counts joined links.
#[derive(Debug)]
pub struct Joins {
    most: usize,
    total: usize,
    peers: BTreeMap<NodeId, usize>,
}

impl Joins {
    /// None yet, and so many at most: identities of nodes cost nothing, memory does.
    pub fn new(most: usize) -> Self {
        Self { most, total: 0, peers: BTreeMap::new() }
    }

    /// One more link of `peer`. False: it or all have enough, and it does not count.
    ///
    /// Beyond 256 a peer may have as many as there is room for others: half of all if it is alone, an equal share with those who
    /// want as much, and as much again is left for whoever comes.
    pub fn enter(&mut self, peer: NodeId) -> bool {
        let share = PER_PEER.max(self.most - self.total.min(self.most));
        if self.total >= self.most || self.peers.get(&peer).is_some_and(|count| *count >= share) {
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

    const TOTAL: usize = 16_384;

    fn peer(number: usize) -> NodeId {
        NodeId([number as u8; 32])
    }

    /// One exit node that carries many connections of one owner was refused at 256, in an empty house.
    // protocol: U11
    #[test]
    fn a_peer_that_joins_without_end_has_half_of_all_and_leaves_the_rest_to_others() {
        let mut joins = Joins::new(TOTAL);
        assert_eq!((0..TOTAL).filter(|_| joins.enter(peer(1))).count(), TOTAL / 2);
        assert!(!joins.enter(peer(1)) && joins.enter(peer(2)), "others come in");
        joins.leave(peer(1));
        assert!(joins.enter(peer(1)) && !joins.enter(peer(1)));
    }

    /// Whoever came first has no more in the end than who came later and waited for room.
    // protocol: U11
    #[test]
    fn peers_that_want_as_much_as_there_is_have_equal_shares() {
        let mut joins = Joins::new(TOTAL);
        let (peers, mut counts) = (7, [0_usize; 7]);
        while joins.enter(peer(0)) {
            counts[0] += 1;
        }
        for round in 0..3 * TOTAL {
            let number = round % peers;
            if joins.enter(peer(number)) {
                counts[number] += 1;
            } else if counts[number] > TOTAL / (peers + 1) {
                // Connections end, and who has more than its share does not get them back.
                joins.leave(peer(number));
                counts[number] -= 1;
            }
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 2 && least.abs_diff(TOTAL / (peers + 1)) <= 2, "{counts:?}");
        assert!(joins.enter(peer(9)), "and another finds room");
    }

    // protocol: U11
    #[test]
    fn peers_without_end_are_refused_together() {
        let mut joins = Joins::new(TOTAL);
        let each = |number: usize| peer(number / PER_PEER);
        assert!((0..TOTAL).all(|number| joins.enter(each(number))), "so many may be there in any case");
        assert!(!joins.enter(peer(255)));
        joins.leave(peer(0));
        assert!(joins.enter(peer(255)));
    }

    proptest! {
        /// Who leaves without having come changes nothing, and nothing is kept of peers that left.
        #[test]
        fn it_counts_those_who_are_there(ops in prop::collection::vec((any::<bool>(), 0..3_u8), 0..2_000)) {
            let (mut joins, mut there) = (Joins::new(TOTAL), [0_usize; 3]);
            for (enters, peer) in ops {
                let count = &mut there[usize::from(peer)];
                let peer = NodeId([peer; 32]);
                if enters {
                    // So few of all that there is room for each.
                    prop_assert!(joins.enter(peer));
                    *count += 1;
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
