//! The daemon as a directory of names, and what of this machine belongs to one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use phantom_ipc::hook::{Reply, Request};

use super::{daemon, interfaces};
use crate::names::{Addresses, Directory, Unknown};

/// Asks the daemon.
pub(super) struct Daemon;

impl Directory for Daemon {
    fn addresses(&self, name: &str) -> Result<Addresses, Unknown> {
        if is_set_aside(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), name) {
            return Ok(Addresses { v6: Some(Ipv6Addr::LOCALHOST), v4: Some(Ipv4Addr::LOCALHOST) });
        }
        let name = name.to_owned();
        match daemon::ask(|identity| Request::Resolve { identity, name }).map_err(|_| Unknown::Again)? {
            Reply::Addresses { v6: None, v4: None } | Reply::NotFound => Err(Unknown::NotFound),
            Reply::Addresses { v6, v4 } => Ok(Addresses { v6: v6.map(Ipv6Addr::from), v4: v4.map(Ipv4Addr::from) }),
            _ => Err(Unknown::Again),
        }
    }

    fn name(&self, address: IpAddr) -> Result<String, Unknown> {
        match daemon::ask(|identity| Request::Reverse { identity, address }).map_err(|_| Unknown::Again)? {
            Reply::Name(name) => Ok(name),
            Reply::NotFound => Err(Unknown::NotFound),
            _ => Err(Unknown::Again),
        }
    }

    fn own_name(&self) -> Option<String> {
        rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
    }

    fn interface(&self, name: &str) -> Option<u32> {
        interfaces::number(name)
    }

    fn interface_name(&self, index: u32) -> Option<String> {
        interfaces::name(index)
    }

    fn services(&self) -> Vec<u8> {
        std::fs::read("/etc/services").unwrap_or_default()
    }
}

/// Whether the computer is called so, although it does not say so itself: phantom-run and Debian write such a line.
fn is_set_aside(hosts: &str, name: &str) -> bool {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    lines
        .filter(|words| words.clone().next() == Some("127.0.1.1"))
        .any(|words| words.skip(1).any(|own| own.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_that_the_computer_has_aside_are_its_own() {
        let hosts = "127.0.0.1 localhost\n 127.0.1.1\tlaptop.corp Laptop # old\n10.0.0.1 db\n";
        let is_own = |name| super::is_set_aside(hosts, name);
        assert!(is_own("laptop") && is_own("LAPTOP.corp"));
        assert!(!["old", "db", "localhost", "127.0.1.1", ""].into_iter().any(is_own));
    }
}
