//! The database's twin in memory, shared by all nodes of a simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use phantom_proto::ident::ApAddress;
use phantom_proto::record::{ApRecord, Signed};

use super::{Database, DatabaseError};
use crate::clock::unix_seconds;

/// AP records by address.
#[derive(Clone, Default)]
pub struct MemoryDatabase(Arc<Mutex<Records>>);

type Records = BTreeMap<ApAddress, (ApRecord, Vec<u8>)>;

#[async_trait]
impl Database for MemoryDatabase {
    async fn publish(&self, bytes: Vec<u8>) -> Result<(), DatabaseError> {
        let signed = Signed::<ApRecord>::from_bytes(&bytes).map_err(phantom_proto::record::RecordError::from)?;
        let record = signed.check(unix_seconds())?;
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = records.get(&record.address()).map(|(known, _)| known.serial);
        if known.is_none_or(|serial| serial < record.serial) {
            records.insert(record.address(), (record, bytes));
        }
        Ok(())
    }

    async fn lookup(&self, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.get(&address).filter(|(record, _)| record.expires > unix_seconds()).cloned())
    }
}
