//! What the ends of a tunnel say: the kinds of cells, and what each carries (docs/protocol.md, section 5.2).

use std::borrow::Cow;

use super::frame::{CELL_LEN, HANDLE_LEN, Handle, Reason};
use super::{Reader, Wire, WireError, Writer};
use crate::ident::{ApAddress, NodeId};

/// Redundancy at the start of a cell: zeros, which a changed cell shows with probability 2⁻¹²⁸.
pub const TAG_LEN: usize = 16;

/// Before a cell's data: tag(16) ‖ kind(1) ‖ length(2).
pub const CELL_HEADER_LEN: usize = TAG_LEN + 1 + 2;

/// Most bytes of data in one cell.
pub const CELL_DATA_MAX: usize = CELL_LEN - CELL_HEADER_LEN;

/// What a cell is for (docs/protocol.md, section "Cells").
// protocol: U1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CellKind {
    /// Owner to terminating node: join this handle at this entry node; the session's first bytes.
    Open = 1,
    /// Owner to terminating node: the AP record of this address, please.
    Lookup = 2,
    /// Bytes of the session.
    Data = 3,
    /// No more data from this side.
    End = 4,
    /// This side gives up; a reason.
    Abort = 5,
    /// Nothing.
    Padding = 6,
    /// Terminating node to owner: somebody connects; the session's first bytes.
    Incoming = 7,
    /// Owner to terminating node: serve and publish this AP record, or, empty, serve no more.
    Serve = 8,
    /// Terminating node to owner: the AP record that was asked for.
    Found = 9,
}

impl CellKind {
    /// The kind with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte)
    }

    /// All of them, by number.
    pub(crate) const ALL: [Self; 9] = [
        Self::Open,
        Self::Lookup,
        Self::Data,
        Self::End,
        Self::Abort,
        Self::Padding,
        Self::Incoming,
        Self::Serve,
        Self::Found,
    ];
}

/// OPEN: node id(32) ‖ handle(16) ‖ first bytes of the session. Whom the entry node serves under the handle is not said.
#[derive(Clone, PartialEq, Eq)]
pub struct Open {
    /// The entry node to ask.
    pub node: NodeId,
    /// The entry path there.
    pub handle: Handle,
    /// At most [`Open::FIRST_MAX`].
    pub first: Vec<u8>,
}

impl Open {
    /// Bytes of the session that fit into the cell.
    pub const FIRST_MAX: usize = CELL_DATA_MAX - 32 - HANDLE_LEN;
}

/// Without what leads to an AP address.
impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open({} bytes)", self.first.len())
    }
}

impl Wire for Open {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.node.0);
        out.bytes(&self.handle);
        out.bytes(&self.first);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (node, handle) = (NodeId(reader.array()?), reader.array()?);
        let first = reader.rest();
        if first.len() > Self::FIRST_MAX {
            return Err(WireError::TooLong);
        }
        Ok(Self { node, handle, first: first.to_vec() })
    }
}

/// LOOKUP: AP address(16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup(pub ApAddress);

impl Wire for Lookup {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.0.octets());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        ApAddress::from_bytes(reader.array()?).map(Self).ok_or(WireError::Value)
    }
}

/// What one cell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<'a> {
    /// [`CellKind::Open`].
    Open(Open),
    /// [`CellKind::Lookup`].
    Lookup(Lookup),
    /// [`CellKind::Data`].
    Data(&'a [u8]),
    /// [`CellKind::End`].
    End,
    /// [`CellKind::Abort`].
    Abort(Reason),
    /// [`CellKind::Padding`].
    Padding,
    /// [`CellKind::Incoming`].
    Incoming(&'a [u8]),
    /// [`CellKind::Serve`].
    Serve(&'a [u8]),
    /// [`CellKind::Found`].
    Found(&'a [u8]),
}

impl<'a> Word<'a> {
    /// What a cell of this kind with this data says.
    pub fn read(kind: CellKind, data: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(data);
        let word = match kind {
            CellKind::Open => Self::Open(Open::read(&mut reader)?),
            CellKind::Lookup => Self::Lookup(Lookup::read(&mut reader)?),
            CellKind::Data => Self::Data(reader.rest()),
            CellKind::End => Self::End,
            CellKind::Abort => Self::Abort(Reason::from_byte(reader.u8()?)),
            CellKind::Padding => Self::Padding,
            CellKind::Incoming => Self::Incoming(reader.rest()),
            CellKind::Serve => Self::Serve(reader.rest()),
            CellKind::Found => Self::Found(reader.rest()),
        };
        reader.finish()?;
        Ok(word)
    }

    /// The kind of its cell.
    pub fn kind(&self) -> CellKind {
        match self {
            Self::Open(_) => CellKind::Open,
            Self::Lookup(_) => CellKind::Lookup,
            Self::Data(_) => CellKind::Data,
            Self::End => CellKind::End,
            Self::Abort(_) => CellKind::Abort,
            Self::Padding => CellKind::Padding,
            Self::Incoming(_) => CellKind::Incoming,
            Self::Serve(_) => CellKind::Serve,
            Self::Found(_) => CellKind::Found,
        }
    }

    /// The data of its cell.
    pub fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Open(open) => Cow::Owned(open.to_bytes()),
            Self::Lookup(lookup) => Cow::Owned(lookup.to_bytes()),
            Self::End | Self::Padding => Cow::Borrowed(&[]),
            Self::Abort(reason) => Cow::Owned(vec![*reason as u8]),
            Self::Data(bytes) | Self::Incoming(bytes) | Self::Serve(bytes) | Self::Found(bytes) => Cow::Borrowed(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::SigningKey;

    proptest! {
        #[test]
        fn one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..CELL_DATA_MAX + 2)) {
            if let Ok(open) = Open::from_bytes(&bytes) {
                prop_assert_eq!(open.to_bytes(), bytes.clone());
            }
            if let Ok(lookup) = Lookup::from_bytes(&bytes) {
                prop_assert_eq!(lookup.to_bytes(), bytes.clone());
            }
            for kind in CellKind::ALL {
                match Word::read(kind, &bytes) {
                    Ok(Word::Abort(reason)) => prop_assert!(bytes.len() == 1 && reason == Reason::from_byte(bytes[0])),
                    Ok(word) => prop_assert_eq!((word.kind(), &*word.data()), (kind, &bytes[..])),
                    Err(_) => {}
                }
            }
        }
    }

    /// Lines of kind, name and data, computed by scripts/vectors/words.py.
    #[test]
    fn vectors() {
        let address = ApAddress::of(&SigningKey::from_seed(&[1; 32]).verifying_key());
        let open =
            |first: &[u8]| Word::Open(Open { node: NodeId([0xa1; 32]), handle: [0xb2; 16], first: first.to_vec() });
        let mut seen = 0;
        for line in include_str!("../../vectors/words.txt").lines().filter(|line| !line.starts_with('#')) {
            let [number, name, data] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let kind = CellKind::from_byte(number.parse().unwrap()).unwrap();
            let data = hex::decode(data.trim_start_matches('-')).unwrap();
            let expected = match name {
                "open" => open(b"first"),
                "open-alone" => open(b""),
                "lookup" => Word::Lookup(Lookup(address)),
                "data" => Word::Data(b"data"),
                "end" => Word::End,
                "abort" => Word::Abort(Reason::Unreachable),
                "padding" => Word::Padding,
                "incoming" => Word::Incoming(b"first"),
                "withdraw" => Word::Serve(b""),
                "serve" => Word::Serve(b"record"),
                "found" => Word::Found(b"record"),
                bad => {
                    assert!(bad.starts_with("bad-"), "{bad}");
                    assert!(Word::read(kind, &data).is_err(), "{bad}");
                    continue;
                }
            };
            assert_eq!((expected.kind(), &*expected.data()), (kind, &data[..]), "{name}");
            assert_eq!(Word::read(kind, &data), Ok(expected), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 11);
    }

    #[test]
    fn what_does_not_fit_a_cell_or_is_no_ap_address_is_refused() {
        let open = |len| Open { node: NodeId([1; 32]), handle: [2; 16], first: vec![3; len] }.to_bytes();
        assert_eq!(open(Open::FIRST_MAX).len(), CELL_DATA_MAX);
        assert!(Open::from_bytes(&open(Open::FIRST_MAX)).is_ok());
        assert_eq!(Open::from_bytes(&open(Open::FIRST_MAX + 1)), Err(WireError::TooLong));
        assert_eq!(Lookup::from_bytes(&[1; 16]), Err(WireError::Value));
    }
}
