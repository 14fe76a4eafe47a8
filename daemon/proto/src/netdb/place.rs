//! Where keys and nodes lie in the database's space, and how far from each other.

use super::Key;
use crate::crypto::{Hash32, VerifyingKey, sha256};

/// How a peer id begins, before the node's key: identity multihash of 36 bytes of protobuf.
const PEER_ID: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The leading half of the xor of two places; the other half decides nothing among fewer than 2^60 nodes.
pub type Distance = u128;

/// A place of a key or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(Hash32);

impl Place {
    /// Where a key of the database lies, or one that is only looked for.
    // protocol: D24
    pub fn of_key(key: &[u8]) -> Self {
        Self(sha256(key))
    }

    /// Where a node lies.
    pub fn of_node(identity: &VerifyingKey) -> Self {
        Self(sha256(&[&PEER_ID[..], &identity.0].concat()))
    }

    /// How far another place is.
    pub fn distance(&self, other: &Self) -> Distance {
        let half = |place: &Self| place.0.first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        half(self) ^ half(other)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The tables of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Node records.
    Nodes,
    /// AP records.
    Addresses,
}

impl Table {
    /// The one that a key is of. `None`: of none.
    pub fn of(key: &Key) -> Option<Self> {
        match key[0] {
            super::NODE => Some(Self::Nodes),
            super::AP => Some(Self::Addresses),
            _ => None,
        }
    }
}
