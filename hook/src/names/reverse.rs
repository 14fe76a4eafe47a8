//! From addresses to names: what getnameinfo(3) means.

use std::net::IpAddr;

use super::literal::{Scoped, is_of_link};
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
        return if required { Err(Unknown::NotFound) } else { Ok(literal(at, directory)) };
    }
    match name_of(at.address, directory) {
        Err(_) if !required => Ok(literal(at, directory)),
        named => named,
    }
}

/// Interfaces are named where the address is of one link, else numbered.
fn literal(at: Scoped, directory: &impl Directory) -> String {
    let Scoped { address, scope } = at;
    if scope == 0 {
        return address.to_string();
    }
    let of_link = matches!(address, IpAddr::V6(v6) if is_of_link(v6));
    let name = if of_link { directory.interface_name(scope) } else { None };
    format!("{address}%{}", name.unwrap_or_else(|| scope.to_string()))
}

/// Text for a port: the service's name, else the number.
pub(crate) fn service(port: u16, udp: bool, numeric: bool, directory: &impl Directory) -> String {
    let protocol = if udp { "udp" } else { "tcp" };
    let name = if numeric { None } else { services::name(&directory.services(), port, protocol) };
    name.unwrap_or_else(|| port.to_string())
}
