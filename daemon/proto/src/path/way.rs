//! The finished path as a chain of segments, drawn by the owner before round 2.

use rand::seq::SliceRandom;
use rand::{CryptoRng, RngExt};

use super::UNTIL_SPREAD;
use super::plan::{Plan, Role};
use crate::ident::PathId;
use crate::wire::NodeContact;
use crate::wire::array::{Orders, Segment};

/// The owner and the X-nodes, and what lies between each two of them.
pub(super) struct Way {
    /// The owner, then the X-nodes from the nearest on, with their place in the circle.
    chain: Vec<(NodeContact, Option<usize>)>,
    /// Between each two of the chain: the segment's id, and whether the inner one dials.
    between: Vec<(PathId, bool)>,
}

impl Way {
    pub(super) fn new(rng: &mut dyn CryptoRng, plan: &Plan, own: &NodeContact) -> Self {
        let mut xs: Vec<(usize, usize)> = Vec::new();
        for (stage, placed) in plan.circle.iter().enumerate() {
            if let Role::X { position } = placed.role {
                xs.push((position, stage));
            }
        }
        xs.sort_unstable();
        let mut chain = vec![(own.clone(), None)];
        chain.extend(xs.iter().map(|&(_, stage)| (plan.circle[stage].candidate.contact.clone(), Some(stage))));
        let between = xs.iter().map(|_| (PathId::random(rng), rng.random())).collect();
        Self { chain, between }
    }

    /// Nobody can dial the owner. Of all other segments who dials is drawn as ever.
    // protocol: Q18
    pub(super) fn owner_dials(&mut self) {
        self.between.first_mut().into_iter().for_each(|(_, dial)| *dial = true);
    }

    /// The X-nodes from the nearest on: contact, place in the circle, and the segment towards the owner.
    pub(super) fn hops(&self) -> impl Iterator<Item = (&NodeContact, usize, PathId)> {
        let hops = self.chain.iter().filter_map(|(contact, stage)| Some((contact, (*stage)?)));
        hops.zip(&self.between).map(|((contact, stage), (inner, _))| (contact, stage, *inner))
    }

    /// The segment from the chain's node `from` away from the owner; the owner is 0.
    pub(super) fn outward(&self, from: usize) -> Segment {
        let (path, dial) = self.between[from];
        Segment { neighbour: self.chain[from + 1].0.clone(), path, dial }
    }

    /// The segment from the chain's node `from` towards the owner.
    // protocol: Q14
    fn inward(&self, from: usize) -> Segment {
        let (path, dial) = self.between[from - 1];
        Segment { neighbour: self.chain[from - 1].0.clone(), path, dial: !dial }
    }

    /// What round 2 tells a node.
    // protocol: Q10, P17
    pub(super) fn orders(&self, rng: &mut dyn CryptoRng, role: Role, until: u64) -> Orders {
        let Role::X { position } = role else { return Orders::Forget };
        let until = until + rng.random_range(0..=UNTIL_SPREAD);
        let node = position + 1;
        if node == self.between.len() {
            return Orders::Terminate { until, side: self.inward(node) };
        }
        // In random order: a node must not read from it where the owner is.
        let mut sides = Box::new([self.inward(node), self.outward(node)]);
        sides.shuffle(rng);
        Orders::Relay { until, sides }
    }
}
