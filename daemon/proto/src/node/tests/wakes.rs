//! What was drawn for one identity or path is done at its time, and not at a tick with what belongs to others.

use std::collections::{BTreeMap, BTreeSet};

use super::owner::{address, build, key, owner};
use super::*;
use crate::path::Class;
use crate::record::STEP;

const STEP_MS: u64 = STEP * 1000;

/// Time between ticks. A shell under load may be that late: what has a time of its own does not wait for them.
const LATE: u64 = 10 * TICK;

/// Steps a node as its shell does; `done` is shown what came of each step, and empties it.
fn run(node: &mut Node, from: u64, to: u64, mut done: impl FnMut(&mut Node, u64)) {
    let mut tick = from;
    while tick <= to {
        let now = node.wakes().map_or(tick, |at| at.min(tick));
        if now == tick {
            tick += LATE;
        }
        node.tick(now);
        done(node, now);
    }
}

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

fn are_on_ticks(times: impl IntoIterator<Item = u64>) -> usize {
    times.into_iter().filter(|at| at.abs_diff(NOW) % LATE == 0).count()
}

/// Identities that listen, with paths that need no tunnels.
fn entries(node: &mut Node, identities: u8) {
    for number in 1..=identities {
        node.handle(NOW, Input::WantEntry(key(number), Serials::default()));
        let persona = node.persona_of(address(number)).unwrap();
        for _ in 0..3 {
            let no = build(node, NOW, persona, Class::In);
            (0..4).for_each(|number| assert_eq!(node.ready.put(no, TunnelNo(100 * no.0 + number)), None));
        }
    }
}

/// All identities' records of a second left in one moment.
// protocol: K24
#[test]
fn records_leave_at_their_own_times() {
    // Ahead of the network's clock: its times are not ours.
    for ahead in [None, Some(-333)] {
        let mut node = owner(1, Settings { unborn: 0, ..Settings::default() });
        node.handle(NOW, Input::Clock(ahead));
        entries(&mut node, 8);
        let mut left: BTreeMap<u64, BTreeSet<PathNo>> = BTreeMap::new();
        run(&mut node, NOW, NOW + STEP_MS, |node, now| {
            for output in outputs(node) {
                if let Output::Serve { path, .. } = output {
                    left.entry(now).or_default().insert(path);
                }
            }
        });
        let count: usize = left.values().map(BTreeSet::len).sum();
        assert!(count >= 48, "{count}");
        assert!(left.len() >= count - 1, "{left:?}");
        let on_ticks = are_on_ticks(left.keys().copied());
        assert!(on_ticks <= count / 10, "{on_ticks} of {count} at a tick");
    }
}

// protocol: K24
#[test]
fn paths_end_and_builds_begin_at_their_own_times() {
    let mut node = owner(2, Settings { unborn: 0, ..Settings::default() });
    entries(&mut node, 8);
    let mut begun = Vec::new();
    let mut before = BTreeMap::new();
    run(&mut node, NOW, NOW + STEP_MS, |node, now| {
        outputs(node);
        for (persona, own) in &mut node.personas {
            for (class, stock) in own.stocks().into_iter().enumerate() {
                if before.insert((*persona, class), stock.next()).is_some_and(|tick| tick != stock.next()) {
                    begun.push(now);
                }
            }
        }
    });
    assert!(begun.len() > 50, "{begun:?}");
    let on_ticks = are_on_ticks(begun.iter().copied());
    assert!(on_ticks <= begun.len() / 10, "{on_ticks} of {} builds at a tick", begun.len());
    (1..=8).for_each(|number| node.handle(NOW + STEP_MS, Input::Forget(address(number))));
    let mut ended = Vec::new();
    run(&mut node, NOW + STEP_MS, NOW + STEP_MS + 1_200_000, |node, now| {
        let down = |output: &Output| matches!(output, Output::PathDown { .. });
        ended.extend(outputs(node).iter().filter(|output| down(output)).map(|_| now));
    });
    assert_eq!(ended.len(), 24);
    assert!(are_on_ticks(ended.iter().copied()) <= 2, "{ended:?}");
}

/// Once a second all paths with too many tunnels gave one up, and all counted minutes by one clock.
// protocol: T20, T21, K24
#[test]
fn each_path_gives_up_its_tunnels_by_itself() {
    let mut node = owner(3, Settings { unborn: 0, ..Settings::default() });
    entries(&mut node, 5);
    for path in node.paths.keys().copied().collect::<Vec<_>>() {
        (4..40).for_each(|number| assert_eq!(node.ready.put(path, TunnelNo(100 * path.0 + number)), None));
        let demand = &mut node.paths.get_mut(&path).unwrap().demand;
        (0..400).for_each(|_| demand.used(NOW));
    }
    let mut first = BTreeSet::new();
    let mut gone = BTreeMap::new();
    run(&mut node, NOW, NOW + 180_000, |node, now| {
        for output in outputs(node) {
            if let Output::DropTunnel { tunnel } = output {
                *gone.entry(now).or_insert(0) += 1;
                if tunnel.0 % 100 == 0 {
                    first.insert(now - NOW);
                }
            }
        }
    });
    // Within the minute after the last whole one, wherever that began.
    assert_eq!(first.len(), 15);
    let (earliest, latest) = (first.first().unwrap(), first.last().unwrap());
    assert!(latest - earliest > 20_000, "{first:?}");
    let together: usize = gone.values().filter(|count| **count > 1).sum();
    assert!(together <= 10, "{gone:?}");
}
