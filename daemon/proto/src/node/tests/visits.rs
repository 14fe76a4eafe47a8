//! An owner looks at its own entries from outside; what has no work any more ends at times of its own.

use std::collections::BTreeSet;

use super::owner::{address, build, key, owner};
use super::*;
use crate::node::paths::Path;
use crate::path::{Case, Class};
use crate::record::{ApRecord, Signed};

const HOUR: u64 = 3_600_000;

/// A service with three published entries, all beside guard 1, and paths that lead out, beside guard 2.
fn service(seed: u64) -> (Node, Persona, Vec<PathNo>) {
    let mut node = owner(seed, Settings { publish_within: 0, ..Settings::default() });
    node.tick(NOW);
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let persona = node.persona_of(address(1)).unwrap();
    let entries: Vec<_> = (0..3).map(|_| built(&mut node, NOW, persona, Class::In, 1)).collect();
    node.serve(NOW);
    // Connect, ask, ask again, and three spares: the next is one too many.
    for _ in 0..6 {
        built(&mut node, NOW, persona, Class::Out, 2);
    }
    while node.poll().is_some() {}
    (node, persona, entries)
}

fn built(node: &mut Node, now: u64, persona: Persona, class: Class, guard: u8) -> PathNo {
    let no = build(node, now, persona, class);
    let owned = node.paths.get_mut(&no).and_then(Path::owned_mut).unwrap();
    owned.case = Case::beside(NodeId([guard; 32]));
    no
}

/// What a spare that goes is used for.
enum Outing {
    Visit(PathNo),
    LookUp,
}

/// What a new spare leads to, and when: over which path and to what.
fn next_outing(node: &mut Node, mut now: u64, persona: Persona) -> Option<(u64, PathNo, Outing)> {
    built(node, now, persona, Class::Out, 2);
    let until = now + HOUR;
    while now < until {
        now += 1_000;
        // It was awake all the while.
        node.note_time(now);
        node.leave(now);
        while let Some(output) = node.poll() {
            let (path, identity, outing) = match output {
                Output::Visit { path, entry, identity, .. } => (path, identity, Outing::Visit(entry)),
                Output::LookUp { path, identity } => (path, identity, Outing::LookUp),
                _ => continue,
            };
            assert_eq!(identity, address(1));
            return Some((now, path, outing));
        }
    }
    None
}

/// The next visit, where each look-up finds nobody who answers.
fn next_visit(node: &mut Node, now: u64, persona: Persona) -> Option<(u64, PathNo, PathNo)> {
    let mut at = now;
    loop {
        match next_outing(node, at, persona)? {
            (now, path, Outing::Visit(entry)) => return Some((now, path, entry)),
            (now, path, Outing::LookUp) => {
                node.drop_path(now, path);
                at = now;
            }
        }
    }
}

/// The next look-up, where each visit reaches its entry.
fn next_look_up(node: &mut Node, now: u64, persona: Persona) -> Option<(u64, PathNo)> {
    let mut at = now;
    loop {
        match next_outing(node, at, persona)? {
            (now, path, Outing::LookUp) => return Some((now, path)),
            (now, path, Outing::Visit(_)) => {
                node.handle(now, Input::Visited { path, reached: true });
                at = now;
            }
        }
    }
}

/// The serials of records that left at this time or before.
fn served(node: &mut Node, now: u64) -> Vec<u64> {
    node.serve(now);
    let served = std::iter::from_fn(|| node.poll()).filter_map(|output| match output {
        Output::Serve { record, .. } => {
            Some(Signed::<ApRecord>::from_bytes(&record).unwrap().check(now / 1000).unwrap().serial)
        }
        _ => None,
    });
    served.collect()
}

// protocol: K15
#[test]
fn an_entry_that_three_exits_do_not_reach_is_dropped() {
    let (mut node, persona, entries) = service(1);
    let (mut now, mut exits, mut bad) = (NOW + 60_000, BTreeSet::new(), None);
    for failed in 0..3 {
        let (at, path, entry) = next_visit(&mut node, now, persona).expect("it is looked at");
        assert!(node.paths.contains_key(bad.get_or_insert(entry)) && bad == Some(entry), "who has failed comes first");
        assert!(entries.contains(&entry));
        exits.insert(node.paths[&path].owned().unwrap().end.node_id());
        if failed == 1 {
            let words = node.seen_from_outside(at);
            assert!(words[0].1.contains("was not reached by 1 of 3"), "{words:?}");
        }
        node.handle(at, Input::Visited { path, reached: false });
        now = at;
    }
    assert_eq!(exits.len(), 3);
    let left = entries.iter().filter(|entry| node.paths.contains_key(entry)).count();
    assert!(left == 2 && !node.paths.contains_key(&bad.unwrap()), "that one, and no other");
}

/// Whoever waits for a first visit is visited by the daemon's own stranger: `phantom status` does not deny it.
#[test]
fn a_service_that_was_reached_otherwise_counts_as_seen() {
    let (mut node, ..) = service(1);
    let words = |node: &Node, now| node.seen_from_outside(now).remove(0).1;
    assert_eq!(words(&node, NOW), "not seen from outside yet");
    node.handle(NOW, Input::Seen(address(9)));
    assert_eq!(words(&node, NOW), "not seen from outside yet", "another's");
    node.handle(NOW, Input::Seen(address(1)));
    assert_eq!(words(&node, NOW + 60_000), "seen from outside 1 min ago");
}

/// A liar among three is not believed, and who was reached is looked at no sooner than another.
#[test]
fn an_entry_that_one_exit_reaches_stays() {
    let (mut node, persona, entries) = service(2);
    let (mut now, mut seen) = (NOW + 60_000, BTreeSet::new());
    for round in 0..40 {
        let (at, path, entry) = next_visit(&mut node, now, persona).expect("it is looked at");
        seen.insert(entry);
        node.handle(at, Input::Visited { path, reached: round % 3 == 2 });
        now = at + 1;
    }
    assert!(entries.iter().all(|entry| node.paths.contains_key(entry)));
    assert_eq!(seen.len(), 3, "each has its turn");
    let words = node.seen_from_outside(now + 5 * 60_000).remove(0);
    assert_eq!(words.0, address(1));
    assert!(words.1.starts_with("seen from outside ") && words.1.contains(" ago"), "{words:?}");
}

/// What the nodes of the database keep back from everybody is noticed by whoever looks, and by nobody else.
// protocol: K27, K28
#[test]
fn a_record_that_three_ends_do_not_find_is_made_anew() {
    let (mut node, persona, entries) = service(10);
    let (mut now, mut ends) = (NOW + 60_000, BTreeSet::new());
    let newest = node.personas[&persona].service.as_ref().unwrap().newest();
    assert!(served(&mut node, now).is_empty(), "it has left before");
    let words = |node: &Node, now| node.seen_from_outside(now).remove(0).1;
    for missed in 0..3 {
        assert_eq!(node.vitals(now).unrecorded, 0);
        let (at, path) = next_look_up(&mut node, now, persona).expect("it is looked up");
        assert!(served(&mut node, at).is_empty());
        ends.insert(node.paths[&path].owned().unwrap().end.node_id());
        // One that has an older record is as one that has none.
        node.handle(at, Input::LookedUp { path, serial: (missed == 1).then_some(newest - 1) });
        now = at;
        if missed < 2 {
            let said = words(&node, now);
            assert!(said.contains(&format!("record was not found by {} of 3", missed + 1)), "{said}");
        }
    }
    assert_eq!((ends.len(), node.vitals(now).unrecorded), (3, 1), "three of them");
    assert!(words(&node, now).ends_with("its record was not found, and was made anew"));
    let sent: Vec<_> = (now..now + 60_000).step_by(500).flat_map(|now| served(&mut node, now)).collect();
    assert_eq!(sent, vec![newest + 1; entries.len()], "once along each path");
    // Whoever finds it later ends that.
    let (at, path) = next_look_up(&mut node, now + 60_000, persona).unwrap();
    node.handle(at, Input::LookedUp { path, serial: Some(newest) });
    assert_eq!(node.vitals(at).unrecorded, 1, "the old one");
    let (at, path) = next_look_up(&mut node, at, persona).unwrap();
    node.handle(at, Input::LookedUp { path, serial: Some(newest + 1) });
    assert_eq!(node.vitals(at).unrecorded, 0);
    assert!(words(&node, at + 300_000).ends_with("; its record has stood for 5 min, looked up 5 min ago"));
}

/// `phantom status` says since when each look has found it.
// protocol: K28
#[test]
fn a_record_that_one_end_finds_stands() {
    let (mut node, persona, _) = service(11);
    let newest = node.personas[&persona].service.as_ref().unwrap().newest();
    let (mut now, mut first) = (NOW + 60_000, None);
    for round in 0..12 {
        let (at, path) = next_look_up(&mut node, now, persona).expect("it is looked up");
        let found = round % 3 != 2;
        node.handle(at, Input::LookedUp { path, serial: found.then_some(newest) });
        first.get_or_insert(at);
        now = at;
        assert!(served(&mut node, at).iter().all(|serial| serial >> 16 > newest >> 16), "none is made anew");
    }
    let words = node.seen_from_outside(now).remove(0).1;
    let since = format!("; its record has stood for {}, looked up ", age((now - first.unwrap()) / 1000));
    assert!(words.contains(&since) && words.ends_with("; its record was not found by 1 of 3"), "{words}, {since}");
}

/// Its entry nodes have it whether the database has it or not; and before it has had its time nobody need have it.
// protocol: K27, K29
#[test]
fn no_entry_node_is_asked_for_the_record_nor_anybody_before_it_must_be_there() {
    let (mut node, persona, entries) = service(12);
    let path = built(&mut node, NOW, persona, Class::Out, 2);
    node.let_go(NOW, path);
    assert_eq!(node.begin_look_up(NOW + 59_000, path), None, "it is on its way");
    let end = node.paths[&path].owned().unwrap().end.clone();
    let entry = node.paths[&entries[0]].owned().unwrap().end.clone();
    node.paths.get_mut(&path).and_then(Path::owned_mut).unwrap().end = entry;
    assert_eq!(node.begin_look_up(NOW + 60_000, path), None, "an entry node");
    node.paths.get_mut(&path).and_then(Path::owned_mut).unwrap().end = end;
    assert_eq!(node.begin_look_up(NOW + 60_000, path), Some(()));
    assert_eq!(node.begin_look_up(NOW + 60_000, path), None, "a path asks once");
}

/// One in three looks the record up, and which one says nothing.
// protocol: K27
#[test]
fn a_third_of_the_spares_that_go_look_the_record_up() {
    let (mut node, persona, _) = service(13);
    let (mut now, mut looked) = (NOW + 60_000, 0);
    let newest = node.personas[&persona].service.as_ref().unwrap().newest();
    for _ in 0..60 {
        let (at, path, outing) = next_outing(&mut node, now, persona).expect("it is used");
        match outing {
            Outing::Visit(_) => node.handle(at, Input::Visited { path, reached: true }),
            Outing::LookUp => {
                looked += 1;
                node.handle(at, Input::LookedUp { path, serial: Some(newest + (1 << 20)) });
            }
        }
        now = at;
    }
    assert!((10..32).contains(&looked), "{looked} of 60");
}

/// Which entry is due when says nothing of when anything was done: a visit waits for a clock, and then some time of its own.
#[test]
fn visits_come_at_times_of_their_own() {
    let (mut node, persona, _) = service(3);
    let mut waits = Vec::new();
    let mut now = NOW + 60_000;
    for _ in 0..60 {
        let (at, path, outing) = next_outing(&mut node, now, persona).unwrap();
        waits.push(at - now);
        match outing {
            Outing::Visit(_) => node.handle(at, Input::Visited { path, reached: true }),
            Outing::LookUp => node.handle(at, Input::LookedUp { path, serial: Some(u64::MAX) }),
        }
        now = at;
    }
    let mean = waits.iter().sum::<u64>() / 60;
    assert!((70_000..200_000).contains(&mean), "{mean}");
    let short = waits.iter().filter(|wait| **wait < 60_000).count();
    assert!((12..40).contains(&short), "{short} of 60 in the first minute: {waits:?}");
}

/// Both ways of a visit would meet at a guard that stands next to the owner on both, and it would see that they do.
// protocol: K13
#[test]
fn no_visit_leads_past_one_guard_twice_nor_to_an_entry_that_may_not_serve_yet() {
    let (mut node, persona, _) = service(4);
    for no in node.paths.keys().copied().collect::<Vec<_>>() {
        let owned = node.paths.get_mut(&no).and_then(Path::owned_mut).unwrap();
        owned.case = Case::beside(NodeId([2; 32]));
    }
    for _ in 0..5 {
        if let Some((at, path, outing)) = next_outing(&mut node, NOW + 60_000, persona) {
            assert!(matches!(outing, Outing::LookUp), "a look-up meets no entry path");
            node.drop_path(at, path);
        }
    }
    let (mut node, persona, _) = service(4);
    built(&mut node, NOW, persona, Class::Out, 2);
    (NOW..NOW + 59_000).step_by(1_000).for_each(|now| node.leave(now));
    assert!(!std::iter::from_fn(|| node.poll()).any(|output| matches!(output, Output::Visit { .. })));
}

/// What ended with the path of a visit says nothing of the entry.
#[test]
fn a_visit_whose_path_is_lost_counts_for_nothing() {
    let (mut node, persona, entries) = service(5);
    let mut now = NOW + 60_000;
    for _ in 0..6 {
        let (at, path, _) = next_visit(&mut node, now, persona).unwrap();
        node.drop_path(at, path);
        node.handle(at + 1, Input::Visited { path, reached: false });
        now = at + 1;
    }
    assert!(entries.iter().all(|entry| node.paths.contains_key(entry)));
    assert!(node.visits.is_empty());
    assert!(!node.seen_from_outside(now)[0].1.contains("not reached"));
}

/// What closes together belongs together.
// protocol: K21
#[test]
fn the_paths_of_an_identity_that_is_gone_end_one_by_one() {
    let (mut node, ..) = service(6);
    let own = |node: &Node| node.paths.values().filter(|path| path.owned().is_some()).count();
    let before = own(&node);
    node.handle(NOW, Input::Forget(address(1)));
    let mut ends = Vec::new();
    for now in (NOW..NOW + HOUR).step_by(100) {
        let had = own(&node);
        node.leave(now);
        ends.extend(std::iter::repeat_n(now - NOW, had - own(&node)));
    }
    assert_eq!((before, ends.len()), (9, 9));
    assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), ends.len(), "two at once: {ends:?}");
    let mean = ends.iter().sum::<u64>() / 9;
    assert!((20_000..180_000).contains(&mean), "{ends:?}");
}

/// Programs that start and end without end must not make us hold paths without end.
// protocol: K21
#[test]
fn so_many_paths_linger_and_no_more() {
    let mut node = owner(7, Settings::default());
    node.tick(NOW);
    for number in 0..60 {
        node.handle(NOW, Input::WantExit(address(number)));
        let persona = node.persona_of(address(number)).unwrap();
        for path in 0..6_u8 {
            let no = PathNo(10_000 + u64::from(number) * 10 + u64::from(path));
            let made = build(&mut node, NOW, persona, Class::Out);
            // The helper's names of segments repeat: each of these paths is kept under a number of its own.
            let Some(path) = node.paths.remove(&made) else { continue };
            node.segments.clear();
            node.paths.insert(no, path);
        }
        node.handle(NOW, Input::Forget(address(number)));
    }
    let leaving = |path: &&Path| path.owned().is_some_and(|owned| owned.work == Work::Leaving);
    assert_eq!(node.paths.values().filter(leaving).count(), 256);
}

/// A computer that wakes up has paths that are dead or about to be, all of them: none is left to be found so together with another.
// protocol: K18
#[test]
fn after_a_long_sleep_paths_are_exchanged_one_by_one() {
    let ends = |slept: u64| {
        let (mut node, ..) = service(9);
        let before: BTreeSet<_> = node.paths.keys().copied().collect();
        let woken = NOW + slept;
        node.note_time(woken);
        let (mut ends, mut left) = (Vec::new(), before.len());
        for now in (woken..woken + HOUR / 3).step_by(100) {
            node.relieve(now);
            node.leave(now);
            let had = std::mem::replace(&mut left, before.iter().filter(|no| node.paths.contains_key(no)).count());
            ends.extend(std::iter::repeat_n(now - woken, had - left));
        }
        ends
    };
    let all = ends(8 * HOUR);
    assert_eq!(all.len(), 9, "{all:?}");
    assert!(all.iter().collect::<BTreeSet<_>>().len() == 9 && all[0] > 1_000, "{all:?}");
    // After a short one they are as good as before.
    assert!(ends(120_000).is_empty());
}
