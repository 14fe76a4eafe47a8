//! Owner, hops and end in a row, frames between them in memory; whoever starts, and whatever an attacker changes.

mod bounds;
mod unlinkable;
mod vectors;

use std::collections::{HashSet, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::cell::{CELL_LEN, Cell, CellKind};
use crate::ident::PathId;
use crate::wire::frame::TunnelFrame;

const NOW: u64 = 1_000;

/// What travels between two neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    Seed(Block),
    Tunnel(TunnelFrame),
    Confirm(Block),
}

impl Frame {
    fn blocks(&self) -> Vec<Block> {
        match self {
            Self::Seed(block) | Self::Confirm(block) => vec![*block],
            Self::Tunnel(open) => vec![open.r, open.p],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.blocks().concat();
        if let Self::Tunnel(open) = self {
            bytes.extend_from_slice(&open.id.0);
        }
        bytes
    }

    /// The bytes that somebody may change, in order.
    fn byte_mut(&mut self, at: usize) -> &mut u8 {
        match self {
            Self::Seed(block) | Self::Confirm(block) => &mut block[at],
            Self::Tunnel(open) => open.r.iter_mut().chain(&mut open.p).chain(&mut open.id.0).nth(at).unwrap(),
        }
    }
}

/// One thing that a hop can observe: kind and length of a frame, the side, and whether it arrived there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sight {
    kind: char,
    len: usize,
    side: Side,
    arrived: bool,
}

fn sight(frame: &Frame, side: Side, arrived: bool) -> Sight {
    let kind = match frame {
        Frame::Seed(_) => 'S',
        Frame::Tunnel(_) => 'T',
        Frame::Confirm(_) => 'C',
    };
    Sight { kind, len: frame.bytes().len(), side, arrived }
}

fn other(side: Side) -> Side {
    if side == Side::A { Side::B } else { Side::A }
}

/// A row of nodes: place 0 is the owner, the last place the end; side A of each hop is the owner's.
struct Row {
    rng: StdRng,
    owner: Owner,
    hops: Vec<Hop>,
    end: End,
}

/// What came of one set-up.
#[derive(Default)]
struct Outcome {
    owner: Option<OwnerLayers>,
    end: Option<EndLayers>,
    hops: Vec<Option<Layers>>,
    /// What each hop observed.
    sights: Vec<Vec<Sight>>,
    /// What each hop received and sent.
    seen: Vec<Vec<Frame>>,
    /// Frames that the ends sent.
    sent: [usize; 2],
}

impl Row {
    fn new(seed: u8, hops: usize) -> Self {
        let mut secrets: Vec<_> =
            (0..=hops as u8).map(|n| PathSecret(Zeroizing::new([seed.wrapping_mul(16) + n + 1; 32]))).collect();
        let segment = |number: usize| PathId([number as u8 + 1; 16]);
        let owner = secrets.iter().cloned().enumerate().map(|(number, secret)| (secret, segment(number)));
        let owner = Owner::new(owner.collect());
        let end = End::new(secrets.pop().unwrap());
        let hops = secrets.into_iter().enumerate();
        let hops = hops.map(|(number, secret)| Hop::new(secret, [segment(number), segment(number + 1)])).collect();
        Self { rng: StdRng::seed_from_u64(seed.into()), owner, hops, end }
    }

    fn set_up(&mut self, owner_starts: bool) -> Outcome {
        self.set_up_under(owner_starts, |_, _, _| {})
    }

    /// Steps one set-up until nothing moves. `attack(place, from, frame)` sees each frame before the node at `place` does. What
    /// a node refuses is dropped in silence, as nodes do.
    fn set_up_under(&mut self, owner_starts: bool, mut attack: impl FnMut(usize, Side, &mut Frame)) -> Outcome {
        let last = self.hops.len() + 1;
        let mut outcome = Outcome {
            hops: self.hops.iter().map(|_| None).collect(),
            sights: vec![Vec::new(); self.hops.len()],
            seen: vec![Vec::new(); self.hops.len()],
            ..Outcome::default()
        };
        let (mut owner_tunnel, mut end_tunnel) = (None, None);
        let mut hop_tunnels: Vec<Option<HopTunnel>> = self.hops.iter().map(|_| None).collect();
        let mut way = VecDeque::new();
        if owner_starts {
            way.push_back((1, Side::A, Frame::Seed(self.owner.start(&mut self.rng, NOW).unwrap())));
        } else {
            way.push_back((last - 1, Side::B, Frame::Seed(self.end.start(&mut self.rng, NOW).unwrap())));
        }
        outcome.sent[usize::from(!owner_starts)] += 1;
        while let Some((place, from, mut frame)) = way.pop_front() {
            attack(place, from, &mut frame);
            if place == 0 {
                if let Some(answer) = self.at_owner(&frame, &mut owner_tunnel, &mut outcome) {
                    outcome.sent[0] += 1;
                    way.push_back((1, Side::A, answer));
                }
            } else if place == last {
                if let Some(answer) = self.at_end(&frame, &mut end_tunnel, &mut outcome) {
                    outcome.sent[1] += 1;
                    way.push_back((last - 1, Side::B, answer));
                }
            } else {
                let hop = place - 1;
                outcome.sights[hop].push(sight(&frame, from, true));
                outcome.seen[hop].push(frame.clone());
                let layers = &mut outcome.hops[hop];
                if let Some(next) = at_hop(&mut self.hops[hop], from, &frame, &mut hop_tunnels[hop], layers) {
                    outcome.sights[hop].push(sight(&next, other(from), false));
                    outcome.seen[hop].push(next.clone());
                    way.push_back((if from == Side::A { place + 1 } else { place - 1 }, from, next));
                }
            }
        }
        outcome
    }

    fn expire(&mut self) {
        self.owner.expire(u64::MAX);
        self.hops.iter_mut().for_each(|hop| hop.expire(u64::MAX));
        self.end.expire(u64::MAX);
    }

    fn at_owner(&mut self, frame: &Frame, tunnel: &mut Option<OwnerTunnel>, outcome: &mut Outcome) -> Option<Frame> {
        match frame {
            Frame::Seed(seed) => {
                let (begun, open) = self.owner.on_seed(&mut self.rng, seed).ok()?;
                *tunnel = Some(begun);
                Some(Frame::Tunnel(open))
            }
            Frame::Tunnel(open) => {
                let (begun, q) = self.owner.on_tunnel(open).ok()?;
                *tunnel = Some(begun);
                Some(Frame::Confirm(q))
            }
            Frame::Confirm(block) => {
                let (answer, layers) = tunnel.take()?.confirm(block).ok()?;
                outcome.owner = Some(layers);
                answer.map(Frame::Confirm)
            }
        }
    }

    fn at_end(&mut self, frame: &Frame, tunnel: &mut Option<EndTunnel>, outcome: &mut Outcome) -> Option<Frame> {
        match frame {
            Frame::Seed(seed) => {
                let (begun, open) = self.end.on_seed(&mut self.rng, seed).ok()?;
                *tunnel = Some(begun);
                Some(Frame::Tunnel(open))
            }
            Frame::Tunnel(open) => {
                let (begun, q) = self.end.on_tunnel(open).ok()?;
                *tunnel = Some(begun);
                Some(Frame::Confirm(q))
            }
            Frame::Confirm(block) => {
                let (answer, layers) = tunnel.take()?.confirm(block).ok()?;
                outcome.end = Some(layers);
                answer.map(Frame::Confirm)
            }
        }
    }
}

fn at_hop(
    hop: &mut Hop,
    from: Side,
    frame: &Frame,
    tunnel: &mut Option<HopTunnel>,
    layers: &mut Option<Layers>,
) -> Option<Frame> {
    match frame {
        Frame::Seed(seed) => Some(Frame::Seed(hop.seed(NOW, from, seed).ok()?)),
        Frame::Tunnel(open) => {
            let (begun, next) = hop.tunnel(from, open).ok()?;
            *tunnel = Some(begun);
            Some(Frame::Tunnel(next))
        }
        Frame::Confirm(block) => {
            let (next, ready) = tunnel.as_mut()?.confirm(from, block).ok()?;
            *layers = ready;
            Some(Frame::Confirm(next))
        }
    }
}

fn windows(frames: &[Frame]) -> HashSet<[u8; 8]> {
    frames
        .iter()
        .flat_map(|frame| frame.bytes().windows(8).map(|w| w.try_into().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn tunnels_stand_and_carry_cells_whoever_starts() {
    for hops in 1..=4 {
        for owner_starts in [true, false] {
            let outcome = Row::new(1, hops).set_up(owner_starts);
            let (mut owner, mut end) = (outcome.owner.unwrap(), outcome.end.unwrap());
            let mut hops: Vec<_> = outcome.hops.into_iter().map(Option::unwrap).collect();
            for round in 0..3u8 {
                let mut cell = Box::new([0; CELL_LEN]);
                Cell { kind: CellKind::Data, data: &[round] }.encode(&mut cell).unwrap();
                assert!(owner.outgoing.wrap(&mut cell[..]));
                hops.iter_mut().for_each(|hop| assert!(hop.a_to_b.encipher(&mut cell[..])));
                assert!(end.incoming.encipher(&mut cell[..]));
                assert_eq!(Cell::decode(&cell[..]).unwrap().data, [round]);
                assert!(end.outgoing.encipher(&mut cell[..]));
                hops.iter_mut().rev().for_each(|hop| assert!(hop.b_to_a.encipher(&mut cell[..])));
                assert!(owner.incoming.peel(&mut cell[..]));
                assert_eq!(Cell::decode(&cell[..]).unwrap().data, [round]);
            }
        }
    }
}

/// A path may have one node only.
#[test]
fn a_path_without_hops_works() {
    let mut row = Row::new(2, 0);
    for owner_starts in [true, false] {
        let first: Frame;
        let (mut owner_tunnel, mut end_tunnel, mut outcome) = (None, None, Outcome::default());
        if owner_starts {
            first = Frame::Seed(row.owner.start(&mut row.rng, NOW).unwrap());
            let open = row.at_end(&first, &mut end_tunnel, &mut outcome).unwrap();
            let q = row.at_owner(&open, &mut owner_tunnel, &mut outcome).unwrap();
            let v = row.at_end(&q, &mut end_tunnel, &mut outcome).unwrap();
            assert_eq!(row.at_owner(&v, &mut owner_tunnel, &mut outcome), None);
        } else {
            first = Frame::Seed(row.end.start(&mut row.rng, NOW).unwrap());
            let open = row.at_owner(&first, &mut owner_tunnel, &mut outcome).unwrap();
            let q = row.at_end(&open, &mut end_tunnel, &mut outcome).unwrap();
            let v = row.at_owner(&q, &mut owner_tunnel, &mut outcome).unwrap();
            assert_eq!(row.at_end(&v, &mut end_tunnel, &mut outcome), None);
        }
        assert!(outcome.owner.is_some() && outcome.end.is_some());
    }
}
