//! What is inside a cell, once all layers are off.

use crate::crypto::hash::same;
use crate::wire::cells::{CELL_HEADER_LEN, CellKind, TAG_LEN};
use crate::wire::frame::CELL_LEN;

/// Why bytes are no cell: they were changed on their way, or the other end is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// The redundancy is wrong: a bit was changed, or a cell lost, repeated or moved.
    #[error("cell was changed on its way")]
    Changed,
    /// An undefined kind or length.
    #[error("cell is malformed")]
    Malformed,
    /// More data than a cell holds.
    #[error("too much data for one cell")]
    TooLong,
}

/// A cell in the clear: tag(16 zeros) ‖ kind(1) ‖ length(2) ‖ data ‖ padding to the fixed length.
///
/// Padding is zeros, and anything else is an error: one value has one encoding, and no end can hide bytes in a cell. Random
/// padding would hide nothing more, since the layers make all of the cell look random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// What it is for.
    pub kind: CellKind,
    /// At most [`CELL_DATA_MAX`](super::CELL_DATA_MAX) bytes.
    pub data: &'a [u8],
}

impl<'a> Cell<'a> {
    /// Writes the cell over all of `out`.
    // protocol: X1
    pub fn encode(&self, out: &mut [u8; CELL_LEN]) -> Result<(), CellError> {
        let len = u16::try_from(self.data.len()).map_err(|_| CellError::TooLong)?;
        let end = CELL_HEADER_LEN + self.data.len();
        out.get(..end).ok_or(CellError::TooLong)?;
        out[..TAG_LEN].fill(0);
        out[TAG_LEN] = self.kind as u8;
        out[TAG_LEN + 1..CELL_HEADER_LEN].copy_from_slice(&len.to_be_bytes());
        out[CELL_HEADER_LEN..end].copy_from_slice(self.data);
        out[end..].fill(0);
        Ok(())
    }

    /// Reads a cell whose layers are off.
    // protocol: X1, X6
    pub fn decode(cell: &'a [u8]) -> Result<Self, CellError> {
        if cell.len() != CELL_LEN {
            return Err(CellError::Malformed);
        }
        let (tag, rest) = cell.split_first_chunk::<TAG_LEN>().ok_or(CellError::Malformed)?;
        if !same(tag, &[0; TAG_LEN]) {
            return Err(CellError::Changed);
        }
        let ([kind, high, low], rest) = rest.split_first_chunk().ok_or(CellError::Malformed)?;
        let kind = CellKind::from_byte(*kind).ok_or(CellError::Malformed)?;
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (data, padding) = rest.split_at_checked(len).ok_or(CellError::Malformed)?;
        // No early exit: that compares many bytes at a time.
        match padding.iter().fold(0, |all, byte| all | byte) {
            0 => Ok(Self { kind, data }),
            _ => Err(CellError::Malformed),
        }
    }
}
