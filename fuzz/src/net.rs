//! A network of nodes in memory whose links the fuzzer owns: it delays, drops, changes, repeats and cuts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arbitrary::Arbitrary;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{
    Input, LinkId, Node, Of, Output, PathNo, Serials, Settings, TunnelNo, WantNo, Work,
};
use phantom_proto::path::Spread;
use phantom_proto::record::{ApRecord, Epoch, Extensions, NodeRecord, PublicPathKeys, STEP, Signed};
use phantom_proto::terminating::First;
use phantom_proto::wire::cells::CellKind;

use crate::world::{NODES, candidate, hop, identity, number, path_keys, sample};
use crate::{NOW, key, rng};

/// What the fuzzer does.
#[derive(Arbitrary, Debug)]
pub enum Op {
    Deliver(u8),
    Drop,
    Repeat,
    Swap,
    Change {
        at: u16,
        with: u8,
    },
    Cut {
        link: u8,
    },
    Tick(u8),
    WantExit {
        node: u8,
        identity: u8,
    },
    WantEntry {
        node: u8,
        identity: u8,
    },
    Forget {
        node: u8,
        identity: u8,
    },
    /// A ready tunnel, or one that was or never will be, is used by its other end, or breaks.
    Gone {
        node: u8,
        tunnel: u8,
        used: bool,
    },
    /// An owner, or who says that it is, sends a record.
    Served {
        node: u8,
        path: u8,
        record: Vec<u8>,
    },
    Rotate {
        node: u8,
    },
    /// Others can open links to a node, or cannot any more.
    Reachable {
        node: u8,
        reachable: bool,
    },
    /// A stranger, or a peer in its own name, opens a link and says something.
    Say {
        node: u8,
        peer: u8,
        kind: u8,
        payload: Vec<u8>,
    },
    /// More frames on a link that stands.
    Flood {
        link: u8,
        kind: u8,
        length: u8,
        count: u8,
    },
    /// Somebody wants a tunnel, of one path or of an identity's.
    Want {
        node: u8,
        path: Option<u8>,
        identity: u8,
        limit: u16,
    },
    /// Whoever was granted it has gone away.
    Declined {
        node: u8,
        tunnel: u8,
    },
    /// The other end of a path that ends here, or not, begins to use a tunnel with this cell.
    First {
        node: u8,
        path: u8,
        kind: u8,
        data: Vec<u8>,
    },
}

type End = (u8, LinkId);

/// The network.
pub struct Net {
    nodes: Vec<Node>,
    links: BTreeMap<End, End>,
    /// Standing connections, as their ends have said.
    standing: BTreeSet<End>,
    queue: VecDeque<(u8, Input)>,
    paths: Vec<(u8, PathNo)>,
    tunnels: Vec<(PathNo, TunnelNo)>,
    now: u64,
    next: u64,
    dead: bool,
    /// Nodes to which nobody can open links.
    hidden: BTreeSet<u8>,
}

/// Ends of links that lead to nobody.
const NOBODY: u8 = NODES;

impl Net {
    /// All nodes, who know each other.
    pub fn new() -> Self {
        let settings =
            Settings { hops: 2, unborn: 0, ready_tunnels: 1, spread: Spread::Nodes, ..Settings::hurried() };
        let node = |number: u8| {
            let rng = Box::new(rng(number.into()));
            Node::new(candidate(number).clone(), hop(number), None, settings.clone(), rng)
        };
        let mut net = Self {
            nodes: (0..NODES).map(node).collect(),
            links: BTreeMap::new(),
            standing: BTreeSet::new(),
            queue: VecDeque::new(),
            paths: Vec::new(),
            tunnels: Vec::new(),
            now: NOW * 1000,
            next: 1,
            dead: false,
            hidden: BTreeSet::new(),
        };
        for number in 0..NODES {
            net.nodes[usize::from(number)].handle(net.now, Input::Sample(Vec::new()));
            net.now += 2_000;
            net.nodes[usize::from(number)].handle(net.now, Input::Sample(sample(number)));
        }
        net
    }

    /// Does one thing and checks the bounds.
    pub fn run(&mut self, op: Op) {
        let node_of = |node: u8| node % NODES;
        match op {
            Op::Deliver(count) => (0..=count).for_each(|_| self.deliver()),
            // Links tell their ends of everything, and in order: only frames get lost or late.
            Op::Drop if self.frame_is_next() => drop(self.queue.pop_front()),
            Op::Repeat => self.repeat(),
            Op::Swap if self.frame_is_next() => {
                let front = self.queue.pop_front();
                self.deliver();
                self.queue.extend(front);
            }
            Op::Drop | Op::Swap => {}
            Op::Change { at, with } => {
                if let Some((_, Input::Frame { payload, .. })) = self.queue.front_mut()
                    && !payload.is_empty()
                {
                    let at = usize::from(at) % payload.len();
                    payload[at] ^= with;
                }
            }
            Op::Cut { link } => {
                if let Some((end, _)) = self.link(link) {
                    // One side has heard nothing any more, or both lose it.
                    if link % 2 == 1 && self.standing.remove(&end) { self.silence(end) } else { self.cut(end) }
                }
            }
            Op::Tick(tenths) => self.tick(u64::from(tenths) * 100),
            Op::WantExit { node, identity } => self.input(node_of(node), Input::WantExit(address(identity))),
            Op::WantEntry { node, identity } => self.input(node_of(node), Input::WantEntry(wanted(identity), Serials::default())),
            Op::Forget { node, identity } => self.input(node_of(node), Input::Forget(address(identity))),
            Op::Want { node, path, identity, limit } => {
                let of = match path {
                    Some(path) => Of::Path(self.path(path)),
                    None => Of::Work(address(identity), Work::Connect),
                };
                self.next += 1;
                let want = WantNo(self.next);
                self.input(node_of(node), Input::Want { want, of, limit: limit.into() });
            }
            Op::Gone { node, tunnel, used } => {
                let (_, tunnel) = self.tunnel(tunnel);
                self.input(node_of(node), Input::TunnelGone { tunnel, used });
            }
            Op::Declined { node, tunnel } => {
                let (path, tunnel) = self.tunnel(tunnel);
                self.input(node_of(node), Input::Declined { path, tunnel });
            }
            Op::Served { node, path, record } => {
                self.input(node_of(node), Input::Served { path: self.path(path), record });
            }
            Op::First { node, path, kind, data } => {
                let Some(kind) = CellKind::from_byte(kind) else { return };
                let (node, path) = (node_of(node), self.path(path));
                let first = self.nodes[usize::from(node)].first_word(self.now, path, kind, &data);
                if let First::Serve(record) = first {
                    self.input(node, Input::Served { path, record });
                }
                self.carry_out(node);
            }
            Op::Rotate { node } => {
                let node = node_of(node);
                let (keys, own) = (vec![path_keys(node)], Box::new(candidate(node).clone()));
                self.input(node, Input::Rotate { keys, own, record: record(node, self.now) });
            }
            Op::Reachable { node, reachable } => {
                let node = node_of(node);
                if reachable { self.hidden.remove(&node) } else { self.hidden.insert(node) };
                self.input(node, Input::Reachable(reachable));
            }
            Op::Say { node, peer, kind, payload } => {
                let link = self.fresh();
                self.links.insert((node_of(node), link), (NOBODY, link));
                self.input(node_of(node), Input::LinkUp { link, peer: id(peer) });
                self.input(node_of(node), Input::Frame { link, kind, payload });
            }
            Op::Flood { link, kind, length, count } => {
                if let Some(((node, link), _)) = self.link(link) {
                    for index in 0..count {
                        let payload = vec![index.wrapping_mul(37); length.into()];
                        self.input(node, Input::Frame { link, kind, payload });
                    }
                }
            }
        }
        self.check();
    }

    /// When all is quiet for longer than anything lives, every node is empty again.
    pub fn finish(mut self) {
        for node in 0..NODES {
            self.input(node, Input::Sample(Vec::new()));
            (0..4).for_each(|identity| self.input(node, Input::Forget(address(identity))));
        }
        self.dead = true;
        while let Some((end, _)) = self.links.first_key_value() {
            let end = *end;
            self.cut(end);
        }
        while !self.queue.is_empty() {
            self.deliver();
        }
        for _ in 0..4 {
            self.tick(90_000_000);
            while !self.queue.is_empty() {
                self.deliver();
            }
        }
        for node in &self.nodes {
            assert_eq!(node.load(), [0; 7], "a node keeps something");
            assert_eq!(node.path_counts(), (0, 0));
        }
    }

    /// One that there was, or any.
    fn path(&self, index: u8) -> PathNo {
        self.paths.get(usize::from(index)).map_or(PathNo(index.into()), |(_, path)| *path)
    }

    fn tunnel(&self, index: u8) -> (PathNo, TunnelNo) {
        let any = (PathNo(index.into()), TunnelNo(index.into()));
        self.tunnels.get(usize::from(index)).copied().unwrap_or(any)
    }

    fn check(&self) {
        for node in &self.nodes {
            let [_, errands, paths, segments, setups, seeds, _] = node.load();
            assert!(segments <= 2 * paths, "{segments} segments of {paths} paths");
            assert!(setups <= 64 * paths, "{setups} set-ups on {paths} paths");
            assert!(seeds <= 64 * paths, "{seeds} seeds on {paths} paths");
            // Arrays are bounded by what builds may do in a minute.
            assert!(errands <= 2 * paths + setups + 4096, "{errands} errands");
        }
    }

    fn tick(&mut self, millis: u64) {
        self.now += millis;
        for node in 0..NODES {
            self.nodes[usize::from(node)].tick(self.now);
            self.carry_out(node);
        }
    }

    fn repeat(&mut self) {
        if let Some((node, Input::Frame { link, kind, payload })) = self.queue.front() {
            let copy = (*node, Input::Frame { link: *link, kind: *kind, payload: payload.clone() });
            self.queue.push_front(copy);
        }
    }

    fn frame_is_next(&self) -> bool {
        matches!(self.queue.front(), Some((_, Input::Frame { .. })))
    }

    fn deliver(&mut self) {
        if let Some((node, input)) = self.queue.pop_front() {
            self.input(node, input);
        }
    }

    fn input(&mut self, node: u8, input: Input) {
        if let Some(machine) = self.nodes.get_mut(usize::from(node)) {
            machine.handle(self.now, input);
            self.carry_out(node);
        }
    }

    fn carry_out(&mut self, node: u8) {
        while let Some(output) = self.nodes[usize::from(node)].poll() {
            match output {
                Output::Dial { link, to, .. } => self.dial(node, link, number(to.node_id())),
                Output::Send { link, kind, payload } => {
                    if let Some((peer, link)) = self.links.get(&(node, link)) {
                        self.queue.push_back((*peer, Input::Frame { link: *link, kind, payload }));
                    }
                }
                Output::Close { link } | Output::Release { link } => self.close((node, link)),
                Output::PathUp { path, .. } => self.paths.push((node, path)),
                Output::Standing { link } => drop(self.standing.insert((node, link))),
                // These links belong to the data plane now.
                Output::Relay { a, b, .. } => [a, b].into_iter().for_each(|link| self.leave((node, link))),
                Output::EndTunnel { link, path, tunnel, .. } | Output::OwnTunnel { link, path, tunnel, .. } => {
                    self.paths.push((node, path));
                    self.tunnels.push((path, tunnel));
                    self.leave((node, link));
                }
                // It ends some time later.
                Output::Join { link, peer, .. } => {
                    self.leave((node, link));
                    self.queue.push_back((node, Input::JoinEnded { peer }));
                }
                Output::Refuse { link, .. } => self.leave((node, link)),
                // As the control tunnel carries it.
                Output::Serve { record, .. } => self.serve(&record),
                // One way or the other, as chance numbers the path.
                Output::Visit { path, .. } => {
                    self.queue.push_back((node, Input::Visited { path, reached: path.0 % 2 == 0 }));
                }
                Output::LookUp { path, .. } => {
                    let serial = (path.0 % 2 == 0).then_some(path.0);
                    self.queue.push_back((node, Input::LookedUp { path, serial }));
                }
                Output::Publish { .. }
                | Output::Heard(_)
                | Output::PathWorks { .. }
                | Output::Serials { .. }
                | Output::Sets { .. }
                | Output::Pinned(_)
                | Output::PathRetired { .. }
                | Output::PathDown { .. }
                | Output::Cut { .. }
                | Output::Grant { .. }
                | Output::Unmet { .. }
                | Output::DropTunnel { .. }
                | Output::Note(_)
                | Output::Opened(_)
                | Output::Choice(_) => {}
            }
        }
    }

    /// To every path that ends at a node which the record names: one of them is the right one.
    fn serve(&mut self, record: &[u8]) {
        let Ok(signed) = Signed::<ApRecord>::from_bytes(record) else { return };
        let Ok(checked) = signed.check(self.now / 1000).or_else(|_| signed.check(self.now / 1000 + STEP)) else { return };
        let named: Vec<_> = checked.entries.iter().filter_map(|entry| number(entry.entry_node.node_id())).collect();
        for (node, path) in self.paths.iter().filter(|(node, _)| named.contains(node)) {
            self.queue.push_back((*node, Input::Served { path: *path, record: record.to_vec() }));
        }
    }

    fn dial(&mut self, node: u8, link: LinkId, to: Option<u8>) {
        let Some(peer) = to.filter(|to| !self.dead && !self.hidden.contains(to)) else {
            return self.queue.push_back((node, Input::DialFailed { link }));
        };
        let there = self.fresh();
        self.links.insert((node, link), (peer, there));
        self.links.insert((peer, there), (node, link));
        self.queue.push_back((peer, Input::LinkUp { link: there, peer: id(node) }));
        self.queue.push_back((node, Input::LinkUp { link, peer: id(peer) }));
    }

    fn fresh(&mut self) -> LinkId {
        self.next += 2;
        LinkId(self.next)
    }

    fn link(&self, index: u8) -> Option<(End, End)> {
        self.links.iter().nth(usize::from(index)).map(|(here, there)| (*here, *there))
    }

    /// This side is gone by its own will: the other one hears of it.
    fn close(&mut self, end: End) {
        if let Some((peer, link)) = self.links.remove(&end) {
            self.links.remove(&(peer, link));
            self.queue.push_back((peer, Input::LinkDown { link }));
        }
    }

    fn leave(&mut self, end: End) {
        self.links.remove(&end);
    }

    /// This side takes the other one for gone.
    fn silence(&mut self, end: End) {
        self.close(end);
        self.queue.push_back((end.0, Input::LinkSilent { link: end.1 }));
    }

    /// The link breaks: both sides hear of it.
    fn cut(&mut self, end: End) {
        self.close(end);
        self.queue.push_back((end.0, Input::LinkDown { link: end.1 }));
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

fn id(peer: u8) -> NodeId {
    NodeId::of(&identity(peer % (NODES + 1)).verifying_key())
}

/// What a node tells its neighbours of itself.
fn record(node: u8, now: u64) -> Vec<u8> {
    let own = candidate(node);
    let keys = PublicPathKeys { dh: own.path_dh, kem: own.path_kem.clone() };
    let (contact, epoch) = (own.contact.clone(), Epoch::at(&own.contact.node_id(), now / 1000));
    let (keys, extensions) = ([keys.clone(), keys], Extensions::default());
    Signed::sign(&NodeRecord { contact, epoch, revision: 0, keys, extensions }, identity(node)).bytes().to_vec()
}

fn wanted(identity: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(key(100 + identity % 4).seed()))
}

fn address(identity: u8) -> ApAddress {
    ApAddress::of(&wanted(identity).verifying_key())
}
