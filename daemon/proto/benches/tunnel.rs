//! What the set-up of a tunnel costs: at the owner of three nodes, at a hop, at the terminating node.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use phantom_proto::crypto::PathSecret;
use phantom_proto::ident::PathId;
use phantom_proto::tunnel::{End, Hop, Owner, Side, tunnel_id};
use phantom_proto::wire::frame::TunnelFrame;
use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

fn secrets() -> Vec<PathSecret> {
    (1..=3).map(|byte| PathSecret(Zeroizing::new([byte; 32]))).collect()
}

fn segment(number: u8) -> PathId {
    PathId([number; 16])
}

fn owned() -> Vec<(PathSecret, PathId)> {
    secrets().into_iter().zip((1..=3).map(segment)).collect()
}

/// A whole set-up that the owner starts, with all nodes on one core; it includes the layers of the cells.
fn whole(c: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(1);
    let fresh = || {
        let hops: Vec<_> =
            (1..=2).zip(secrets()).map(|(n, secret)| Hop::new(secret, [segment(n), segment(n + 1)])).collect();
        (Owner::new(owned()), hops, End::new(secrets()[2].clone()))
    };
    c.bench_function("tunnel: owner, 2 hops and end together", |b| {
        b.iter_batched(
            fresh,
            |(mut owner, mut hops, mut end)| {
                let mut block = owner.start(&mut rng, 0).expect("the first one");
                for hop in &mut hops {
                    block = hop.seed(0, Side::A, &block).expect("a new seed");
                }
                let (far, mut open) = end.on_seed(&mut rng, &block).expect("a new seed");
                let mut tunnels = Vec::new();
                for hop in hops.iter_mut().rev() {
                    let (tunnel, next) = hop.tunnel(Side::B, &open).expect("waits");
                    tunnels.insert(0, tunnel);
                    open = next;
                }
                let (near, mut block) = owner.on_tunnel(&open).expect("proven");
                for tunnel in &mut tunnels {
                    block = tunnel.confirm(Side::A, &block).expect("in order").0;
                }
                let (v, layers) = far.confirm(&block).expect("proven");
                let mut block = v.expect("the far end answers");
                for tunnel in tunnels.iter_mut().rev() {
                    block = tunnel.confirm(Side::B, &block).expect("in order").0;
                }
                (layers, near.confirm(&block).expect("proven"))
            },
            BatchSize::SmallInput,
        );
    });
}

/// What one hop spends on one tunnel, and on a flood of seeds.
fn hop(c: &mut Criterion) {
    let secret = &secrets()[0];
    let fresh = || Hop::new(secret.clone(), [segment(1), segment(2)]);
    c.bench_function("tunnel: one hop", |b| {
        b.iter_batched(
            fresh,
            |mut hop| {
                let onward = hop.seed(0, Side::A, &[1; 64]).expect("a new seed");
                let frame = TunnelFrame { id: tunnel_id(&onward), r: [2; 64], p: [3; 64] };
                let (mut tunnel, _) = hop.tunnel(Side::B, &frame).expect("the seed waits");
                tunnel.confirm(Side::A, &[4; 64]).expect("in order");
                (tunnel.confirm(Side::B, &[5; 64]).expect("in order"), hop)
            },
            BatchSize::SmallInput,
        );
    });
    let mut hop = Hop::new(secret.clone(), [segment(1), segment(2)]);
    hop.seed(0, Side::A, &[1; 64]).expect("a new seed");
    c.bench_function("tunnel: a replayed seed", |b| b.iter(|| hop.seed(0, Side::A, &[1; 64]).is_err()));
}

/// What the owner of three nodes spends on one seed: as far end, all views and keys.
fn owner(c: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(1);
    c.bench_function("tunnel: owner answers a seed", |b| {
        b.iter_batched(
            || Owner::new(owned()),
            |mut owner| (owner.on_seed(&mut rng, &[1; 64]).is_ok(), owner),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, whole, hop, owner);
criterion_main!(benches);
