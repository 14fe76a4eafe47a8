//! Networks without room for layers.

use super::*;

/// What a private network of twelve nodes needs, two seconds after its start.
#[test]
fn twelve_nodes_in_one_prefix_are_enough_at_once() {
    let sample: Vec<Candidate> = (0..11).map(|n| at([9, 9, 0, n], n.into(), 1)).collect();
    let mut owner = Owner::new(18, Spread::Nodes);
    owner.sample(&sample);
    let (plan, _) = owner.plan();
    assert_eq!(plan.nodes().into_iter().collect::<BTreeSet<_>>().len(), 8);
    assert!(owner.choice.notes(owner.now).contains(&Note::LayersOff));
    // Three are gone, guards among them, and it goes on.
    let gone: Vec<NodeId> = owner.guards().into_iter().take(3).collect();
    gone.iter().for_each(|guard| owner.choice.dialed(owner.now, guard, false));
    owner.sample(&sample);
    let away = |node: &NodeId| gone.contains(node);
    let (plan, _) = owner.choice.plan(&mut owner.rng, owner.now, P, Class::Out, 3, &away).unwrap();
    assert!(plan.nodes().iter().all(|node| !gone.contains(node)));
    let few = &sample[..7];
    let mut owner = Owner::new(19, Spread::Nodes);
    owner.sample(few);
    let refused = owner.plan_of(P, Class::Out, 3).unwrap_err();
    assert_eq!(refused, PlanError::NotEnough { have: 4, need: 5, of: Needed::Operators });
}

// protocol: O18
#[test]
fn without_layers_four_nodes_stand_beside_guards() {
    let mut owner = Owner::settled(20, &nodes(0..20));
    let beside: BTreeSet<_> = (0..200).flat_map(|_| beside_guards(&owner.plan().0)).collect();
    assert_eq!(beside.len(), 4);
}

/// In a network as small as the first one will be: two of thirteen drop what they get. Where both stand among the four no circle is without
/// one of them, and nobody's account says so.
// protocol: O18
#[test]
fn without_layers_nobody_who_makes_all_builds_fail_stays_beside_guards() {
    let mut hopeless = 0;
    for seed in 0..60 {
        let mut owner = Owner::settled(seed, &nodes(0..13));
        let guards: BTreeSet<_> = owner.guards().into_iter().collect();
        let mut others = nodes(0..13).into_iter().map(|node| node.contact.node_id()).filter(|id| !guards.contains(id));
        let hostile = [others.next().unwrap(), others.next().unwrap()];
        let build = |owner: &mut Owner| {
            let (plan, case) = owner.plan();
            let stands = plan.nodes().iter().all(|node| !hostile.contains(node));
            owner.went(&case, if stands { How::Built } else { How::Failed });
            if stands {
                owner.went(&case, How::Ended);
            }
            stands
        };
        let mut stand = |count: usize| (0..count).filter(|_| build(&mut owner)).count();
        let (first, _, last) = (stand(20), stand(200), stand(40));
        hopeless += usize::from(first == 0);
        assert!(last >= 20, "seed {seed}: {last} of 40 stand, {first} of the first 20");
    }
    assert!(hopeless > 5, "{hopeless} of 60 began with none");
}

/// As long as one in twenty stands they are not drawn anew.
// protocol: O18
#[test]
fn without_layers_failures_alone_bring_nobody_else_beside_guards() {
    let mut owner = Owner::settled(22, &nodes(0..20));
    let mut beside = BTreeSet::new();
    for number in 0..400 {
        let (plan, case) = owner.plan();
        beside.extend(beside_guards(&plan));
        owner.went(&case, if number % 20 == 19 { How::Built } else { How::Failed });
    }
    assert_eq!(beside.len(), 4);
}

/// A node that was cut off, or has just started again, knows few nodes and still has its layers.
#[test]
fn a_small_sample_takes_no_layers_away() {
    let all = nodes(0..200);
    let mut owner = Owner::settled(21, &all);
    owner.choice.born(P, Sets::persistent([1; 32]));
    let before: BTreeSet<_> = (0..100).flat_map(|_| beside_guards(&owner.plan().0)).collect();
    let kept = owner.choice.changed(P).unwrap();
    assert_eq!(owner.choice.changed(P), None, "kept already");
    let bytes = owner.choice.to_bytes();
    owner.choice = Choice::restored(own(), Spread::Prefixes, &bytes).unwrap();
    owner.choice.born(P, Sets::restored([1; 32], &kept).unwrap());
    owner.sample(&all[..15]);
    let after: BTreeSet<_> = (0..100).flat_map(|_| beside_guards(&owner.plan().0)).collect();
    assert_eq!(before, after);
}

/// Of thirteen nodes two kill all builds, and both are guards. Good ones were found guilty with them: where few others are known, a killer stood in
/// half of the trials of those that work.
// protocol: O9, O21
#[test]
fn a4_two_guards_that_kill_every_build_are_found() {
    for seed in 0..40 {
        let mut owner = Owner::new(seed, Spread::Prefixes);
        owner.sample(&nodes(0..13));
        let bad = owner.guards()[..2].to_vec();
        let stands = |plan: &Plan| !plan.nodes().iter().any(|node| bad.contains(node));
        owner.build(150, stands);
        let well = owner.build(50, stands).len();
        assert!(owner.now < NOW + HOUR && well > 40, "seed {seed}: {well} of 50");
    }
}
