//! What a session costs: until connect() returns and the first byte arrives, and per byte after that, both ends on one core.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phantom_proto::cell::CELL_DATA_MAX;
use phantom_proto::crypto::SigningKey;
use phantom_proto::session::{Event, Session};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// What a program hands over at once.
const PIECE: usize = 64 * 1024;

/// Of each size of measured transfer.
const BULK: usize = 4 * 1024 * 1024;

fn carry(from: &mut Session, to: &mut Session, bytes: &mut Vec<u8>) {
    from.take_far(bytes);
    for cell in bytes.chunks(CELL_DATA_MAX) {
        to.far_input(cell).expect("the other end keeps to the protocol");
    }
    bytes.clear();
}

fn opened() -> (Session, Session) {
    let (client_key, server_key) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let record = server_key.verifying_key();
    let mut rng = StdRng::seed_from_u64(1);
    let mut client = Session::connect(&mut rng, &client_key, &record, 80, 40_000).expect("TLS takes the key");
    let mut server = Session::accept(Arc::new(server_key));
    let mut bytes = Vec::new();
    carry(&mut client, &mut server, &mut bytes);
    server.verdict(true).expect("asked for");
    carry(&mut server, &mut client, &mut bytes);
    assert_eq!(client.poll(), Some(Event::Accepted));
    carry(&mut client, &mut server, &mut bytes);
    (client, server)
}

fn open(c: &mut Criterion) {
    c.bench_function("session: open, both ends", |b| b.iter(opened));
}

fn bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Bytes(BULK as u64));
    for piece in [1024, PIECE] {
        let (mut client, mut server) = opened();
        let (data, mut far, mut app) = (vec![7; piece], Vec::new(), Vec::new());
        group.bench_function(format!("bulk in pieces of {piece} B, both ends"), |b| {
            b.iter(|| {
                for _ in 0..BULK / piece {
                    client.app_input(&data).expect("acknowledged in time");
                    carry(&mut client, &mut server, &mut far);
                    server.take_app(&mut app);
                    server.app_took(app.len());
                    app.clear();
                    carry(&mut server, &mut client, &mut far);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, open, bulk);
criterion_main!(benches);
