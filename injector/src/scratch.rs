//! A small file system of our own for what is laid over the system's files: nobody else can fill it, or see it.
//!
//! It lies over /proc, for as long as the files in it have no other place: a folder that every system has, and of which
//! nothing is needed meanwhile. What was mounted from it elsewhere keeps it alive.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, open_tree, unmount};

/// Where it lies meanwhile.
const PLACE: &str = "/proc";

/// Settings and sockets are small, but lists of blocked names in /etc/hosts have millions of lines. Only what is written takes
/// memory.
const OPTIONS: &std::ffi::CStr = c"size=256m,mode=755";

/// Mounted until it is dropped, in this process' mounts, which are its own already.
pub(crate) struct Scratch {
    files: u32,
}

impl Scratch {
    /// An empty one.
    pub(crate) fn mount() -> Result<Self> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", PLACE, "tmpfs", flags, Some(OPTIONS)).context("making room for our own files")?;
        Ok(Self { files: 0 })
    }

    fn name(&mut self) -> PathBuf {
        self.files += 1;
        Path::new(PLACE).join(self.files.to_string())
    }

    fn write(&mut self, text: &[u8], mode: u32) -> io::Result<PathBuf> {
        let name = self.name();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&name)?;
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(name)
    }

    /// Lays a file over another.
    pub(crate) fn cover(&mut self, text: &[u8], mode: u32, over: &Path) -> Result<()> {
        let doing = || format!("replacing {}", crate::say::path(over));
        let name = self.write(text, mode).map_err(|error| full(error, text.len())).with_context(doing)?;
        mount_bind(&name, over).with_context(doing)
    }

    /// A file to be laid where this one lies, or in other mounts, when this is gone.
    pub(crate) fn take(&mut self, text: &[u8], mode: u32) -> Result<OwnedFd> {
        let name = self.write(text, mode).context("writing a file of our own")?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, &name, flags).context("taking a file of our own along")
    }

    /// A listening socket that every user reaches once it lies where they look, and where it is until then.
    pub(crate) fn socket(&mut self) -> Result<(UnixListener, PathBuf)> {
        let name = self.name();
        let listener = UnixListener::bind(&name).context("making a socket")?;
        // Workers of a server that gave root up come too.
        fs::set_permissions(&name, Permissions::from_mode(0o666)).context("making a socket")?;
        Ok((listener, name))
    }
}

/// What is too much for us is no lack of room on the disk that people look at.
fn full(error: io::Error, length: usize) -> anyhow::Error {
    let is_full = error.raw_os_error() == Some(libc::ENOSPC);
    let error = anyhow::Error::from(error);
    if is_full {
        error.context(format!("the file has {length} bytes, and 256 MiB are the most that is replaced"))
    } else {
        error
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = unmount(PLACE, UnmountFlags::DETACH);
    }
}
