//! Bundles of peers: what others may join through, and through what this node may.

use phantom_ipc::admin::{self, Failure};
use phantom_proto::wire::{NodeContact, Wire};

use super::Running;
use crate::bundle::{Bundle, MOST};
use crate::clock::unix_seconds;
use crate::commands::date;
use crate::store::{Store, StoreError, Table};

/// The bundle that was imported last: it alone is kept.
const IMPORTED: &[u8] = b"imported peers";

impl Running {
    /// This node, which is known to be there, and some of the others.
    pub(super) async fn bundle(&self) -> String {
        let own = self.contact.clone();
        let others = self.database.some(MOST).await.into_iter().filter(|other| other.node_id() != own.node_id());
        let peers: Vec<_> = std::iter::once(own.clone()).chain(others).take(MOST).collect();
        Bundle::write(&self.setup.node.key, unix_seconds(), &peers)
    }

    pub(super) async fn join(&self, text: &str) -> Result<admin::Bundle, Failure> {
        let failed = |message: String, hint: &str| Failure { message, hint: Some(hint.to_owned()) };
        let bundle =
            Bundle::read(text).map_err(|error| failed(error.to_string(), "see `phantom peer import --help`"))?;
        keep(&self.setup.store, &bundle.peers).map_err(|error| {
            failed(format!("nothing was imported: {error}"), "make room on the disk, and try again")
        })?;
        let told = admin::Bundle {
            signer: bundle.signer_id().to_string(),
            made: date(bundle.made),
            nodes: bundle.peers.len() as u64,
        };
        self.database.join(bundle.peers).await;
        Ok(told)
    }
}

fn keep(store: &Store, peers: &[NodeContact]) -> Result<(), StoreError> {
    let bytes: Vec<u8> = peers.iter().flat_map(Wire::to_bytes).collect();
    store.save(Table::Meta, IMPORTED, &bytes)
}

/// The nodes of the bundle that was imported last. What cannot be read is only a hint that is lost.
pub(super) fn kept(store: &Store) -> Vec<NodeContact> {
    let bytes = store.load(Table::Meta, IMPORTED).ok().flatten().unwrap_or_default();
    bytes.chunks(NodeContact::LEN).filter_map(|one| NodeContact::from_bytes(one).ok()).collect()
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;

    use super::*;

    #[test]
    fn what_was_imported_last_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let contact = |number: u8| {
            let identity = SigningKey::from_seed(&[number; 32]).verifying_key();
            NodeContact { identity, addr: ([192, 0, 2, number], 443).into(), link_secret: [number; 32] }
        };
        let store = Store::open(&path).unwrap();
        assert!(kept(&store).is_empty());
        for peers in [vec![contact(1)], (2..34).map(contact).collect()] {
            keep(&store, &peers).unwrap();
            assert_eq!(kept(&store), peers);
        }
        drop(store);
        assert_eq!(kept(&Store::open(&path).unwrap()).len(), MOST);
    }
}
