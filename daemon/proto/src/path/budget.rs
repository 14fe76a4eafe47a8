//! How many asymmetric operations peers may cause: whoever knows a node's record can make slots that fit and do not open.

use std::collections::BTreeMap;

use crate::ident::NodeId;

/// Length of the window in which asymmetric operations are counted, in seconds.
pub(super) const WINDOW: u64 = 60;

/// Packages that one peer may have opened per window.
pub(super) const OPENS_PER_PEER: u32 = 120;

/// Packages opened per window in total: about two hundredths of one core.
pub(super) const OPENS_MAX: u32 = 6000;

/// Of these, for nodes that this one does not know: identities cost nothing, so whoever has fifty could have all.
pub(super) const OPENS_OF_UNKNOWN: u32 = OPENS_MAX / 4 * 3;

/// Asymmetric operations in the current window.
#[derive(Default)]
pub(super) struct Budget {
    window: u64,
    total: u32,
    peers: BTreeMap<NodeId, u32>,
    /// In all windows.
    spent: u64,
}

impl Budget {
    /// Takes one operation for a peer, or says `None`: it or all together have had theirs.
    pub(super) fn spend(&mut self, now: u64, peer: NodeId, is_known: bool) -> Option<()> {
        if self.window != now / WINDOW {
            *self = Self { window: now / WINDOW, spent: self.spent, ..Self::default() };
        }
        // Looked at before the entry is made: the table is as bounded as the total.
        let most = if is_known { OPENS_MAX } else { OPENS_OF_UNKNOWN };
        if self.total >= most || self.peers.get(&peer).is_some_and(|used| *used >= OPENS_PER_PEER) {
            return None;
        }
        self.total += 1;
        self.spent += 1;
        *self.peers.entry(peer).or_default() += 1;
        Some(())
    }

    /// Operations so far.
    pub(super) fn spent(&self) -> u64 {
        self.spent
    }
}
