//! Folders of the program's own in /run, in which no service that acts for others appears, whenever it starts anew.
//!
//! ```text
//! /run                tmpfs of ours       what is made right in it later is seen on one side only
//! /run/dbus           folder in it        a deputy's place is here or below
//! /run/dbus/...       /dev/null           laid over an empty file of ours, which nobody outside can remove
//! /run/lock           bound, as it is     no deputy's place is below: both sides see all of it at any time
//! /run/display        bound, as it is
//! ```
//! The kernel takes what is mounted over a file or a folder away when that is removed elsewhere, so a mask over a socket ends
//! with the service that made it. What lies in folders of ours only we could remove.
//!
//! Root's servers have their numbers right in /run, for service managers and for commands that look for them; so there /run is
//! the system's, and each folder in it that leads to deputies a tmpfs of ours, as long as the system leaves that folder.

use std::fs::{self, DirEntry, File, Permissions, ReadDir};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_move};
use rustix::process::chdir;

/// The second is mostly a link to the first.
const FOLDERS: [&str; 2] = ["/run", "/var/run"];

/// Where it is built, while the outer one can still be seen: as in scratch.rs.
const PLACE: &str = "/proc";

/// As systemd has it for users.
const OPTIONS: &std::ffi::CStr = c"size=10%,mode=755";

/// Lays them over the system's, in this process' mounts, which are its own already. `deputies` are their places, whether they
/// are there or not.
pub(crate) fn make_own(deputies: &[PathBuf], say: &dyn Fn(&str)) -> Result<()> {
    for folder in FOLDERS.map(Path::new) {
        if !folder.is_dir() || fs::canonicalize(folder).is_ok_and(|real| real != folder) {
            continue;
        }
        let all =
            if rustix::process::geteuid().is_root() { inside(folder, deputies)? } else { vec![folder.to_owned()] };
        for own in all {
            lay_over(&own, deputies).with_context(|| format!("making a {} of the program's own", own.display()))?;
            say(&format!("made a {} of the program's own", own.display()));
        }
    }
    Ok(())
}

/// Whether what lies there for the program may be a folder of its own, though it had another one open.
pub(crate) fn may_be_ours(path: &Path) -> bool {
    FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// The folders right in another one that lead to deputies.
fn inside(folder: &Path, deputies: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let folders = fs::read_dir(folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).filter(|path| leads_to(path, deputies)).collect())
}

fn leads_to(folder: &Path, deputies: &[PathBuf]) -> bool {
    deputies.iter().any(|place| place != folder && place.starts_with(folder))
}

fn lay_over(folder: &Path, deputies: &[PathBuf]) -> Result<()> {
    // Also when it has been removed: from there the way up leads through what is to be covered.
    let here = fs::read_link("/proc/self/cwd")?;
    mount("tmpfs", PLACE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(OPTIONS))?;
    fill(fs::read_dir(folder)?, Path::new(PLACE), deputies)?;
    liken(Path::new(PLACE), folder)?;
    mount_move(PLACE, folder)?;
    if here.starts_with(folder) && chdir(&here).is_err() {
        chdir("/")?;
    }
    Ok(())
}

/// Brings into a folder of ours what is in another one.
fn fill(from: ReadDir, to: &Path, deputies: &[PathBuf]) -> io::Result<()> {
    for entry in from {
        let entry = entry?;
        // What cannot be brought, or has gone meanwhile, is not seen.
        let _ = bring(&entry, &to.join(entry.file_name()), deputies);
    }
    Ok(())
}

fn liken(folder: &Path, to: &Path) -> io::Result<()> {
    let about = fs::metadata(to)?;
    // In a user namespace others than its user have no numbers.
    let _ = chown(folder, Some(about.uid()), Some(about.gid()));
    fs::set_permissions(folder, Permissions::from_mode(about.mode() & 0o7777))
}

fn bring(entry: &DirEntry, to: &Path, deputies: &[PathBuf]) -> io::Result<()> {
    let (from, kind) = (entry.path(), entry.file_type()?);
    if kind.is_symlink() {
        return symlink(fs::read_link(&from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        return match leads_to(&from, deputies).then(|| fs::read_dir(&from)) {
            Some(Ok(entries)) => fill(entries, to, deputies).and_then(|()| liken(to, &from)),
            // Another user's, whose deputies' files are masked as far as they can be seen.
            _ => Ok(mount_bind_recursive(&from, to)?),
        };
    }
    File::create(to)?;
    if !(kind.is_socket() && deputies.contains(&from)) {
        mount_bind(&from, to)?;
    }
    Ok(())
}
