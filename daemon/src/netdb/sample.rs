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

/// Below so many nodes the sample takes whom it can get.
// protocol: J2
pub(super) const SPARSE: usize = 24;

/// One in so many of those that a full sample meets enters it: of 20 met every 30 s 24 an hour, 5 % of the sample. A flood takes days to
/// change it, as uniform as it is by then it becomes only slowly, and those of a plan stay known while it stands.
// protocol: J1
const ENTERS: u32 = 100;

/// Records are asked for anew within so many seconds from the end of their epoch, each at a time of its own: all at once would be a
/// burst, and says which ones we hold; the other half of the next epoch is for trying again.
const RENEW_WITHIN: u64 = EPOCH / 2;

/// Shortest wait before a record is asked for again, in seconds; the longest is three times that.
const RENEW_AGAIN: u64 = 300;

/// A node that cannot be reached may have moved: its record is asked for within so many seconds.
const MOVED_WITHIN: u64 = 60;

/// A pinned node of which nothing new was heard is asked for by itself only within so many seconds before its keys are over.
const LAST_HOUR: u64 = 3600;

/// The sample, and which of its nodes do not answer.
///
/// Whom this node asks for by name is seen by those whom it asks. So that depends on the sample alone, which chance fills, and not on
/// who is pinned: what look-ups of random keys bring of pinned nodes is kept aside. Only when they bring nothing for hours, in a network
/// of many thousand nodes, is a pinned node asked for.
#[derive(Default)]
pub(super) struct Sample {
    nodes: BTreeMap<NodeId, Known>,
    /// Bounded: only nodes of which there is a record are noted.
    silent: HashSet<NodeId>,
    /// Guards and members of layers.
    pinned: BTreeSet<NodeId>,
    /// What is known of them, whether the sample has them or not.
    held: BTreeMap<NodeId, Known>,
    /// Pinned nodes that are to be asked for by themselves, and when.
    missing: BTreeMap<NodeId, u64>,
}

#[derive(Clone)]
struct Known {
    record: Arc<NodeRecord>,
    /// As it was signed: what the disk keeps.
    bytes: Vec<u8>,
    /// When to ask for a newer one, in seconds since 1970.
    renew_at: u64,
    /// When it was last connected, in seconds since 1970.
    seen: Option<u64>,
    /// The node itself told it, unasked, and perhaps nobody else.
    told: bool,
}

impl Known {
    /// Whether a record that was looked up takes its place.
    fn yields(&self, record: &NodeRecord) -> bool {
        self.record.version() < record.version() || self.told && self.record.contradicts(record)
    }
}

impl Sample {
    /// Takes a record that holds. False: it says nothing new.
    pub(super) fn learn(&mut self, rng: &mut impl Rng, record: NodeRecord, bytes: Vec<u8>) -> bool {
        let id = record.contact.node_id();
        if self.nodes.get(&id).is_some_and(|known| !known.yields(&record)) {
            return false;
        }
        let seen = self.of(&id).and_then(|known| known.seen);
        let renew_at = record.epoch.end() + rng.random_range(0..RENEW_WITHIN);
        let known = Known { record: Arc::new(record), bytes, renew_at, seen, told: false };
        let held = self.hold(&id, &known);
        if !self.nodes.contains_key(&id) && !self.makes_room(rng) {
            return held;
        }
        self.nodes.insert(id, known);
        true
    }

    /// Takes a record that its node told us by itself, if it is pinned: the others are asked for anyway. A node could tell each neighbour
    /// keys of its own, and know by the key who builds; so keys that are known stay, what others have of it wins, and it is looked up as
    /// soon as without.
    // protocol: J2, J11
    pub(super) fn heard(&mut self, record: NodeRecord, bytes: Vec<u8>) -> bool {
        let id = record.contact.node_id();
        let known = self.of(&id);
        let stays = known.is_some_and(|known| known.record.contradicts(&record) || !known.yields(&record));
        if stays || !self.pinned.contains(&id) {
            return false;
        }
        // Of those beyond the sample none is looked up.
        let (renew_at, seen) = known.map_or((u64::MAX, None), |known| (known.renew_at, known.seen));
        let told = Known { record: Arc::new(record), bytes, renew_at, seen, told: true };
        if let Some(known) = self.nodes.get_mut(&id) {
            *known = told.clone();
        }
        self.hold(&id, &told)
    }

    /// Whether there is room for one more. In a full sample chance says so, and then a random one goes: neither who answers first or
    /// most often nor who floods the table decides who comes and who goes.
    // protocol: J1
    fn makes_room(&mut self, rng: &mut impl Rng) -> bool {
        if self.nodes.len() < SIZE {
            return true;
        }
        if !rng.random_ratio(1, ENTERS) {
            return false;
        }
        let gone = self.nodes.keys().choose(rng).copied();
        if let Some(id) = gone {
            self.nodes.remove(&id);
            self.quiet(&id);
        }
        true
    }

    /// Keeps a record aside if its node is pinned and it is not older than what is there.
    fn hold(&mut self, id: &NodeId, known: &Known) -> bool {
        let newest = |held: &Known| held.record.version() == known.record.version() || held.yields(&known.record);
        let holds = self.pinned.contains(id) && self.held.get(id).is_none_or(newest);
        if holds {
            self.missing.remove(id);
            self.held.insert(*id, known.clone());
        }
        holds
    }

    fn of(&self, id: &NodeId) -> Option<&Known> {
        self.nodes.get(id).or_else(|| self.held.get(id))
    }

    /// From now on what is heard of these stays.
    // protocol: J5
    pub(super) fn pin(&mut self, nodes: BTreeSet<NodeId>) {
        self.pinned = nodes;
        let gone: Vec<_> = self.held.keys().filter(|id| !self.pinned.contains(*id)).copied().collect();
        for id in gone {
            self.held.remove(&id);
            self.quiet(&id);
        }
        for id in self.pinned.clone() {
            if let Some(known) = self.nodes.get(&id).cloned() {
                self.hold(&id, &known);
            }
        }
    }

    /// A node of which there is no record any more is not noted as silent.
    fn quiet(&mut self, id: &NodeId) {
        if self.of(id).is_none() {
            self.silent.remove(id);
        }
    }

    /// Some records, at most `most`, for which it is time to ask; each is due again later, should there be no newer one.
    // protocol: J3, J4
    pub(super) fn take_due(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
        let mut due = self.take_missing(rng, now, most);
        due.extend(self.take_stale(rng, now, most - due.len()));
        due
    }

    /// Pinned nodes of an earlier run, or of which nothing was heard while their keys came to an end: asked for now and again.
    // protocol: J10
    fn take_missing(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
        self.missing.retain(|id, _| self.pinned.contains(id));
        for id in &self.pinned {
            let over = self.held.get(id).map(|held| held.record.expires());
            if over.is_none_or(|over| now >= over.saturating_sub(LAST_HOUR)) && !self.nodes.contains_key(id) {
                self.missing.entry(*id).or_insert_with(|| now + rng.random_range(0..LAST_HOUR / 2));
            }
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

    /// Throws out whatever is known of a node.
    pub(super) fn forget(&mut self, which: impl Fn(&NodeId) -> bool) {
        for nodes in [&mut self.nodes, &mut self.held] {
            nodes.retain(|id, _| !which(id));
        }
        self.silent.retain(|id| !which(id));
    }

    /// Throws out what has expired, by our own clock.
    // protocol: J6
    pub(super) fn sweep(&mut self, now: u64) {
        for nodes in [&mut self.nodes, &mut self.held] {
            nodes.retain(|_, known| known.record.expires() > now);
        }
        let silent: Vec<_> = self.silent.iter().copied().collect();
        silent.iter().for_each(|id| self.quiet(id));
    }

    /// A node could not be reached.
    pub(super) fn unreachable(&mut self, rng: &mut impl Rng, now: u64, id: NodeId) {
        if self.of(&id).is_some()
            && self.silent.insert(id)
            && let Some(known) = self.nodes.get_mut(&id)
        {
            known.renew_at = known.renew_at.min(now + rng.random_range(0..MOVED_WITHIN));
        }
    }

    /// A node is connected, or was until now.
    pub(super) fn connected(&mut self, now: u64, id: &NodeId) {
        self.silent.remove(id);
        for known in [self.nodes.get_mut(id), self.held.get_mut(id)].into_iter().flatten() {
            known.seen = Some(now);
        }
    }

    /// When nodes were last connected, as far as they were.
    pub(super) fn seen(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.all().filter_map(|(id, known)| Some((*id, known.seen?)))
    }

    /// Some nodes that do not answer, at most `most`: to be tried again.
    pub(super) fn some_silent(&self, rng: &mut impl Rng, most: usize) -> Vec<NodeContact> {
        let contact = |id: &NodeId| self.of(id).map(|known| known.record.contact.clone());
        self.silent.iter().filter_map(contact).sample(rng, most)
    }

    /// Whether chance has filled the sample with it: then it is not asked for when it is heard of again.
    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    /// The sample, and those that are held beside it.
    fn all(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.nodes.iter().chain(self.held.iter().filter(|(id, _)| !self.nodes.contains_key(*id)))
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether whoever is known is welcome. Later only those count whom random look-ups meet: who is near this node, or stays connected, is
    /// no random draw.
    // protocol: J2
    pub(super) fn is_sparse(&self) -> bool {
        self.nodes.len() < SPARSE
    }

    pub(super) fn silent(&self) -> impl Iterator<Item = &NodeId> {
        self.silent.iter()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.all().map(|(_, known)| &known.record)
    }

    /// Every record as it was signed, by node.
    pub(super) fn signed(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        self.all().map(|(id, known)| (*id, known.bytes.as_slice()))
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

    fn id(number: u16) -> NodeId {
        record(number, NOW).contact.node_id()
    }

    fn knows(sample: &Sample, number: u16) -> bool {
        sample.records().any(|record| record.contact.node_id() == id(number))
    }

    /// A3: who is used for weeks is not lost with the rest of the sample, and is asked for when nothing is known of it.
    // protocol: J5
    #[test]
    fn pinned_nodes_stay_and_are_asked_for_when_they_are_missing() {
        let (mut full, mut rng) = sample(SIZE as u16);
        full.pin([id(0), id(1), id(7000)].into());
        for number in 0..(4 * SIZE as u16) {
            enters(&mut full, &mut rng, 8000 + number);
        }
        assert!(knows(&full, 0) && knows(&full, 1) && full.len() == SIZE);
        let due = |sample: &mut Sample, rng: &mut StdRng| -> Vec<_> {
            (NOW..NOW + LAST_HOUR).flat_map(|now| sample.take_due(rng, now, 8)).collect()
        };
        let asked = due(&mut full, &mut rng);
        assert!(asked.contains(&id(7000)) && !asked.contains(&id(0)));
        assert!(full.learn(&mut rng, record(7000, NOW), vec![1]) && knows(&full, 7000));
        full.pin(BTreeSet::new());
        assert!(!due(&mut full, &mut rng).contains(&id(7000)), "who is not pinned any more is not asked for");
        assert!(full.held.is_empty() && !knows(&full, 0), "nothing is left of who was");
    }

    // protocol: J2, J11
    #[test]
    fn what_a_pinned_node_tells_of_itself_renews_what_is_known_of_it_and_nothing_else() {
        let (mut one, mut rng) = sample(2);
        let new = |number| record(number, record(number, NOW).epoch.end());
        assert!(!one.heard(record(5, NOW), vec![1]) && !knows(&one, 5), "nobody asked");
        assert!(!one.heard(new(0), vec![2]), "it is asked for anyway");
        one.pin([id(1), id(5)].into());
        let due = one.nodes[&id(1)].renew_at;
        assert!(one.heard(new(1), vec![3]) && one.nodes[&id(1)].renew_at == due, "and so is this one");
        assert!(one.heard(new(5), vec![4]) && knows(&one, 5) && !one.contains(&id(5)));
        assert!(!one.heard(record(5, NOW), vec![5]), "an old one");
        let all = one.signed().map(|(_, bytes)| bytes.to_vec()).collect::<BTreeSet<_>>();
        assert_eq!(all, [vec![1], vec![3], vec![4]].into());
        // A pinned node that tells its records is not asked for.
        let over = new(5).expires();
        let asked = (NOW..over - LAST_HOUR).step_by(30).any(|now| one.take_due(&mut rng, now, 8).contains(&id(5)));
        assert!(!asked);
    }

    /// A node that gave each neighbour keys of its own knew by the key who had built.
    // protocol: J11
    #[test]
    fn keys_that_a_node_has_for_one_neighbour_alone_give_way_to_those_that_others_have() {
        let own = || PublicPathKeys { dh: [9; 32], kem: Arc::new([9; 1184]) };
        let (mut one, mut rng) = sample(1);
        one.pin([id(0), id(5)].into());
        let next = |number| record(number, record(number, NOW).epoch.end());
        let keys = |one: &Sample, number| one.of(&id(number)).unwrap().record.keys.clone().map(|keys| keys.dh);
        let known = keys(&one, 0);
        let changed = NodeRecord { revision: 1, keys: [own(), own()], ..record(0, NOW) };
        assert!(!one.heard(changed, vec![2]) && keys(&one, 0) == known, "of an epoch that is known");
        let mut told = next(0);
        told.keys[1] = own();
        assert!(one.heard(NodeRecord { revision: 1, ..told }, vec![3]), "of one that is not, nobody can say");
        assert!(one.learn(&mut rng, next(0), vec![4]) && keys(&one, 0) == next(0).keys.map(|keys| keys.dh));
        // The same beside the sample.
        assert!(one.heard(NodeRecord { keys: [own(), own()], ..record(5, NOW) }, vec![5]));
        one.learn(&mut rng, record(5, NOW), vec![6]);
        assert_eq!(keys(&one, 5), record(5, NOW).keys.map(|keys| keys.dh));
    }

    /// Until chance lets it in.
    fn enters(sample: &mut Sample, rng: &mut StdRng, number: u16) -> usize {
        (1..).find(|_| sample.learn(rng, record(number, NOW), vec![1])).unwrap()
    }

    /// Those whom a node asks would see who its guards are: by name it asks for whom chance brings, pinned or not, and alike.
    // protocol: J5
    #[test]
    fn who_is_pinned_does_not_show_by_what_is_asked_for() {
        // A quarter of them is in the sample, as of all.
        let (is_pin, mut counts) = (|number: usize| number.is_multiple_of(20), [0_usize, 0]);
        let (mut full, mut rng) = sample(SIZE as u16);
        let ids: Vec<_> = (0..2000).map(id).collect();
        full.pin(ids.iter().step_by(20).copied().collect());
        // 2000 nodes; a look-up meets 20 of them every 30 s, and asks for those that the sample does not have.
        for now in (NOW..NOW + 24 * 3600).step_by(30) {
            full.sweep(now);
            let met: Vec<_> = (0..20).map(|_| rng.random_range(0..ids.len())).collect();
            let due: BTreeSet<_> = full.take_due(&mut rng, now, 8).into_iter().collect();
            let due = (0..ids.len()).filter(|number| due.contains(&ids[*number]));
            for number in met.into_iter().filter(|number| !full.contains(&ids[*number])).chain(due).collect::<Vec<_>>()
            {
                counts[usize::from(is_pin(number))] += 1;
                full.learn(&mut rng, record(number as u16, now), vec![1]);
            }
        }
        let [others, pinned] = [counts[0] / 1900, counts[1] / 100];
        assert!(others > 10 && pinned.abs_diff(others) <= 3, "asked for {pinned} times a day, others {others} times");
        assert!((0..100).all(|number| knows(&full, 20 * number)));
    }

    /// Of a node that look-ups never meet the last chance is taken, at a time of its own.
    // protocol: J10
    #[test]
    fn a_pinned_node_of_which_nothing_is_heard_is_asked_for_before_its_keys_are_over() {
        let (mut alone, mut rng) = sample(1);
        alone.pin([id(0)].into());
        // Others have pushed it out of the sample.
        alone.nodes.clear();
        let over = record(0, NOW).expires();
        let asked = (NOW..over).find(|now| alone.take_due(&mut rng, *now, 8).contains(&id(0)));
        assert!(asked.is_some_and(|at| (over - LAST_HOUR..over - 60).contains(&at)), "{asked:?}, over at {over}");
        assert!(knows(&alone, 0));
    }

    // protocol: J1
    #[test]
    fn a_full_sample_makes_room_at_random() {
        let (mut full, mut rng) = sample(SIZE as u16);
        let tries: usize = (0..100).map(|number| enters(&mut full, &mut rng, 1000 + number)).sum();
        assert!((7_000..13_000).contains(&tries), "one in {} enters", tries / 100);
        let first = (0..100).filter(|number| full.contains(&record(*number, NOW).contact.node_id())).count();
        assert!(full.len() == SIZE && (60..95).contains(&first), "{first} of the first hundred are left");
    }

    /// Above 512 nodes each round exchanged all whom it met: in ten minutes the whole sample, and the nodes near this one came back again
    /// and again.
    // protocol: J1, J2
    #[test]
    fn a_full_sample_is_stable_and_as_uniform_as_what_it_meets() {
        let (mut full, mut rng) = sample(SIZE as u16);
        let records: Vec<_> = (0..3000).map(|number| record(number, NOW)).collect();
        let ids: Vec<_> = records.iter().map(|record| record.contact.node_id()).collect();
        let first: BTreeSet<_> = ids[..SIZE].iter().copied().collect();
        let hour = |full: &mut Sample, rng: &mut StdRng| {
            for _ in 0..120 * 20 {
                let number = rng.random_range(0..records.len());
                if !full.contains(&ids[number]) {
                    full.learn(rng, records[number].clone(), vec![1]);
                }
            }
        };
        hour(&mut full, &mut rng);
        let kept = first.iter().filter(|id| full.contains(id)).count();
        assert!((SIZE - 45..SIZE - 8).contains(&kept), "{kept} after an hour");
        (0..200).for_each(|_| hour(&mut full, &mut rng));
        // A week later it is another, and none has more of a chance than others.
        let kept = first.iter().filter(|id| full.contains(id)).count();
        let fair = SIZE * SIZE / 3000;
        assert!(kept.abs_diff(fair) < 40, "{kept} of the first, {fair} are their share");
    }
}
