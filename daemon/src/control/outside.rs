//! Who may come to the daemon's own socket: no program that phantom-run keeps in a network of its own.
//!
//! phantom-run lays something else over the socket, which the kernel takes away when the file is replaced: whenever a daemon is
//! started anew at the same place. So the daemon itself looks who comes.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use crate::gate::network_of;

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
    /// programs for ever tells: privileges, and calls that a filter refuses. Who has ended already is nobody.
    pub(super) fn holds(&self, accepted: impl AsFd, pid: Option<i32>) -> bool {
        let Some(own) = self.0 else { return true };
        if network_of(accepted).is_ok_and(|network| network == own) {
            return true;
        }
        let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        status.is_some_and(|status| !is_kept_in(&status))
    }
}

/// Whether a process of that status can neither gain privileges nor make all calls.
fn is_kept_in(status: &str) -> bool {
    let says = |name: &str, value: &str| {
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        lines.any(|(key, said)| key == name && said.trim() == value)
    };
    says("NoNewPrivs", "1") && says("Seccomp", "2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_who_has_lost_both_is_kept_in() {
        let status = |privileges, filter| {
            format!("Name:\tx\nNoNewPrivs:\t{privileges}\nSeccomp:\t{filter}\nSeccomp_filters:\t1\n")
        };
        assert!(is_kept_in(&status(1, 2)));
        assert!(
            ![(0, 2), (1, 0), (0, 0)].into_iter().any(|(privileges, filter)| is_kept_in(&status(privileges, filter)))
        );
    }

    #[test]
    fn whoever_is_in_the_same_network_is_outside() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Outside::here().holds(&ours, None));
        // A network of another number, and a process of which nothing is known.
        let elsewhere = Outside(network_of(&ours).ok().map(|number| number + 1));
        assert!(!elsewhere.holds(&ours, None));
    }
}
