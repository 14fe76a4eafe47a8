//! Tunnels at the terminating node, which starts some of them and answers the others.

use std::sync::Arc;

use rand::CryptoRng;

use super::{Letter, ONLY, Seeds, TunnelError, begun, check, proof, random_block, tunnel_key};
use crate::cell::{Direction, Layer, TunnelKey};
use crate::crypto::PathSecret;
use crate::wire::frame::{Block, TunnelFrame};

/// The terminating node of one path.
pub struct End {
    secret: Arc<PathSecret>,
    seeds: Seeds<Block>,
}

/// A tunnel that is being confirmed.
pub struct EndTunnel {
    /// Counts this tunnel as one that is being confirmed.
    _path: Arc<PathSecret>,
    key: TunnelKey,
    starter: bool,
}

/// The layers of a tunnel at its terminating node; both encipher.
#[derive(Debug)]
pub struct EndLayers {
    /// For cells from the owner.
    pub incoming: Layer,
    /// For cells to the owner.
    pub outgoing: Layer,
}

impl End {
    /// The terminating node that shares `secret` with the path's owner.
    pub fn new(secret: PathSecret) -> Self {
        Self { secret: Arc::new(secret), seeds: Seeds::default() }
    }

    /// Starts a tunnel: the seed to send on the standing connection. `now` in milliseconds.
    pub fn start(&mut self, rng: &mut dyn CryptoRng, now: u64) -> Result<Block, TunnelError> {
        let (id, seed) = self.seeds.draw(rng, begun(&self.secret))?;
        self.seeds.wait(now, id, seed);
        Ok(seed)
    }

    /// Answers the owner's seed with what goes on a new link.
    // protocol: T4
    pub fn on_seed(&mut self, rng: &mut dyn CryptoRng, seed: &Block) -> Result<(EndTunnel, TunnelFrame), TunnelError> {
        let id = self.seeds.first_sight(begun(&self.secret), ONLY, seed)?;
        let r = random_block(rng);
        let key = tunnel_key(&self.secret, seed, &r);
        let frame = TunnelFrame { id, r, p: proof(&key, Letter::P) };
        Ok((EndTunnel { _path: self.secret.clone(), key, starter: false }, frame))
    }

    /// Takes the owner's answer to our seed; returns Q.
    pub fn on_tunnel(&mut self, frame: &TunnelFrame) -> Result<(EndTunnel, Block), TunnelError> {
        let seed = self.seeds.answered(frame.id)?;
        let key = tunnel_key(&self.secret, &seed, &frame.r);
        check(&key, Letter::P, &frame.p)?;
        let q = proof(&key, Letter::Q);
        Ok((EndTunnel { _path: self.secret.clone(), key, starter: true }, q))
    }

    /// Forgets seeds that were not answered in time. `now` in milliseconds.
    pub fn expire(&mut self, now: u64) {
        self.seeds.expire(now);
    }
}

impl EndTunnel {
    /// Takes Q (and returns V to send) or V; then the tunnel stands.
    pub fn confirm(self, block: &Block) -> Result<(Option<Block>, EndLayers), TunnelError> {
        let (expected, incoming, answer) = if self.starter {
            (Letter::V, Direction::Backward, None)
        } else {
            (Letter::Q, Direction::Onward, Some(proof(&self.key, Letter::V)))
        };
        check(&self.key, expected, block)?;
        let layers = EndLayers {
            incoming: Layer::new(&self.key, incoming),
            outgoing: Layer::new(&self.key, incoming.reverse()),
        };
        Ok((answer, layers))
    }
}
