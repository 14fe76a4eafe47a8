//! The local sample of the node table: records of which paths are planned, each renewed before its keys are over.
//!
//! ```text
//!   record's epoch        the next one: its keys are in the record too         over
//!   ├────────────────────┼──── renewed at a random time ────┤─ again and again ┤ thrown out
//! ```
//!
//! Who enters it, `newcomers` says: a flood of nodes takes it over neither soon nor from few networks. Who stays, `terms` says: half of its
//! places nobody takes from nodes that were reached for days.

mod newcomers;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ident::{NodeId, Operator, Spread};
use crate::record::{EPOCH, NodeRecord, Record as _};
use crate::wire::NodeContact;
use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};

use newcomers::Newcomers;
pub use terms::Term;
use terms::Terms;

/// Nodes in it: ample to draw circles from, small to keep fresh.
// protocol: J1
pub const SAMPLE: usize = 512;

/// Below so many nodes the sample takes whom it can get.
// protocol: J2
pub const SPARSE: usize = 24;

/// One in so many of those that a full sample meets enters it: of 20 met every 30 s 24 an hour, 5 % of the sample. A flood takes days to
/// change it, as uniform as it is by then it becomes only slowly, and those of a plan stay known while it stands.
// protocol: J1
const ENTERS: u32 = 100;

/// Nodes of one operator in it: paths give each operator one ticket, so more of them are of no use but to who floods it.
// protocol: J15
const OF_OPERATOR: usize = 8;

/// One in so many places is for those that have settled. The others change as chance says: nodes that are new in the network get work, too.
// protocol: J17
const SETTLED: usize = 2;

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
pub struct Sample {
    /// How many nodes it has at most.
    size: usize,
    spread: Spread,
    newcomers: Newcomers,
    terms: Terms,
    /// How many places nobody takes from those that have settled.
    settled: usize,
    nodes: BTreeMap<NodeId, Known>,
    /// Bounded: only nodes of which there is a record are noted.
    silent: BTreeSet<NodeId>,
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
    fn new(rng: &mut impl Rng, record: NodeRecord, bytes: Vec<u8>, seen: Option<u64>) -> Self {
        let renew_at = record.epoch.end() + rng.random_range(0..RENEW_WITHIN);
        Self { record: Arc::new(record), bytes, renew_at, seen, told: false }
    }

    /// Whose it is; it is known by this id.
    fn operator(&self, spread: Spread, id: &NodeId) -> Operator {
        Operator::of(spread, *id, self.record.contact.addr.ip())
    }

    /// Whether a record that was looked up takes its place.
    fn yields(&self, record: &NodeRecord) -> bool {
        self.record.version() < record.version() || self.told && self.record.contradicts(record)
    }
}

impl Sample {
    /// An empty one of a network in which nodes are spread so.
    pub fn new(spread: Spread) -> Self {
        Self {
            size: SAMPLE,
            spread,
            newcomers: Newcomers::default(),
            terms: Terms::default(),
            settled: SAMPLE / SETTLED,
            nodes: BTreeMap::new(),
            silent: BTreeSet::new(),
            pinned: BTreeSet::new(),
            held: BTreeMap::new(),
            missing: BTreeMap::new(),
        }
    }

    /// One of another size, and with so many places for those that have settled: for small networks, in tests, and to see what the rule is good for.
    pub fn sized(self, size: usize, settled: usize) -> Self {
        Self { size, settled, ..self }
    }

    /// Takes back a record of an earlier run: its node is no newcomer.
    // protocol: J8
    pub fn restore(&mut self, rng: &mut impl Rng, record: NodeRecord, bytes: Vec<u8>) {
        if self.nodes.len() < self.size {
            let (id, known) = (record.contact.node_id(), Known::new(rng, record, bytes, None));
            self.nodes.insert(id, known);
        }
    }

    /// Takes back for how long a node had been reached in an earlier run.
    pub fn restore_term(&mut self, now: u64, id: NodeId, term: Term) {
        self.terms.restore(now, id, term);
    }

    /// Takes a record that holds. False: it says nothing new.
    pub fn learn(&mut self, rng: &mut impl Rng, now: u64, record: NodeRecord, bytes: Vec<u8>) -> bool {
        let id = record.contact.node_id();
        if self.nodes.get(&id).is_some_and(|known| !known.yields(&record)) {
            return false;
        }
        let seen = self.of(&id).and_then(|known| known.seen);
        let known = Known::new(rng, record, bytes, seen);
        let held = self.hold(&id, &known);
        if !self.nodes.contains_key(&id) && !self.makes_room(rng, now, &id, &known) {
            return held;
        }
        self.nodes.insert(id, known);
        true
    }

    /// Takes a record that its node told us by itself, if it is pinned: the others are asked for anyway. A node could tell each neighbour
    /// keys of its own, and know by the key who builds; so keys that are known stay, what others have of it wins, and it is looked up as
    /// soon as without.
    // protocol: J2, J11
    pub fn heard(&mut self, record: NodeRecord, bytes: Vec<u8>) -> bool {
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
    /// most often nor who floods the table decides who comes and who goes. One of an operator that has its share takes the place of
    /// another of its own. The eldest of those that have settled make room for nobody as long as they answer, and one that comes back is no
    /// newcomer as long as places of theirs are free.
    // protocol: J1, J14, J15, J17
    fn makes_room(&mut self, rng: &mut impl Rng, now: u64, id: &NodeId, newcomer: &Known) -> bool {
        let is_full = self.nodes.len() >= self.size;
        let returns = is_full && self.returns(now, id);
        if is_full && !returns && !rng.random_ratio(1, ENTERS) {
            return false;
        }
        let operator = newcomer.operator(self.spread, id);
        let own = |(id, known): &(&NodeId, &Known)| known.operator(self.spread, id) == operator;
        let has_share = !self.is_sparse() && self.nodes.iter().filter(own).count() >= OF_OPERATOR;
        if has_share && !is_full && !rng.random_ratio(1, ENTERS) {
            return false;
        }
        let stay = self.stay(rng, now);
        let may_go = self.nodes.iter().filter(|node| if has_share { own(node) } else { is_full });
        let goes = may_go.map(|(id, _)| *id).filter(|id| !stay.contains(id)).choose(rng);
        if goes.is_none() && (is_full || has_share) || !returns && !self.newcomers.enters(now, self.nodes.len()) {
            return false;
        }
        if let Some(id) = goes {
            self.nodes.remove(&id);
            self.quiet(&id);
        }
        true
    }

    /// The eldest of those that have settled and answer.
    fn stay(&self, rng: &mut impl Rng, now: u64) -> BTreeSet<NodeId> {
        let answer = self.nodes.keys().filter(|id| !self.silent.contains(*id));
        self.terms.eldest(rng, now, answer, self.settled)
    }

    /// Whether one that had settled finds one of their places free.
    fn returns(&self, now: u64, id: &NodeId) -> bool {
        let settled = |id: &NodeId| self.terms.has_settled(now, id);
        settled(id) && self.nodes.keys().filter(|id| settled(id)).count() < self.settled
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
    pub fn pin(&mut self, nodes: BTreeSet<NodeId>) {
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
    pub fn take_due(&mut self, rng: &mut impl Rng, now: u64, most: usize) -> Vec<NodeId> {
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
    pub fn forget(&mut self, which: impl Fn(&NodeId) -> bool + Copy) {
        for nodes in [&mut self.nodes, &mut self.held] {
            nodes.retain(|id, _| !which(id));
        }
        self.silent.retain(|id| !which(id));
        self.terms.forget(which);
    }

    /// Throws out what has expired, by our own clock.
    // protocol: J6
    pub fn sweep(&mut self, now: u64) {
        for nodes in [&mut self.nodes, &mut self.held] {
            nodes.retain(|_, known| known.record.expires() > now);
        }
        self.terms.sweep(now);
        let silent: Vec<_> = self.silent.iter().copied().collect();
        silent.iter().for_each(|id| self.quiet(id));
    }

    /// Where a node says itself that it is.
    pub fn contact(&self, id: &NodeId) -> Option<&NodeContact> {
        self.of(id).map(|known| &known.record.contact)
    }

    /// This node's own link came about, to a node there. Whether it is there or only calls from elsewhere, its own record says.
    // protocol: J17
    pub fn reached(&mut self, now: u64, at: &NodeContact) {
        let id = at.node_id();
        if self.contact(&id) == Some(at) {
            self.terms.reached(now, id);
        }
    }

    /// Since when nodes have been reached, those that are absent among them.
    pub fn terms(&self) -> impl Iterator<Item = (NodeId, Term)> {
        self.terms.all()
    }

    /// A node could not be reached where it says itself that it is.
    pub fn unreachable(&mut self, rng: &mut impl Rng, now: u64, id: NodeId) {
        if self.of(&id).is_some()
            && self.silent.insert(id)
            && let Some(known) = self.nodes.get_mut(&id)
        {
            known.renew_at = known.renew_at.min(now + rng.random_range(0..MOVED_WITHIN));
        }
    }

    /// A node says that it is there, to whoever is connected to it: where its record says something else, there is a newer one.
    // protocol: J3
    pub fn says(&mut self, rng: &mut impl Rng, now: u64, at: &NodeContact) {
        if let Some(known) = self.nodes.get_mut(&at.node_id())
            && known.record.contact != *at
        {
            known.renew_at = known.renew_at.min(now + rng.random_range(0..MOVED_WITHIN));
        }
    }

    /// A node is connected, or was until now.
    pub fn connected(&mut self, now: u64, id: &NodeId) {
        self.silent.remove(id);
        self.terms.connected(now, id);
        for known in [self.nodes.get_mut(id), self.held.get_mut(id)].into_iter().flatten() {
            known.seen = Some(now);
        }
    }

    /// When nodes were last connected, as far as they were.
    pub fn seen(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.all().filter_map(|(id, known)| Some((*id, known.seen?)))
    }

    /// Some nodes that do not answer, at most `most`: to be tried again.
    pub fn some_silent(&self, rng: &mut impl Rng, most: usize) -> Vec<NodeContact> {
        let contact = |id: &NodeId| self.of(id).map(|known| known.record.contact.clone());
        self.silent.iter().filter_map(contact).sample(rng, most)
    }

    /// Whether anything is known of it, in the sample or beside it.
    pub fn knows(&self, id: &NodeId) -> bool {
        self.of(id).is_some() || self.pinned.contains(id)
    }

    /// Whether chance has filled the sample with it: then it is not asked for when it is heard of again.
    pub fn contains(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    /// The sample, and those that are held beside it.
    fn all(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.nodes.iter().chain(self.held.iter().filter(|(id, _)| !self.nodes.contains_key(*id)))
    }

    /// Whether chance has brought nobody yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many nodes chance has filled it with.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether whoever is known is welcome. Later only those count whom random look-ups meet: who is near this node, or stays connected, is
    /// no random draw.
    // protocol: J2
    pub fn is_sparse(&self) -> bool {
        self.nodes.len() < SPARSE
    }

    /// Nodes that do not answer.
    pub fn silent(&self) -> impl Iterator<Item = &NodeId> {
        self.silent.iter()
    }

    /// What is known of each node.
    pub fn records(&self) -> impl Iterator<Item = &Arc<NodeRecord>> {
        self.all().map(|(_, known)| &known.record)
    }

    /// Every record as it was signed, by node.
    pub fn signed(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        self.all().map(|(id, known)| (*id, known.bytes.as_slice()))
    }
}

#[cfg(test)]
mod tests;
