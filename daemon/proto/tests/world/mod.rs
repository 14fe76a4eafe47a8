//! A network for attacks on its database: the rules as they are, over routing that finds the nearest nodes without fail. Nobody is silent.

use std::collections::BTreeMap;

use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::ident::Operator;
use phantom_proto::netdb::{
    Answer, Ballot, Distance, Ended, Key, Met, Place, Publisher, Quota, Region, Search, Shelf, Tally, Verdict, Written,
    ap_key,
};
use phantom_proto::record::{ApRecord, RoutingEntry, STEP, Signed};
use phantom_proto::wire::NodeContact;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// When all of it happens, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

/// How many nodes routing finds, and how many are asked at most.
pub(crate) const K: usize = 20;
const MOST: usize = 128;

/// Small, so that it is full soon.
pub(crate) const QUOTA: Quota = Quota { nodes: 64, addresses: 64 };

/// What a node answers.
pub(crate) enum Mind {
    Honest(Box<Shelf>),
    /// Says that it keeps everything, and that there is nothing.
    Withholds,
    /// Says that it keeps everything, and always has this, before anybody else answers.
    Stale(Vec<u8>),
}

pub(crate) struct Node {
    pub(crate) met: Met,
    pub(crate) place: Place,
    pub(crate) mind: Mind,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) region: Region,
    pub(crate) rng: ChaCha12Rng,
    /// Where a node stands in the list, by identity.
    places: BTreeMap<[u8; 32], usize>,
}

pub(crate) fn node(rng: &mut ChaCha12Rng, mind: impl Fn(&VerifyingKey) -> Mind) -> Node {
    let identity = VerifyingKey(rng.random());
    let met = Met { identity, operator: Operator::V4(rng.random()) };
    Node { met, place: Place::of_node(&identity), mind: mind(&identity) }
}

pub(crate) fn honest(identity: &VerifyingKey) -> Mind {
    Mind::Honest(Box::new(Shelf::new(identity, QUOTA)))
}

impl World {
    /// So many honest nodes, and as many random points as a node meets in some hours.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let nodes = (0..count).map(|_| node(&mut rng, honest)).collect();
        let mut world = Self { nodes: Vec::new(), region: Region::default(), rng, places: BTreeMap::new() };
        world.join(nodes);
        world
    }

    /// More nodes, and as many points again.
    pub(crate) fn join(&mut self, nodes: Vec<Node>) {
        for node in nodes {
            self.places.insert(node.met.identity.0, self.nodes.len());
            self.nodes.push(node);
        }
        self.measure(32);
    }

    pub(crate) fn measure(&mut self, points: usize) {
        for _ in 0..points {
            let target = Place::of_key(&self.rng.random::<[u8; 32]>());
            let near: Vec<_> =
                self.nearest(&target).iter().map(|at| &self.nodes[*at]).map(|n| (n.place, n.met.operator)).collect();
            self.region.measured(NOW, &target, near.into_iter());
        }
    }

    pub(crate) fn nearest(&self, to: &Place) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.nodes.len()).collect();
        all.select_nth_unstable_by_key(K, |at| to.distance(&self.nodes[*at].place));
        all.truncate(K);
        all
    }

    /// Whom a node asks that knows this of the size of a region; whether it has met enough of it.
    pub(crate) fn chosen(&mut self, key: &Key, radius: Distance) -> (Vec<usize>, bool) {
        let mut search = Search::new(key, radius);
        let met = |world: &Self, at: &[usize]| at.iter().map(|at| world.nodes[*at].met).collect::<Vec<_>>();
        let near = self.nearest(&Place::of_key(key));
        search.found(met(self, &near), Ended::Whole);
        for point in search.more(&mut self.rng) {
            let near = self.nearest(&Place::of_key(&point));
            search.found(met(self, &near), Ended::Whole);
        }
        (search.chosen(&mut self.rng, MOST).iter().map(|met| self.places[&met.identity.0]).collect(), search.is_whole())
    }

    pub(crate) fn publish(&mut self, key: &Key, record: &[u8], publisher: &Publisher, radius: Distance) -> Written {
        let ((chosen, _), reach) = (self.chosen(key, radius), self.region.storers());
        let mut ballot = Ballot::new(chosen.iter().map(|at| self.nodes[*at].met.operator));
        for at in chosen {
            let node = &mut self.nodes[at];
            let answer = match &mut node.mind {
                Mind::Honest(shelf) => shelf.put(NOW, reach, key, record, publisher).into(),
                Mind::Withholds | Mind::Stale(_) => Answer::Stands,
            };
            ballot.hear(node.met.operator, Some(&answer));
        }
        ballot.outcome().expect("everybody has answered")
    }

    /// Records as they come from those nearest when whoever lies answers before all others.
    pub(crate) fn fastest(&self, key: &Key) -> impl Iterator<Item = Vec<u8>> {
        let mut near = self.nearest(&Place::of_key(key));
        near.sort_by_key(|at| matches!(self.nodes[*at].mind, Mind::Honest(_)));
        near.into_iter().filter_map(|at| match self.ask(at, key) {
            Answer::Record(record) => Some(record),
            _ => None,
        })
    }

    pub(crate) fn ask(&self, at: usize, key: &Key) -> Answer {
        match &self.nodes[at].mind {
            Mind::Honest(shelf) => {
                shelf.get(NOW, key).map_or(Answer::Nothing, |record| Answer::Record(record.to_vec()))
            }
            Mind::Withholds => Answer::Nothing,
            Mind::Stale(record) => Answer::Record(record.clone()),
        }
    }

    /// Those who lie answer first.
    pub(crate) fn read(&mut self, key: &Key, radius: Distance) -> Verdict {
        let (mut chosen, is_whole) = self.chosen(key, radius);
        chosen.sort_by_key(|at| matches!(self.nodes[*at].mind, Mind::Honest(_)));
        let mut tally = Tally::new(*key, chosen.iter().map(|at| self.nodes[*at].met.operator), is_whole);
        for at in chosen {
            if let Some(verdict) = tally.verdict() {
                return verdict;
            }
            tally.hear(NOW, self.nodes[at].met.operator, Some(self.ask(at, key)));
        }
        tally.verdict().expect("everybody has answered")
    }
}

/// A record of an address with an entry at a publisher that brings it.
pub(crate) fn record(rng: &mut ChaCha12Rng, owner: u16, number: u16, operator: [u8; 2]) -> (Key, Vec<u8>, Publisher) {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&owner.to_be_bytes());
    let key = SigningKey::from_seed(&seed);
    let identity = SigningKey::from_seed(&rng.random()).verifying_key();
    let entry_node = NodeContact { identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let entry = RoutingEntry { entry_node, handle: [1; 16], until: NOW };
    let record = ApRecord::on_grid(key.verifying_key(), NOW / STEP, number, vec![entry]);
    let publisher = Publisher { identity, operator: Operator::V4(operator) };
    (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec(), publisher)
}

pub(crate) fn found(verdict: Verdict) -> Option<Vec<u8>> {
    match verdict {
        Verdict::Found(found) => Some(found.1),
        Verdict::Absent | Verdict::Unsure | Verdict::Contradicted => None,
    }
}
