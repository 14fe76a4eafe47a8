//! The local sample of the node table: records of which paths are planned, each renewed before its keys are over.
//!
//! ```text
//!   record's epoch        the next one: its keys are in the record too         over
//!   ├────────────────────┼──── renewed at a random time ────┤─ again and again ┤ thrown out
//! ```

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use phantom_proto::ident::NodeId;
use phantom_proto::record::{EPOCH, NodeRecord, Record as _};
use phantom_proto::wire::NodeContact;
use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};

/// Nodes in it: ample to draw circles from, small to keep fresh.
// protocol: J1
pub(super) const SIZE: usize = 512;

/// Records are asked for anew within so many seconds from the end of their epoch, each at a time of its own: all at once would be a
/// burst, and says which ones we hold; the other half of the next epoch is for trying again.
const RENEW_WITHIN: u64 = EPOCH / 2;

/// Shortest wait before a record is asked for again, in seconds; the longest is three times that.
const RENEW_AGAIN: u64 = 300;

/// A node that cannot be reached may have moved: its record is asked for within so many seconds.
const MOVED_WITHIN: u64 = 60;

/// The sample, and which of its nodes do not answer.
#[derive(Default)]
pub(super) struct Sample {
    nodes: BTreeMap<NodeId, Known>,
    /// Bounded by the sample: only nodes in it are noted.
    silent: HashSet<NodeId>,
    /// Guards and members of layers: they stay, beside as many others as ever.
    pinned: BTreeSet<NodeId>,
    /// Pinned nodes that are not here, and when to ask for them.
    missing: BTreeMap<NodeId, u64>,
}

struct Known {
    record: Arc<NodeRecord>,
    /// As it was signed: what the disk keeps.
    bytes: Vec<u8>,
    /// When to ask for a newer one, in seconds since 1970.
    renew_at: u64,
    /// When it was last connected, in seconds since 1970.
    seen: Option<u64>,
}

impl Sample {
    /// Takes a record that holds. False: it says nothing new.
    pub(super) fn learn(&mut self, rng: &mut impl Rng, record: NodeRecord, bytes: Vec<u8>) -> bool {
        let id = record.contact.node_id();
        if self.nodes.get(&id).is_some_and(|known| known.record.version() >= record.version()) {
            return false;
        }
        let others = self.nodes.keys().filter(|id| !self.pinned.contains(*id));
        if !self.nodes.contains_key(&id) && !self.pinned.contains(&id) && others.clone().count() >= SIZE {
            // A random one makes room: whoever floods the table cannot choose who goes.
            let gone = others.choose(rng).copied();
            if let Some(id) = gone {
                self.forget(&id);
            }
        }
        self.missing.remove(&id);
        let seen = self.nodes.get(&id).and_then(|known| known.seen);
        let renew_at = record.epoch.end() + rng.random_range(0..RENEW_WITHIN);
        self.nodes.insert(id, Known { record: Arc::new(record), bytes, renew_at, seen });
        true
    }

    /// From now on these stay.
    // protocol: J5
    pub(super) fn pin(&mut self, nodes: BTreeSet<NodeId>) {
        self.pinned = nodes;
    }

    /// Some records, at most `most`, for which it is time to ask; each is due again later, should there be no newer one.
    // protocol: J3, J4
    pub(super) fn take_due(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
        let mut due = self.take_missing(rng, now, most);
        due.extend(self.take_stale(rng, now, most - due.len()));
        due
    }

    /// Pinned nodes of an earlier run, or whose records ended while they were away: asked for now and again.
    fn take_missing(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
        self.missing.retain(|id, _| self.pinned.contains(id));
        for id in self.pinned.iter().filter(|id| !self.nodes.contains_key(*id)) {
            self.missing.entry(*id).or_insert_with(|| now + rng.random_range(0..RENEW_AGAIN));
        }
        let due = self.missing.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
        let due = due.sample(rng, most);
        for id in &due {
            self.missing.insert(*id, now + rng.random_range(RENEW_AGAIN..3 * RENEW_AGAIN));
        }
        due
    }

    fn take_stale(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
        let due = self.nodes.iter().filter(|(_, known)| known.renew_at <= now).map(|(id, _)| *id);
        let due = due.sample(rng, most);
        for id in &due {
            if let Some(known) = self.nodes.get_mut(id) {
                known.renew_at = now + rng.random_range(RENEW_AGAIN..3 * RENEW_AGAIN);
            }
        }
        due
    }

    /// Throws out what has expired, by our own clock.
    // protocol: J6
    pub(super) fn sweep(&mut self, now: u64) {
        let over = self.nodes.iter().filter(|(_, known)| known.record.expires() <= now);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        over.iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.silent.remove(id);
    }

    /// A node could not be reached.
    pub(super) fn unreachable(&mut self, rng: &mut impl Rng, now: u64, id: NodeId) {
        if let Some(known) = self.nodes.get_mut(&id)
            && self.silent.insert(id)
        {
            known.renew_at = known.renew_at.min(now + rng.random_range(0..MOVED_WITHIN));
        }
    }

    /// A node is connected, or was until now.
    pub(super) fn connected(&mut self, now: u64, id: &NodeId) {
        self.silent.remove(id);
        if let Some(known) = self.nodes.get_mut(id) {
            known.seen = Some(now);
        }
    }

    /// When nodes were last connected, as far as they were.
    pub(super) fn seen(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.nodes.iter().filter_map(|(id, known)| Some((*id, known.seen?)))
    }

    /// Some nodes that do not answer, at most `most`: to be tried again.
    pub(super) fn some_silent(&self, rng: &mut impl Rng, most: usize) -> Vec<NodeContact> {
        let contact = |id: &NodeId| self.nodes.get(id).map(|known| known.record.contact.clone());
        self.silent.iter().filter_map(contact).sample(rng, most)
    }

    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn silent(&self) -> impl Iterator<Item = &NodeId> {
        self.silent.iter()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.nodes.values().map(|known| &known.record)
    }

    /// Every record as it was signed, by node.
    pub(super) fn signed(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        self.nodes.iter().map(|(id, known)| (*id, known.bytes.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::record::{Epoch, Extensions, PublicPathKeys};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn record(number: u16, at: u64) -> NodeRecord {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let identity = SigningKey::from_seed(&seed).verifying_key();
        let contact = NodeContact { identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
        let keys = PublicPathKeys { dh: [1; 32], kem: Arc::new([2; 1184]) };
        let epoch = Epoch::at(&contact.node_id(), at);
        NodeRecord { contact, epoch, revision: 0, keys: [keys.clone(), keys], extensions: Extensions::default() }
    }

    fn sample(count: u16) -> (Sample, StdRng) {
        let (mut sample, mut rng) = (Sample::default(), StdRng::seed_from_u64(1));
        for number in 0..count {
            assert!(sample.learn(&mut rng, record(number, NOW), vec![1]));
        }
        (sample, rng)
    }

    // protocol: J3, J4
    #[test]
    fn every_record_is_asked_for_before_its_keys_are_over_and_at_a_time_of_its_own() {
        let (mut sample, mut rng) = sample(100);
        let mut asked = BTreeMap::new();
        for now in (NOW..NOW + 2 * EPOCH).step_by(30) {
            sample.sweep(now);
            for id in sample.take_due(&mut rng, now, 8) {
                asked.entry(id).or_insert(now);
            }
        }
        sample.sweep(NOW + 2 * EPOCH);
        assert_eq!((asked.len(), sample.len()), (100, 0));
        for (id, first) in &asked {
            let (end, rest) = (Epoch::at(id, NOW).end(), RENEW_WITHIN + 600);
            assert!((end..end + rest).contains(first), "{first} is not soon after {end}");
        }
        let moments: HashSet<_> = asked.values().collect();
        assert!(moments.len() > 60, "they go in bursts: {}", moments.len());
    }

    // protocol: J3, J6
    #[test]
    fn who_has_no_newer_record_is_asked_again_and_one_that_came_is_kept() {
        let (mut sample, mut rng) = sample(1);
        let first = record(0, NOW);
        let end = first.epoch.end();
        let times: Vec<_> = (end..end + EPOCH).filter(|now| !sample.take_due(&mut rng, *now, 8).is_empty()).collect();
        assert!(times.len() > 10 && times.windows(2).all(|pair| pair[1] - pair[0] >= RENEW_AGAIN), "{times:?}");
        assert!(!sample.learn(&mut rng, first, vec![1]));
        assert!(sample.learn(&mut rng, record(0, end), vec![2]));
        sample.sweep(end + EPOCH);
        assert_eq!(sample.signed().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>(), [vec![2]]);
        sample.sweep(end + 2 * EPOCH);
        assert_eq!(sample.len(), 0, "a stale sample outlives its epoch");
    }

    // protocol: J3
    #[test]
    fn a_node_that_cannot_be_reached_is_tried_again_and_its_record_asked_for() {
        let (mut sample, mut rng) = sample(3);
        let id = record(1, NOW).contact.node_id();
        let begin = record(1, NOW).epoch.start();
        sample.unreachable(&mut rng, begin, id);
        sample.unreachable(&mut rng, begin, NodeId([0; 32]));
        assert_eq!(sample.silent().collect::<Vec<_>>(), [&id]);
        assert_eq!(sample.some_silent(&mut rng, 8), [record(1, NOW).contact]);
        let due: Vec<_> = (begin..begin + MOVED_WITHIN).flat_map(|now| sample.take_due(&mut rng, now, 8)).collect();
        assert!(due.contains(&id));
        sample.connected(begin + 7, &id);
        assert!(sample.some_silent(&mut rng, 8).is_empty());
        // A newer record does not make it forgotten.
        assert!(sample.learn(&mut rng, record(1, begin + EPOCH), vec![2]));
        assert_eq!(sample.seen().collect::<Vec<_>>(), [(id, begin + 7)]);
    }

    /// A3: who is used for weeks is not lost with the rest of the sample, and is asked for when it is not there.
    // protocol: J5
    #[test]
    fn pinned_nodes_stay_and_are_asked_for_when_they_are_missing() {
        let (mut full, mut rng) = sample(SIZE as u16);
        let id = |number| record(number, NOW).contact.node_id();
        full.pin([id(0), id(1), id(7000)].into());
        for number in 0..2000 {
            assert!(full.learn(&mut rng, record(1000 + number, NOW), vec![1]));
        }
        assert!(full.contains(&id(0)) && full.contains(&id(1)) && full.len() == SIZE + 2);
        let asked: Vec<_> = (NOW..NOW + RENEW_AGAIN).flat_map(|now| full.take_due(&mut rng, now, 8)).collect();
        assert!(asked.contains(&id(7000)));
        assert!(full.learn(&mut rng, record(7000, NOW), vec![1]) && full.contains(&id(7000)));
        full.pin(BTreeSet::new());
        assert!(full.learn(&mut rng, record(6000, NOW), vec![1]));
        let again: Vec<_> = (NOW..NOW + 900).flat_map(|now| full.take_due(&mut rng, now, 8)).collect();
        assert!(!again.contains(&id(7000)), "who is not pinned any more is not asked for");
    }

    // protocol: J1
    #[test]
    fn a_full_sample_makes_room_at_random() {
        let (mut full, mut rng) = sample(SIZE as u16);
        for number in 0..100 {
            assert!(full.learn(&mut rng, record(1000 + number, NOW), vec![1]));
        }
        let first = (0..100).filter(|number| full.contains(&record(*number, NOW).contact.node_id())).count();
        assert!(full.len() == SIZE && (60..95).contains(&first), "{first} of the first hundred are left");
    }
}
