//! Whole builds: both ends agree, nodes forget, and nobody is told more than its neighbours (invariant I1).

use super::*;
use crate::path::plan::Role;
use crate::path::way::Way;
use crate::wire::array::{Orders, SLOTS, Segment};

/// All segments of a path as (from, segment), the owner's first.
fn segments(own: &NodeContact, outcome: &Outcome) -> Vec<(NodeId, Segment)> {
    let mut all = vec![(own.node_id(), outcome.path.segment.clone())];
    for (id, path) in &outcome.hop_paths {
        match &path.sides {
            Sides::Middle(sides) => all.extend(sides.iter().map(|side| (*id, side.clone()))),
            Sides::End(side) => all.push((*id, side.clone())),
        }
    }
    all
}

// protocol: P11, P15, Q11, Q14
#[test]
fn owner_and_nodes_agree_on_every_path() {
    for (seed, hops) in (0..12).zip([2, 3, 4].into_iter().cycle()) {
        let mut world = World::new(seed, 14);
        let plan = world.plan(hops);
        let outcome = world.run(&plan, |_, _, _| ()).unwrap();
        let Outcome { path, hop_paths } = &outcome;

        assert_eq!((path.hops.len(), path.until), (hops, NOW + 3600));
        assert_eq!(hop_paths.len(), hops, "Y-nodes are on no path");
        for hop in &path.hops {
            let told = &hop_paths[&hop.contact.node_id()];
            assert_eq!(told.secret.0, hop.secret.0);
            assert!((path.until..=path.until + UNTIL_SPREAD).contains(&told.until));
        }
        assert!(world.nodes.values().all(|node| node.hop.pending() == 0), "builds are forgotten");

        // The segments form one chain: each is known at both of its ends, by one id, and one end dials.
        let all = segments(&world.own.contact, &outcome);
        assert_eq!(all.len(), 2 * hops);
        for (from, segment) in &all {
            let to = segment.neighbour.node_id();
            let back = all.iter().find(|(at, back)| *at == to && back.path == segment.path).unwrap();
            assert_eq!((back.1.neighbour.node_id(), back.1.dial), (*from, !segment.dial));
        }
        assert_eq!(path.segment.neighbour, path.hops[0].contact);

        let last = &path.hops[hops - 1].contact;
        assert!(matches!(hop_paths[&last.node_id()].sides, Sides::End(_)), "the last X terminates");
    }
}

#[test]
fn secrets_differ_between_hops_and_builds() {
    let mut world = World::new(1, 10);
    let plan = world.plan(3);
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let path = world.run(&plan, |_, _, _| ()).unwrap().path;
        secrets.extend(path.hops.iter().map(|hop| *hop.secret.0));
    }
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!(secrets.len(), 6);
}

/// I1: fails to compile when a node comes to hold anything else of a path.
#[test]
fn a_node_holds_its_neighbours_and_nothing_else() {
    let mut world = World::new(2, 10);
    let plan = world.plan(3);
    for (_, path) in world.run(&plan, |_, _, _| ()).unwrap().hop_paths {
        let HopPath { secret: _, sides, until: _ } = path;
        match sides {
            Sides::Middle(two) => {
                let [_, _] = two.map(|Segment { neighbour: _, path: _, dial: _ }| ());
            }
            Sides::End(side) => {
                let Segment { neighbour: _, path: _, dial: _ } = side;
            }
        }
    }
}

/// I2: a time that two nodes were told alike would show them that they are on one path.
// protocol: P17
#[test]
fn paths_end_at_other_times_for_each_of_their_nodes() {
    let mut world = World::new(6, 14);
    let plan = world.plan(4);
    let mut equal = 0;
    for _ in 0..20 {
        let paths = world.run(&plan, |_, _, _| ()).unwrap().hop_paths;
        let untils: std::collections::BTreeSet<_> = paths.values().map(|path| path.until).collect();
        equal += paths.len() - untils.len();
    }
    // Twenty times six pairs, each equal with a chance of one in 601.
    assert!(equal < 5, "{equal} of 120");
}

/// I1: neither the order of an X-node's sides nor who dials tells where the owner is.
// protocol: Q10
#[test]
fn sides_and_dialing_do_not_point_to_the_owner() {
    let mut world = World::new(3, 10);
    let plan = world.plan(3);
    let (mut first, mut dialed) = (0, 0);
    for _ in 0..400 {
        let way = Way::new(&mut world.rng, &plan, &world.own.contact);
        let orders = way.orders(&mut world.rng, Role::X { position: 0 }, NOW + 3600);
        let Orders::Relay { sides, .. } = orders else { panic!("the nearest X relays") };
        let owner = sides.iter().position(|side| side.neighbour == world.own.contact).unwrap();
        first += usize::from(owner == 0);
        dialed += usize::from(sides[owner].dial);
    }
    // 400 fair coins: 200, give or take 60 (six standard deviations).
    assert!((140..=260).contains(&first) && (140..=260).contains(&dialed), "{first} {dialed}");
}

/// I1: who dials is told of nothing but of the segment beside an owner that nobody can dial.
// protocol: Q18
#[test]
fn an_owner_that_nobody_can_dial_dials_its_own_segment_and_no_other_differs() {
    let mut world = World::new(5, 10);
    let plan = world.plan(3);
    let mut inner = 0;
    for _ in 0..40 {
        let (build, send) = world.start(&plan);
        let outcome = world.drive(&plan, build.dialing(), send, |_, _, _| ()).unwrap();
        assert!(outcome.path.segment.dial);
        let own = world.own.contact.node_id();
        let all = segments(&world.own.contact, &outcome);
        let others = all.iter().filter(|(from, segment)| *from != own && segment.neighbour.node_id() != own);
        // Each segment is in there from both ends: of nearest, middle and last this is the middle one's view.
        let middle = outcome.path.hops[1].contact.node_id();
        inner += others.filter(|(from, segment)| *from == middle && segment.dial).count();
    }
    // 80 fair coins: 40, give or take 27 (six standard deviations).
    assert!((13..=67).contains(&inner), "{inner} of 80");
}

/// I1: the last node can test tags with public keys; it finds one for its successor, as every other node does.
// protocol: P14, Q9
#[test]
fn every_sender_finds_one_package_for_its_successor() {
    use crate::path::array::{first_tag, slot_key};
    let mut world = World::new(4, 14);
    for hops in [2, 4] {
        let plan = world.plan(hops);
        let mut receivers: Vec<Candidate> = plan.circle.iter().map(|placed| placed.candidate.clone()).collect();
        receivers.push(world.own.clone());
        let check = |round: usize, stage: usize, frame: &mut ArrayFrame| {
            let key = slot_key(&receivers[stage].contact.identity, &receivers[stage].path_dh);
            let fits =
                frame.setup.iter().filter(|slot| first_tag(&key, slot[16..].first_chunk().unwrap()) == slot[..16]);
            assert_eq!(fits.count(), if round == 1 { 1 } else { 0 }, "round {round}, stage {stage}");
        };
        world.run(&plan, check).unwrap();
    }
}

/// By how many bits a ciphertext's first part looks like ML-KEM rather than like random bytes: its 768 ten-bit values
/// come from numbers below 3329, so that some are likelier than others.
fn looks_like_a_ciphertext(reply: &[u8]) -> f64 {
    let mut sources = [0u32; 1024];
    (0..3329u32).for_each(|x| sources[((x * 1024 + 1664) / 3329 % 1024) as usize] += 1);
    let bit = |at: usize| usize::from(reply[at / 8] >> (at % 8) & 1);
    let value = |index: usize| (0..10).map(|place| bit(10 * index + place) << place).sum::<usize>();
    (0..768).map(|index| (f64::from(sources[value(index)]) * 1024.0 / 3329.0).log2()).sum()
}

/// I1: the first node finds one reply in the open, as every other node does.
// protocol: P13
#[test]
fn the_first_node_sees_a_reply_like_all_others() {
    let mut world = World::new(5, 10);
    let plan = world.plan(2);
    let nodes = plan.circle.len();
    let most =
        |frame: &ArrayFrame| frame.replies.iter().map(|reply| looks_like_a_ciphertext(reply)).fold(f64::MIN, f64::max);
    let builds = 40;
    let (mut seen, mut random) = (vec![0.0; nodes], 0.0);
    for _ in 0..builds {
        let look = |round: usize, stage: usize, frame: &mut ArrayFrame| {
            if round == 1 && stage < nodes {
                seen[stage] += most(frame);
            } else if round == 2 && stage == 0 {
                random += most(frame);
            }
        };
        world.run(&plan, look).unwrap();
    }
    // A true ciphertext scores 9 bits with a deviation of 5; the best of twelve random slots about -1.
    assert!(random / f64::from(builds) < 3.0, "{random}");
    assert!(seen.iter().all(|sum| sum / f64::from(builds) > 5.5), "{seen:?}");
}

#[test]
fn the_largest_circle_fills_the_array() {
    let mut world = World::new(6, 14);
    assert_eq!(world.plan(4).circle.len(), SLOTS - 1);
}

// protocol: C1
#[test]
fn bad_terms_send_nothing() {
    let mut world = World::new(7, 10);
    let plan = world.plan(2);
    let own = world.own.clone();
    for until in [NOW + 599, NOW + 86_401] {
        let refused = Build::start(&mut world.rng, NOW, plan.clone(), &own, until);
        assert_eq!(refused.err(), Some(BuildError::Terms));
    }
}
