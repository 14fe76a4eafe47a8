//! A small world of nodes in memory, in which builds run frame by frame and may be tampered with.

mod bounds;
mod build;
mod secrecy;
mod tamper;
mod unlinkable;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{CryptoRng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::crypto::SigningKey;
use crate::crypto::dh::DhSecret;
use crate::crypto::kem::KemSecret;
use crate::ident::NodeId;

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) struct Node {
    pub(super) candidate: Candidate,
    pub(super) hop: Hop,
}

/// A node at 10.`number`.0.1.
pub(super) fn node(rng: &mut dyn CryptoRng, number: u8) -> Node {
    let identity = SigningKey::generate(rng).verifying_key();
    let addr = ([10, number, 0, 1], 443).into();
    let contact = NodeContact { identity, addr, link_secret: rng.random() };
    let keys = PathKeys { dh: DhSecret::generate(rng), kem: KemSecret::generate() };
    let candidate = candidate(contact, &keys);
    Node { candidate, hop: Hop::new(identity, [keys]) }
}

pub(super) fn candidate(contact: NodeContact, keys: &PathKeys) -> Candidate {
    Candidate { contact, path_dh: keys.dh.public(), path_kem: Arc::new(*keys.kem.public()), weight: 1 }
}

pub(super) struct World {
    pub(super) rng: ChaCha20Rng,
    pub(super) now: u64,
    pub(super) own: Candidate,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) choice: Choice,
}

/// Where a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Hop { round: usize, stage: usize, error: HopError },
    Owner { round: usize, error: BuildError },
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) path: BuiltPath,
    pub(super) hop_paths: BTreeMap<NodeId, HopPath>,
}

impl World {
    pub(super) fn new(seed: u64, nodes: u8) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let own = node(&mut rng, 0).candidate;
        let all = (1..=nodes).map(|number| node(&mut rng, number));
        let nodes = all.map(|node| (node.candidate.contact.node_id(), node)).collect();
        let choice = Choice::new(own.contact.clone(), Spread::Prefixes);
        let mut world = Self { rng, now: NOW, own, nodes, choice };
        let sample = world.sample();
        world.choice.sample(&mut world.rng, NOW, sample);
        world
    }

    pub(super) fn sample(&self) -> Vec<Candidate> {
        self.nodes.values().map(|node| node.candidate.clone()).collect()
    }

    pub(super) fn plan(&mut self, hops: usize) -> Plan {
        // Keys may have changed since.
        let sample = self.sample();
        self.choice.sample(&mut self.rng, NOW, sample);
        let (plan, _) = self.choice.plan(&mut self.rng, NOW, Persona(0), Class::Out, hops, &|_| false).unwrap();
        plan
    }

    pub(super) fn start(&mut self, plan: &Plan) -> (Build, Send) {
        Build::start(&mut self.rng, self.now, plan.clone(), &self.own.clone(), self.now + 3600).unwrap()
    }

    /// Runs a build to its end. `on_way(round, stage, frame)` sees every frame before node `stage` gets it; the last
    /// stage is home. A frame arrives from whoever sent it.
    pub(super) fn run(
        &mut self,
        plan: &Plan,
        on_way: impl FnMut(usize, usize, &mut ArrayFrame),
    ) -> Result<Outcome, Ended> {
        let (build, send) = self.start(plan);
        self.drive(plan, build, send, on_way)
    }

    /// As [`Self::run`], for a build that has begun.
    pub(super) fn drive(
        &mut self,
        plan: &Plan,
        mut build: Build,
        mut send: Send,
        mut on_way: impl FnMut(usize, usize, &mut ArrayFrame),
    ) -> Result<Outcome, Ended> {
        let mut hop_paths = BTreeMap::new();
        for round in 1..=2 {
            let mut from = self.own.contact.node_id();
            for (stage, id) in plan.nodes().into_iter().enumerate() {
                assert_eq!(send.to.node_id(), id);
                on_way(round, stage, &mut send.frame);
                let hop = &mut self.nodes.get_mut(&id).unwrap().hop;
                let done = hop.handle(&mut self.rng, self.now + 1, from, send.frame);
                let done = done.map_err(|error| Ended::Hop { round, stage, error })?;
                send = done.send;
                hop_paths.extend(done.path.map(|path| (id, path)));
                from = id;
            }
            assert_eq!(send.to, self.own.contact);
            on_way(round, plan.circle.len(), &mut send.frame);
            let step = build.handle(&mut self.rng, self.now + 2, from, send.frame);
            match step.map_err(|error| Ended::Owner { round, error })? {
                Step::Send(next, first) => (build, send) = (*next, first),
                Step::Built(path) => return Ok(Outcome { path, hop_paths }),
            }
        }
        unreachable!("the second round ends a build")
    }
}
