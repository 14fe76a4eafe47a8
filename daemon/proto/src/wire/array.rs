//! The frame that builds routing paths (kind 01) and the packages inside its slots (docs/protocol.md, section 4).

use std::fmt;

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{NodeContact, Reader, Wire, WireError, Writer};
use crate::crypto::Hash32;
use crate::ident::{NodeId, PathId};

/// Slots in each of the two arrays: the largest circle has 11 nodes and its owner.
pub const SLOTS: usize = 12;

/// Length of a slot of the setup array in bytes.
pub const SLOT_LEN: usize = 2560;

/// Length of a slot of the reply array in bytes.
pub const REPLY_LEN: usize = 1168;

/// Length of the tag with which a node finds its slot.
pub const TAG_LEN: usize = 16;

/// Length of an ML-KEM-768 public key.
pub const KEM_KEY_LEN: usize = 1184;

/// Length of an ML-KEM-768 ciphertext.
pub const KEM_CT_LEN: usize = 1088;

/// Length of the padded payload of round 1: fills the slot behind tag, ciphertext, Noise key and Noise tag.
pub const FIRST_LEN: usize = SLOT_LEN - TAG_LEN - KEM_CT_LEN - 32 - 16;

/// Length of the padded payload of round 2: fills the slot behind tag and AEAD tag.
pub const SECOND_LEN: usize = SLOT_LEN - TAG_LEN - 16;

/// Length of the padded payload of Noise message 2 in round 1.
pub const FIRST_REPLY_LEN: usize = REPLY_LEN - KEM_CT_LEN - 32 - 16;

/// Length of the padded payload of a reply of round 2.
pub const SECOND_REPLY_LEN: usize = REPLY_LEN - 16;

/// Version of the packages.
// protocol: Y5
const VERSION: u8 = 1;

/// A slot of the setup array.
pub type Slot = [u8; SLOT_LEN];

/// A slot of the reply array.
pub type Reply = [u8; REPLY_LEN];

/// Names one build between two neighbours on its circle: every such pair has an id of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub [u8; 16]);

impl BuildId {
    /// A new random id.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Self(id)
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({}…)", HEXLOWER.encode(&self.0[..4]))
    }
}

/// What travels round the circle: the payload of a frame of kind 01. Always full, always of the same length.
#[derive(Clone, PartialEq, Eq)]
pub struct ArrayFrame {
    /// The build, as these two neighbours call it.
    pub build: BuildId,
    /// Packages to the nodes, one per node.
    pub setup: Box<[Slot; SLOTS]>,
    /// Answers to the owner, one per node.
    pub replies: Box<[Reply; SLOTS]>,
}

impl ArrayFrame {
    /// Length of the encoding in bytes.
    pub const LEN: usize = 16 + SLOTS * (SLOT_LEN + REPLY_LEN);
}

/// Without the arrays: they are 45 kB of noise.
impl fmt::Debug for ArrayFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayFrame").field("build", &self.build).finish_non_exhaustive()
    }
}

impl Wire for ArrayFrame {
    fn write(&self, out: &mut Writer) {
        out.0.reserve(Self::LEN);
        out.bytes(&self.build.0);
        out.bytes(self.setup.as_flattened());
        out.bytes(self.replies.as_flattened());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let build = BuildId(reader.array()?);
        let (mut setup, mut replies) = (empty::<SLOT_LEN>(), empty::<REPLY_LEN>());
        setup.as_flattened_mut().copy_from_slice(reader.bytes(SLOTS * SLOT_LEN)?);
        replies.as_flattened_mut().copy_from_slice(reader.bytes(SLOTS * REPLY_LEN)?);
        Ok(Self { build, setup, replies })
    }
}

/// An array of zeros, made on the heap: arrays are too large for the stack of a busy task.
pub fn empty<const LEN: usize>() -> Box<[[u8; LEN]; SLOTS]> {
    vec![[0; LEN]; SLOTS].into_boxed_slice().try_into().expect("SLOTS slots were made")
}

/// A message that fills its place: bytes behind it must be zero.
// protocol: P5
pub fn read_padded<T: Wire>(bytes: &[u8]) -> Result<T, WireError> {
    let mut reader = Reader::new(bytes);
    let value = T::read(&mut reader)?;
    if reader.rest().iter().any(|byte| *byte != 0) {
        return Err(WireError::Leftover);
    }
    Ok(value)
}

/// Writes a message and pads it with zeros to `len`. The bytes are wiped when dropped: packages hold keys.
///
/// # Errors
/// [`WireError::TooLong`] when the message is longer than `len`.
pub fn write_padded<T: Wire>(value: &T, len: usize) -> Result<Zeroizing<Vec<u8>>, WireError> {
    // Room for the largest message at once: growing would leave copies behind that nobody wipes.
    let mut out = Writer(Vec::with_capacity(SLOT_LEN));
    value.write(&mut out);
    let mut bytes = Zeroizing::new(out.0);
    if bytes.len() > len {
        return Err(WireError::TooLong);
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Instructions of round 1, to one node.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstPackage {
    /// The package is refused after this time (Unix seconds).
    pub expires: u64,
    /// To this key the node encapsulates the secret that makes the answer secure against later theft of its keys.
    pub ephemeral: Box<[u8; KEM_KEY_LEN]>,
    /// Keys the node's transformation of the arrays.
    pub array_key: Zeroizing<Hash32>,
    /// MAC over the setup array as the node must receive it, its own slot zeroed.
    pub array_mac: Hash32,
    /// Where the node puts its reply; below [`SLOTS`].
    pub reply_index: u8,
    /// From whom the array must come.
    pub previous: NodeId,
    /// The id with which it comes.
    pub build_in: BuildId,
    /// The id with which it goes on.
    pub build_out: BuildId,
    /// To whom it goes on.
    pub next: NodeContact,
}

impl Wire for FirstPackage {
    fn write(&self, out: &mut Writer) {
        out.u8(VERSION);
        out.u64(self.expires);
        out.bytes(&self.ephemeral[..]);
        out.bytes(&self.array_key[..]);
        out.bytes(&self.array_mac);
        out.u8(self.reply_index);
        out.bytes(&self.previous.0);
        out.bytes(&self.build_in.0);
        out.bytes(&self.build_out.0);
        self.next.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.u8()? != VERSION {
            return Err(WireError::Value);
        }
        let expires = reader.u64()?;
        let ephemeral = Box::new(reader.array()?);
        let array_key = Zeroizing::new(reader.array()?);
        let array_mac = reader.array()?;
        let reply_index = reader.u8()?;
        if usize::from(reply_index) >= SLOTS {
            return Err(WireError::Value);
        }
        Ok(Self {
            expires,
            ephemeral,
            array_key,
            array_mac,
            reply_index,
            previous: NodeId(reader.array()?),
            build_in: BuildId(reader.array()?),
            build_out: BuildId(reader.array()?),
            next: NodeContact::read(reader)?,
        })
    }
}

/// One side of a node on a routing path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The neighbour there.
    pub neighbour: NodeContact,
    /// The segment's id, known to both of its nodes.
    pub path: PathId,
    /// Whether this node dials the neighbour, or is dialed by it.
    pub dial: bool,
}

impl Wire for Segment {
    fn write(&self, out: &mut Writer) {
        self.neighbour.write(out);
        out.bytes(&self.path.0);
        out.u8(self.dial.into());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let neighbour = NodeContact::read(reader)?;
        let path = PathId(reader.array()?);
        let dial = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Value),
        };
        Ok(Self { neighbour, path, dial })
    }
}

/// What a node is, once the path stands.
// protocol: Q3
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orders {
    /// A Y-node: nothing more to do.
    Forget,
    /// An X-node between two others.
    Relay {
        /// End of the path's life (Unix seconds).
        until: u64,
        /// Its two sides, in random order.
        sides: Box<[Segment; 2]>,
    },
    /// The terminating X-node. What for it will hear over a tunnel: packages of all paths are alike.
    Terminate {
        /// End of the path's life (Unix seconds).
        until: u64,
        /// Its one side.
        side: Segment,
    },
}

/// Instructions of round 2, to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondPackage {
    /// MAC over the setup array as the node must receive it, its own slot zeroed.
    pub array_mac: Hash32,
    /// The node's role.
    pub orders: Orders,
}

impl Wire for SecondPackage {
    fn write(&self, out: &mut Writer) {
        out.u8(match self.orders {
            Orders::Forget => 1,
            Orders::Relay { .. } => 2,
            Orders::Terminate { .. } => 3,
        });
        out.bytes(&self.array_mac);
        match &self.orders {
            Orders::Forget => {}
            Orders::Relay { until, sides } => {
                out.u64(*until);
                sides.iter().for_each(|side| side.write(out));
            }
            Orders::Terminate { until, side } => {
                out.u64(*until);
                side.write(out);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let role = reader.u8()?;
        let array_mac = reader.array()?;
        let orders = match role {
            1 => Orders::Forget,
            2 => Orders::Relay {
                until: reader.u64()?,
                sides: Box::new([Segment::read(reader)?, Segment::read(reader)?]),
            },
            3 => Orders::Terminate { until: reader.u64()?, side: Segment::read(reader)? },
            _ => return Err(WireError::Value),
        };
        Ok(Self { array_mac, orders })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_of_the_one_length_round_trip(seed in vec(any::<u8>(), 997)) {
            let bytes: Vec<u8> = seed.iter().copied().cycle().take(ArrayFrame::LEN).collect();
            let frame = ArrayFrame::from_bytes(&bytes).unwrap();
            prop_assert_eq!(frame.to_bytes(), bytes);
        }

        #[test]
        fn other_lengths_are_refused(len in 0..ArrayFrame::LEN + 100) {
            prop_assume!(len != ArrayFrame::LEN);
            prop_assert!(ArrayFrame::from_bytes(&vec![1; len]).is_err());
        }

        #[test]
        fn first_packages_have_one_encoding(mut bytes in vec(any::<u8>(), FIRST_LEN), honest: bool) {
            if honest {
                bytes[0] = VERSION;
                bytes[1257] %= SLOTS as u8;
                bytes[1404..].fill(0);
            }
            if let Ok(package) = read_padded::<FirstPackage>(&bytes) {
                prop_assert_eq!(&write_padded(&package, FIRST_LEN).unwrap()[..], &bytes[..]);
            }
        }

        #[test]
        fn second_packages_round_trip(package in second_package()) {
            let bytes = write_padded(&package, SECOND_LEN).unwrap();
            prop_assert_eq!(read_padded::<SecondPackage>(&bytes), Ok(package));
        }

        // protocol: G1, P5
        #[test]
        fn any_bytes_are_a_package_in_its_one_encoding_or_none(package in second_package(), at in 0..SECOND_LEN, with: u8) {
            let mut bytes = write_padded(&package, SECOND_LEN).unwrap();
            bytes[at] = with;
            if let Ok(read) = read_padded::<SecondPackage>(&bytes) {
                prop_assert_eq!(write_padded(&read, SECOND_LEN).unwrap(), bytes);
            }
        }
    }

    fn segment() -> impl Strategy<Value = Segment> {
        (any::<[u8; 32]>(), any::<[u8; 4]>(), 1u16.., any::<[u8; 16]>(), any::<bool>()).prop_map(
            |(key, ip, port, path, dial)| Segment {
                neighbour: NodeContact {
                    identity: crate::crypto::VerifyingKey(key),
                    addr: (ip, port).into(),
                    link_secret: key,
                },
                path: PathId(path),
                dial,
            },
        )
    }

    fn second_package() -> impl Strategy<Value = SecondPackage> {
        let orders = prop_oneof![
            Just(Orders::Forget),
            (any::<u64>(), segment(), segment())
                .prop_map(|(until, a, b)| Orders::Relay { until, sides: Box::new([a, b]) }),
            (any::<u64>(), segment()).prop_map(|(until, side)| Orders::Terminate { until, side }),
        ];
        (any::<[u8; 32]>(), orders).prop_map(|(array_mac, orders)| SecondPackage { array_mac, orders })
    }
}
