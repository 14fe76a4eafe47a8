//! What the daemon keeps on disk: an embedded store, crash-safe, in one file; the only file that names redb.
//!
//! redb rather than fjall or SQLite: one file, pure Rust, transactions that are whole after a crash, two packages in the tree. fjall
//! pays off with write loads that a node does not have; SQLite brings a C library and a query language for five tables.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

/// Largest value that is kept: a record, a key, a guard set.
const MAX_VALUE: usize = 64 * 1024;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Records of known nodes, by node id: they prime the next start.
    Nodes,
    /// AP records held for others, by key.
    ApRecords,
    /// Named identities, by name.
    Identities,
    /// The guard set.
    Guards,
    /// Anything of which there is one.
    Meta,
}

impl Table {
    const ALL: [Self; 5] = [Self::Nodes, Self::ApRecords, Self::Identities, Self::Guards, Self::Meta];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Nodes => "nodes",
            Self::ApRecords => "ap_records",
            Self::Identities => "identities",
            Self::Guards => "guards",
            Self::Meta => "meta",
        })
    }
}

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("another phantomd has it open")]
    InUse,
    /// It is not what a store must be.
    #[error("it is damaged: {0}")]
    Corrupt(String),
    /// Reading or writing failed; what was kept before is whole.
    #[error("the disk does not take or give it (full?): {0}")]
    Disk(String),
    /// The value is longer than any that belongs here.
    #[error("a value of {0} bytes does not belong into the store")]
    TooLong(usize),
}

/// Keys and values of a table.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The store. All calls block for the time of a disk access.
#[derive(Debug)]
pub struct Store(Database);

impl Store {
    /// Opens the store at `path` or makes it, readable by its owner only.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is there is left as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // redb takes an empty file for a new store: fine when we made it, damage when something else emptied it.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let fresh = made.is_ok();
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
                    return Err(StoreError::Corrupt("the file is empty".into()));
                }
            }
            Err(error) => return Err(StoreError::Disk(error.to_string())),
        }
        let opened = Database::create(path).map_err(opening).and_then(|database| {
            let store = Self(database);
            store.write(|_| Ok(()))?;
            Ok(store)
        });
        if opened.is_err() && fresh {
            // Not even the first page could be written: leave nothing that looks like a store.
            let _ = fs::remove_file(path);
        }
        opened
    }

    /// The value under a key.
    pub fn load(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.0.begin_read().map_err(disk)?;
        match read.open_table(table.definition()) {
            Ok(table) => Ok(table.get(key).map_err(disk)?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(disk(error)),
        }
    }

    /// Keeps a value; on disk when this returns.
    pub fn save(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.save_all(table, &[(key.to_vec(), value.to_vec())])
    }

    /// Keeps several values, all or none.
    pub fn save_all(&self, table: Table, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        if let Some((_, value)) = entries.iter().find(|(_, value)| value.len() > MAX_VALUE) {
            return Err(StoreError::TooLong(value.len()));
        }
        self.write(|write| {
            let mut table = write.open_table(table.definition()).map_err(disk)?;
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice()).map_err(disk)?;
            }
            Ok(())
        })
    }

    /// Replaces all of a table.
    pub fn replace(&self, table: Table, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(|write| {
            let mut table = write.open_table(table.definition()).map_err(disk)?;
            table.retain(|_, _| false).map_err(disk)?;
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice()).map_err(disk)?;
            }
            Ok(())
        })
    }

    /// Forgets a value.
    pub fn remove(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            write.open_table(table.definition()).map_err(disk)?.remove(key).map_err(disk)?;
            Ok(())
        })
    }

    /// Moves a value to another key, over whatever is there.
    pub fn rename(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            let mut table = write.open_table(table.definition()).map_err(disk)?;
            let value = table.remove(from).map_err(disk)?.map(|value| value.value().to_vec());
            if let Some(value) = value {
                table.insert(to, value.as_slice()).map_err(disk)?;
            }
            Ok(())
        })
    }

    /// All keys and values of a table, in order of the keys.
    pub fn scan(&self, table: Table) -> Result<Entries, StoreError> {
        let read = self.0.begin_read().map_err(disk)?;
        let table = match read.open_table(table.definition()) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(disk(error)),
        };
        let entries = table.iter().map_err(disk)?;
        entries
            .map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(disk))
            .collect()
    }

    fn write(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let write = self.0.begin_write().map_err(disk)?;
        for table in Table::ALL {
            write.open_table(table.definition()).map_err(disk)?;
        }
        work(&write)?;
        write.commit().map_err(disk)
    }
}

fn opening(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
            StoreError::Disk(error.to_string())
        }
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn disk(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(text) => StoreError::Corrupt(text),
        other => StoreError::Disk(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load(Table::Meta, b"k").unwrap(), None);
        store.save(Table::Meta, b"k", b"v").unwrap();
        store.save(Table::Nodes, b"k", b"other").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::InUse)));
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.load(Table::Meta, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        store.replace(Table::Meta, &[(b"a".to_vec(), b"b".to_vec())]).unwrap();
        assert_eq!(store.scan(Table::Meta).unwrap(), [(b"a".to_vec(), b"b".to_vec())]);
        store.remove(Table::Meta, b"a").unwrap();
        assert!(store.scan(Table::Meta).unwrap().is_empty());
        assert!(matches!(store.save(Table::Meta, b"k", &[0; MAX_VALUE + 1]), Err(StoreError::TooLong(_))));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_said_to_be_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"this was never a store", &[0xff; 20_000]] {
            let path = dir.path().join("store");
            fs::write(&path, content).unwrap();
            assert!(matches!(Store::open(&path), Err(StoreError::Corrupt(_))), "{} bytes", content.len());
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
