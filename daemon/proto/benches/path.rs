//! What does building paths cost: the owner per build, a node per array, and a node per array that is none of its business?

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use phantom_proto::crypto::SigningKey;
use phantom_proto::crypto::dh::DhSecret;
use phantom_proto::crypto::kem::KemSecret;
use phantom_proto::ident::NodeId;
use phantom_proto::path::{
    Build, Candidate, Choice, Class, Hop, HopError, PathKeys, Persona, Plan, Send, Spread, Step,
};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::array::ArrayFrame;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

const NOW: u64 = 1_800_000_000;

struct World {
    rng: ChaCha20Rng,
    own: Candidate,
    plan: Plan,
    hops: BTreeMap<NodeId, Hop>,
}

fn node(rng: &mut ChaCha20Rng, number: u8) -> (Candidate, Hop) {
    let identity = SigningKey::generate(rng).verifying_key();
    let contact = NodeContact { identity, addr: ([10, number, 0, 1], 443).into(), link_secret: rng.random() };
    let keys = PathKeys { dh: DhSecret::generate(rng), kem: KemSecret::generate() };
    let (path_dh, path_kem) = (keys.dh.public(), Arc::new(*keys.kem.public()));
    (Candidate { contact, path_dh, path_kem, weight: 1 }, Hop::new(identity, [keys]))
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (own, _) = node(&mut rng, 0);
        let (sample, hops): (Vec<Candidate>, Vec<Hop>) = (1..=12).map(|number| node(&mut rng, number)).unzip();
        let hops = sample.iter().map(|node| node.contact.node_id()).zip(hops).collect();
        let mut choice = Choice::new(own.contact.clone(), Spread::Prefixes);
        choice.sample(&mut rng, NOW, sample);
        let plan = choice.plan(&mut rng, NOW, Persona(0), Class::Out, 3, &|_| false);
        let (plan, _) = plan.expect("enough nodes");
        Self { rng, own, plan, hops }
    }

    fn start(&mut self) -> (Build, Send) {
        Build::start(&mut self.rng, NOW, self.plan.clone(), &self.own, NOW + 3600).expect("good terms")
    }

    /// Carries a frame round the circle.
    fn round(&mut self, mut send: Send) -> (NodeId, ArrayFrame) {
        let mut from = self.own.contact.node_id();
        for id in self.plan.nodes() {
            let hop = self.hops.get_mut(&id).expect("a node of the plan");
            send = hop.handle(&mut self.rng, NOW, from, send.frame).expect("an honest array").send;
            from = id;
        }
        (from, send.frame)
    }

    /// A node of the circle with new keys and without memory, so that budgets and caches play no part.
    fn fresh(&mut self, index: usize) -> Hop {
        let keys = PathKeys { dh: DhSecret::generate(&mut self.rng), kem: KemSecret::generate() };
        let placed = &mut self.plan.circle[index].candidate;
        (placed.path_dh, placed.path_kem) = (keys.dh.public(), Arc::new(*keys.kem.public()));
        Hop::new(placed.contact.identity, [keys])
    }

    /// As [`Self::fresh`], for all.
    fn renew(&mut self) {
        for (index, id) in self.plan.nodes().into_iter().enumerate() {
            let hop = self.fresh(index);
            self.hops.insert(id, hop);
        }
    }
}

fn owner(c: &mut Criterion) {
    let mut world = World::new();
    c.bench_function("owner: start a build of 3 X-nodes (round 1 out)", |b| b.iter(|| black_box(world.start())));
    let mut world = World::new();
    c.bench_function("owner: round 1 home, round 2 out", |b| {
        b.iter_batched(
            || {
                world.renew();
                let (build, send) = world.start();
                let (from, frame) = world.round(send);
                (build, from, frame, world.rng.clone())
            },
            |(build, from, frame, mut rng)| build.handle(&mut rng, NOW, from, frame),
            BatchSize::SmallInput,
        );
    });
    let mut world = World::new();
    c.bench_function("owner: round 2 home", |b| {
        b.iter_batched(
            || {
                world.renew();
                let (build, send) = world.start();
                let (from, frame) = world.round(send);
                let Ok(Step::Send(build, send)) = build.handle(&mut world.rng, NOW, from, frame) else {
                    panic!("round 1 came home")
                };
                let (from, frame) = world.round(send);
                (build, from, frame, world.rng.clone())
            },
            |(build, from, frame, mut rng)| build.handle(&mut rng, NOW, from, frame),
            BatchSize::SmallInput,
        );
    });
}

fn hop(c: &mut Criterion) {
    let mut world = World::new();
    let own = world.own.contact.node_id();
    c.bench_function("node: accept an array of round 1", |b| {
        b.iter_batched(
            || {
                let hop = world.fresh(0);
                (hop, world.start().1.frame, world.rng.clone())
            },
            |(mut hop, frame, mut rng)| hop.handle(&mut rng, NOW, own, frame),
            BatchSize::SmallInput,
        );
    });
    let mut world = World::new();
    c.bench_function("node: accept an array of round 2", |b| {
        b.iter_batched(
            || {
                world.renew();
                let (build, send) = world.start();
                let (from, frame) = world.round(send);
                let Ok(Step::Send(_, send)) = build.handle(&mut world.rng, NOW, from, frame) else {
                    panic!("round 1 came home")
                };
                let id = world.plan.nodes()[0];
                (world.hops.remove(&id).expect("the first node"), send.frame, world.rng.clone())
            },
            |(mut hop, frame, mut rng)| hop.handle(&mut rng, NOW, own, frame),
            BatchSize::SmallInput,
        );
    });
    let mut world = World::new();
    let (_, mut stranger) = node(&mut world.rng, 99);
    let (_, send) = world.start();
    c.bench_function("node: refuse an array without a fitting slot", |b| {
        b.iter_batched(
            || send.frame.clone(),
            |frame| assert_eq!(stranger.handle(&mut world.rng, NOW, own, frame).err(), Some(HopError::NoSlot)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = owner, hop
}
criterion_main!(benches);
