//! The only place that names a crypto crate; the rest of the protocol speaks of keys, hashes and permutations.

pub mod aead;
pub mod dh;
pub mod hash;
pub mod kem;
pub mod noise;
pub mod passphrase;
pub mod sign;
pub mod wide;

use zeroize::Zeroizing;

pub use hash::{Hash32, derive, keyed, sha256};
pub use sign::{Signature, SigningKey, VerifyingKey};

/// Why a cryptographic operation gave no result. Deliberately says no more: details would be an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic check failed")]
pub struct CryptoError;

/// What an owner and one of its hops share for the life of a path; every key of the path's tunnels derives from it.
#[derive(Clone)]
pub struct PathSecret(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for PathSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PathSecret(…)")
    }
}
