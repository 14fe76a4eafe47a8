//! Who is who: node ids, AP addresses and names, path and tunnel ids: how each derives from a key, how each prints.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use rand::CryptoRng;

use crate::crypto::{VerifyingKey, derive};

/// First 16 bits of every AP address; inside fd00::/8 (RFC 4193).
pub const AP_PREFIX: u16 = 0xfd70;

/// Version of AP keys and of the names made from them.
pub const AP_VERSION: u8 = 1;

/// Suffix of names in text, without the dot.
pub const NAME_SUFFIX: &str = "phantom";

/// Hash of a node's identity key (docs/protocol.md, section "Identities").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The id of the node that holds `key`.
    pub fn of(key: &VerifyingKey) -> Self {
        // protocol: N2
        Self(derive("phantom v1 node id", &[&key.0]))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}…)", HEXLOWER.encode(&self.0[..4]))
    }
}

/// Which nodes count as one operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// Those in one /16 of IPv4 or /32 of IPv6.
    #[default]
    Prefixes,
    /// None: for private networks whose nodes all live in one prefix. Never on the open network.
    Nodes,
}

/// Whoever runs a node, as far as its address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The first 16 bits of an IPv4 address.
    V4([u8; 2]),
    /// The first 32 bits of an IPv6 address.
    V6([u8; 4]),
    /// Each node is its own.
    Node(NodeId),
}

impl Operator {
    /// That of a node with this address.
    pub fn of(spread: Spread, node: NodeId, ip: IpAddr) -> Self {
        match (spread, ip) {
            (Spread::Nodes, _) => Self::Node(node),
            (Spread::Prefixes, IpAddr::V4(ip)) => Self::V4([ip.octets()[0], ip.octets()[1]]),
            (Spread::Prefixes, IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// In bytes; each kind has a length of its own.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::V4(prefix) => prefix,
            Self::V6(prefix) => prefix,
            Self::Node(id) => &id.0,
        }
    }

    /// What [`Self::name`] gave.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name.len() {
            2 => name.try_into().ok().map(Self::V4),
            4 => name.try_into().ok().map(Self::V6),
            _ => name.try_into().ok().map(|id| Self::Node(NodeId(id))),
        }
    }
}

/// The IP-shaped address of an anonymized node: 16 fixed bits, then 112 bits of a hash over version and key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApAddress([u8; 16]);

impl ApAddress {
    /// The address that belongs to an AP key, and to no other.
    pub fn of(key: &VerifyingKey) -> Self {
        // protocol: N3
        let hash = derive("phantom v1 ap address", &[&[AP_VERSION], &key.0]);
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&AP_PREFIX.to_be_bytes());
        bytes[2..].copy_from_slice(&hash[..14]);
        Self(bytes)
    }

    /// Accepts 16 bytes that begin with the prefix of AP addresses.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes[..2] == AP_PREFIX.to_be_bytes()).then_some(Self(bytes))
    }

    /// Accepts an IPv6 address that begins with the prefix of AP addresses.
    pub fn from_ipv6(address: Ipv6Addr) -> Option<Self> {
        Self::from_bytes(address.octets())
    }

    /// The address as the wire and sockets have it.
    pub fn octets(&self) -> [u8; 16] {
        self.0
    }

    /// The address as IPv6.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }
}

impl fmt::Display for ApAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ipv6().fmt(f)
    }
}

/// Redacted: AP addresses stay out of logs. `Display` prints the whole.
impl fmt::Debug for ApAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApAddress(…)")
    }
}

/// The name of an AP key: `base32(key, checksum, version).phantom`. The key can be read back from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApName(pub VerifyingKey);

/// Why a text is no AP name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not end in `.phantom` or is not 56 characters of base32 before that.
    #[error("not a name of the form <56 characters of base32>.phantom")]
    Form,
    /// A character is wrong: the checksum does not fit.
    #[error("the name's checksum is wrong: a character is mistyped")]
    Checksum,
    /// The name is of a version that this program does not know.
    #[error("the name is of a version that this program does not know")]
    Version,
}

impl ApName {
    /// The address behind the name.
    pub fn address(&self) -> ApAddress {
        ApAddress::of(&self.0)
    }

    fn checksum(key: &VerifyingKey) -> [u8; 2] {
        // protocol: N4
        let hash = derive("phantom v1 ap name checksum", &[&[AP_VERSION], &key.0]);
        [hash[0], hash[1]]
    }
}

impl fmt::Display for ApName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = [0; 35];
        raw[..32].copy_from_slice(&self.0.0);
        raw[32..34].copy_from_slice(&Self::checksum(&self.0));
        raw[34] = AP_VERSION;
        write!(f, "{}.{NAME_SUFFIX}", BASE32_NOPAD.encode(&raw).to_ascii_lowercase())
    }
}

/// Redacted like [`ApAddress`].
impl fmt::Debug for ApName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApName(…)")
    }
}

impl FromStr for ApName {
    type Err = NameError;

    /// Reads a name; upper case and one trailing dot are accepted.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_uppercase();
        let label = text.strip_suffix(".PHANTOM").ok_or(NameError::Form)?;
        let raw = BASE32_NOPAD.decode(label.as_bytes()).map_err(|_| NameError::Form)?;
        let raw: [u8; 35] = raw.try_into().map_err(|_| NameError::Form)?;
        if raw[34] != AP_VERSION {
            return Err(NameError::Version);
        }
        let mut key = [0; 32];
        key.copy_from_slice(&raw[..32]);
        let key = VerifyingKey(key);
        if raw[32..34] != Self::checksum(&key) {
            return Err(NameError::Checksum);
        }
        Ok(Self(key))
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A new random id.
            pub fn random(rng: &mut dyn CryptoRng) -> Self {
                let mut id = [0; 16];
                rng.fill_bytes(&mut id);
                Self(id)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), HEXLOWER.encode(&self.0[..4]))
            }
        }
    };
}

random_id! {
    /// Names one segment of a routing path. Only the two nodes at its ends and the owner know it.
    PathId
}
random_id! {
    /// Names one segment of a routing tunnel; derived from the tunnel block that both ends of the segment saw.
    TunnelId
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_round_trip(key: [u8; 32]) {
            let name = ApName(VerifyingKey(key));
            let text = name.to_string();
            prop_assert_eq!(text.parse::<ApName>(), Ok(name));
            prop_assert_eq!(text.to_ascii_uppercase().parse::<ApName>(), Ok(name));
            prop_assert_eq!(format!("{text}.").parse::<ApName>(), Ok(name));
        }

        #[test]
        fn a_mistyped_character_is_noticed(key: [u8; 32], at in 0usize..50) {
            let mut text = ApName(VerifyingKey(key)).to_string().into_bytes();
            text[at] = if text[at] == b'a' { b'b' } else { b'a' };
            // Two bytes of checksum: one name in 65 536 would pass, the key would then differ.
            let read = String::from_utf8(text).unwrap().parse::<ApName>();
            prop_assert!(read != Ok(ApName(VerifyingKey(key))));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = text.parse::<ApName>();
        }
    }

    /// Computed by scripts/vectors/names.py.
    // protocol: N2, N3, N4
    #[test]
    fn independently_computed_vectors() {
        let vector = |name: &str| {
            let lines = include_str!("../vectors/names.txt").lines();
            let value = lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name);
            value.unwrap_or_else(|| panic!("no vector {name}")).1
        };
        let key = VerifyingKey(hex::decode(vector("key")).unwrap().try_into().unwrap());
        assert_eq!(NodeId::of(&key).to_string(), vector("node-id"));
        assert_eq!(hex::encode(ApAddress::of(&key).octets()), vector("ap-address"));
        assert_eq!(ApName(key).to_string(), vector("ap-name"));
        assert_eq!(vector("ap-name").parse(), Ok(ApName(key)));
    }

    #[test]
    fn addresses_carry_the_prefix() {
        let address = ApAddress::of(&VerifyingKey([9; 32]));
        assert_eq!(address.ipv6().segments()[0], AP_PREFIX);
        assert_eq!(ApAddress::from_ipv6(address.ipv6()), Some(address));
        assert_eq!(ApAddress::from_ipv6(Ipv6Addr::LOCALHOST), None);
    }
}
