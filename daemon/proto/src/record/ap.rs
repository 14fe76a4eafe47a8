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

/// An entry of the AP table: version(1) ‖ AP key(32) ‖ serial(8) ‖ issued(8) ‖ expires(8) ‖ count(1) ‖ entries.
///
/// The key is the certificate of the session (a raw public key, RFC 7250), and its hash is the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApRecord {
    /// The AP key.
    pub key: VerifyingKey,
    /// The newest record has the largest; the owner counts up.
    pub serial: u64,
    /// Seconds since 1970.
    pub issued: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Ways in, at most [`ApRecord::MAX_ENTRIES`]; none: the address is reserved but not reachable.
    pub entries: Vec<RoutingEntry>,
}

impl ApRecord {
    /// Most entries of one record: what fits into a setup package.
    pub const MAX_ENTRIES: usize = 4;

    /// The address that this record is about.
    pub fn address(&self) -> ApAddress {
        ApAddress::of(&self.key)
    }
}

impl Record for ApRecord {
    const CONTEXT: &'static str = "phantom v1 ap record";
    // A path lives for a day at most, and its record a little longer.
    const MAX_LIFE: u64 = 25 * 3600;

    fn signer(&self) -> VerifyingKey {
        self.key
    }

    fn issued(&self) -> u64 {
        self.issued
    }

    fn expires(&self) -> u64 {
        self.expires
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
