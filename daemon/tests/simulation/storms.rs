//! A third of the nodes restarts again and again, as fast as nobody's does: connections keep being made.

use std::time::Duration;

use phantom_daemon::far::ConnectError;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Settings;
use rand::RngExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::world::{World, simulate};

const NODES: usize = 13;

/// A third of them, the last; the server's is 1, the client's 2.
const RESTARTING: std::ops::Range<usize> = 9..NODES;

/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(600);

type Answer = (Option<ConnectError>, Duration);

fn attempt(world: &World, from: ApAddress, to: ApAddress) -> JoinHandle<Answer> {
    let network = world.nodes[2].network.clone();
    tokio::spawn(async move {
        let begun = Instant::now();
        let answer = network.connect(from, 40_000, to, 80).await;
        (answer.err(), begun.elapsed())
    })
}

/// At least 99 of 100 attempts come about.
async fn must_come_about(attempts: Vec<JoinHandle<Answer>>) {
    let mut answers = Vec::new();
    for attempt in attempts {
        answers.push(attempt.await.unwrap());
    }
    let failed: Vec<_> = answers.iter().filter(|(error, _)| error.is_some()).collect();
    let mut times: Vec<_> = answers.iter().filter(|(error, _)| error.is_none()).map(|(_, took)| *took).collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).or_else(|| times.last()).copied().unwrap_or_default();
    println!(
        "{} attempts, {} failed; median {:?}, 95 %: {:?}, most {:?}",
        answers.len(),
        failed.len(),
        at(50),
        at(95),
        at(100)
    );
    assert!(
        answers.len() >= 100 && failed.len() * 100 <= answers.len(),
        "{} of {}: {failed:?}",
        failed.len(),
        answers.len()
    );
}

/// One after the other: each is up for some fifteen seconds.
#[test]
fn connections_are_made_while_a_third_of_the_nodes_restarts() {
    simulate(3, async {
        let mut world = World::new(17, NODES).await;
        let (server, client) = (world.server(1).await, world.identity(2).await);
        world.echo(2, client, server, 1000).await;
        let (mut attempts, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < STORM {
            let node = world.rng.random_range(RESTARTING);
            world.restart(node, Duration::from_secs(2)).await;
            attempts.push(attempt(&world, client, server));
        }
        must_come_about(attempts).await;
    });
}

/// Each by itself: up for 4 to 12 s, down for up to 2 s. While its neighbours are told, by their database, when it comes.
#[test]
fn connections_are_made_in_a_fierce_storm() {
    simulate(4, async {
        let mut world = World::with(18, NODES, Settings { unborn: 0, ..Settings::hurried() }).await;
        let (server, client) = (world.server(1).await, world.identity(2).await);
        world.echo(2, client, server, 1000).await;
        let begun = Instant::now();
        let mut next: Vec<Instant> = RESTARTING.map(|_| begun + up(&mut world)).collect();
        let (mut attempts, mut restarts) = (Vec::new(), 0);
        let mut attempt_at = begun;
        while begun.elapsed() < STORM {
            for (number, node) in RESTARTING.enumerate() {
                if Instant::now() < next[number] {
                    continue;
                }
                if world.nodes[node].running {
                    world.kill(node).await;
                    restarts += 1;
                    next[number] = Instant::now() + Duration::from_millis(world.rng.random_range(0..2000));
                } else {
                    world.start_again(node, world.settings.clone(), false);
                    world.feed().await;
                    next[number] = Instant::now() + up(&mut world);
                }
            }
            if Instant::now() >= attempt_at {
                attempts.push(attempt(&world, client, server));
                attempt_at += Duration::from_secs(1);
            }
            sleep(Duration::from_millis(100)).await;
        }
        println!("{restarts} restarts");
        assert!(restarts > 150, "{restarts} restarts are no storm");
        must_come_about(attempts).await;
    });
}

fn up(world: &mut World) -> Duration {
    Duration::from_millis(world.rng.random_range(4000..12_000))
}
