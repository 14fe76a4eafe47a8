//! Invariant I3: whatever bit is changed, in either round, on the way to any node, the build fails without a sound.

use super::*;
use crate::wire::array::{KEM_CT_LEN, REPLY_LEN, SLOT_LEN, SLOTS};

/// Offsets into each region of a slot: tag, ciphertext or AEAD, Noise key, payload, last byte.
const REGIONS: [usize; 5] = [3, 16 + 500, 16 + 1088 + 5, 16 + 1088 + 40, SLOT_LEN - 1];

/// Runs a build in which one frame, on its way to `stage` in `round`, is changed.
fn changed(
    world: &mut World,
    plan: &Plan,
    at: (usize, usize),
    change: impl Fn(&mut ArrayFrame),
) -> Result<Outcome, Ended> {
    let outcome = world.run(plan, |round, stage, frame| {
        if (round, stage) == at {
            change(frame);
        }
    });
    // What a failed build left between its rounds goes with time.
    world.now += 2 * EXPIRES_MAX;
    world.nodes.values_mut().for_each(|node| node.hop.expire(world.now));
    assert!(world.nodes.values().all(|node| node.hop.pending() == 0 && node.hop.deadline().is_none()));
    outcome
}

/// All places where a frame can be changed: (round, stage).
fn places(plan: &Plan) -> Vec<(usize, usize)> {
    (1..=2).flat_map(|round| (0..=plan.circle.len()).map(move |stage| (round, stage))).collect()
}

/// The frame goes no further than to the node that gets it changed.
fn assert_stopped(outcome: Result<Outcome, Ended>, (round, stage): (usize, usize), plan: &Plan, what: &str) {
    match outcome.map(|_| ()) {
        Err(Ended::Hop { round: r, stage: s, .. }) => assert_eq!((r, s), (round, stage), "{what}"),
        Err(Ended::Owner { round: r, .. }) => assert_eq!((r, plan.circle.len()), (round, stage), "{what}"),
        Ok(()) => panic!("{what} at {round}, {stage} was not noticed"),
    }
}

// protocol: P9
#[test]
fn a_changed_setup_slot_goes_no_further() {
    let mut world = World::new(20, 10);
    let plan = world.plan(2);
    for at in places(&plan) {
        for slot in 0..SLOTS {
            for offset in REGIONS {
                let bit = 1 << (slot % 8);
                let outcome = changed(&mut world, &plan, at, |frame| frame.setup[slot][offset] ^= bit);
                assert_stopped(outcome, at, &plan, &format!("slot {slot}, byte {offset}"));
            }
        }
    }
}

// protocol: P8
#[test]
fn a_changed_build_id_goes_no_further() {
    let mut world = World::new(21, 10);
    let plan = world.plan(2);
    for at in places(&plan) {
        for byte in [0, 15] {
            let outcome = changed(&mut world, &plan, at, |frame| frame.build.0[byte] ^= 0x10);
            assert_stopped(outcome, at, &plan, "build id");
        }
    }
}

/// A given reply and a slot that nobody answers in may not change; what a node replaces anyway may.
// protocol: Z3, Z4
#[test]
fn a_changed_reply_is_noticed_at_home() {
    let mut world = World::new(22, 10);
    let plan = world.plan(2);
    for (round, stage) in places(&plan) {
        for node in 0..SLOTS {
            let (build, send) = world.start(&plan);
            let slot = build.reply_index(node);
            let offset = [0, 15, 16, 700, KEM_CT_LEN + 1, KEM_CT_LEN + 31, REPLY_LEN - 1][node % 7];
            let outcome = world.drive(&plan, build, send, |r, s, frame| {
                if (r, s) == (round, stage) {
                    frame.replies[slot][offset] ^= 0x80;
                }
            });
            let expected = match node {
                given if given < stage => Some(Ended::Owner { round, error: BuildError::Reply }),
                to_come if to_come < plan.circle.len() => None,
                _ => Some(Ended::Owner { round, error: BuildError::Changed }),
            };
            assert_eq!(outcome.err(), expected, "round {round}, stage {stage}, reply of {node}");
            world.now += 2 * EXPIRES_MAX;
        }
    }
}

// protocol: P8
#[test]
fn an_array_from_elsewhere_is_refused() {
    let mut world = World::new(23, 10);
    let plan = world.plan(2);
    let stranger = NodeId([9; 32]);
    let first = plan.nodes()[0];
    let (build, send) = world.start(&plan);
    let hop = &mut world.nodes.get_mut(&first).unwrap().hop;
    let refused = hop.handle(&mut world.rng, NOW, stranger, send.frame.clone());
    assert_eq!(refused.err(), Some(HopError::WrongPeer));
    let home = ArrayFrame { build: build.build_id(), ..send.frame };
    assert_eq!(build.handle(&mut world.rng, NOW, stranger, home).err(), Some(BuildError::WrongWay));
}

// protocol: Z5
#[test]
fn an_array_that_comes_home_late_is_refused() {
    let mut world = World::new(24, 10);
    let plan = world.plan(2);
    let (build, send) = world.start(&plan);
    let late = build.deadline();
    let home = ArrayFrame { build: build.build_id(), ..send.frame };
    assert_eq!(build.handle(&mut world.rng, late, plan.nodes()[4], home).err(), Some(BuildError::Late));
}
