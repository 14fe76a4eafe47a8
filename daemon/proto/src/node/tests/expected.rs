//! Identities that outlive a run: what stands for them before anybody runs as them.

use std::collections::BTreeSet;

use super::owner::{address, build, key, owner};
use super::*;
use crate::path::Class;

fn expect(node: &mut Node, number: u8, used: u64) {
    let secret = Zeroizing::new([number; 32]);
    node.handle(NOW, Input::Lasting { identity: address(number), secret, sets: None });
    node.handle(NOW, Input::Expect { identity: address(number), used });
}

fn works(node: &Node, number: u8) -> Vec<Work> {
    let Some(persona) = node.persona_of(address(number)) else { return Vec::new() };
    let own = node.paths.values().filter_map(Path::owned);
    let mut works: Vec<_> = own.filter(|owned| owned.persona == persona).map(|owned| owned.work).collect();
    works.sort_unstable();
    works
}

/// A named identity built all of its paths within seconds of its first use, which showed its guards when that was.
// protocol: K22
#[test]
fn each_class_of_an_identity_that_is_expected_builds_at_times_of_its_own() {
    let mut node = owner(1, Settings { unborn: 0, ..Settings::default() });
    (1..=EXPECTED as u8).for_each(|number| expect(&mut node, number, NOW));
    let mut tried = BTreeSet::new();
    let mut first = Vec::new();
    for now in (NOW..NOW + 2 * 3_600_000).step_by(100) {
        node.pursue(now);
        for (persona, own) in &mut node.personas {
            for (class, stock) in own.stocks().into_iter().enumerate() {
                if stock.has_tried() && tried.insert((*persona, class)) {
                    first.push(now - NOW);
                }
            }
        }
    }
    assert_eq!(first.len(), 2 * EXPECTED, "both classes of all");
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "two in one moment: {first:?}");
    let mean = first.iter().sum::<u64>() / first.len() as u64;
    assert!((300_000..1_200_000).contains(&mean), "{first:?}");
}

// protocol: K22
#[test]
fn what_begins_takes_what_stands_and_builds_nothing() {
    let mut node = owner(2, Settings { unborn: 0, ..Settings::default() });
    expect(&mut node, 1, NOW);
    let persona = node.persona_of(address(1)).unwrap();
    for class in [Class::Out, Class::In].into_iter().flat_map(|class| [class; 3]) {
        build(&mut node, NOW, persona, class);
    }
    assert_eq!(works(&node, 1), [Work::Spare; 6]);
    node.handle(NOW, Input::WantEntry(key(1), Serials::default()));
    let expected = [Work::Connect, Work::Ask, Work::AskAgain, Work::Serve, Work::Serve, Work::Serve];
    assert_eq!(works(&node, 1), expected);
    let next = node.personas.get_mut(&persona).unwrap().stocks().map(|stock| stock.next()).into_iter().min().unwrap();
    (NOW..next.min(NOW + 60_000)).step_by(100).for_each(|now| node.pursue(now));
    assert!(node.personas.get_mut(&persona).unwrap().stocks().iter().all(|stock| !stock.has_tried()));
}

// protocol: K22
#[test]
fn an_identity_that_rests_keeps_its_spares_and_builds_nothing_out_of_turn() {
    let mut node = owner(3, Settings { unborn: 0, ..Settings::default() });
    expect(&mut node, 1, NOW);
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    for number in 0..6 {
        build(&mut node, NOW + number, persona, Class::Out);
    }
    node.handle(NOW + 10, Input::Forget(address(1)));
    let [spares, leaving] = [[Work::Spare; 3], [Work::Leaving; 3]];
    assert_eq!(works(&node, 1), [spares, leaving].concat());
    let next = node.personas.get_mut(&persona).unwrap().stocks().map(|stock| stock.next()).into_iter().min().unwrap();
    (NOW..next.min(NOW + 120_000)).step_by(100).for_each(|now| node.pursue(now));
    assert!(node.personas.get_mut(&persona).unwrap().stocks().iter().all(|stock| !stock.has_tried()));
    node.handle(next, Input::WantExit(address(1)));
    assert_eq!(node.persona_of(address(1)), Some(persona));
    let mut begun = works(&node, 1);
    begun.retain(|work| *work != Work::Leaving);
    assert_eq!(begun, [Work::Connect, Work::Ask, Work::AskAgain]);
}

// protocol: K23
#[test]
fn only_those_that_were_used_last_are_expected_and_not_for_ever() {
    let mut node = owner(4, Settings { unborn: 0, ..Settings::default() });
    let all = EXPECTED as u8 + 3;
    // The last used come first.
    (1..=all).for_each(|number| expect(&mut node, number, NOW - u64::from(number)));
    let expected =
        |node: &Node| -> Vec<u8> { (1..=all).filter(|number| node.persona_of(address(*number)).is_some()).collect() };
    let lately: Vec<_> = (1..=EXPECTED as u8).collect();
    assert_eq!(expected(&node), lately);
    // Who is at work is none of them, and comes before all when it rests.
    node.handle(NOW, Input::WantExit(address(1)));
    expect(&mut node, all, NOW - 1);
    assert_eq!(expected(&node).len(), EXPECTED + 1);
    node.handle(NOW, Input::Forget(address(1)));
    assert_eq!(expected(&node).len(), EXPECTED);
    assert!(node.persona_of(address(1)).is_some() && node.persona_of(address(all)).is_some());
    node.relieve(NOW + EXPECTED_FOR - 100);
    assert_eq!(expected(&node).len(), EXPECTED);
    node.relieve(NOW + EXPECTED_FOR);
    assert_eq!(expected(&node), [1], "a week later");
}

/// An identity that was removed had paths for a week.
// protocol: K23
#[test]
fn nothing_is_kept_for_an_identity_that_is_removed() {
    let mut node = owner(5, Settings { unborn: 0, ..Settings::default() });
    expect(&mut node, 1, NOW);
    let persona = node.persona_of(address(1)).unwrap();
    build(&mut node, NOW, persona, Class::Out);
    node.handle(NOW, Input::Removed(address(1)));
    assert_eq!(node.persona_of(address(1)), None);
    assert!(node.paths.values().filter_map(Path::owned).all(|owned| owned.work == Work::Leaving));
}
