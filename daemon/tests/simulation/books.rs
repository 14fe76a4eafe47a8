//! The network database as the nodes of a simulation use it, and who reads all that becomes public there.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use phantom_daemon::clock;
use phantom_daemon::netdb::{Database, DatabaseError, MemoryDatabase, Origin};
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::record::{ApRecord, Signed};
use phantom_proto::wire::NodeContact;

use super::hostile::Conduct;
use super::wires::Wires;

/// A record that a node published.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) record: ApRecord,
}

/// What a node was told of a neighbour by that one itself.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) to: usize,
    pub(crate) record: Vec<u8>,
}

/// Keeps every public record, and when it appeared; cheap to clone. Not public: what neighbours tell each other, kept beside it.
#[derive(Clone, Default)]
pub(crate) struct Reader(Arc<Mutex<Vec<Publication>>>, Arc<Mutex<Vec<Told>>>);

impl Reader {
    pub(crate) fn told(&self) -> Vec<Told> {
        self.1.lock().expect("no panic while it is held").clone()
    }

    pub(crate) fn publications(&self) -> Vec<Publication> {
        self.0.lock().expect("no panic while it is held").clone()
    }

    fn read(&self, node: usize, bytes: &[u8]) {
        let at = clock::unix_millis();
        let Ok(signed) = Signed::<ApRecord>::from_bytes(bytes) else { return };
        if let Ok(record) = signed.check(at / 1000) {
            self.0.lock().expect("no panic while it is held").push(Publication { at, node, record });
        }
    }
}

/// One node's way to the database.
pub(crate) struct Books {
    node: usize,
    database: MemoryDatabase,
    wires: Wires,
    reader: Reader,
}

impl Books {
    pub(crate) fn new(node: usize, database: MemoryDatabase, wires: Wires, reader: Reader) -> Self {
        Self { node, database, wires, reader }
    }

    fn withholds(&self) -> bool {
        self.wires.conduct(self.node) == Conduct::Withhold
    }
}

#[async_trait]
impl Database for Books {
    async fn publish(&self, origin: Origin, record: Vec<u8>) -> Result<(), DatabaseError> {
        if self.withholds() {
            return Ok(());
        }
        self.reader.read(self.node, &record);
        self.database.publish(origin, record).await
    }

    async fn lookup(&self, origin: Origin, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError> {
        if self.withholds() { Ok(None) } else { self.database.lookup(origin, address).await }
    }

    async fn contact(&self, origin: Origin, node: NodeId) -> Result<Option<NodeContact>, DatabaseError> {
        let mut contact = self.database.contact(origin, node).await;
        if self.wires.conduct(self.node) == Conduct::Lie
            && let Ok(Some(contact)) = &mut contact
        {
            contact.addr.set_port(444);
        }
        contact
    }

    async fn heard(&self, record: Vec<u8>) {
        let told = Told { at: clock::unix_millis(), to: self.node, record };
        self.reader.1.lock().expect("no panic while it is held").push(told);
    }
}
