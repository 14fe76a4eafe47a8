//! Frames of every kind on links in every state, and what is done first upon an array.

use super::*;
use crate::path::plan::{Placed, Role};
use crate::path::{Build, Plan};
use crate::wire::Wire;
use crate::wire::array::{ArrayFrame, REPLY_LEN, SLOT_LEN, SLOTS};

/// What a link can be for, as far as the node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Arrays,
    Early,
    Attaching,
    Standing,
    Lent,
    Awaiting,
    Homing,
    Home,
    Brings,
    Tunnel,
}

const STATES: [State; 11] = [
    State::Fresh,
    State::Arrays,
    State::Early,
    State::Attaching,
    State::Standing,
    State::Lent,
    State::Awaiting,
    State::Homing,
    State::Home,
    State::Brings,
    State::Tunnel,
];

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

fn frame(node: &mut Node, link: LinkId, kind: u8, payload: Vec<u8>) {
    node.handle(NOW, Input::Frame { link, kind, payload });
}

/// The link that the node wants dialed, up.
fn dialed(node: &mut Node) -> LinkId {
    let link = outputs(node).into_iter().find_map(|output| match output {
        Output::Dial { link, .. } => Some(link),
        _ => None,
    });
    let link = link.expect("the node dials");
    node.handle(NOW, Input::LinkUp { link, peer: neighbour(2).node_id() });
    link
}

pub(super) fn array_frame() -> ArrayFrame {
    let (setup, replies) = (Box::new([[3; SLOT_LEN]; SLOTS]), Box::new([[4; REPLY_LEN]; SLOTS]));
    ArrayFrame { build: BuildId([1; 16]), setup, replies }
}

fn array() -> Vec<u8> {
    array_frame().to_bytes()
}

/// A node with one link in this state, to its neighbour 2.
fn with_link(state: State) -> (Node, LinkId) {
    let mut node = node();
    let accepted = |node: &mut Node| {
        node.handle(NOW, Input::LinkUp { link: LinkId(1), peer: neighbour(2).node_id() });
        LinkId(1)
    };
    let end = |dial| Sides::End(segment(2, 7, dial));
    let link = match state {
        State::Fresh => accepted(&mut node),
        State::Arrays => {
            let link = accepted(&mut node);
            frame(&mut node, link, kind::ARRAY, array());
            link
        }
        State::Early => {
            let link = accepted(&mut node);
            frame(&mut node, link, kind::ATTACH, vec![9; 16]);
            link
        }
        State::Attaching => {
            join(&mut node, end(true));
            dialed(&mut node)
        }
        State::Standing => {
            join(&mut node, end(false));
            let link = accepted(&mut node);
            frame(&mut node, link, kind::ATTACH, vec![7; 16]);
            link
        }
        State::Lent => {
            let link = accepted(&mut node);
            frame(&mut node, link, kind::AWAIT, vec![8; 16]);
            link
        }
        State::Awaiting => {
            join(&mut node, end(true));
            let standing = dialed(&mut node);
            frame(&mut node, standing, kind::ATTACHED, Vec::new());
            // An end starts a tunnel when its wait is over.
            node.refill(NOW);
            node.refill(NOW + 20);
            dialed(&mut node)
        }
        State::Homing | State::Home => {
            node.dial(neighbour(2), Errand::Home(neighbour(2).node_id()));
            let link = dialed(&mut node);
            if state == State::Home {
                frame(&mut node, link, kind::HOME, Vec::new());
            }
            link
        }
        State::Brings => {
            let link = accepted(&mut node);
            frame(&mut node, link, kind::HOME, Vec::new());
            link
        }
        State::Tunnel => {
            join(&mut node, end(true));
            let standing = dialed(&mut node);
            frame(&mut node, standing, kind::ATTACHED, Vec::new());
            frame(&mut node, standing, kind::SEED, vec![5; BLOCK_LEN]);
            // An end takes its time.
            node.refill(NOW + 300);
            dialed(&mut node)
        }
    };
    let closed = outputs(&mut node).iter().any(|output| matches!(output, Output::Close { .. }));
    assert!(!closed && node.links.contains_key(&link), "{state:?}");
    (node, link)
}

/// A payload as the table of docs/protocol.md has it, so that the state alone decides.
fn good_payload(frame_kind: u8) -> Vec<u8> {
    match frame_kind {
        kind::ARRAY => array(),
        kind::ATTACH => vec![9; 16],
        kind::AWAIT => vec![8; 16],
        kind::SEED | kind::CONFIRM => vec![6; BLOCK_LEN],
        kind::RECORD => renewal::record(2, 2, NOW),
        kind::TUNNEL => vec![6; 16 + 2 * BLOCK_LEN],
        kind::CELL => vec![6; 4092],
        kind::JOIN => vec![6; 16],
        kind::REFUSED => vec![1],
        kind::BYTES => vec![6; 100],
        _ => Vec::new(),
    }
}

fn closes(state: State, frame_kind: u8, payload: Vec<u8>) -> bool {
    let (mut node, link) = with_link(state);
    let paths = node.paths.len();
    frame(&mut node, link, frame_kind, payload);
    let outputs = outputs(&mut node);
    let closed = outputs.iter().any(|output| matches!(output, Output::Close { link: gone } if *gone == link));
    assert_eq!(closed, !node.links.contains_key(&link), "{state:?} {frame_kind:#x}: half closed");
    if closed && matches!(state, State::Attaching | State::Standing) {
        let down = outputs.iter().any(|output| matches!(output, Output::PathDown { .. }));
        assert!(paths == 1 && node.paths.is_empty() && down, "{state:?} {frame_kind:#x}: the path outlived its link");
    }
    closed
}

/// docs/protocol.md, section "Frames": a kind that its link's state does not expect closes the link at once, and with a standing
/// connection goes the path. JOIN, TUNNEL and CONFIRM are of nothing that this node knows.
// protocol: F2, F5, F10, F11, F12, Y2
#[test]
fn a_frame_that_does_not_belong_closes_its_link_in_every_state() {
    let accepted = [
        (State::Fresh, kind::ARRAY),
        (State::Fresh, kind::ATTACH),
        (State::Fresh, kind::AWAIT),
        (State::Fresh, kind::HOME),
        (State::Arrays, kind::ARRAY),
        (State::Arrays, kind::ATTACH),
        (State::Arrays, kind::AWAIT),
        (State::Arrays, kind::HOME),
        (State::Homing, kind::HOME),
        (State::Home, kind::ARRAY),
        (State::Attaching, kind::ATTACHED),
        (State::Standing, kind::SEED),
        (State::Standing, kind::RECORD),
        (State::Standing, kind::ALIVE),
    ];
    for state in STATES {
        for frame_kind in 0..=u8::MAX {
            let expected = !accepted.contains(&(state, frame_kind));
            assert_eq!(closes(state, frame_kind, good_payload(frame_kind)), expected, "{state:?} {frame_kind:#x}");
        }
    }
    for (state, frame_kind) in accepted {
        let long = [good_payload(frame_kind), vec![0]].concat();
        assert!(closes(state, frame_kind, long), "{state:?} {frame_kind:#x}: a byte too many");
    }
}

/// Frames that were read before the shell learned that a link left the node are the shell's to judge.
#[test]
fn a_link_that_left_the_node_is_not_closed_by_it() {
    let mut node = node();
    (0..=u8::MAX).for_each(|frame_kind| frame(&mut node, LinkId(77), frame_kind, good_payload(frame_kind)));
    assert!(outputs(&mut node).is_empty());
}

/// I5: by the time that an array is passed on, its package must be where a restart finds it.
#[test]
fn an_opened_package_is_kept_before_its_array_goes_on() {
    let (mut node, mut rng) = (node(), StdRng::seed_from_u64(2));
    let mut other = |number| {
        let keys = PathKeys::generate(&mut rng).public();
        Candidate { contact: neighbour(number), path_dh: keys.dh, path_kem: keys.kem, weight: 1 }
    };
    let owner = other(2);
    let circle = [node.own.clone(), other(3), other(4), other(5), other(6)];
    let role = |index| if index % 2 == 1 { Role::X { position: index / 2 } } else { Role::Y };
    let placed = |(index, candidate)| Placed { candidate, role: role(index) };
    let plan = Plan { circle: circle.into_iter().enumerate().map(placed).collect() };
    let (_, send) = Build::start(&mut rng, NOW / 1000, plan, &owner, NOW / 1000 + 3600).unwrap();
    let link = LinkId(1);
    node.handle(NOW, Input::LinkUp { link, peer: owner.contact.node_id() });
    frame(&mut node, link, kind::ARRAY, send.frame.to_bytes());
    let outputs = outputs(&mut node);
    assert!(matches!(outputs[..], [Output::Opened(_), Output::Dial { .. }]), "{outputs:?}");
}

// protocol: Y3, F9, L30
#[test]
fn links_that_wait_for_something_end_by_time() {
    let ends = |early: bool| {
        let mut node = node();
        let link = LinkId(1);
        node.handle(NOW, Input::LinkUp { link, peer: neighbour(2).node_id() });
        if early {
            node.handle(NOW, Input::Frame { link, kind: kind::ATTACH, payload: vec![7; 16] });
        }
        let mut moments = (NOW..NOW + 200_000).step_by(100);
        let closes = |node: &mut Node| {
            std::iter::from_fn(|| node.poll()).any(|output| matches!(output, Output::Close { link: LinkId(1) }))
        };
        let ended = moments.find(|now| {
            node.expire_links(*now);
            closes(&mut node)
        });
        ended.map(|at| at - NOW)
    };
    assert_eq!((ends(true), ends(false)), (Some(10_100), Some(180_100)));
}
