//! What the daemon keeps on disk: an embedded store, crash-safe, in one file; the only file that names redb.
//!
//! redb rather than fjall or SQLite: one file, pure Rust, transactions that are whole after a crash, two packages in the tree. fjall
//! pays off with write loads that a node does not have; SQLite brings a C library and a query language for six tables.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::os;

/// Largest value that is kept: a record, a key, a guard set.
const MAX_VALUE: usize = 64 * 1024;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Records of known nodes, by node id: they prime the next start.
    Nodes,
    /// Since when nodes have been reached, by node id.
    Terms,
    /// Records kept for others, by key.
    Shelf,
    /// Named identities, by name.
    Identities,
    /// The guard set.
    Guards,
    /// Override commands, by serial.
    Commands,
    /// Anything of which there is one.
    Meta,
}

impl Table {
    const ALL: [Self; 7] =
        [Self::Nodes, Self::Terms, Self::Shelf, Self::Identities, Self::Guards, Self::Commands, Self::Meta];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Nodes => "nodes",
            Self::Terms => "terms",
            Self::Shelf => "shelf",
            Self::Identities => "identities",
            Self::Guards => "guards",
            Self::Commands => "commands",
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
pub struct Store {
    path: PathBuf,
    /// Exchanged for another by [`Store::erase`] alone.
    database: RwLock<Database>,
}

impl Store {
    /// Opens the store at `path` or makes it, readable by its owner only.
    ///
    /// # Errors
    /// See [`StoreError`]; a file that is there is left as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // redb takes an empty file for a new store: fine when we made it, damage when something else emptied it.
        let made = os::new_private(path);
        let fresh = made.is_ok();
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
                    return Err(StoreError::Corrupt("the file is empty".into()));
                }
            }
            Err(error) => return Err(StoreError::Disk(error.to_string())),
        }
        let opened = Database::create(path).map_err(opening).and_then(|database| {
            let store = Self { path: path.to_owned(), database: RwLock::new(database) };
            store.write(|_| Ok(()))?;
            // Left by an end in the middle of erasing.
            let _ = fs::remove_file(store.draft());
            Ok(store)
        });
        if opened.is_err() && fresh {
            // Not even the first page could be written: leave nothing that looks like a store.
            let _ = fs::remove_file(path);
        }
        opened
    }

    /// One whose file is elsewhere.
    #[cfg(test)]
    pub(crate) fn over(database: Database) -> Self {
        Self { path: PathBuf::new(), database: RwLock::new(database) }
    }

    /// The value under a key.
    pub fn load(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.database().begin_read().map_err(disk)?;
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

    /// Forgets values so that the disk does not hold them any more, all or none: removed ones stay in free pages of the file until others
    /// are written there. The whole file is written anew without them, and the old one overwritten, as far as the disk and its file
    /// system let a file do that.
    pub fn erase(&self, table: Table, keys: &[&[u8]]) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let draft = self.draft();
        let _ = fs::remove_file(&draft);
        let erased = copy(&database, &draft, |from, key| from == table && keys.contains(&key)).and_then(|without| {
            let old = OpenOptions::new().write(true).open(&self.path).map_err(disk)?;
            fs::rename(&draft, &self.path).map_err(disk)?;
            Ok((without, old))
        });
        let (without, old) = erased.inspect_err(|_| drop(fs::remove_file(&draft)))?;
        drop(std::mem::replace(&mut *database, without));
        drop(database);
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        os::sync_folder(folder).and_then(|()| overwrite(old)).map_err(disk)
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
        let read = self.database().begin_read().map_err(disk)?;
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

    fn write(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        write(&self.database(), work)
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        // Nobody panics between the old one and the new.
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }
}

fn write(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(disk)?;
    for table in Table::ALL {
        write.open_table(table.definition()).map_err(disk)?;
    }
    work(&write)?;
    write.commit().map_err(disk)
}

/// A store of its own, at `path`, with all of another but what is left out; on disk when this returns.
fn copy(from: &Database, path: &Path, leaves_out: impl Fn(Table, &[u8]) -> bool) -> Result<Database, StoreError> {
    os::new_private(path).map_err(disk)?;
    let (to, read) = (Database::create(path).map_err(opening)?, from.begin_read().map_err(disk)?);
    write(&to, |write| {
        for table in Table::ALL {
            let mut copied = write.open_table(table.definition()).map_err(disk)?;
            for entry in read.open_table(table.definition()).map_err(disk)?.iter().map_err(disk)? {
                let (key, value) = entry.map_err(disk)?;
                if !leaves_out(table, key.value()) {
                    copied.insert(key.value(), value.value()).map_err(disk)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(to)
}

fn overwrite(mut file: File) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    let zeros = [0; 64 * 1024];
    while left > 0 {
        let part = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

fn opening(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
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

    /// What is removed stays in the file otherwise, for years perhaps.
    #[test]
    fn what_is_erased_is_not_in_the_file_any_more_and_all_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, before) = (dir.path().join("store"), dir.path().join("before"));
        let store = Store::open(&path).unwrap();
        let secret = b"a seed that nobody shall find!!!";
        store.save(Table::Identities, b"mail", secret).unwrap();
        store.save(Table::Identities, b"shop", b"another").unwrap();
        store.save(Table::Meta, b"mail", b"of the same key elsewhere").unwrap();
        // Moved on: an old copy lies in a free page.
        store.save(Table::Identities, b"mail", secret).unwrap();
        let holds = |path: &Path| fs::read(path).unwrap().windows(secret.len()).any(|part| part == secret);
        assert!(holds(&path));
        fs::hard_link(&path, &before).unwrap();
        store.erase(Table::Identities, &[b"mail", b"nobody"]).unwrap();
        assert!(!holds(&path) && !holds(&before), "neither the new file nor the old one");
        store.save(Table::Identities, b"more", b"after").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::InUse)));
        let kept = |store: &Store| {
            let names = store.scan(Table::Identities).unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            (names, store.load(Table::Meta, b"mail").unwrap().is_some())
        };
        let expected = (vec![b"more".to_vec(), b"shop".to_vec()], true);
        assert_eq!(kept(&store), expected);
        drop(store);
        fs::write(dir.path().join("store.new"), "left by an end in the middle").unwrap();
        assert_eq!(kept(&Store::open(&path).unwrap()), expected);
        assert!(!dir.path().join("store.new").exists());
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
