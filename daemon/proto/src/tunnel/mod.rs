//! Routing tunnels: their set-up at a hop, at the terminating node and at the owner (docs/protocol.md, section "Tunnels").
//!
//! ```text
//!   starter                 hops                    far end
//!     S  ───── standing connections ─────────────▶
//!        ◀──── new link per segment: id, R, P ─────
//!     Q  ───── on the new links ─────────────────▶
//!        ◀────────────────────────────────────── V
//! ```
//!
//! Either end of a path may be the starter; a hop sees the same in both cases. Nothing is searched: the owner knows all path
//! secrets and recomputes what every hop saw.
//!
//! [`Owner`], [`Hop`] and [`End`] live as long as the path; call their `expire` about once a second. What they return on the way
//! ([`OwnerTunnel`], [`HopTunnel`], [`EndTunnel`]) is to be dropped after 10 s: until then it counts against a bound. An error
//! is answered by silence.

mod end;
mod hop;
mod owner;

pub use end::{End, EndLayers, EndTunnel};
pub use hop::{Hop, HopTunnel, Layers, Side};
pub use owner::{Owner, OwnerLayers, OwnerTunnel};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::cell::TunnelKey;
use crate::crypto::hash::{derive_into, same};
use crate::crypto::wide::WideKey;
use crate::crypto::{PathSecret, derive};
use crate::ident::TunnelId;
use crate::wire::frame::{BLOCK_LEN, Block};

/// Tunnels of one path that are being set up at once, whether they wait for their answer or for their proofs. An end keeps a handful
/// ready; more would only serve a neighbour that floods us.
// protocol: T11
const MAX_PENDING: usize = 32;

/// How long an answer may take, in milliseconds.
const ANSWER_LIMIT: u64 = 10_000;

/// Seeds remembered per path against replay: 18 tunnels a second for an hour, in one MiB. They must not be forgotten while the path
/// lives, since what a hop makes of a block depends on nothing else that is new. A path that has used them up takes no more
/// tunnels; its owner builds another.
// protocol: T12
const MAX_SEEDS: usize = 65_536;

/// The side of an end, which has one.
const ONLY: Side = Side::A;

/// Why a block is dropped, in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The seed was here before.
    #[error("replayed seed")]
    Replay,
    /// No tunnel of this name waits for an answer here.
    #[error("unknown tunnel")]
    Unknown,
    /// The proof is wrong: a block was changed, or the sender is not who it should be.
    #[error("wrong proof")]
    Proof,
    /// Too many tunnels wait.
    #[error("too many tunnels at once")]
    Full,
    /// The block does not fit the state of the tunnel.
    #[error("block out of order")]
    Order,
}

/// The tunnel's name on the segment on which `seed` was sent.
// protocol: T5
pub fn tunnel_id(seed: &Block) -> TunnelId {
    let hash = derive("phantom v1 tunnel id", &[seed]);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    TunnelId(id)
}

/// The letters of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    S = b'S' as isize,
    R = b'R' as isize,
    P = b'P' as isize,
    Q = b'Q' as isize,
    V = b'V' as isize,
}

/// The tweak under which a hop passes a block on. `name` is the tunnel's on the segment from which the hop had the seed; for the seed
/// itself, which no tunnel can have a name before, that segment's own.
///
/// It makes every block's passage its own: without it, a hop that sends equal blocks in two tunnels would be recognized by them
/// beyond an honest hop, and so would two hops, one on each side, that send an equal seed. From one side a seed is passed once only.
// protocol: T2
fn tweak(letter: Letter, name: &[u8; 16]) -> [u8; 16] {
    let mut tweak = [0; 16];
    tweak[0] = letter as u8;
    tweak[1..].copy_from_slice(&name[..15]);
    tweak
}

fn wide_key(secret: &PathSecret) -> WideKey {
    WideKey::new(&Zeroizing::new(derive("phantom v1 path blocks", &[&*secret.0])))
}

fn passed(wide: &WideKey, tweak: [u8; 16], block: &Block) -> Block {
    let mut block = *block;
    wide.encipher(&tweak, &mut block);
    block
}

// protocol: T6
fn tunnel_key(secret: &PathSecret, seed: &Block, r: &Block) -> TunnelKey {
    TunnelKey(Zeroizing::new(derive("phantom v1 tunnel key", &[&*secret.0, seed, r])))
}

/// The proof block of a letter under the terminating node's tunnel key.
// protocol: T7
fn proof(key: &TunnelKey, letter: Letter) -> Block {
    let mut block = [0; BLOCK_LEN];
    derive_into("phantom v1 tunnel proof", &[&*key.0, &[letter as u8]], &mut block);
    block
}

fn check(key: &TunnelKey, letter: Letter, block: &Block) -> Result<(), TunnelError> {
    if same(&proof(key, letter), block) { Ok(()) } else { Err(TunnelError::Proof) }
}

/// Seeds that wait for their TUNNEL, and those that were ever seen.
struct Seeds<T> {
    waiting: BTreeMap<TunnelId, (u64, T)>,
    /// The side that they came from, and the first half of their names: two random ones that agree cost one tunnel, once in ages.
    seen: BTreeSet<(Side, [u8; 8])>,
}

impl<T> Default for Seeds<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), seen: BTreeSet::new() }
    }
}

impl<T> Seeds<T> {
    /// Notes a seed that must never come again from this side and returns its name. `begun`: tunnels that wait for proofs.
    // protocol: T3, T9, Y1
    fn first_sight(&mut self, begun: usize, from: Side, seed: &Block) -> Result<TunnelId, TunnelError> {
        if self.waiting.len() + begun >= MAX_PENDING || self.seen.len() >= MAX_SEEDS {
            return Err(TunnelError::Full);
        }
        let id = tunnel_id(seed);
        let mut half = [0; 8];
        half.copy_from_slice(&id.0[..8]);
        if self.seen.insert((from, half)) { Ok(id) } else { Err(TunnelError::Replay) }
    }

    /// A new seed of our own.
    fn draw(&mut self, rng: &mut dyn CryptoRng, begun: usize) -> Result<(TunnelId, Block), TunnelError> {
        let seed = random_block(rng);
        Ok((self.first_sight(begun, ONLY, &seed)?, seed))
    }

    fn wait(&mut self, now: u64, id: TunnelId, value: T) {
        self.waiting.insert(id, (now, value));
    }

    fn waits(&self, id: TunnelId) -> Option<&T> {
        self.waiting.get(&id).map(|(_, value)| value)
    }

    fn answered(&mut self, id: TunnelId) -> Result<T, TunnelError> {
        self.waiting.remove(&id).map(|(_, value)| value).ok_or(TunnelError::Unknown)
    }

    fn expire(&mut self, now: u64) {
        self.waiting.retain(|_, (since, _)| now <= since.saturating_add(ANSWER_LIMIT));
    }
}

fn random_block(rng: &mut dyn CryptoRng) -> Block {
    let mut block = [0; BLOCK_LEN];
    rng.fill_bytes(&mut block);
    block
}

/// How many others hold what `shared` holds: every tunnel that waits for a proof keeps a share of its path.
fn begun<T>(shared: &Arc<T>) -> usize {
    Arc::strong_count(shared) - 1
}

#[cfg(test)]
mod tests;
