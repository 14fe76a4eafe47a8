//! One node under hostile owners and neighbours, and as an owner. Whole networks are simulated in the daemon's tests.

mod banned;
mod due;
mod ends;
mod expected;
mod frames;
mod home;
mod lending;
mod owner;
mod renewal;
mod serving;
mod silence;
mod visits;
mod wakes;

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::*;
use crate::crypto::PathSecret;
use crate::crypto::dh::DhSecret;
use crate::crypto::kem::KemSecret;
use crate::path::{HopPath, Sides};
use crate::wire::array::Segment;
use crate::wire::frame::{BLOCK_LEN, kind};

const NOW: u64 = 1_800_000_000_000;

fn node() -> Node {
    let mut rng = StdRng::seed_from_u64(1);
    let keys = PathKeys { dh: DhSecret::generate(&mut rng), kem: KemSecret::generate() };
    let contact = neighbour(1);
    let own = Candidate {
        contact: contact.clone(),
        path_dh: keys.dh.public(),
        path_kem: Arc::new(*keys.kem.public()),
        weight: 1,
    };
    let hop = Hop::new(contact.identity, [keys]);
    Node::new(own, hop, None, Settings::default(), Box::new(rng))
}

fn neighbour(number: u8) -> NodeContact {
    let identity = SigningKey::from_seed(&[number; 32]).verifying_key();
    NodeContact { identity, addr: ([10, number, 0, 1], 443).into(), link_secret: [0; 32] }
}

fn segment(number: u8, path: u8, dial: bool) -> Segment {
    Segment { neighbour: neighbour(number), path: PathId([path; 16]), dial }
}

fn join(node: &mut Node, sides: Sides) {
    let secret = PathSecret(Zeroizing::new([1; 32]));
    node.join_path(NOW, HopPath { secret, sides, until: NOW / 1000 + 3600 });
}

/// A neighbour that sends seeds without end makes the far end set up without end: only so many are answered at once.
#[test]
fn a_flood_of_seeds_is_answered_only_so_often() {
    let mut node = node();
    join(&mut node, Sides::End(segment(2, 7, false)));
    let link = LinkId(1);
    node.handle(NOW, Input::LinkUp { link, peer: neighbour(2).node_id() });
    node.handle(NOW, Input::Frame { link, kind: kind::ATTACH, payload: vec![7; 16] });
    let flood = |node: &mut Node, now, first: u16| {
        for number in first..first + 1000 {
            let mut payload = vec![0; BLOCK_LEN];
            payload[..2].copy_from_slice(&number.to_be_bytes());
            node.handle(now, Input::Frame { link, kind: kind::SEED, payload });
        }
    };
    flood(&mut node, NOW, 0);
    node.refill(NOW + 300);
    assert_eq!(node.load()[4], 32);
    // They make room when they are over, however they end.
    let begun: Vec<_> = node.setups.keys().copied().collect();
    begun.into_iter().for_each(|setup| node.drop_setup(NOW, setup));
    flood(&mut node, NOW + 301, 1000);
    assert_eq!(node.load()[4], 32);
}

/// An owner that gives both segments of a path one name would leave us with a link that nothing closes.
// protocol: Q12
#[test]
fn segments_of_one_path_have_names_of_their_own() {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, true), segment(3, 7, true)])));
    assert_eq!(node.load(), [0; 7]);
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, true), segment(3, 8, true)])));
    assert_eq!(node.load(), [0, 2, 1, 2, 0, 0, 0]);
}

fn attaches(node: &mut Node, link: u64, neighbour_no: u8, path: u8) {
    node.handle(NOW, Input::LinkUp { link: LinkId(link), peer: neighbour(neighbour_no).node_id() });
    node.handle(NOW, Input::Frame { link: LinkId(link), kind: kind::ATTACH, payload: vec![path; 16] });
}

/// What was done with a link: ATTACHED was sent on it, or it was closed.
fn attached_or_closed(node: &mut Node, link: u64) -> Option<bool> {
    std::iter::from_fn(|| node.poll()).find_map(|output| match output {
        Output::Send { link: LinkId(to), kind: kind::ATTACHED, .. } => (to == link).then_some(true),
        Output::Close { link: LinkId(closed) } => (closed == link).then_some(false),
        _ => None,
    })
}

// protocol: F6, Q13
#[test]
fn a_segment_is_attached_by_its_neighbour_only() {
    let mut node = node();
    join(&mut node, Sides::End(segment(2, 7, false)));
    attaches(&mut node, 1, 3, 7);
    assert_eq!(attached_or_closed(&mut node, 1), Some(false), "somebody else knew its name");
    attaches(&mut node, 3, 2, 7);
    assert_eq!(attached_or_closed(&mut node, 3), Some(true));
    attaches(&mut node, 5, 2, 7);
    assert_eq!(attached_or_closed(&mut node, 5), Some(false), "it stands already");
}

// protocol: F6, F9
#[test]
fn an_attach_before_its_package_waits_for_it_and_no_longer_than_ten_seconds() {
    let mut early = node();
    attaches(&mut early, 1, 2, 7);
    attaches(&mut early, 3, 3, 7);
    assert_eq!(attached_or_closed(&mut early, 1), None, "neither yes nor no");
    join(&mut early, Sides::End(segment(2, 7, false)));
    let outputs: Vec<_> = std::iter::from_fn(|| early.poll()).collect();
    assert!(outputs.iter().any(|o| matches!(o, Output::Send { link: LinkId(1), kind: kind::ATTACHED, .. })));
    assert!(outputs.iter().any(|o| matches!(o, Output::Close { link: LinkId(3) })), "who is not the neighbour");
    let mut never = node();
    attaches(&mut never, 1, 2, 7);
    never.tick(NOW + 10_000);
    assert_eq!(attached_or_closed(&mut never, 1), None);
    never.tick(NOW + 10_001);
    assert_eq!(attached_or_closed(&mut never, 1), Some(false));
}

/// Longer than any dialer keeps a link idle, so that it is the dialer who closes.
// protocol: L30
#[test]
fn a_link_on_which_nothing_comes_is_closed_after_three_minutes() {
    let mut node = node();
    node.handle(NOW, Input::LinkUp { link: LinkId(1), peer: neighbour(2).node_id() });
    node.tick(NOW + 180_000);
    assert_eq!(attached_or_closed(&mut node, 1), None);
    node.tick(NOW + 180_001);
    assert_eq!(attached_or_closed(&mut node, 1), Some(false));
}

/// The owner learns of a loss, however far away, by its own standing connection.
// protocol: F14
#[test]
fn a_hop_that_loses_one_neighbour_closes_towards_the_other() {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, false), segment(3, 8, false)])));
    attaches(&mut node, 1, 2, 7);
    attaches(&mut node, 3, 3, 8);
    while node.poll().is_some() {}
    node.handle(NOW + 1, Input::LinkDown { link: LinkId(1) });
    assert_eq!(attached_or_closed(&mut node, 3), Some(false));
    assert_eq!(node.load(), [0; 7]);
}

// protocol: Q16
#[test]
fn a_path_on_which_no_tunnel_stands_is_dropped_after_twenty_seconds() {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, false), segment(3, 8, false)])));
    attaches(&mut node, 1, 2, 7);
    node.tick(NOW + 20_000);
    assert_eq!(node.relayed_paths(), 1);
    node.tick(NOW + 20_001);
    assert_eq!(node.load(), [0; 7]);
}

/// `relayed_paths` bounds what a node carries.
// protocol: F16
#[test]
fn no_more_paths_are_carried_than_is_said() {
    let mut node = node();
    node.settings.relayed_paths = 2;
    for path in 1..=5 {
        join(&mut node, Sides::Middle(Box::new([segment(2, 2 * path, true), segment(3, 2 * path + 1, true)])));
    }
    assert_eq!((node.relayed_paths(), node.load()[2]), (2, 2));
}

/// A node that was away for a second was left out of plans for a minute; in a small network that is no plan at all.
// protocol: O19
#[test]
fn a_node_that_answers_again_is_left_out_no_longer() {
    let mut node = node();
    let [two, three, four] = [2, 3, 4].map(|number| neighbour(number).node_id());
    [two, three, four].into_iter().for_each(|id| node.away(NOW, id));
    node.handle(NOW + 1, Input::LinkUp { link: LinkId(1), peer: two });
    node.handle(NOW + 1, Input::Back([three].into()));
    assert_eq!(node.away.keys().collect::<Vec<_>>(), [&four]);
}
