//! The daemon's folder on disk: who may touch it, one daemon at a time, private files written whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::advice::is_full;
use crate::os::{self, Shared};

/// Held locked while a daemon uses the folder; holds its process id for the message to a second one.
const LOCK: &str = "lock";

/// How long a daemon that is about to end may still hold the folder: it promises to end within two seconds, and a loaded
/// machine gets more.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nobody is told why nothing happens.
const SILENCE: Duration = Duration::from_secs(1);

/// Between two looks: waiting for a lock with an end to it takes a signal or a thread, and either is more than this.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Free space below which the daemon does not start: room for the store's next pages, keys and a full log line.
const MIN_FREE: u64 = 16 << 20;

/// Longest private file that is read, in bytes: keys are 65.
const MAX_PRIVATE: u64 = 4096;

/// What helps whenever a folder does not serve; `phantom setup`, which has no such option, puts words of its own in its place.
pub(crate) const ANOTHER: &str = "give another --data-dir";

/// Why the folder cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another daemon runs on it.
    #[error("another phantomd already runs on {dir}{}\n  stop it with `phantom stop`, or give another --data-dir", pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The other daemon's process id, when it could be read.
        pid: Option<u32>,
    },
    /// It belongs to somebody else, or others may write into it.
    #[error("{path} {what}: {hint}")]
    Unsafe {
        /// Folder or file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// No room.
    #[error("the disk of {dir} is full ({free} KiB left, {} KiB needed)\n  free some space, or give another --data-dir", MIN_FREE >> 10)]
    Full {
        /// The folder.
        dir: PathBuf,
        /// Free space in KiB.
        free: u64,
    },
    /// A file holds something else than it should.
    #[error(
        "{path} is damaged: {what}\n  restore it from a copy, or move it away and run `phantomd init` for a new one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system refused.
    #[error("cannot {doing} {path}: {source}{}", io_hint(source))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn io_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "\n  it must be this user's to write in: look at owner and rights (`ls -ld`), or give another --data-dir"
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            "\n  it cannot be there: give another --data-dir"
        }
        _ if is_full(error) => "\n  free some space, or give another --data-dir",
        _ => "",
    }
}

impl DataError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// The daemon's folder, locked until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is missing, checks owner, rights and free space, and locks it. Whoever starts a daemon in the
    /// moment in which another one ends waits for that, and is told so on standard error.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_within(path, PATIENCE, &mut |pid| {
            let who = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            eprintln!("phantomd: {} is in use by another phantomd{who}; waiting in case it is ending", path.display());
        })
    }

    /// The same with a patience; `waits` hears once for whom it is waited, when that takes long.
    fn open_within(path: &Path, patience: Duration, waits: &mut dyn FnMut(Option<u32>)) -> Result<Self, DataError> {
        make_private_dir(path)?;
        check_space(path)?;
        let lock = lock(path, patience, waits)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Makes a folder with mode 0700, or checks that an existing one is ours and that nobody else may write into it.
///
/// # Errors
/// When it cannot be made, or fails the check.
pub fn make_private_dir(path: &Path) -> Result<(), DataError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            os::make_folder(path).map_err(DataError::io("make the folder", path))
        }
        Err(error) => Err(DataError::io("look at", path)(error)),
        Ok(meta) if !meta.is_dir() => Err(unsafe_path(path, "is not a folder", "give another path")),
        Ok(meta) => os::folder_is_ours(&meta).map_err(|Shared { what, hint }| unsafe_path(path, what, hint)),
    }
}

/// Whether a daemon could start with a folder, as far as that can be seen while another one has it: one that is there, and this user's.
///
/// False: it is not.
///
/// # Errors
/// When others may write into it, or there is no room.
pub fn check(path: &Path) -> Result<bool, DataError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() && os::is_own(&meta) => {
            make_private_dir(path)?;
            check_space(path)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn unsafe_path(path: &Path, what: &'static str, hint: &'static str) -> DataError {
    DataError::Unsafe { path: path.to_owned(), what, hint }
}

fn check_space(dir: &Path) -> Result<(), DataError> {
    let free = os::free_space(dir).map_err(DataError::io("look at the disk of", dir))?;
    if free < MIN_FREE {
        return Err(DataError::Full { dir: dir.to_owned(), free: free >> 10 });
    }
    Ok(())
}

fn lock(dir: &Path, patience: Duration, waits: &mut dyn FnMut(Option<u32>)) -> Result<File, DataError> {
    let path = dir.join(LOCK);
    let mut file = os::open_private(&path).map_err(DataError::io("open", &path))?;
    let (begun, mut told) = (Instant::now(), false);
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(DataError::io("lock", &path)(error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                return Err(DataError::InUse { dir: dir.to_owned(), pid: written(&path) });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if begun.elapsed() >= SILENCE && !told {
            waits(written(&path));
            told = true;
        }
        sleep(LOOK_PAUSE);
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(DataError::io("write", &path))?;
    Ok(file)
}

/// The number that whoever locked the folder wrote into this file.
fn written(lock: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(lock).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process that says it holds the folder, and the file by which it does; none where nobody does.
pub fn holder(dir: &Path) -> Option<(u32, File)> {
    let path = dir.join(LOCK);
    let file = File::open(&path).ok()?;
    // Shared: a daemon that starts in this moment waits for us.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some((written(&path)?, file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// Whether a daemon holds the folder.
pub fn is_held(dir: &Path) -> bool {
    File::open(dir.join(LOCK)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Writes a file of mode 0600 so that after a crash either the old or the new content is there, whole.
///
/// # Errors
/// What the file system says; the old content is still there then.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_by_draft(path, |draft| write_synced(draft, content), |draft| fs::rename(draft, path))
}

/// As [`write_private`], but over nothing that is there.
///
/// # Errors
/// `AlreadyExists`, or what the file system says; nothing is there then that was not before.
pub fn write_new_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write_by_draft(path, |draft| write_synced(draft, content), |draft| os::rename_to_new(draft, path))
}

/// Makes a draft beside a file, puts it in the file's place, and sees to it that this is on disk; a draft that did not get there is gone.
///
/// # Errors
/// What the file system says; the old content is still there then.
pub fn write_by_draft(
    path: &Path,
    make: impl FnOnce(&Path) -> io::Result<()>,
    put: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let draft = dir.join(name);
    let written = make(&draft).and_then(|()| put(&draft));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written?;
    os::sync_folder(dir)
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    // A draft left by a crash may have other rights: begin anew.
    let _ = fs::remove_file(path);
    let mut file = os::new_private(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads a private file; `None` when it does not exist.
///
/// # Errors
/// When others may read it, when it is too long, or when the system refuses.
pub fn read_private(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io("read", path)(error)),
    };
    let meta = file.metadata().map_err(DataError::io("look at", path))?;
    os::file_is_ours(&meta).map_err(|Shared { what, hint }| unsafe_path(path, what, hint))?;
    if meta.len() > MAX_PRIVATE {
        return Err(DataError::Damaged { path: path.to_owned(), what: "it is too long" });
    }
    let mut content = Vec::new();
    file.take(MAX_PRIVATE).read_to_end(&mut content).map_err(DataError::io("read", path))?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_second_daemon_is_told_about_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        match DataDir::open_within(dir.path(), Duration::ZERO, &mut |_| panic!("nobody waits")) {
            Err(DataError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        DataDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn who_comes_while_another_ends_waits_for_that_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, mut said) = (Some(DataDir::open(dir.path()).unwrap()), Vec::new());
        // It ends when it is waited for, however long that takes to be said here.
        let second = DataDir::open_within(dir.path(), Duration::from_secs(3600), &mut |pid| {
            said.push(pid);
            first = None;
        });
        assert_eq!(second.unwrap().path(), dir.path());
        assert_eq!(said, [Some(std::process::id())], "once");
    }

    #[test]
    fn who_holds_a_folder_is_known_as_long_as_it_does() {
        let dir = tempfile::tempdir().unwrap();
        assert!(holder(dir.path()).is_none(), "there is nothing yet");
        let first = DataDir::open(dir.path()).unwrap();
        assert_eq!(holder(dir.path()).map(|(pid, _)| pid), Some(std::process::id()));
        drop(first);
        assert!(holder(dir.path()).is_none(), "the number alone, left behind, holds nothing");
    }

    #[test]
    fn new_folders_and_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        write_private(&data.file("key"), b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(data.file("key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_private(&data.file("key")).unwrap().as_deref(), Some(&b"secret"[..]));
        assert!(read_private(&data.file("other")).unwrap().is_none());
    }

    #[test]
    fn folders_and_files_open_to_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        write_private(&key, b"secret").unwrap();
        chmod(&key, 0o640);
        assert!(matches!(read_private(&key), Err(DataError::Unsafe { .. })));
        chmod(dir.path(), 0o777);
        assert!(matches!(DataDir::open(dir.path()), Err(DataError::Unsafe { .. })));
        assert!(matches!(DataDir::open(&key), Err(DataError::Unsafe { .. })));
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        write_private(&key, b"old").unwrap();
        // A folder in the draft's place cannot be replaced by a file.
        fs::create_dir(dir.path().join("key.new")).unwrap();
        assert!(write_private(&key, b"new").is_err());
        assert_eq!(fs::read(&key).unwrap(), b"old");
    }

    #[test]
    fn a_new_file_is_private_and_never_takes_anothers_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write_new_private(&file, b"first").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = write_new_private(&file, b"second").unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_the_system_refuses_is_said_with_what_helps() {
        let said = |kind: ErrorKind| DataError::io("make the folder", Path::new("/x"))(kind.into()).to_string();
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::StorageFull] {
            assert!(said(kind).contains("\n  ") && said(kind).ends_with("give another --data-dir"), "{}", said(kind));
        }
        assert!(!said(ErrorKind::Other).contains('\n'));
    }

    #[test]
    fn a_draft_left_by_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(dir.path().join("key.new"), b"half").unwrap();
        write_private(&key, b"whole").unwrap();
        assert_eq!(fs::read(&key).unwrap(), b"whole");
        assert!(!dir.path().join("key.new").exists());
    }
}
