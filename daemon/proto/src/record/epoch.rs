//! Epochs of path keys: six hours each, at public times of each node's own, so that a record's times say nothing of its node's life.

use crate::crypto::derive;
use crate::ident::NodeId;

/// Length of an epoch in seconds: how long a stolen path key opens what was sent to it, and how long a record is of use.
pub const EPOCH: u64 = 6 * 3600;

/// One epoch of one node, named by its start in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The node's epoch at `now`. Nodes begin theirs at different times, or all would publish at once.
    pub fn at(node: &NodeId, now: u64) -> Self {
        Self(now.saturating_sub(Self::since(node, now)))
    }

    /// The node's epoch that begins at `start`. `None`: none does.
    // protocol: R4
    pub fn beginning(node: &NodeId, start: u64) -> Option<Self> {
        (Self::since(node, start) == 0).then_some(Self(start))
    }

    /// Seconds since the node's epoch began.
    // protocol: E1
    fn since(node: &NodeId, now: u64) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = derive("phantom v1 epoch", &[&node.0]);
        let offset = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % EPOCH;
        (now % EPOCH + EPOCH - offset) % EPOCH
    }

    /// When it begins.
    pub fn start(self) -> u64 {
        self.0
    }

    /// When it ends.
    pub fn end(self) -> u64 {
        self.0.saturating_add(EPOCH)
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.end())
    }

    /// The one before it.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_moment_is_in_one_epoch(node: [u8; 32], now in EPOCH..u64::MAX / 2) {
            let node = NodeId(node);
            let epoch = Epoch::at(&node, now);
            prop_assert!(epoch.start() <= now && now < epoch.end());
            prop_assert_eq!(Epoch::at(&node, epoch.start()), epoch);
            prop_assert_eq!(Epoch::at(&node, epoch.end()), epoch.next());
            prop_assert_eq!(Epoch::at(&node, epoch.start() - 1), epoch.previous());
            prop_assert_eq!(Epoch::beginning(&node, epoch.start()), Some(epoch));
            prop_assert_eq!(Epoch::beginning(&node, epoch.start() + 1), None);
        }

        #[test]
        fn no_number_is_a_panic(node: [u8; 32], now: u64) {
            let epoch = Epoch::at(&NodeId(node), now);
            let _ = (epoch.next().next(), epoch.previous().previous());
        }
    }

    // protocol: E1
    #[test]
    fn nodes_begin_at_different_times() {
        let starts: std::collections::BTreeSet<_> =
            (0..100).map(|number| Epoch::at(&NodeId([number; 32]), 1_800_000_000).start()).collect();
        assert!(starts.len() > 95, "{}", starts.len());
    }
}
