//! Connections outlive the nodes that carry them, one scene for each kind of loss: bytes lost none, connections broken none.

use std::sync::Arc;
use std::time::Duration;

use phantom_daemon::connections::Connection;
use phantom_daemon::far::Stream;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep, timeout};

use super::world::{Echo, PATIENCE, World, simulate};

const CLIENT: usize = 2;
const SERVER: usize = 1;

/// Until three of four transfers go on after a node of their way has frozen: 10 s until that is noticed (docs/protocol.md, section 3.5), and a try or
/// two that lead nowhere. Sessions by themselves take 26 to 46 s.
const NOTICED: Duration = Duration::from_secs(20);

/// The same where the frozen node is also what the next way leads to, of so few nodes.
const AT_MOST: Duration = Duration::from_secs(60);

/// A connection to an echo server, and how far it has come.
struct Transfer {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    sent: usize,
    got: usize,
}

impl Transfer {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { read, write, sent: 0, got: 0 }
    }

    fn pattern(from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|at| (at % 251) as u8).collect()
    }

    /// Sends so much, and reads all of it back.
    async fn goes_on(&mut self, count: usize) {
        let bytes = Self::pattern(self.sent, count);
        let mut echoed = vec![0; self.sent + count - self.got];
        let Self { read, write, .. } = self;
        let both = async { tokio::try_join!(write.write_all(&bytes), read.read_exact(&mut echoed)) };
        timeout(PATIENCE, both).await.expect("in time").expect("no reset");
        assert!(echoed == Self::pattern(self.got, echoed.len()), "bytes differ");
        self.sent += count;
        self.got = self.sent;
    }

    /// Sends so much, of which the echo is read later.
    async fn sends(&mut self, count: usize) {
        let bytes = Self::pattern(self.sent, count);
        timeout(PATIENCE, self.write.write_all(&bytes)).await.expect("in time").expect("no reset");
        self.sent += count;
    }

    /// Both directions end in order.
    async fn ends(mut self) {
        self.goes_on(1000).await;
        self.write.shutdown().await.expect("no reset");
        let mut rest = Vec::new();
        timeout(PATIENCE, self.read.read_to_end(&mut rest)).await.expect("in time").expect("no reset");
        assert!(rest.is_empty());
    }
}

/// The one connection of a node that is open.
fn connection(world: &World, node: usize) -> Connection {
    let mut open = world.nodes[node].network.connections().into_iter().map(|(_, one)| one).filter(|one| one.open);
    let one = open.next().expect("one is open");
    assert!(open.next().is_none());
    one
}

/// All nodes on the way, from the client to the server.
fn way(world: &World) -> Vec<usize> {
    let hops = |node| connection(world, node).path.expect("it has a path").hops;
    let (there, back) = (hops(CLIENT), hops(SERVER));
    let ids = there.iter().chain(back.iter().rev()).map(|hop| hop.node_id());
    ids.map(|id| index(world, id)).collect()
}

fn index(world: &World, id: NodeId) -> usize {
    world.nodes.iter().position(|node| node.candidate.contact.node_id() == id).expect("a node of the network")
}

async fn begun(world: &mut World) -> Transfer {
    let server = world.server(SERVER).await;
    let client = world.identity(CLIENT).await;
    let mut transfer = Transfer::new(world.connect(CLIENT, client, server).await);
    // Spares are built meanwhile, and ready tunnels.
    transfer.goes_on(10_000).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(15)).await;
        world.feed().await;
    }
    transfer
}

/// Does this while the network database tells nodes of each other.
async fn fed<T>(world: &World, work: impl Future<Output = T>) -> T {
    let feeding = async {
        loop {
            sleep(Duration::from_secs(10)).await;
            world.feed().await;
        }
    };
    tokio::select! {
        result = work => result,
        () = feeding => unreachable!("it goes on for ever"),
    }
}

/// Whichever node between two programs dies, in the middle of a transfer in both directions.
// protocol: S15, S35, S37, S42
#[test]
fn a_transfer_outlives_each_of_its_hops_in_turn() {
    simulate(40, async {
        let mut world = World::new(40, 20).await;
        let mut transfer = begun(&mut world).await;
        let positions = way(&world).len();
        let mut killed = 0;
        for position in 0..positions {
            let hop = way(&world)[position];
            transfer.sends(300_000).await;
            // The other end may be a relay of this one.
            if [CLIENT, SERVER].contains(&hop) {
                continue;
            }
            world.kill(hop).await;
            killed += 1;
            fed(&world, transfer.goes_on(300_000)).await;
            sleep(Duration::from_secs(5)).await;
            assert!(!way(&world).contains(&hop), "position {position}: the dead node is in the way");
            world.start_again(hop, world.settings.clone(), false);
            for _ in 0..4 {
                sleep(Duration::from_secs(15)).await;
                world.feed().await;
            }
        }
        assert!(killed >= positions - 1, "{killed} of {positions}");
        transfer.ends().await;
    });
}

/// Whichever node between two programs stands still, while its links stay: its neighbours notice, and the exit node that of a frozen entry node. It
/// comes back, and works like any.
// protocol: A3, A5, A6
#[test]
fn a_transfer_outlives_each_of_its_hops_that_freezes() {
    for seed in [46, 47] {
        simulate(seed, async {
            let mut stalls = Vec::new();
            let mut world = World::new(seed, 20).await;
            let mut transfer = begun(&mut world).await;
            for position in 0..way(&world).len() {
                let hop = way(&world)[position];
                // The other end may be a relay of this one.
                if [CLIENT, SERVER].contains(&hop) {
                    continue;
                }
                transfer.sends(300_000).await;
                world.wires.sleep(hop, true);
                let frozen = Instant::now();
                fed(&world, transfer.goes_on(300_000)).await;
                stalls.push(frozen.elapsed());
                assert!(!way(&world).contains(&hop), "position {position}: the frozen node is in the way");
                sleep(Duration::from_secs(30)).await;
                world.wires.sleep(hop, false);
                for _ in 0..4 {
                    sleep(Duration::from_secs(15)).await;
                    world.feed().await;
                }
                assert!(world.nodes[hop].handle.snapshot().await.is_some());
            }
            transfer.ends().await;
            stalls.sort_unstable();
            println!("seed {seed}: {stalls:?}");
            assert!(stalls[stalls.len() * 3 / 4] < NOTICED && stalls[stalls.len() - 1] < AT_MOST, "{stalls:?}");
        });
    }
}

/// Two nodes at once, one on each side of the middle.
#[test]
fn a_transfer_outlives_two_of_its_hops_at_once() {
    simulate(41, async {
        let mut world = World::new(41, 20).await;
        let mut transfer = begun(&mut world).await;
        let way = way(&world);
        let moves =
            |world: &World| [CLIENT, SERVER].map(|node| connection(world, node)).map(|one| (one.moves, one.last_move));
        assert_eq!(moves(&world), [(0, None); 2]);
        transfer.sends(300_000).await;
        for hop in [way[1], way[way.len() - 2]].into_iter().filter(|hop| ![CLIENT, SERVER].contains(hop)) {
            world.kill(hop).await;
        }
        fed(&world, transfer.goes_on(300_000)).await;
        assert!(moves(&world).iter().all(|(moves, why)| *moves > 0 && why.is_some()), "{:?}", moves(&world));
        transfer.ends().await;
    });
}

/// All links of either end break at once, as when a computer comes into another network.
#[test]
fn a_connection_outlives_the_links_of_its_own_ends() {
    simulate(42, async {
        let mut world = World::new(42, 18).await;
        let mut transfer = begun(&mut world).await;
        for node in [CLIENT, SERVER] {
            transfer.sends(100_000).await;
            world.wires.lose_links(node);
            fed(&world, transfer.goes_on(100_000)).await;
            sleep(Duration::from_secs(60)).await;
            world.feed().await;
        }
        transfer.ends().await;
    });
}

/// A client that reaches nobody for an hour, and then goes on where it was.
// protocol: S40
#[test]
fn an_idle_connection_outlives_an_hour_without_a_network() {
    simulate(43, async {
        let mut world = World::new(43, 18).await;
        let mut transfer = begun(&mut world).await;
        world.wires.sleep(CLIENT, true);
        world.wires.lose_links(CLIENT);
        sleep(Duration::from_secs(3600)).await;
        world.wires.sleep(CLIENT, false);
        for _ in 0..4 {
            world.feed().await;
            sleep(Duration::from_secs(15)).await;
        }
        transfer.goes_on(10_000).await;
        transfer.ends().await;
    });
}

/// A server's daemon that has lost its sessions says so, and the client's program does not wait for nothing.
// protocol: S38
#[test]
fn a_session_that_its_server_has_lost_is_reset() {
    simulate(44, async {
        let mut world = World::new(44, 18).await;
        let key = Arc::new(SigningKey::generate(&mut world.rng));
        let address = ApAddress::of(&key.verifying_key());
        world.nodes[SERVER].disk.name(address);
        let serve = async |world: &World| {
            world.nodes[SERVER].network.open(key.clone(), Arc::new(Echo)).await;
            world.nodes[SERVER].network.publish(address).await;
        };
        serve(&world).await;
        let client = world.identity(CLIENT).await;
        let mut stream = world.connect(CLIENT, client, address).await;
        sleep(Duration::from_secs(30)).await;
        world.restart(SERVER, Duration::from_secs(5)).await;
        serve(&world).await;
        let mut byte = [0];
        let reset = fed(&world, timeout(PATIENCE, stream.read(&mut byte))).await.expect("it hears of it");
        assert_eq!(reset.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

/// A daemon that stops in order resets what it carries: nobody waits for it.
#[test]
fn a_daemon_that_stops_says_so() {
    for node in [CLIENT, SERVER] {
        simulate(45, async {
            let mut world = World::new(45, 16).await;
            let server = world.server(SERVER).await;
            let client = world.identity(CLIENT).await;
            let mut stream = world.connect(CLIENT, client, server).await;
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            timeout(Duration::from_secs(20), world.nodes[node].network.stop()).await.expect("it stops");
            world.kill(node).await;
            let end = timeout(Duration::from_secs(20), stream.read(&mut [0])).await.expect("it hears of it");
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            sleep(Duration::from_secs(20)).await;
            let open = |node: usize| world.nodes[node].network.connections().into_iter().any(|(_, one)| one.open);
            assert!(!open(CLIENT) && !open(SERVER));
        });
    }
}
