//! Windows: a node is whoever holds its folder; it is asked to end by its pipe.

use std::io;
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use phantom_ipc::admin::Request;
use serde::{Deserialize, Serialize};

use super::logging;
use crate::client::Client;
use crate::config::SOCKET_NAME;
use crate::datadir::is_held;

/// CREATE_NEW_PROCESS_GROUP and CREATE_NO_WINDOW: Ctrl-C is for the one who asked for the network, and that one stops the nodes.
const APART: u32 = 0x0000_0200 | 0x0800_0000;

/// A process, and the folder of the node that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::testnet) struct Process {
    pid: i32,
    folder: PathBuf,
}

impl Process {
    /// Starts `program` in the background, its output appended to `log` in its folder.
    pub(in crate::testnet) fn start(
        program: &Path,
        arguments: &[&std::ffi::OsStr],
        log: &Path,
    ) -> io::Result<(Self, Child)> {
        let mut command = logging(program, arguments, log)?;
        let child = command.creation_flags(APART).spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok((Self { pid, folder: log.parent().unwrap_or(log).to_owned() }, child))
    }

    /// Nobody is told from whoever was started there: a held folder cannot be read.
    pub(in crate::testnet) fn holding(_: &Path) -> Option<Self> {
        None
    }

    /// Its number.
    pub(in crate::testnet) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub(in crate::testnet) fn lives(&self) -> bool {
        is_held(&self.folder)
    }

    pub(super) fn ask_to_end(&self) {
        let socket = self.folder.join(SOCKET_NAME);
        // A runtime of its own in a thread of its own: whoever stops a network may be in one.
        let asking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async { Client::connect(&socket).await.ok()?.ask::<()>(&Request::Stop).await.ok() })
        });
        // One that does not hear it is killed.
        let _ = asking.join();
    }

    pub(super) fn kill(&self) {
        let _ = Command::new("taskkill").args(["/F", "/PID", &self.pid.to_string()]).output();
    }
}
