//! What the daemon keeps on disk: an embedded store, crash-safe, in one file; the only file that names redb.
//!
//! redb rather than fjall or SQLite: one file, pure Rust, transactions that are whole after a crash, two packages in the tree. fjall
//! pays off with write loads that a node does not have; SQLite brings a C library and a query language for six tables.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    AccessGuard, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};

use crate::advice::is_full;
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
    /// Reading or writing failed; what was kept before is whole, and what comes next is tried anew.
    #[error("the disk does not take or give {path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The value is longer than any that belongs here.
    #[error("a value of {0} bytes does not belong into the store")]
    TooLong(usize),
}

impl StoreError {
    /// What helps; nothing was changed.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse => "stop that one first",
            Self::Corrupt(_) => "restore the file from a copy, or move it away (named identities are in it)",
            Self::Disk { source, .. } if is_full(source) => "free some space on that disk, then try again",
            Self::Disk { .. } => "look at that disk and at its folder's rights, then try again",
            Self::TooLong(_) => "this is a fault of phantomd's: report it",
        }
    }
}

/// Keys and values of a table.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The store. All calls block for the time of a disk access.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` once its file has refused something (a full disk): redb takes nothing more then, until it is opened anew. Else exchanged
    /// for another by [`Store::erase`] alone.
    database: RwLock<Option<Database>>,
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
            Err(source) => return Err(StoreError::Disk { path: path.to_owned(), source }),
        }
        let opened = opened(path).and_then(|database| {
            let store = Self { path: path.to_owned(), database: RwLock::new(Some(database)) };
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
        Self { path: PathBuf::new(), database: RwLock::new(Some(database)) }
    }

    /// The value under a key.
    pub fn load(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| match database.begin_read()?.open_table(table.definition()) {
            Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
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
            let mut table = write.open_table(table.definition())?;
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    /// Replaces all of a table.
    pub fn replace(&self, table: Table, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(|write| {
            let mut table = write.open_table(table.definition())?;
            table.retain(|_, _| false)?;
            for (key, value) in entries {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets a value.
    pub fn remove(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            write.open_table(table.definition())?.remove(key)?;
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
        let now = match database.take() {
            Some(now) => now,
            None => opened(&self.path)?,
        };
        let erased = copy(&now, &draft, |from, key| from == table && keys.contains(&key)).and_then(|without| {
            let old = OpenOptions::new().write(true).open(&self.path)?;
            fs::rename(&draft, &self.path)?;
            Ok((without, old))
        });
        let (without, old) = match erased {
            Ok(erased) => erased,
            Err(error) => {
                let _ = fs::remove_file(&draft);
                *database = Some(now);
                return Err(refused(&self.path, error));
            }
        };
        *database = Some(without);
        drop((now, database));
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        os::sync_folder(folder).and_then(|()| overwrite(old)).map_err(|error| refused(&self.path, error.into()))
    }

    /// Moves a value to another key, over whatever is there.
    pub fn rename(&self, table: Table, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            let mut table = write.open_table(table.definition())?;
            let value = table.remove(from)?.map(|value| value.value().to_vec());
            if let Some(value) = value {
                table.insert(to, value.as_slice())?;
            }
            Ok(())
        })
    }

    /// All keys and values of a table, in order of the keys.
    pub fn scan(&self, table: Table) -> Result<Entries, StoreError> {
        self.with(|database| {
            let table = match database.begin_read()?.open_table(table.definition()) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let owned = |(key, value): (AccessGuard<'_, &[u8]>, AccessGuard<'_, &[u8]>)| {
                (key.value().to_vec(), value.value().to_vec())
            };
            table.iter()?.map(|entry| Ok(entry.map(owned)?)).collect()
        })
    }

    fn write(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        self.with(|database| write(database, work))
    }

    /// What `work` makes of the database, which is opened anew where its file has refused something.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        loop {
            // Nobody panics between the old one and the new.
            let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let Some(database) = &*open else {
                drop(open);
                self.open_anew()?;
                continue;
            };
            let done = work(database).map_err(|error| refused(&self.path, error));
            drop(open);
            if matches!(done, Err(StoreError::Disk { .. })) {
                *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            return done;
        }
    }

    fn open_anew(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(opened(&self.path)?);
        }
        Ok(())
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }
}

fn opened(path: &Path) -> Result<Database, StoreError> {
    Database::create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        DatabaseError::Storage(redb::StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            StoreError::Disk { path: path.to_owned(), source }
        }
        other => StoreError::Corrupt(other.to_string()),
    })
}

fn write(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    for table in Table::ALL {
        write.open_table(table.definition())?;
    }
    work(&write)?;
    Ok(write.commit()?)
}

/// A store of its own, at `path`, with all of another but what is left out; on disk when this returns.
fn copy(from: &Database, path: &Path, leaves_out: impl Fn(Table, &[u8]) -> bool) -> Result<Database, redb::Error> {
    os::new_private(path)?;
    let (to, read) = (Database::create(path)?, from.begin_read()?);
    write(&to, |write| {
        for table in Table::ALL {
            let mut copied = write.open_table(table.definition())?;
            for entry in read.open_table(table.definition())?.iter()? {
                let (key, value) = entry?;
                if !leaves_out(table, key.value()) {
                    copied.insert(key.value(), value.value())?;
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

fn refused(path: &Path, error: redb::Error) -> StoreError {
    let source = match error {
        redb::Error::Corrupted(text) => return StoreError::Corrupt(text),
        redb::Error::Io(source) => source,
        other => io::Error::other(other.to_string()),
    };
    StoreError::Disk { path: path.to_owned(), source }
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
