//! What the network database holds: signed, versioned, expiring records that are parsed, then checked, then used.
//!
//! A record arrives as [`Signed<T>`]; the only way to its content is [`Signed::check`].

mod ap;
mod epoch;
mod extension;
mod node;

pub use ap::{ApRecord, RoutingEntry, STEP, STEPS_HELD, UNTIL_GRID};
pub use epoch::{EPOCH, Epoch};
pub use extension::{EXTENSIONS_MAX, Extension, Extensions};
pub use node::{NodeRecord, PublicPathKeys};

use std::marker::PhantomData;

use crate::crypto::sign::SIGNATURE_LEN;
use crate::crypto::{Signature, SigningKey, VerifyingKey};
use crate::wire::{Reader, Wire, WireError};

/// Longest record in bytes, signature included: a node record has 2593, and extensions.
// protocol: R1
pub const MAX_RECORD_LEN: usize = 4096;

/// How far a record's issue may lie ahead of our clock, in seconds.
pub const CLOCK_SKEW: u64 = 120;

/// A kind of record.
pub trait Record: Wire {
    /// What its signatures are domain-separated by.
    const CONTEXT: &'static str;
    /// Longest life in seconds.
    const MAX_LIFE: u64;
    /// The key that must have signed it.
    fn signer(&self) -> VerifyingKey;
    /// When it was made, in seconds since 1970.
    fn issued(&self) -> u64;
    /// When it ends, in seconds since 1970.
    fn expires(&self) -> u64;
    /// Whether its times lie where those of its kind must.
    fn on_grid(&self) -> bool {
        true
    }
}

/// Why a record is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a record of this kind.
    #[error("malformed record: {0}")]
    Malformed(#[from] WireError),
    /// Not signed by the key that it names.
    #[error("the record's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the record has expired")]
    Expired,
    /// It was made later than now.
    #[error("the record comes from the future: one of the two clocks is wrong")]
    FromTheFuture,
    /// Its times do not lie on the grid of its kind.
    #[error("the record's times lie off the grid")]
    OffGrid,
    /// It claims to live longer than records of its kind may.
    #[error("the record claims too long a life")]
    TooLongLived,
}

/// A record as it was received: its bytes, not checked yet.
pub struct Signed<T> {
    bytes: Vec<u8>,
    kind: PhantomData<T>,
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), kind: PhantomData }
    }
}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({} bytes)", self.bytes.len())
    }
}

impl<T: Record> Signed<T> {
    /// Takes bytes that may be a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_RECORD_LEN {
            return Err(WireError::TooLong);
        }
        Ok(Self { bytes: bytes.to_vec(), kind: PhantomData })
    }

    /// Signs `value` with the key that it names as its signer.
    pub fn sign(value: &T, key: &SigningKey) -> Self {
        let mut bytes = value.to_bytes();
        let signature = key.sign(T::CONTEXT, &bytes);
        bytes.extend_from_slice(&signature);
        Self { bytes, kind: PhantomData }
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The content, when all of it holds at `now` (seconds since 1970).
    // protocol: R3
    pub fn check(&self, now: u64) -> Result<T, RecordError> {
        let (body, signature) =
            self.bytes.split_last_chunk::<SIGNATURE_LEN>().ok_or(RecordError::Malformed(WireError::Short))?;
        let value = T::from_bytes(body)?;
        check_times(&value, now)?;
        check_signature(&value, body, signature)?;
        Ok(value)
    }
}

fn check_times<T: Record>(value: &T, now: u64) -> Result<(), RecordError> {
    if value.issued() > now.saturating_add(CLOCK_SKEW) {
        return Err(RecordError::FromTheFuture);
    }
    if value.expires() <= now {
        return Err(RecordError::Expired);
    }
    if value.expires().saturating_sub(value.issued()) > T::MAX_LIFE {
        return Err(RecordError::TooLongLived);
    }
    if value.on_grid() { Ok(()) } else { Err(RecordError::OffGrid) }
}

fn check_signature<T: Record>(value: &T, body: &[u8], signature: &Signature) -> Result<(), RecordError> {
    value.signer().verify(T::CONTEXT, body, signature).map_err(|_| RecordError::Signature)
}

/// Reads the version byte that every record begins with.
// protocol: Y5
fn read_version(reader: &mut Reader<'_>) -> Result<(), WireError> {
    if reader.u8()? == 1 { Ok(()) } else { Err(WireError::Value) }
}

#[cfg(test)]
mod tests;
