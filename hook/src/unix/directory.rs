//! The daemon as a directory of names, and what of this machine belongs to one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use phantom_ipc::hook::{Reply, Request};

use super::{daemon, interfaces};
use crate::names::{Addresses, Directory, Unknown};

/// Asks the daemon.
pub(super) struct Daemon;

impl Directory for Daemon {
    fn addresses(&self, name: &str) -> Result<Addresses, Unknown> {
        let name = name.to_owned();
        match daemon::ask(|identity| Request::Resolve { identity, name }).map_err(unknown)? {
            Reply::Addresses { v6: None, v4: None } | Reply::NotFound => Err(Unknown::NotFound),
            Reply::Addresses { v6, v4 } => Ok(Addresses { v6: v6.map(Ipv6Addr::from), v4: v4.map(Ipv4Addr::from) }),
            _ => Err(Unknown::Broken),
        }
    }

    fn name(&self, address: IpAddr) -> Result<String, Unknown> {
        match daemon::ask(|identity| Request::Reverse { identity, address }).map_err(unknown)? {
            Reply::Name(name) => Ok(name),
            Reply::NotFound => Err(Unknown::NotFound),
            _ => Err(Unknown::Broken),
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

fn unknown(errno: i32) -> Unknown {
    match errno {
        libc::EAGAIN | libc::ETIMEDOUT => Unknown::Again,
        _ => Unknown::Broken,
    }
}
