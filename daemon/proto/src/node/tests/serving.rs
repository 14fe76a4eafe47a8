//! What a terminating node does for the owner of a path, and what it refuses.

use super::*;
use crate::path::handle;
use crate::record::{ApRecord, RoutingEntry, STEP, Signed};
use crate::terminating::First;
use crate::tunnel::tunnel_id;
use crate::wire::Wire;
use crate::wire::cells::{Lookup, Open, Word};
use crate::wire::frame::{Block, TunnelFrame};

const STEP_MS: u64 = STEP * 1000;

fn secret() -> PathSecret {
    PathSecret(Zeroizing::new([1; 32]))
}

fn entry(node: &Node) -> RoutingEntry {
    let handle = handle(&secret());
    RoutingEntry { entry_node: node.own.contact.clone(), handle, until: NOW / 1000 + 7200 }
}

fn record(owner: u8, step: u64, count: u16, entries: Vec<RoutingEntry>) -> Vec<u8> {
    let key = SigningKey::from_seed(&[owner; 32]);
    Signed::sign(&ApRecord::on_grid(key.verifying_key(), step, count, entries), &key).bytes().to_vec()
}

/// A node at which one path ends, and that publishes without a wait.
fn terminating() -> (Node, PathNo) {
    let mut node = node();
    node.settings.publish_within = 0;
    join(&mut node, Sides::End(segment(2, 7, false)));
    let no = *node.paths.keys().next().unwrap();
    node.handle(NOW, Input::LinkUp { link: LinkId(1), peer: neighbour(2).node_id() });
    node.handle(NOW, Input::Frame { link: LinkId(1), kind: kind::ATTACH, payload: vec![7; 16] });
    // As when a tunnel had stood.
    node.paths.get_mut(&no).unwrap().proven = true;
    (node, no)
}

fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

/// The neighbour sends a seed, and a link for its answer.
fn lend(node: &mut Node, now: u64, link: u64, seed: &Block) -> LinkId {
    node.handle(now, Input::Frame { link: LinkId(1), kind: kind::SEED, payload: seed.to_vec() });
    let link = LinkId(link);
    node.handle(now, Input::LinkUp { link, peer: neighbour(2).node_id() });
    node.handle(now, Input::Frame { link, kind: kind::AWAIT, payload: tunnel_id(seed).0.to_vec() });
    link
}

fn published(node: &mut Node) -> Vec<Vec<u8>> {
    let record = |output| if let Output::Publish { record, .. } = output { Some(record) } else { None };
    outputs(node).into_iter().filter_map(record).collect()
}

fn joins(node: &mut Node, now: u64, link: u64) -> bool {
    let link = LinkId(link);
    node.handle(now, Input::LinkUp { link, peer: neighbour(3).node_id() });
    node.handle(now, Input::Frame { link, kind: kind::JOIN, payload: handle(&secret()).to_vec() });
    outputs(node).iter().any(|output| matches!(output, Output::Join { .. }))
}

// protocol: F8, U12
#[test]
fn a_path_serves_from_its_record_on_and_until_its_owner_withdraws() {
    let (mut node, path) = terminating();
    assert!(!joins(&mut node, NOW, 11), "it serves nobody yet");
    let record = record(9, NOW / STEP_MS, 0, vec![entry(&node)]);
    node.handle(NOW, Input::Served { path, record: record.clone() });
    assert_eq!(published(&mut node), [record]);
    assert!(joins(&mut node, NOW, 13));
    node.handle(NOW, Input::Served { path, record: Vec::new() });
    assert!(!joins(&mut node, NOW, 15));
    assert!(node.paths.contains_key(&path));
}

/// Handles are public: whoever reads a record can send JOIN.
// protocol: U11
#[test]
fn an_exit_node_that_joins_without_end_is_refused_until_some_of_it_has_ended() {
    let (mut node, path) = terminating();
    let record = record(9, NOW / STEP_MS, 0, vec![entry(&node)]);
    node.handle(NOW, Input::Served { path, record });
    assert!((0..8_192).all(|number| joins(&mut node, NOW, 11 + 2 * number)));
    let link = LinkId(100_001);
    node.handle(NOW, Input::LinkUp { link, peer: neighbour(3).node_id() });
    node.handle(NOW, Input::Frame { link, kind: kind::JOIN, payload: handle(&secret()).to_vec() });
    let refused = |output| matches!(output, Output::Refuse { link: LinkId(100_001), reason: Reason::Busy });
    assert!(outputs(&mut node).into_iter().any(refused), "its link is refused, and not closed");
    node.handle(NOW, Input::JoinEnded { peer: neighbour(3).node_id() });
    assert!(joins(&mut node, NOW, 100_003));
}

/// A11: anybody could have any node serve a path for somebody else's address.
// protocol: H5, H8
#[test]
fn a_record_that_names_another_node_or_path_is_not_served() {
    let good = entry(&node());
    let mut elsewhere = good.clone();
    elsewhere.entry_node = neighbour(5);
    let mut another = good.clone();
    another.handle = [9; 16];
    let step = NOW / STEP_MS;
    let mut forged = record(9, step, 0, vec![good.clone()]);
    *forged.last_mut().unwrap() ^= 1;
    let bad = [
        record(9, step, 0, vec![elsewhere.clone(), another.clone()]),
        record(9, step, 0, Vec::new()),
        record(9, step - 3, 0, vec![good.clone()]),
        record(9, step + 2, 0, vec![good.clone()]),
        forged,
        b"rubbish".to_vec(),
    ];
    for record in bad {
        let (mut node, path) = terminating();
        node.handle(NOW, Input::Served { path, record });
        assert!(published(&mut node).is_empty());
        assert!(!node.paths.contains_key(&path), "a path that is misused ends");
    }
    // Beside the true entry others may stand: the owner's other paths.
    let (mut node, path) = terminating();
    node.handle(NOW, Input::Served { path, record: record(9, step, 0, vec![elsewhere, good]) });
    assert_eq!(published(&mut node).len(), 1);
}

// protocol: H6, H8
#[test]
fn a_path_serves_one_address() {
    let (mut node, path) = terminating();
    let of = |owner, node: &Node| record(owner, NOW / STEP_MS, 0, vec![entry(node)]);
    node.handle(NOW, Input::Served { path, record: of(9, &node) });
    node.handle(NOW, Input::Served { path, record: of(8, &node) });
    assert_eq!(published(&mut node).len(), 1);
    assert!(!node.paths.contains_key(&path) && node.served.is_empty());
}

// protocol: K3, U5
#[test]
fn a_path_has_one_use() {
    let address = ApAddress::of(&SigningKey::from_seed(&[9; 32]).verifying_key());
    let open = Open { node: neighbour(5).node_id(), handle: [1; 16], first: Vec::new() };
    let (open, ask, serve) = (Word::Open(open), Word::Lookup(Lookup(address)), Word::Serve(b"record"));
    for (first, then) in [(&open, &ask), (&ask, &open), (&open, &serve)] {
        let (mut node, path) = terminating();
        let mut says = |word: &Word<'_>| node.first_word(NOW, path, word.kind(), &word.data());
        assert!(says(first) != First::Misused && says(first) != First::Misused);
        assert_eq!(says(then), First::Misused);
        assert!(!node.paths.contains_key(&path));
    }
}

/// A path of class in that leaves may have served, and who has an older record still comes; no other path leads in.
// protocol: U3, U4
#[test]
fn an_own_path_hears_of_connections_only_where_it_serves_or_did() {
    let says = |class, work, word: &Word<'_>| {
        let mut node = node();
        let persona = node.want(NOW, owner::address(1), class);
        let no = owner::build(&mut node, NOW, persona, class);
        node.paths.get_mut(&no).and_then(Path::owned_mut).unwrap().work = work;
        let first = node.first_word(NOW, no, word.kind(), &word.data());
        assert_eq!(node.paths.contains_key(&no), first != First::Misused, "a path that is misused ends");
        first
    };
    let incoming = Word::Incoming(b"first");
    for work in [Work::Serve, Work::Leaving] {
        assert_eq!(says(Class::In, work, &incoming), First::Incoming(b"first".to_vec()));
        assert_eq!(says(Class::Out, work, &incoming), First::Misused);
    }
    for work in [Work::Spare, Work::Connect, Work::Ask, Work::AskAgain] {
        assert_eq!(says(Class::In, work, &incoming), First::Misused);
        assert_eq!(says(Class::Out, work, &incoming), First::Misused);
        assert_eq!(says(Class::Out, work, &Word::Padding), First::Control);
    }
}

/// A1: a record that was sent ahead appears anywhere in its step, by the entry node's own clock, and only while the path stands.
// protocol: H9
#[test]
fn the_record_of_the_next_step_is_published_at_a_random_moment_of_it() {
    let mut moments = Vec::new();
    for seed in 0..40 {
        let (mut node, path) = terminating();
        node.rng = Box::new(StdRng::seed_from_u64(seed));
        let next = record(9, NOW / STEP_MS + 1, 0, vec![entry(&node)]);
        node.handle(NOW, Input::Served { path, record: next.clone() });
        let mut at = NOW;
        let came = loop {
            at += 10_000;
            node.publish_due(at);
            let came = published(&mut node);
            if !came.is_empty() || at > NOW + 3 * STEP_MS {
                break came;
            }
        };
        assert_eq!(came, [next]);
        moments.push(at - NOW - STEP_MS);
    }
    assert!(moments.iter().all(|moment| *moment <= STEP_MS + 10_000));
    let early = moments.iter().filter(|moment| **moment < STEP_MS / 2).count();
    assert!((8..=32).contains(&early), "{early} of 40 in the first half");

    let (mut node, path) = terminating();
    node.handle(NOW, Input::Served { path, record: record(9, NOW / STEP_MS + 1, 0, vec![entry(&node)]) });
    node.handle(NOW, Input::LinkDown { link: LinkId(1) });
    node.publish_due(NOW + 2 * STEP_MS - 1);
    assert!(published(&mut node).is_empty(), "nobody publishes for a path that is gone");
}

/// A record of the present step appears neither when it came nor at a time that two nodes share: who sees all links would find who
/// sent something a second before.
// protocol: H9
#[test]
fn a_record_of_the_present_step_is_published_at_a_random_moment_soon() {
    let mut moments = BTreeSet::new();
    for seed in 0..40 {
        let (mut node, path) = terminating();
        node.settings.publish_within = Settings::default().publish_within;
        node.rng = Box::new(StdRng::seed_from_u64(seed));
        node.handle(NOW, Input::Served { path, record: record(9, NOW / STEP_MS, 0, vec![entry(&node)]) });
        assert!(published(&mut node).is_empty() && node.served.is_empty(), "at once");
        let publishes = |node: &mut Node, at: &u64| {
            node.publish_due(*at);
            !published(node).is_empty()
        };
        moments
            .insert((NOW..=NOW + 20_000).step_by(100).find(|at| publishes(&mut node, at)).expect("within 20 s") - NOW);
        assert!(joins(&mut node, NOW + 20_000, 11), "it serves from then on");
    }
    assert!(moments.len() > 20 && moments.first() < Some(&4_000) && moments.last() > Some(&16_000), "{moments:?}");
}

/// A12: the time from SEED to TUNNEL was the way to this end and back. Now most of it is a constant of the path, whatever the stock,
/// and what is drawn anew averages to nothing that a hop does not have already.
// protocol: Q15, T13
#[test]
fn an_end_answers_a_seed_after_its_paths_own_time() {
    let (mut node, path) = terminating();
    let constant = node.paths[&path].pace;
    assert!((50..=250).contains(&constant));
    let mut waits = Vec::new();
    for number in 0..40_u8 {
        let begun = NOW + 20_000 * u64::from(number);
        lend(&mut node, begun, 3 + 2 * u64::from(number), &[number + 1; 64]);
        let answers = |node: &mut Node| {
            outputs(node).iter().any(|output| matches!(output, Output::Send { kind: kind::TUNNEL, .. }))
        };
        assert!(!answers(&mut node), "it answers at once");
        let answered = (begun..begun + 1000).find(|now| {
            node.refill(*now);
            answers(&mut node)
        });
        waits.push(answered.unwrap() - begun);
        // The set-up goes nowhere; the next one begins with the same stock.
        node.expire_setups(begun + 15_000);
    }
    assert!(waits.iter().all(|wait| (constant..=constant + 50).contains(wait)), "{waits:?}");
    assert!(waits.iter().collect::<BTreeSet<_>>().len() > 10);
}

/// nothing ended any more.
#[test]
fn a_tunnel_does_not_stand_after_its_path_has_ended() {
    let (mut node, _) = terminating();
    let mut rng = StdRng::seed_from_u64(7);
    let mut owner = crate::tunnel::Owner::new(vec![(secret(), PathId([7; 16]))]);
    let seed = owner.start(&mut rng, NOW).unwrap();
    let link = lend(&mut node, NOW, 3, &seed);
    node.refill(NOW + 400);
    let tunnel = outputs(&mut node).into_iter().find_map(|output| match output {
        Output::Send { kind: kind::TUNNEL, payload, .. } => Some(payload),
        _ => None,
    });
    let frame = TunnelFrame::from_bytes(&tunnel.unwrap()).unwrap();
    let (_, q) = owner.on_tunnel(&frame).unwrap();
    node.handle(NOW + 500, Input::Frame { link, kind: kind::CONFIRM, payload: q.to_vec() });
    node.handle(NOW + 501, Input::LinkDown { link: LinkId(1) });
    assert!(outputs(&mut node).iter().any(|output| matches!(output, Output::PathDown { .. })));
    node.refill(NOW + 1_000);
    let after = outputs(&mut node);
    assert!(!after.iter().any(|output| matches!(output, Output::EndTunnel { .. })), "{after:?}");
    assert!(
        after.iter().any(|output| matches!(output, Output::Close { link: closed } if *closed == link)),
        "{after:?}"
    );
    assert_eq!(node.load()[0], 0, "its link is kept");
}

/// Each record costs a look at a signature and twenty nodes' time: an owner must not have them published without end.
// protocol: H7
#[test]
fn only_so_many_records_are_taken_of_a_path_within_a_step() {
    let (mut node, path) = terminating();
    let step = NOW / STEP_MS;
    for number in 0..1_000 {
        let record = record(9, step, number, vec![entry(&node)]);
        node.handle(NOW, Input::Served { path, record });
    }
    let count = published(&mut node).len();
    assert!((16..=64).contains(&count), "{count} were published");
    assert!(!node.paths.contains_key(&path));
    // As many as an owner has reason to send are taken in every step.
    let (mut node, path) = terminating();
    for number in 0..100 {
        let now = NOW + u64::from(number) * STEP_MS / 16;
        let record = record(9, now / STEP_MS, number, vec![entry(&node)]);
        node.handle(now, Input::Served { path, record });
    }
    assert_eq!(published(&mut node).len(), 100);
}

/// Neither while the first record waits for its step, nor after its owner withdrew.
// protocol: H6
#[test]
fn a_path_serves_one_address_also_ahead_and_after_a_withdrawal() {
    let step = NOW / STEP_MS;
    let of = |owner, ahead, node: &Node| record(owner, step + ahead, 0, vec![entry(node)]);
    for withdrawn in [false, true] {
        let (mut node, path) = terminating();
        let first = of(9, 1, &node);
        node.handle(NOW, Input::Served { path, record: first });
        if withdrawn {
            node.handle(NOW, Input::Served { path, record: Vec::new() });
        }
        let second = of(8, 0, &node);
        node.handle(NOW, Input::Served { path, record: second });
        assert!(published(&mut node).is_empty() && !node.paths.contains_key(&path), "{withdrawn}");
    }
}

/// A12: what an end waits was made of what both ends know, so that a terminating node could take its owner's off and measure the rest.
// protocol: T14
#[test]
fn nobody_who_knows_a_paths_secret_knows_how_long_its_ends_wait() {
    let pace = |seed| {
        let mut node = node();
        node.rng = Box::new(StdRng::seed_from_u64(seed));
        join(&mut node, Sides::End(segment(2, 7, false)));
        node.paths.values().next().unwrap().pace
    };
    let all: BTreeSet<_> = (0..40).map(pace).collect();
    assert!(all.len() > 20 && all.iter().all(|pace| (50..=250).contains(pace)), "{all:?}");
}

/// A clock that had been hours ahead and was set right stopped tunnels and all that is looked at now and again, until it was there again.
#[test]
fn a_clock_that_was_set_back_stops_neither_tunnels_nor_looks() {
    let (mut node, path) = terminating();
    node.tick(NOW + 5 * STEP_MS - 1);
    let (mut set_back, _) = terminating();
    set_back.look_at = node.look_at;
    set_back.paths.get_mut(&path).unwrap().refill_at = Some(NOW + 5 * STEP_MS);
    let seeds = (1..=10).any(|tick| {
        set_back.tick(NOW + tick * 100);
        outputs(&mut set_back).iter().any(|output| matches!(output, Output::Send { kind: kind::SEED, .. }))
    });
    assert!(seeds, "no tunnel is started");
    assert!(set_back.look_at <= NOW + 1_000 + LOOK, "no record is published");
}
