//! Random lives of a network: steps of its users, of its nodes and of attackers, drawn from a seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::hostile::Conduct;

/// One step. Nodes, identities and connections are named by numbers, modulo how many there are, so that a step that is taken out
/// leaves the others of meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Nothing but time, in seconds.
    Wait(u64),
    /// A daemon ends without a word and starts again after so many seconds; `cramped`: with room for few paths and tunnels of others.
    Restart { node: usize, away: u64, cramped: bool },
    /// The same, at another address.
    Move { node: usize, away: u64 },
    /// A node is gone for good.
    Vanish { node: usize },
    /// A node neither hears nor says anything for so many seconds.
    Sleep { node: usize, seconds: u64 },
    /// All links of a node break, and it goes on.
    LoseLinks { node: usize },
    /// Two nodes do not reach each other for so many seconds.
    Cut { a: usize, b: usize, seconds: u64 },
    /// All clocks are set.
    Leap(i64),
    /// A program begins on a node, under an identity; `lasting`: one that comes back with its node.
    Open { node: usize, lasting: bool, listens: bool },
    /// It ends.
    Close { identity: usize },
    /// It connects.
    Connect { from: usize, to: usize, listened: bool },
    /// So many bytes are said on a connection, and echoed.
    Talk { connection: usize, bytes: usize },
}

/// A whole life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Whether owners wait before what they do, to hide when they do it.
    pub(crate) hurried: bool,
    /// What the last nodes do.
    pub(crate) hostile: Vec<Conduct>,
    /// To how many of the first nodes nobody can open links.
    #[serde(default)]
    pub(crate) hidden: usize,
    pub(crate) steps: Vec<Step>,
}

/// Nodes that may be gone, or sleep, at once: with more an owner may have to wait for hours until it may draw other guards.
pub(crate) const ABSENT: usize = 2;

impl Life {
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // A path needs eight nodes, its owner's and some to choose from; more than thirty have layers.
        let nodes = if rng.random_bool(0.1) { 36 } else { rng.random_range(13..=18) };
        let hostile = if rng.random_bool(0.5) { rng.random_range(1..=3) } else { 0 };
        let hostile = (0..hostile).map(|_| *Conduct::HOSTILE.choose(&mut rng).expect("there are some")).collect();
        let hurried = rng.random_bool(0.7);
        let open =
            |rng: &mut StdRng, listens| Step::Open { node: rng.random_range(0..nodes), lasting: rng.random(), listens };
        let mut steps = vec![open(&mut rng, true), open(&mut rng, false), open(&mut rng, true), Step::Wait(120)];
        let count = rng.random_range(10..=40);
        steps.extend((0..count).map(|_| Step::drawn(&mut rng, nodes)));
        // What must be true when all is calm again.
        steps.extend([
            Step::Wait(300),
            Step::Connect { from: 0, to: 0, listened: true },
            Step::Connect { from: 1, to: 2, listened: true },
        ]);
        steps.extend([Step::Wait(30), Step::Talk { connection: 0, bytes: 5000 }]);
        // Of those to whom one can there are as many as without the others.
        let hidden = if rng.random_bool(0.5) { rng.random_range(1..=3) } else { 0 };
        Self { seed, nodes: nodes + hidden, hurried, hostile, hidden, steps }
    }
}

impl Step {
    fn drawn(rng: &mut StdRng, nodes: usize) -> Self {
        let node = rng.random_range(0..nodes);
        let (one, other) = (rng.random_range(0..100), rng.random_range(0..100));
        match rng.random_range(0..100) {
            0..24 => Self::Wait(rng.random_range(1..=120)),
            24..27 => Self::Wait(rng.random_range(300..=4000)),
            27..36 => Self::Restart { node, away: rng.random_range(0..=20), cramped: rng.random_bool(0.2) },
            36..39 => Self::Move { node, away: rng.random_range(1..=30) },
            39..41 => Self::Vanish { node },
            41..45 => Self::Sleep { node, seconds: rng.random_range(5..=600) },
            45..49 => Self::LoseLinks { node },
            49..53 => Self::Cut { a: node, b: rng.random_range(0..nodes), seconds: rng.random_range(5..=300) },
            53..55 => Self::Leap(*[-5, 7, 40, 3000, -600, 20_000].choose(rng).expect("there are some")),
            55..63 => Self::Open { node, lasting: rng.random(), listens: rng.random() },
            63..66 => Self::Close { identity: one },
            66..86 => Self::Connect { from: one, to: other, listened: rng.random_bool(0.9) },
            _ => Self::Talk { connection: one, bytes: rng.random_range(1..60_000) },
        }
    }
}
