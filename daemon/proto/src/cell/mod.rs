//! The cell layer: what hops and ends do to the cells of one tunnel (docs/protocol.md, section "Cells").
//!
//! ```text
//!            owner                 hop 1      hop 2      end
//!  outgoing  wrap: D3, D2, D1  ──▶  E1  ──▶    E2  ──▶    E3 = plain
//!  incoming  peel: D1, D2, D3  ◀──  E1  ◀──    E2  ◀──    E3(plain)
//! ```
//!
//! Hops and the terminating node encipher in both directions, so that nothing in their work tells the direction; the owner
//! deciphers. A layer is the wide-block permutation under `derive("phantom v1 cells onward" | "phantom v1 cells backward",
//! tunnel key)`. Its tweak is 16 zero bytes for the first cell, and from then on L xor L': the first 16 bytes of the last cell
//! before enciphering, xor those after it.
//!
//! **Why both sides.** A cell that is changed, lost, repeated or out of order must turn itself and all that follow into noise.
//! With the output alone, the last layer outwards would have a constant tweak (its output is the plain cell's constant tag), and
//! on the way back a change behind the tag would leave the chain in step. With both, two ends stay in step exactly when they
//! agree on L and L' of every layer, and to bring them back in step an attacker must forge 128 bits.
//!
//! **What remains.** A bit changed on the link next to the far end, on the way back, passes through to the owner as that same
//! bit of data: the layer behind it is the innermost one, and deciphering lets it through (see [`crate::crypto::wide`]). The tag
//! of that cell and the whole of all that follow are noise all the same, so no end ever takes a changed byte.

mod body;

pub use crate::wire::cells::{CELL_DATA_MAX, CellKind, TAG_LEN};
pub use crate::wire::frame::CELL_LEN;
pub use body::{Cell, CellError};

use zeroize::Zeroizing;

use crate::crypto::derive;
use crate::crypto::wide::WideKey;

/// One hop's key of one tunnel.
#[derive(Clone)]
pub struct TunnelKey(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for TunnelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TunnelKey(…)")
    }
}

/// Which way a cell goes, seen from the tunnel's set-up: it says nothing of the owner's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the starter to the far end.
    Onward,
    /// From the far end to the starter.
    Backward,
}

impl Direction {
    /// The other one.
    pub fn reverse(self) -> Self {
        match self {
            Self::Onward => Self::Backward,
            Self::Backward => Self::Onward,
        }
    }
}

/// One hop's layer, in one direction of one tunnel.
pub struct Layer {
    wide: WideKey,
    tweak: [u8; 16],
}

impl Layer {
    /// The layer that belongs to a tunnel key and a direction.
    // protocol: X2
    pub fn new(key: &TunnelKey, direction: Direction) -> Self {
        let context = match direction {
            Direction::Onward => "phantom v1 cells onward",
            Direction::Backward => "phantom v1 cells backward",
        };
        Self { wide: WideKey::new(&Zeroizing::new(derive(context, &[&*key.0]))), tweak: [0; 16] }
    }

    /// What hops and the terminating node do. False, and nothing done: not [`CELL_LEN`] bytes.
    #[must_use]
    pub fn encipher(&mut self, cell: &mut [u8]) -> bool {
        self.turn(cell, WideKey::encipher)
    }

    /// Undoes [`Layer::encipher`] of a layer with the same key. False, and nothing done: not [`CELL_LEN`] bytes.
    #[must_use]
    pub fn decipher(&mut self, cell: &mut [u8]) -> bool {
        self.turn(cell, WideKey::decipher)
    }

    // protocol: X3
    fn turn(&mut self, cell: &mut [u8], permute: impl FnOnce(&WideKey, &[u8; 16], &mut [u8])) -> bool {
        if cell.len() != CELL_LEN {
            return false;
        }
        let before = left_of(cell);
        permute(&self.wide, &self.tweak, cell);
        self.tweak = (before ^ left_of(cell)).to_ne_bytes();
        true
    }
}

/// The left part of a cell, as a number to xor.
fn left_of(cell: &[u8]) -> u128 {
    cell.first_chunk().map_or(0, |left| u128::from_ne_bytes(*left))
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer(…)")
    }
}

/// The owner's side of all layers, in one direction of one tunnel.
#[derive(Debug)]
pub struct OwnerCrypt {
    /// Nearest hop first.
    layers: Vec<Layer>,
}

impl OwnerCrypt {
    /// From the tunnel keys of all hops, nearest first.
    pub fn new(keys: &[TunnelKey], direction: Direction) -> Self {
        Self { layers: keys.iter().map(|key| Layer::new(key, direction)).collect() }
    }

    /// Prepares an outgoing cell so that the hops' work makes it plain at the end. False: not [`CELL_LEN`] bytes.
    // protocol: X4
    #[must_use]
    pub fn wrap(&mut self, cell: &mut [u8]) -> bool {
        self.layers.iter_mut().rev().all(|layer| layer.decipher(cell))
    }

    /// Takes the hops' work off an incoming cell. False: not [`CELL_LEN`] bytes.
    // protocol: X4, X5
    #[must_use]
    pub fn peel(&mut self, cell: &mut [u8]) -> bool {
        self.layers.iter_mut().all(|layer| layer.decipher(cell))
    }
}

#[cfg(test)]
mod tests;
