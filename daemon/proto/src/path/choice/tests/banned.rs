//! Guards that maintainers have banned.

use super::*;
use crate::path::choice::guards::BANNED_PAUSE;

fn ban(owner: &mut Owner, guards: &[NodeId], since: u64) {
    owner.choice.ban(guards.iter().map(|guard| (*guard, since)).collect());
}

/// However many are banned, and however often they are dialed in vain, nobody is drawn for a day.
// protocol: M17
#[test]
fn a_banned_guard_is_not_used_and_keeps_its_place_for_a_day() {
    // Of one prefix: there no other bound delays a draw.
    let sample: Vec<Candidate> = (0..40).map(|n| at([9, 9, 0, n], n.into(), 1)).collect();
    let mut owner = Owner::new(31, Spread::Nodes);
    owner.sample(&sample);
    owner.now += 2 * HOUR;
    owner.sample(&sample);
    let before = owner.guards();
    let (one, banned) = (before[0], &before[..3]);
    let since = owner.now;
    ban(&mut owner, &[one], since);
    for _ in 0..20 {
        let (plan, case) = owner.plan();
        assert!(!next_to_owner(&plan).contains(&one));
        owner.went(&case, How::Built);
    }
    ban(&mut owner, banned, since);
    let free: Vec<Candidate> = sample.iter().filter(|node| !banned.contains(&id(node))).cloned().collect();
    for later in [0, HOUR + 1, BANNED_PAUSE - 1] {
        owner.now = since + later;
        banned.iter().for_each(|guard| owner.choice.dialed(owner.now, guard, false));
        owner.sample(&free);
        assert_eq!(owner.guards(), before, "{later} s later");
        let refused = owner.plan_of(P, Class::Out, 3).unwrap_err();
        assert!(matches!(refused, PlanError::NotEnough { have: 2, .. }), "{refused}");
    }
    owner.now = since + BANNED_PAUSE;
    owner.sample(&free);
    assert!(owner.guards().len() > before.len());
    let (plan, _) = owner.plan();
    assert!(plan.nodes().iter().all(|node| !banned.contains(node)));
}

// protocol: M17
#[test]
fn a_ban_that_is_over_within_the_day_changes_no_guards() {
    let sample = nodes(0..400);
    let mut owner = Owner::settled(32, &sample);
    let before = owner.guards();
    let since = owner.now;
    ban(&mut owner, &before, since);
    owner.now += BANNED_PAUSE / 2;
    owner.sample(&sample);
    ban(&mut owner, &[], 0);
    owner.now += BANNED_PAUSE;
    owner.sample(&sample);
    assert_eq!(owner.guards(), before);
    let (plan, _) = owner.plan();
    assert!(next_to_owner(&plan).iter().any(|node| before.contains(node)));
}
