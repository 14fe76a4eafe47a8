//! The database's twin in memory, shared by all nodes of a simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::record::{ApRecord, Signed};
use phantom_proto::wire::NodeContact;

use super::{Database, DatabaseError, Origin};
use crate::clock::unix_seconds;

/// AP records by address, and where nodes are.
#[derive(Clone, Default)]
pub struct MemoryDatabase(Arc<Mutex<Records>>);

#[derive(Default)]
struct Records {
    addresses: BTreeMap<ApAddress, (ApRecord, Vec<u8>)>,
    nodes: BTreeMap<NodeId, NodeContact>,
}

impl MemoryDatabase {
    /// Tells the database of a node.
    pub fn add(&self, contact: NodeContact) {
        self.lock().nodes.insert(contact.node_id(), contact);
    }

    /// Nobody finds this node any more.
    pub fn remove(&self, node: NodeId) {
        self.lock().nodes.remove(&node);
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Database for MemoryDatabase {
    async fn publish(&self, _: Origin, bytes: Vec<u8>) -> Result<(), DatabaseError> {
        let signed = Signed::<ApRecord>::from_bytes(&bytes).map_err(phantom_proto::record::RecordError::from)?;
        let record = signed.check(unix_seconds())?;
        let records = &mut self.lock().addresses;
        let known = records.get(&record.address()).map(|(known, _)| known.serial);
        if known.is_none_or(|serial| serial < record.serial) {
            records.insert(record.address(), (record, bytes));
        }
        Ok(())
    }

    async fn lookup(&self, _: Origin, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError> {
        let records = self.lock();
        Ok(records.addresses.get(&address).filter(|(record, _)| record.expires > unix_seconds()).cloned())
    }

    async fn contact(&self, _: Origin, node: NodeId) -> Result<Option<NodeContact>, DatabaseError> {
        Ok(self.lock().nodes.get(&node).cloned())
    }

    async fn heard(&self, _: Vec<u8>) {}
}
