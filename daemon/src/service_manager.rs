//! systemd, where it runs the daemon by a unit that says so: `systemctl restart` ends one process and starts the next, and meanwhile it keeps
//! what the one leaves to the other.
//!
//! ```text
//!   this process ── FDSTORE: a socket in whose queue all lies ──> systemd ── LISTEN_FDS ──> the next
//! ```
//! Whether it stops the unit for good or starts it anew it does not say to the process, which therefore asks: who is stopped says good-bye.

use std::env;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::time::timeout;

/// The unit by which the daemon is run, if that lets systemd keep something: `Environment=PHANTOM_UNIT=%n`.
const UNIT: &str = "PHANTOM_UNIT";

/// Whose manager it is: systemd sets it for units of users alone.
const OF_USER: &str = "MANAGERPID";

/// Where it listens.
const MANAGER: &str = "NOTIFY_SOCKET";

/// What is kept is known by it.
const NAME: &str = "phantom";

/// How long systemd may take to say what it does: less than it gives a process that it ends.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long it may take to take what is kept.
const TAKES_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Whether the daemon is ended because it is started anew.
pub(crate) async fn starts_anew() -> bool {
    let Some(unit) = env::var_os(UNIT) else { return false };
    let mut command = Command::new("systemctl");
    if env::var_os(OF_USER).is_some() {
        command.arg("--user");
    }
    command.args(["list-jobs", "--no-legend", "--no-pager", "--plain", "--full", "--"]).arg(&unit);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match timeout(ANSWER_TIME, command.output()).await {
        Ok(Ok(jobs)) => is_restart(&String::from_utf8_lossy(&jobs.stdout), &unit.to_string_lossy()),
        Ok(Err(error)) => {
            tracing::warn!("cannot ask the service manager whether it starts the daemon anew: {error}");
            false
        }
        Err(_) => {
            tracing::warn!("the service manager does not say whether it starts the daemon anew");
            false
        }
    }
}

/// Of lines of number, unit, kind and state of a job.
fn is_restart(jobs: &str, unit: &str) -> bool {
    jobs.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|job| job.get(1..3) == Some(&[unit, "restart"]))
}

/// Has systemd keep a socket until the next process is there; returns when it has it.
///
/// # Errors
/// The system's, or when it does not say that it has.
pub(crate) fn keep(socket: &OwnedFd) -> io::Result<()> {
    // Without it nothing is said, to nobody.
    env::var_os(MANAGER).ok_or(io::ErrorKind::NotConnected)?;
    // Its other end is closed, which would be reason enough to let go of it.
    let kept = [NotifyState::FdStore, NotifyState::FdName(NAME), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&kept, &[socket.as_fd()])?;
    let (mut closed, close) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[close.as_fd()])?;
    drop(close);
    let mut look = [PollFd::new(&closed, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut look, Some(&TAKES_WITHIN)))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    closed.read(&mut [0]).map(drop)
}

/// What it has kept; from now on it keeps none of it any more.
pub(crate) fn kept() -> Vec<OwnedFd> {
    if env::var_os(UNIT).is_none() {
        return Vec::new();
    }
    let mut passed = ListenFd::from_env();
    let all = (0..passed.len()).filter_map(|which| passed.take_unix_datagram(which).ok().flatten());
    let all: Vec<OwnedFd> = all.map(|socket: UnixDatagram| socket.into()).collect();
    if !all.is_empty()
        && let Err(error) = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(NAME)])
    {
        tracing::warn!("the service manager goes on keeping what the process before has left: {error}");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_a_restart_of_this_unit_or_something_else() {
        let jobs = "  7 phantomd.service restart running\n8 other.service stop waiting\n";
        assert!(is_restart(jobs, "phantomd.service"));
        assert!(
            !is_restart(jobs, "other.service") && !is_restart(jobs, "phantomd") && !is_restart("", "phantomd.service")
        );
        assert!(!is_restart("7 phantomd.service stop running", "phantomd.service"));
    }
}
