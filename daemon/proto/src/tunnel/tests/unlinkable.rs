//! What hops see and what they may change: nothing that tells who started, where they are, or what belongs together (I1 to I3).

use super::*;

/// I1, M2: kinds, lengths, order and sides are the same at every place and whoever starts, but for which side the starter is on.
// protocol: T1
#[test]
fn hops_cannot_tell_who_started_or_where_they_are() {
    let mut all = HashSet::new();
    for hops in 1..=4 {
        for owner_starts in [true, false] {
            let outcome = Row::new(3, hops).set_up(owner_starts);
            for mut sights in outcome.sights {
                if !owner_starts {
                    sights.iter_mut().for_each(|sight| sight.side = other(sight.side));
                }
                all.insert(sights);
            }
        }
    }
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all.iter().next().unwrap().len(), 8);
}

/// I3: any changed bit of anything at any place: the end that must notice says nothing more, and no tunnel stands at the starter.
// protocol: T9
#[test]
fn a_changed_bit_stops_the_tunnel() {
    let flip = |owner_starts: bool, kind: char, from: Side, at_place: usize, bit: usize| {
        let mut row = Row::new(4, 3);
        row.set_up_under(owner_starts, |place, side, frame| {
            if place == at_place && side == from && sight(frame, side, true).kind == kind {
                *frame.byte_mut(bit / 8) ^= 1 << (bit % 8);
            }
        })
    };
    for owner_starts in [true, false] {
        let starter = if owner_starts { Side::A } else { Side::B };
        let places = |from: Side| if from == Side::A { 1..=4 } else { 0..=3 };
        for (kind, from, bits) in
            [('S', starter, 512), ('T', other(starter), 1152), ('C', starter, 512), ('C', other(starter), 512)]
        {
            for place in places(from) {
                for bit in (0..bits).step_by(29) {
                    let outcome = flip(owner_starts, kind, from, place, bit);
                    let here = if owner_starts { outcome.owner.is_some() } else { outcome.end.is_some() };
                    assert!(!here, "{owner_starts} {kind} {place} {bit}");
                    // The starter sends S and Q, the far end R with P, and V.
                    let expected = match (kind, from == starter) {
                        ('S' | 'T', _) => [1, 1],
                        (_, true) => [2, 1],
                        (_, false) => [2, 2],
                    };
                    let sent = if owner_starts { outcome.sent } else { [outcome.sent[1], outcome.sent[0]] };
                    // A changed seed or tunnel id dies at a hop or at the first proof.
                    assert!(sent[0] <= expected[0] && sent[1] <= expected[1], "{kind} {place} {bit}: {sent:?}");
                }
            }
        }
    }
}

/// I2: hops that are not adjacent share no eight bytes, over many tunnels of one path.
#[test]
fn hops_that_are_not_adjacent_see_nothing_in_common() {
    let mut row = Row::new(5, 4);
    let mut seen = vec![Vec::new(); 4];
    for run in 0..100 {
        let outcome = row.set_up(run % 2 == 0);
        outcome.seen.into_iter().zip(&mut seen).for_each(|(new, all)| all.extend(new));
    }
    let windows: Vec<_> = seen.iter().map(|frames| windows(frames)).collect();
    for one in 0..4 {
        for two in one + 1..4 {
            assert_eq!(windows[one].is_disjoint(&windows[two]), two - one > 1, "{one} {two}");
        }
    }
}

/// I2: hops 1 and 3 collude; one of them sends what it likes, also the same in every tunnel, and the other looks for traces of it,
/// also for repetitions. Between them is one honest hop.
#[test]
fn what_a_hop_injects_leaves_no_trace_beyond_an_honest_hop() {
    for owner_starts in [true, false] {
        for (injector_side, colluder) in [(Side::A, 2), (Side::B, 0)] {
            let starts = owner_starts == (injector_side == Side::A);
            // What the injector passes towards the honest hop: S and Q, or R with P and V.
            for kind in if starts { ['S', 'C'] } else { ['T', 'C'] } {
                inject(owner_starts, injector_side, colluder, kind);
            }
        }
    }
}

fn inject(owner_starts: bool, injector_side: Side, colluder: usize, kind: char) {
    let mut row = Row::new(6, 3);
    let mut injected = HashSet::new();
    let mut earlier: HashSet<[u8; 8]> = HashSet::new();
    for run in 0..50 {
        row.expire();
        let outcome = row.set_up_under(owner_starts, |place, from, frame| {
            if place == 2 && from == injector_side && sight(frame, from, true).kind == kind {
                match frame {
                    // Honest hops pass no seed twice, hence the first eight bytes differ.
                    Frame::Seed(seed) => seed[8..].fill(7),
                    Frame::Tunnel(open) => (open.r, open.p) = ([7; BLOCK_LEN], [9; BLOCK_LEN]),
                    Frame::Confirm(block) => *block = [11; BLOCK_LEN],
                }
                injected.extend(windows(std::slice::from_ref(frame)));
            }
        });
        let from_middle: Vec<_> = (outcome.seen[colluder].iter().zip(&outcome.sights[colluder]))
            .filter(|(_, sight)| sight.arrived && sight.side == injector_side && sight.kind == kind)
            .map(|(frame, _)| frame.clone())
            .collect();
        assert_eq!(from_middle.len(), 1, "{kind}: the honest hop passes what it cannot check");
        let new = windows(&from_middle);
        assert!(new.is_disjoint(&injected), "{kind} {run}: the honest hop let something through");
        assert!(new.is_disjoint(&earlier), "{kind} {run}: two tunnels of one path can be linked");
        earlier.extend(new);
    }
}

/// B6: both neighbours of an honest hop send an equal seed. Neither what arrives nor what is dropped tells them that they are on one
/// path.
// protocol: T3
#[test]
fn an_equal_seed_from_both_sides_links_nothing() {
    let mut row = Row::new(7, 1);
    let seed = [7; BLOCK_LEN];
    let there = row.hops[0].seed(NOW, Side::A, &seed).unwrap();
    let back = row.hops[0].seed(NOW, Side::B, &seed).unwrap();
    let (there, back) = ([Frame::Seed(there)], [Frame::Seed(back)]);
    assert!(windows(&there).is_disjoint(&windows(&back)));
    // What came to one of them, sent back, is a seed like any other.
    let Frame::Seed(returned) = there[0] else { unreachable!("a seed") };
    let again = row.hops[0].seed(NOW, Side::B, &returned).unwrap();
    assert_ne!(again, seed);
    assert_eq!(row.hops[0].seed(NOW, Side::A, &seed), Err(TunnelError::Replay));
}
