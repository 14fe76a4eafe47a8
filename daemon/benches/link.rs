//! What a link carries and what it costs to open: cells per second over TLS on loopback, and dials.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phantom_daemon::link::{Certificate, Face, Limits, Link, LinkConfig, Purpose, TlsTransport, Transport};
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::frame::kind;
use tokio::runtime::Runtime;

/// About the payload of a cell.
const CELL: usize = 4092;

fn node(seed: u8) -> (Arc<TlsTransport>, NodeContact) {
    let identity = Arc::new(SigningKey::from_seed(&[seed; 32]));
    let config = LinkConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: identity.clone(),
        link_secret: [seed; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").expect("certificate"),
        limits: Limits::default(),
    };
    let transport = TlsTransport::bind(config).expect("a free port");
    let addr = transport.local_addr();
    (Arc::new(transport), NodeContact { identity: identity.verifying_key(), addr, link_secret: [seed; 32] })
}

async fn pair(one: &TlsTransport, two: &TlsTransport, contact: &NodeContact) -> (Link, Link) {
    let (dialed, accepted) = tokio::join!(one.dial(contact, Purpose::Frames), two.accept());
    (dialed.expect("dialed"), accepted.expect("accepted"))
}

/// Time to bring `cells` from one task to another.
async fn carry(link: (Link, Link), cells: u64) -> Duration {
    let (_keep, mut writer) = link.0.into_frames();
    let (mut reader, _keep_too) = link.1.into_frames();
    let start = Instant::now();
    let receiving = tokio::spawn(async move {
        for _ in 0..cells {
            black_box(reader.read().await.expect("read").expect("frame"));
        }
    });
    let cell = [7; CELL];
    for _ in 0..cells {
        writer.write(kind::CELL, &cell).await.expect("write");
    }
    writer.flush().await.expect("flush");
    receiving.await.expect("received");
    start.elapsed()
}

fn link(c: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let _inside = runtime.enter();
    let ((one, _), (two, contact)) = (node(1), node(2));
    let mut group = c.benchmark_group("link");
    group.throughput(Throughput::Bytes(CELL as u64));
    group.bench_function("one cell among many", |b| {
        b.iter_custom(|cells| runtime.block_on(async { carry(pair(&one, &two, &contact).await, cells).await }));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("dial and accept", |b| {
        b.iter(|| runtime.block_on(pair(&one, &two, &contact)));
    });
    group.finish();
}

criterion_group!(benches, link);
criterion_main!(benches);
