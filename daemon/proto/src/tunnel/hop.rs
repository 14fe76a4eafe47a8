//! Tunnels at a middle hop: blocks pass through it; it ends up with two layers and no idea of who owns the path.

use std::sync::Arc;

use super::{Letter, Seeds, TunnelError, begun, passed, tunnel_id, tunnel_key, tweak, wide_key};
use crate::cell::{Direction, Layer, TunnelKey};
use crate::crypto::PathSecret;
use crate::crypto::wide::WideKey;
use crate::ident::{PathId, TunnelId};
use crate::wire::frame::{Block, TunnelFrame};

/// One of a hop's two neighbours on a path. Which is which has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// One.
    A,
    /// The other.
    B,
}

/// The layers of a tunnel at a hop.
#[derive(Debug)]
pub struct Layers {
    /// For cells from side A to side B.
    pub a_to_b: Layer,
    /// For cells from side B to side A.
    pub b_to_a: Layer,
}

/// A middle hop of one path.
pub struct Hop {
    secret: PathSecret,
    wide: Arc<WideKey>,
    /// At side A and at side B.
    segments: [PathId; 2],
    seeds: Seeds<Passed>,
}

/// A seed that went through.
struct Passed {
    from: Side,
    seed: Block,
}

/// A tunnel that is being confirmed.
pub struct HopTunnel {
    wide: Arc<WideKey>,
    key: TunnelKey,
    /// The tunnel's name on the starter's side.
    name: TunnelId,
    starter: Side,
    waits_for: Option<Letter>,
}

impl Hop {
    /// The hop that shares `secret` with the path's owner, between these segments: at side A and at side B.
    pub fn new(secret: PathSecret, segments: [PathId; 2]) -> Self {
        Self { wide: Arc::new(wide_key(&secret)), secret, segments, seeds: Seeds::default() }
    }

    /// Takes a seed from one side and returns it as it goes on to the other. `now` in milliseconds.
    pub fn seed(&mut self, now: u64, from: Side, seed: &Block) -> Result<Block, TunnelError> {
        self.seeds.first_sight(begun(&self.wide), from, seed)?;
        let [a, b] = &self.segments;
        let PathId(segment) = if from == Side::A { a } else { b };
        let onward = passed(&self.wide, tweak(Letter::S, segment), seed);
        self.seeds.wait(now, tunnel_id(&onward), Passed { from, seed: *seed });
        Ok(onward)
    }

    /// Takes the TUNNEL of a new link from one side; returns what goes on a new link to the other.
    // protocol: T10, F7
    pub fn tunnel(&mut self, from: Side, frame: &TunnelFrame) -> Result<(HopTunnel, TunnelFrame), TunnelError> {
        if self.seeds.waits(frame.id).is_some_and(|passed| passed.from == from) {
            return Err(TunnelError::Order);
        }
        let Passed { from: starter, seed } = self.seeds.answered(frame.id)?;
        let name = tunnel_id(&seed);
        let onward = |letter, block| passed(&self.wide, tweak(letter, &name.0), block);
        let passed = TunnelFrame { id: name, r: onward(Letter::R, &frame.r), p: onward(Letter::P, &frame.p) };
        let key = tunnel_key(&self.secret, &seed, &frame.r);
        Ok((HopTunnel { wide: self.wide.clone(), key, name, starter, waits_for: Some(Letter::Q) }, passed))
    }

    /// Forgets seeds that were not answered in time. `now` in milliseconds.
    pub fn expire(&mut self, now: u64) {
        self.seeds.expire(now);
    }
}

impl HopTunnel {
    /// Passes Q, then V, each once; with V the tunnel stands.
    // protocol: T10
    pub fn confirm(&mut self, from: Side, block: &Block) -> Result<(Block, Option<Layers>), TunnelError> {
        let letter = match (self.waits_for, from == self.starter) {
            (Some(Letter::Q), true) => Letter::Q,
            (Some(Letter::V), false) => Letter::V,
            _ => return Err(TunnelError::Order),
        };
        self.waits_for = (letter == Letter::Q).then_some(Letter::V);
        let onward = passed(&self.wide, tweak(letter, &self.name.0), block);
        Ok((onward, (letter == Letter::V).then(|| self.layers())))
    }

    fn layers(&self) -> Layers {
        let (a_to_b, b_to_a) = match self.starter {
            Side::A => (Direction::Onward, Direction::Backward),
            Side::B => (Direction::Backward, Direction::Onward),
        };
        Layers { a_to_b: Layer::new(&self.key, a_to_b), b_to_a: Layer::new(&self.key, b_to_a) }
    }
}
