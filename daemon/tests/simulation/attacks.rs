//! Hostile nodes, each kind by itself: what they cost those who connect is bounded.

use std::time::Duration;

use phantom_proto::node::Settings;
use tokio::time::{Instant, sleep};

use super::hostile::Conduct;
use super::world::{World, simulate};

const NODES: usize = 14;

/// A seventh of them.
const HOSTILE: usize = 2;

/// Until owners have found out who fails them: by accounts, or by a trial, which begins when 20 of 40 builds have failed.
const LEARNING: Duration = Duration::from_secs(600);

/// How a kind of hostile node was borne: attempts that came about, and the longest of them.
async fn borne(seed: u64, conduct: Conduct) -> (usize, usize, Duration) {
    let mut world = World::with(seed, NODES, Settings { unborn: 0, ..Settings::hurried() }).await;
    for back in 0..HOSTILE {
        world.wires.behave(NODES - 1 - back, conduct);
    }
    world.feed().await;
    let (server, client) = (world.server(1).await, world.identity(2).await);
    sleep(LEARNING).await;
    world.feed().await;
    let (mut came, mut longest) = (0, Duration::ZERO);
    const ATTEMPTS: usize = 20;
    for _ in 0..ATTEMPTS {
        let begun = Instant::now();
        if world.nodes[2].network.connect(client, 40_000, server, 80).await.is_ok() {
            (came, longest) = (came + 1, longest.max(begun.elapsed()));
        }
        sleep(Duration::from_secs(10)).await;
        world.feed().await;
    }
    (came, ATTEMPTS, longest)
}

/// Each kind with its own seeds, so that one that is next to nobody by chance says nothing for all.
#[test]
fn hostile_nodes_of_every_kind_are_borne() {
    for (number, conduct) in Conduct::HOSTILE.into_iter().enumerate() {
        let (came, attempts, longest) = simulate(number as u64, borne(30 + number as u64, conduct));
        println!("{conduct:?}: {came} of {attempts} came about, in {longest:?} at most");
        assert!(came * 10 >= attempts * 9, "{conduct:?}: {came} of {attempts}");
    }
}
