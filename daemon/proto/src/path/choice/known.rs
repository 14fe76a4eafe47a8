//! A node that is kept beyond the sample: its contact, and what its record said when it was last checked.

use std::sync::Arc;

use crate::ident::NodeId;
use crate::path::Candidate;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// How long path keys may be used after their record was last seen to hold, in seconds: a record holds for at most 12 h, and on
/// average half of that is over when it is seen. Older ones build nothing, and the node's silence would be held against others.
// protocol: O4
pub(super) const KEYS_LIFE: u64 = 6 * 3600;

/// See above.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: NodeId,
    pub(super) candidate: Candidate,
    /// When its record last held (Unix seconds).
    pub(super) checked: u64,
}

impl Known {
    pub(super) fn new(now: u64, id: NodeId, candidate: &Candidate) -> Self {
        Self { id, candidate: candidate.clone(), checked: now }
    }

    /// Whether builds with its keys can work.
    pub(super) fn current(&self, now: u64) -> bool {
        now < self.checked.saturating_add(KEYS_LIFE)
    }

    pub(super) fn update(&mut self, now: u64, candidate: &Candidate) {
        self.candidate = candidate.clone();
        self.checked = now;
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

/// Contact(82), path keys (32, 1184), weight(4), time of the check(8).
impl Wire for Known {
    fn write(&self, out: &mut Writer) {
        self.candidate.contact.write(out);
        out.bytes(&self.candidate.path_dh);
        out.bytes(&self.candidate.path_kem[..]);
        out.u32(self.candidate.weight);
        out.u64(self.checked);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let contact = NodeContact::read(reader)?;
        let id = contact.node_id();
        let path_dh = reader.array()?;
        let path_kem = Arc::new(reader.array()?);
        let candidate = Candidate { contact, path_dh, path_kem, weight: reader.u32()? };
        Ok(Self { id, candidate, checked: reader.u64()? })
    }
}
