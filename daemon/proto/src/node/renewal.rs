//! Neighbours on paths tell each other their new records, once an epoch, over the standing connections that they have anyway: so a guard's
//! keys reach whoever builds with it, and nobody is asked for them by name (docs/protocol.md, section 3.4).
//!
//! All nodes do so on all standing connections, at times of their own: it says nothing about who uses whom.

use rand::RngExt;

use super::paths::Path;
use super::{Node, Output};
use crate::ident::{NodeId, PathId};
use crate::record::{EPOCH, NodeRecord, RecordError, Signed};
use crate::wire::frame::Frame;

/// When in its epoch a node tells its record along a path, in milliseconds: not before others' clocks, which may differ by two minutes, say
/// that it has begun, and in its first half, as the record is asked for by others.
// protocol: L33
const TELL: std::ops::Range<u64> = 300_000..EPOCH * 1000 / 2;

/// Records that are looked at on one standing connection. In 24 h there are four epochs, and few changes of an address.
// protocol: L34
const TOLD: u8 = 16;

impl Node {
    /// This node's record is new: each neighbour that has a standing connection to it hears so.
    // protocol: L33, Q22
    pub(super) fn tell_later(&mut self, now: u64, record: Vec<u8>) {
        self.record = record;
        // One that nobody can dial has none.
        if !self.reachable {
            return;
        }
        for path in self.paths.values_mut() {
            for side in &mut path.sides {
                side.tell_at = Some(now + self.rng.random_range(TELL));
            }
        }
    }

    pub(super) fn tell_neighbours(&mut self, now: u64) {
        let sides = self.paths.values_mut().flat_map(|path| &mut path.sides);
        let due = sides.filter_map(|side| side.tell_at.take_if(|at| now >= *at).and(side.link));
        let due: Vec<_> = due.collect();
        let record = self.record.clone();
        for link in due {
            self.send(link, &Frame::Record(&record));
        }
    }

    /// A neighbour tells its record. False: it is not its own, or one too many.
    // protocol: L34
    pub(super) fn record_frame(&mut self, now: u64, segment: PathId, peer: NodeId, bytes: &[u8]) -> bool {
        let Some((no, side)) = self.segments.get(&segment).copied() else { return false };
        let Some(side) = self.paths.get_mut(&no).and_then(|path| path.sides.get_mut(side)) else { return false };
        side.told += 1;
        if side.told > TOLD {
            return false;
        }
        match Signed::<NodeRecord>::from_bytes(bytes)
            .map_err(RecordError::from)
            .and_then(|signed| signed.check(now / 1000))
        {
            Ok(record) if record.contact.node_id() == peer => {
                self.out.push_back(Output::Heard(bytes.to_vec()));
                true
            }
            // One of the two clocks is wrong: no reason to lose a path.
            Err(RecordError::FromTheFuture | RecordError::Expired) => true,
            Ok(_) | Err(_) => false,
        }
    }
}

impl Path {
    pub(super) fn tells(&self) -> impl Iterator<Item = u64> {
        self.sides.iter().filter_map(|side| side.tell_at)
    }
}
