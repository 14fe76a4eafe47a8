//! Who is asked about a key: the nodes of its region, however many others crowd around it.
//!
//! ```text
//!   region   ├──────·───────·─────────·──xxxxKEYxxxx─────·────────·──────┤
//!                                       the twenty nearest
//! ```
//! When the twenty nearest fill only a small part of the region, somebody crowds around the key: then random points of the
//! region are looked for too, and bring the others. No operator is asked a second node before each was asked one.

use std::collections::BTreeMap;

use rand::{CryptoRng, RngExt};

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

/// Which nodes are asked about a key.
#[derive(Debug)]
pub struct Search {
    key: Place,
    radius: Distance,
    found: BTreeMap<Distance, Met>,
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
        Self { key: Place::of_key(key), radius, found: BTreeMap::new() }
    }

    /// A look-up brought these: all of them have answered.
    pub fn found(&mut self, nodes: impl IntoIterator<Item = Met>) {
        self.found.extend(nodes.into_iter().map(|met| (self.key.distance(&Place::of_node(&met.identity)), met)));
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
    /// the second of each, and so on.
    // protocol: D32
    pub fn chosen(&self, most: usize) -> Vec<Met> {
        let mut of_operator: BTreeMap<Operator, usize> = BTreeMap::new();
        let near =
            self.found.iter().enumerate().filter(|(rank, (distance, _))| *rank < NODES || **distance <= self.radius);
        let mut ranked: Vec<_> = near
            .map(|(_, (distance, met))| {
                let place = of_operator.entry(met.operator).or_default();
                *place += 1;
                (*place, *distance, *met)
            })
            .collect();
        ranked.sort_by_key(|(place, distance, _)| (*place, *distance));
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
            search.found(nodes.to_vec());
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
        near.found(crowd[..20].to_vec());
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
        search.found(crowd.iter().chain(&others).copied());
        let chosen = search.chosen(128);
        assert_eq!(chosen.len(), 128);
        assert!(others.iter().all(|other| chosen[..21].contains(other)), "one of the crowd comes first, and no more");
        assert_eq!(search.chosen(5).iter().map(|met| met.operator).collect::<std::collections::BTreeSet<_>>().len(), 5);
        // What lies beyond the region is asked only where the region has not twenty.
        let mut thin = Search::new(&KEY, 0);
        thin.found(others.iter().copied().chain(crowd[990..].to_vec()));
        assert_eq!(thin.chosen(128).len(), 20);
    }
}
