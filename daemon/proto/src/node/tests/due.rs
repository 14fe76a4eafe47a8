//! What a node does when time passes, it does when it had said that it would: nobody need look before.

use super::owner::{address, build, key, owner};
use super::*;
use crate::record::{ApRecord, RoutingEntry, STEP, Signed};

const HOUR: u64 = 3_600_000;

/// When the shell must call the node, as it knows at `now`.
fn next(node: &Node, now: u64) -> u64 {
    node.due(now).min(node.refill_due().unwrap_or(u64::MAX))
}

/// The world of a node: no neighbour ever answers.
struct Silence {
    due: u64,
    acted: usize,
}

impl Silence {
    /// Time is now this. What the node does was due, as it was known at the look before.
    fn tick(&mut self, node: &mut Node, now: u64) {
        node.tick(now);
        let outputs: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
        // Notes are for people, and not for the minute.
        let early = outputs.iter().find(|output| !matches!(output, Output::Note(_))).filter(|_| now < self.due);
        assert!(early.is_none(), "{} ms before it was due: {early:?}", self.due - now);
        self.acted += outputs.len();
        for output in outputs {
            if let Output::Dial { link, .. } = output {
                node.handle(now, Input::DialFailed { link });
            }
        }
        self.due = next(node, now);
    }
}

#[test]
fn an_owner_acts_only_when_it_was_due() {
    for seed in 0..2 {
        let mut node = owner(seed, Settings { path_life: 7_200..=9_000, ready_tunnels: 0, ..Settings::default() });
        let sample: Vec<_> =
            (2..80).map(|number| Candidate { contact: neighbour(number), ..node.own.clone() }).collect();
        node.handle(NOW, Input::Sample(sample));
        node.handle(NOW, Input::WantExit(address(1)));
        node.handle(NOW, Input::WantEntry(key(2), Serials::default()));
        let personas = [1, 2].map(|number| node.persona_of(address(number)).unwrap());
        let mut silence = Silence { due: NOW, acted: 0 };
        for tick in 0..HOUR / 100 {
            let now = NOW + tick * 100;
            // Their names are numbers that come again.
            let free = |node: &Node| !node.segments.contains_key(&PathId([node.next as u8; 16]));
            if tick % 3_000 == 70 && free(&node) {
                // Nobody builds here: paths come from elsewhere, and end by themselves.
                build(&mut node, now, personas[0], Class::Out);
                if free(&node) {
                    build(&mut node, now, personas[1], Class::In);
                }
                silence.due = now;
            }
            silence.tick(&mut node, now);
        }
        assert!(silence.acted > 100, "so little happened in an hour: {}", silence.acted);
    }
}

#[test]
fn a_node_that_serves_others_acts_only_when_it_was_due() {
    let mut node = node();
    // Starts of tunnels have a time of their own, and would hide the others.
    node.settings.ready_tunnels = 0;
    join(&mut node, Sides::End(segment(2, 7, false)));
    join(&mut node, Sides::Middle(Box::new([segment(3, 8, false), segment(4, 9, false)])));
    attaches(&mut node, 1, 2, 7);
    // For a path that nobody has told us of, and one without a purpose.
    attaches(&mut node, 3, 5, 11);
    node.handle(NOW, Input::LinkUp { link: LinkId(5), peer: neighbour(6).node_id() });
    let path = *node.paths.keys().next().unwrap();
    let end = node.paths.get_mut(&path).unwrap();
    // Longer than until the end of the next step, in which the record is published.
    (end.proven, end.until) = (true, NOW + 5 * HOUR / 2);
    let handle = crate::path::handle(&PathSecret(Zeroizing::new([1; 32])));
    let entry = RoutingEntry { entry_node: node.own.contact.clone(), handle, until: NOW / 1000 + 7200 };
    let record = ApRecord::on_grid(key(9).verifying_key(), NOW / 1000 / STEP + 1, 0, vec![entry]);
    node.handle(NOW, Input::Served { path, record: Signed::sign(&record, &key(9)).bytes().to_vec() });
    node.handle(NOW, Input::Frame { link: LinkId(1), kind: kind::SEED, payload: vec![5; BLOCK_LEN] });
    node.handle(NOW, Input::Want { want: WantNo(1), of: Of::Path(path), limit: 30_000 });
    while node.poll().is_some() {}
    let mut silence = Silence { due: next(&node, NOW), acted: 0 };
    let acted = |silence: &mut Silence, node: &mut Node, hours: std::ops::Range<u64>| {
        let before = silence.acted;
        (hours.start * HOUR / 100..hours.end * HOUR / 100).for_each(|tick| silence.tick(node, NOW + tick * 100));
        silence.acted - before
    };
    assert!(acted(&mut silence, &mut node, 0..1) > 5);
    acted(&mut silence, &mut node, 1..3);
    assert_eq!(node.load(), [0; 7], "all of it has ended by itself");
    assert_eq!(acted(&mut silence, &mut node, 3..4), 0);
}

/// A tick at every due moment, and none between.
#[test]
fn a_node_to_which_nothing_happens_is_called_a_few_times_a_minute() {
    let mut node = owner(5, Settings { unborn: 0, ..Settings::default() });
    let (mut now, mut calls) = (NOW, 0);
    while now < NOW + HOUR {
        node.tick(now);
        now = next(&node, now).max(now + TICK);
        calls += 1;
    }
    assert!((60..=400).contains(&calls), "{calls} times in an hour");
}
