//! What must go as it is written: builds, transfers, loss and restarts of nodes, one scene for each promise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use phantom_daemon::connections::Programs;
use phantom_daemon::driver::{OwnPath, Snapshot};
use phantom_daemon::far::{ConnectError, Stream};
use phantom_daemon::netdb::{Database, Origin};
use phantom_daemon::relay::cells::Tunnel;
use phantom_proto::cell::CellKind;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::{Settings, Work};
use phantom_proto::wire::Wire;
use phantom_proto::wire::cells::{Open, Word};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::world::{Echo, PATIENCE, World, simulate};

/// Joins an identity's entry path from a node of the network that proves nothing: HELLO's first byte, and silence.
async fn join_and_say_nothing(world: &World, node: usize, from: ApAddress, to: ApAddress) -> Tunnel {
    let (record, _) = world.database.lookup(Origin::Own, to).await.unwrap().expect("it is published");
    let entry = &record.entries[0];
    let open = Open { node: entry.entry_node.node_id(), handle: entry.handle, first: vec![1] };
    let (_, mut tunnel) = world.nodes[node].handle.tunnel(from, Work::Connect, PATIENCE).await.unwrap();
    tunnel.outgoing.write(CellKind::Open, &open.to_bytes()).await.unwrap();
    tunnel.outgoing.flush().await.unwrap();
    tunnel
}

/// Own paths of a node that do this work.
async fn paths(world: &World, node: usize, work: Work) -> Vec<OwnPath> {
    let paths = world.nodes[node].handle.snapshot().await.unwrap().paths;
    paths.into_iter().map(|(path, _)| path).filter(|path| path.work == work).collect()
}

/// Listens on every port, and never answers whether it does.
struct Mute;

#[async_trait]
impl Programs for Mute {
    async fn listens(&self, _: u16) -> bool {
        std::future::pending().await
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
}

/// Says its end at once, waits for a byte, and goes away; tells what it read last from whoever waits for that.
struct Rude(mpsc::Sender<Option<std::io::ErrorKind>>);

#[async_trait]
impl Programs for Rude {
    async fn listens(&self, port: u16) -> bool {
        [80, 81].contains(&port)
    }

    async fn serve(&self, _: ApAddress, _: u16, port: u16, mut far: Box<dyn Stream>) {
        if port == 80 {
            far.shutdown().await.unwrap();
            far.read_u8().await.unwrap();
        } else {
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            far.write_all(b"heard").await.unwrap();
            let _ = self.0.send(far.read(&mut [0]).await.err().map(|error| error.kind())).await;
        }
    }
}

// protocol: S22
#[test]
fn a_reset_after_a_half_close_reaches_the_other_end() {
    simulate(12, async {
        let mut world = World::new(12, 12).await;
        let (last_tx, mut last_rx) = mpsc::channel(1);
        let key = Arc::new(SigningKey::generate(&mut world.rng));
        let rude = ApAddress::of(&key.verifying_key());
        world.nodes[1].network.open(key, Arc::new(Rude(last_tx))).await;
        world.nodes[1].network.publish(rude).await;
        let client = world.identity(2).await;
        let reset = Some(std::io::ErrorKind::ConnectionReset);
        let mut stream = world.connect(2, client, rude).await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "its half-close");
        stream.write_all(b"x").await.unwrap();
        let last = timeout(PATIENCE, stream.read(&mut [0])).await.expect("the reset comes by itself");
        assert_eq!(last.err().map(|error| error.kind()), reset);
        drop(stream);
        let mut stream = world.nodes[2].network.connect(client, 40_000, rude, 81).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        drop(stream);
        assert_eq!(timeout(PATIENCE, last_rx.recv()).await.expect("the reset comes by itself"), Some(reset));
        timeout(PATIENCE, all_let_go(&world)).await.expect("both sessions end");
    });
}

/// Until nothing of what a connection needed is held open by these nodes.
async fn all_let_go(world: &World) {
    let held =
        || world.nodes.iter().any(|node| node.network.connections().iter().any(|(_, one)| one.open && !one.incoming));
    while held() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_connect_that_was_given_up_leaves_nothing_open() {
    simulate(11, async {
        let mut world = World::new(11, 12).await;
        let echo = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, echo, 1000).await;
        let key = Arc::new(SigningKey::generate(&mut world.rng));
        let mute = ApAddress::of(&key.verifying_key());
        world.nodes[3].network.open(key, Arc::new(Mute)).await;
        world.nodes[3].network.publish(mute).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let given_up = world.nodes[2].network.connect(client, 40_000, mute, 80).await;
        assert!(matches!(given_up, Err(ConnectError::TimedOut)), "the far end never answered");
        timeout(PATIENCE, all_let_go(&world)).await.expect("the session of a connect that was given up ends");
    });
}

// protocol: U6, U7, U8, U9, U10
#[test]
fn bytes_go_over_three_and_three_hops() {
    simulate(1, async {
        let mut world = World::new(1, 12).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        let len = 3_000_000;
        world.echo(2, client, server, len).await;
        // Both ways over two middle hops of each path; ends are not relays.
        let relayed: u64 = world.relayed().iter().sum();
        assert!(relayed > 8 * len as u64, "{relayed}");
        // Nothing listens on another port, and nobody has another address.
        let refused = world.nodes[2].network.connect(client, 1, server, 81).await.err();
        assert_eq!(refused, Some(ConnectError::Refused));
        let nobody = ApAddress::of(&SigningKey::from_seed(&[77; 32]).verifying_key());
        let unreachable = world.nodes[2].network.connect(client, 1, nobody, 80).await.err();
        assert_eq!(unreachable, Some(ConnectError::Unreachable));
    });
}

/// Many times as many connections as there are ready tunnels: what they wait for is refilled at the pace of the network.
#[test]
fn connections_that_come_at_once_wait_for_the_network_only() {
    simulate(13, async {
        let mut world = World::new(13, 12).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 1000).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let begun = tokio::time::Instant::now();
        let network = &world.nodes[2].network;
        let all = (0..64).map(|number| network.connect(client, 40_000 + number, server, 80));
        let all = futures::future::join_all(all).await;
        let failed: Vec<_> = all.iter().filter_map(|one| one.as_ref().err()).collect();
        assert!(failed.is_empty(), "all of them come about: {failed:?} after {:?}", begun.elapsed());
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(1800), "{took:?} of virtual time: a tunnel in {:?}", took / 64);
    });
}

/// An entry node joins only so many links of one exit node.
#[test]
fn a_busy_entry_node_is_asked_again() {
    simulate(14, async {
        let settings = Settings { unborn: 0, joins: 512, ..Settings::hurried() };
        let mut world = World::with(14, 12, settings).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 1000).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let network = &world.nodes[2].network;
        let connect = |number: u16| network.connect(client, 1024 + number, server, 80);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.extend(futures::future::join_all((0..64).map(connect)).await);
        }
        let failed: Vec<_> = open.iter().filter_map(|one| one.as_ref().err()).collect();
        assert!(failed.is_empty(), "there is room for some: {failed:?}");
        let one_more = loop {
            let mut one_more = Box::pin(connect(0));
            match timeout(Duration::from_secs(10), &mut one_more).await {
                Ok(answer) => open.push(Ok(answer.expect("none gives up"))),
                Err(_) => break one_more,
            }
        };
        drop(open);
        assert!(one_more.await.is_ok(), "there is room again");
    });
}

/// What happened: who relayed how much, and what would be drawn next, which nothing that is drawn in another order leaves as it is.
fn story(seed: u64) -> Vec<u64> {
    simulate(seed, async {
        let mut world = World::new(seed, 40).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 200_000).await;
        // The last cells are still on their way when the client has its answer.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut told = world.relayed();
        told.push(phantom_daemon::random::random().random());
        told
    })
}

#[test]
fn one_seed_tells_one_story() {
    let (first, again, other) = (story(7), story(7), story(8));
    assert_eq!(first, again);
    assert_ne!(first, other);
}

/// 200 nodes; a tenth of them is lost at once; builds and transfers go on.
#[test]
fn two_hundred_nodes_and_the_loss_of_a_tenth() {
    simulate(1, async {
        let mut world = World::new(3, 200).await;
        let pairs: Vec<_> = (0..5).map(|pair| (pair * 2, pair * 2 + 1)).collect();
        let mut addresses = Vec::new();
        for (server, client) in &pairs {
            addresses.push((world.server(*server).await, world.identity(*client).await));
        }
        for ((_, client), (to, from)) in pairs.iter().zip(&addresses) {
            world.echo(*client, *from, *to, 100_000).await;
        }
        let mut others: Vec<_> = (10..200).collect();
        others.shuffle(&mut world.rng);
        for node in &others[..20] {
            world.kill(*node).await;
        }
        // The databases of the others notice soon.
        world.feed().await;
        for ((_, client), (to, from)) in pairs.iter().zip(&addresses) {
            world.echo(*client, *from, *to, 100_000).await;
        }
    });
}

/// What programs, neighbours and time-outs leave behind is nothing: tables are empty again when identities are gone.
// protocol: Q17, U24
#[test]
fn closing_an_identity_leaves_nothing_behind() {
    simulate(1, async {
        let mut world = World::new(5, 12).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 10_000).await;
        world.nodes[1].network.close(server).await;
        world.nodes[2].network.close(client).await;
        // Longer than any path lingers, and any warm link, set-up or build lives.
        tokio::time::sleep(Duration::from_secs(2400)).await;
        for node in &world.nodes {
            assert_eq!(node.counters.open_relays(), 0);
            let Snapshot { paths, load, .. } = node.handle.snapshot().await.unwrap();
            assert!(paths.is_empty());
            assert_eq!(load.iter().sum::<usize>(), 0, "{load:?}");
        }
    });
}

/// A path that had retired was still given to new connections, and stood with ready tunnels for up to a day.
#[test]
fn a_path_that_retires_ends_when_the_last_connection_over_it_has() {
    simulate(1, async {
        // Out of work after five to eleven minutes, over after an hour.
        let settings = Settings { unborn: 0, path_life: 3_600..=4_000, ..Settings::hurried() };
        let mut world = World::with(17, 12, settings).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        let newest = |world: &World| {
            let open = world.nodes[2].network.connections().into_iter().rev().find(|(_, connection)| connection.open);
            open.unwrap().1.path.unwrap().no
        };
        let mut long = world.connect(2, client, server).await;
        let old = newest(&world);
        let stands = async |world: &World| {
            let paths = world.nodes[2].handle.snapshot().await.unwrap().paths;
            paths.iter().any(|(path, _)| path.no == old)
        };
        tokio::time::sleep(Duration::from_secs(900)).await;
        let short = world.connect(2, client, server).await;
        assert_ne!(newest(&world), old, "it is still given to new connections");
        long.write_all(b"still").await.unwrap();
        long.read_exact(&mut [0; 5]).await.unwrap();
        assert!(stands(&world).await, "a connection was open");
        drop((long, short));
        tokio::time::sleep(Duration::from_secs(900)).await;
        assert!(!stands(&world).await, "it stands although nobody uses it");
    });
}

/// Who joins a server's entry path and then says nothing does not hold its tunnel for ever.
// protocol: U17
#[test]
fn a_client_that_proves_nothing_is_dropped() {
    simulate(1, async {
        let mut world = World::new(6, 12).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 1000).await;
        let mut tunnel = join_and_say_nothing(&world, 2, client, server).await;
        let ended = timeout(Duration::from_secs(90), tunnel.incoming.read()).await.expect("dropped in time");
        assert!(matches!(ended, Ok(None | Some((CellKind::Abort, _))) | Err(_)));
    });
}

/// A6: what strangers fill at one identity is felt neither at another one of the same daemon, nor by those who come to it later.
// protocol: U19
#[test]
fn strangers_who_fill_one_identity_are_not_felt_at_another() {
    simulate(1, async {
        let mut world = World::new(15, 12).await;
        let (flooded, other) = (world.server(1).await, world.server(1).await);
        let (stranger, client) = (world.identity(3).await, world.identity(2).await);
        world.echo(2, client, flooded, 1000).await;
        world.echo(2, client, other, 1000).await;
        world.echo(3, stranger, flooded, 1000).await;
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(join_and_say_nothing(&world, 3, stranger, flooded).await);
        }
        for to in [other, flooded] {
            let answer = world.nodes[2].network.connect(client, 1, to, 80).await;
            assert!(answer.is_ok(), "{:?}", answer.err());
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let dropped = silent.iter_mut().filter_map(|tunnel| tunnel.incoming.read().now_or_never()).count();
        assert!((1..200).contains(&dropped), "{dropped} of the oldest went");
    });
}

/// With all the waits that hide what an owner does: a service that starts is reached within a minute, and a node that has been up for
/// a while needs none of it, since spares are there.
#[test]
fn a_network_that_is_in_no_hurry_works_too() {
    simulate(2, async {
        let mut world = World::with(16, 12, Settings::default()).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 10_000).await;
        tokio::time::sleep(Duration::from_secs(70 * 60)).await;
        // Over an hour later, by a record that followed the first.
        let late = world.identity(4).await;
        let begun = tokio::time::Instant::now();
        world.echo(4, late, server, 10_000).await;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}: its spares were ready", begun.elapsed());
        world.echo(2, client, server, 10_000).await;
    });
}

/// A cell that does not belong to a connection is its sender's error, and costs it that connection.
// protocol: U29
#[test]
fn a_cell_that_does_not_belong_to_a_connection_ends_that_one() {
    simulate(1, async {
        let mut world = World::new(20, 12).await;
        let server = world.server(1).await;
        let client = world.identity(2).await;
        world.echo(2, client, server, 1000).await;
        let mut tunnel = join_and_say_nothing(&world, 2, client, server).await;
        let before = paths(&world, 2, Work::Connect).await.len();
        tunnel.outgoing.say(&Word::Serve(&[])).await.unwrap();
        tunnel.outgoing.flush().await.unwrap();
        let answer = timeout(PATIENCE, tunnel.incoming.read()).await.expect("it is answered").unwrap();
        assert_eq!(answer.map(|(kind, data)| (kind, data.to_vec())), Some((CellKind::Abort, vec![4])));
        assert_eq!((before, paths(&world, 2, Work::Connect).await.len()), (1, 1), "the path stays");
        world.echo(2, client, server, 1000).await;
    });
}

/// A service is reached from outside by its own owner, who notices when one of its entry nodes is not, and takes another; and its record
/// is found from outside.
// protocol: K12, K14, K16, K27
#[test]
fn an_owner_sees_its_service_from_outside_and_drops_an_entry_that_nobody_reaches() {
    simulate(4, async {
        let mut world = World::new(18, 16).await;
        let server = world.server(1).await;
        let handle = world.nodes[1].handle.clone();
        let seen = || async { handle.snapshot().await.unwrap().seen.remove(&server).unwrap() };
        // Whether a spare visits or looks for the record is drawn.
        let looked = async {
            while !seen().await.contains("; its record has stood for ") {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        };
        tokio::time::sleep(Duration::from_secs(90 * 60)).await;
        timeout(Duration::from_secs(6 * 3600), looked).await.expect("it looks for its record");
        let words = seen().await;
        assert!(words.starts_with("seen from outside") && !words.contains("not reached"), "{words}");
        assert!(words.contains("; its record has stood for ") && !words.contains("not found"), "{words}");
        let bad = paths(&world, 1, Work::Serve).await.remove(0);
        let hidden = bad.hops.last().unwrap().node_id();
        // Exits find nobody by this id: each of them says so.
        world.database.remove(hidden);
        let dropped = async {
            let mut failing = false;
            while paths(&world, 1, Work::Serve).await.iter().any(|path| path.no == bad.no) {
                failing |= seen().await.contains("not reached");
                tokio::time::sleep(Duration::from_secs(30)).await;
                world.feed().await;
            }
            failing
        };
        let failing = timeout(Duration::from_secs(6 * 3600), dropped).await.expect("it is dropped");
        assert!(failing, "the operator is told");
        // Not by its time: entries are retired after ten hours at least, and stay even then.
        assert!(paths(&world, 1, Work::Serve).await.len() >= 2);
    });
}

/// B1: whoever made a service's daemon start anew had it draw new nodes, until those were the attacker's.
#[test]
fn a_service_that_lasts_has_the_same_entry_nodes_over_restarts_of_its_daemon() {
    simulate(5, async {
        let mut world = World::new(19, 40).await;
        let key = Arc::new(SigningKey::generate(&mut world.rng));
        let address = ApAddress::of(&key.verifying_key());
        world.nodes[1].disk.name(address);
        let (mut met, mut runs) = (BTreeSet::new(), Vec::new());
        for _ in 0..6 {
            let network = world.nodes[1].network.clone();
            network.open(key.clone(), Arc::new(Echo)).await;
            network.publish(address).await;
            let whole = async {
                while paths(&world, 1, Work::Serve).await.len() < 3 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    world.feed().await;
                }
            };
            timeout(PATIENCE, whole).await.expect("it serves");
            let paths = paths(&world, 1, Work::Serve).await;
            let run: BTreeSet<_> = paths.iter().map(|path| path.hops.last().unwrap().node_id()).collect();
            met.extend(run.clone());
            runs.push(run);
            world.restart(1, Duration::from_secs(5)).await;
        }
        assert!(met.len() <= 8, "{} nodes of 38 have terminated its entry paths in minutes: {runs:?}", met.len());
    });
}
