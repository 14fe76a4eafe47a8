//! What one needs to open a link to a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Reader, Wire, WireError, Writer};
use crate::crypto::VerifyingKey;
use crate::ident::NodeId;

/// Everything needed to open a link to a node: key, where it listens, and the secret that its strangers do not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeContact {
    /// The node's identity key.
    pub identity: VerifyingKey,
    /// Where it accepts links.
    pub addr: SocketAddr,
    /// From its node record; keys the membership token (docs/protocol.md, section "Link").
    pub link_secret: [u8; 32],
}

impl NodeContact {
    /// Length of the encoding in bytes.
    pub const LEN: usize = 32 + 16 + 2 + 32;

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.identity)
    }
}

/// Identity key (32), IPv6 or IPv4-mapped address (16), port (2), link secret (32).
// protocol: N5
impl Wire for NodeContact {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.identity.0);
        let ip = match self.addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        out.bytes(&ip.octets());
        out.u16(self.addr.port());
        out.bytes(&self.link_secret);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let identity = VerifyingKey(reader.array()?);
        let v6 = Ipv6Addr::from(reader.array::<16>()?);
        let port = reader.u16()?;
        if port == 0 {
            return Err(WireError::Value);
        }
        let ip = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), |v4: Ipv4Addr| IpAddr::V4(v4));
        Ok(Self { identity, addr: SocketAddr::new(ip, port), link_secret: reader.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Computed by scripts/vectors/names.py.
    // protocol: N5
    #[test]
    fn independently_computed_vectors() {
        let vector = |name: &str| {
            let lines = include_str!("../../vectors/names.txt").lines();
            lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1.to_owned()
        };
        let bytes = |name: &str| -> [u8; 32] { hex::decode(vector(name)).unwrap().try_into().unwrap() };
        for version in ["4", "6"] {
            let addr = SocketAddr::new(vector(&format!("ip-{version}")).parse().unwrap(), 8443);
            let contact = NodeContact { identity: VerifyingKey(bytes("key")), addr, link_secret: bytes("link-secret") };
            assert_eq!(hex::encode(contact.to_bytes()), vector(&format!("contact-{version}")));
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; NodeContact::LEN]) {
            if let Ok(contact) = NodeContact::from_bytes(&bytes) {
                prop_assert_eq!(contact.to_bytes(), bytes.to_vec());
            }
        }
    }
}
