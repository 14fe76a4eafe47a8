//! Owner, hops and end in a row, frames between them in memory; whoever starts, and whatever an attacker changes.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::cell::{CELL_LEN, Cell, CellKind};

const NOW: u64 = 1_000;

/// What travels between two neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    Seed(Block),
    Tunnel(Open),
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
        let owner = Owner::new(secrets.clone());
        let end = End::new(secrets.pop().unwrap());
        Self { rng: StdRng::seed_from_u64(seed.into()), owner, hops: secrets.into_iter().map(Hop::new).collect(), end }
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
                let (begun, q) = self.owner.on_tunnel(open.id, &open.r, &open.p).ok()?;
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
                let (begun, q) = self.end.on_tunnel(open.id, &open.r, &open.p).ok()?;
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
            let (begun, next) = hop.tunnel(from, open.id, &open.r, &open.p).ok()?;
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

/// I1, M2: kinds, lengths, order and sides are the same at every place and whoever starts, but for which side the starter is on.
#[test]
fn hops_cannot_tell_who_started_or_where_they_are() {
    let mut all = HashSet::new();
    for hops in 1..=4 {
        for owner_starts in [true, false] {
            let outcome = Row::new(3, hops).set_up(owner_starts);
            for mut sights in outcome.sights {
                if !owner_starts {
                    sights.iter_mut().for_each(|sight| sight.side = other(sight.side));
                }
                all.insert(sights);
            }
        }
    }
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all.iter().next().unwrap().len(), 8);
}

/// I3: any changed bit of anything at any place: the end that must notice says nothing more, and no tunnel stands at the starter.
#[test]
fn a_changed_bit_stops_the_tunnel() {
    let flip = |owner_starts: bool, kind: char, from: Side, at_place: usize, bit: usize| {
        let mut row = Row::new(4, 3);
        row.set_up_under(owner_starts, |place, side, frame| {
            if place == at_place && side == from && sight(frame, side, true).kind == kind {
                *frame.byte_mut(bit / 8) ^= 1 << (bit % 8);
            }
        })
    };
    for owner_starts in [true, false] {
        let starter = if owner_starts { Side::A } else { Side::B };
        let places = |from: Side| if from == Side::A { 1..=4 } else { 0..=3 };
        for (kind, from, bits) in
            [('S', starter, 512), ('T', other(starter), 1152), ('C', starter, 512), ('C', other(starter), 512)]
        {
            for place in places(from) {
                for bit in (0..bits).step_by(29) {
                    let outcome = flip(owner_starts, kind, from, place, bit);
                    let here = if owner_starts { outcome.owner.is_some() } else { outcome.end.is_some() };
                    assert!(!here, "{owner_starts} {kind} {place} {bit}");
                    // The starter sends S and Q, the far end R with P, and V.
                    let expected = match (kind, from == starter) {
                        ('S' | 'T', _) => [1, 1],
                        (_, true) => [2, 1],
                        (_, false) => [2, 2],
                    };
                    let sent = if owner_starts { outcome.sent } else { [outcome.sent[1], outcome.sent[0]] };
                    // A changed seed or tunnel id dies at a hop or at the first proof.
                    assert!(sent[0] <= expected[0] && sent[1] <= expected[1], "{kind} {place} {bit}: {sent:?}");
                }
            }
        }
    }
}

/// I2: hops that are not adjacent share no eight bytes, over many tunnels of one path.
#[test]
fn hops_that_are_not_adjacent_see_nothing_in_common() {
    let mut row = Row::new(5, 4);
    let mut seen = vec![Vec::new(); 4];
    for run in 0..100 {
        let outcome = row.set_up(run % 2 == 0);
        outcome.seen.into_iter().zip(&mut seen).for_each(|(new, all)| all.extend(new));
    }
    let windows: Vec<_> = seen.iter().map(|frames| windows(frames)).collect();
    for one in 0..4 {
        for two in one + 1..4 {
            assert_eq!(windows[one].is_disjoint(&windows[two]), two - one > 1, "{one} {two}");
        }
    }
}

/// I2: hops 1 and 3 collude; one of them sends what it likes, also the same in every tunnel, and the other looks for traces of it,
/// also for repetitions. Between them is one honest hop.
#[test]
fn what_a_hop_injects_leaves_no_trace_beyond_an_honest_hop() {
    for owner_starts in [true, false] {
        for (injector_side, colluder) in [(Side::A, 2), (Side::B, 0)] {
            let starts = owner_starts == (injector_side == Side::A);
            // What the injector passes towards the honest hop: S and Q, or R with P and V.
            for kind in if starts { ['S', 'C'] } else { ['T', 'C'] } {
                inject(owner_starts, injector_side, colluder, kind);
            }
        }
    }
}

fn inject(owner_starts: bool, injector_side: Side, colluder: usize, kind: char) {
    let mut row = Row::new(6, 3);
    let mut injected = HashSet::new();
    let mut earlier: HashSet<[u8; 8]> = HashSet::new();
    for run in 0..50 {
        row.expire();
        let outcome = row.set_up_under(owner_starts, |place, from, frame| {
            if place == 2 && from == injector_side && sight(frame, from, true).kind == kind {
                match frame {
                    // Honest hops pass no seed twice, hence the first eight bytes differ.
                    Frame::Seed(seed) => seed[8..].fill(7),
                    Frame::Tunnel(open) => (open.r, open.p) = ([7; BLOCK_LEN], [9; BLOCK_LEN]),
                    Frame::Confirm(block) => *block = [11; BLOCK_LEN],
                }
                injected.extend(windows(std::slice::from_ref(frame)));
            }
        });
        let from_middle: Vec<_> = (outcome.seen[colluder].iter().zip(&outcome.sights[colluder]))
            .filter(|(_, sight)| sight.arrived && sight.side == injector_side && sight.kind == kind)
            .map(|(frame, _)| frame.clone())
            .collect();
        assert_eq!(from_middle.len(), 1, "{kind}: the honest hop passes what it cannot check");
        let new = windows(&from_middle);
        assert!(new.is_disjoint(&injected), "{kind} {run}: the honest hop let something through");
        assert!(new.is_disjoint(&earlier), "{kind} {run}: two tunnels of one path can be linked");
        earlier.extend(new);
    }
}

/// I5: replayed blocks create no state and get no answer.
#[test]
fn replays_are_dropped() {
    let mut row = Row::new(7, 2);
    let seed = row.owner.start(&mut row.rng, NOW).unwrap();
    let second = row.hops[0].seed(NOW, Side::A, &seed).unwrap();
    for side in [Side::A, Side::B] {
        assert_eq!(row.hops[0].seed(NOW, side, &seed), Err(TunnelError::Replay));
    }
    let third = row.hops[1].seed(NOW, Side::A, &second).unwrap();
    let (end_tunnel, open) = row.end.on_seed(&mut row.rng, &third).unwrap();
    assert!(matches!(row.end.on_seed(&mut row.rng, &third), Err(TunnelError::Replay)));
    let (mut outer, open) = row.hops[1].tunnel(Side::B, open.id, &open.r, &open.p).unwrap();
    let again = row.hops[0].tunnel(Side::B, open.id, &open.r, &open.p);
    let (mut inner, last) = again.unwrap();
    assert!(matches!(row.hops[0].tunnel(Side::B, open.id, &open.r, &open.p), Err(TunnelError::Unknown)));
    let (owner_tunnel, q) = row.owner.on_tunnel(last.id, &last.r, &last.p).unwrap();
    assert!(matches!(row.owner.on_tunnel(last.id, &last.r, &last.p), Err(TunnelError::Unknown)));
    let (q2, _) = inner.confirm(Side::A, &q).unwrap();
    assert_eq!(inner.confirm(Side::A, &q).map(|_| ()), Err(TunnelError::Order));
    let (q3, _) = outer.confirm(Side::A, &q2).unwrap();
    let v = end_tunnel.confirm(&q3).unwrap().0.unwrap();
    let (v2, layers) = outer.confirm(Side::B, &v).unwrap();
    assert!(layers.is_some());
    for side in [Side::A, Side::B] {
        assert_eq!(outer.confirm(side, &v).map(|_| ()), Err(TunnelError::Order), "V again");
    }
    let (v3, _) = inner.confirm(Side::B, &v2).unwrap();
    assert!(owner_tunnel.confirm(&v3).is_ok());
}

#[test]
fn blocks_out_of_order_are_dropped() {
    let mut row = Row::new(8, 1);
    let seed = row.owner.start(&mut row.rng, NOW).unwrap();
    let onward = row.hops[0].seed(NOW, Side::A, &seed).unwrap();
    let (_, open) = row.end.on_seed(&mut row.rng, &onward).unwrap();
    // From the seed's own side: not an answer. It spoils nothing.
    assert!(matches!(row.hops[0].tunnel(Side::A, open.id, &open.r, &open.p), Err(TunnelError::Order)));
    let (mut tunnel, _) = row.hops[0].tunnel(Side::B, open.id, &open.r, &open.p).unwrap();
    assert_eq!(tunnel.confirm(Side::B, &[0; BLOCK_LEN]).map(|_| ()), Err(TunnelError::Order));
    assert!(tunnel.confirm(Side::A, &[0; BLOCK_LEN]).is_ok());
}

fn random(rng: &mut StdRng) -> Block {
    let mut block = [0; BLOCK_LEN];
    rng.fill_bytes(&mut block);
    block
}

/// I7: a neighbour that floods seeds costs a bounded number of entries, and they go away.
#[test]
fn seeds_that_wait_are_bounded_and_expire() {
    let mut row = Row::new(9, 1);
    let mut flood =
        |hop: &mut Hop, now| (0..100).filter(|_| hop.seed(now, Side::A, &random(&mut row.rng)).is_ok()).count();
    assert_eq!(flood(&mut row.hops[0], NOW), MAX_PENDING);
    row.hops[0].expire(NOW + ANSWER_LIMIT);
    assert_eq!(flood(&mut row.hops[0], NOW), 0);
    row.hops[0].expire(NOW + ANSWER_LIMIT + 1);
    assert_eq!(flood(&mut row.hops[0], NOW + ANSWER_LIMIT + 1), MAX_PENDING);
}

/// I7: so are tunnels that were answered and are not confirmed: each costs its node a link.
#[test]
fn tunnels_that_are_being_confirmed_are_bounded() {
    let mut row = Row::new(10, 1);
    let mut begun = Vec::new();
    for _ in 0..100 {
        let seed = random(&mut row.rng);
        begun.extend(row.end.on_seed(&mut row.rng, &seed).ok());
    }
    assert_eq!(begun.len(), MAX_PENDING);
    assert_eq!(row.end.start(&mut row.rng, NOW), Err(TunnelError::Full));
    begun.clear();
    assert!(row.end.start(&mut row.rng, NOW).is_ok());

    let mut begun = Vec::new();
    for _ in 0..100 {
        let seed = random(&mut row.rng);
        begun.extend(row.owner.on_seed(&mut row.rng, &seed).ok());
    }
    assert_eq!(begun.len(), MAX_PENDING);

    let mut begun = Vec::new();
    for _ in 0..100 {
        if let Ok(onward) = row.hops[0].seed(NOW, Side::A, &random(&mut row.rng)) {
            begun.extend(row.hops[0].tunnel(Side::B, tunnel_id(&onward), &[0; BLOCK_LEN], &[0; BLOCK_LEN]).ok());
        }
    }
    assert_eq!(begun.len(), MAX_PENDING);
}

/// I7: the memory of seeds is bounded; a path that has used it up takes no more tunnels, and still no replay.
#[test]
fn the_memory_of_seeds_is_bounded() {
    let mut row = Row::new(11, 1);
    let mut first = [0; BLOCK_LEN];
    first[0] = 1;
    assert!(row.hops[0].seed(NOW, Side::A, &first).is_ok());
    let mut taken = 1;
    for number in 0..MAX_SEEDS as u64 + 100 {
        let mut seed = [3; BLOCK_LEN];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        row.hops[0].expire(u64::MAX);
        taken += usize::from(row.hops[0].seed(NOW, Side::A, &seed).is_ok());
    }
    assert_eq!(taken, MAX_SEEDS);
    assert!(row.hops[0].seed(NOW, Side::A, &first).is_err());
}

/// Gives one string of bytes out, and nothing after it.
struct Given(VecDeque<u8>);

impl rand::TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unimplemented!("blocks are filled at once")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unimplemented!("blocks are filled at once")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.iter_mut().for_each(|byte| *byte = self.0.pop_front().unwrap());
        Ok(())
    }
}

impl rand::TryCryptoRng for Given {}

/// Vectors of scripts/vectors/tunnel.py, which computes them from the text with other libraries.
#[test]
fn independently_computed_vectors() {
    let lines: Vec<Vec<&str>> =
        include_str!("../../vectors/tunnel.txt").lines().map(|l| l.split(' ').collect()).collect();
    let values = |starter: &str, name: &str| -> Vec<Vec<u8>> {
        let line = lines.iter().find(|line| line[0] == starter && line[1] == name).unwrap();
        line[2..].iter().map(|value| hex::decode(value).unwrap()).collect()
    };
    let at = |starter: &str, name: &str, segment: usize| -> Block {
        values(starter, name)[segment].clone().try_into().unwrap()
    };
    for starter in ["owner", "end"] {
        let secrets: Vec<_> = (1..=3).map(|n| PathSecret(Zeroizing::new([n; 32]))).collect();
        let mut owner = Owner::new(secrets.clone());
        let mut end = End::new(secrets[2].clone());
        // The owner is on segment 0, the end on segment 2.
        let (here, there) = if starter == "owner" { (0, 2) } else { (2, 0) };
        let mut rng = Given([at(starter, "S", here), at(starter, "R", there)].concat().into());
        let (q, v) = if starter == "owner" {
            assert_eq!(owner.start(&mut rng, NOW), Ok(at(starter, "S", 0)));
            let (tunnel, open) = end.on_seed(&mut rng, &at(starter, "S", 2)).unwrap();
            assert_eq!(
                (open.id.0.to_vec(), open.r, open.p),
                (values(starter, "id")[2].clone(), at(starter, "R", 2), at(starter, "P", 2))
            );
            let id = TunnelId(values(starter, "id")[0].clone().try_into().unwrap());
            let (_, q) = owner.on_tunnel(id, &at(starter, "R", 0), &at(starter, "P", 0)).unwrap();
            (q, tunnel.confirm(&at(starter, "Q", 2)).unwrap().0.unwrap())
        } else {
            assert_eq!(end.start(&mut rng, NOW), Ok(at(starter, "S", 2)));
            let (tunnel, open) = owner.on_seed(&mut rng, &at(starter, "S", 0)).unwrap();
            assert_eq!(
                (open.id.0.to_vec(), open.r, open.p),
                (values(starter, "id")[0].clone(), at(starter, "R", 0), at(starter, "P", 0))
            );
            let id = TunnelId(values(starter, "id")[2].clone().try_into().unwrap());
            let (_, q) = end.on_tunnel(id, &at(starter, "R", 2), &at(starter, "P", 2)).unwrap();
            (q, tunnel.confirm(&at(starter, "Q", 0)).unwrap().0.unwrap())
        };
        assert_eq!((q, v), (at(starter, "Q", here), at(starter, "V", there)));
        for (number, secret) in secrets[..2].iter().enumerate() {
            let near = number + usize::from(starter == "end");
            let (near, far) = if starter == "owner" { (near, near + 1) } else { (near, near - 1) };
            let mut hop = Hop::new(secret.clone());
            assert_eq!(hop.seed(NOW, Side::A, &at(starter, "S", near)), Ok(at(starter, "S", far)));
            let id = TunnelId(values(starter, "id")[far].clone().try_into().unwrap());
            let (mut tunnel, open) = hop.tunnel(Side::B, id, &at(starter, "R", far), &at(starter, "P", far)).unwrap();
            assert_eq!((open.r, open.p), (at(starter, "R", near), at(starter, "P", near)));
            let key = tunnel_key(secret, &at(starter, "S", near), &at(starter, "R", far));
            assert_eq!(key.0.to_vec(), values(starter, "key")[number]);
            assert_eq!(tunnel.confirm(Side::A, &at(starter, "Q", near)).unwrap().0, at(starter, "Q", far));
            assert_eq!(tunnel.confirm(Side::B, &at(starter, "V", far)).unwrap().0, at(starter, "V", near));
        }
    }
}

proptest! {
    /// Whatever arrives in whatever order: no panic, and never a tunnel.
    #[test]
    fn any_blocks_are_taken(frames in prop::collection::vec((0u8..3, any::<bool>(), any::<[u8; 32]>()), 0..50)) {
        let mut row = Row::new(12, 1);
        let mut outcome = Outcome::default();
        let (mut owner_tunnel, mut end_tunnel, mut hop_tunnel, mut layers) = (None, None, None, None);
        for (kind, side, bytes) in frames {
            let block = [bytes, bytes].concat().try_into().unwrap();
            let frame = match kind {
                0 => Frame::Seed(block),
                1 => Frame::Tunnel(Open { id: tunnel_id(&block), r: block, p: block }),
                _ => Frame::Confirm(block),
            };
            row.at_owner(&frame, &mut owner_tunnel, &mut outcome);
            row.at_end(&frame, &mut end_tunnel, &mut outcome);
            let side = if side { Side::A } else { Side::B };
            at_hop(&mut row.hops[0], side, &frame, &mut hop_tunnel, &mut layers);
        }
        prop_assert!(outcome.owner.is_none() && outcome.end.is_none());
    }
}
