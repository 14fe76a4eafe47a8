//! The commands that a node has: a chain of serials, of which it keeps the newest for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::bans::Bans;
use super::{Action, Command, KeySet, Kind, Signed};
use crate::crypto::Hash32;
use crate::record::CLOCK_SKEW;
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

/// Commands that are kept: the newest, however old they are. That is one every three hours for the life of each.
// protocol: M11
pub const KEPT: u64 = 256;

/// At most one in so many of the known nodes may be banned at once without the operator's word.
// protocol: M12
pub const SHARE: usize = 20;

/// Why a command is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The network has no maintainers.
    #[error("this network has no maintainers: it takes no commands")]
    Nobody,
    /// It has no such form.
    #[error("malformed command: {0}")]
    Malformed(#[from] WireError),
    /// Too few or too many signatures, or a wrong one.
    #[error("the command is not signed by as many maintainers as must")]
    Signatures,
    /// It was made later than now.
    #[error("the command comes from the future: one of the two clocks is wrong")]
    FromTheFuture,
    /// It is here already.
    #[error("the command is known already")]
    Known,
    /// It is further back than what is kept.
    #[error("the command is too old to matter")]
    TooOld,
    /// Another one with its serial is here.
    #[error("another command has the same serial: maintainers have signed two")]
    Forked,
    /// It does not follow the one before it, or is not followed by the one behind it.
    #[error("the command does not fit into the chain of those that are known")]
    Predecessor,
}

impl Refused {
    /// Whether only somebody who breaks the protocol says this.
    pub fn is_misbehaviour(self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Signatures)
    }
}

/// A command that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub command: Command,
    /// As it was signed.
    pub bytes: Vec<u8>,
    /// It waits for the operator's word.
    pub held: bool,
    /// Known nodes that its bans hit when it came.
    pub hits: u32,
    /// When it came, in seconds since 1970.
    pub taken: u64,
    id: Hash32,
}

impl Entry {
    /// For the disk: whether it is held(1), hits(4), when it came(8), the signed command.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(u8::from(self.held));
        out.u32(self.hits);
        out.u64(self.taken);
        out.bytes(&self.bytes);
        out.0
    }
}

/// The commands of a node.
#[derive(Debug, Clone)]
pub struct Log {
    keys: KeySet,
    entries: BTreeMap<u64, Entry>,
    /// A second command with the serial of another, as it was signed: the proof that there are two.
    rival: Option<Vec<u8>>,
}

impl Log {
    /// One of a network with these maintainers.
    pub fn new(keys: KeySet) -> Self {
        Self { keys, entries: BTreeMap::new(), rival: None }
    }

    /// Takes back what [`Entry::to_bytes`] kept.
    ///
    /// # Errors
    /// When it is damaged, or other maintainers' than those of this log.
    pub fn restore(&mut self, kept: &[u8]) -> Result<(), Refused> {
        let mut reader = Reader::new(kept);
        let held = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Value.into()),
        };
        let (hits, taken) = (reader.u32()?, reader.u64()?);
        let bytes = reader.rest().to_vec();
        let command = Signed::from_bytes(&bytes)?.check(&self.keys)?;
        let id = command.id();
        self.entries.insert(command.serial, Entry { command, bytes, held, hits, taken, id });
        Ok(())
    }

    /// Takes back what [`Self::rival`] gave.
    ///
    /// # Errors
    /// When it is damaged, or other maintainers' than those of this log.
    pub fn restore_rival(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        Signed::from_bytes(bytes)?.check(&self.keys)?;
        self.rival = Some(bytes.to_vec());
        Ok(())
    }

    /// Takes a command that somebody sent, as [`Self::judge`] says. True: it waits for the operator.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn take(
        &mut self,
        now: u64,
        bytes: &[u8],
        ignored: &BTreeSet<Kind>,
        known: &[NodeContact],
    ) -> Result<bool, Refused> {
        let entry = self.judge(now, bytes, ignored, known)?;
        let held = entry.held;
        self.put(entry);
        Ok(held)
    }

    /// What is to be kept of a command that somebody sent, at `now` (seconds since 1970). `known`: the nodes that this one knows, itself
    /// not among them; it decides whether the command waits for the operator.
    ///
    /// # Errors
    /// See [`Refused`]. That there are two of one serial stays known.
    // protocol: M10, M11
    pub fn judge(
        &mut self,
        now: u64,
        bytes: &[u8],
        ignored: &BTreeSet<Kind>,
        known: &[NodeContact],
    ) -> Result<Entry, Refused> {
        // As cheap as can be: what is here already comes again and again.
        if self.entries.values().any(|entry| entry.bytes == bytes) {
            return Err(Refused::Known);
        }
        let command = Signed::from_bytes(bytes)?.check(&self.keys)?;
        if command.issued > now.saturating_add(CLOCK_SKEW) {
            return Err(Refused::FromTheFuture);
        }
        let id = command.id();
        if let Err(why) = self.fits(&command, id) {
            if why == Refused::Forked {
                self.rival.get_or_insert_with(|| bytes.to_vec());
            }
            return Err(why);
        }
        let (held, hits) = self.weigh(now, &command, ignored, known);
        Ok(Entry { command, bytes: bytes.to_vec(), held, hits, taken: now, id })
    }

    /// Keeps a command that was judged; the oldest make room.
    pub fn put(&mut self, entry: Entry) {
        let serial = entry.command.serial;
        let kept = self.highest().max(serial).saturating_sub(KEPT);
        self.entries.retain(|serial, _| *serial > kept);
        self.entries.insert(serial, entry);
    }

    /// Whether it has a place in the chain.
    fn fits(&self, command: &Command, id: Hash32) -> Result<(), Refused> {
        if let Some(standing) = self.entries.get(&command.serial) {
            if standing.id == id {
                return Err(Refused::Known);
            }
            return Err(Refused::Forked);
        }
        if command.serial <= self.highest().saturating_sub(KEPT) {
            return Err(Refused::TooOld);
        }
        let before = match command.serial {
            1 => Some(self.keys.root()),
            serial => self.entries.get(&(serial - 1)).map(|entry| entry.id),
        };
        let after = command.serial.checked_add(1).and_then(|next| self.entries.get(&next));
        let follows = before.is_none_or(|id| id == command.predecessor);
        let followed = after.is_none_or(|after| after.command.predecessor == id);
        if follows && followed { Ok(()) } else { Err(Refused::Predecessor) }
    }

    /// Whether it would ban too many together with those in force, and how many of the known nodes it bans itself.
    // protocol: M12
    fn weigh(&self, now: u64, new: &Command, ignored: &BTreeSet<Kind>, known: &[NodeContact]) -> (bool, u32) {
        let hit = |bans: &Bans| known.iter().filter(|node| bans.of_contact(node).is_some()).count();
        let alone = hit(&Bans::of(now, ignored, [(now, new)]));
        let others: Vec<_> = self.in_force().collect();
        let before = hit(&Bans::of(now, ignored, others.iter().copied()));
        let mut all = others;
        all.push((now, new));
        all.sort_by_key(|(_, command)| command.serial);
        let after = hit(&Bans::of(now, ignored, all));
        // Of few nodes the share is less than one.
        let held = after > before && after > (known.len() / SHARE).max(1);
        (held, u32::try_from(alone).unwrap_or(u32::MAX))
    }

    /// The operator's word for a command that waits. `None`: there is no such.
    pub fn allow(&mut self, serial: u64) -> Option<&Entry> {
        let entry = self.entries.get_mut(&serial).filter(|entry| entry.held)?;
        entry.held = false;
        Some(entry)
    }

    /// What those in force come to.
    pub fn bans(&self, now: u64, ignored: &BTreeSet<Kind>) -> Bans {
        Bans::of(now, ignored, self.in_force())
    }

    fn in_force(&self) -> impl Iterator<Item = (u64, &Command)> {
        self.entries.values().filter(|entry| !entry.held).map(|entry| (entry.taken, &entry.command))
    }

    /// Records that commands in force insert.
    pub fn inserted<'a>(&'a self, now: u64, ignored: &BTreeSet<Kind>) -> Vec<&'a [u8]> {
        if ignored.contains(&Kind::Insert) {
            return Vec::new();
        }
        let live = self.entries.values().filter(|entry| !entry.held && entry.command.expires > now);
        let record = |action: &'a Action| match action {
            Action::Insert(record) => Some(record.as_slice()),
            _ => None,
        };
        live.flat_map(|entry| &entry.command.actions).filter_map(record).collect()
    }

    /// Those that are kept, by serial.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.values()
    }

    /// The highest serial; 0: there is no command.
    pub fn highest(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(serial, _)| *serial)
    }

    /// What the next command names as its predecessor.
    pub fn tip(&self) -> Hash32 {
        self.entries.last_key_value().map_or_else(|| self.keys.root(), |(_, entry)| entry.id)
    }

    /// The serial above which others are to be asked: behind it one is missing, or none is known.
    pub fn asks_above(&self) -> u64 {
        let first = self.highest().saturating_sub(KEPT);
        (first + 1..=self.highest()).take_while(|serial| self.entries.contains_key(serial)).last().unwrap_or(first)
    }

    /// How many are missing below the highest: somebody withholds them.
    // protocol: M11
    pub fn missing(&self) -> u64 {
        self.highest().min(KEPT).saturating_sub(self.entries.len() as u64)
    }

    /// Whether maintainers have signed two commands with one serial.
    pub fn is_forked(&self) -> bool {
        self.rival.is_some()
    }

    /// The second command of some serial, for the disk.
    pub fn rival(&self) -> Option<&[u8]> {
        self.rival.as_deref()
    }

    /// Whose commands these are.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }
}
