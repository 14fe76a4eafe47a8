//! Where paths that ask end, and what becomes of those whose end denies what there is.

use std::collections::{BTreeMap, BTreeSet};

use super::owner::{address, build_to, owner};
use super::*;
use crate::ident::Operator;
use crate::node::paths::Path;
use crate::path::Class;

const HOUR: u64 = 3_600_000;

fn asking() -> (Node, Persona) {
    let mut node = owner(1, Settings { unborn: 0, ..Settings::default() });
    node.tick(NOW);
    node.handle(NOW, Input::WantExit(address(1)));
    let persona = node.persona_of(address(1)).unwrap();
    (node, persona)
}

/// A path that leads out and ends there.
fn leads_to(node: &mut Node, now: u64, persona: Persona, end: u8) -> PathNo {
    build_to(node, now, persona, Class::Out, neighbour(end))
}

fn at(node: &Node, work: Work) -> Vec<PathNo> {
    let does = |path: &Path| path.owned().is_some_and(|owned| owned.work == work);
    node.paths.iter().filter(|(_, path)| does(path)).map(|(no, _)| *no).collect()
}

/// One liar would be believed twice.
// protocol: K30
#[test]
fn who_asks_again_asks_at_another_operator() {
    let (mut node, persona) = asking();
    let [connect, ask] = [10, 11].map(|end| leads_to(&mut node, NOW, persona, end));
    assert_eq!((at(&node, Work::Connect), at(&node, Work::Ask)), (vec![connect], vec![ask]));
    let twin = leads_to(&mut node, NOW, persona, 11);
    assert_eq!((at(&node, Work::AskAgain), at(&node, Work::Spare)), (vec![], vec![twin]));
    // It does without, and nothing is built or waited for.
    let next = node.personas.get_mut(&persona).unwrap().stocks().map(|stock| stock.next())[0];
    (NOW..next.min(NOW + 60_000)).step_by(100).for_each(|now| node.pursue(now));
    assert!(!node.personas.get_mut(&persona).unwrap().stocks()[0].has_tried() && !node.someone_lacks(NOW));
    let other = leads_to(&mut node, NOW, persona, 12);
    assert_eq!(at(&node, Work::AskAgain), [other]);
    // Who asks first asks at the same one rather than nowhere.
    node.drop_path(NOW, other);
    node.drop_path(NOW, ask);
    assert_eq!((at(&node, Work::Ask), at(&node, Work::AskAgain)), (vec![twin], vec![]));
}

/// A node that found nothing that was asked for was believed for as long as its path stood.
// protocol: K32
#[test]
fn whose_end_denied_a_record_asks_no_more_and_is_not_ended_for_it() {
    let (mut node, persona) = asking();
    let [_, liar, again, twin, spare] = [10, 11, 12, 11, 13].map(|end| leads_to(&mut node, NOW, persona, end));
    assert_eq!((at(&node, Work::Ask), at(&node, Work::AskAgain)), (vec![liar], vec![again]));
    while node.poll().is_some() {}
    node.handle(NOW, Input::Denied(liar));
    let works = |node: &Node, no: PathNo| node.paths[&no].owned().unwrap().work;
    assert_eq!((works(&node, spare), works(&node, twin)), (Work::Ask, Work::Spare));
    node.tick(NOW + 100);
    let outputs: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
    assert!(outputs.iter().any(|output| matches!(output, Output::PathRetired { path } if *path == liar)));
    assert!(outputs.iter().any(|output| matches!(output, Output::Note(Note::Denied))));
    assert!(node.paths.contains_key(&liar), "an end in that moment would say what was found");
    // Nothing of that operator asks for hours: what asked again is lost, and only the twin is there.
    node.drop_path(NOW + 200, again);
    assert_eq!((at(&node, Work::AskAgain), at(&node, Work::Spare)), (vec![], vec![twin]));
    node.put_to_work(NOW + 6 * HOUR - 1, persona);
    assert_eq!(at(&node, Work::AskAgain), []);
    node.put_to_work(NOW + 6 * HOUR, persona);
    assert_eq!(at(&node, Work::AskAgain), [twin]);
}

/// The only path that asks goes on until there is another: who denies must not silence an identity, nor have it build more than others do.
// protocol: K32
#[test]
fn who_alone_asks_goes_on_until_another_does() {
    let (mut node, persona) = asking();
    let [_, liar] = [10, 11].map(|end| leads_to(&mut node, NOW, persona, end));
    node.handle(NOW, Input::Denied(liar));
    let out = |node: &mut Node| std::iter::from_fn(|| node.poll()).collect::<Vec<_>>();
    let retired = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::PathRetired { .. }));
    node.tick(NOW + 100);
    assert!(!retired(&out(&mut node)));
    leads_to(&mut node, NOW + 200, persona, 12);
    node.look_at = 0;
    node.tick(NOW + 300);
    assert!(retired(&out(&mut node)));
}

/// As many are remembered as terminate an identity's paths: no liar can have all others left out.
// protocol: K32
#[test]
fn so_many_are_mistrusted_and_for_so_long() {
    let (mut node, persona) = asking();
    for end in 0..20 {
        let no = leads_to(&mut node, NOW, persona, 20 + end);
        node.handle(NOW + u64::from(end), Input::Denied(no));
        node.drop_path(NOW, no);
    }
    let taken = |node: &Node, now| node.taken_ends(now, persona, Class::Out);
    let last: BTreeSet<_> = (12..20).map(|end| node.operator(&neighbour(20 + end))).collect();
    assert_eq!(taken(&node, NOW + 20), last);
    assert_eq!(taken(&node, NOW + 6 * HOUR + 18).len(), 1);
    assert!(taken(&node, NOW + 6 * HOUR + 19).is_empty());
    assert!(node.taken_ends(NOW + 20, Persona(0), Class::Out).is_empty(), "each identity has its own");
}

/// What stands by for a path that asks would often end where that one does, and be of no use.
// protocol: K31
#[test]
fn what_is_built_ends_where_nobody_is_asked_as_far_as_may_be() {
    let (mut node, persona) = asking();
    let sample: Vec<_> = (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
    for now in [NOW, NOW + 2 * HOUR] {
        node.handle(now, Input::Sample(sample.clone()));
    }
    let now = NOW + 2 * HOUR;
    let ends = |node: &mut Node| -> BTreeMap<Operator, NodeContact> {
        let mut end = || node.draw(now, persona, Class::Out).unwrap().0.end().unwrap().clone();
        let ends: Vec<_> = (0..60).map(|_| end()).collect();
        ends.into_iter().map(|end| (node.operator(&end), end)).collect()
    };
    let all = ends(&mut node);
    assert_eq!(all.len(), 8, "all of its layer");
    let paths: Vec<_> = all.values().map(|end| build_to(&mut node, now, persona, Class::Out, end.clone())).collect();
    let end = |node: &Node, no: PathNo| node.operator(&node.paths[&no].owned().unwrap().end);
    let asked: BTreeSet<_> = paths[1..3].iter().map(|no| end(&node, *no)).collect();
    assert_eq!((at(&node, Work::Ask), at(&node, Work::AskAgain)), (vec![paths[1]], vec![paths[2]]));
    let free: BTreeSet<_> = ends(&mut node).into_keys().collect();
    assert!(free.is_disjoint(&asked) && free.len() == 6, "where others connect and stand ready as often as elsewhere");
    // Where nobody else may end, it ends there again.
    paths.iter().for_each(|no| node.handle(now, Input::Denied(*no)));
    assert!(node.draw(now, persona, Class::Out).is_ok());
}
