//! The choice of nodes: guards next to the owner, one node per operator, and nothing an attacker can steer beyond bounds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::crypto::VerifyingKey;
use crate::path::guards::{ABSENCE_MAX, GUARDS, GUARDS_MAX, GUARDS_USED};
use crate::path::plan::{Needed, Role, WEIGHT_MAX};
use crate::wire::Wire;

/// A candidate at `ip`, with an identity of its own and no real keys: plans do not look at them.
fn at(ip: [u8; 4], number: u32, weight: u32) -> Candidate {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let contact = NodeContact { identity: VerifyingKey(key), addr: (ip, 443).into(), link_secret: [0; 32] };
    Candidate { contact, path_dh: [0; 32], path_kem: Arc::new([0; 1184]), weight }
}

/// 60 nodes: three in each of twenty /16, the owner's among them.
fn sample() -> Vec<Candidate> {
    (0..60).map(|n| at([10, (n % 20) as u8, (n / 20) as u8, 1], n, 1)).collect()
}

fn own() -> NodeContact {
    at([10, 0, 9, 9], 1000, 1).contact
}

fn wish(hops: usize) -> Wish {
    Wish { hops, spread: Spread::Prefixes }
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn guards(rng: &mut ChaCha20Rng, sample: &[Candidate]) -> Guards {
    let mut guards = Guards::default();
    assert!(guards.refresh(rng, NOW, &own(), sample, Spread::Prefixes));
    guards
}

fn draw_plan(rng: &mut ChaCha20Rng, hops: usize, sample: &[Candidate], guards: &Guards) -> Result<Plan, PlanError> {
    plan(rng, &wish(hops), &own(), sample, guards, &Accounts::default())
}

fn prefix(candidate: &Candidate) -> [u8; 2] {
    match candidate.contact.addr.ip() {
        std::net::IpAddr::V4(ip) => [ip.octets()[0], ip.octets()[1]],
        std::net::IpAddr::V6(_) => panic!("the sample is IPv4"),
    }
}

/// The nodes of a plan that stand next to the owner: in the circle, and on the path.
fn next_to_owner(plan: &Plan) -> [NodeId; 3] {
    let id = |placed: &Placed| placed.candidate.contact.node_id();
    let nearest = plan.circle.iter().find(|placed| placed.role == Role::X { position: 0 }).unwrap();
    [id(&plan.circle[0]), id(nearest), id(plan.circle.last().unwrap())]
}

use crate::path::plan::Placed;

#[test]
fn a_thousand_plans_keep_the_rules() {
    let mut rng = rng(60);
    let sample = sample();
    let guards = guards(&mut rng, &sample);
    let used: BTreeSet<NodeId> = guards.nodes().take(GUARDS_USED).collect();
    let mut turned = 0;
    for n in 0..1000 {
        let hops = 2 + n % 3;
        let plan = draw_plan(&mut rng, hops, &sample, &guards).unwrap();
        assert_eq!(plan.circle.len(), 3 * hops - 1);
        assert_eq!(BTreeSet::from(next_to_owner(&plan)), used, "the same three, always");
        let prefixes: BTreeSet<_> = plan.circle.iter().map(|placed| prefix(&placed.candidate)).collect();
        assert_eq!(prefixes.len(), plan.circle.len(), "one node per operator");
        assert!(!prefixes.contains(&[10, 0]), "none of the owner's");

        let mut roles: Vec<Role> = plan.circle.iter().map(|placed| placed.role).collect();
        if roles[1] != (Role::X { position: 0 }) {
            roles.reverse();
            turned += 1;
        }
        let mut expected = vec![Role::Y];
        for position in 0..hops {
            expected.extend([Role::X { position }, Role::Y]);
        }
        expected.resize(3 * hops - 1, Role::Y);
        assert_eq!(roles, expected);
    }
    assert!((400..=600).contains(&turned), "a coin turns the order: {turned}");
}

#[test]
fn every_guard_takes_every_role() {
    let mut rng = rng(61);
    let sample = sample();
    let guards = guards(&mut rng, &sample);
    let seats: BTreeSet<_> = (0..100)
        .map(|_| draw_plan(&mut rng, 3, &sample, &guards).unwrap())
        .flat_map(|plan| next_to_owner(&plan).into_iter().enumerate())
        .collect();
    assert_eq!(seats.len(), 9);
}

#[test]
fn guards_survive_a_restart_and_short_absences() {
    let mut rng = rng(62);
    let sample = sample();
    let first = guards(&mut rng, &sample);
    assert_eq!(first.nodes().count(), GUARDS);
    let mut guards = Guards::from_bytes(&first.to_bytes()).unwrap();
    assert_eq!(guards, first);

    let gone: Vec<NodeId> = first.nodes().take(2).collect();
    let without: Vec<Candidate> =
        sample.iter().filter(|node| !gone.contains(&node.contact.node_id())).cloned().collect();
    for hour in 0..48 {
        guards.refresh(&mut rng, NOW + hour * 3600, &own(), &without, Spread::Prefixes);
    }
    assert!(guards.nodes().eq(first.nodes()), "two may be away");
    let reserve: BTreeSet<NodeId> = first.nodes().skip(2).collect();
    let plan = draw_plan(&mut rng, 3, &without, &guards).unwrap();
    assert_eq!(BTreeSet::from(next_to_owner(&plan)), reserve);

    assert!(guards.refresh(&mut rng, NOW + ABSENCE_MAX, &own(), &without, Spread::Prefixes));
    assert!(guards.nodes().all(|node| !gone.contains(&node)), "forgotten after long");
    assert_eq!(guards.nodes().count(), GUARDS);
}

/// An attacker who shoots guards down gets new ones drawn, but not without end.
#[test]
fn shot_guards_are_replaced_up_to_a_limit() {
    let mut rng = rng(63);
    let mut sample = sample();
    let mut guards = guards(&mut rng, &sample);
    for day in 1..20 {
        let up: Vec<NodeId> = guards.nodes().collect();
        sample.retain(|node| !up.contains(&node.contact.node_id()));
        guards.refresh(&mut rng, NOW + day * 3600, &own(), &sample, Spread::Prefixes);
    }
    assert_eq!(guards.nodes().count(), GUARDS_MAX);
    let refused = draw_plan(&mut rng, 2, &sample, &guards).err();
    assert!(matches!(refused, Some(PlanError::NotEnough { have: 0..=2, need: 3, of: Needed::Guards })), "{refused:?}");
}

#[test]
fn a_guard_whose_builds_fail_stands_back() {
    let mut rng = rng(64);
    let sample = sample();
    let guards = guards(&mut rng, &sample);
    let bad = guards.nodes().next().unwrap();
    let mut accounts = Accounts::default();
    for n in 0..60 {
        accounts.note(&[if n % 2 == 0 { bad } else { NodeId([7; 32]) }], n % 2 == 1);
    }
    for _ in 0..50 {
        let plan = plan(&mut rng, &wish(3), &own(), &sample, &guards, &accounts).unwrap();
        assert!(!next_to_owner(&plan).contains(&bad));
    }
}

#[test]
fn many_nodes_in_one_prefix_have_no_more_chance_than_one() {
    let mut rng = rng(65);
    let mut sample: Vec<Candidate> = (1..40).map(|n| at([10, n as u8, 0, 1], n, 1)).collect();
    sample.extend((0..1000).map(|n| at([66, 6, (n / 250) as u8, (n % 250) as u8], 5000 + n, 1)));
    let guards = {
        // Guards of the honest part: this is about the others.
        let mut guards = Guards::default();
        guards.refresh(&mut rng, NOW, &own(), &sample[..39], Spread::Prefixes);
        guards
    };
    let plans = 600;
    let drawn: usize = (0..plans)
        .map(|_| draw_plan(&mut rng, 3, &sample, &guards).unwrap())
        .map(|plan| plan.circle.iter().filter(|placed| prefix(&placed.candidate) == [66, 6]).count())
        .sum();
    // 5 of the 37 operators that are left are drawn: 81 times in 600, give or take 8.
    assert!((40..=125).contains(&drawn), "{drawn}");
}

#[test]
fn boasting_is_cut() {
    let mut rng = rng(66);
    let mut sample: Vec<Candidate> = (1..200).map(|n| at([10, n as u8, 0, 1], n, 1)).collect();
    let guards = {
        let mut guards = Guards::default();
        guards.refresh(&mut rng, NOW, &own(), &sample[..20], Spread::Prefixes);
        guards
    };
    sample.push(at([66, 6, 0, 1], 5000, u32::MAX));
    let plans = 400;
    let drawn = (0..plans)
        .map(|_| draw_plan(&mut rng, 3, &sample, &guards).unwrap())
        .filter(|plan| plan.circle.iter().any(|placed| prefix(&placed.candidate) == [66, 6]))
        .count();
    // Five draws at 16 in 212: about a third of the plans.
    assert_eq!(WEIGHT_MAX, 16);
    assert!((80..=190).contains(&drawn), "{drawn}");
}

#[test]
fn refusals_say_what_is_missing() {
    let mut rng = rng(67);
    let few: Vec<Candidate> = sample().into_iter().take(6).collect();
    let none = draw_plan(&mut rng, 2, &few, &Guards::default()).unwrap_err();
    assert_eq!(none.to_string(), "a path needs 3, but only 0 guards are reachable at distinct operators");
    let guards = guards(&mut rng, &few);
    assert!(draw_plan(&mut rng, 2, &few, &guards).is_ok(), "five operators are enough for two X-nodes");
    let error = draw_plan(&mut rng, 3, &few, &guards).unwrap_err();
    assert_eq!(error, PlanError::NotEnough { have: 2, need: 5, of: Needed::Operators });
    assert!(error.to_string().starts_with("a path needs 5, but only 2 further operators are known"));
    for hops in [0, 1, 5, usize::MAX] {
        assert_eq!(draw_plan(&mut rng, hops, &few, &guards).err(), Some(PlanError::Hops(hops)));
    }
}

#[test]
fn a_private_network_may_live_in_one_prefix() {
    let mut rng = rng(68);
    let sample: Vec<Candidate> = (0..9).map(|n| at([10, 0, 0, n as u8], n, 1)).collect();
    let own = sample[0].contact.clone();
    let mut guards = Guards::default();
    guards.refresh(&mut rng, NOW, &own, &sample, Spread::Nodes);
    let wish = Wish { spread: Spread::Nodes, ..wish(3) };
    let plan = plan(&mut rng, &wish, &own, &sample, &guards, &Accounts::default()).unwrap();
    let nodes: BTreeSet<NodeId> = plan.nodes().into_iter().collect();
    assert!(nodes.len() == 8 && !nodes.contains(&own.node_id()));
}

proptest! {
    #[test]
    fn any_bytes_are_guards_in_their_one_encoding_or_none(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        if let Ok(guards) = Guards::from_bytes(&bytes) {
            prop_assert_eq!(guards.to_bytes(), bytes);
        }
    }
}
