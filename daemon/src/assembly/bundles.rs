//! Bundles of peers: what others may join through, and through what this node may.

use phantom_ipc::admin::{self, Failure};
use phantom_proto::wire::{NodeContact, Wire};

use super::Running;
use crate::bundle::{Bundle, MOST};
use crate::clock::unix_seconds;
use crate::commands::date;
use crate::startup::Setup;
use crate::store::{Store, StoreError, Table};

/// The bundle that was imported last: it alone is kept.
const IMPORTED: &[u8] = b"imported peers";

/// Nodes of the routing table, which is the first one of the next start: not the sample, which strangers must not be told.
const NEIGHBOURS: &[u8] = b"routing table";

/// At most so many of them: more than a routing table has in a network of 100 000 nodes.
pub(super) const NEIGHBOURS_MOST: usize = 512;

impl Running {
    /// This node, which is known to be there, unless others cannot reach it, and some of the others.
    pub(super) async fn bundle(&self) -> String {
        let own = self.contact();
        let is_of_use = self.database.known().borrow().reachable != Some(false);
        let others = self.database.some(MOST).await.into_iter().filter(|other| other.node_id() != own.node_id());
        let mut peers: Vec<_> = others.take(MOST - usize::from(is_of_use)).collect();
        // One that nobody reaches is better than none only where there is no other.
        if is_of_use || peers.is_empty() {
            peers.insert(0, own);
        }
        Bundle::write(&self.setup.node.key, unix_seconds(), &peers)
    }

    pub(super) async fn join(&self, text: &str) -> Result<admin::Bundle, Failure> {
        let failed = |message: String, hint: &str| Failure { message, hint: Some(hint.to_owned()) };
        let bundle =
            Bundle::read(text).map_err(|error| failed(error.to_string(), "see `phantom peer import --help`"))?;
        keep(&self.setup.store, IMPORTED, &bundle.peers).map_err(|error| {
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

fn keep(store: &Store, what: &[u8], peers: &[NodeContact]) -> Result<(), StoreError> {
    let bytes: Vec<u8> = peers.iter().flat_map(Wire::to_bytes).collect();
    store.save(Table::Meta, what, &bytes)
}

/// Keeps the nodes of the routing table. Where there are none, those that were there before are worth more.
// protocol: D36
pub(super) fn keep_neighbours(store: &Store, peers: &[NodeContact]) -> Result<(), StoreError> {
    if peers.is_empty() { Ok(()) } else { keep(store, NEIGHBOURS, peers) }
}

/// What is kept under a name. What cannot be read is only a hint that is lost.
fn kept(store: &Store, what: &[u8]) -> Vec<NodeContact> {
    let bytes = store.load(Table::Meta, what).ok().flatten().unwrap_or_default();
    bytes.chunks(NodeContact::LEN).filter_map(|one| NodeContact::from_bytes(one).ok()).collect()
}

/// Through whom this node may join: its routing table when it ran last, and the bundle that was imported last.
// protocol: D36
pub(super) fn known(store: &Store) -> Vec<NodeContact> {
    let mut known = kept(store, NEIGHBOURS);
    let imported = kept(store, IMPORTED);
    known.extend(imported.into_iter().filter(|contact| !known.contains(contact)).collect::<Vec<_>>());
    known
}

/// Tells an operator whose node has no way into a network how it comes by one.
pub(super) fn tell_how_to_join(setup: &Setup) {
    let has_met_nobody = setup.store.scan(Table::Nodes).is_ok_and(|nodes| nodes.is_empty());
    if has_met_nobody && setup.config.peers.is_empty() && known(&setup.store).is_empty() {
        tracing::warn!(
            "this node knows no other: join a network with --peer PEER (what `phantom status` on one of its nodes calls \
             peer string) or `phantom peer import FILE` (what `phantom peer export` on one of them wrote), or let others join \
             through this one; `phantom testnet up` makes a private network"
        );
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;

    use super::*;

    fn contact(number: u8) -> NodeContact {
        let identity = SigningKey::from_seed(&[number; 32]).verifying_key();
        NodeContact { identity, addr: ([192, 0, 2, number], 443).into(), link_secret: [number; 32] }
    }

    #[test]
    fn what_was_imported_last_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        assert!(known(&store).is_empty());
        for peers in [vec![contact(1)], (2..34).map(contact).collect()] {
            keep(&store, IMPORTED, &peers).unwrap();
            assert_eq!(known(&store), peers);
        }
        drop(store);
        assert_eq!(known(&Store::open(&path).unwrap()).len(), MOST);
    }

    // protocol: D36
    #[test]
    fn the_routing_table_is_that_of_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        keep(&store, IMPORTED, &[contact(2), contact(3)]).unwrap();
        let most: Vec<_> = (0..NEIGHBOURS_MOST).map(|number| contact(number as u8)).collect();
        for peers in [&most[..], &[contact(1), contact(2)], &[]] {
            keep_neighbours(&store, peers).unwrap();
        }
        drop(store);
        assert_eq!(known(&Store::open(&path).unwrap()), [1, 2, 3].map(contact));
    }
}
