//! The process that this one becomes when it is started anew in place: the executable that lies where this one lay, called as this one was.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::timeout;

/// Says that what the process before has left is at standard input.
pub(crate) const VARIABLE: &str = "PHANTOM_HANDOVER";

/// How long it may take to look at its configuration.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// Where this executable lay when it was started: an update replaces it there.
static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();

/// Remembers where the executable is: to be called early.
pub fn remember() {
    if let Ok(path) = std::env::current_exe() {
        let _ = EXECUTABLE.set(path);
    }
}

/// The next process, as this one was called, but for arguments that are not meant.
fn called(is_meant: impl Fn(&OsString) -> bool) -> Command {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_else(|| OsString::from("phantomd"));
    let mut command = Command::new(EXECUTABLE.get().cloned().unwrap_or_else(|| PathBuf::from(&called)));
    command.arg0(called).args(arguments.filter(is_meant));
    command
}

/// The next process.
pub(crate) fn command() -> Command {
    called(|_| true)
}

/// Whether the executable that lies there now would start.
///
/// # Errors
/// What it says, in words for people.
pub async fn check() -> Result<(), String> {
    // Where nothing is made, nothing is accepted.
    let mut command = called(|argument| argument != "--accept-eula");
    command.arg("--check-config").env_remove(VARIABLE).stdin(Stdio::null());
    let ran = timeout(CHECK_TIME, tokio::process::Command::from(command).kill_on_drop(true).output()).await;
    match ran {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(format!("it cannot be started: {error}")),
        Err(_) => Err(format!("it did not answer for {} s", CHECK_TIME.as_secs())),
    }
}
