//! The node record: how to reach a node and build paths through it.

use std::sync::Arc;

use super::epoch::{EPOCH, Epoch};
use super::extension::Extensions;
use super::{Record, read_version};
use crate::crypto::VerifyingKey;
use crate::crypto::kem::KEM_PUBLIC_LEN;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// Public halves of a node's path keys of one epoch: X25519(32) ‖ ML-KEM-768(1184).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicPathKeys {
    /// X25519 key for setup packages.
    pub dh: [u8; 32],
    /// ML-KEM-768 key for setup packages.
    pub kem: Arc<[u8; KEM_PUBLIC_LEN]>,
}

impl Wire for PublicPathKeys {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.dh);
        out.bytes(&self.kem[..]);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { dh: reader.array()?, kem: Arc::new(reader.array()?) })
    }
}

/// An entry of the node table: version(1) ‖ contact(82) ‖ start of the epoch(8) ‖ revision(2) ‖ keys of this epoch(1216) ‖
/// keys of the next(1216) ‖ extensions.
///
/// It lives until the next epoch is over, so its end is not written.
// protocol: E2
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Who it is and where it listens.
    pub contact: NodeContact,
    /// The epoch that it was made for: nothing in it shows when the node was started.
    pub epoch: Epoch,
    /// Counts changes within the epoch: of the address, for example. 0, mostly.
    pub revision: u16,
    /// Path keys of the epoch, and of the one after it: who has not heard of the next record uses those.
    pub keys: [PublicPathKeys; 2],
    /// What this version does not know.
    pub extensions: Extensions,
}

impl NodeRecord {
    /// The larger one is the newer record of a node.
    pub fn version(&self) -> (u64, u16) {
        (self.epoch.start(), self.revision)
    }

    /// Whether two records of a node have different path keys for one epoch: one of them was made for some of its readers, who could be
    /// told apart by the key that they use.
    pub fn contradicts(&self, other: &Self) -> bool {
        let of = |one: &Self| [one.epoch.start(), one.epoch.end()];
        let pairs = of(self).into_iter().zip(&self.keys);
        pairs
            .flat_map(|mine| of(other).into_iter().zip(&other.keys).map(move |theirs| (mine, theirs)))
            .any(|(mine, theirs)| mine.0 == theirs.0 && mine.1 != theirs.1)
    }

    /// The path keys to build with at `now`. `None`: those of its epochs are over.
    // protocol: E3
    pub fn keys_at(&self, now: u64) -> Option<&PublicPathKeys> {
        let [this, next] = &self.keys;
        // Before its epoch by our clock, which is behind then: the node's own is not.
        if now < self.epoch.end() { Some(this) } else { (now < self.expires()).then_some(next) }
    }
}

impl Record for NodeRecord {
    const CONTEXT: &'static str = "phantom v1 node record";
    const MAX_LIFE: u64 = 2 * EPOCH;

    fn signer(&self) -> VerifyingKey {
        self.contact.identity
    }

    fn issued(&self) -> u64 {
        self.epoch.start()
    }

    fn expires(&self) -> u64 {
        self.epoch.next().end()
    }
}

impl Wire for NodeRecord {
    fn write(&self, out: &mut Writer) {
        out.u8(1);
        self.contact.write(out);
        out.u64(self.epoch.start());
        out.u16(self.revision);
        self.keys.iter().for_each(|keys| keys.write(out));
        self.extensions.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_version(reader)?;
        let contact = NodeContact::read(reader)?;
        let epoch = Epoch::beginning(&contact.node_id(), reader.u64()?).ok_or(WireError::Value)?;
        let revision = reader.u16()?;
        let keys = [PublicPathKeys::read(reader)?, PublicPathKeys::read(reader)?];
        Ok(Self { contact, epoch, revision, keys, extensions: Extensions::read(reader)? })
    }
}
