//! Invariant I2: what two hops that are not adjacent saw has no eight bytes in common, whatever they inject.

use super::*;
use crate::wire::Wire;
use crate::wire::array::{REPLY_LEN, SLOTS};

/// Eight bytes at any offset, and the stage that saw them.
struct Windows(Vec<(u64, u8)>);

impl Windows {
    /// All windows of a frame that stage `by` sent or received.
    fn add(&mut self, frame: &ArrayFrame, by: usize) {
        let bytes = frame.to_bytes();
        let by = u8::try_from(by).unwrap();
        self.0.extend(bytes.windows(8).map(|window| (u64::from_be_bytes(window.try_into().unwrap()), by)));
    }

    /// Pairs of stages, further apart than one, that saw the same window.
    fn links(mut self) -> Vec<(u64, u8, u8)> {
        self.0.sort_unstable();
        self.0.dedup();
        let far = |pair: &&[(u64, u8)]| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 > 1;
        // Sorted by window, then by stage: a distant pair has an adjacent pair of entries that is distant, or a chain of
        // neighbours between them, which would be three stages that saw the same.
        let three = |triple: &&[(u64, u8)]| {
            triple[0].0 == triple[2].0 && triple[0].1 < triple[1].1 && triple[1].1 < triple[2].1
        };
        let pairs = self.0.windows(2).filter(far).map(|pair| (pair[0].0, pair[0].1, pair[1].1));
        let triples = self.0.windows(3).filter(three).map(|triple| (triple[0].0, triple[0].1, triple[2].1));
        pairs.chain(triples).collect()
    }
}

/// Lets the hops look: stage s receives frame s and sends frame s + 1. The owner is no hop.
fn look(windows: &mut Windows, nodes: usize, stage: usize, frame: &ArrayFrame) {
    if stage < nodes {
        windows.add(frame, stage);
    }
    if stage > 0 {
        windows.add(frame, stage - 1);
    }
}

// protocol: P12, Z6
#[test]
fn distant_hops_have_no_eight_bytes_in_common() {
    for (seed, hops) in [(30, 2), (31, 3), (32, 3), (33, 4)] {
        let mut world = World::new(seed, 14);
        let plan = world.plan(hops);
        let mut windows = Windows(Vec::new());
        world.run(&plan, |_, stage, frame| look(&mut windows, plan.circle.len(), stage, frame)).unwrap();
        assert_eq!(windows.links(), []);
    }
}

/// The check above can fail: a slot that passes a hop unchanged is found.
#[test]
fn an_unchanged_slot_would_be_found() {
    let mut world = World::new(34, 10);
    let plan = world.plan(2);
    let mut windows = Windows(Vec::new());
    let mut kept = [0; 32];
    let _ = world.run(&plan, |round, stage, frame| {
        if (round, stage) == (1, 0) {
            kept.copy_from_slice(&frame.setup[0][100..132]);
        }
        if (round, stage) == (1, 2) {
            frame.setup[5][1000..1032].copy_from_slice(&kept);
        }
        look(&mut windows, plan.circle.len(), stage, frame);
    });
    assert!(windows.links().iter().any(|(_, a, b)| (*a, *b) == (0, 2)));
}

/// One hop writes a mark into every reply slot of the array that it sends, and another writes one into the setup array.
#[test]
fn an_injected_mark_goes_no_further_than_the_next_hop() {
    const MARK: [u8; 8] = *b"mark me!";
    let marked = |frame: &ArrayFrame| frame.to_bytes().windows(8).any(|window| window == MARK);
    for round in 1..=2 {
        for by in 0..5 {
            let mut world = World::new(35, 10);
            let plan = world.plan(3);
            let mut seen = Vec::new();
            let ended = world.run(&plan, |r, stage, frame| {
                if (r, stage) == (round, by + 1) {
                    frame.replies.iter_mut().for_each(|reply| {
                        let (chunks, _) = reply.as_chunks_mut::<8>();
                        chunks.fill(MARK);
                    });
                } else if marked(frame) {
                    seen.push((r, stage));
                }
            });
            assert_eq!(seen, [], "the mark of hop {by} in round {round}");
            assert!(matches!(ended, Err(Ended::Owner { .. })), "the owner notices");

            let ended = world.run(&plan, |r, stage, frame| {
                if (r, stage) == (round, by + 1) {
                    frame.setup[by][..8].copy_from_slice(&MARK);
                }
            });
            assert!(matches!(ended, Err(Ended::Hop { stage, .. }) if stage == by + 1), "the next hop stops it");
        }
    }
}

/// Equal contents in all slots leave a hop all different: nothing can be counted or matched by equality either.
#[test]
fn equal_slots_leave_unequal() {
    let mut world = World::new(36, 10);
    let plan = world.plan(2);
    let mut left = Vec::new();
    let _ = world.run(&plan, |round, stage, frame| {
        if (round, stage) == (1, 1) {
            frame.replies.iter_mut().for_each(|reply| *reply = [0x55; REPLY_LEN]);
        }
        if (round, stage) == (1, 2) {
            left = frame.replies.to_vec();
        }
    });
    left.sort_unstable();
    left.dedup();
    assert_eq!(left.len(), SLOTS);
}

/// What a node is told in the clear of its own package is drawn for it alone.
// protocol: P16
#[test]
fn build_ids_differ_on_every_link() {
    let mut world = World::new(37, 14);
    let plan = world.plan(4);
    let mut ids = Vec::new();
    world.run(&plan, |round, _, frame| ids.extend((round == 1).then_some(frame.build))).unwrap();
    let links = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), links), (12, 12));
}
