//! Hostile nodes, each kind by itself: what they cost those who connect is bounded.

use std::time::Duration;

use phantom_proto::ident::ApAddress;
use phantom_proto::node::Settings;
use tokio::time::{Instant, sleep};

use super::hostile::Conduct;
use super::world::{World, simulate};

const NODES: usize = 14;

/// A seventh of them.
const HOSTILE: usize = 2;

/// Until owners have found out who fails them: by accounts, or by a trial, which begins when 20 of 40 builds have failed.
const LEARNING: Duration = Duration::from_secs(600);

const CLIENT: usize = 2;

const ATTEMPTS: usize = 20;

/// A network with hostile nodes of a kind, and a service in it.
async fn network(seed: u64, conduct: Conduct) -> (World, ApAddress) {
    let mut world = World::with(seed, NODES, Settings { unborn: 0, ..Settings::hurried() }).await;
    for back in 0..HOSTILE {
        world.wires.behave(NODES - 1 - back, conduct);
    }
    world.feed().await;
    let server = world.server(1).await;
    (world, server)
}

/// Attempts of a new identity, after a while, that came about, and the longest of them.
async fn attempts(world: &mut World, server: ApAddress) -> (usize, Duration) {
    let client = world.identity(CLIENT).await;
    sleep(LEARNING).await;
    world.feed().await;
    let (mut came, mut longest) = (0, Duration::ZERO);
    for _ in 0..ATTEMPTS {
        let begun = Instant::now();
        if world.nodes[CLIENT].network.connect(client, 40_000, server, 80).await.is_ok() {
            (came, longest) = (came + 1, longest.max(begun.elapsed()));
        }
        sleep(Duration::from_secs(10)).await;
        world.feed().await;
    }
    (came, longest)
}

/// How a kind of hostile node was borne.
async fn borne(seed: u64, conduct: Conduct) -> (usize, Duration) {
    let (mut world, server) = network(seed, conduct).await;
    attempts(&mut world, server).await
}

/// The same, where the client's computer was started anew: of what it had found out only its guards are on disk.
async fn borne_anew(seed: u64, conduct: Conduct) -> (usize, Duration) {
    let (mut world, server) = network(seed, conduct).await;
    attempts(&mut world, server).await;
    world.restart(CLIENT, Duration::from_secs(30)).await;
    attempts(&mut world, server).await
}

/// Networks for each kind: who is next to nobody by chance says nothing for all.
const NETWORKS: u64 = 6;

fn enough(came: usize) -> bool {
    came * 10 >= ATTEMPTS * 9
}

/// Networks, from this seed on, in which it was not borne.
fn not_borne<B: Future<Output = (usize, Duration)>>(
    first: u64,
    conduct: Conduct,
    borne: impl Fn(u64, Conduct) -> B,
) -> Vec<u64> {
    let not = (first..first + NETWORKS).filter(|seed| {
        let (came, longest) = simulate(*seed, borne(*seed, conduct));
        println!("{conduct:?}, network {seed}: {came} of {ATTEMPTS} came about, in {longest:?} at most");
        !enough(came)
    });
    not.collect()
}

#[test]
fn hostile_nodes_of_every_kind_are_borne() {
    for (number, conduct) in Conduct::HOSTILE.into_iter().enumerate() {
        let (came, _) = simulate(number as u64, borne(30 + number as u64, conduct));
        assert!(enough(came), "{conduct:?}: {came} of {ATTEMPTS}");
        let not = not_borne(100, conduct, borne);
        assert!(not.is_empty(), "{conduct:?}: not in the networks {not:?}");
    }
}

/// Both of them are guards of the server's or the client's: the third guard was found guilty with them, since they stood in its trials too.
#[test]
fn two_guards_that_kill_all_builds_are_borne() {
    for seed in [310, 353, 381, 423, 442] {
        let (came, longest) = simulate(seed, borne(seed, Conduct::Drop));
        assert!(enough(came), "network {seed}: {came} of {ATTEMPTS}, in {longest:?} at most");
    }
}

/// The one path that asked ended at a node that finds nothing, or led over one that changes cells, and nothing came about for as long as it stood.
#[test]
fn who_lies_in_look_ups_or_changes_cells_is_borne_after_a_restart_too() {
    for conduct in [Conduct::Garble, Conduct::Withhold] {
        let not = not_borne(200, conduct, borne_anew);
        assert!(not.is_empty(), "{conduct:?}: not in the networks {not:?}");
    }
}
