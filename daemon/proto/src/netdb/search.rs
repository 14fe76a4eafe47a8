//! Who is asked about a key: the nodes of its region, however many others crowd around it.
//!
//! ```text
//!   region   ├──────·───────·─────────·──xxxxKEYxxxx─────·────────·──────┤
//!                                       the twenty nearest
//! ```
//! When the twenty nearest fill only a small part of the region, somebody crowds around the key: then random points of the
//! region are looked for too, and bring the others. No operator is asked a second node before each was asked one.
//!
//! A look-up brings those who answer it in time. Who does not may be the one that has the record, so its silence must not pass for a
//! word: neighbours are asked whether they answered or not, and a look-up that was cut short is no ground for "there is none".

use std::collections::BTreeMap;

use rand::{CryptoRng, Rng, RngExt};

use super::Key;
use super::place::{Distance, Place};
use super::region::NODES;
use crate::crypto::VerifyingKey;
use crate::ident::Operator;

/// Points of a region that are looked for when the nearest nodes do not fill it. Each brings the twenty nodes around it.
const POINTS: usize = 8;

/// The twenty nearest fill a region if they reach this part of its radius: where nobody crowds, they nearly always do.
const FILLS: Distance = 4;

/// Tries at a point of the region; one in a few thousand hits the region of a network of 100 000 nodes.
const TRIES: usize = 1 << 17;

/// Where a region has [`NODES`], a search that has met fewer than this has not met it: half of them may be down.
const ENOUGH: usize = NODES / 2;

/// Which nodes are asked about a key.
#[derive(Debug)]
pub struct Search {
    key: Place,
    radius: Distance,
    found: BTreeMap<Distance, Met>,
    /// Those with which a connection stands: they are there, whether or not they answered.
    neighbours: BTreeMap<Distance, Met>,
    /// A look-up ended before all whom it met had answered.
    is_cut: bool,
}

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody was waited for any more.
    Whole,
    /// Its time was over.
    Cut,
}

/// A node that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// Its key.
    pub identity: VerifyingKey,
    /// Whose it is.
    pub operator: Operator,
}

impl Search {
    /// Of a key, and how far from it its record is kept.
    pub fn new(key: &Key, radius: Distance) -> Self {
        let (found, neighbours) = (BTreeMap::new(), BTreeMap::new());
        Self { key: Place::of_key(key), radius, found, neighbours, is_cut: false }
    }

    /// A look-up brought these: all of them have answered.
    pub fn found(&mut self, nodes: impl IntoIterator<Item = Met>, ended: Ended) {
        let key = self.key;
        self.found.extend(nodes.into_iter().map(|met| (key.distance(&Place::of_node(&met.identity)), met)));
        self.is_cut |= ended == Ended::Cut;
    }

    /// A connection stands with these, the nearest of the routing table: they are met, and asked if they are near enough.
    // protocol: D39
    pub fn knows(&mut self, nodes: impl IntoIterator<Item = Met>) {
        let key = self.key;
        self.neighbours.extend(nodes.into_iter().map(|met| (key.distance(&Place::of_node(&met.identity)), met)));
    }

    /// Whether enough of the region was met that what nobody there has is nowhere.
    // protocol: D40
    pub fn is_whole(&self) -> bool {
        !self.is_cut && (self.radius == Distance::MAX || self.found.len() >= ENOUGH)
    }

    /// The key's own look-up has ended: what else to look for.
    // protocol: D31
    pub fn more(&self, rng: &mut impl CryptoRng) -> Vec<[u8; 32]> {
        let farthest = self.found.keys().next_back().copied().unwrap_or(Distance::MAX);
        let is_filled = self.found.len() < NODES || farthest >= self.radius / FILLS;
        if is_filled || self.radius == Distance::MAX {
            return Vec::new();
        }
        let within = |point: &[u8; 32]| self.key.distance(&Place::of_key(point)) <= self.radius;
        (0..TRIES).map(|_| rng.random()).filter(within).take(POINTS).collect()
    }

    /// Whom to ask, at most `most`: of the region, or of the nearest twenty, whichever are more; first the nearest of each operator, then
    /// the second of each, and so on. Of those beyond the nearest twenty chance says which: a crowd whose networks are all different, met again
    /// at every point of the region and nearer than whoever lies there, would take all places.
    // protocol: D32
    pub fn chosen(&self, rng: &mut impl Rng, most: usize) -> Vec<Met> {
        let mut of_operator: BTreeMap<Operator, usize> = BTreeMap::new();
        let all: BTreeMap<_, _> = self.neighbours.iter().chain(&self.found).collect();
        let near =
            all.into_iter().enumerate().filter(|(rank, (distance, _))| *rank < NODES || **distance <= self.radius);
        let mut ranked: Vec<_> = near
            .map(|(rank, (_, met))| {
                let place = of_operator.entry(met.operator).or_default();
                *place += 1;
                let turn = if rank < NODES { (0, rank as u64) } else { (1, rng.random()) };
                (*place, turn, *met)
            })
            .collect();
        ranked.sort_by_key(|(place, turn, _)| (*place, *turn));
        ranked.into_iter().take(most).map(|(_, _, met)| met).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    use super::*;

    const KEY: Key = [b'a'; 33];

    fn met(rng: &mut ChaCha12Rng, operator: u8) -> Met {
        Met { identity: VerifyingKey(rng.random()), operator: Operator::V4([10, operator]) }
    }

    fn distance(met: &Met) -> Distance {
        Place::of_key(&KEY).distance(&Place::of_node(&met.identity))
    }

    // protocol: D31
    #[test]
    fn a_region_is_looked_through_only_when_its_nearest_nodes_do_not_fill_it() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let nodes: Vec<_> = (0..20).map(|number| met(&mut rng, number)).collect();
        let farthest = nodes.iter().map(distance).max().unwrap();
        let points = |radius, nodes: &[Met], rng: &mut ChaCha12Rng| {
            let mut search = Search::new(&KEY, radius);
            search.found(nodes.to_vec(), Ended::Whole);
            search.more(rng)
        };
        assert_eq!(points(farthest, &nodes, &mut rng), [[0; 32]; 0]);
        assert_eq!(points(Distance::MAX, &nodes, &mut rng), [[0; 32]; 0], "nothing is known of the network's size");
        assert_eq!(points(farthest, &nodes[..19], &mut rng), [[0; 32]; 0], "that was all of the network");
        // They crowd: the region is much larger than they reach.
        let mut near = Search::new(&KEY, Distance::MAX - 1);
        let crowd = (0..20_000).map(|_| met(&mut rng, 1));
        let mut crowd: Vec<_> = crowd.collect();
        crowd.sort_by_key(distance);
        near.found(crowd[..20].to_vec(), Ended::Whole);
        let radius = Distance::MAX - 1;
        let looked = near.more(&mut rng);
        assert_eq!(looked.len(), POINTS);
        assert!(looked.iter().all(|point| Place::of_key(&KEY).distance(&Place::of_key(point)) <= radius));
    }

    /// A thousand of one operator around the key, and twenty others in the region.
    // protocol: D32
    #[test]
    fn each_operator_is_asked_once_before_any_is_asked_twice() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let mut crowd: Vec<_> = (0..20_000).map(|_| met(&mut rng, 255)).collect();
        crowd.sort_by_key(distance);
        crowd.truncate(1000);
        let others: Vec<_> = (0..20).map(|number| met(&mut rng, number)).collect();
        let mut search = Search::new(&KEY, Distance::MAX - 1);
        search.found(crowd.iter().chain(&others).copied(), Ended::Whole);
        let chosen = search.chosen(&mut rng, 128);
        assert_eq!(chosen.len(), 128);
        assert!(others.iter().all(|other| chosen[..21].contains(other)), "one of the crowd comes first, and no more");
        assert_eq!(
            search.chosen(&mut rng, 5).iter().map(|met| met.operator).collect::<std::collections::BTreeSet<_>>().len(),
            5
        );
        // What lies beyond the region is asked only where the region has not twenty.
        let mut thin = Search::new(&KEY, 0);
        thin.found(others.iter().copied().chain(crowd[990..].to_vec()), Ended::Whole);
        assert_eq!(thin.chosen(&mut rng, 128).len(), 20);
    }

    /// A crowd of which each is in a network of its own, found at all points of the region: nearer than all others, and more than are asked.
    // protocol: D32
    #[test]
    fn a_crowd_that_is_nearer_than_all_others_is_not_all_that_is_asked() {
        let mut rng = ChaCha12Rng::seed_from_u64(5);
        let mut all: Vec<_> = (0..1000_u16)
            .map(|number| Met { operator: Operator::V4(number.to_be_bytes()), ..met(&mut rng, 0) })
            .collect();
        all.sort_by_key(distance);
        let (crowd, others) = (&all[..200], &all[900..928]);
        let mut search = Search::new(&KEY, Distance::MAX - 1);
        search.found(crowd.iter().chain(others).copied(), Ended::Whole);
        let asked = search.chosen(&mut rng, 128);
        let of_others = others.iter().filter(|other| asked.contains(other)).count();
        assert!(asked.len() == 128 && of_others >= 5, "{of_others} of 28");
        assert!(crowd[..20].iter().all(|near| asked.contains(near)), "the nearest in any case");
    }

    /// Under load nobody answered a look-up in time but the hostile nodes, and who had the record was not asked.
    // protocol: D39
    #[test]
    fn who_is_connected_is_asked_whether_it_answered_the_look_up_or_not() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let [honest, hostile] =
            [0, 100].map(|from| (from..from + 8).map(|number| met(&mut rng, number)).collect::<Vec<_>>());
        let mut search = Search::new(&KEY, Distance::MAX);
        search.knows(honest.iter().chain(&hostile[..2]).copied());
        search.found(hostile.clone(), Ended::Cut);
        let asked = search.chosen(&mut rng, 128);
        assert!(honest.iter().chain(&hostile).all(|node| asked.contains(node)));
        assert_eq!(asked.len(), 16, "nobody twice");
        // Where others are nearer, and enough of them, those far away have nothing to say; nor do they make a crowd fill its region.
        let mut all: Vec<_> = (0..20_000).map(|number| met(&mut rng, number as u8)).collect();
        all.sort_by_key(distance);
        let far = all[10_000..10_020].to_vec();
        let mut search = Search::new(&KEY, Distance::MAX / 3);
        search.knows(far.clone());
        search.found(all[..20].to_vec(), Ended::Whole);
        assert_eq!(search.more(&mut rng).len(), POINTS);
        let asked = search.chosen(&mut rng, 128);
        assert!(far.iter().filter(|far| distance(far) > Distance::MAX / 3).all(|far| !asked.contains(far)));
    }

    /// The first look-up was cut short, or one of those at the region's points; or hardly anybody is there of a network that has many.
    // protocol: D40
    #[test]
    fn a_search_that_was_cut_short_has_not_met_its_region() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        let nodes: Vec<_> = (0..20).map(|number| met(&mut rng, number)).collect();
        let whole = |radius, parts: &[(usize, Ended)]| {
            let mut search = Search::new(&KEY, radius);
            parts.iter().for_each(|(count, ended)| search.found(nodes[..*count].to_vec(), *ended));
            search.is_whole()
        };
        let known = Distance::MAX / 2;
        assert!(whole(known, &[(20, Ended::Whole), (20, Ended::Whole)]));
        assert!(!whole(known, &[(20, Ended::Cut)]) && !whole(Distance::MAX, &[(20, Ended::Cut)]));
        assert!(!whole(known, &[(20, Ended::Whole), (3, Ended::Cut), (20, Ended::Whole)]));
        assert!(whole(known, &[(10, Ended::Whole)]) && !whole(known, &[(9, Ended::Whole)]));
        assert!(whole(Distance::MAX, &[(2, Ended::Whole)]), "a network of three");
    }
}
