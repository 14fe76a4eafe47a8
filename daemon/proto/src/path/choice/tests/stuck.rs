//! Where every circle has a node that kills builds, so that no account and no trial of these guards tells who.

use super::*;

/// Builds for a class as `stands` says, with trials between them, and a sample now and then; how many of the last 50 stood.
fn build(owner: &mut Owner, nodes: &[Candidate], class: Class, count: usize, stands: impl Fn(&Plan) -> bool) -> usize {
    let mut stood = Vec::new();
    for number in 0..count {
        owner.now += 5;
        if number % 12 == 0 {
            owner.sample(nodes);
        }
        // While guards are drawn anew there are none.
        let Ok((plan, case)) = owner.plan_of(P, class, 3) else { continue };
        stood.push(stands(&plan));
        owner.went(&case, if stands(&plan) { How::Built } else { How::Failed });
        if let Some((plan, case)) = owner.choice.trial(&mut owner.rng, owner.now, &|_| false) {
            owner.went(&case, if stands(&plan) { How::Built } else { How::Failed });
        }
    }
    stood.iter().rev().take(50).filter(|stood| **stood).count()
}

/// A newcomer's, with which nothing would come about for an hour.
// protocol: O22
#[test]
fn provisional_guards_of_which_no_three_work_are_drawn_anew() {
    let all = nodes(0..60);
    let mut drawn = BTreeSet::new();
    for seed in 0..20 {
        let mut owner = Owner::new(seed, Spread::Prefixes);
        owner.sample(&all);
        let first = owner.guards();
        let bad = first[..3].to_vec();
        let well = build(&mut owner, &all, Class::Out, 400, |plan| !plan.nodes().iter().any(|node| bad.contains(node)));
        assert!(owner.now < NOW + HOUR && well > 40, "seed {seed}: {well} of 50");
        assert_ne!(owner.guards(), first);
        // Nothing ever works: it is not for the guards to mend.
        let mut owner = Owner::new(seed, Spread::Prefixes);
        for _ in 0..30 {
            build(&mut owner, &all, Class::Out, 20, |_| false);
            drawn.insert((seed, owner.guards()));
        }
        assert!(owner.now < NOW + HOUR && owner.choice.notes(owner.now).contains(&Note::NoThreeWork));
    }
    let sets = |seed: u64| drawn.iter().filter(|(of, guards)| *of == seed && !guards.is_empty()).count();
    assert!((0..20).all(|seed| sets(seed) == 3), "as they were drawn first, and twice more");
}

/// Those that count are lasting: who kills builds must not have them drawn anew.
// protocol: O6, O22
#[test]
fn guards_that_count_stay_whatever_fails() {
    let all = nodes(0..200);
    let mut owner = Owner::settled(3, &all);
    let guards = owner.guards();
    build(&mut owner, &all, Class::Out, 600, |_| false);
    assert!(owner.choice.notes(owner.now).contains(&Note::NoThreeWork));
    assert_eq!(owner.guards(), guards);
}

/// Three of the five of layer 2.
// protocol: O23
#[test]
fn a_layer_of_which_every_circle_has_a_killer_is_mended() {
    let all = nodes(0..200);
    let mut mended = 0;
    for seed in 0..20 {
        let mut owner = Owner::settled(seed, &all);
        let members: BTreeSet<_> = (0..100).flat_map(|_| beside_guards(&owner.plan().0)).collect();
        let gone = |owner: &Owner| members.iter().filter(|member| !owner.choice.personas[&P].contains(member)).count();
        assert_eq!(members.len(), 5);
        let bad: Vec<_> = members.iter().copied().take(3).collect();
        let stands = |plan: &Plan| !plan.nodes().iter().any(|node| bad.contains(node));
        // Nothing else stands either: the network is to blame.
        for _ in 0..100 {
            owner.now += 5;
            let (_, case) = owner.plan();
            owner.went(&case, How::Failed);
        }
        assert_eq!(gone(&owner), 0);
        for _ in 0..60 {
            assert_eq!(build(&mut owner, &all, Class::In, 1, |_| true), 1);
            build(&mut owner, &all, Class::Out, 3, stands);
        }
        assert!((1..=2).contains(&gone(&owner)), "{}", gone(&owner));
        mended += usize::from(build(&mut owner, &all, Class::Out, 100, stands) > 10);
    }
    assert!(mended >= 12, "{mended} of 20: of two draws among five one at least is a killer nine times of ten");
}
