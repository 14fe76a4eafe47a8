//! The folder in which the program begins: what its path leads to in the program's own view of files.
//!
//! A process that was in /proc, /sys or /run before something was laid over it is below that still: there it would find the
//! system's settings and sockets by names without a slash, and the way up.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::chdir;

/// To be called once all mounts are as the program shall see them. What its folder's path no longer leads to it cannot keep: then
/// it begins at the root.
pub(crate) fn settle() -> Result<()> {
    let here = fs::read_link("/proc/self/cwd").context("finding the working folder")?;
    if !is_seen(&here) && chdir(&here).is_err() {
        chdir("/").map_err(io::Error::from).context("leaving the working folder")?;
    }
    Ok(())
}

/// Whether the mount in which this process is can be seen where it is. A folder may have been removed, or have another above it that
/// nobody may enter (`sudo -u` from root's home): the way up from there leads through the last that can be seen.
fn is_seen(here: &Path) -> bool {
    let at = here.ancestors().find_map(|place| mount_of(place, AtFlags::SYMLINK_NOFOLLOW).ok()).flatten();
    at.is_some() && at == mount_of(Path::new(""), AtFlags::EMPTY_PATH).ok().flatten()
}

/// The number of the mount, where the kernel tells it (Linux 5.8).
fn mount_of(place: &Path, flags: AtFlags) -> Result<Option<u64>, Errno> {
    let about = statx(CWD, place, flags | AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)?;
    Ok(StatxFlags::from_bits_retain(about.stx_mask).contains(StatxFlags::MNT_ID).then_some(about.stx_mnt_id))
}
