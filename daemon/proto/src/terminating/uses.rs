//! What a terminating node knows of one path: what its owner uses it for, which entry nodes it has led to, which records came along it.

use std::collections::BTreeSet;

use rand::{CryptoRng, RngExt};

use crate::crypto::VerifyingKey;
use crate::ident::{ApAddress, NodeId};
use crate::record::{ApRecord, RecordError, RoutingEntry, STEP, Signed};
use crate::wire::cells::{CellKind, Lookup, Open, Word};
use crate::wire::frame::Handle;

/// Records that a terminating node takes of one path within a step of their grid. One is due, two begin a service, and one out of turn
/// costs its owner all paths that the last one named; each costs us a look at a signature and a publication.
// protocol: H7
const RECORDS_PER_STEP: u32 = 32;

/// Entry nodes to which a path has led that are remembered. To further ones each link is a new one: slower, and no loss.
const LED: usize = 1024;

/// What a path is used for, as its terminating node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// OPEN.
    Connect,
    /// LOOKUP.
    Ask,
    /// SERVE.
    Serve,
}

/// What the first cell on a ready tunnel of a path makes of that tunnel, at the end that hears it.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// Its owner connects; `anew`: to this entry node for the first time, as far as is remembered.
    Open { open: Open, anew: bool },
    /// Its owner asks.
    LookUp(ApAddress),
    /// Somebody connects to the path's owner, with these bytes.
    Incoming(Vec<u8>),
    /// It is the path's control tunnel.
    Control,
    /// It is the path's control tunnel, and its owner has said SERVE over it.
    Serve(Vec<u8>),
    /// Who said it broke the protocol, and hears so; the path ends.
    Misused,
}

impl First {
    /// At the owner of a path, who may have it serve.
    // protocol: U3, U4
    pub fn at_owner(serves: bool, kind: CellKind, data: &[u8]) -> Self {
        match Word::read(kind, data) {
            Ok(Word::Incoming(first)) if serves => Self::Incoming(first.to_vec()),
            Ok(Word::Padding) => Self::Control,
            _ => Self::Misused,
        }
    }
}

/// What comes of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    /// The path serves from now on, and this is to be published.
    Now(Vec<u8>),
    /// It will be, at a moment of its own: see [`Uses::due`].
    Later,
    /// The path serves no more.
    Withdrawn,
}

/// Why a record is not taken; the path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordRefused {
    /// It does not hold.
    Record(RecordError),
    /// It is one too many, or names another node, path or address; or its owner uses the path for something else.
    Misused,
}

/// See the module.
#[derive(Debug)]
pub struct Uses {
    handle: Handle,
    /// What its owner used it for first, and so for ever.
    used_for: Option<Use>,
    /// Of a path that serves: for whom, and so for ever.
    address: Option<ApAddress>,
    /// How many records came in which step.
    records: (u64, u32),
    /// The record of the present step and that of the next, while they wait, and when to publish each, in milliseconds since 1970.
    held: Option<(u64, Vec<u8>)>,
    next: Option<(u64, Vec<u8>)>,
    /// Entry nodes to which it has led.
    led: BTreeSet<NodeId>,
}

impl Uses {
    /// Of a path that was not used yet.
    pub fn new(handle: Handle) -> Self {
        Self { handle, used_for: None, address: None, records: (0, 0), held: None, next: None, led: BTreeSet::new() }
    }

    /// Its name in records and in JOIN.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The owner begins to use a tunnel with this cell.
    // protocol: U3, U4, U5, B7, B8
    pub fn first(&mut self, kind: CellKind, data: &[u8]) -> First {
        match Word::read(kind, data) {
            Ok(Word::Open(open)) if self.may(Use::Connect) => {
                let anew = self.is_new(open.node);
                First::Open { open, anew }
            }
            Ok(Word::Lookup(Lookup(address))) if self.may(Use::Ask) => First::LookUp(address),
            Ok(Word::Padding) => First::Control,
            Ok(Word::Serve(record)) if self.may(Use::Serve) => First::Serve(record.to_vec()),
            _ => First::Misused,
        }
    }

    /// Whether its owner may use it so: as the first time.
    // protocol: U5
    fn may(&mut self, wanted: Use) -> bool {
        *self.used_for.get_or_insert(wanted) == wanted
    }

    /// Whether an entry node was not among those to which it has led. Beyond what is remembered each one is new.
    fn is_new(&mut self, entry: NodeId) -> bool {
        if self.led.contains(&entry) {
            return false;
        }
        if self.led.len() < LED {
            self.led.insert(entry);
        }
        true
    }

    /// The owner wants this record served and published by the node `own`, or, when it is empty, no more. Of the next step, it is
    /// published at a moment of that step drawn by `rng`; of the present one, within `hold` milliseconds. Times are milliseconds since
    /// 1970.
    // protocol: U5, U12, H5, H6, H7, H8, H9
    pub fn serve(
        &mut self,
        now: u64,
        own: &VerifyingKey,
        rng: &mut dyn CryptoRng,
        hold: u64,
        record: Vec<u8>,
    ) -> Result<Publication, RecordRefused> {
        if !self.may(Use::Serve) || !self.takes_record(now) {
            return Err(RecordRefused::Misused);
        }
        if record.is_empty() {
            (self.held, self.next) = (None, None);
            return Ok(Publication::Withdrawn);
        }
        let checked = checked_ahead(now / 1000, &record).map_err(RecordRefused::Record)?;
        let ours = |entry: &RoutingEntry| entry.entry_node.identity == *own && entry.handle == self.handle;
        let (names_us, address) = (checked.entries.iter().any(ours), checked.address());
        if !names_us || *self.address.get_or_insert(address) != address {
            return Err(RecordRefused::Misused);
        }
        let issued = checked.issued * 1000;
        if issued <= now {
            self.next = None;
            if hold == 0 {
                return Ok(Publication::Now(record));
            }
            // Whoever sees all links would find who sent something just before.
            self.held = Some((now + rng.random_range(0..=hold), record));
            return Ok(Publication::Later);
        }
        // Anywhere in its step, by our clock: nobody learns from it when its owner did anything.
        self.next = Some((issued + rng.random_range(0..STEP * 1000), record));
        Ok(Publication::Later)
    }

    /// When a record is published, in milliseconds since 1970.
    pub fn publishes(&self) -> Option<u64> {
        self.held.iter().chain(&self.next).map(|(at, _)| *at).min()
    }

    /// The record whose time has come, if one's has; of one that expired meanwhile, while this computer slept, why it is not
    /// published: then the path ends.
    // protocol: H9
    pub fn due(&mut self, now: u64) -> Option<Result<Vec<u8>, RecordError>> {
        let (_, record) =
            self.held.take_if(|(at, _)| now >= *at).or_else(|| self.next.take_if(|(at, _)| now >= *at))?;
        Some(checked_ahead(now / 1000, &record).map(|_| record))
    }

    /// Counts a record. False: it is one too many.
    fn takes_record(&mut self, now: u64) -> bool {
        let step = now / 1000 / STEP;
        let before = if self.records.0 == step { self.records.1 } else { 0 };
        self.records = (step, before + 1);
        before < RECORDS_PER_STEP
    }
}

/// A record that its owner sends, which may be that of the next step.
fn checked_ahead(now: u64, record: &[u8]) -> Result<ApRecord, RecordError> {
    let signed = Signed::<ApRecord>::from_bytes(record)?;
    match signed.check(now) {
        Err(RecordError::FromTheFuture) => signed.check(now + STEP),
        checked => checked,
    }
}

#[cfg(test)]
mod tests;
