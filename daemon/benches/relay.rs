//! What one relay hop carries on one core: cells in over one link, one layer, out over another; kernel and TLS included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phantom_daemon::link::frame::{LinkReader, LinkWriter};
use phantom_daemon::link::{Certificate, Face, Limits, LinkConfig, MemoryNetwork, Purpose, TlsTransport, Transport};
use phantom_daemon::relay::Taken;
use phantom_daemon::relay::{Counters, hop};
use phantom_proto::cell::{CELL_LEN, Direction, Layer, TunnelKey};
use phantom_proto::crypto::SigningKey;
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::frame::kind;
use tokio::runtime::{Builder, Runtime};
use zeroize::Zeroizing;

/// Cells per measured stretch: 32 MiB, so that buffers on the way play no part.
const CELLS: u64 = 8192;

type Node = (Arc<dyn Transport>, NodeContact);

fn contact(key: &SigningKey, transport: &dyn Transport, secret: u8) -> NodeContact {
    NodeContact { identity: key.verifying_key(), addr: transport.local_addr(), link_secret: [secret; 32] }
}

fn over_tls(seed: u8) -> Node {
    let identity = Arc::new(SigningKey::from_seed(&[seed; 32]));
    let transport = TlsTransport::bind(LinkConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: identity.clone(),
        link_secret: [seed; 32],
        face: Face::BuiltIn,
        certificate: Certificate::self_signed("example.org").expect("a certificate"),
        limits: Limits::default(),
    })
    .expect("a free port");
    let contact = contact(&identity, &transport, seed);
    (Arc::new(transport), contact)
}

fn in_memory(network: &MemoryNetwork, seed: u8) -> Node {
    let identity = SigningKey::from_seed(&[seed; 32]).verifying_key();
    let contact = NodeContact { identity, addr: ([127, 0, 0, seed], 443).into(), link_secret: [seed; 32] };
    (Arc::new(network.join(contact.clone())), contact)
}

/// Both ends of a new link: the dialer's, then the acceptor's.
async fn link(from: &Node, to: &Node) -> [(LinkReader, LinkWriter); 2] {
    let (dialed, accepted) = tokio::join!(from.0.dial(&to.1, Purpose::Frames), to.0.accept());
    [dialed.expect("a link").into_frames(), accepted.expect("a link").into_frames()]
}

fn taken((reader, writer): (LinkReader, LinkWriter)) -> Taken {
    Taken { reader, writer, back: None }
}

/// A relay between two links, seen from their other ends.
struct Way {
    sender: LinkWriter,
    receiver: LinkReader,
    /// Unused directions, which must stay open.
    _back: (LinkReader, LinkWriter),
}

/// Sender and receiver run on `ends`, the relay on `relay`.
fn way(ends: &Runtime, relay: &Runtime, nodes: &[Node; 3]) -> Way {
    let ([left, in_left], [in_right, right]) =
        ends.block_on(async { (link(&nodes[0], &nodes[1]).await, link(&nodes[1], &nodes[2]).await) });
    let key = TunnelKey(Zeroizing::new([1; 32]));
    let (there, back) = (Layer::new(&key, Direction::Onward), Layer::new(&key, Direction::Backward));
    let relayed = Arc::new(Counters::default()).relay(1).expect("room for one");
    relay.spawn(hop::relay(taken(in_left), taken(in_right), there, back, relayed));
    Way { sender: left.1, receiver: right.0, _back: (left.0, right.1) }
}

async fn carry(way: &mut Way, cells: u64) {
    let Way { sender, receiver, .. } = way;
    let cell = [0; CELL_LEN];
    let send = async {
        for _ in 0..cells {
            sender.write(kind::CELL, &cell).await.expect("the link stands");
        }
        sender.flush().await.expect("the link stands");
    };
    let receive = async {
        for _ in 0..cells {
            receiver.read().await.expect("the link stands").expect("a cell");
        }
    };
    tokio::join!(send, receive);
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime")
}

fn relay(c: &mut Criterion) {
    let (ends, relay_core) = (runtime(2), runtime(1));
    let network = MemoryNetwork::default();
    let kinds = [
        ("TLS over loopback", ends.block_on(async { [over_tls(1), over_tls(2), over_tls(3)] })),
        ("memory", [in_memory(&network, 1), in_memory(&network, 2), in_memory(&network, 3)]),
    ];
    let mut group = c.benchmark_group("relay hop");
    group
        .throughput(Throughput::Bytes(CELLS * CELL_LEN as u64))
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for (name, nodes) in &kinds {
        let mut way = way(&ends, &relay_core, nodes);
        group.bench_function(format!("{CELLS} cells, {name}"), |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    ends.block_on(carry(&mut way, CELLS));
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
