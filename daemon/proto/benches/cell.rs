//! What a cell costs: a relay hop, the owner of three layers, and coding.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phantom_proto::cell::{CELL_DATA_MAX, CELL_LEN, Cell, CellKind, Direction, Layer, OwnerCrypt, TunnelKey};
use zeroize::Zeroizing;

fn keys() -> Vec<TunnelKey> {
    (1..=3).map(|byte| TunnelKey(Zeroizing::new([byte; 32]))).collect()
}

fn layers(c: &mut Criterion) {
    let mut group = c.benchmark_group("cell");
    group.throughput(Throughput::Bytes(CELL_LEN as u64));
    let mut cell = Box::new([0; CELL_LEN]);
    let mut hop = Layer::new(&keys()[0], Direction::Onward);
    group.bench_function("hop", |b| b.iter(|| hop.encipher(black_box(&mut cell[..]))));
    let mut owner = OwnerCrypt::new(&keys(), Direction::Onward);
    group.bench_function("owner wraps 3 layers", |b| b.iter(|| owner.wrap(black_box(&mut cell[..]))));
    let mut owner = OwnerCrypt::new(&keys(), Direction::Backward);
    group.bench_function("owner peels 3 layers", |b| b.iter(|| owner.peel(black_box(&mut cell[..]))));
    group.finish();
}

fn coding(c: &mut Criterion) {
    let mut group = c.benchmark_group("cell coding");
    let mut cell = Box::new([0; CELL_LEN]);
    for len in [0, CELL_DATA_MAX] {
        let data = vec![7; len];
        group.bench_function(format!("encode {len} B"), |b| {
            b.iter(|| Cell { kind: CellKind::Data, data: black_box(&data) }.encode(&mut cell));
        });
        group.bench_function(format!("decode {len} B"), |b| b.iter(|| Cell::decode(black_box(&cell[..])).is_ok()));
    }
    group.finish();
}

fn set_up(c: &mut Criterion) {
    let keys = keys();
    c.bench_function("layer set-up", |b| b.iter(|| Layer::new(black_box(&keys[0]), Direction::Onward)));
}

criterion_group!(benches, layers, coding, set_up);
criterion_main!(benches);
