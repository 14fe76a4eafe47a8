//! Whose signatures a command needs.

use crate::crypto::{Hash32, VerifyingKey, derive};

/// Most keys of a set.
// protocol: M9
pub const KEYS_MAX: usize = 16;

/// The maintainers' keys of a network, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    threshold: u8,
    keys: Vec<VerifyingKey>,
}

/// Why keys are no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Too many, or none.
    #[error("a set has 1 to {KEYS_MAX} keys, not {0}")]
    Count(usize),
    /// More signatures than keys, or none.
    #[error("of {1} keys 1 to {1} must sign, not {0}")]
    Threshold(usize, usize),
    /// One of them would count twice.
    #[error("a key is there twice")]
    Twice,
}

impl KeySet {
    /// `threshold` of these keys must sign.
    ///
    /// # Errors
    /// See [`KeySetError`].
    // protocol: M9
    pub fn new(threshold: usize, keys: Vec<VerifyingKey>) -> Result<Self, KeySetError> {
        let count = keys.len();
        if !(1..=KEYS_MAX).contains(&count) {
            return Err(KeySetError::Count(count));
        }
        if !(1..=count).contains(&threshold) {
            return Err(KeySetError::Threshold(threshold, count));
        }
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < count {
            return Err(KeySetError::Twice);
        }
        Ok(Self { threshold: u8::try_from(threshold).unwrap_or(u8::MAX), keys })
    }

    /// A network without maintainers: no command holds.
    pub fn nobody() -> Self {
        Self { threshold: 0, keys: Vec::new() }
    }

    /// Whether nobody can sign.
    pub fn is_nobody(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many must sign.
    pub fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    /// The keys, in the order of their numbers.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The number of a key.
    pub fn index(&self, key: &VerifyingKey) -> Option<u8> {
        self.keys.iter().position(|one| one == key).and_then(|at| u8::try_from(at).ok())
    }

    /// What all of the set's signatures cover and the first command names as its predecessor: commands of one network are none
    /// of another's.
    // protocol: M4
    pub fn root(&self) -> Hash32 {
        let threshold = [self.threshold];
        let parts: Vec<&[u8]> = std::iter::once(&threshold[..]).chain(self.keys.iter().map(|key| &key.0[..])).collect();
        derive("phantom v1 command root", &parts)
    }
}
