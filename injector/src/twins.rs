//! Folders of the program's own that stand for ones of the system's, where services come and go that act for others, and
//! what keeps the two alike in everything else.
//!
//! ```text
//! the system's /run                the program's /run
//! nginx.pid             <- link -> nginx.pid      the same file, whoever makes, replaces or removes it
//! mysqld/               - mount -> mysqld/        also when it comes later: by root's keeper alone
//! app/            <- symbolic link app/           made by the program
//! docker.sock                                     known places are never brought
//! phantom-run/PID-0/               is this folder
//! ```
//! The kernel takes what is mounted over a file away when that is removed elsewhere; what is not there in the first place
//! cannot come off. The keeper does this, outside the program's mounts; links come a moment after what they follow.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, inotify, open, openat, readlinkat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::Pid;

use crate::deputies::{is_ours_alone, leads_to};
use crate::sys;

/// Where those of all runs lie, in the folder that they stand for. No program sees it.
pub(crate) const PLACE: &str = "phantom-run";

/// A thread that makes links.
const STACK: usize = 256 * 1024;

/// Which file it is, by whatever name.
type Id = (u64, u64);

/// All such folders of a run; none before they are made.
#[derive(Default)]
pub(crate) struct Twins(Mutex<Vec<Arc<Mutex<Twin>>>>);

impl Twins {
    /// Those of these folders, unless they are there already. Where there can be none, what the program makes there is its own
    /// alone, and what comes later is not seen, as `complain` hears.
    pub(crate) fn make(&self, folders: Vec<PathBuf>, deputies: &[PathBuf], complain: &dyn Fn(&Path, &io::Error)) {
        let mut all = lock(&self.0);
        if !all.is_empty() {
            return;
        }
        for folder in folders {
            match Twin::make(&folder, deputies.to_vec()) {
                Ok(twin) => all.push(Arc::new(Mutex::new(twin))),
                Err(error) => complain(&folder, &error),
            }
        }
    }

    /// The system's, and where the program's are.
    pub(crate) fn paths(&self) -> Vec<(PathBuf, PathBuf)> {
        let path = |twin: &Twin| (twin.outer.clone(), twin.own.clone());
        lock(&self.0).iter().map(|twin| path(&lock(twin))).collect()
    }

    /// Keeps them alike until the process ends, in threads of their own. Folders that come later are mounted for the program,
    /// as far as this user may.
    pub(crate) fn follow(&self, program: Pid) -> io::Result<()> {
        let mounts = || {
            let is_root = rustix::process::geteuid().is_root();
            is_root.then(|| File::open(format!("/proc/{}/ns/mnt", program.as_raw_nonzero())).ok()).flatten()
        };
        lock(&self.0).iter().try_for_each(|twin| Twin::follow(Arc::clone(twin), mounts().map(OwnedFd::from)))
    }

    /// No process of the run lives any more: what it made stays in the system's folders, the rest goes.
    pub(crate) fn end(&self) {
        lock(&self.0).iter().for_each(|twin| lock(twin).end());
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One such folder. It lasts as long as the keeper, which holds a lock on it.
struct Twin {
    /// The system's.
    outer: PathBuf,
    /// The program's.
    own: PathBuf,
    /// Known places of services.
    deputies: Vec<PathBuf>,
    /// Files that lie in both, and symbolic links to the program's folders.
    known: HashMap<OsString, Id>,
    /// Folders of the system's that are mounted in the program's.
    mounted: HashMap<OsString, Id>,
    /// What can have no second name, and so stays apart.
    apart: HashSet<OsString>,
    changes: OwnedFd,
    _held: File,
    is_over: bool,
}

impl Twin {
    /// One with all files of `outer`, which nobody else may be able to write to; whoever lays it there brings the folders.
    /// What keepers left that were killed is put in order before.
    fn make(outer: &Path, deputies: Vec<PathBuf>) -> io::Result<Self> {
        let about = fs::symlink_metadata(outer)?;
        if !about.is_dir() || !is_ours_alone(&about) {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "others may write to it"));
        }
        let place = outer.join(PLACE);
        match create_private(&place) {
            // What is in it is as open as what it stands for.
            Ok(()) => fs::set_permissions(&place, Permissions::from_mode(0o711))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => sweep(outer, &place),
            Err(error) => return Err(error),
        }
        let (own, held) = fresh(&place)?;
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVE;
        for folder in [outer, &own] {
            inotify::add_watch(&changes, folder, what)?;
        }
        let (known, mounted, apart) = (HashMap::new(), HashMap::new(), HashSet::new());
        let outer = outer.to_owned();
        let mut twin = Self { outer, own, deputies, known, mounted, apart, changes, _held: held, is_over: false };
        for entry in fs::read_dir(&twin.outer)? {
            twin.bring_first(&entry?.file_name());
        }
        Ok(twin)
    }

    /// `mounts`: the program's, which this process is allowed to enter.
    fn follow(twin: Arc<Mutex<Self>>, mounts: Option<OwnedFd>) -> io::Result<()> {
        let changes = lock(&twin).changes.try_clone()?;
        thread::Builder::new().stack_size(STACK).spawn(move || {
            loop {
                let mut polled = [PollFd::new(&changes, PollFlags::IN)];
                let _ = rustix::io::retry_on_intr(|| poll(&mut polled, None));
                lock(&twin).catch_up(mounts.as_ref().map(AsFd::as_fd));
            }
        })?;
        Ok(())
    }

    fn end(&mut self) {
        self.catch_up(None);
        self.is_over = true;
        settle(&self.outer, &self.own);
    }

    /// Does what has been done on one side on the other.
    fn catch_up(&mut self, mounts: Option<BorrowedFd<'_>>) {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut names = Vec::new();
        let mut reader = inotify::Reader::new(self.changes.as_fd(), &mut room);
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                names.extend(self.names());
            }
            names.extend(event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()));
        }
        for name in names {
            if !self.is_over && self.is_shared(&name) {
                self.align(&name, mounts);
            }
        }
    }

    /// All names on either side, and those that were.
    fn names(&self) -> Vec<OsString> {
        let now = [&self.outer, &self.own].into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        let now = now.flatten().map(|entry| entry.file_name());
        now.chain(self.known.keys().chain(self.mounted.keys()).cloned()).collect()
    }

    fn is_shared(&self, name: &OsStr) -> bool {
        let path = self.outer.join(name);
        name != PLACE
            && !self.apart.contains(name)
            && !self.deputies.contains(&path)
            && !leads_to(&path, &self.deputies)
    }

    /// What lies on the system's side.
    fn outside(&self, name: &OsStr) -> Option<Metadata> {
        open_in(&self.outer, name).and_then(|it| about(&it)).ok()
    }

    fn bring_first(&mut self, name: &OsStr) {
        let Some(about) = self.is_shared(name).then(|| self.outside(name)).flatten() else { return };
        if about.is_dir() {
            self.mounted.insert(name.to_owned(), id(&about));
        } else if fs::hard_link(self.outer.join(name), self.own.join(name)).is_ok() {
            self.known.insert(name.to_owned(), id(&about));
        } else {
            self.apart.insert(name.to_owned());
        }
    }

    fn align(&mut self, name: &OsStr, mounts: Option<BorrowedFd<'_>>) {
        let own = self.own.join(name);
        let outside = self.outside(name);
        let is_there = |about: &Metadata| about.is_dir() && self.mounted.get(name) == Some(&id(about));
        if outside.as_ref().is_some_and(is_there) {
            return;
        }
        if self.mounted.remove(name).is_some() {
            // The kernel takes away what is mounted there.
            let _ = fs::remove_dir(&own);
        }
        let inside = fs::symlink_metadata(&own).ok();
        match (inside, outside) {
            (None, Some(outside)) if outside.is_dir() => self.mount(name, mounts),
            (Some(inside), None) if inside.is_dir() => self.lead_in(name),
            (inside, outside) if [&inside, &outside].into_iter().flatten().any(Metadata::is_dir) => {}
            (inside, outside) => self.align_files(name, inside.as_ref().map(id), outside.as_ref().map(id)),
        }
    }

    /// Two names of one file on both sides. On the side where the file is that was on both, nothing has been done.
    fn align_files(&mut self, name: &OsStr, inside: Option<Id>, outside: Option<Id>) {
        let (outer, own) = (self.outer.join(name), self.own.join(name));
        let known = self.known.remove(name);
        let done = match (inside, outside) {
            (Some(inside), Some(outside)) if inside == outside => Ok(Some(inside)),
            (Some(_), None) if known == inside => fs::remove_file(own).map(|()| None),
            (None, Some(_)) if known == outside => fs::remove_file(outer).map(|()| None),
            (Some(_), None) => fs::hard_link(own, outer).map(|()| inside),
            (None, Some(_)) => fs::hard_link(outer, own).map(|()| outside),
            (Some(_), Some(_)) if known == inside => self.replace(&own, &outer).map(|()| outside),
            (Some(_), Some(_)) if known == outside => self.replace(&outer, &own).map(|()| inside),
            _ => Ok(None),
        };
        if let Ok(Some(both)) = done {
            self.known.insert(name.to_owned(), both);
        }
    }

    /// At once: who looks meanwhile finds the old or the new one.
    fn replace(&self, old: &Path, new: &Path) -> io::Result<()> {
        let between = beside(&self.own);
        let _ = fs::remove_file(&between);
        fs::hard_link(new, &between)?;
        fs::rename(&between, old)
    }

    /// A folder of the program's, for others.
    fn lead_in(&mut self, name: &OsStr) {
        let outer = self.outer.join(name);
        if symlink(self.own.join(name), &outer).is_ok()
            && let Ok(about) = fs::symlink_metadata(&outer)
        {
            self.known.insert(name.to_owned(), id(&about));
        }
    }

    /// A folder of the system's, for the program. Whoever may not mount it lacks it.
    fn mount(&mut self, name: &OsStr, mounts: Option<BorrowedFd<'_>>) {
        let (outer, own) = (self.outer.join(name), self.own.join(name));
        let mounted = || -> io::Result<Id> {
            let mounts = mounts.ok_or(ErrorKind::Unsupported)?;
            let tree = tree(&open_in(&self.outer, name)?)?;
            let about = about(&tree)?;
            if !about.is_dir() {
                return Err(ErrorKind::NotADirectory.into());
            }
            fs::create_dir(&own)?;
            mount_there(&tree, mounts, &outer).inspect_err(|_| drop(fs::remove_dir(&own)))?;
            Ok(id(&about))
        };
        if let Ok(id) = mounted() {
            self.mounted.insert(name.to_owned(), id);
        }
    }
}

/// What lies in a folder by that name, never what a link leads to: programs make links too, and here they would lead past all masks.
/// But where another run's program has made a folder its keeper has put a link to it, and it is that folder, as it will be at the end
/// of that run.
pub(crate) fn open_in(folder: &Path, name: &OsStr) -> io::Result<OwnedFd> {
    let above = open(folder, WITHOUT_LINKS | OFlags::DIRECTORY, Mode::empty())?;
    let itself = openat(&above, name, WITHOUT_LINKS, Mode::empty())?;
    if let Ok(made) = made_by_another_run(&above, &folder.join(PLACE), name) {
        return Ok(made);
    }
    Ok(itself)
}

/// Opens no file, and follows no link at the end of the name.
const WITHOUT_LINKS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn made_by_another_run(above: &OwnedFd, place: &Path, name: &OsStr) -> io::Result<OwnedFd> {
    let to = PathBuf::from(OsStr::from_bytes(readlinkat(above, name, Vec::new())?.as_bytes()));
    let mut way = to.strip_prefix(place).map_err(io::Error::other)?.components();
    let (Some(Component::Normal(run)), Some(Component::Normal(made)), None) = (way.next(), way.next(), way.next())
    else {
        return Err(ErrorKind::NotFound.into());
    };
    let mut at = above.try_clone()?;
    for name in [OsStr::new(PLACE), run, made] {
        at = openat(&at, name, WITHOUT_LINKS | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

/// A tree of mounts of its own with that in it; whole, if it is a folder.
pub(crate) fn tree(of: &OwnedFd) -> io::Result<OwnedFd> {
    let what = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(of, "", what | OpenTreeFlags::AT_RECURSIVE)?)
}

fn about(of: &OwnedFd) -> io::Result<Metadata> {
    File::from(of.try_clone()?).metadata()
}

/// From a thread that ends there: whoever has entered others' mounts does not come back.
fn mount_there(tree: &OwnedFd, mounts: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    thread::scope(|scope| {
        let one = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || sys::mount_in(mounts, tree, at))?;
        one.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
    })
}

fn id(about: &Metadata) -> Id {
    (about.dev(), about.ino())
}

/// Whatever the umask: until it is made like what it stands for, nobody else may put anything there, which would stay.
fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// An empty folder that nobody else takes for one that was left.
fn fresh(place: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0.. {
        let path = place.join(format!("{}-{number}", std::process::id()));
        match create_private(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // Somebody may have swept it away already.
        if let Ok(held) = hold(&path)
            && path.is_dir()
        {
            return Ok((path, held));
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// As long as it lives, nobody else holds it.
fn hold(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Puts in order what keepers have left that are gone.
fn sweep(outer: &Path, place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(_held) = hold(&entry.path())
        {
            settle(outer, &entry.path());
        }
    }
}

/// Gives the system's folder what its own program made in a folder's place, and takes the rest away. Nothing is mounted
/// there: that was in the program's mounts alone.
fn settle(outer: &Path, own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let (at, made) = (outer.join(entry.file_name()), entry.path());
        if fs::read_link(&at).is_ok_and(|to| to == made) && fs::remove_file(&at).is_ok() {
            let _ = fs::rename(made, at);
        }
    }
    let _ = fs::remove_file(beside(own));
    let _ = fs::remove_dir_all(own);
}

fn beside(own: &Path) -> PathBuf {
    own.with_extension("new")
}

#[cfg(test)]
mod tests;
