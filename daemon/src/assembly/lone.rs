//! A driver of a node that is alone, for tests of what stands above it.

use std::collections::BTreeSet;
use std::sync::Arc;

use phantom_proto::crypto::SigningKey;
use phantom_proto::node::{Node, Settings};
use phantom_proto::path::{Candidate, Hop, PathKeys};
use phantom_proto::wire::NodeContact;
use tokio::sync::{mpsc, watch};

use crate::driver::{self, Handle, Kept, NothingKept, Services};
use crate::link::{LinkPool, MemoryNetwork};
use crate::netdb::MemoryDatabase;

/// The driver; it ends when this is dropped.
pub(crate) struct Lone {
    pub(crate) handle: Handle,
    _stop_tx: watch::Sender<bool>,
}

pub(crate) fn driver() -> Lone {
    driver_with(Arc::new(NothingKept))
}

pub(crate) fn driver_with(kept: Arc<dyn Kept>) -> Lone {
    let mut rng = crate::random::system_rng().unwrap();
    let identity = SigningKey::generate(&mut rng).verifying_key();
    let contact = NodeContact { identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [1; 32] };
    let keys = PathKeys::generate(&mut rng);
    let path_kem = Arc::new(*keys.kem.public());
    let own = Candidate { contact: contact.clone(), path_dh: keys.dh.public(), path_kem, weight: 1 };
    let hop = Hop::new(identity, [keys]);
    let node = Node::new(own, hop, None, Settings::default(), Box::new(rng));
    let (stop_tx, stop_rx) = watch::channel(false);
    let services = Services {
        links: Arc::new(LinkPool::new(Arc::new(MemoryNetwork::default().join(contact)))),
        database: Arc::new(MemoryDatabase::default()),
        counters: Arc::default(),
        incoming_tx: mpsc::channel(1).0,
        kept,
        choice_tx: watch::channel(Vec::new()).0,
        pinned_tx: watch::channel(BTreeSet::new()).0,
        opened: Box::new(|_| {}),
        relayed_tunnels: 1,
    };
    Lone { handle: driver::start(node, services, stop_rx), _stop_tx: stop_tx }
}
