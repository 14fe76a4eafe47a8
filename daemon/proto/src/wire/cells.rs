//! What the first cell of a tunnel says, beyond its kind (docs/protocol.md, section 5.2).

use super::{Reader, Wire, WireError, Writer};
use crate::cell::CELL_DATA_MAX;
use crate::ident::{ApAddress, NodeId};

/// Length of a path's name in routing entries and in JOIN.
pub const HANDLE_LEN: usize = 16;

/// A path's name in routing entries and in JOIN.
pub type Handle = [u8; HANDLE_LEN];

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..CELL_DATA_MAX + 2)) {
            if let Ok(open) = Open::from_bytes(&bytes) {
                prop_assert_eq!(open.to_bytes(), bytes.clone());
            }
            if let Ok(lookup) = Lookup::from_bytes(&bytes) {
                prop_assert_eq!(lookup.to_bytes(), bytes);
            }
        }
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
