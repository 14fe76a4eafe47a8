//! Who this daemon is: the node's own key, and the AP identities that it holds for programs.

use std::fmt;
use std::path::Path;

use data_encoding::HEXLOWER;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, ApName, NodeId};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::datadir::{DataError, read_private, write_private};
use crate::names::Alias;

/// File of the node's identity key: the seed in hex.
const NODE_KEY: &str = "node.key";

/// File of the secret that keys the membership token: in hex.
const LINK_SECRET: &str = "link.secret";

/// The node's identity key and link secret.
pub struct NodeIdentity {
    /// Signs the node's records and answers link handshakes.
    pub key: SigningKey,
    /// Published in the node's record, unknown to strangers.
    pub link_secret: [u8; 32],
}

impl NodeIdentity {
    /// Reads the identity from `dir`; `None` when there is none yet.
    ///
    /// # Errors
    /// When a file is damaged, unreadable, or readable by others; when only one of the two is there.
    pub fn load(dir: &Path) -> Result<Option<Self>, DataError> {
        let (seed, secret) = (read_secret(dir, NODE_KEY)?, read_secret(dir, LINK_SECRET)?);
        match (seed, secret) {
            (Some(seed), Some(secret)) => Ok(Some(Self { key: SigningKey::from_seed(&seed), link_secret: *secret })),
            (Some(_), None) => Err(DataError::Damaged { path: dir.join(LINK_SECRET), what: "it is missing" }),
            // The key is written last: a secret alone is a first start that was interrupted.
            (None, _) => Ok(None),
        }
    }

    /// Makes a new identity and writes it to `dir`, over nothing that is complete.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn create(dir: &Path, rng: &mut dyn CryptoRng) -> Result<Self, DataError> {
        let key = SigningKey::generate(rng);
        let mut link_secret = [0; 32];
        rng.fill_bytes(&mut link_secret);
        write_secret(dir, LINK_SECRET, &link_secret)?;
        write_secret(dir, NODE_KEY, key.seed())?;
        Ok(Self { key, link_secret })
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.key.verifying_key())
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeIdentity").field(&self.node_id()).finish()
    }
}

fn read_secret(dir: &Path, name: &str) -> Result<Option<Zeroizing<[u8; 32]>>, DataError> {
    let path = dir.join(name);
    let Some(text) = read_private(&path)?.map(Zeroizing::new) else { return Ok(None) };
    let bytes = HEXLOWER.decode(text.trim_ascii()).map(Zeroizing::new).ok();
    let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(Zeroizing::new);
    secret.map(Some).ok_or(DataError::Damaged { path, what: "it does not hold 64 hexadecimal digits" })
}

fn write_secret(dir: &Path, name: &str, secret: &[u8; 32]) -> Result<(), DataError> {
    let text = Zeroizing::new(format!("{}\n", HEXLOWER.encode(secret)));
    let path = dir.join(name);
    write_private(&path, text.as_bytes()).map_err(|source| DataError::Io { doing: "write", path, source })
}

/// An anonymized node that this daemon is for some program: an AP key, with a name when it is persistent.
pub struct ApIdentity {
    /// The name on this computer; `None` for a fresh identity that lives as long as its program.
    pub name: Option<Alias>,
    /// The AP key.
    pub key: SigningKey,
}

impl ApIdentity {
    /// A fresh one, unlinkable to any other.
    pub fn fresh(rng: &mut dyn CryptoRng) -> Self {
        Self { name: None, key: SigningKey::generate(rng) }
    }

    /// Its AP address.
    pub fn address(&self) -> ApAddress {
        ApAddress::of(&self.key.verifying_key())
    }

    /// Its full name, from which the key can be read.
    pub fn phantom_name(&self) -> ApName {
        ApName(self.key.verifying_key())
    }
}

/// Redacted: neither key nor address nor name.
impl fmt::Debug for ApIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.name.is_some() { "ApIdentity(named)" } else { "ApIdentity(fresh)" })
    }
}
