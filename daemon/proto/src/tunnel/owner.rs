//! Tunnels at the owner, who knows every path secret and so recomputes what each hop saw.

use std::sync::Arc;

use rand::CryptoRng;

use super::{
    Letter, ONLY, Seeds, TunnelError, begun, check, passed, proof, random_block, tunnel_id, tunnel_key, tweak, wide_key,
};
use crate::cell::{Direction, OwnerCrypt, TunnelKey};
use crate::crypto::PathSecret;
use crate::crypto::wide::WideKey;
use crate::ident::PathId;
use crate::wire::frame::{Block, TunnelFrame};

/// The owner of one path.
pub struct Owner {
    hops: Arc<Hops>,
    seeds: Seeds<Block>,
}

/// What the owner knows of its hops, nearest first; the last is the terminating node, which passes nothing on.
struct Hops {
    secrets: Vec<PathSecret>,
    wides: Vec<WideKey>,
    /// The owner's own segment first.
    segments: Vec<PathId>,
}

/// A tunnel's name as each hop, nearest first, had it on the starter's side; for a seed, the segment there.
type Names = Vec<[u8; 16]>;

/// A tunnel that is being confirmed.
pub struct OwnerTunnel {
    hops: Arc<Hops>,
    names: Names,
    keys: Vec<TunnelKey>,
    starter: bool,
}

/// The owner's side of a tunnel's layers.
#[derive(Debug)]
pub struct OwnerLayers {
    /// For cells from the terminating node.
    pub incoming: OwnerCrypt,
    /// For cells to the terminating node.
    pub outgoing: OwnerCrypt,
}

impl Owner {
    /// The owner of the path with these hops, nearest first, at least one: the secret of each, and the segment between it and who
    /// is nearer to the owner.
    pub fn new(hops: Vec<(PathSecret, PathId)>) -> Self {
        let (secrets, segments): (Vec<_>, Vec<_>) = hops.into_iter().unzip();
        let middle = secrets.len().saturating_sub(1);
        let wides = secrets[..middle].iter().map(wide_key).collect();
        Self { hops: Arc::new(Hops { secrets, wides, segments }), seeds: Seeds::default() }
    }

    /// Starts a tunnel: the seed to send on the standing connection. `now` in milliseconds.
    pub fn start(&mut self, rng: &mut dyn CryptoRng, now: u64) -> Result<Block, TunnelError> {
        let (id, seed) = self.seeds.draw(rng, begun(&self.hops))?;
        self.seeds.wait(now, id, seed);
        Ok(seed)
    }

    /// Answers the terminating node's seed with what goes on a new link.
    pub fn on_seed(
        &mut self,
        rng: &mut dyn CryptoRng,
        seed: &Block,
    ) -> Result<(OwnerTunnel, TunnelFrame), TunnelError> {
        let id = self.seeds.first_sight(begun(&self.hops), ONLY, seed)?;
        let r = random_block(rng);
        let seeds = self.hops.inward(Letter::S, &self.hops.outer(), seed);
        let names = self.hops.names(&seeds);
        let rs = self.hops.outward(Letter::R, &names, &r);
        let keys = self.hops.keys(&seeds, &rs);
        let tunnel = OwnerTunnel { hops: self.hops.clone(), names, keys, starter: false };
        let frame = TunnelFrame { id, r, p: tunnel.prove(Letter::P) };
        Ok((tunnel, frame))
    }

    /// Takes the terminating node's answer to our seed; returns Q.
    pub fn on_tunnel(&mut self, frame: &TunnelFrame) -> Result<(OwnerTunnel, Block), TunnelError> {
        let seed = self.seeds.answered(frame.id)?;
        let seeds = self.hops.outward(Letter::S, &self.hops.inner(), &seed);
        let names = self.hops.names(&seeds);
        let rs = self.hops.inward(Letter::R, &names, &frame.r);
        let keys = self.hops.keys(&seeds, &rs);
        let tunnel = OwnerTunnel { hops: self.hops.clone(), names, keys, starter: true };
        tunnel.check(Letter::P, &frame.p)?;
        let q = tunnel.prove(Letter::Q);
        Ok((tunnel, q))
    }

    /// Forgets seeds that were not answered in time. `now` in milliseconds.
    pub fn expire(&mut self, now: u64) {
        self.seeds.expire(now);
    }
}

impl Hops {
    /// The segment of each hop on the owner's side.
    fn inner(&self) -> Names {
        self.segments[..self.wides.len()].iter().map(|segment| segment.0).collect()
    }

    /// The segment of each hop on the other side.
    fn outer(&self) -> Names {
        self.segments[1..].iter().map(|segment| segment.0).collect()
    }

    /// From the seed as each hop received it.
    fn names(&self, seeds: &[Block]) -> Names {
        seeds[..self.wides.len()].iter().map(|seed| tunnel_id(seed).0).collect()
    }

    /// A block that we send, as each hop receives it.
    fn outward(&self, letter: Letter, names: &Names, sent: &Block) -> Vec<Block> {
        let mut block = *sent;
        let mut views = vec![block];
        for (wide, name) in self.wides.iter().zip(names) {
            block = passed(wide, tweak(letter, name), &block);
            views.push(block);
        }
        views
    }

    /// A block that we received, as each hop received it; for the terminating node, as it sent it.
    fn inward(&self, letter: Letter, names: &Names, received: &Block) -> Vec<Block> {
        let mut block = *received;
        let mut views = Vec::with_capacity(self.secrets.len());
        for (wide, name) in self.wides.iter().zip(names) {
            wide.decipher(&tweak(letter, name), &mut block);
            views.push(block);
        }
        views.push(block);
        views
    }

    fn keys(&self, seeds: &[Block], rs: &[Block]) -> Vec<TunnelKey> {
        self.secrets.iter().zip(seeds).zip(rs).map(|((secret, seed), r)| tunnel_key(secret, seed, r)).collect()
    }
}

impl OwnerTunnel {
    /// Takes Q (and returns V to send) or V; then the tunnel stands.
    pub fn confirm(self, block: &Block) -> Result<(Option<Block>, OwnerLayers), TunnelError> {
        let (expected, incoming, answer) = if self.starter {
            (Letter::V, Direction::Backward, None)
        } else {
            (Letter::Q, Direction::Onward, Some(self.prove(Letter::V)))
        };
        self.check(expected, block)?;
        let layers = OwnerLayers {
            incoming: OwnerCrypt::new(&self.keys, incoming),
            outgoing: OwnerCrypt::new(&self.keys, incoming.reverse()),
        };
        Ok((answer, layers))
    }

    /// The proof as we send it, so that the hops' work makes it right at the terminating node.
    // protocol: T8
    fn prove(&self, letter: Letter) -> Block {
        let mut block = proof(self.end_key(), letter);
        for (wide, name) in self.hops.wides.iter().zip(&self.names).rev() {
            wide.decipher(&tweak(letter, name), &mut block);
        }
        block
    }

    fn check(&self, letter: Letter, received: &Block) -> Result<(), TunnelError> {
        let views = self.hops.inward(letter, &self.names, received);
        check(self.end_key(), letter, &views[views.len() - 1])
    }

    fn end_key(&self) -> &TunnelKey {
        &self.keys[self.keys.len() - 1]
    }
}
