//! Nodes to which nobody can open links: they visit and serve like others, and each other.

use std::time::Duration;

use phantom_proto::node::Settings;

use super::world::{World, simulate};

fn settings() -> Settings {
    Settings { unborn: 0, ..Settings::hurried() }
}

// protocol: Q15, Q18, Q19, Q20
#[test]
fn who_can_only_dial_visits_and_serves() {
    simulate(31, async {
        let mut world = World::hiding(31, 14, 2, settings()).await;
        world.wires.watch();
        let (hidden, open) = (world.server(0).await, world.server(5).await);
        let [visitor, other] = [world.identity(1).await, world.identity(6).await];
        world.echo(6, other, hidden, 300_000).await;
        world.echo(1, visitor, open, 300_000).await;
        world.echo(1, visitor, hidden, 300_000).await;
        let accepted = world.wires.seen().into_iter().filter(|seen| seen.is_accepted() && seen.node < 2).count();
        assert_eq!(accepted, 0, "somebody opened a link to them");
    });
}

/// All its links break at once, again and again, as when a router forgets what it let out.
#[test]
fn who_can_only_dial_comes_back_after_its_links_are_lost() {
    simulate(32, async {
        let mut world = World::hiding(32, 14, 1, settings()).await;
        let server = world.server(0).await;
        let client = world.identity(4).await;
        for _ in 0..3 {
            world.echo(4, client, server, 50_000).await;
            world.wires.lose_links(0);
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        world.echo(4, client, server, 50_000).await;
    });
}

/// It was a node like others, whose router is closed, and opened again.
#[test]
fn a_node_changes_over_while_it_serves() {
    simulate(33, async {
        let mut world = World::with(33, 14, settings()).await;
        let server = world.server(0).await;
        let client = world.identity(4).await;
        world.echo(4, client, server, 50_000).await;
        for is_hidden in [true, false, true] {
            world.wires.hide(0, is_hidden);
            world.wires.lose_links(0);
            world.feed().await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            world.echo(4, client, server, 50_000).await;
        }
    });
}
