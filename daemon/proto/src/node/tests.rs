//! One node under hostile owners and neighbours, and as an owner. Whole networks are simulated in the daemon's tests.

mod frames;
mod owner;
mod serving;

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::*;
use crate::crypto::PathSecret;
use crate::crypto::dh::DhSecret;
use crate::crypto::kem::KemSecret;
use crate::path::{HopPath, Sides};
use crate::tunnel::BLOCK_LEN;
use crate::wire::array::Segment;
use crate::wire::frame::kind;

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

/// A neighbour that sends seeds without end makes the far end dial without end: only so many are answered at once.
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
    let [_, errands, _, _, setups, _] = node.load();
    assert_eq!((errands, setups), (32, 32));
    // They make room when they are over, however they end.
    let dialed: Vec<_> = node.errands.keys().copied().collect();
    dialed.into_iter().for_each(|link| node.handle(NOW, Input::DialFailed { link }));
    flood(&mut node, NOW + 301, 1000);
    assert_eq!(node.load()[4], 32);
}

/// An owner that gives both segments of a path one name would leave us with a link that nothing closes.
#[test]
fn segments_of_one_path_have_names_of_their_own() {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, true), segment(3, 7, true)])));
    assert_eq!(node.load(), [0; 6]);
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, true), segment(3, 8, true)])));
    assert_eq!(node.load(), [0, 2, 1, 2, 0, 0]);
}

/// `relayed_paths` bounds what a node carries.
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
#[test]
fn a_node_that_answers_again_is_left_out_no_longer() {
    let mut node = node();
    let [two, three, four] = [2, 3, 4].map(|number| neighbour(number).node_id());
    [two, three, four].into_iter().for_each(|id| node.away(NOW, id));
    node.handle(NOW + 1, Input::LinkUp { link: LinkId(1), peer: two });
    node.handle(NOW + 1, Input::Back([three].into()));
    assert_eq!(node.away.keys().collect::<Vec<_>>(), [&four]);
}
