//! How a node that comes late, or missed some, gets the commands that it has not: a question and an answer.

use super::{Log, Signed};
use crate::wire::{Reader, Wire, WireError, Writer};

/// Longest answer in bytes; who asked asks again while answers bring something new.
// protocol: M15
pub const ANSWER_MAX: usize = 65_536;

/// The question: commands above this serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Above(pub u64);

/// Serial(8).
// protocol: M15
impl Wire for Above {
    fn write(&self, out: &mut Writer) {
        out.u64(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(reader.u64()?))
    }
}

/// The answer: signed commands, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer(pub Vec<Vec<u8>>);

impl Answer {
    /// What a log has above a serial: the lowest serials, as many as fit.
    pub fn of(log: &Log, above: Above) -> Self {
        let mut room = ANSWER_MAX;
        let fits = |bytes: &Vec<u8>| {
            room = room.saturating_sub(2 + bytes.len());
            room > 0
        };
        let above = log.entries().filter(|entry| entry.command.serial > above.0);
        Self(above.map(|entry| entry.bytes.clone()).take_while(fits).collect())
    }
}

/// Any number of length(2) and signed command.
// protocol: M15
impl Wire for Answer {
    fn write(&self, out: &mut Writer) {
        self.0.iter().for_each(|bytes| out.bytes16(bytes));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut commands = Vec::new();
        while reader.finish().is_err() {
            commands.push(reader.bytes16(Signed::LEN_MAX)?.to_vec());
        }
        Ok(Self(commands))
    }
}
