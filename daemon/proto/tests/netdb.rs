//! Attacks on the network database: each with the defence taken out, so that the attack is seen to work, and with it. At scale:
//! `scripts/scale`, docs/scale.md.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use phantom_proto::crypto::VerifyingKey;
use phantom_proto::netdb::{Distance, Key, Place, Shelf, Verdict, Written, winner};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use world::{Mind, NOW, QUOTA, World, found, node, record};

/// Sixty nodes nearer to a key than any other, each in a network of its own, that keep its record back. Without a region that says
/// how far one must look the twenty nearest are all that is asked; they take the record, and say that there is none.
#[test]
fn a_key_that_is_surrounded_is_written_and_read_all_the_same() {
    let mut world = World::new(1, 400);
    let (key, bytes, publisher) = record(&mut world.rng, 1, 0, [10, 1]);
    let at = Place::of_key(&key);
    let nearest = world.nodes.iter().map(|node| at.distance(&node.place)).min().unwrap();
    let mut surround = Vec::new();
    while surround.len() < 60 {
        let sybil = node(&mut world.rng, |_| Mind::Withholds);
        if at.distance(&sybil.place) < nearest {
            surround.push(sybil);
        }
    }
    world.join(surround);
    let radius = world.region.writers();
    // Taken out: as if nothing were known of the network's size.
    assert!(matches!(world.publish(&key, &bytes, &publisher, Distance::MAX), Written::Stands(_)), "so they say");
    assert_eq!(world.read(&key, Distance::MAX), Verdict::Absent);
    // And in.
    assert!(matches!(world.publish(&key, &bytes, &publisher, radius), Written::Stands(_)));
    assert_eq!(found(world.read(&key, radius)), Some(bytes));
}

/// A fifth of all nodes give a record that holds and that was replaced, faster than all others.
#[test]
fn a_stale_record_that_holds_does_not_win_by_being_fast() {
    let mut world = World::new(2, 400);
    let (mut at_three, mut by_tally) = (0, 0);
    for owner in 0..20 {
        let (key, old, _) = record(&mut world.rng, owner, 0, [10, 1]);
        let (_, new, publisher) = record(&mut world.rng, owner, 1, [10, 1]);
        for at in (0..world.nodes.len()).step_by(5) {
            world.nodes[at].mind = Mind::Stale(old.clone());
        }
        let radius = world.region.writers();
        world.publish(&key, &new, &publisher, radius);
        // Taken out: the first three answers with a record decide.
        at_three += usize::from(winner(NOW, &key, world.fastest(&key).take(3)).unwrap().1 != new);
        by_tally += usize::from(found(world.read(&key, radius)).unwrap() != new);
    }
    assert!(at_three > 10, "the attack works: {at_three} of 20");
    assert_eq!(by_tally, 0, "of 20 the stale one");
}

/// Somebody with four networks fills a shelf ten times over, before honest records come and after.
#[test]
fn a_full_shelf_takes_what_comes_from_others() {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let own = VerifyingKey(rng.random());
    let mut shelf = Shelf::new(&own, QUOTA);
    // Taken out: who came first stays.
    let mut first_come: Vec<Key> = Vec::new();
    let mut bring = |shelf: &mut Shelf, owner: u16, operator: [u8; 2], rng: &mut ChaCha12Rng| {
        let (key, bytes, publisher) = record(rng, owner, 0, operator);
        let _ = shelf.put(NOW, Distance::MAX, &key, &bytes, &publisher);
        if first_come.len() < QUOTA.addresses {
            first_come.push(key);
        }
        key
    };
    let flood = |owner: u16| (1000 + owner, [10, (owner % 4) as u8]);
    for (owner, operator) in (0..320).map(flood) {
        bring(&mut shelf, owner, operator, &mut rng);
    }
    let honest: Vec<_> = (0..20).map(|owner| bring(&mut shelf, owner, [20, owner as u8], &mut rng)).collect();
    for (owner, operator) in (320..640).map(flood) {
        bring(&mut shelf, owner, operator, &mut rng);
    }
    assert!(honest.iter().all(|key| shelf.get(NOW, key).is_some()), "a flood keeps others out");
    assert!(!honest.iter().any(|key| first_come.contains(key)), "the attack works");
}
