//! The node record: how to reach a node and build paths through it.

use super::{Record, read_version};
use crate::crypto::VerifyingKey;
use crate::crypto::kem::KEM_PUBLIC_LEN;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// An entry of the node table: version(1) ‖ contact(82) ‖ X25519 key(32) ‖ ML-KEM key(1184) ‖ issued(8) ‖ expires(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Who it is and where it listens.
    pub contact: NodeContact,
    /// X25519 key for setup packages.
    pub path_dh: [u8; 32],
    /// ML-KEM-768 key for setup packages.
    pub path_kem: Box<[u8; KEM_PUBLIC_LEN]>,
    /// Seconds since 1970.
    pub issued: u64,
    /// Seconds since 1970.
    pub expires: u64,
}

impl Record for NodeRecord {
    const CONTEXT: &'static str = "phantom v1 node record";
    // The path-building keys are kept for one period of 6 h after their own: a record must not outlive them.
    const MAX_LIFE: u64 = 12 * 3600;

    fn signer(&self) -> VerifyingKey {
        self.contact.identity
    }

    fn issued(&self) -> u64 {
        self.issued
    }

    fn expires(&self) -> u64 {
        self.expires
    }
}

impl Wire for NodeRecord {
    fn write(&self, out: &mut Writer) {
        out.u8(1);
        self.contact.write(out);
        out.bytes(&self.path_dh);
        out.bytes(&self.path_kem[..]);
        out.u64(self.issued);
        out.u64(self.expires);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(reader)?;
        Ok(Self {
            contact: NodeContact::read(reader)?,
            path_dh: reader.array()?,
            path_kem: Box::new(reader.array()?),
            issued: reader.u64()?,
            expires: reader.u64()?,
        })
    }
}
