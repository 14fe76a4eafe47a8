//! Keys from passphrases: Argon2id (RFC 9106), whose memory is what makes guessing dear.

use std::ops::RangeInclusive;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::CryptoError;

/// Memory that a file may ask for, in KiB: more would be an attack by the file.
const MEMORY: RangeInclusive<u32> = 8 * 1024..=256 * 1024;

/// Passes over it that a file may ask for.
const PASSES: RangeInclusive<u32> = 1..=16;

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        // RFC 9106, section 4, second choice: 64 MiB and three passes, less than a second here.
        Self { memory: 64 * 1024, passes: 3 }
    }
}

/// The key that a passphrase stands for, with this salt.
///
/// # Errors
/// When the cost is out of bounds.
pub fn stretch(passphrase: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    if !MEMORY.contains(&cost.memory) || !PASSES.contains(&cost.passes) {
        return Err(CryptoError);
    }
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory, cost.passes, 1, Some(key.len())).map_err(|_| CryptoError)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(passphrase, salt, &mut *key).map_err(|_| CryptoError)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory: 8 * 1024, passes: 1 };

    #[test]
    fn passphrase_salt_and_cost_all_count() {
        let key = stretch(b"correct horse", &[1; 16], CHEAP).unwrap();
        assert_eq!(key, stretch(b"correct horse", &[1; 16], CHEAP).unwrap());
        assert_ne!(key, stretch(b"correct horsf", &[1; 16], CHEAP).unwrap());
        assert_ne!(key, stretch(b"correct horse", &[2; 16], CHEAP).unwrap());
        assert_ne!(key, stretch(b"correct horse", &[1; 16], Cost { passes: 2, ..CHEAP }).unwrap());
    }

    #[test]
    fn costs_that_are_an_attack_are_refused_before_any_work() {
        for (memory, passes) in [(u32::MAX, 1), (256 * 1024 + 1, 1), (0, 1), (8 * 1024, 0), (8 * 1024, u32::MAX)] {
            assert!(stretch(b"x", &[0; 16], Cost { memory, passes }).is_err(), "{memory} {passes}");
        }
    }
}
