//! Invariants I5 and I7: replays and floods create no state beyond named bounds, and garbage costs no asymmetric operation.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::path::array::{first_tag, slot_key};
use crate::path::budget::{OPENS_MAX, OPENS_OF_UNKNOWN, OPENS_PER_PEER, WINDOW};
use crate::path::hop::PENDING_PER_PEER;
use crate::wire::Wire;
use crate::wire::array::{BuildId, REPLY_LEN, SLOT_LEN, TAG_LEN, empty};

/// Random bytes in the form of a frame.
fn garbage(rng: &mut ChaCha20Rng) -> ArrayFrame {
    let (mut setup, mut replies) = (empty::<SLOT_LEN>(), empty::<REPLY_LEN>());
    rng.fill_bytes(setup.as_flattened_mut());
    rng.fill_bytes(replies.as_flattened_mut());
    ArrayFrame { build: BuildId::random(rng), setup, replies }
}

/// Garbage that fits: anybody can make it who knows the node's record.
fn fitting_garbage(rng: &mut ChaCha20Rng, node: &Candidate) -> ArrayFrame {
    let mut frame = garbage(rng);
    let key = slot_key(&node.contact.identity, &node.path_dh);
    for slot in frame.setup.iter_mut() {
        let tag = first_tag(&key, slot[TAG_LEN..].first_chunk().unwrap());
        slot[..TAG_LEN].copy_from_slice(&tag);
    }
    frame
}

// protocol: P6, P18, Y1
#[test]
fn replays_are_refused_and_leave_nothing() {
    let mut world = World::new(50, 10);
    let plan = world.plan(2);
    let mut frames = Vec::new();
    world.run(&plan, |_, _, frame| frames.push(frame.clone())).unwrap();
    let mut senders = vec![world.own.contact.node_id()];
    senders.extend(plan.nodes());
    let stages = plan.circle.len();
    for (stage, id) in plan.nodes().into_iter().enumerate() {
        let hop = &mut world.nodes.get_mut(&id).unwrap().hop;
        let (first, second) = (&frames[stage], &frames[stages + 1 + stage]);
        for now in [NOW + 1, NOW + 30] {
            for from in [senders[stage], NodeId([1; 32])] {
                let replayed = hop.handle(&mut world.rng, now, from, first.clone());
                assert_eq!(replayed.err(), Some(HopError::Replay));
                let replayed = hop.handle(&mut world.rng, now, from, second.clone());
                assert_eq!(replayed.err(), Some(HopError::NoSlot));
            }
        }
        let late = hop.handle(&mut world.rng, NOW + EXPIRES_MAX, senders[stage], first.clone());
        assert_eq!(late.err(), Some(HopError::Expired), "when the cache has forgotten, time refuses");
        assert_eq!((hop.pending(), hop.deadline()), (0, None));
    }
}

// protocol: P2, P6, Q8
#[test]
fn an_array_sent_twice_ends_its_build() {
    let mut world = World::new(51, 10);
    let plan = world.plan(2);
    let (_, send) = world.start(&plan);
    let own = world.own.contact.node_id();
    let hop = &mut world.nodes.get_mut(&plan.nodes()[0]).unwrap().hop;
    assert!(hop.handle(&mut world.rng, NOW, own, send.frame.clone()).is_ok());
    assert_eq!(hop.pending(), 1);
    let again = |hop: &mut Hop, rng: &mut ChaCha20Rng| hop.handle(rng, NOW, own, send.frame.clone()).err();
    assert_eq!(again(hop, &mut world.rng), Some(HopError::NoSlot), "the build waits for round 2");
    assert_eq!(hop.pending(), 0);
    assert_eq!(again(hop, &mut world.rng), Some(HopError::Replay));
}

// protocol: P5
#[test]
fn packages_from_the_far_future_or_the_past_are_refused() {
    let mut world = World::new(52, 10);
    let plan = world.plan(2);
    let (_, send) = world.start(&plan);
    let own = world.own.contact.node_id();
    let hop = &mut world.nodes.get_mut(&plan.nodes()[0]).unwrap().hop;
    for now in [NOW - EXPIRES_MAX, NOW + 100] {
        assert_eq!(hop.handle(&mut world.rng, now, own, send.frame.clone()).err(), Some(HopError::Expired));
    }
    assert_eq!((hop.pending(), hop.deadline()), (0, None));
}

fn copy(keys: &PathKeys) -> PathKeys {
    PathKeys::from_bytes(&keys.to_bytes()).unwrap()
}

/// A node with these keys of three epochs, the middle ones in its record, in the place of one of the world.
fn first_node_with(world: &mut World, keys: &[PathKeys; 3]) -> (Plan, NodeId) {
    let plan = world.plan(2);
    let first = plan.nodes()[0];
    let node = world.nodes.get_mut(&first).unwrap();
    node.candidate = candidate(node.candidate.contact.clone(), &keys[1]);
    node.hop.rotate(keys.iter().map(copy));
    let mut plan = plan;
    plan.circle[0].candidate = node.candidate.clone();
    (plan, first)
}

// protocol: E4
#[test]
fn keys_of_the_epoch_before_and_after_are_served_too() {
    let mut world = World::new(53, 10);
    let keys = std::array::from_fn(|_| PathKeys::generate(&mut world.rng));
    let (mut plan, first) = first_node_with(&mut world, &keys);
    let own = world.own.contact.node_id();
    for keys in &keys {
        plan.circle[0].candidate = candidate(plan.circle[0].candidate.contact.clone(), keys);
        let ((_, send), (_, later)) = (world.start(&plan), world.start(&plan));
        let hop = &mut world.nodes.get_mut(&first).unwrap().hop;
        assert!(hop.handle(&mut world.rng, NOW, own, send.frame).is_ok());
        let mut rotated = Hop::new(plan.circle[0].candidate.contact.identity, [PathKeys::generate(&mut world.rng)]);
        assert_eq!(rotated.handle(&mut world.rng, NOW, own, later.frame).err(), Some(HopError::NoSlot));
    }
}

/// I5: a restart makes no package good again, whether what was opened before is known or not.
// protocol: P7
#[test]
fn a_package_opened_before_a_restart_is_refused_after_it() {
    let mut world = World::new(57, 10);
    let keys = std::array::from_fn(|_| PathKeys::generate(&mut world.rng));
    let (plan, first) = first_node_with(&mut world, &keys);
    let (_, send) = world.start(&plan);
    let own = world.own.contact.node_id();
    let identity = plan.circle[0].candidate.contact.identity;
    let node = &mut world.nodes.get_mut(&first).unwrap().hop;
    assert!(node.handle(&mut world.rng, NOW, own, send.frame.clone()).is_ok());
    let noted = node.take_noted();
    assert_eq!((noted.len(), node.take_noted().len()), (1, 0));
    let restarted = || Hop::new(identity, keys.iter().map(copy));
    let give =
        |hop: &mut Hop, rng: &mut ChaCha20Rng, now, frame: &ArrayFrame| hop.handle(rng, now, own, frame.clone()).err();
    // What a restart that forgets would do.
    assert_eq!(give(&mut restarted(), &mut world.rng, NOW + 1, &send.frame), None);
    let mut knowing = restarted();
    knowing.opened_before(noted);
    assert_eq!(give(&mut knowing, &mut world.rng, NOW + 1, &send.frame), Some(HopError::Replay));
    let mut unsure = restarted();
    unsure.refuse_until(NOW + 1 + EXPIRES_MAX);
    assert_eq!(give(&mut unsure, &mut world.rng, NOW + 1, &send.frame), Some(HopError::Replay));
    assert!(unsure.take_noted().is_empty());
    // New ones are taken: by who knows, at once; by who does not, when they cannot be of before.
    let (_, new) = world.start(&plan);
    assert_eq!(give(&mut knowing, &mut world.rng, NOW + 1, &new.frame), None);
    world.now = NOW + EXPIRES_MAX - EXPIRES_AHEAD + 2;
    let (_, new) = world.start(&plan);
    assert_eq!(give(&mut unsure, &mut world.rng, world.now, &new.frame), None);
}

// protocol: P3
#[test]
fn garbage_costs_no_asymmetric_operation() {
    let mut world = World::new(54, 5);
    let hop = &mut world.nodes.values_mut().next().unwrap().hop;
    for _ in 0..200 {
        let frame = garbage(&mut world.rng);
        assert_eq!(hop.handle(&mut world.rng, NOW, NodeId([1; 32]), frame).err(), Some(HopError::NoSlot));
    }
    assert_eq!((hop.opened(), hop.pending(), hop.deadline()), (0, 0, None));
}

// protocol: P4, P20
#[test]
fn fitting_garbage_costs_one_operation_each_and_then_none() {
    let mut world = World::new(55, 5);
    let node = world.nodes.values_mut().next().unwrap();
    let frame = fitting_garbage(&mut world.rng, &node.candidate);
    let peer = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    let mut give = |node: &mut Node, now, from| node.hop.handle(&mut world.rng, now, from, frame.clone()).err();
    for n in 0..OPENS_PER_PEER + 50 {
        let expected = if n < OPENS_PER_PEER { HopError::Sealed } else { HopError::Busy };
        assert_eq!(give(node, NOW, peer(0)), Some(expected));
    }
    assert_eq!(node.hop.opened(), u64::from(OPENS_PER_PEER));
    for n in OPENS_PER_PEER..OPENS_OF_UNKNOWN + 50 {
        let expected = if n < OPENS_OF_UNKNOWN { HopError::Sealed } else { HopError::Busy };
        assert_eq!(give(node, NOW, peer(n)), Some(expected));
    }
    // As many free identities as somebody likes leave the rest to those that are known.
    node.hop.knows((10_000..12_000).map(peer));
    for n in 0..OPENS_MAX - OPENS_OF_UNKNOWN + 50 {
        let expected = if n < OPENS_MAX - OPENS_OF_UNKNOWN { HopError::Sealed } else { HopError::Busy };
        assert_eq!(give(node, NOW, peer(10_000 + n)), Some(expected));
    }
    assert_eq!(node.hop.opened(), u64::from(OPENS_MAX));
    assert_eq!(give(node, NOW + WINDOW, peer(0)), Some(HopError::Sealed), "a new window");
    assert_eq!((node.hop.pending(), node.hop.deadline()), (0, None));
}

// protocol: P4
#[test]
fn a_flood_of_good_arrays_is_bounded_per_peer() {
    let mut world = World::new(56, 10);
    let plan = world.plan(2);
    let own = world.own.contact.node_id();
    let first = plan.nodes()[0];
    for n in 0..PENDING_PER_PEER + 5 {
        let (_, send) = world.start(&plan);
        let hop = &mut world.nodes.get_mut(&first).unwrap().hop;
        let done = hop.handle(&mut world.rng, NOW, own, send.frame);
        let refused = (n >= PENDING_PER_PEER).then_some(HopError::Busy);
        assert_eq!(done.err(), refused);
    }
    let hop = &mut world.nodes.get_mut(&first).unwrap().hop;
    assert_eq!((hop.pending(), hop.opened()), (PENDING_PER_PEER, PENDING_PER_PEER as u64));
    hop.expire(hop.deadline().unwrap() - 1);
    assert_eq!(hop.pending(), PENDING_PER_PEER);
    hop.expire(NOW + EXPIRES_MAX);
    assert_eq!((hop.pending(), hop.deadline()), (0, None), "and ends with time");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_frame_is_handled_without_panic(seed: u64, fits: bool, now: u64, cut in 0usize..100) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut node = node(&mut rng, 1);
        let frame = if fits { fitting_garbage(&mut rng, &node.candidate) } else { garbage(&mut rng) };
        let mut bytes = frame.to_bytes();
        prop_assert!(ArrayFrame::from_bytes(&bytes).is_ok_and(|read| read == frame));
        bytes.truncate(bytes.len().saturating_sub(cut));
        prop_assert_eq!(ArrayFrame::from_bytes(&bytes).is_ok(), cut == 0);
        prop_assert!(node.hop.handle(&mut rng, now, NodeId([2; 32]), frame).is_err());
        prop_assert_eq!(node.hop.pending(), 0);
    }
}

/// A value drawn by an owner from its own clock would show whose clock it is, and which packages are of one build.
// protocol: P19
#[test]
fn the_packages_of_all_owners_expire_at_full_minutes() {
    let mut seen = BTreeSet::new();
    for (seed, second) in [(55, 0), (56, 7), (57, 19)] {
        let mut world = World::new(seed, 10);
        world.now = NOW + second;
        let plan = world.plan(2);
        world.run(&plan, |_, _, _| {}).unwrap();
        let opened = world.nodes.values_mut().flat_map(|node| node.hop.take_noted());
        seen.extend(opened.map(|package| package.expires));
    }
    assert_eq!(seen, BTreeSet::from([NOW + 60]));
}
