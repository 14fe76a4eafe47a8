//! The network database over real Kademlia and links in memory: it fills, finds, and refuses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use phantom_daemon::clock::unix_seconds;
use phantom_daemon::link::{Link, MemoryNetwork, Transport};
use phantom_daemon::netdb::{Commands, Database, Known, NetDb, NetDbConfig, Origin};
use phantom_proto::crypto::SigningKey;
use phantom_proto::crypto::kem::KEM_PUBLIC_LEN;
use phantom_proto::ident::{ApAddress, Spread};
use phantom_proto::record::{ApRecord, Epoch, Extensions, NodeRecord, PublicPathKeys, RoutingEntry, STEP, Signed};
use phantom_proto::wire::NodeContact;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

struct Peer {
    key: SigningKey,
    contact: NodeContact,
    database: NetDb,
}

fn start(net: &MemoryNetwork, index: u8, known: Vec<NodeContact>) -> Peer {
    restart(net, index, known, Vec::new())
}

/// A node that kept records of an earlier run.
fn restart(net: &MemoryNetwork, index: u8, known: Vec<NodeContact>, records: Vec<Vec<u8>>) -> Peer {
    let key = SigningKey::from_seed(&[index + 1; 32]);
    let addr = SocketAddr::from(([10, index, 0, 1], 443));
    let contact = NodeContact { identity: key.verifying_key(), addr, link_secret: [index; 32] };
    let links: Arc<dyn Transport> = Arc::new(net.join(contact.clone()));
    let (incoming_tx, incoming_rx) = mpsc::channel::<Link>(16);
    let accepting = links.clone();
    tokio::spawn(async move {
        while let Some(link) = accepting.accept().await {
            if incoming_tx.send(link).await.is_err() {
                return;
            }
        }
    });
    let database = NetDb::start(NetDbConfig {
        own: contact.clone(),
        peers: known,
        known: Vec::new(),
        records,
        terms: Vec::new(),
        reachable: Some(true),
        commands: Commands::nobody(),
        shelf: Vec::new(),
        spread: Spread::default(),
        links,
        incoming_rx,
    })
    .unwrap();
    Peer { key, contact, database }
}

impl Peer {
    async fn register(&self) {
        let keys = PublicPathKeys { dh: [1; 32], kem: Arc::new([2; KEM_PUBLIC_LEN]) };
        let record = NodeRecord {
            contact: self.contact.clone(),
            epoch: Epoch::at(&self.contact.node_id(), unix_seconds()),
            revision: 0,
            keys: [keys.clone(), keys],
            extensions: Extensions::default(),
        };
        self.database.register(&Signed::sign(&record, &self.key)).await;
    }

    async fn wait_for(&self, what: impl Fn(&Known) -> bool) {
        timeout(PATIENCE, self.database.known().wait_for(|known| what(known))).await.expect("in time").unwrap();
    }
}

fn ap_record(key: &SigningKey, count: u16, entry_node: &NodeContact) -> Signed<ApRecord> {
    let now = unix_seconds();
    let entry = RoutingEntry { entry_node: entry_node.clone(), handle: [9; 16], until: now + 600 };
    let record = ApRecord::on_grid(key.verifying_key(), now / STEP, count, vec![entry]);
    Signed::sign(&record, key)
}

async fn network(count: u8) -> (MemoryNetwork, Vec<Peer>) {
    let net = MemoryNetwork::default();
    let first = start(&net, 0, Vec::new());
    let seed = first.contact.clone();
    let mut peers = vec![first];
    peers.extend((1..count).map(|index| start(&net, index, vec![seed.clone()])));
    for peer in &peers {
        peer.register().await;
    }
    for peer in &peers {
        peer.wait_for(|known| known.nodes.len() == usize::from(count) - 1).await;
    }
    (net, peers)
}

// protocol: D16
#[tokio::test]
async fn every_node_hears_of_every_other_and_records_are_found() {
    let (_net, peers) = network(12).await;
    let ap = SigningKey::from_seed(&[200; 32]);
    let address = ApAddress::of(&ap.verifying_key());
    assert!(peers[3].database.lookup(Origin::Own, address).await.unwrap().is_none());
    let first = ap_record(&ap, 1, &peers[4].contact);
    peers[4].database.publish(Origin::Own, first.bytes().to_vec()).await.unwrap();
    let (found, bytes) = peers[7].database.lookup(Origin::Own, address).await.unwrap().unwrap();
    assert_eq!((found.serial as u16, bytes.as_slice()), (1, first.bytes()));
    // A newer one from elsewhere takes its place for everybody.
    peers[5].database.publish(Origin::Own, ap_record(&ap, 2, &peers[5].contact).bytes().to_vec()).await.unwrap();
    for peer in &peers {
        assert_eq!(peer.database.lookup(Origin::Own, address).await.unwrap().unwrap().0.serial as u16, 2);
    }
    // An older one does not.
    assert!(peers[6].database.publish(Origin::Own, first.bytes().to_vec()).await.is_err());
    for peer in &peers {
        assert_eq!(peer.database.lookup(Origin::Own, address).await.unwrap().unwrap().0.serial as u16, 2);
    }
}

/// I6: neither a foreign signature nor an expired record gets in.
// protocol: R3
#[tokio::test]
async fn what_does_not_hold_is_not_published() {
    let (_net, peers) = network(5).await;
    let (ap, thief) = (SigningKey::from_seed(&[200; 32]), SigningKey::from_seed(&[201; 32]));
    let mut forged = ap_record(&ap, 5, &peers[1].contact).check(unix_seconds()).unwrap();
    let by_thief = Signed::sign(&forged, &thief);
    assert!(peers[1].database.publish(Origin::Own, by_thief.bytes().to_vec()).await.is_err());
    forged = ApRecord::on_grid(forged.key, unix_seconds() / STEP - 3, 5, forged.entries);
    assert!(peers[1].database.publish(Origin::Own, Signed::sign(&forged, &ap).bytes().to_vec()).await.is_err());
    assert!(peers[1].database.publish(Origin::Own, b"rubbish".to_vec()).await.is_err());
    assert!(peers[2].database.lookup(Origin::Own, ApAddress::of(&ap.verifying_key())).await.unwrap().is_none());
}

// protocol: D7
#[tokio::test]
async fn a_node_alone_cannot_say_that_there_is_nothing() {
    let net = MemoryNetwork::default();
    let alone = start(&net, 0, Vec::new());
    assert!(alone.database.lookup(Origin::Own, ApAddress::of(&alone.key.verifying_key())).await.is_err());
}

/// The DHT forgets who does not answer at once; the node must not.
#[tokio::test]
async fn a_node_that_nobody_answers_keeps_trying_and_says_so() {
    let net = MemoryNetwork::default();
    let later = start(&net, 1, Vec::new());
    let contact = later.contact.clone();
    drop(later);
    let early = start(&net, 0, vec![contact]);
    early.register().await;
    early.wait_for(|known| known.alone.is_some_and(|alone| alone.tries >= 3)).await;
    let later = start(&net, 1, Vec::new());
    later.register().await;
    early.wait_for(|known| known.alone.is_none() && known.nodes.len() == 1).await;
    later.wait_for(|known| known.nodes.len() == 1).await;
}

/// A node that was restarted plans with what it knew, before anybody has answered; and is known to those who thought it dead.
// protocol: J8
#[tokio::test]
async fn a_restarted_node_has_its_sample_and_is_found_again() {
    let (net, mut peers) = network(5).await;
    let gone = peers.remove(2);
    let records: Vec<_> = gone.database.records().await.into_iter().map(|(_, record)| record).collect();
    assert_eq!(records.len(), 4);
    let id = gone.contact.node_id();
    drop(gone);
    for peer in &peers {
        peer.wait_for(|known| !known.connected_to.contains(&id)).await;
    }
    let mut torn = records.clone();
    torn[0][100] ^= 1;
    assert_eq!(restart(&net, 9, Vec::new(), torn).database.known().borrow().nodes.len(), 3, "a changed record counts");
    let again = restart(&net, 2, Vec::new(), records);
    assert_eq!(again.database.known().borrow().nodes.len(), 4);
    again.register().await;
    for peer in &peers {
        peer.wait_for(|known| known.connected_to.contains(&id) && !known.silent.contains(&id)).await;
    }
}
