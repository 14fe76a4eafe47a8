//! How large a region is: as far from a key as those lie who keep its record.
//!
//! Whoever adds nodes to a place makes it dense there. So a region is as large as it must be where the network is thin: at each of
//! many random points it is measured how far one must go to meet [`NODES`] of different operators, and the upper quartile counts.

use std::collections::{BTreeMap, VecDeque};

use super::place::{Distance, Place};
use crate::ident::Operator;

/// Nodes of different operators that a region is to have; Kademlia's k.
pub(super) const NODES: usize = 20;

/// Fewer points say nothing.
const POINTS_MIN: usize = 16;

/// The last so many count: a day's in a calm network is twice that.
const POINTS_MAX: usize = 64;

/// A region grows or shrinks by at most a factor of two in so many seconds.
const DOUBLES_IN: u64 = 86_400;

/// Those who keep records accept them so many times farther away than those who write them go: two that differ in what they know of the
/// network's size still agree.
const STORERS: Distance = 4;

/// How far from a key its record is kept.
#[derive(Debug, Default)]
pub struct Region {
    points: VecDeque<Distance>,
    radius: Option<(Distance, u64)>,
}

impl Region {
    /// At `target`, a random point, the nodes nearest to it were looked for: all that answered, with whose they are.
    // protocol: D28
    pub fn measured(&mut self, now: u64, target: &Place, nodes: impl Iterator<Item = (Place, Operator)>) {
        let mut nearest: BTreeMap<Operator, Distance> = BTreeMap::new();
        let (mut met, mut farthest) = (0, 0);
        for (place, operator) in nodes {
            let distance = target.distance(&place);
            let of_operator = nearest.entry(operator).or_insert(distance);
            *of_operator = distance.min(*of_operator);
            (met, farthest) = (met + 1, distance.max(farthest));
        }
        let point = match nearest.len() {
            // That was all of the network.
            _ if met < NODES => Distance::MAX,
            distinct => (farthest / distinct as Distance).saturating_mul(NODES as Distance),
        };
        self.points.push_back(point);
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
        self.adjust(now);
    }

    fn adjust(&mut self, now: u64) {
        if self.points.len() < POINTS_MIN {
            return;
        }
        let mut sorted = Vec::from(self.points.clone());
        sorted.sort_unstable();
        let wanted = sorted[sorted.len() * 3 / 4];
        let radius = self.radius.map_or(wanted, |(radius, since)| {
            let days = now.saturating_sub(since).min(DOUBLES_IN) as f64 / DOUBLES_IN as f64;
            let most = radius as f64 * days.exp2();
            (wanted as f64).clamp(radius as f64 / days.exp2(), most) as Distance
        });
        self.radius = Some((radius, now));
    }

    /// How far from a key its record is written and looked for. As long as nothing is known: everywhere.
    pub fn writers(&self) -> Distance {
        self.radius.map_or(Distance::MAX, |(radius, _)| radius)
    }

    /// How far from a node the keys may be whose records it keeps.
    // protocol: D29
    pub fn storers(&self) -> Distance {
        self.writers().saturating_mul(STORERS)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::crypto::VerifyingKey;

    const NOW: u64 = 1_800_000_000;

    type Node = (Place, Operator);

    fn nodes(rng: &mut ChaCha12Rng, count: usize, operator: impl Fn(&mut ChaCha12Rng) -> [u8; 2]) -> Vec<Node> {
        (0..count).map(|_| (Place::of_node(&VerifyingKey(rng.random())), Operator::V4(operator(rng)))).collect()
    }

    fn nearest(nodes: &[Node], target: &Place) -> Vec<Node> {
        let mut nodes = nodes.to_vec();
        nodes.sort_by_key(|(place, _)| target.distance(place));
        nodes.truncate(NODES);
        nodes
    }

    fn measure(region: &mut Region, rng: &mut ChaCha12Rng, network: &[Node], points: u64, from: u64) {
        for point in 0..points {
            let target = Place::of_key(&rng.random::<[u8; 32]>());
            region.measured(from + point, &target, nearest(network, &target).into_iter());
        }
    }

    fn expected(region: &Region, nodes: usize) -> f64 {
        region.writers() as f64 / Distance::MAX as f64 * nodes as f64
    }

    // protocol: D28, D29
    #[test]
    fn a_region_has_some_twenty_nodes_and_a_small_network_is_one() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut small = Region::default();
        let few = nodes(&mut rng, NODES - 1, |rng| rng.random());
        measure(&mut small, &mut rng, &few, 64, NOW);
        assert_eq!((small.writers(), small.storers()), (Distance::MAX, Distance::MAX));
        for size in [300, 1500] {
            let mut region = Region::default();
            let network = nodes(&mut rng, size, |rng| rng.random());
            measure(&mut region, &mut rng, &network, POINTS_MIN as u64 - 1, NOW);
            assert_eq!(region.writers(), Distance::MAX, "too few points say nothing");
            measure(&mut region, &mut rng, &network, 64, NOW + 100);
            let has = expected(&region, size);
            assert!((15.0..60.0).contains(&has), "{has} of {size} nodes in a region");
            assert_eq!(region.storers(), region.writers() * 4);
        }
    }

    /// Five times as many nodes come at once, all of a few operators or everywhere.
    // protocol: D28
    #[test]
    fn a_flood_shrinks_no_region_by_more_than_half_a_day_and_one_of_few_operators_hardly() {
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let honest = nodes(&mut rng, 300, |rng| rng.random());
        let after = |flood: Vec<Node>, rng: &mut ChaCha12Rng, points: u64| {
            let mut region = Region::default();
            measure(&mut region, rng, &honest, 64, NOW);
            let before = region.writers();
            let all = [honest.clone(), flood].concat();
            measure(&mut region, rng, &all, points, NOW + 64);
            region.writers() as f64 / before as f64
        };
        let everywhere = nodes(&mut rng, 1500, |rng| rng.random());
        let left = after(everywhere, &mut rng, 100);
        assert!(left > 0.99, "a hundred seconds leave {left} of it");
        let mut days = Region::default();
        measure(&mut days, &mut rng, &honest, 64, NOW);
        let before = days.writers();
        let all = [honest.clone(), nodes(&mut rng, 1500, |rng| rng.random())].concat();
        for day in 1..=5 {
            measure(&mut days, &mut rng, &all, 64, NOW + day * DOUBLES_IN);
            let left = days.writers() as f64 / before as f64;
            assert!(left >= 0.5f64.powi(day as i32 + 1), "{left} after {day} days");
        }
        assert!((days.writers() as f64) < before as f64 / 3.0, "it does follow");
        let mut slow = Region::default();
        let few = nodes(&mut rng, 1500, |_| [10, 1]);
        let all = [honest.clone(), few].concat();
        measure(&mut slow, &mut rng, &all, 64, NOW);
        assert!(expected(&slow, honest.len()) > 15.0, "{} honest nodes", expected(&slow, honest.len()));
    }
}
