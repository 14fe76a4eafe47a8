//! Attacks on the network database, played by the rules as they are over a network whose routing finds the nearest nodes without fail:
//! each with the defence taken out, so that the attack is seen to work, and with it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::ident::Operator;
use phantom_proto::netdb::{
    Answer, Ballot, Distance, Key, Met, Place, Publisher, Quota, Region, Search, Shelf, Tally, Verdict, Written,
    ap_key, winner,
};
use phantom_proto::record::{ApRecord, RoutingEntry, STEP, Signed};
use phantom_proto::wire::NodeContact;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

const NOW: u64 = 1_800_000_000;
const K: usize = 20;
const MOST: usize = 128;
const QUOTA: Quota = Quota { nodes: 64, addresses: 64 };

/// What a node answers.
enum Mind {
    Honest(Box<Shelf>),
    /// Says that it keeps everything, and that there is nothing.
    Withholds,
    /// Says that it keeps everything, and always has this, before anybody else answers.
    Stale(Vec<u8>),
}

struct Node {
    met: Met,
    place: Place,
    mind: Mind,
}

struct World {
    nodes: Vec<Node>,
    region: Region,
    rng: ChaCha12Rng,
}

fn node(rng: &mut ChaCha12Rng, mind: impl Fn(&VerifyingKey) -> Mind) -> Node {
    let identity = VerifyingKey(rng.random());
    let met = Met { identity, operator: Operator::V4(rng.random()) };
    Node { met, place: Place::of_node(&identity), mind: mind(&identity) }
}

fn honest(identity: &VerifyingKey) -> Mind {
    Mind::Honest(Box::new(Shelf::new(identity, QUOTA)))
}

impl World {
    /// So many honest nodes, and as many random points as a node meets in some hours.
    fn new(seed: u64, count: usize) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let nodes = (0..count).map(|_| node(&mut rng, honest)).collect();
        let mut world = Self { nodes, region: Region::default(), rng };
        world.measure(32);
        world
    }

    fn measure(&mut self, points: usize) {
        for _ in 0..points {
            let target = Place::of_key(&self.rng.random::<[u8; 32]>());
            let near: Vec<_> =
                self.nearest(&target).iter().map(|at| &self.nodes[*at]).map(|n| (n.place, n.met.operator)).collect();
            self.region.measured(NOW, &target, near.into_iter());
        }
    }

    fn nearest(&self, to: &Place) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.nodes.len()).collect();
        all.select_nth_unstable_by_key(K, |at| to.distance(&self.nodes[*at].place));
        all.truncate(K);
        all
    }

    /// Whom a node asks that knows this of the size of a region.
    fn chosen(&mut self, key: &Key, radius: Distance) -> Vec<usize> {
        let mut search = Search::new(key, radius);
        let met = |world: &Self, at: &[usize]| at.iter().map(|at| world.nodes[*at].met).collect::<Vec<_>>();
        let near = self.nearest(&Place::of_key(key));
        search.found(met(self, &near));
        for point in search.more(&mut self.rng) {
            let near = self.nearest(&Place::of_key(&point));
            search.found(met(self, &near));
        }
        let at: BTreeMap<_, _> = self.nodes.iter().enumerate().map(|(at, node)| (node.met.identity.0, at)).collect();
        search.chosen(MOST).iter().map(|met| at[&met.identity.0]).collect()
    }

    fn publish(&mut self, key: &Key, record: &[u8], publisher: &Publisher, radius: Distance) -> Written {
        let (chosen, reach) = (self.chosen(key, radius), self.region.storers());
        let mut ballot = Ballot::new(chosen.iter().map(|at| self.nodes[*at].met.operator));
        for at in chosen {
            let node = &mut self.nodes[at];
            let answer = match &mut node.mind {
                Mind::Honest(shelf) => shelf.put(NOW, reach, key, record, publisher).into(),
                Mind::Withholds | Mind::Stale(_) => Answer::Stands,
            };
            ballot.hear(node.met.operator, Some(&answer));
        }
        ballot.outcome().unwrap()
    }

    fn ask(&self, at: usize, key: &Key) -> Answer {
        match &self.nodes[at].mind {
            Mind::Honest(shelf) => {
                shelf.get(NOW, key).map_or(Answer::Nothing, |record| Answer::Record(record.to_vec()))
            }
            Mind::Withholds => Answer::Nothing,
            Mind::Stale(record) => Answer::Record(record.clone()),
        }
    }

    /// Those who lie answer first.
    fn read(&mut self, key: &Key, radius: Distance) -> Verdict {
        let mut chosen = self.chosen(key, radius);
        chosen.sort_by_key(|at| matches!(self.nodes[*at].mind, Mind::Honest(_)));
        let mut tally = Tally::new(*key, chosen.iter().map(|at| self.nodes[*at].met.operator));
        for at in chosen {
            if let Some(verdict) = tally.verdict() {
                return verdict;
            }
            tally.hear(NOW, self.nodes[at].met.operator, Some(self.ask(at, key)));
        }
        tally.verdict().unwrap()
    }
}

/// A record of an address with an entry at a publisher that brings it.
fn record(rng: &mut ChaCha12Rng, owner: u16, number: u16, operator: [u8; 2]) -> (Key, Vec<u8>, Publisher) {
    let owner = [&owner.to_be_bytes()[..], &[7; 30]].concat().try_into().unwrap();
    let key = SigningKey::from_seed(&owner);
    let identity = SigningKey::from_seed(&rng.random()).verifying_key();
    let entry_node = NodeContact { identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let entry = RoutingEntry { entry_node, handle: [1; 16], until: NOW };
    let record = ApRecord::on_grid(key.verifying_key(), NOW / STEP, number, vec![entry]);
    let publisher = Publisher { identity, operator: Operator::V4(operator) };
    (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec(), publisher)
}

fn found(verdict: Verdict) -> Option<Vec<u8>> {
    match verdict {
        Verdict::Found(found) => Some(found.1),
        Verdict::Absent | Verdict::Unsure | Verdict::Contradicted => None,
    }
}

/// Sixty nodes nearer to a key than any other, each in a network of its own, that keep its record back. Without a region that says
/// how far one must look the twenty nearest are all that is asked; they take the record, and say that there is none.
#[test]
fn a_key_that_is_surrounded_is_written_and_read_all_the_same() {
    let mut world = World::new(1, 400);
    let (key, bytes, publisher) = record(&mut world.rng, 1, 0, [10, 1]);
    let at = Place::of_key(&key);
    let nearest = world.nodes.iter().map(|node| at.distance(&node.place)).min().unwrap();
    let mut surround = Vec::new();
    while surround.len() < 60 {
        let sybil = node(&mut world.rng, |_| Mind::Withholds);
        if at.distance(&sybil.place) < nearest {
            surround.push(sybil);
        }
    }
    world.nodes.extend(surround);
    world.measure(32);
    let radius = world.region.writers();
    // Taken out: as if nothing were known of the network's size.
    assert!(matches!(world.publish(&key, &bytes, &publisher, Distance::MAX), Written::Stands(_)), "so they say");
    assert_eq!(world.read(&key, Distance::MAX), Verdict::Absent);
    // And in.
    assert!(matches!(world.publish(&key, &bytes, &publisher, radius), Written::Stands(_)));
    assert_eq!(found(world.read(&key, radius)), Some(bytes));
}

/// A fifth of all nodes give a record that holds and that was replaced, faster than all others.
#[test]
fn a_stale_record_that_holds_does_not_win_by_being_fast() {
    let mut world = World::new(2, 400);
    let (mut at_three, mut by_tally) = (0, 0);
    for owner in 0..20 {
        let (key, old, _) = record(&mut world.rng, owner, 0, [10, 1]);
        let (_, new, publisher) = record(&mut world.rng, owner, 1, [10, 1]);
        for at in (0..world.nodes.len()).step_by(5) {
            world.nodes[at].mind = Mind::Stale(old.clone());
        }
        let radius = world.region.writers();
        world.publish(&key, &new, &publisher, radius);
        // Taken out: the first three answers with a record decide.
        let mut near = world.nearest(&Place::of_key(&key));
        near.sort_by_key(|at| matches!(world.nodes[*at].mind, Mind::Honest(_)));
        let answers = near.iter().filter_map(|at| match world.ask(*at, &key) {
            Answer::Record(record) => Some(record),
            _ => None,
        });
        at_three += usize::from(winner(NOW, &key, answers.take(3)).unwrap().1 != new);
        by_tally += usize::from(found(world.read(&key, radius)).unwrap() != new);
    }
    assert!(at_three > 10, "the attack works: {at_three} of 20");
    assert_eq!(by_tally, 0, "of 20 the stale one");
}

/// Somebody with four networks fills a shelf ten times over, before honest records come and after.
#[test]
fn a_full_shelf_takes_what_comes_from_others() {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let own = VerifyingKey(rng.random());
    let mut shelf = Shelf::new(&own, QUOTA);
    // Taken out: who came first stays.
    let mut first_come: Vec<Key> = Vec::new();
    let mut bring = |shelf: &mut Shelf, owner: u16, operator: [u8; 2], rng: &mut ChaCha12Rng| {
        let (key, bytes, publisher) = record(rng, owner, 0, operator);
        let _ = shelf.put(NOW, Distance::MAX, &key, &bytes, &publisher);
        if first_come.len() < QUOTA.addresses {
            first_come.push(key);
        }
        key
    };
    let flood = |owner: u16| (1000 + owner, [10, (owner % 4) as u8]);
    for (owner, operator) in (0..320).map(flood) {
        bring(&mut shelf, owner, operator, &mut rng);
    }
    let honest: Vec<_> = (0..20).map(|owner| bring(&mut shelf, owner, [20, owner as u8], &mut rng)).collect();
    for (owner, operator) in (320..640).map(flood) {
        bring(&mut shelf, owner, operator, &mut rng);
    }
    assert!(honest.iter().all(|key| shelf.get(NOW, key).is_some()), "a flood keeps others out");
    assert!(!honest.iter().any(|key| first_come.contains(key)), "the attack works");
}
