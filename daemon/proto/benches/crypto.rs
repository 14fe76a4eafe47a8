//! What the primitives cost: the wide-block permutation at candidate lengths of a cell, and both handshakes of a hop.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phantom_proto::crypto::dh::DhSecret;
use phantom_proto::crypto::kem::{KemSecret, encapsulate};
use phantom_proto::crypto::noise::{Initiator, Responder};
use phantom_proto::crypto::wide::WideKey;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

fn wide(c: &mut Criterion) {
    let mut group = c.benchmark_group("wide");
    let key = WideKey::new(&[1; 32]);
    // Blocks of tunnels, slots of arrays, then cells: powers of two less a frame's header.
    for len in [64, 1168, 2560, 1020, 2044, 4092, 8188, 16_380] {
        let mut block = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("encipher {len} B"), |b| {
            b.iter(|| key.encipher(black_box(&[0; 16]), black_box(&mut block)));
        });
        group.bench_function(format!("decipher {len} B"), |b| {
            b.iter(|| key.decipher(black_box(&[0; 16]), black_box(&mut block)));
        });
    }
    group.finish();
    c.bench_function("wide key", |b| b.iter(|| WideKey::new(black_box(&[1; 32]))));
}

fn kem(c: &mut Criterion) {
    let key = KemSecret::generate();
    let (ciphertext, _) = encapsulate(key.public()).expect("a generated key");
    c.bench_function("kem generate", |b| b.iter(KemSecret::generate));
    c.bench_function("kem encapsulate", |b| b.iter(|| encapsulate(black_box(key.public()))));
    c.bench_function("kem decapsulate", |b| b.iter(|| key.decapsulate(black_box(&ciphertext))));
}

fn noise(c: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let secret = DhSecret::generate(&mut rng);
    let public = secret.public();
    let payload = [0; 1376];
    let (_, first) = Initiator::start(&mut rng, &public, b"p", &[1; 32], &payload).expect("a sound message");
    c.bench_function("noise initiator starts", |b| {
        b.iter(|| Initiator::start(&mut rng, black_box(&public), b"p", &[1; 32], &payload).is_ok());
    });
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    c.bench_function("noise responder reads and replies", |b| {
        b.iter(|| {
            let (responder, _) = Responder::read(&secret, b"p", &[1; 32], black_box(&first)).expect("a sound message");
            responder.reply(&mut rng, &[2; 32], &[]).is_ok()
        });
    });
}

criterion_group!(benches, wide, kem, noise);
criterion_main!(benches);
