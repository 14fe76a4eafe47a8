//! The local sample of the node table, as the choice of nodes draws from it.

use std::collections::BTreeMap;

use rand::CryptoRng;

use crate::ident::{NodeId, Spread};
use crate::path::plan::{Candidate, Operators, draw};
use crate::wire::NodeContact;

/// Nodes that may be drawn.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) own: NodeContact,
    pub(super) nodes: BTreeMap<NodeId, Candidate>,
    pub(super) spread: Spread,
    /// Whether draws that an attacker could force are bounded. Not in private networks: what they are for is tests.
    pub(super) bounded: bool,
    /// Distinct operators among them.
    pub(super) operators: usize,
}

/// What a choice is made by at one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) now: u64,
    pub(super) pool: &'a Pool,
    /// Nodes that do not answer at present.
    pub(super) away: &'a dyn Fn(&NodeId) -> bool,
}

impl Pool {
    pub(super) fn new(spread: Spread, own: NodeContact, nodes: Vec<Candidate>) -> Self {
        let own_id = own.node_id();
        let nodes = nodes.into_iter().map(|node| (node.contact.node_id(), node));
        let nodes: BTreeMap<_, _> = nodes.filter(|(id, _)| *id != own_id).collect();
        let mut operators = Operators::new(spread, &own);
        let distinct = nodes.values().filter(|node| operators.take(&node.contact)).count();
        Self { own, nodes, spread, bounded: spread == Spread::Prefixes, operators: distinct }
    }

    /// The operators of a circle in which only the owner stands.
    pub(super) fn circle(&self) -> Operators {
        Operators::new(self.spread, &self.own)
    }

    /// Draws up to `count` nodes that fit, no two of one operator.
    pub(super) fn draw(
        &self,
        rng: &mut dyn CryptoRng,
        count: usize,
        operators: &mut Operators,
        fits: impl Fn(&NodeId, &Candidate) -> bool,
    ) -> Vec<(NodeId, Candidate)> {
        if count == 0 {
            return Vec::new();
        }
        let pool = self.nodes.iter().filter(|(id, node)| fits(id, node)).map(|(_, node)| node);
        let drawn = draw(rng, pool, count, operators);
        drawn.into_iter().map(|node| (node.contact.node_id(), node.clone())).collect()
    }
}
