//! What a circle is, and how nodes are drawn for one: one of each operator (docs/protocol.md, sections 4.1 and 4.6).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rand::{CryptoRng, RngExt};

use crate::ident::{NodeId, Operator, Spread};
use crate::wire::NodeContact;
use crate::wire::array::KEM_KEY_LEN;

/// X-nodes of a path: with one the exit would know the owner; with five the circle would not fit the array.
// protocol: C2
pub const HOPS: RangeInclusive<usize> = 2..=4;

/// Weights of nodes are cut to 1 up to this: a node that boasts is drawn at most so many times as often.
pub const WEIGHT_MAX: u32 = 16;

/// A node that may take part in a build: what its node record says.
#[derive(Clone)]
pub struct Candidate {
    /// How to reach it.
    pub contact: NodeContact,
    /// X25519 key of path building.
    pub path_dh: [u8; 32],
    /// ML-KEM-768 key of path building.
    pub path_kem: Arc<[u8; KEM_KEY_LEN]>,
    /// Capacity by measurement; counts from 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({:?})", self.contact.node_id())
    }
}

/// What a node does in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Helps, then forgets.
    Y,
    /// Stays on the path.
    X {
        /// 0 is next to the owner, the last one terminates the path.
        position: usize,
    },
}

/// A node at its place in the circle.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The node.
    pub candidate: Candidate,
    /// Its role.
    pub role: Role,
}

/// A circle, ready to be built.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The nodes in the order in which the array meets them.
    pub circle: Vec<Placed>,
}

impl Plan {
    /// Ids of all nodes in the circle.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.circle.iter().map(|placed| placed.candidate.contact.node_id()).collect()
    }

    /// The terminating node.
    pub fn end(&self) -> Option<&NodeContact> {
        let position = |placed: &&Placed| match placed.role {
            Role::X { position } => Some(position),
            Role::Y => None,
        };
        self.circle.iter().max_by_key(position).map(|placed| &placed.candidate.contact)
    }
}

/// Of which nodes there are not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Guards that can be used.
    Guards,
    /// Operators, in the sample, other than the owner's and the guards'.
    Operators,
    /// Members of the identity's layers.
    Members,
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guards => "guards are reachable at distinct operators",
            Self::Operators => "further operators are known (nodes in one /16 of IPv4 or /32 of IPv6 count as one)",
            Self::Members => "nodes of this identity's layers can be used, and others must not be drawn yet",
        })
    }
}

/// Why no circle can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The number of X-nodes is out of range.
    #[error("a path has 2 to 4 X-nodes, not {0}")]
    Hops(usize),
    /// The sample is too small.
    #[error("a path needs {need}, but only {have} {of}")]
    NotEnough {
        /// So many there are.
        have: usize,
        /// So many it takes.
        need: usize,
        /// Of these.
        of: Needed,
    },
    /// Guards are away, and no further ones may be met.
    #[error("guards are away, and as many nodes have stood next to this one as may: it waits for them")]
    Exposed,
}

/// Draws up to `count` nodes, no two of one operator. Each operator has one ticket, held by one of its nodes: a
/// thousand nodes in one prefix have no more chance than one.
// protocol: O2
pub(super) fn draw<'a>(
    rng: &mut dyn CryptoRng,
    pool: impl Iterator<Item = &'a Candidate>,
    count: usize,
    operators: &mut Operators,
) -> Vec<&'a Candidate> {
    let mut by_operator: BTreeMap<Operator, Vec<&Candidate>> = BTreeMap::new();
    for node in pool.filter(|node| operators.free(&node.contact)) {
        by_operator.entry(operators.of(&node.contact)).or_default().push(node);
    }
    let weight = |node: &&Candidate| u64::from(node.weight.clamp(1, WEIGHT_MAX));
    let mut tickets: Vec<&Candidate> =
        by_operator.into_values().filter_map(|mut nodes| take_weighted(rng, &mut nodes, weight)).collect();
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let Some(node) = take_weighted(rng, &mut tickets, weight) else { break };
        operators.take(&node.contact);
        drawn.push(node);
    }
    drawn
}

/// Removes one item by weight. Weights are at least 1.
fn take_weighted<T>(rng: &mut dyn CryptoRng, items: &mut Vec<T>, weight: impl Fn(&T) -> u64) -> Option<T> {
    let total: u64 = items.iter().map(&weight).sum();
    if total == 0 {
        return None;
    }
    let mut left = rng.random_range(0..total);
    let index = items.iter().position(|item| {
        let weight = weight(item);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    })?;
    Some(items.swap_remove(index))
}

fn operator(spread: Spread, contact: &NodeContact) -> Operator {
    Operator::of(spread, contact.node_id(), contact.addr.ip())
}

/// The operators that a circle has already.
// protocol: O1
pub(super) struct Operators {
    spread: Spread,
    taken: BTreeSet<Operator>,
}

impl Operators {
    pub(super) fn new(spread: Spread, own: &NodeContact) -> Self {
        let mut operators = Self { spread, taken: BTreeSet::new() };
        operators.take(own);
        operators
    }

    fn of(&self, contact: &NodeContact) -> Operator {
        operator(self.spread, contact)
    }

    pub(super) fn free(&self, contact: &NodeContact) -> bool {
        !self.taken.contains(&self.of(contact))
    }

    /// Takes those of many nodes.
    pub(super) fn take_all<'a>(&mut self, contacts: impl Iterator<Item = &'a NodeContact>) {
        contacts.for_each(|contact| {
            self.take(contact);
        });
    }

    /// An operator in bytes.
    pub(super) fn name(spread: Spread, contact: &NodeContact) -> Vec<u8> {
        operator(spread, contact).name().to_vec()
    }

    /// Whether the node's operator was not there yet; it is now.
    pub(super) fn take(&mut self, contact: &NodeContact) -> bool {
        self.taken.insert(self.of(contact))
    }
}
