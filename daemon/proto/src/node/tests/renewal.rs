//! Neighbours on paths tell each other their new records.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::kem::KEM_PUBLIC_LEN;
use crate::record::{EPOCH, Epoch, Extensions, MAX_RECORD_LEN, NodeRecord, PublicPathKeys, Signed};
use crate::wire::frame::RECORD_MAX;

/// The record of neighbour `number` at a time in milliseconds, signed by `signer`.
pub(super) fn record(number: u8, signer: u8, at: u64) -> Vec<u8> {
    let keys = PublicPathKeys { dh: [1; 32], kem: Arc::new([2; KEM_PUBLIC_LEN]) };
    let contact = neighbour(number);
    let epoch = Epoch::at(&contact.node_id(), at / 1000);
    let (keys, extensions) = ([keys.clone(), keys], Extensions::default());
    let record = NodeRecord { contact, epoch, revision: 0, keys, extensions };
    Signed::sign(&record, &SigningKey::from_seed(&[signer; 32])).bytes().to_vec()
}

/// A node that carries one path, between neighbours 2 and 3 on links 1 and 3.
fn carrying() -> Node {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, false), segment(3, 8, false)])));
    for (link, peer, path) in [(1, 2, 7), (3, 3, 8)] {
        let link = LinkId(link);
        node.handle(NOW, Input::LinkUp { link, peer: neighbour(peer).node_id() });
        node.handle(NOW, Input::Frame { link, kind: kind::ATTACH, payload: vec![path; 16] });
    }
    // As when a tunnel had stood.
    node.paths.values_mut().for_each(|path| path.proven = true);
    while node.poll().is_some() {}
    node
}

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

fn rotate(node: &mut Node, record: Vec<u8>) {
    let own = Box::new(node.own.clone());
    node.handle(NOW, Input::Rotate { keys: Vec::new(), own, record });
}

#[test]
fn a_record_fits_a_frame() {
    assert_eq!(MAX_RECORD_LEN, RECORD_MAX);
}

// protocol: L33
#[test]
fn a_node_tells_each_neighbour_its_new_record_once_at_a_time_of_its_own() {
    let mut node = carrying();
    let mut told = BTreeMap::new();
    let run = |node: &mut Node, told: &mut BTreeMap<LinkId, u64>| {
        for now in (NOW..NOW + EPOCH * 1000).step_by(10_000) {
            node.tell_neighbours(now);
            for output in outputs(node) {
                if let Output::Send { link, kind: kind::RECORD, payload } = output {
                    assert_eq!(payload, b"new");
                    assert_eq!(told.insert(link, now - NOW), None, "once");
                }
            }
        }
    };
    run(&mut node, &mut told);
    assert!(told.is_empty(), "nothing is new");
    rotate(&mut node, b"new".to_vec());
    node.paths.values_mut().for_each(|path| path.until = u64::MAX);
    node.look_ahead(NOW);
    let first = node.paths.values().flat_map(Path::tells).min();
    assert!(first.is_some() && node.wakes() == first, "the shell is told when");
    run(&mut node, &mut told);
    let times: Vec<_> = told.values().copied().collect();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), [LinkId(1), LinkId(3)]);
    assert!(times.iter().all(|at| (300_000..=EPOCH * 500).contains(at)), "{times:?}");
    assert!(times[0].abs_diff(times[1]) > 10_000, "{times:?}");
}

fn says(node: &mut Node, payload: Vec<u8>) -> Vec<Output> {
    node.handle(NOW, Input::Frame { link: LinkId(1), kind: kind::RECORD, payload });
    outputs(node)
}

// protocol: L34
#[test]
fn a_neighbours_own_record_is_heard_and_anything_else_ends_the_path() {
    let right = record(2, 2, NOW);
    let [Output::Heard(heard)] = &says(&mut carrying(), right.clone())[..] else { panic!("it is not heard") };
    assert_eq!(heard, &right);
    for (time, what) in [(NOW - 3 * EPOCH * 1000, "over"), (NOW + 2 * EPOCH * 1000, "to come")] {
        let mut node = carrying();
        assert!(says(&mut node, record(2, 2, time)).is_empty(), "{what}");
        assert_eq!(node.paths.len(), 1, "{what}: a clock is wrong");
    }
    let mut cut = right.clone();
    cut.pop();
    for (wrong, what) in [(record(3, 3, NOW), "another's"), (record(2, 3, NOW), "wrongly signed"), (cut, "cut")] {
        let mut node = carrying();
        let out = says(&mut node, wrong);
        assert!(out.iter().all(|output| !matches!(output, Output::Heard(_))), "{what}");
        assert!(out.iter().any(|output| matches!(output, Output::Close { link: LinkId(1) })), "{what}");
        assert!(node.paths.is_empty(), "{what}");
    }
    // Each costs us a look at a signature.
    let mut node = carrying();
    let heard = (0..100).filter(|_| matches!(says(&mut node, right.clone())[..], [Output::Heard(_)])).count();
    assert_eq!((heard, node.paths.len()), (16, 0));
}

/// On a link that is no standing connection it is what no state expects.
// protocol: F5, L34
#[test]
fn a_record_belongs_on_standing_connections_alone() {
    let mut node = carrying();
    node.handle(NOW, Input::LinkUp { link: LinkId(5), peer: neighbour(2).node_id() });
    node.handle(NOW, Input::Frame { link: LinkId(5), kind: kind::RECORD, payload: record(2, 2, NOW) });
    assert!(outputs(&mut node).iter().any(|output| matches!(output, Output::Close { link: LinkId(5) })));
}
