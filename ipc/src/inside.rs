//! Whether a process is one that phantom-run keeps in, by what the kernel says of it: a variable can be cleared, or set by anybody.
//!
//! phantom-run takes two things from its programs for ever: the way to more privileges, and calls that a filter refuses. Containers
//! may take the same; what tells is the network, in which there is nothing but loopback and Phantom's device.

use std::fs;

/// Devices of the networks in which programs live under phantom-run.
const DEVICES: [&str; 2] = ["lo", "phantom0"];

/// Whether a process of that status (/proc/PID/status) can neither gain privileges nor make all calls.
pub fn is_kept_in(status: &str) -> bool {
    let says = |name: &str, value: &str| {
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        lines.any(|(key, said)| key == name && said.trim() == value)
    };
    says("NoNewPrivs", "1") && says("Seccomp", "2")
}

/// Whether a network with these devices (/proc/PID/net/dev) may be one of phantom-run's.
fn is_of_phantom(devices: &str) -> bool {
    let mut names = devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.all(|name| DEVICES.contains(&name))
}

/// Whether this process is kept in.
pub fn is_here() -> bool {
    let of_this = |what| fs::read_to_string(format!("/proc/self/{what}")).ok();
    of_this("status").is_some_and(|status| is_kept_in(&status))
        && of_this("net/dev").is_some_and(|devices| is_of_phantom(&devices))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_network_with_other_devices_is_somebody_elses() {
        let devices = |names: &[&str]| {
            let rows: String = names.iter().map(|name| format!("{name:>8}: 1 2 3\n")).collect();
            format!("Inter-|   Receive\n face |bytes\n{rows}")
        };
        assert!(is_of_phantom(&devices(&["lo", "phantom0"])) && is_of_phantom(&devices(&["lo"])));
        assert!(!is_of_phantom(&devices(&["lo", "eth0"])), "a container");
    }
}
