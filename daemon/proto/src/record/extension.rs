//! Extensions at the end of a node record: room for what later versions say, kept and signed by all, ignored by who does not know it.

use crate::wire::{Reader, Wire, WireError, Writer};

/// Longest list of extensions of one record, in bytes: with it a node record stays below the longest record.
pub const EXTENSIONS_MAX: usize = 1024;

/// One typed extension: kind(2) ‖ length(2) ‖ value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// What it is; none is defined in this version.
    pub kind: u16,
    /// Its value.
    pub value: Vec<u8>,
}

/// A record's extensions: each kind at most once, in ascending order, so that a set of them has one encoding.
// protocol: R6, R7
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions(Vec<Extension>);

impl Extensions {
    /// These extensions. `None`: kinds are not ascending, or it is more than a record takes.
    pub fn new(extensions: Vec<Extension>) -> Option<Self> {
        let ascending = extensions.windows(2).all(|pair| pair[0].kind < pair[1].kind);
        let length: usize = extensions.iter().map(|one| 4 + one.value.len()).sum();
        (ascending && length <= EXTENSIONS_MAX).then_some(Self(extensions))
    }

    /// The value of this kind.
    pub fn value(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|one| one.kind == kind).map(|one| one.value.as_slice())
    }
}

/// length(2) of what follows ‖ extensions.
impl Wire for Extensions {
    fn write(&self, out: &mut Writer) {
        let mut list = Writer::default();
        for one in &self.0 {
            list.u16(one.kind);
            list.bytes16(&one.value);
        }
        out.bytes16(&list.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut list = Reader::new(reader.bytes16(EXTENSIONS_MAX)?);
        let mut extensions = Vec::new();
        while list.finish().is_err() {
            extensions.push(Extension { kind: list.u16()?, value: list.bytes16(EXTENSIONS_MAX)?.to_vec() });
        }
        Self::new(extensions).ok_or(WireError::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> impl Strategy<Value = Extensions> {
        let values = prop::collection::btree_map(any::<u16>(), prop::collection::vec(any::<u8>(), 0..60), 0..16);
        values.prop_map(|map| {
            Extensions::new(map.into_iter().map(|(kind, value)| Extension { kind, value }).collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn extensions_round_trip(extensions in some()) {
            prop_assert_eq!(Extensions::from_bytes(&extensions.to_bytes()), Ok(extensions));
        }

        #[test]
        fn extensions_have_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(extensions) = Extensions::from_bytes(&bytes) {
                prop_assert_eq!(extensions.to_bytes(), bytes);
            }
        }
    }

    // protocol: R6
    #[test]
    fn what_is_out_of_order_or_too_long_is_refused() {
        let one = |kind, length| Extension { kind, value: vec![0; length] };
        assert!(Extensions::new(vec![one(1, 0), one(2, EXTENSIONS_MAX - 8)]).is_some());
        assert!(Extensions::new(vec![one(1, 0), one(2, EXTENSIONS_MAX - 7)]).is_none());
        for twice in [[one(1, 0), one(1, 0)], [one(2, 0), one(1, 0)]] {
            let bytes = Extensions(twice.to_vec()).to_bytes();
            assert_eq!(Extensions::from_bytes(&bytes), Err(WireError::Value));
        }
        let long = [&[4, 1][..], &[0; 1025]].concat();
        assert_eq!(Extensions::from_bytes(&long), Err(WireError::TooLong));
        assert_eq!(Extensions::from_bytes(&[0, 3, 0, 1, 0]), Err(WireError::Short));
    }
}
