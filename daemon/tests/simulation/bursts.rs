//! Many connections in a row and at once: no one of them waits for a tunnel longer than it must. Virtual time: it counts nothing but
//! waits and ways.

use std::time::Duration;

use futures::future::join_all;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Settings;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::world::{World, simulate};

/// One connection, and its end; how long it took to stand.
async fn visit(world: &World, from: ApAddress, to: ApAddress) -> Duration {
    let begun = Instant::now();
    let mut stream = world.connect(2, from, to).await;
    let took = begun.elapsed();
    // The echo of nothing.
    stream.shutdown().await.unwrap();
    took
}

/// A server, a client, and a connection between them that made them ready.
async fn pair(world: &mut World) -> (ApAddress, ApAddress) {
    let (to, from) = (world.server(1).await, world.identity(2).await);
    world.echo(2, from, to, 1000).await;
    (from, to)
}

fn share(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}

/// Ready tunnels were a constant four: of connections that follow each other at 50 ms one in two waited for a set-up.
// protocol: T20
#[test]
fn of_hundreds_in_a_row_hardly_one_waits() {
    simulate(41, async {
        let mut world = World::with(41, 12, Settings { unborn: 0, ..Settings::default() }).await;
        let (from, to) = pair(&mut world).await;
        let alone = visit(&world, from, to).await;
        let mut times = Vec::new();
        for _ in 0..600 {
            sleep(Duration::from_millis(50)).await;
            times.push(visit(&world, from, to).await);
        }
        // What was seen in the first half minute is what the rest goes by.
        let rest = &mut times[300..];
        println!("alone {alone:?}, median {:?}, of 100 the 95th {:?}", share(rest, 50), share(rest, 95));
        // Who finds a tunnel ready does not wait at all: links have no latency here but for being dialed.
        assert!(share(rest, 95) < Duration::from_millis(20), "{:?} of {:?}", share(rest, 95), share(rest, 50));
    });
}

/// Sixty at once, with four tunnels ready: set-ups went one by one, ten a second.
// protocol: T16
#[test]
fn a_burst_waits_for_the_set_up_of_all_and_not_of_one_after_the_other() {
    simulate(42, async {
        let mut world = World::with(42, 12, Settings { unborn: 0, ..Settings::default() }).await;
        let (from, to) = pair(&mut world).await;
        sleep(Duration::from_secs(600)).await;
        let begun = Instant::now();
        let mut times = join_all((0..60).map(|_| visit(&world, from, to))).await;
        println!("60 at once: {:?}, median {:?}", begun.elapsed(), share(&mut times, 50));
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    });
}
