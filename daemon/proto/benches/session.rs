//! What a session carries on one core, both ends together, and what opening one costs.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::session::{Event, Session};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Bytes per measured stretch.
const BULK: usize = 4 << 20;

/// Given to the session at once, as the daemon does.
const CHUNK: usize = 64 * 1024;

/// A client and a server that have accepted each other.
fn open() -> (Session, Session) {
    let (client_key, server_key) = (SigningKey::from_seed(&[1; 32]), Arc::new(SigningKey::from_seed(&[2; 32])));
    let address = ApAddress::of(&server_key.verifying_key());
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut client = Session::connect(&mut rng, &client_key, address, 80, 40_000).expect("a client");
    client.expect_record(&server_key.verifying_key()).expect("the address's own key");
    let mut server = Session::accept(server_key);
    let mut peer_is_known = false;
    while !peer_is_known {
        pass(&mut client, &mut server);
        while let Some(event) = server.poll() {
            match event {
                Event::Hello { .. } => server.verdict(true).expect("a verdict"),
                Event::Peer { .. } => peer_is_known = true,
                other => panic!("{other:?}"),
            }
        }
        pass(&mut server, &mut client);
    }
    (client, server)
}

fn pass(from: &mut Session, to: &mut Session) {
    let mut bytes = Vec::new();
    from.take_far(&mut bytes);
    to.far_input(&bytes).expect("honest bytes");
}

fn bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Bytes(BULK as u64));
    let (mut client, mut server) = open();
    let (chunk, mut taken) = (vec![7; CHUNK], Vec::new());
    group.bench_function("bulk, client to server", |b| {
        b.iter(|| {
            for _ in 0..BULK / CHUNK {
                client.app_input(&chunk).expect("room");
                pass(&mut client, &mut server);
                server.take_app(&mut taken);
                server.app_took(taken.len());
                taken.clear();
                pass(&mut server, &mut client);
            }
        });
    });
    group.finish();
}

fn opening(c: &mut Criterion) {
    c.bench_function("session: opening, both ends", |b| b.iter_batched(|| (), |()| open(), BatchSize::SmallInput));
}

criterion_group!(benches, bulk, opening);
criterion_main!(benches);
