//! Tunnels at the terminating node, which starts some of them and answers the others.

use rand::CryptoRng;

use super::{BLOCK_LEN, Block, Letter, Open, Seeds, TunnelError, check, proof, tunnel_id, tunnel_key};
use crate::cell::{Direction, Layer, TunnelKey};
use crate::crypto::PathSecret;
use crate::ident::TunnelId;

/// The terminating node of one path.
pub struct End {
    secret: PathSecret,
    seeds: Seeds<Block>,
}

/// A tunnel that is being confirmed.
pub struct EndTunnel {
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
        Self { secret, seeds: Seeds::default() }
    }

    /// Starts a tunnel: the seed to send on the standing connection.
    pub fn start(&mut self, rng: &mut dyn CryptoRng, now: u64) -> Result<Block, TunnelError> {
        self.seeds.has_room()?;
        let mut seed = [0; BLOCK_LEN];
        rng.fill_bytes(&mut seed);
        let id = self.seeds.first_sight(&seed)?;
        self.seeds.wait(now, id, seed);
        Ok(seed)
    }

    /// Answers the owner's seed with what goes on a new link.
    pub fn on_seed(&mut self, rng: &mut dyn CryptoRng, seed: &Block) -> Result<(EndTunnel, Open), TunnelError> {
        self.seeds.first_sight(seed)?;
        let mut r = [0; BLOCK_LEN];
        rng.fill_bytes(&mut r);
        let key = tunnel_key(&self.secret, seed, &r);
        let open = Open { id: tunnel_id(seed), r, p: proof(&key, Letter::P) };
        Ok((EndTunnel { key, starter: false }, open))
    }

    /// Takes the owner's answer to our seed; returns Q.
    pub fn on_tunnel(&mut self, id: TunnelId, r: &Block, p: &Block) -> Result<(EndTunnel, Block), TunnelError> {
        let seed = self.seeds.answered(id)?;
        let key = tunnel_key(&self.secret, &seed, r);
        check(&key, Letter::P, p)?;
        let q = proof(&key, Letter::Q);
        Ok((EndTunnel { key, starter: true }, q))
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
