//! This node's own path keys and record through the epochs: made, kept, published, wiped.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::ident::NodeId;
use phantom_proto::path::{Candidate, PathKeys};
use phantom_proto::record::{Epoch, Extensions, NodeRecord, PublicPathKeys, Signed};
use phantom_proto::wire::NodeContact;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::clock::unix_seconds;
use crate::driver::Handle;
use crate::netdb::NetDb;
use crate::path_keys::{PathKeyFolder, Served};
use crate::startup::Setup;
use crate::store::Table;

/// Where the last own record is in the store: a change within its epoch counts its revision up.
const RECORD: &[u8] = b"node record";

/// How often the node looks whether its next epoch has begun. By the wall clock: a computer that slept has missed timers.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// What a node is to others for one epoch.
pub(super) struct Own {
    pub(super) epoch: Epoch,
    /// All keys that it serves.
    pub(super) keys: Vec<PathKeys>,
    /// Some of them are of an earlier run.
    pub(super) of_earlier_run: bool,
    /// What its record says now.
    pub(super) candidate: Candidate,
    pub(super) record: Signed<NodeRecord>,
}

/// What a record says of a node at `now`. `None`: its keys are over.
pub(super) fn candidate(record: &NodeRecord, now: u64) -> Option<Candidate> {
    let PublicPathKeys { dh, kem } = record.keys_at(now)?;
    Some(Candidate { contact: record.contact.clone(), path_dh: *dh, path_kem: kem.clone(), weight: 1 })
}

impl Own {
    /// What this node is at `now`: the same after a restart. Blocks for some disk accesses.
    // protocol: E5
    pub(super) fn at(setup: &Setup, contact: &NodeContact, folder: &PathKeyFolder, now: u64) -> Self {
        let Served { epoch, previous, current, next, of_earlier_run } = folder.serve(now);
        let record = NodeRecord {
            contact: contact.clone(),
            epoch,
            revision: 0,
            keys: [current.public(), next.public()],
            extensions: Extensions::default(),
        };
        let candidate = Candidate {
            contact: contact.clone(),
            path_dh: record.keys[0].dh,
            path_kem: record.keys[0].kem.clone(),
            weight: 1,
        };
        let record = revised(record, last(setup, now));
        let record = Signed::sign(&record, &setup.node.key);
        if let Err(error) = setup.store.save(Table::Meta, RECORD, record.bytes()) {
            tracing::warn!("this node's record could not be saved: {error}");
        }
        let keys = previous.into_iter().chain([current, next]).collect();
        Self { epoch, keys, of_earlier_run, candidate, record }
    }
}

/// The record that this node published last, if it still holds.
fn last(setup: &Setup, now: u64) -> Option<NodeRecord> {
    let bytes = setup.store.load(Table::Meta, RECORD).ok()??;
    Signed::<NodeRecord>::from_bytes(&bytes).ok()?.check(now).ok()
}

/// The same record again, or one that wins over the last of its epoch.
// protocol: R5
fn revised(mut record: NodeRecord, last: Option<NodeRecord>) -> NodeRecord {
    if let Some(last) = last.filter(|last| last.epoch == record.epoch) {
        record.revision = last.revision;
        if record != last {
            record.revision = last.revision.saturating_add(1);
        }
    }
    record
}

/// Changes keys and record when an epoch begins, and the record when others reach this node elsewhere, for ever.
pub(super) async fn rotate(
    setup: Arc<Setup>,
    folder: Arc<PathKeyFolder>,
    mut epoch: Epoch,
    mut here_rx: watch::Receiver<NodeContact>,
    handle: Handle,
    database: NetDb,
) {
    let node: NodeId = setup.node.node_id();
    let mut told = here_rx.borrow().clone();
    loop {
        // Who says it is gone only with the daemon.
        let _ = timeout(LOOK_EVERY, here_rx.changed()).await;
        let (now, here) = (unix_seconds(), here_rx.borrow().clone());
        if Epoch::at(&node, now) == epoch && here == told {
            continue;
        }
        let (setup, folder, at) = (setup.clone(), folder.clone(), here.clone());
        // A disk access that panicked: the next look tries again.
        let Ok(own) = spawn_blocking(move || Own::at(&setup, &at, &folder, now)).await else { continue };
        if here != told {
            database.at(here.clone()).await;
        }
        told = here;
        epoch = own.epoch;
        // Served before it is told.
        handle.rotate(own.keys, own.candidate, &own.record).await;
        database.register(&own.record).await;
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::record::EPOCH;
    use tokio::time::sleep;

    use super::*;
    use crate::args::Options;
    use crate::assembly::lone;
    use crate::config::Folders;
    use crate::eula::Consent;
    use crate::link::MemoryNetwork;
    use crate::netdb::NetDbConfig;
    use crate::startup;

    /// A node that is started on this folder, at this address.
    fn start(dir: &std::path::Path, listen: &str) -> (Setup, PathKeyFolder) {
        let options = Options {
            config: None,
            resolver: None,
            command_keys: None,
            data_dir: Some(dir.join("data")),
            socket: None,
            listen: Some(listen.parse().unwrap()),
            peers: Vec::new(),
            log: None,
            accept_eula: true,
            hurry: false,
            leave_router: false,
        };
        let ready = startup::init(&options, &Folders::default(), Consent::Given, &mut crate::random()).unwrap();
        let setup = startup::prepare(ready, crate::listening::Sockets::default()).unwrap();
        let folder = PathKeyFolder::open(setup.data.path(), setup.node.node_id()).unwrap();
        (setup, folder)
    }

    fn own(dir: &std::path::Path, listen: &str, now: u64) -> (Own, NodeRecord) {
        let (setup, folder) = start(dir, listen);
        let own = Own::at(&setup, &setup.contact, &folder, now);
        let record = own.record.check(now).unwrap();
        (own, record)
    }

    // protocol: E5
    #[test]
    fn the_record_of_an_epoch_is_byte_for_byte_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let now = 1_800_000_000;
        let (first, record) = own(dir.path(), &port, now);
        let begin = record.epoch.start();
        for moment in [now, begin, begin + EPOCH - 1] {
            assert_eq!(own(dir.path(), &port, moment).0.record.bytes(), first.record.bytes());
        }
        // The next one begins with the keys that were told ahead, and nothing in it is of this moment.
        let (_, next) = own(dir.path(), &port, begin + EPOCH + 77);
        assert_eq!((next.epoch, next.revision, &next.keys[0]), (record.epoch.next(), 0, &record.keys[1]));
        assert_eq!(next.keys[0].dh, candidate(&record, begin + EPOCH + 77).unwrap().path_dh);
    }

    /// The life of a daemon over the end of an epoch, on a virtual clock.
    #[tokio::test(start_paused = true)]
    async fn when_an_epoch_begins_the_node_publishes_its_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let (setup, folder) = start(dir.path(), "127.0.0.1:0");
        let node = setup.node.node_id();
        let end = Epoch::at(&node, 1_800_000_000).end();
        crate::clock::follow_tokio(Duration::from_secs(end - 30));
        let own = Own::at(&setup, &setup.contact, &folder, unix_seconds());
        let first = own.record.check(unix_seconds()).unwrap();
        let (setup, folder) = (Arc::new(setup), Arc::new(folder));
        let network = MemoryNetwork::default();
        let database = NetDb::start(NetDbConfig {
            own: setup.contact.clone(),
            peers: Vec::new(),
            known: Vec::new(),
            records: Vec::new(),
            terms: Vec::new(),
            reachable: Some(true),
            commands: crate::netdb::Commands::nobody(),
            shelf: Vec::new(),
            spread: phantom_proto::ident::Spread::default(),
            links: Arc::new(network.join(setup.contact.clone())),
            incoming_rx: tokio::sync::mpsc::channel(1).1,
        })
        .unwrap();
        database.register(&own.record).await;
        let lone = lone::driver();
        let (_here_tx, here_rx) = watch::channel(setup.contact.clone());
        tokio::spawn(rotate(setup, folder, own.epoch, here_rx, lone.handle.clone(), database.clone()));
        let published = async || database.node(node).await.unwrap().unwrap();
        assert_eq!(published().await, first);
        let next = loop {
            sleep(Duration::from_secs(1)).await;
            let record = published().await;
            if record != first {
                break record;
            }
            assert!(unix_seconds() < end + 600, "no new record");
        };
        assert!((end..end + LOOK_EVERY.as_secs() + 5).contains(&unix_seconds()), "{} s late", unix_seconds() - end);
        assert_eq!((next.epoch, next.revision, &next.keys[0]), (first.epoch.next(), 0, &first.keys[1]));
    }

    // protocol: R5
    #[test]
    fn a_node_that_moves_within_an_epoch_publishes_a_record_that_wins() {
        let dir = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        let (_, first) = own(dir.path(), "127.0.0.1:0", now);
        let (_, moved) = own(dir.path(), "127.0.0.2:0", now);
        assert_eq!((first.revision, moved.revision), (0, 1));
        assert!(moved.version() > first.version() && moved.keys == first.keys);
        let (_, later) = own(dir.path(), "127.0.0.3:0", now + EPOCH);
        assert_eq!(later.revision, 0);
    }
}
