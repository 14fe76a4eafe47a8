//! Folders of the program's own in /run and at the user's other places, in which no service that acts for others appears,
//! whenever it starts anew.
//!
//! ```text
//! /run                of our own          a twin where the user may write, which is kept like the system's; else a tmpfs
//! /run/dbus           folder in it        a deputy's place is here or below
//! /run/dbus/...       /dev/null           laid over an empty file of ours, which nobody outside can remove
//! /run/lock           bound, as it is     no deputy's place is below: both sides see all of it at any time
//! /run/user/1000      a twin
//! ```
//! The kernel takes what is mounted over a file or a folder away when that is removed elsewhere, so a mask over a socket ends
//! with the service that made it. What lies in folders of ours only we could remove.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, mount_move, move_mount, unmount};

use crate::deputies::{folders_of_theirs, leads_to};
use crate::twins;

/// The second is mostly a link to the first.
const FOLDERS: [&str; 2] = ["/run", "/var/run"];

/// Where it is built, while the outer one can still be seen: as in scratch.rs.
const PLACE: &str = "/proc";

/// As systemd has it for users.
const OPTIONS: &std::ffi::CStr = c"size=10%,mode=755";

/// Folders that this user's programs may write to, and others read.
pub(crate) fn to_be_twinned() -> Vec<PathBuf> {
    let user = rustix::process::geteuid();
    let runtime = Path::new("/run/user").join(user.as_raw().to_string());
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|named| is_for_sockets(named));
    let system = user.is_root().then(roots);
    let mut all: Vec<_> = system.into_iter().flatten().chain([runtime]).chain(named).collect();
    all.retain(|folder| folder.is_dir());
    all.sort();
    all.dedup();
    all
}

/// /run, and what is no link to it.
fn roots() -> impl Iterator<Item = PathBuf> {
    let is_itself = |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|real| real == *folder);
    FOLDERS.into_iter().map(PathBuf::from).filter(is_itself)
}

/// Whether it is a folder as the standard wants it, and not one where people keep their files.
fn is_for_sockets(folder: &Path) -> bool {
    let holds = |name| std::env::var_os(name).is_some_and(|at| Path::new(&at).starts_with(folder));
    let is_private = fs::symlink_metadata(folder).is_ok_and(|about| about.is_dir() && about.mode() & 0o077 == 0);
    is_private && !holds("HOME") && fs::canonicalize(folder).is_ok_and(|real| real == folder)
}

/// Where folders of our own come from, and what they are to lack.
struct Plan<'a> {
    /// Places of deputies, whether they are there or not.
    deputies: &'a [PathBuf],
    /// Folders of the system's, and those of ours for their places.
    twins: &'a [(PathBuf, PathBuf)],
}

/// Lays them over the system's, in this process' mounts, which are its own already. `deputies` are their places, whether they
/// are there or not.
pub(crate) fn make_own(deputies: &[PathBuf], twins: &[(PathBuf, PathBuf)], say: &dyn Fn(&str)) -> Result<()> {
    let plan = Plan { deputies, twins };
    for own in of_the_programs(twins) {
        let name = crate::say::path(&own);
        if plan.lay_over(&own).with_context(|| format!("making a {name} of the program's own"))? {
            say(&format!("made a {name} of the program's own"));
        }
    }
    Ok(())
}

/// The folders that are the program's own, where these have twins.
pub(crate) fn of_the_programs(twins: &[(PathBuf, PathBuf)]) -> impl Iterator<Item = PathBuf> {
    let elsewhere = twins.iter().map(|(folder, _)| folder.clone()).filter(|folder| !may_be_ours(folder));
    roots().chain(elsewhere).chain(folders_of_theirs())
}

/// Whether what lies there for the program may be a folder of its own, though it had another one open.
pub(crate) fn may_be_ours(path: &Path) -> bool {
    FOLDERS.iter().any(|folder| path.starts_with(folder))
}

impl Plan<'_> {
    /// Whether it is still there: whose last terminal ends removes the folder, and there is nothing to lay anything over.
    fn lay_over(&self, folder: &Path) -> Result<bool> {
        let place = Path::new(PLACE);
        if !self.lay_twin(folder, place)? {
            mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(OPTIONS))?;
        }
        let laid = self.fill(folder, place).and_then(|()| Ok(mount_move(place, folder)?));
        match laid {
            Err(_) if !folder.exists() => {
                unmount(place, UnmountFlags::DETACH)?;
                Ok(false)
            }
            laid => Ok(laid.map(|()| true)?),
        }
    }

    /// Lays the twin of a folder, if it has one, where it is to be filled.
    fn lay_twin(&self, folder: &Path, at: &Path) -> io::Result<bool> {
        let twin = self.twins.iter().find(|(of, _)| of == folder);
        twin.map(|(_, own)| mount_bind(own, at)).transpose()?;
        Ok(twin.is_some())
    }

    /// Brings into a folder of ours what is in another one, and makes it like that.
    fn fill(&self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from).into_iter().flatten() {
            let name = entry?.file_name();
            // What cannot be brought, or has gone meanwhile, is not seen.
            if name != twins::PLACE {
                let _ = self.bring(from, &name, &to.join(&name));
            }
        }
        if fs::read_dir(from).is_err() {
            // They are there all the same, to be masked.
            let known = self.deputies.iter().filter(|deputy| deputy.parent() == Some(from) && deputy.exists());
            known.filter_map(|deputy| deputy.file_name()).try_for_each(|name| File::create(to.join(name)).map(drop))?;
        }
        liken(to, from)
    }

    fn bring(&self, folder: &Path, name: &OsStr, to: &Path) -> io::Result<()> {
        let from = folder.join(name);
        // From here on by this descriptor: whoever writes there may put a link in its place.
        let it = twins::open_in(folder, name)?;
        let about = File::from(it.try_clone()?).metadata()?;
        if about.is_dir() {
            // In a twin a way that could not be had has left it there.
            fs::create_dir(to).or_else(|error| if to.is_dir() { Ok(()) } else { Err(error) })?;
            if self.lay_twin(&from, to)? || leads_to(&from, self.deputies) && fs::read_dir(&from).is_ok() {
                return self.fill(&from, to);
            }
            // Another user's, whose deputies' files are masked as far as they can be seen.
            return lay(&it, to);
        }
        if fs::symlink_metadata(to).is_ok_and(|own| (own.dev(), own.ino()) == (about.dev(), about.ino())) {
            // A twin has it already.
            return Ok(());
        }
        if about.is_symlink() {
            return symlink(fs::read_link(&from)?, to);
        }
        File::create(to)?;
        if !(about.file_type().is_socket() && self.deputies.contains(&from)) {
            lay(&it, to)?;
        }
        Ok(())
    }
}

/// What is at a descriptor, and what is mounted below it, over something else.
fn lay(it: &OwnedFd, over: &Path) -> io::Result<()> {
    Ok(move_mount(&twins::tree(it)?, "", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn liken(folder: &Path, to: &Path) -> io::Result<()> {
    let about = fs::metadata(to)?;
    // In a user namespace others than its user have no numbers.
    let _ = chown(folder, Some(about.uid()), Some(about.gid()));
    fs::set_permissions(folder, Permissions::from_mode(about.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::UnshareFlags;

    use super::*;

    /// In a thread with mounts of its own, as root.
    #[test]
    fn a_folder_that_is_gone_meanwhile_is_no_fault() {
        std::thread::spawn(|| {
            crate::sys::unshare(UnshareFlags::NEWNS | UnshareFlags::FS).expect("mounts");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
            let folder = tempfile::tempdir().expect("a folder");
            let (there, gone) = (folder.path().join("there"), folder.path().join("gone"));
            fs::create_dir(&there).expect("a folder");
            let plan = Plan { deputies: &[], twins: &[] };
            assert!(!plan.lay_over(&gone).expect("nothing to do"));
            assert!(Path::new("/proc/self").exists(), "what was built there is gone");
            assert!(plan.lay_over(&there).expect("it is there"));
            unmount(&there, UnmountFlags::DETACH).expect("it was laid");
        })
        .join()
        .expect("it goes well");
    }
}
