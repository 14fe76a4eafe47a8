//! What the fuzz targets share: keys, a world of nodes, and pure files of the gate and of links.

pub mod gate;
pub mod net;
pub mod records;
pub mod world;

use std::sync::OnceLock;

use phantom_proto::crypto::SigningKey;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// The time of all targets, in Unix seconds.
pub const NOW: u64 = 1_800_000_000;

/// Randomness that every run repeats.
pub fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// One of 256 keys.
pub fn key(number: u8) -> &'static SigningKey {
    static KEYS: [OnceLock<SigningKey>; 256] = [const { OnceLock::new() }; 256];
    KEYS[usize::from(number)].get_or_init(|| SigningKey::from_seed(&[number; 32]))
}
