//! A model of the network around the real choice of nodes: prefixes, churn, samples, and nodes that work against the owner.
//!
//! What is modelled and not run: links, arrays, the database. Hostile nodes are always up, know each other, and see at once which
//! circle they are in and who of them is in it too.

use std::collections::BTreeMap;
use std::sync::Arc;

use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::NodeId;
use phantom_proto::path::Candidate;
use phantom_proto::path::Plan;
use phantom_proto::path::plan::Role;
use phantom_proto::wire::NodeContact;
use rand::seq::{SliceRandom, index};
use rand::{CryptoRng, RngExt};

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;

/// When simulations begin.
pub(crate) const START: u64 = 1_800_000_000;

/// An honest node is down in 3 of 100 slots of six hours, drawn anew for each. Its record is in samples for some hours more.
const SLOT: u64 = 6 * HOUR;
const DOWN: u64 = 3;

/// An honest node is gone for good after a year on average, in days.
const GONE_AFTER: f64 = 365.0;

/// Nodes in a sample, and how many others come in per hour.
const SAMPLE: usize = 512;
const NEW_PER_HOUR: usize = 120;

/// What hostile nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Nothing but look on.
    Watch,
    /// Fail every build.
    Drop,
    /// Fail builds unless the nearest X-node and the terminating one are both hostile.
    Select,
    /// The same, in seven of twenty cases: below what makes the owner suspicious.
    Stealth,
    /// Fail builds unless the terminating node is hostile.
    Steer,
    /// A guard fails builds in which it is not the nearest X-node.
    Nearest,
    /// Kill paths after two minutes unless both ends are hostile.
    Late,
}

impl Attack {
    pub(crate) const ALL: [Self; 7] =
        [Self::Watch, Self::Drop, Self::Select, Self::Stealth, Self::Steer, Self::Nearest, Self::Late];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Watch => "look on",
            Self::Drop => "fail every build",
            Self::Select => "fail all but theirs at both ends",
            Self::Stealth => "the same, in 35 of 100 cases",
            Self::Steer => "fail all that do not end at them",
            Self::Nearest => "guards fail all in which they are not nearest",
            Self::Late => "kill all but theirs after two minutes",
        }
    }
}

pub(crate) struct Net {
    pub(crate) nodes: Vec<Candidate>,
    pub(crate) by_id: BTreeMap<NodeId, usize>,
    hostile: Vec<bool>,
    /// Of the operators that the owner may meet: all but its own.
    share: f64,
    gone: Vec<u64>,
    seed: u64,
}

/// Which places of a circle are hostile.
pub(crate) struct Circle {
    pub(crate) nodes: Vec<usize>,
    /// The X-nodes, the nearest first.
    pub(crate) path: Vec<usize>,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Net {
    /// `size` nodes at operators of which the share `hostile` (in hundredths) is the attacker's. Node 0 is the owner's, and honest.
    pub(crate) fn new(rng: &mut dyn CryptoRng, size: usize, hostile: usize) -> Self {
        let operators = size.min(200 + size / 5);
        let mut evil: Vec<bool> = (0..operators).map(|n| 100 * n < hostile * operators).collect();
        evil[1..].shuffle(rng);
        if evil[0] {
            let honest = evil.iter().position(|evil| !evil).expect("somebody is honest");
            evil.swap(0, honest);
        }
        let mut nodes = Vec::with_capacity(size);
        for number in 0..size {
            let operator = number % operators;
            let mut identity = [0; 32];
            rng.fill_bytes(&mut identity);
            let host = number / operators;
            let ip = [10 + (operator >> 8) as u8, operator as u8, (host >> 8) as u8, host as u8];
            let contact =
                NodeContact { identity: VerifyingKey(identity), addr: (ip, 443).into(), link_secret: [0; 32] };
            nodes.push(contact);
        }
        // One for all: nobody encapsulates to it.
        let path_kem = Arc::new([0; 1184]);
        let candidate = |contact| Candidate { contact, path_dh: [0; 32], path_kem: path_kem.clone(), weight: 1 };
        let nodes: Vec<_> = nodes.into_iter().map(candidate).collect();
        let by_id = nodes.iter().enumerate().map(|(index, node)| (node.contact.node_id(), index)).collect();
        let share = evil.iter().filter(|evil| **evil).count() as f64 / (operators - 1) as f64;
        let hostile: Vec<bool> = (0..size).map(|number| evil[number % operators]).collect();
        let life = |hostile: &bool, rng: &mut dyn CryptoRng| match hostile {
            true => u64::MAX,
            false => START + (-rng.random::<f64>().max(1e-9).ln() * GONE_AFTER * DAY as f64) as u64,
        };
        let gone = hostile.iter().map(|hostile| life(hostile, rng)).collect();
        Self { nodes, by_id, hostile, share, gone, seed: rng.random() }
    }

    /// What chance gives the attacker in each place.
    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    pub(crate) fn hostile(&self, node: usize) -> bool {
        self.hostile[node]
    }

    pub(crate) fn up(&self, node: usize, now: u64) -> bool {
        let slot = now / SLOT;
        let drawn = || scramble(self.seed ^ (node as u64) << 40 ^ slot) % 100;
        self.hostile[node] || now < self.gone[node] && drawn() >= DOWN
    }

    /// Whether the database still holds a record of the node: those of nodes that are down live on for some hours.
    fn listed(&self, node: usize, now: u64) -> bool {
        self.up(node, now) || self.up(node, now - SLOT)
    }

    pub(crate) fn circle(&self, plan: &Plan) -> Circle {
        let index = |node: &Candidate| self.by_id[&node.contact.node_id()];
        let nodes: Vec<usize> = plan.circle.iter().map(|placed| index(&placed.candidate)).collect();
        let mut path: Vec<(usize, usize)> = Vec::new();
        for placed in &plan.circle {
            if let Role::X { position } = placed.role {
                path.push((position, index(&placed.candidate)));
            }
        }
        path.sort_unstable();
        let path = path.into_iter().map(|(_, node)| node).collect();
        Circle { first: nodes[0], last: nodes[nodes.len() - 1], nodes, path }
    }

    /// How a build goes, and how long its path lives: `None` when it fails.
    pub(crate) fn fate(
        &self,
        rng: &mut dyn CryptoRng,
        attack: Attack,
        now: u64,
        circle: &Circle,
        planned: u64,
    ) -> Option<u64> {
        let noise = rng.random_bool(0.02);
        let killed = circle.nodes.iter().any(|node| self.hostile[*node]) && self.kills(rng, attack, circle);
        if noise || killed || !circle.nodes.iter().all(|node| self.up(*node, now)) {
            return None;
        }
        if attack == Attack::Late && circle.path.iter().any(|node| self.hostile[*node]) && !self.both_ends(circle) {
            return Some(120.min(planned));
        }
        let edge = (now / SLOT + 1) * SLOT;
        let dies = edge < now + planned && !circle.path.iter().all(|node| self.up(*node, edge));
        Some(if dies { edge - now } else { planned })
    }

    fn kills(&self, rng: &mut dyn CryptoRng, attack: Attack, circle: &Circle) -> bool {
        match attack {
            Attack::Watch | Attack::Late => false,
            Attack::Drop => true,
            Attack::Select => !self.both_ends(circle),
            Attack::Stealth => !self.both_ends(circle) && rng.random_bool(0.35),
            Attack::Steer => !self.hostile[circle.path[circle.path.len() - 1]],
            Attack::Nearest => {
                (self.hostile[circle.first] || self.hostile[circle.last]) && !self.hostile[circle.path[0]]
            }
        }
    }

    pub(crate) fn both_ends(&self, circle: &Circle) -> bool {
        self.hostile[circle.path[0]] && self.hostile[circle.path[circle.path.len() - 1]]
    }

    pub(crate) fn all_hostile(&self, circle: &Circle) -> bool {
        circle.path.iter().all(|node| self.hostile[*node])
    }
}

/// Any number that looks like none of its neighbours' (the finalizer of SplitMix64).
fn scramble(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What one owner knows of the network.
pub(crate) struct Sample(Vec<usize>);

impl Sample {
    pub(crate) fn new(rng: &mut dyn CryptoRng, net: &Net, now: u64) -> Self {
        let mut sample = Self(Vec::new());
        sample.fill(rng, net, now, SAMPLE);
        sample
    }

    /// An hour goes by.
    pub(crate) fn pass(&mut self, rng: &mut dyn CryptoRng, net: &Net, now: u64) {
        self.0.shuffle(rng);
        let keep = if net.nodes.len() <= SAMPLE { self.0.len() } else { self.0.len().saturating_sub(NEW_PER_HOUR) };
        self.0.truncate(keep);
        self.0.retain(|node| net.listed(*node, now));
        self.fill(rng, net, now, SAMPLE);
    }

    fn fill(&mut self, rng: &mut dyn CryptoRng, net: &Net, now: u64, size: usize) {
        let have: std::collections::BTreeSet<usize> = self.0.iter().copied().collect();
        let missing = size.saturating_sub(have.len());
        let wanted = (2 * missing + have.len()).min(net.nodes.len());
        let others = index::sample(rng, net.nodes.len(), wanted);
        let fresh = others.into_iter().filter(|node| *node > 0 && !have.contains(node) && net.listed(*node, now));
        self.0.extend(fresh.take(missing));
    }

    pub(crate) fn candidates(&self, net: &Net) -> Vec<Candidate> {
        self.0.iter().map(|node| net.nodes[*node].clone()).collect()
    }
}
