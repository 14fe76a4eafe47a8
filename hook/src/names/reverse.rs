//! From addresses to names: what getnameinfo(3) means.

use std::net::IpAddr;

use super::literal::Scoped;
use super::{Directory, Unknown, services};

/// Name of a host.
pub(crate) fn name_of(address: IpAddr, directory: &impl Directory) -> Result<String, Unknown> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Ok("localhost".to_owned());
    }
    if address.is_unspecified() { Err(Unknown::NotFound) } else { directory.name(address) }
}

/// Text for a host: its name, else, unless a name is `required`, its address.
pub(crate) fn host(at: Scoped, numeric: bool, required: bool, directory: &impl Directory) -> Result<String, Unknown> {
    if numeric {
        return if required { Err(Unknown::NotFound) } else { Ok(literal(at)) };
    }
    match name_of(at.address, directory) {
        Err(_) if !required => Ok(literal(at)),
        named => named,
    }
}

fn literal(at: Scoped) -> String {
    if at.scope == 0 { at.address.to_string() } else { format!("{}%{}", at.address, at.scope) }
}

/// Text for a port: the service's name, else the number.
pub(crate) fn service(port: u16, udp: bool, numeric: bool, directory: &impl Directory) -> String {
    let protocol = if udp { "udp" } else { "tcp" };
    let name = if numeric { None } else { services::name(&directory.services(), port, protocol) };
    name.unwrap_or_else(|| port.to_string())
}
