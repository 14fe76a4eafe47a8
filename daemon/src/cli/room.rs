//! A folder that nobody else may enter, for a socket between a daemon and a command.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use data_encoding::HEXLOWER;
use rand::Rng;
use rustix::fs::chown;
use rustix::process::{Uid, geteuid};

use crate::advice::to_write;
use crate::random::system_rng;

/// See the module; removed with the value.
pub(super) struct Room(PathBuf);

impl Room {
    /// A new one, with what it is for in its name.
    pub(super) fn make(what: &str) -> anyhow::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        // A daemon that is a service sees neither root's session nor the same temporary files.
        let base = if geteuid().is_root() { PathBuf::from("/run") } else { runtime.unwrap_or_else(std::env::temp_dir) };
        let mut name = [0; 8];
        system_rng()?.fill_bytes(&mut name);
        let path = base.join(format!("phantom-{what}-{}", HEXLOWER.encode(&name)));
        // Fails where something is already, also a link that somebody else put there.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| anyhow!("cannot make {}: {error}{}", path.display(), to_write(&error)))?;
        Ok(Self(path))
    }

    /// Root may enter anyhow; a daemon that gave root up may only what is its own. With it come those files that are there.
    pub(super) fn let_in(&self, daemon: Uid, files: &[&Path]) -> anyhow::Result<()> {
        if daemon != geteuid() && !daemon.is_root() {
            for path in [&[self.0.as_path()], files].concat() {
                chown(path, Some(daemon), None)
                    .with_context(|| format!("cannot let the daemon into {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// A place in it.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_private_and_gone_afterwards() {
        use std::os::unix::fs::PermissionsExt;
        let room = Room::make("try").unwrap();
        let path = room.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(room.at("socket"), "").unwrap();
        drop(room);
        assert!(!path.exists());
    }
}
