//! The only place that names a crypto crate; the rest of the protocol speaks of keys, hashes and permutations.

pub mod hash;
pub mod sign;

pub use hash::{Hash32, derive, keyed};
pub use sign::{Signature, SigningKey, VerifyingKey};

/// Why a cryptographic operation gave no result. Deliberately says no more: details would be an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cryptographic check failed")]
pub struct CryptoError;
