//! What a ban means for a node's own paths: nobody banned is planned with, and a path over one is ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Node;
use crate::chance::exponential;
use crate::command::Bans;
use crate::wire::NodeContact;

/// Mean time after which an own path over a banned node ends, in milliseconds, each path's own: all that are ended at the moment of a
/// command would show which belong together. Neighbours of the node do not wait: they close their links.
const ENDING_MEAN: u64 = 10_000;

impl Node {
    // protocol: M16
    pub(super) fn take_bans(&mut self, now: u64, bans: Arc<Bans>) {
        self.bans = bans;
        self.mark_banned();
        let hit = |hops: &[NodeContact]| hops.iter().any(|hop| self.bans.of_contact(hop).is_some());
        let over = self.paths.iter().filter(|(_, path)| path.owned().is_some_and(|owned| hit(&owned.hops)));
        for no in over.map(|(no, _)| *no).collect::<Vec<_>>() {
            let mean = if self.settings.paced { ENDING_MEAN } else { 1 };
            let at = now + exponential(&mut *self.rng, mean);
            if let Some(path) = self.paths.get_mut(&no) {
                path.until = path.until.min(at);
                self.wake(at + 1);
            }
        }
    }

    /// Tells the choice which of its guards are banned, and remembers its members that are.
    // protocol: M16, M17
    pub(super) fn mark_banned(&mut self) {
        let banned = |contact: &NodeContact| Some((contact.node_id(), self.bans.of_contact(contact)?.since));
        let all: BTreeMap<_, _> = self.choice.contacts().filter_map(banned).collect();
        self.banned = all.keys().copied().collect();
        self.choice.ban(all);
    }
}
