//! Owners that nobody can dial: a network of nodes, of which one can only dial.

use std::collections::BTreeMap;

use super::owner::{address, key};
use super::*;
use crate::path::plan::WEIGHT_MAX;

const NODES: u8 = 9;
const HIDDEN: u8 = 1;

/// Nodes whose links take no time; nobody's dial reaches the hidden one.
struct Net {
    nodes: BTreeMap<u8, Node>,
    /// Each end of a link, and its other end.
    links: BTreeMap<(u8, LinkId), (u8, LinkId)>,
    queue: VecDeque<(u8, Input)>,
    now: u64,
    next: u64,
    /// What the hidden one was told.
    told: Vec<Output>,
    /// Frames by kind and by who sent them, on links of the hidden one.
    frames: BTreeMap<(u8, bool), usize>,
    /// Who tried to dial it.
    dials: BTreeSet<u8>,
}

fn number(id: NodeId) -> u8 {
    (1..=NODES).find(|number| neighbour(*number).node_id() == id).unwrap()
}

impl Net {
    fn new() -> Self {
        let settings = Settings { hops: 2, unborn: 0, spread: Spread::Nodes, ..Settings::hurried() };
        let mut rng = StdRng::seed_from_u64(5);
        let keys: Vec<_> = (0..NODES).map(|_| PathKeys::generate(&mut rng)).collect();
        let all: Vec<_> = (1..=NODES)
            .zip(&keys)
            .map(|(number, keys)| {
                let keys = keys.public();
                Candidate { contact: neighbour(number), path_dh: keys.dh, path_kem: keys.kem, weight: WEIGHT_MAX }
            })
            .collect();
        let nodes = (1..=NODES).zip(keys).map(|(number, keys)| {
            let own = all[usize::from(number) - 1].clone();
            let (hop, rng) = (Hop::new(own.contact.identity, [keys]), StdRng::seed_from_u64(number.into()));
            (number, Node::new(own, hop, None, settings.clone(), Box::new(rng)))
        });
        let mut net = Self {
            nodes: nodes.collect(),
            links: BTreeMap::new(),
            queue: VecDeque::new(),
            now: NOW,
            next: 1,
            told: Vec::new(),
            frames: BTreeMap::new(),
            dials: BTreeSet::new(),
        };
        net.input(HIDDEN, Input::Reachable(false));
        // Nobody knows the hidden one but itself.
        let sample = || all.iter().filter(|node| node.contact != neighbour(HIDDEN)).cloned().collect();
        for now in [NOW, NOW + 2_000] {
            net.now = now;
            (1..=NODES).for_each(|number| net.input(number, Input::Sample(sample())));
        }
        net
    }

    fn input(&mut self, number: u8, input: Input) {
        self.queue.push_back((number, input));
        while let Some((at, input)) = self.queue.pop_front() {
            self.nodes.get_mut(&at).unwrap().handle(self.now, input);
            self.carry_out(at);
        }
    }

    fn carry_out(&mut self, at: u8) {
        while let Some(output) = self.nodes.get_mut(&at).unwrap().poll() {
            match output {
                Output::Dial { link, to, .. } => self.dial(at, link, number(to.node_id())),
                Output::Send { link, kind, payload } => {
                    let Some((to, far)) = self.links.get(&(at, link)).copied() else { continue };
                    if at == HIDDEN || to == HIDDEN {
                        *self.frames.entry((kind, at == HIDDEN)).or_default() += 1;
                    }
                    self.queue.push_back((to, Input::Frame { link: far, kind, payload }));
                }
                Output::Close { link } | Output::Release { link } => self.cut(at, link),
                told if at == HIDDEN => self.told.push(told),
                _ => {}
            }
        }
    }

    fn dial(&mut self, from: u8, link: LinkId, to: u8) {
        if to == HIDDEN {
            self.dials.insert(from);
            return self.queue.push_back((from, Input::DialFailed { link }));
        }
        let far = LinkId(self.next);
        self.next += 2;
        self.links.insert((from, link), (to, far));
        self.links.insert((to, far), (from, link));
        self.queue.push_back((to, Input::LinkUp { link: far, peer: neighbour(from).node_id() }));
        self.queue.push_back((from, Input::LinkUp { link, peer: neighbour(to).node_id() }));
    }

    fn cut(&mut self, at: u8, link: LinkId) {
        if let Some((to, far)) = self.links.remove(&(at, link)) {
            self.links.remove(&(to, far));
            self.queue.push_back((to, Input::LinkDown { link: far }));
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 20 {
            self.now += 20;
            for at in 1..=NODES {
                self.nodes.get_mut(&at).unwrap().tick(self.now);
                self.carry_out(at);
                while let Some((at, input)) = self.queue.pop_front() {
                    self.nodes.get_mut(&at).unwrap().handle(self.now, input);
                    self.carry_out(at);
                }
            }
        }
    }

    fn frames(&self, kind: u8, from_hidden: bool) -> usize {
        self.frames.get(&(kind, from_hidden)).copied().unwrap_or_default()
    }
}

// protocol: Q18, Q19, Q20
#[test]
fn who_can_only_dial_has_paths_of_both_classes_and_tunnels_from_both_ends() {
    let mut net = Net::new();
    net.input(HIDDEN, Input::WantExit(address(1)));
    net.input(HIDDEN, Input::WantEntry(key(2), Serials::default()));
    net.pass(10_000);
    let works =
        |of: Work| net.told.iter().filter(|told| matches!(told, Output::PathWorks { work, .. } if *work == of)).count();
    assert!(works(Work::Connect) > 0 && works(Work::Ask) > 0 && works(Work::Serve) >= 3, "{:?}", net.told);
    assert!(net.told.iter().filter(|told| matches!(told, Output::OwnTunnel { .. })).count() >= 10);
    assert!(net.dials.is_empty(), "{:?} dialed who cannot be dialed", net.dials);
    // Both ends start tunnels; where the guard has the answer to say, it does so on a link that the hidden one brought.
    for from_hidden in [true, false] {
        assert!(
            net.frames(kind::TUNNEL, from_hidden) > 0 && net.frames(kind::SEED, from_hidden) > 0,
            "{:?}",
            net.frames
        );
    }
    assert!(net.frames(kind::ARRAY, false) > 3 && net.frames(kind::HOME, true) >= 1, "{:?}", net.frames);
    let twice = net.frames(kind::AWAIT, false) + net.frames(kind::ATTACH, false);
    assert_eq!(twice, 0, "{:?}", net.frames);
}

/// It opens links to the last nodes of circles, keeps them while arrays come, and lets go of them first.
// protocol: Q21
#[test]
fn a_link_on_which_no_array_comes_is_closed_by_its_owner_first() {
    let link = LinkId(1);
    let ends_after = |role: links::Role| {
        let mut node = node();
        node.handle(NOW, Input::LinkUp { link, peer: neighbour(2).node_id() });
        node.set_role(link, role);
        let ends = (NOW..NOW + 200_000).step_by(1000).find(|now| {
            node.expire_links(*now);
            node.links.is_empty()
        });
        ends.map(|at| at - NOW)
    };
    assert_eq!(ends_after(links::Role::Home), Some(121_000));
    assert_eq!(ends_after(links::Role::Brings), Some(181_000));
    assert_eq!(ends_after(links::Role::Homing), Some(11_000));
}

/// I7: a peer that says HOME without end keeps four links.
// protocol: F19
#[test]
fn a_peer_has_its_arrays_brought_on_four_links_at_most() {
    let mut node = node();
    for number in 0..100 {
        let (link, peer) = (LinkId(1 + 2 * number), neighbour(2 + (number % 2) as u8).node_id());
        node.handle(NOW, Input::LinkUp { link, peer });
        node.handle(NOW, Input::Frame { link, kind: kind::HOME, payload: Vec::new() });
    }
    assert_eq!(node.links.len(), 8, "four of each of two");
    // What is for it goes over the newest, and is not dialed.
    let newest = node.home_of(neighbour(2).node_id(), links::Role::Brings).unwrap();
    while node.poll().is_some() {}
    node.deliver(NOW, neighbour(2), frames::array_frame(), None);
    let sent: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
    assert!(matches!(sent[..], [Output::Send { link, kind: kind::ARRAY, .. }] if link == newest), "{sent:?}");
}

/// A guard that does not answer fails the builds that were to come home over it, and is away.
// protocol: Q20
#[test]
fn who_cannot_open_its_way_home_does_not_begin() {
    for refuses in [true, false] {
        let mut net = Net::new();
        net.input(HIDDEN, Input::WantExit(address(1)));
        let node = net.nodes.get_mut(&HIDDEN).unwrap();
        let now = net.now + 1_000;
        node.tick(now);
        let dialed: Vec<_> = std::iter::from_fn(|| node.poll())
            .filter_map(|output| if let Output::Dial { link, to, .. } = output { Some((link, to)) } else { None })
            .collect();
        assert!(!dialed.is_empty(), "nothing is built");
        for (link, to) in dialed {
            assert!(matches!(node.errands.get(&link), Some(Errand::Home(_))), "an array left before");
            if refuses {
                node.handle(now, Input::DialFailed { link });
            } else {
                // It opens a link, and closes it without a word.
                node.handle(now, Input::LinkUp { link, peer: to.node_id() });
                node.handle(now, Input::LinkDown { link });
            }
            assert!(node.away.contains_key(&to.node_id()));
        }
        assert!(node.builds.is_empty(), "{refuses}: a build goes on");
    }
}

// protocol: Q22
#[test]
fn who_has_no_record_tells_none() {
    for reachable in [true, false] {
        let mut node = node();
        node.handle(NOW, Input::Reachable(reachable));
        join(&mut node, Sides::End(segment(2, 7, false)));
        node.tell_later(NOW, vec![1]);
        assert_eq!(node.paths.values().flat_map(|path| path.tells()).count(), usize::from(reachable));
    }
}
