//! How often builds with a node failed, and what that does to its chance of being drawn again: killing builds must not pay.

use std::collections::BTreeMap;

use crate::ident::NodeId;

/// Nodes remembered: some hundred circles' worth, about 200 kB.
pub const ACCOUNTS: usize = 4096;

/// Weights are multiplied by at least [`FACTOR_MIN`] and at most this.
pub const FACTOR_MAX: u64 = 1000;

/// A node that always fails still has a quarter of its chance: whoever makes others' builds fail could otherwise steer
/// the choice by blackening honest nodes.
pub const FACTOR_MIN: u64 = 250;

/// Below this a guard stands behind those above.
const POOR: u64 = 500;

/// Builds after which a count is halved, so that the past fades.
const FADE_AFTER: u32 = 64;

/// Builds that every node is credited with: a single failure says little.
const CREDIT: u64 = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    built: u32,
    failed: u32,
}

impl Count {
    fn add(&mut self, built: bool, fade_after: u32) {
        *(if built { &mut self.built } else { &mut self.failed }) += 1;
        if self.total() >= fade_after {
            self.built /= 2;
            self.failed /= 2;
        }
    }

    fn total(&self) -> u32 {
        self.built + self.failed
    }
}

/// Failed and successful builds per node.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    nodes: BTreeMap<NodeId, Count>,
    all: Count,
}

impl Accounts {
    /// Notes how a build went with these nodes in its circle.
    pub fn note(&mut self, nodes: &[NodeId], built: bool) {
        self.all.add(built, FADE_AFTER * 16);
        for node in nodes {
            if self.nodes.len() >= ACCOUNTS && !self.nodes.contains_key(node) {
                self.forget_the_least_known();
            }
            self.nodes.entry(*node).or_default().add(built, FADE_AFTER);
        }
    }

    /// By how many thousandths a node's weight counts, [`FACTOR_MIN`] to [`FACTOR_MAX`]: its successful builds over those
    /// that the network's average would have had.
    pub fn factor(&self, node: &NodeId) -> u64 {
        let count = self.nodes.get(node).copied().unwrap_or_default();
        let all = 1000 * (u64::from(self.all.built) + CREDIT) / (u64::from(self.all.total()) + CREDIT);
        let had = u64::from(count.built) + CREDIT;
        let expected = u64::from(count.total()) * all + CREDIT * 1000;
        (had * 1000 * FACTOR_MAX / expected).clamp(FACTOR_MIN, FACTOR_MAX)
    }

    /// Whether builds with this node fail so much more often that another guard goes first.
    pub fn poor(&self, node: &NodeId) -> bool {
        self.factor(node) < POOR
    }

    fn forget_the_least_known(&mut self) {
        let least = self.nodes.iter().min_by_key(|(_, count)| count.total()).map(|(node, _)| *node);
        if let Some(node) = least {
            self.nodes.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn a_node_that_kills_builds_loses_weight_within_bounds() {
        let mut accounts = Accounts::default();
        for n in 0..200 {
            let built = n % 4 != 0;
            accounts.note(&[id(if built { 1 } else { 2 }), id(1000 + n)], built);
        }
        assert_eq!(accounts.factor(&id(1)), FACTOR_MAX);
        assert_eq!(accounts.factor(&id(2)), FACTOR_MIN);
        assert!(accounts.poor(&id(2)));
        assert!(!accounts.poor(&id(3)), "an unknown node has its chance");
    }

    #[test]
    fn a_bad_network_blackens_nobody() {
        let mut all_fail = Accounts::default();
        (0..300).for_each(|n| all_fail.note(&[id(n % 10)], false));
        assert!((0..10).all(|n| !all_fail.poor(&id(n))));
    }

    #[test]
    fn memory_is_bounded() {
        let mut accounts = Accounts::default();
        accounts.note(&[id(u32::MAX)], false);
        accounts.note(&[id(u32::MAX)], false);
        (0..ACCOUNTS as u32 + 100).for_each(|n| accounts.note(&[id(n)], true));
        assert_eq!(accounts.nodes.len(), ACCOUNTS);
        assert!(accounts.nodes.contains_key(&id(u32::MAX)), "the least known goes first");
    }
}
