//! Links of tunnels are dialed by whoever dialed the segment, whichever end starts and whatever comes first.

use proptest::prelude::*;

use super::*;
use crate::tunnel::{Owner, tunnel_id};
use crate::wire::Wire;
use crate::wire::frame::{Block, TunnelFrame};

const STANDING: LinkId = LinkId(1);

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

fn frame(node: &mut Node, now: u64, link: LinkId, kind: u8, payload: &[u8]) {
    node.handle(now, Input::Frame { link, kind, payload: payload.to_vec() });
}

fn accept(node: &mut Node, link: u64, from: u8) -> LinkId {
    node.handle(NOW, Input::LinkUp { link: LinkId(link), peer: neighbour(from).node_id() });
    LinkId(link)
}

fn dials(outputs: &[Output]) -> Vec<LinkId> {
    let dial = |output: &Output| if let Output::Dial { link, .. } = output { Some(*link) } else { None };
    outputs.iter().filter_map(dial).collect()
}

fn sent(outputs: &[Output], of: u8) -> Vec<(LinkId, Vec<u8>)> {
    let send = |output: &Output| match output {
        Output::Send { link, kind, payload } if *kind == of => Some((*link, payload.clone())),
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}

fn is_closed(outputs: &[Output], link: LinkId) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Close { link: closed } if *closed == link))
}

/// A node at which a path ends, whose segment stands; who dialed it.
fn end(we_dial: bool) -> (Node, LinkId) {
    let mut node = node();
    join(&mut node, Sides::End(segment(2, 7, we_dial)));
    let standing = if we_dial { dials(&outputs(&mut node))[0] } else { STANDING };
    node.handle(NOW, Input::LinkUp { link: standing, peer: neighbour(2).node_id() });
    let (kind, payload): (u8, &[u8]) = if we_dial { (kind::ATTACHED, &[]) } else { (kind::ATTACH, &[7; 16]) };
    frame(&mut node, NOW, standing, kind, payload);
    outputs(&mut node);
    (node, standing)
}

fn owner() -> Owner {
    Owner::new(vec![(PathSecret(Zeroizing::new([1; 32])), PathId([7; 16]))])
}

fn seed(owner: &mut Owner) -> Block {
    owner.start(&mut StdRng::seed_from_u64(3), NOW).unwrap()
}

/// From TUNNEL on all goes as ever.
fn stands(node: &mut Node, owner: &mut Owner, (link, tunnel): &(LinkId, Vec<u8>)) {
    let (_, q) = owner.on_tunnel(&TunnelFrame::from_bytes(tunnel).unwrap()).unwrap();
    frame(node, NOW + 400, *link, kind::CONFIRM, &q);
    node.refill(NOW + 800);
    let ready = |output: &Output| matches!(output, Output::EndTunnel { link: of, .. } if of == link);
    assert!(outputs(node).iter().any(ready), "no tunnel stands");
}

// protocol: Q15, T22
#[test]
fn who_dialed_a_segment_brings_a_link_with_each_seed_and_has_the_answer_on_it() {
    let (mut node, standing) = end(true);
    node.refill(NOW);
    node.refill(NOW + 20);
    let begun = outputs(&mut node);
    let (seeds, dialed) = (sent(&begun, kind::SEED), dials(&begun));
    assert_eq!((seeds.len(), seeds[0].0, dialed.len()), (1, standing, 1), "{begun:?}");
    node.handle(NOW + 30, Input::LinkUp { link: dialed[0], peer: neighbour(2).node_id() });
    let seed: Block = seeds[0].1[..].try_into().unwrap();
    assert_eq!(sent(&outputs(&mut node), kind::AWAIT), [(dialed[0], tunnel_id(&seed).0.to_vec())]);
    let (at_owner, tunnel) = owner().on_seed(&mut StdRng::seed_from_u64(4), &seed).unwrap();
    frame(&mut node, NOW + 50, dialed[0], kind::TUNNEL, &tunnel.to_bytes());
    node.refill(NOW + 400);
    let q = sent(&outputs(&mut node), kind::CONFIRM);
    let (v, _) = at_owner.confirm(&q[0].1[..].try_into().unwrap()).unwrap();
    frame(&mut node, NOW + 450, dialed[0], kind::CONFIRM, &v.unwrap());
    let ready = |output: &Output| matches!(output, Output::EndTunnel { link, .. } if *link == dialed[0]);
    assert!(outputs(&mut node).iter().any(ready), "no tunnel stands");
}

// protocol: Q15, T23
#[test]
fn who_dialed_a_segment_dials_for_the_answer_to_a_seed_from_there() {
    let (mut node, standing) = end(true);
    let mut owner = owner();
    frame(&mut node, NOW, standing, kind::SEED, &seed(&mut owner));
    node.refill(NOW + 300);
    let link = dials(&outputs(&mut node))[0];
    node.handle(NOW + 310, Input::LinkUp { link, peer: neighbour(2).node_id() });
    let tunnels = sent(&outputs(&mut node), kind::TUNNEL);
    assert_eq!(tunnels[0].0, link);
    stands(&mut node, &mut owner, &tunnels[0]);
}

/// What brings a link and what is to be said on it, in any order.
#[derive(Debug, Clone, Copy)]
enum Step {
    Seed,
    Await,
    /// Of the same name, by somebody else.
    Foreign,
    Time,
}

proptest! {
    // protocol: Q15, F17, T23
    #[test]
    fn who_was_dialed_answers_once_on_the_link_that_its_neighbour_lends(
        steps in Just(vec![Step::Seed, Step::Await, Step::Foreign, Step::Time]).prop_shuffle(),
    ) {
        let (mut node, standing) = end(false);
        let mut owner = owner();
        let seed = seed(&mut owner);
        let (lent, foreign) = (accept(&mut node, 3, 2), accept(&mut node, 5, 4));
        for step in steps {
            match step {
                Step::Seed => frame(&mut node, NOW, standing, kind::SEED, &seed),
                Step::Await => frame(&mut node, NOW, lent, kind::AWAIT, &tunnel_id(&seed).0),
                Step::Foreign => frame(&mut node, NOW, foreign, kind::AWAIT, &tunnel_id(&seed).0),
                Step::Time => node.refill(NOW + 300),
            }
        }
        node.refill(NOW + 310);
        let outputs = outputs(&mut node);
        let tunnels = sent(&outputs, kind::TUNNEL);
        prop_assert_eq!(tunnels.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [lent]);
        prop_assert!(dials(&outputs).is_empty(), "it dials whom it need not reach");
        stands(&mut node, &mut owner, &tunnels[0]);
    }
}

// protocol: F7, F17, F18
#[test]
fn a_link_of_the_wrong_side_or_name_is_closed() {
    // Whoever was dialed sends TUNNEL on a link of its own.
    let (mut node, _) = end(true);
    node.refill(NOW);
    node.refill(NOW + 20);
    let begun = outputs(&mut node);
    let seed: Block = sent(&begun, kind::SEED)[0].1[..].try_into().unwrap();
    let (_, tunnel) = owner().on_seed(&mut StdRng::seed_from_u64(4), &seed).unwrap();
    let own = accept(&mut node, 3, 2);
    frame(&mut node, NOW + 30, own, kind::TUNNEL, &tunnel.to_bytes());
    assert!(is_closed(&outputs(&mut node), own));
    // TUNNEL of another name on a link that was lent; then there is none to answer on.
    let awaiting = dials(&begun)[0];
    node.handle(NOW + 30, Input::LinkUp { link: awaiting, peer: neighbour(2).node_id() });
    frame(&mut node, NOW + 30, awaiting, kind::TUNNEL, &TunnelFrame { id: TunnelId([9; 16]), ..tunnel }.to_bytes());
    assert!(is_closed(&outputs(&mut node), awaiting));
    // Two for one seed.
    let (mut node, _) = end(false);
    let [first, second] = [3, 5].map(|link| accept(&mut node, link, 2));
    frame(&mut node, NOW, first, kind::AWAIT, &[9; 16]);
    frame(&mut node, NOW, second, kind::AWAIT, &[9; 16]);
    let closed = outputs(&mut node);
    assert!(is_closed(&closed, second) && !is_closed(&closed, first));
}

/// I7: who has a hop pass seeds on without end has it dial a few times; what is lent or waits for a link is over after ten seconds.
// protocol: T11, T22, T23, Y3
#[test]
fn a_flood_of_seeds_or_links_costs_little_and_not_for_long() {
    let mut node = node();
    join(&mut node, Sides::Middle(Box::new([segment(2, 7, false), segment(3, 8, true)])));
    let onward = dials(&outputs(&mut node))[0];
    node.handle(NOW, Input::LinkUp { link: onward, peer: neighbour(3).node_id() });
    frame(&mut node, NOW, onward, kind::ATTACHED, &[]);
    accept(&mut node, 1, 2);
    frame(&mut node, NOW, STANDING, kind::ATTACH, &[7; 16]);
    for number in 0..1000_u16 {
        let mut seed = [0; BLOCK_LEN];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        frame(&mut node, NOW, STANDING, kind::SEED, &seed);
    }
    let dialed = dials(&outputs(&mut node));
    assert_eq!(dialed.len(), 32);
    // One link stands too late for its seed, and serves for something else.
    node.expire_setups(NOW + 10_001);
    node.handle(NOW + 10_001, Input::LinkUp { link: dialed[0], peer: neighbour(3).node_id() });
    let late = outputs(&mut node);
    assert!(late.iter().any(|output| matches!(output, Output::Release { link } if *link == dialed[0])), "{late:?}");

    // A neighbour that sends seeds and lends no links, and one that lends links and sends no seeds.
    let (mut node, standing) = end(false);
    for number in 0..1000_u16 {
        let mut seed = [0; BLOCK_LEN];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        frame(&mut node, NOW, standing, kind::SEED, &seed);
        let lent = accept(&mut node, 3 + 2 * u64::from(number), 4);
        frame(&mut node, NOW, lent, kind::AWAIT, &seed[..16]);
    }
    node.refill(NOW + 300);
    assert_eq!(node.halves.len(), 32 + 256);
    node.expire_links(NOW + 10_001);
    node.expire_setups(NOW + 10_400);
    assert_eq!((node.halves.len(), node.load()[0]), (0, 1), "more than the standing connection is left");
}
