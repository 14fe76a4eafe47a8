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

mod end;
mod hop;
mod owner;

pub use end::{End, EndLayers, EndTunnel};
pub use hop::{Hop, HopTunnel, Layers, Side};
pub use owner::{Owner, OwnerLayers, OwnerTunnel};

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use crate::cell::TunnelKey;
use crate::crypto::hash::{derive_into, same};
use crate::crypto::wide::WideKey;
use crate::crypto::{PathSecret, derive};
use crate::ident::TunnelId;

/// Length of a tunnel block in bytes.
pub const BLOCK_LEN: usize = 64;

/// A tunnel block.
pub type Block = [u8; BLOCK_LEN];

/// Tunnels of one path that wait for their answer at once. An end keeps a handful ready.
const MAX_PENDING: usize = 32;

/// How long an answer may take, in milliseconds.
const ANSWER_LIMIT: u64 = 10_000;

/// Seeds remembered per path against replay: 18 tunnels a second for an hour, in one MiB. A path that has used them up takes no
/// more tunnels; its owner builds another.
const MAX_SEEDS: usize = 65_536;

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

/// What goes on a new link as its TUNNEL frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Names the tunnel on this segment.
    pub id: TunnelId,
    /// Block R.
    pub r: Block,
    /// Block P.
    pub p: Block,
}

/// The tunnel's name on the segment on which `seed` was sent.
pub fn tunnel_id(seed: &Block) -> TunnelId {
    let hash = derive("phantom v1 tunnel id", &[seed]);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    TunnelId(id)
}

/// The letters of the blocks: each is the tweak of its own passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    S = b'S' as isize,
    R = b'R' as isize,
    P = b'P' as isize,
    Q = b'Q' as isize,
    V = b'V' as isize,
}

impl Letter {
    fn tweak(self) -> [u8; 16] {
        let mut tweak = [0; 16];
        tweak[0] = self as u8;
        tweak
    }
}

fn wide_key(secret: &PathSecret) -> WideKey {
    WideKey::new(&Zeroizing::new(derive("phantom v1 path blocks", &[&*secret.0])))
}

fn passed(wide: &WideKey, letter: Letter, block: &Block) -> Block {
    let mut block = *block;
    wide.encipher(&letter.tweak(), &mut block);
    block
}

fn tunnel_key(secret: &PathSecret, seed: &Block, r: &Block) -> TunnelKey {
    TunnelKey(Zeroizing::new(derive("phantom v1 tunnel key", &[&*secret.0, seed, r])))
}

/// The proof block of a letter under the terminating node's tunnel key.
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
    seen: BTreeSet<TunnelId>,
}

impl<T> Default for Seeds<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), seen: BTreeSet::new() }
    }
}

impl<T> Seeds<T> {
    /// Notes a seed that must never come again.
    fn first_sight(&mut self, seed: &Block) -> Result<TunnelId, TunnelError> {
        let id = tunnel_id(seed);
        if self.seen.len() >= MAX_SEEDS {
            return Err(TunnelError::Full);
        }
        if self.seen.insert(id) { Ok(id) } else { Err(TunnelError::Replay) }
    }

    fn has_room(&self) -> Result<(), TunnelError> {
        if self.waiting.len() < MAX_PENDING { Ok(()) } else { Err(TunnelError::Full) }
    }

    fn wait(&mut self, now: u64, id: TunnelId, value: T) {
        self.waiting.insert(id, (now, value));
    }

    fn answered(&mut self, id: TunnelId) -> Result<T, TunnelError> {
        self.waiting.remove(&id).map(|(_, value)| value).ok_or(TunnelError::Unknown)
    }

    fn expire(&mut self, now: u64) {
        self.waiting.retain(|_, (since, _)| now <= since.saturating_add(ANSWER_LIMIT));
    }
}

#[cfg(test)]
mod tests;
