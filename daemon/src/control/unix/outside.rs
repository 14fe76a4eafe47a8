//! Who may come to the daemon's own socket: no program that phantom-run keeps in a network of its own.
//!
//! phantom-run lays something else over the socket, which the kernel takes away when the file is replaced: whenever a daemon is
//! started anew at the same place. So the daemon itself looks who comes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use phantom_ipc::inside::is_kept_in;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::gate::{network_of, process_behind};

/// The daemon's own network, as a number; none before Linux 5.14, which does not tell: everybody counts as outside there.
pub(super) struct Outside(Option<u64>);

impl Outside {
    /// The network in which this process lives.
    pub(super) fn here() -> Self {
        Self(UnixDatagram::unbound().and_then(network_of).ok())
    }

    /// Whether the process at the other end of an accepted connection is outside of phantom-run.
    ///
    /// Another network alone says little: containers and users of `ip netns` have one. In it, what phantom-run takes from its
    /// programs for ever tells: privileges, and calls that a filter refuses. Who has ended already is nobody, and another process
    /// may have its number.
    pub(super) fn holds(&self, accepted: impl AsFd, pid: Option<i32>) -> bool {
        let Some(own) = self.0 else { return true };
        if network_of(&accepted).is_ok_and(|network| network == own) {
            return true;
        }
        let behind = process_behind(&accepted);
        let Some(pid) = pid else { return false };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
        // After that: as long as it lives, its number is nobody else's.
        let is_its_own = match behind {
            Ok(process) => lives(&process),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => is_in_another_network(pid),
            Err(_) => false,
        };
        is_its_own && !is_kept_in(&status)
    }
}

/// Whether the process of this handle has not ended.
fn lives(process: &OwnedFd) -> bool {
    let mut waits = [PollFd::new(process, PollFlags::IN)];
    poll(&mut waits, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ended| ended == 0)
}

/// Before Linux 6.5, where nothing tells whether a number was given anew: whoever connected came from another network than ours, and most
/// that have its number now do not.
fn is_in_another_network(pid: i32) -> bool {
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    let both = || io::Result::Ok((network(&pid.to_string())?, network("self")?));
    both().is_ok_and(|(its, own)| its != own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;

    #[test]
    fn whoever_is_in_the_same_network_is_outside() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Outside::here().holds(&ours, None));
        // A network of another number, and a process of which nothing is known.
        let elsewhere = elsewhere();
        assert!(!elsewhere.holds(&ours, None));
        assert!(elsewhere.holds(&ours, Some(own_number())), "it lives, and nothing keeps it in");
    }

    /// Whoever is there now would have spoken for a program of phantom-run that has ended, whose connection another holds.
    #[test]
    fn the_number_of_a_process_that_has_ended_speaks_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        assert!(Command::new("python3").args(["-c", connect]).arg(&path).status().unwrap().success());
        let (accepted, _) = listener.accept().unwrap();
        assert!(!elsewhere().holds(&accepted, Some(own_number())));
        assert!(!is_in_another_network(own_number()), "as it is told on older kernels");
    }

    fn elsewhere() -> Outside {
        Outside(Outside::here().0.map(|number| number + 1))
    }

    fn own_number() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }
}
