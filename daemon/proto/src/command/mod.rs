//! Override commands: what maintainers may do to a network that is attacked, and nothing else (docs/protocol.md, section 7.6).
//!
//! ```text
//!   bytes ──▶ Signed ── KeySet::check ──▶ Command ──▶ Log (chain of serials) ──▶ Bans: who is kept out, which keys are empty
//!                                                        └─▶ records to be inserted, under the database's own rules
//! ```
//!
//! No command reaches anything but these two: [`Action`] is all that the decoder knows.

mod action;
mod bans;
mod catch_up;
mod keys;
mod log;
mod signed;

#[cfg(test)]
mod tests;

pub use action::{Action, Kind, Range, RangeError, Target, key_of};
pub use bans::{Ban, Bans};
pub use catch_up::{ANSWER_MAX, Above, Answer};
pub use keys::{KEYS_MAX, KeySet, KeySetError};
pub use log::{Entry, KEPT, Log, Refused, SHARE};
pub use signed::{Bundle, Signed};

use crate::crypto::{Hash32, derive};
use crate::wire::{Reader, Wire, WireError, Writer};

/// Longest body of a command in bytes: three node records, or some hundred bans.
// protocol: M2
pub const COMMAND_MAX: usize = 8192;

/// Most actions of one command.
// protocol: M2
pub const ACTIONS_MAX: usize = 64;

/// Longest life of a command in seconds: 30 days. What is still needed then is said anew.
// protocol: M3
pub const LIFE_MAX: u64 = 30 * 24 * 3600;

const VERSION: u8 = 1;

/// One command, as maintainers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its number: 1 for the first of a network, then one more each time.
    pub serial: u64,
    /// [`Command::id`] of the one before it; [`KeySet::root`] for the first.
    pub predecessor: Hash32,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// When its effects end, in seconds since 1970; at most [`LIFE_MAX`] after it was made.
    pub expires: u64,
    /// What it does, in this order.
    pub actions: Vec<Action>,
}

impl Command {
    /// The hash by which its successor names it.
    // protocol: M4
    pub fn id(&self) -> Hash32 {
        derive("phantom v1 command id", &[&self.to_bytes()])
    }

    fn holds(&self) -> bool {
        let fits = |action: &Action| match action {
            Action::Remove { until, .. } => (self.issued..=self.expires).contains(until),
            Action::Insert(record) => key_of(record, self.issued).is_some(),
            Action::Ban(_) | Action::Unban(_) => true,
        };
        self.serial > 0
            && self.expires.checked_sub(self.issued).is_some_and(|life| (1..=LIFE_MAX).contains(&life))
            && (1..=ACTIONS_MAX).contains(&self.actions.len())
            && self.actions.iter().all(fits)
    }
}

/// Version (01), serial(8), predecessor(32), issued(8), expires(8), count(1), actions.
// protocol: M1, M2, M3, M8
impl Wire for Command {
    fn write(&self, out: &mut Writer) {
        out.u8(VERSION);
        out.u64(self.serial);
        out.bytes(&self.predecessor);
        out.u64(self.issued);
        out.u64(self.expires);
        out.u8(u8::try_from(self.actions.len()).unwrap_or(u8::MAX));
        self.actions.iter().for_each(|action| action.write(out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.u8()? != VERSION {
            return Err(WireError::Value);
        }
        let (serial, predecessor) = (reader.u64()?, reader.array()?);
        let (issued, expires) = (reader.u64()?, reader.u64()?);
        let count = usize::from(reader.u8()?);
        if count > ACTIONS_MAX {
            return Err(WireError::TooLong);
        }
        let actions = (0..count).map(|_| Action::read(reader)).collect::<Result<_, _>>()?;
        let command = Self { serial, predecessor, issued, expires, actions };
        if command.holds() { Ok(command) } else { Err(WireError::Value) }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > COMMAND_MAX {
            return Err(WireError::TooLong);
        }
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}
