//! The shelf: the records that a node keeps for others, within bounds that nobody can fill for everybody else.
//!
//! ```text
//!   node records   ├── renewed at least once ──┼──────── new ────────┤   each half is safe from the other
//!   AP records     ├── renewed at least once ──┼──────── new ────────┤
//! ```
//! When a table is full, what has expired goes first. Then one of the half that has more than its share goes: of the operator who put
//! most records into it the one that was renewed least often, of these the farthest. So whoever puts many records there takes the places
//! of its own, and not of others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::place::{Distance, Place, Table};
use super::{Key, Refused, Value, admit, check};
use crate::crypto::VerifyingKey;
use crate::ident::Operator;
use crate::record::Record as _;
use crate::wire::{Reader, Wire, WireError, Writer};

/// How many records of each table are kept.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Node records: 2.6 KB each, at most 4 KiB.
    pub nodes: usize,
    /// AP records: at most 500 bytes each.
    pub addresses: usize,
}

/// At most 32 MiB; of 100 000 nodes some 80 lie within reach.
// protocol: D17
pub const QUOTA: Quota = Quota { nodes: 4096, addresses: 16_384 };

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It must not stand there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Whoever brings it is neither the node that it is about nor an entry node in it.
    #[error("it is not brought by a node that is named in it")]
    Foreign,
    /// Others are to keep it.
    #[error("its key is too far from this node")]
    Far,
    /// All that stand there go before it.
    #[error("there is no room")]
    Full,
}

/// Who brings a record: a node whose key and address the link has proven.
#[derive(Debug, Clone, Copy)]
pub struct Publisher {
    /// Its key.
    pub identity: VerifyingKey,
    /// Whose it is.
    pub operator: Operator,
}

/// The records that a node keeps for others.
#[derive(Debug)]
pub struct Shelf {
    own: Place,
    nodes: Half,
    addresses: Half,
}

/// One table of it.
#[derive(Debug)]
struct Half {
    slots: BTreeMap<Key, Slot>,
    quota: usize,
}

/// A record, and what decides whether it stays. In bytes: renewals(2) ‖ operator's name behind its length(1) ‖ record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    renewals: u16,
    operator: Operator,
    record: Vec<u8>,
    /// In seconds since 1970.
    issued: u64,
    expires: u64,
    distance: Distance,
}

impl Shelf {
    /// An empty one, of the node with this key.
    pub fn new(own: &VerifyingKey, quota: Quota) -> Self {
        let half = |quota| Half { slots: BTreeMap::new(), quota };
        Self { own: Place::of_node(own), nodes: half(quota.nodes), addresses: half(quota.addresses) }
    }

    /// Keeps a record that `publisher` brings, if its key is no farther than `reach`.
    ///
    /// # Errors
    /// Why it is not kept; what stood there stands.
    // protocol: D25, D26
    pub fn put(
        &mut self,
        now: u64,
        reach: Distance,
        key: &Key,
        record: &[u8],
        publisher: &Publisher,
    ) -> Result<(), NotKept> {
        if self.distance(key) > reach {
            return Err(NotKept::Far);
        }
        let value = admit(now, key, record, self.get(now, key))?;
        if !is_named(&value, &publisher.identity) {
            return Err(NotKept::Foreign);
        }
        self.keep(now, key, &value, record, publisher.operator)
    }

    /// Keeps a record that maintainers have inserted, wherever its key lies and whoever brings it.
    ///
    /// # Errors
    /// Why it is not kept; what stood there stands.
    pub fn put_for_maintainers(&mut self, now: u64, key: &Key, record: &[u8], own: Operator) -> Result<(), NotKept> {
        let value = admit(now, key, record, self.get(now, key))?;
        self.keep(now, key, &value, record, own)
    }

    fn keep(&mut self, now: u64, key: &Key, value: &Value, record: &[u8], operator: Operator) -> Result<(), NotKept> {
        let (issued, expires) = times(value);
        let renewals = self.half(key).and_then(|half| half.slots.get(key)).map_or(0, |standing| {
            // One that is over was not renewed, it began again.
            let renewed = standing.renewals.saturating_add(u16::from(standing.issued < issued));
            if standing.expires > now { renewed } else { 0 }
        });
        let distance = self.distance(key);
        let slot = Slot { renewals, operator, record: record.to_vec(), issued, expires, distance };
        self.insert(now, *key, slot)
    }

    /// The record under a key, if one stands there that is not over.
    pub fn get(&self, now: u64, key: &Key) -> Option<&[u8]> {
        let slot = self.half(key)?.slots.get(key)?;
        (slot.expires > now).then_some(&slot.record)
    }

    /// Throws out what must not stand here.
    pub fn retain(&mut self, mut stays: impl FnMut(&Key, &[u8]) -> bool) {
        for half in [&mut self.nodes, &mut self.addresses] {
            half.slots.retain(|key, slot| stays(key, &slot.record));
        }
    }

    /// Throws out what has expired.
    // protocol: D5
    pub fn sweep(&mut self, now: u64) {
        [&mut self.nodes, &mut self.addresses].into_iter().for_each(|half| half.sweep(now));
    }

    /// How many records of a table are kept.
    pub fn len(&self, of: Table) -> usize {
        match of {
            Table::Nodes => self.nodes.slots.len(),
            Table::Addresses => self.addresses.slots.len(),
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.nodes.slots.is_empty() && self.addresses.slots.is_empty()
    }

    /// All of it, for the disk: keys and what [`Self::restore`] takes.
    pub fn entries(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let slots = self.nodes.slots.iter().chain(&self.addresses.slots);
        slots.map(|(key, slot)| (key.to_vec(), slot.to_bytes()))
    }

    /// Takes back what [`Self::entries`] gave, as far as it still holds. False: it does not.
    // protocol: D27
    pub fn restore(&mut self, now: u64, key: &[u8], entry: &[u8]) -> bool {
        let Ok(key) = <Key>::try_from(key) else { return false };
        let Ok(mut slot) = Slot::from_bytes(entry) else { return false };
        let Ok(value) = check(now, &key, &slot.record) else { return false };
        (slot.issued, slot.expires) = times(&value);
        slot.distance = self.distance(&key);
        self.insert(now, key, slot).is_ok()
    }

    fn distance(&self, key: &Key) -> Distance {
        self.own.distance(&Place::of_key(key))
    }

    fn half(&self, key: &Key) -> Option<&Half> {
        Table::of(key).map(|table| match table {
            Table::Nodes => &self.nodes,
            Table::Addresses => &self.addresses,
        })
    }

    fn insert(&mut self, now: u64, key: Key, slot: Slot) -> Result<(), NotKept> {
        let half = match Table::of(&key).ok_or(Refused::Key)? {
            Table::Nodes => &mut self.nodes,
            Table::Addresses => &mut self.addresses,
        };
        half.insert(now, key, slot)
    }
}

/// Whether a node is named in a record: it is about it, or one may enter through it.
fn is_named(value: &Value, identity: &VerifyingKey) -> bool {
    match value {
        Value::Node(record) => record.contact.identity == *identity,
        Value::Ap(record) => record.entries.iter().any(|entry| entry.entry_node.identity == *identity),
    }
}

/// When it was issued and when it expires.
fn times(value: &Value) -> (u64, u64) {
    match value {
        Value::Node(record) => (record.issued(), record.expires()),
        Value::Ap(record) => (record.issued, record.expires),
    }
}

impl Half {
    fn insert(&mut self, now: u64, key: Key, slot: Slot) -> Result<(), NotKept> {
        self.slots.insert(key, slot);
        if self.slots.len() <= self.quota {
            return Ok(());
        }
        self.sweep(now);
        if self.slots.len() <= self.quota {
            return Ok(());
        }
        let Some(victim) = self.victim() else { return Ok(()) };
        self.slots.remove(&victim);
        if victim == key { Err(NotKept::Full) } else { Ok(()) }
    }

    fn sweep(&mut self, now: u64) {
        self.slots.retain(|_, slot| slot.expires > now);
    }

    /// Who goes when there is one too many.
    // protocol: D26
    fn victim(&self) -> Option<Key> {
        let renewed = self.slots.values().filter(|slot| slot.renewals > 0).count();
        let crowded = renewed > self.quota / 2;
        let of_half = || self.slots.iter().filter(|(_, slot)| (slot.renewals > 0) == crowded);
        let mut held: HashMap<Operator, usize> = HashMap::new();
        of_half().for_each(|(_, slot)| *held.entry(slot.operator).or_default() += 1);
        let worst = of_half().min_by_key(|(_, slot)| {
            let held = held.get(&slot.operator).copied().unwrap_or_default();
            (Reverse(held), slot.renewals, Reverse(slot.distance))
        });
        worst.map(|(key, _)| *key)
    }
}

impl Wire for Slot {
    fn write(&self, out: &mut Writer) {
        out.u16(self.renewals);
        let name = self.operator.name();
        out.u8(name.len() as u8);
        out.bytes(name);
        out.bytes(&self.record);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let renewals = reader.u16()?;
        let len = reader.u8()?.into();
        let operator = Operator::named(reader.bytes(len)?).ok_or(WireError::Value)?;
        let record = reader.rest().to_vec();
        // What the record itself says is read with it.
        Ok(Self { renewals, operator, record, issued: 0, expires: 0, distance: 0 })
    }
}

#[cfg(test)]
mod tests;
