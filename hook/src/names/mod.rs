//! Names and addresses, answered by the daemon: what resolver functions mean, without their C forms.
//!
//! `localhost`, names below it and the machine's own name are its loopback; all else is the daemon's to answer, and
//! nothing is asked of anyone else. /etc/hosts is not read: it says where names are in the normal network.

pub(crate) mod dns;
pub(crate) mod forward;
pub(crate) mod literal;
pub(crate) mod reverse;
pub(crate) mod services;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// There is no such name or address.
    NotFound,
    /// It may work later: the resolver does not answer, or there is no daemon now. libc says the same when nobody can be asked.
    Again,
}

/// Where answers come from.
pub(crate) trait Directory {
    /// Addresses of a name that is neither literal nor local.
    fn addresses(&self, name: &str) -> Result<Addresses, Unknown>;
    /// Name of an address that is not of this machine's loopback.
    fn name(&self, address: IpAddr) -> Result<String, Unknown>;
    /// The machine's own name.
    fn own_name(&self) -> Option<String>;
    /// Number of a network interface.
    fn interface(&self, name: &str) -> Option<u32>;
    /// Name of the network interface of that number.
    fn interface_name(&self, index: u32) -> Option<String>;
    /// Text in the form of /etc/services.
    fn services(&self) -> Vec<u8>;
}

/// Addresses of a name; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) v4: Option<Ipv4Addr>,
}

/// The loopback of this machine.
const LOOPBACK: Addresses = Addresses { v6: Some(Ipv6Addr::LOCALHOST), v4: Some(Ipv4Addr::LOCALHOST) };

/// Addresses of a host name that is no literal. A final dot is accepted.
pub(crate) fn resolve(name: &str, directory: &impl Directory) -> Result<Addresses, Unknown> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || !name.is_ascii() || name.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Unknown::NotFound);
    }
    if is_local(name, directory) { Ok(LOOPBACK) } else { directory.addresses(name) }
}

fn is_local(name: &str, directory: &impl Directory) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost") || directory.own_name().is_some_and(|own| own.eq_ignore_ascii_case(name))
}
