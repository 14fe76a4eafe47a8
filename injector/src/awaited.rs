//! Hears when files come, as inotify tells it: into folders that are there, and into such as are made on the way to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify;
use rustix::io::Errno;

/// What comes into a folder; and that the folder itself goes, after which another may come.
const CHANGES: inotify::WatchFlags =
    inotify::WatchFlags::CREATE.union(inotify::WatchFlags::MOVED_TO).union(inotify::WatchFlags::MOVE_SELF);

/// What is awaited.
pub(crate) struct Awaited {
    changes: OwnedFd,
    /// By watch, the names that matter; none where all do.
    names: BTreeMap<i32, Option<BTreeSet<OsString>>>,
}

impl Awaited {
    /// Nothing so far.
    ///
    /// # Errors
    /// Where the user may have no more of such.
    pub(crate) fn new() -> io::Result<Self> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { changes, names: BTreeMap::new() })
    }

    /// Whatever comes into a folder.
    pub(crate) fn all_in(&mut self, folder: &Path) {
        if let Ok(watch) = inotify::add_watch(&self.changes, folder, CHANGES) {
            self.names.insert(watch, None);
        }
    }

    /// A file of that name; nothing else that comes beside it, which may be much (/tmp, homes).
    pub(crate) fn file(&mut self, file: &Path) {
        // Once more for each folder that is made meanwhile.
        for _ in file.ancestors() {
            match self.nearest(file) {
                Ok(Some(missing)) if missing != file && missing.exists() => {}
                _ => return,
            }
        }
    }

    /// Watches the nearest folder above that is there; what is awaited in it.
    fn nearest<'a>(&mut self, file: &'a Path) -> Result<Option<&'a Path>, Errno> {
        for at in file.ancestors() {
            let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else { break };
            match inotify::add_watch(&self.changes, folder, CHANGES) {
                Ok(watch) => {
                    let names = self.names.entry(watch).or_insert_with(|| Some(BTreeSet::new()));
                    if let Some(names) = names {
                        names.insert(name.to_owned());
                    }
                    return Ok(Some(at));
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                // Nobody who may not look into a folder hears of it; most programs of the same user come no further either.
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes what was told; whether something of it matters.
    pub(crate) fn has_come(&mut self) -> bool {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.changes.as_fd(), &mut room);
        let mut has_come = false;
        while let Ok(event) = reader.next() {
            let Some(name) = event.file_name() else {
                // A folder has gone, or more was to be told than there was room for.
                if event.events().contains(inotify::ReadFlags::IGNORED) {
                    self.names.remove(&event.wd());
                }
                has_come = true;
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            has_come |= match self.names.get(&event.wd()) {
                Some(Some(names)) => names.contains(name),
                Some(None) | None => true,
            };
        }
        has_come
    }
}

impl AsFd for Awaited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_awaited_is_heard_of_and_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut awaited = Awaited::new().expect("as many as may be");
        fs::create_dir(at("all")).expect("a folder");
        awaited.all_in(&at("all"));
        awaited.file(&at("socket"));
        // Also where all matters.
        awaited.file(&at("all/socket"));
        assert!(!awaited.has_come());
        fs::write(at("other"), "").expect("a file");
        assert!(!awaited.has_come());
        for name in ["socket", "all/other"] {
            fs::write(at(name), "").expect("a file");
            assert!(awaited.has_come(), "{name}");
            assert!(!awaited.has_come(), "{name}, once");
        }
        fs::rename(at("other"), at("socket")).expect("another file by that name");
        assert!(awaited.has_come());
    }

    #[test]
    fn folders_on_the_way_are_awaited_one_after_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut awaited = Awaited::new().expect("as many as may be");
        let file = at("a/b/socket");
        for (name, is_on_the_way) in [("b", false), ("a", true), ("a/c", false), ("a/b", true)] {
            awaited.file(&file);
            fs::create_dir(at(name)).expect("a folder");
            assert_eq!(awaited.has_come(), is_on_the_way, "{name}");
        }
        awaited.file(&file);
        fs::write(&file, "").expect("a file");
        assert!(awaited.has_come());
        // And once more, when all of it was made anew.
        for is_kept in [false, true] {
            let gone = if is_kept { fs::rename(at("a/b"), at("kept")) } else { fs::remove_dir_all(at("a/b")) };
            gone.expect("it goes");
            assert!(awaited.has_come());
            awaited.file(&file);
            fs::create_dir(at("a/b")).expect("a folder");
            assert!(awaited.has_come());
            awaited.file(&file);
            fs::write(&file, "").expect("a file");
            assert!(awaited.has_come());
        }
    }
}
