//! The AP record: the certificate of an AP address and the entry nodes through which it is reached.

use super::{Record, read_version};
use crate::crypto::VerifyingKey;
use crate::ident::ApAddress;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// One way in: entry node's contact(82) ‖ handle(16) ‖ until(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingEntry {
    /// The terminating node of the entry path.
    pub entry_node: NodeContact,
    /// Names the path at that node.
    pub handle: [u8; 16],
    /// When the path ends, in seconds since 1970.
    pub until: u64,
}

impl Wire for RoutingEntry {
    fn write(&self, out: &mut Writer) {
        self.entry_node.write(out);
        out.bytes(&self.handle);
        out.u64(self.until);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { entry_node: NodeContact::read(reader)?, handle: reader.array()?, until: reader.u64()? })
    }
}

/// Length of a step of the grid on which all AP records lie, in seconds: a record's times say nothing of its owner's.
pub const STEP: u64 = 3600;

/// Steps that a record lives: that of its issue, in whose course its successor takes over, and two more for owners and entry
/// nodes that are away just then.
pub const STEPS_HELD: u64 = 3;

/// Ends of paths are rounded down to a multiple of this, in seconds.
pub const UNTIL_GRID: u64 = 600;

/// An entry of the AP table: version(1) ‖ AP key(32) ‖ serial(8) ‖ issued(8) ‖ expires(8) ‖ count(1) ‖ entries.
///
/// The key is the certificate of the session (a raw public key, RFC 7250), and its hash is the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApRecord {
    /// The AP key.
    pub key: VerifyingKey,
    /// The newest record has the largest: step(48 bits) ‖ count within the step(16).
    pub serial: u64,
    /// The step's begin, in seconds since 1970.
    pub issued: u64,
    /// [`STEPS_HELD`] steps later.
    pub expires: u64,
    /// Ways in, at most [`ApRecord::MAX_ENTRIES`]; none: the address is reserved but not reachable.
    pub entries: Vec<RoutingEntry>,
}

impl ApRecord {
    /// Most entries of one record: what fits into a setup package.
    pub const MAX_ENTRIES: usize = 4;

    /// The record of a step (number of [`STEP`]s since 1970), the `count`th of it. Ends of paths are put on their grid.
    pub fn on_grid(key: VerifyingKey, step: u64, count: u16, mut entries: Vec<RoutingEntry>) -> Self {
        entries.truncate(Self::MAX_ENTRIES);
        entries.iter_mut().for_each(|entry| entry.until -= entry.until % UNTIL_GRID);
        let (issued, expires) = (step * STEP, (step + STEPS_HELD) * STEP);
        Self { key, serial: step << 16 | u64::from(count), issued, expires, entries }
    }

    /// The step that it was issued for.
    pub fn step_of(&self) -> u64 {
        self.serial >> 16
    }

    /// The address that this record is about.
    pub fn address(&self) -> ApAddress {
        ApAddress::of(&self.key)
    }
}

impl Record for ApRecord {
    const CONTEXT: &'static str = "phantom v1 ap record";
    const MAX_LIFE: u64 = STEPS_HELD * STEP;

    fn signer(&self) -> VerifyingKey {
        self.key
    }

    fn issued(&self) -> u64 {
        self.issued
    }

    fn expires(&self) -> u64 {
        self.expires
    }

    /// A record off the grid would stand out among all others, and tell when it was made.
    // protocol: R2
    fn on_grid(&self) -> bool {
        self.issued.is_multiple_of(STEP)
            && self.expires == self.issued.saturating_add(STEPS_HELD * STEP)
            && self.serial >> 16 == self.issued / STEP
            && self.entries.iter().all(|entry| entry.until.is_multiple_of(UNTIL_GRID))
    }
}

impl Wire for ApRecord {
    fn write(&self, out: &mut Writer) {
        out.u8(1);
        out.bytes(&self.key.0);
        out.u64(self.serial);
        out.u64(self.issued);
        out.u64(self.expires);
        let entries = &self.entries[..self.entries.len().min(Self::MAX_ENTRIES)];
        out.u8(entries.len() as u8);
        entries.iter().for_each(|entry| entry.write(out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(reader)?;
        let (key, serial) = (VerifyingKey(reader.array()?), reader.u64()?);
        let (issued, expires) = (reader.u64()?, reader.u64()?);
        let count = usize::from(reader.u8()?);
        if count > Self::MAX_ENTRIES {
            return Err(WireError::TooLong);
        }
        let entries = (0..count).map(|_| RoutingEntry::read(reader)).collect::<Result<_, _>>()?;
        Ok(Self { key, serial, issued, expires, entries })
    }
}
