//! Nodes to join through, as one node knows them, signed by it: a file to hand to somebody who has none yet (docs/protocol.md, 2).
//!
//! ```text
//! # phantom peers 1
//! # made Sat, 28 Nov 2026 22:00:00 GMT
//! # by HEX                                 the signing node's identity key
//! phantom-peer:…                           for each node
//! # signature HEX                          over all lines above
//! ```
//!
//! What is no peer string is a comment, so that `peers_file` of the configuration takes such a file, too, without looking at the signature.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use phantom_proto::crypto::{SigningKey, VerifyingKey};
use phantom_proto::ident::NodeId;
use phantom_proto::wire::NodeContact;

use crate::names::{Peer, PeerError};

/// Most nodes in a bundle: enough that some answer years later, and no map of the network.
pub const MOST: usize = 32;

/// Longest file, in bytes: 32 peer strings and the other lines have 5 kB.
pub const MAX_FILE: usize = 8 * 1024;

const HEAD: &str = "# phantom peers 1";

const MADE: &str = "# made ";

const BY: &str = "# by ";

const SIGNATURE: &str = "# signature ";

/// Domain of the signature.
const CONTEXT: &str = "phantom v1 peers";

/// What a bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Who says so.
    pub signer: VerifyingKey,
    /// When, in seconds since 1970.
    pub made: u64,
    /// The nodes, at least one and at most [`MOST`].
    pub peers: Vec<NodeContact>,
}

/// Why a text is no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It does not begin as one, or is too long.
    #[error("this is no bundle of peers: `phantom peer export` makes one")]
    Form,
    /// A line is none that belongs there.
    #[error("line {0} of the bundle is damaged")]
    Line(usize),
    /// A line is a damaged peer string.
    #[error("line {0} of the bundle: {1}")]
    Peer(usize, #[source] PeerError),
    /// It holds no node, or too many.
    #[error("a bundle holds 1 to {MOST} nodes")]
    Count,
    /// Somebody changed it, or it was cut off.
    #[error("the bundle's signature is wrong: it was changed after it was signed; have it sent again")]
    Signature,
}

impl Bundle {
    /// Who signed it, as `phantom status` there calls it.
    pub fn signer_id(&self) -> NodeId {
        NodeId::of(&self.signer)
    }

    /// The file.
    // protocol: N9
    pub fn write(key: &SigningKey, made: u64, peers: &[NodeContact]) -> String {
        let made = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(made));
        let peers: String = peers.iter().map(|peer| format!("{}\n", Peer(peer.clone()))).collect();
        let by = HEXLOWER.encode(&key.verifying_key().0);
        let signed = format!("{HEAD}\n{MADE}{made}\n{BY}{by}\n{peers}");
        let signature = HEXLOWER.encode(&key.sign(CONTEXT, signed.as_bytes()));
        format!("{signed}{SIGNATURE}{signature}\n")
    }

    /// Reads a file and checks its signature. Whether the signer is to be trusted, only a person knows.
    ///
    /// # Errors
    /// See [`BundleError`].
    // protocol: N9
    pub fn read(text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_FILE || text.lines().next() != Some(HEAD) {
            return Err(BundleError::Form);
        }
        let at = text.rfind(SIGNATURE).ok_or(BundleError::Signature)?;
        let (signed, signature) = text.split_at(at);
        let signature = signature.strip_prefix(SIGNATURE).and_then(|rest| rest.strip_suffix('\n')).and_then(hex::<64>);
        let lines: Vec<_> = signed.lines().collect();
        let line = |at: usize, name: &str| lines.get(at).and_then(|line| line.strip_prefix(name));
        let made = line(1, MADE).and_then(|made| httpdate::parse_http_date(made).ok()).ok_or(BundleError::Line(2))?;
        let signer = VerifyingKey(line(2, BY).and_then(hex::<32>).ok_or(BundleError::Line(3))?);
        let peers = lines.iter().enumerate().skip(3);
        let peers =
            peers.map(|(at, line)| line.parse().map(|Peer(one)| one).map_err(|why| BundleError::Peer(at + 1, why)));
        let peers = peers.collect::<Result<Vec<_>, _>>()?;
        let signature = signature.ok_or(BundleError::Signature)?;
        signer.verify(CONTEXT, signed.as_bytes(), &signature).map_err(|_| BundleError::Signature)?;
        if !(1..=MOST).contains(&peers.len()) {
            return Err(BundleError::Count);
        }
        let made = made.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { signer, made, peers })
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn contact(number: u8) -> NodeContact {
        let identity = SigningKey::from_seed(&[number; 32]).verifying_key();
        NodeContact { identity, addr: ([192, 0, 2, number], 443).into(), link_secret: [number; 32] }
    }

    fn text(nodes: u8) -> String {
        Bundle::write(&key(), 1_800_000_000, &(1..=nodes).map(contact).collect::<Vec<_>>())
    }

    // protocol: N9
    #[test]
    fn what_is_written_is_read() {
        for nodes in [1, MOST as u8] {
            let text = text(nodes);
            assert!(text.len() <= MAX_FILE);
            let peers = (1..=nodes).map(contact).collect();
            let bundle = Bundle { signer: key().verifying_key(), made: 1_800_000_000, peers };
            assert_eq!(Bundle::read(&text), Ok(bundle));
        }
    }

    // protocol: N9
    #[test]
    fn it_is_what_the_protocol_says() {
        let vectors = include_str!("../proto/vectors/peers.txt");
        let bundle = Bundle::read(vectors).unwrap();
        assert_eq!(Bundle::write(&key(), bundle.made, &bundle.peers), vectors);
    }

    #[test]
    fn the_configurations_peers_file_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bundle"), text(3)).unwrap();
        let peers = crate::config::read_peers(&folder.path().join("bundle")).unwrap();
        assert_eq!(peers, (1..=3).map(|number| Peer(contact(number))).collect::<Vec<_>>());
    }

    // protocol: N9
    #[test]
    fn what_is_damaged_or_changed_is_said() {
        let good = text(3);
        let changed = |from: &str, to: &str| Bundle::read(&good.replacen(from, to, 1));
        let other = Peer(contact(9)).to_string();
        assert_eq!(Bundle::read(""), Err(BundleError::Form));
        assert_eq!(Bundle::read(&(good.clone() + &"x".repeat(MAX_FILE))), Err(BundleError::Form));
        assert_eq!(changed("peers 1", "peers 2"), Err(BundleError::Form));
        assert_eq!(changed("# made ", "# when "), Err(BundleError::Line(2)));
        assert_eq!(changed("# by ", "# by 00"), Err(BundleError::Line(3)));
        assert_eq!(changed(&Peer(contact(2)).to_string(), &other), Err(BundleError::Signature), "another node");
        assert_eq!(changed(&(Peer(contact(2)).to_string() + "\n"), ""), Err(BundleError::Signature), "one is missing");
        assert_eq!(changed(" 08:00:00 ", " 09:00:00 "), Err(BundleError::Signature), "another hour");
        assert!(matches!(changed("phantom-peer:", "phantom-peer:A"), Err(BundleError::Peer(4, PeerError::Damaged))));
        assert_eq!(Bundle::read(&(good.clone() + &other)), Err(BundleError::Signature), "more behind the signature");
        let stranger = HEXLOWER.encode(&SigningKey::from_seed(&[8; 32]).verifying_key().0);
        assert_eq!(changed(&HEXLOWER.encode(&key().verifying_key().0), &stranger), Err(BundleError::Signature));
        for cut in 0..good.len() {
            assert!(Bundle::read(&good[..cut]).is_err(), "cut off at {cut}");
        }
        let count = |nodes: usize| Bundle::read(&Bundle::write(&key(), 0, &vec![contact(1); nodes]));
        assert_eq!((count(0), count(MOST + 1)), (Err(BundleError::Count), Err(BundleError::Count)));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in "(# (phantom peers 1|made |by |signature )?[ -~]{0,40}\n){0,6}") {
            let _ = Bundle::read(&text);
        }
    }
}
