//! What a command can do: six kinds, and a decoder that knows no other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::ident::NodeId;
use crate::netdb::{self, Key};
use crate::record::{ApRecord, MAX_RECORD_LEN, NodeRecord, Signed};
use crate::wire::{Reader, Wire, WireError, Writer};

/// Shortest prefixes that may be banned, in bits: a /16 of IPv4, a /32 of IPv6. What a whole provider has is larger.
// protocol: M6
const V4_SHORTEST: u8 = 16;
const V6_SHORTEST: u8 = 32;

const BAN_RANGE: u8 = 1;
const UNBAN_RANGE: u8 = 2;
const BAN_NODE: u8 = 3;
const UNBAN_NODE: u8 = 4;
const REMOVE: u8 = 5;
const INSERT: u8 = 6;

/// One thing that a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep a range of addresses or a node out.
    Ban(Target),
    /// Take back the bans of this node, or of every range within this one.
    Unban(Target),
    /// Nothing stands under this key of the database until then (seconds since 1970).
    Remove {
        /// Of the network database.
        key: Key,
        /// At most the command's own end.
        until: u64,
    },
    /// Store this signed record, which held when the command was made, for as long as it holds.
    Insert(Vec<u8>),
}

/// Who is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// All nodes at these addresses.
    Range(Range),
    /// One node, wherever it is.
    Node(NodeId),
}

/// What operators can opt out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Bans of addresses.
    Ranges,
    /// Bans of nodes.
    Nodes,
    /// Removal from the database.
    Remove,
    /// Insertion into it.
    Insert,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ranges, Self::Nodes, Self::Remove, Self::Insert];

    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ranges => "ranges",
            Self::Nodes => "nodes",
            Self::Remove => "remove",
            Self::Insert => "insert",
        }
    }
}

impl Action {
    /// What an operator would opt out of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ban(Target::Range(_)) | Self::Unban(Target::Range(_)) => Kind::Ranges,
            Self::Ban(Target::Node(_)) | Self::Unban(Target::Node(_)) => Kind::Nodes,
            Self::Remove { .. } => Kind::Remove,
            Self::Insert(_) => Kind::Insert,
        }
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: IpAddr,
    prefix: u8,
}

/// Why there is no such range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not of the form.
    #[error("a range is an address and how many of its bits count, as in 192.0.2.0/24 or 2001:db8::/32")]
    Form,
    /// Too many addresses.
    #[error("too large: at most a /16 of IPv4 or a /32 of IPv6 can be banned")]
    TooLarge,
    /// Bits behind the prefix are set, or it is IPv4 written as IPv6.
    #[error("not the range's one form: bits behind the prefix are zero, and IPv4 is written as IPv4")]
    NotCanonical,
}

impl Range {
    /// The addresses whose first `prefix` bits are those of `first`.
    ///
    /// # Errors
    /// See [`RangeError`].
    // protocol: M6
    pub fn new(first: IpAddr, prefix: u8) -> Result<Self, RangeError> {
        let (bits, width, shortest) = match first {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32, V4_SHORTEST),
            IpAddr::V6(v6) => (v6.to_bits(), 128, V6_SHORTEST),
        };
        if prefix > width {
            return Err(RangeError::Form);
        }
        if prefix < shortest {
            return Err(RangeError::TooLarge);
        }
        let range = Self { first, prefix };
        let mapped = Range6::of(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
        let hides_v4 = matches!(first, IpAddr::V6(v6) if Range6::of(v6, prefix).meets(mapped));
        if bits & !mask(prefix) != 0 || hides_v4 { Err(RangeError::NotCanonical) } else { Ok(range) }
    }

    /// Whether an address is in it; IPv4 may be written as IPv6.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                u128::from(first.to_bits() ^ ip.to_bits()) << 96 & mask(self.prefix) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => (first.to_bits() ^ ip.to_bits()) & mask(self.prefix) == 0,
            _ => false,
        }
    }

    /// Whether all of another range is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.first)
    }
}

/// Of IPv6, to see whether two of them meet.
#[derive(Clone, Copy)]
struct Range6(u128, u8);

impl Range6 {
    fn of(first: Ipv6Addr, prefix: u8) -> Self {
        Self(first.to_bits(), prefix)
    }

    fn meets(self, other: Self) -> bool {
        (self.0 ^ other.0) & mask(self.1.min(other.1)) == 0
    }
}

/// The first `prefix` of 128 bits.
fn mask(prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix.min(128))) }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, prefix) = text.split_once('/').ok_or(RangeError::Form)?;
        Self::new(first.parse().map_err(|_| RangeError::Form)?, prefix.parse().map_err(|_| RangeError::Form)?)
    }
}

/// Family (04 or 06), address (4 or 16), prefix(1).
impl Wire for Range {
    fn write(&self, out: &mut Writer) {
        match self.first {
            IpAddr::V4(v4) => {
                out.u8(4);
                out.bytes(&v4.octets());
            }
            IpAddr::V6(v6) => {
                out.u8(6);
                out.bytes(&v6.octets());
            }
        }
        out.u8(self.prefix);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let first = match reader.u8()? {
            4 => IpAddr::from(reader.array::<4>()?),
            6 => IpAddr::from(reader.array::<16>()?),
            _ => return Err(WireError::Value),
        };
        Self::new(first, reader.u8()?).map_err(|_| WireError::Value)
    }
}

/// Where a record of either table belongs that holds at `at` (seconds since 1970). `None`: it is no such record.
// protocol: M7
pub fn key_of(record: &[u8], at: u64) -> Option<Key> {
    let node = Signed::<NodeRecord>::from_bytes(record).ok()?.check(at);
    let ap = || Signed::<ApRecord>::from_bytes(record).ok()?.check(at).ok();
    match node {
        Ok(node) => Some(netdb::node_key(&node.contact.node_id())),
        Err(_) => ap().map(|ap| netdb::ap_key(&ap.address())),
    }
}

/// Kind(1), then what the kind needs. Nothing else can be said.
// protocol: M5
impl Wire for Action {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Ban(Target::Range(range)) => tagged(out, BAN_RANGE, range),
            Self::Unban(Target::Range(range)) => tagged(out, UNBAN_RANGE, range),
            Self::Ban(Target::Node(node)) => {
                out.u8(BAN_NODE);
                out.bytes(&node.0);
            }
            Self::Unban(Target::Node(node)) => {
                out.u8(UNBAN_NODE);
                out.bytes(&node.0);
            }
            Self::Remove { key, until } => {
                out.u8(REMOVE);
                out.bytes(key);
                out.u64(*until);
            }
            Self::Insert(record) => {
                out.u8(INSERT);
                out.bytes16(record);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            BAN_RANGE => Self::Ban(Target::Range(Range::read(reader)?)),
            UNBAN_RANGE => Self::Unban(Target::Range(Range::read(reader)?)),
            BAN_NODE => Self::Ban(Target::Node(NodeId(reader.array()?))),
            UNBAN_NODE => Self::Unban(Target::Node(NodeId(reader.array()?))),
            REMOVE => Self::Remove { key: key(reader)?, until: reader.u64()? },
            INSERT => Self::Insert(reader.bytes16(MAX_RECORD_LEN)?.to_vec()),
            _ => return Err(WireError::Value),
        })
    }
}

fn tagged(out: &mut Writer, kind: u8, range: &Range) {
    out.u8(kind);
    range.write(out);
}

fn key(reader: &mut Reader<'_>) -> Result<Key, WireError> {
    let key = reader.array()?;
    if netdb::is_key(&key) { Ok(key) } else { Err(WireError::Value) }
}
