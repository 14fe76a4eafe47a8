//! What service managers tell a program by variables, corrected for one that is not their own child.
//!
//! The manager knows the front; the program is a child of the keeper's, and takes only what is said to its own number.

use std::env;
use std::os::fd::RawFd;
use std::process::Command;

use crate::activation::Listener;
use crate::sys;

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// What descends from LISTEN_PID.
const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How many descriptors the manager has passed to `front`, or whoever the variables speak of.
fn passed(front: i32) -> Option<RawFd> {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    (number(ACTIVATION[0]) == Some(front)).then(|| number(ACTIVATION[1])).flatten().filter(|count| *count > 0)
}

/// The descriptors that were passed and belong to networks of this computer.
pub(crate) fn of_networks(front: i32) -> Vec<RawFd> {
    let count = passed(front).unwrap_or(0);
    (FIRST..FIRST.saturating_add(count)).filter(|number| sys::is_foreign_socket(*number)).collect()
}

/// Before inherited descriptors are closed: corrects the variables of a command that this process becomes, where these
/// listeners take the place of passed ones. Returns what people must know.
pub(crate) fn correct(command: &mut Command, front: i32, renewed: &[Listener]) -> Option<String> {
    let own = std::process::id().to_string();
    if env::var(WATCHDOG_PID).is_ok_and(|value| value == front.to_string()) {
        command.env(WATCHDOG_PID, &own);
    }
    passed(front)?;
    let of_networks = of_networks(front).len() - renewed.len();
    if of_networks == 0 {
        command.env(ACTIVATION[0], own);
        return None;
    }
    // All of them: those that stay would be taken for others.
    for name in ACTIVATION {
        command.env_remove(name);
    }
    Some(format!(
        "{of_networks} of the sockets that the service manager passed belong to networks of this computer, where others would \
         see who answers: LISTEN_FDS is not set for the program; let it listen for itself, or see \"Under systemd\" in \
         docs/servers.md"
    ))
}
