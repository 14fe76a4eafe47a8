//! A way to the daemon for the program's library alone: what comes by it is this run, and may ask for sockets and names.
//!
//! Its socket lies under a name of its own only until it has been laid over the daemon's, in the program's mounts.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{IdentityRef, Reply, Request};

use crate::control::Line;

/// The socket's name; the file goes when this is dropped.
pub(crate) struct WayIn {
    folder: PathBuf,
    socket: PathBuf,
}

impl WayIn {
    /// Has the daemon serve there whoever speaks as `identity`, as long as `line`.
    pub(crate) fn open(line: &Line, identity: &IdentityRef) -> Result<Self> {
        let folder = folder().context("making a folder for a socket")?;
        let own = Self { socket: folder.join("s"), folder };
        let listener = UnixListener::bind(&own.socket).context("making a socket")?;
        // Nobody else gets into the folder; workers of a server that gave root up come once it lies elsewhere.
        fs::set_permissions(&own.socket, Permissions::from_mode(0o666)).context("making a socket")?;
        // The daemon alone is to have it: when it dies, nobody must wait.
        match line.ask_with(&Request::Door { identity: identity.clone() }, listener.as_fd())?.0 {
            Reply::Info { .. } => Ok(own),
            Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
            _ => bail!("the daemon's answer makes no sense: is it of another version?"),
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.socket
    }
}

impl Drop for WayIn {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A new folder for us alone.
fn folder() -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for directory in [std::env::temp_dir(), "/dev/shm".into(), "/run".into(), "/var/tmp".into()] {
        for attempt in 0..16 {
            let name = directory.join(format!(".phantom-run-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&name) {
                Ok(()) => return Ok(name),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}
