//! A node whose next epoch begins tells its neighbours on paths its new record, over the links that they have anyway.

use std::collections::BTreeSet;
use std::time::Duration;

use phantom_daemon::clock;
use phantom_proto::node::Settings;
use phantom_proto::path::PathKeys;
use phantom_proto::record::{EPOCH, Epoch, Extensions, NodeRecord, Signed};
use tokio::time::sleep;

use super::world::{Simulated, World, simulate};

/// What a node says of itself in the epoch of now, as it is signed.
fn record(node: &Simulated, keys: &PathKeys) -> Signed<NodeRecord> {
    let contact = node.candidate.contact.clone();
    let epoch = Epoch::at(&contact.node_id(), clock::unix_millis() / 1000);
    let (keys, extensions) = ([keys.public(), keys.public()], Extensions::default());
    Signed::sign(&NodeRecord { contact, epoch, revision: 0, keys, extensions }, &node.identity)
}

// protocol: L33, L34
#[test]
fn in_half_an_epoch_nodes_hear_the_new_records_of_their_neighbours_from_themselves() {
    simulate(11, async {
        let mut world = World::with(11, 12, Settings::default()).await;
        world.identity(0).await;
        sleep(Duration::from_secs(3600)).await;
        let begun = clock::unix_millis();
        let mut records = Vec::new();
        for node in &world.nodes {
            let keys = PathKeys::generate(&mut world.rng);
            let record = record(node, &keys);
            records.push(record.bytes().to_vec());
            node.handle.rotate(vec![keys], node.candidate.clone(), &record).await;
        }
        sleep(Duration::from_secs(EPOCH / 2 + 60)).await;
        let told = world.reader.told();
        // Each of those that tell has a path, whose other end of a segment is told; owners among them.
        let from: BTreeSet<usize> =
            told.iter().map(|one| records.iter().position(|record| *record == one.record).expect("its own")).collect();
        let to: BTreeSet<usize> = told.iter().map(|one| one.to).collect();
        assert!(from.len() > 6 && to.contains(&0), "{from:?} told {to:?}");
        let within = |at: u64| (begun + 300_000..begun + EPOCH * 500 + 10_000).contains(&at);
        assert!(told.iter().all(|one| within(one.at)), "not before others' clocks say so, and in its first half");
        let times: BTreeSet<u64> = told.iter().map(|one| one.at).collect();
        assert!(times.len() * 10 > told.len() * 9, "each at a time of its own");
    });
}
