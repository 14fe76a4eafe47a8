//! An ordinary user whose daemons and programs a test runs, as root: some programs refuse root, and browsers should not be it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::{Folder, prepare};

/// Every Debian has it; it owns nothing.
const NAME: &str = "www-data";

/// Arguments of setpriv, which becomes the program itself, unlike runuser.
const BECOME: [&str; 5] = ["--reuid", NAME, "--regid", NAME, "--init-groups"];

/// What the user starts.
const BINARIES: [&str; 4] = ["phantom", "phantomd", "phantom-run", "libphantom.so"];

/// An ordinary user.
pub struct User {
    binaries: Folder,
    uid: u32,
}

impl User {
    /// Copies our programs to where the user may start them: the workspace may lie in root's home.
    pub fn new() -> Result<Self> {
        let binaries = Folder::new()?;
        for name in BINARIES {
            fs::copy(crate::binary(name), binaries.at(name)).context(name)?;
        }
        let uid = prepare(Command::new("id").args(["-u", NAME]))?.trim().parse()?;
        Ok(Self { binaries, uid })
    }

    /// Gives a folder to the user.
    pub fn owns(&self, folder: &Path) -> Result<()> {
        Ok(chown(folder, Some(self.uid), None)?)
    }

    /// A program of ours as the user.
    pub fn tool(&self, name: &str) -> Command {
        self.command(&self.binaries.at(name))
    }

    /// Where the user finds a file of ours.
    pub fn tool_path(&self, name: &str) -> String {
        self.binaries.at(name)
    }

    /// Any program as the user, outside Phantom.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(BECOME).args(["--", program]);
        command
    }

    /// A program of ours as the user, who finds a /dev/net/tun that is open to all; the machine's own may be root's.
    pub(crate) fn with_tun(&self, name: &str) -> Command {
        self.with_tun_of("666", name)
    }

    /// The same with a device of another mode.
    pub(crate) fn with_tun_of(&self, mode: &str, name: &str) -> Command {
        let script =
            format!("mount -t tmpfs none /dev/net && mknod -m {mode} /dev/net/tun c 10 200 && exec setpriv \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.args(BECOME).args(["--", &self.binaries.at(name)]);
        command
    }
}
