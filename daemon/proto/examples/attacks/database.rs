//! What hostile nodes do to records: surround a key, give old ones, keep them back, fill shelves.

use std::collections::{BTreeMap, BTreeSet};

use phantom_proto::crypto::VerifyingKey;
use phantom_proto::netdb::{Answer, Distance, Key, Place, Shelf, Verdict, winner};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::world::{Mind, NOW, Node, QUOTA, World, found, node, record};
use super::{Scale, point};

/// Hostile nodes, each in a network of its own, that say that they keep what they are given, and that there is nothing: as near to a key as
/// they must be, or all over its region. Ids are ground for each key, which is what costs time here: of the largest crowd there is one.
pub(crate) fn surrounded(scale: Scale) {
    let services = scale.services.min(4);
    let crowds = [0, 10, 20, 40, 100, 400, 1000, 4000, 20_000].map(|crowd| crowd.min(scale.crowd));
    let crowds = BTreeSet::from(crowds);
    let mut hits: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for service in 0..services {
        let seed = scale.seed + u64::from(service);
        let mut world = World::new(seed, scale.nodes);
        let (key, bytes, publisher) = record(&mut world.rng, service, 0, [10, 1]);
        let (at, radius) = (Place::of_key(&key), world.region.writers());
        let nearest = world.nodes.iter().map(|node| at.distance(&node.place)).min().unwrap_or_default();
        let most = if service == 0 { scale.crowd } else { scale.crowd.min(4000) };
        let [near, around] = [nearest, radius].map(|within| ground(&mut world.rng, most, &at, within));
        for crowd in crowds.iter().copied().filter(|crowd| *crowd <= most) {
            for way in 0..WAYS.len() {
                let from = if way == 2 { &around } else { &near };
                let mut world = World::new(seed, scale.nodes);
                world.join(from[..crowd].iter().map(copy).collect());
                let radius = if way == 0 { Distance::MAX } else { world.region.writers() };
                world.publish(&key, &bytes, &publisher, radius);
                let hit = hits.entry((crowd, way)).or_default();
                *hit = (hit.0 + usize::from(found(world.read(&key, radius)).is_some()), hit.1 + 1);
            }
        }
    }
    for ((crowd, way), (hits, of)) in hits {
        point("surrounded", WAYS[way], crowd, hits, of);
    }
}

const WAYS: [&str; 3] = ["nearest 20 asked", "region asked", "region asked; hostile ones all over it"];

fn ground(rng: &mut ChaCha12Rng, count: usize, at: &Place, within: Distance) -> Vec<Node> {
    let mut all = Vec::new();
    while all.len() < count {
        let one = node(rng, |_| Mind::Withholds);
        if at.distance(&one.place) < within {
            all.push(one);
        }
    }
    all
}

fn copy(node: &Node) -> Node {
    Node { met: node.met, place: node.place, mind: Mind::Withholds }
}

/// A share of all nodes, in hundredths, is hostile.
fn turn(world: &mut World, hostile: usize, mind: impl Fn() -> Mind) {
    for (number, node) in world.nodes.iter_mut().enumerate() {
        if number * 37 % 100 < hostile {
            node.mind = mind();
        }
    }
}

/// They give a record that holds and was replaced, before anybody else answers.
pub(crate) fn stale(scale: Scale) {
    for hostile in [0, 10, 20, 30, 40, 50, 60] {
        let mut hits = [0; 2];
        for service in 0..scale.services {
            let mut world = World::new(scale.seed, scale.nodes);
            let (key, old, _) = record(&mut world.rng, service, 0, [10, 1]);
            let (_, new, publisher) = record(&mut world.rng, service, 1, [10, 1]);
            turn(&mut world, hostile, || Mind::Stale(old.clone()));
            let radius = world.region.writers();
            world.publish(&key, &new, &publisher, radius);
            hits[0] +=
                usize::from(winner(NOW, &key, world.fastest(&key).take(3)).is_some_and(|(_, bytes)| bytes == new));
            hits[1] += usize::from(found(world.read(&key, radius)).is_some_and(|bytes| bytes == new));
        }
        point("stale", "first three answers", hostile, hits[0], scale.services.into());
        point("stale", "more than half of the operators", hostile, hits[1], scale.services.into());
    }
}

/// They keep all records back, wherever they are.
pub(crate) fn withheld(scale: Scale) {
    for hostile in [0, 20, 40, 60, 80, 90, 95] {
        let (mut hits, mut denied) = ([0; 2], [0; 2]);
        for service in 0..scale.services {
            let mut world = World::new(scale.seed, scale.nodes);
            let (key, bytes, publisher) = record(&mut world.rng, service, 0, [10, 1]);
            turn(&mut world, hostile, || Mind::Withholds);
            let near = world.nearest(&Place::of_key(&key));
            let radius = world.region.writers();
            world.publish(&key, &bytes, &publisher, radius);
            // Taken out: one node of those nearest is asked.
            let one = near[world.rng.random_range(0..near.len())];
            match world.ask(one, &key) {
                Answer::Record(_) => hits[0] += 1,
                _ => denied[0] += 1,
            }
            match world.read(&key, radius) {
                Verdict::Found(_) => hits[1] += 1,
                Verdict::Absent => denied[1] += 1,
                Verdict::Unsure | Verdict::Contradicted => {}
            }
        }
        for (way, line) in ["one near node asked", "region asked"].into_iter().enumerate() {
            point("withheld", &format!("found; {line}"), hostile, hits[way], scale.services.into());
            point("withheld", &format!("\"there is none\"; {line}"), hostile, denied[way], scale.services.into());
        }
    }
}

/// So many times as many records as a shelf holds come from so many networks, before honest ones and after them.
pub(crate) fn flooded_shelf(scale: Scale) {
    let honest_ones = 20_usize;
    for networks in [4_u16, 32, 256] {
        for times in [0, 1, 2, 5, 10] {
            let mut rng = ChaCha12Rng::seed_from_u64(scale.seed);
            let own = VerifyingKey(rng.random());
            let mut shelf = Shelf::new(&own, QUOTA);
            let mut first_come: Vec<Key> = Vec::new();
            let mut bring = |shelf: &mut Shelf, owner: u16, operator: [u8; 2]| {
                let (key, bytes, publisher) = record(&mut rng, owner, 0, operator);
                // Whether it is kept is what is looked at in the end.
                let _ = shelf.put(NOW, Distance::MAX, &key, &bytes, &publisher);
                if first_come.len() < QUOTA.addresses {
                    first_come.push(key);
                }
                key
            };
            let half = u16::try_from(times * QUOTA.addresses / 2).unwrap_or(u16::MAX);
            let flood = |owner: u16| (1000 + owner, (25_600 + owner % networks).to_be_bytes());
            for (owner, operator) in (0..half).map(flood) {
                bring(&mut shelf, owner, operator);
            }
            let honest: Vec<_> =
                (0..honest_ones as u16).map(|owner| bring(&mut shelf, owner, [20, owner as u8])).collect();
            for (owner, operator) in (half..2 * half).map(flood) {
                bring(&mut shelf, owner, operator);
            }
            let kept = honest.iter().filter(|key| shelf.get(NOW, key).is_some()).count();
            point("shelf", &format!("shares; {networks} networks"), times, kept, honest_ones);
            if networks == 4 {
                let kept = honest.iter().filter(|key| first_come.contains(key)).count();
                point("shelf", "who comes first stays", times, kept, honest_ones);
            }
        }
    }
}
