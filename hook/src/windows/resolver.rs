//! Names become addresses in text before Windows sees them: what it is asked it can answer without asking anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6, WSAHOST_NOT_FOUND, WSANO_DATA, WSATRY_AGAIN};

use super::daemon;
use crate::names::literal::{Scoped, parse};
use crate::names::reverse::name_of;
use crate::names::{Addresses, Directory, Unknown, resolve};

/// The daemon, and what this process knows.
struct Asked;

impl Directory for Asked {
    fn addresses(&self, name: &str) -> Result<Addresses, Unknown> {
        let (v6, v4) = daemon::resolve(name).map_err(|_| Unknown::Again)?;
        let found = Addresses { v6: v6.map(Ipv6Addr::from), v4: v4.map(Ipv4Addr::from) };
        if found.v6.is_none() && found.v4.is_none() { Err(Unknown::NotFound) } else { Ok(found) }
    }

    fn name(&self, address: IpAddr) -> Result<String, Unknown> {
        daemon::reverse(address).map_err(|_| Unknown::Again)?.ok_or(Unknown::NotFound)
    }

    fn own_name(&self) -> Option<String> {
        std::env::var("COMPUTERNAME").ok()
    }

    fn interface(&self, _: &str) -> Option<u32> {
        None
    }

    fn interface_name(&self, _: u32) -> Option<String> {
        None
    }

    fn services(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// The addresses of a name as texts, those of the network first; the number for the program when there are none of that family.
pub(super) fn texts(name: &str, family: i32) -> Result<Vec<String>, i32> {
    let found = find(name).map_err(number)?;
    let is_of = |scoped: &Scoped| match u16::try_from(family) {
        Ok(AF_INET) => scoped.address.is_ipv4(),
        Ok(AF_INET6) => scoped.address.is_ipv6(),
        _ => true,
    };
    let texts: Vec<_> = found.into_iter().filter(is_of).map(text).collect();
    if texts.is_empty() { Err(WSANO_DATA) } else { Ok(texts) }
}

fn find(name: &str) -> Result<Vec<Scoped>, Unknown> {
    if let Some(literal) = parse(name, |_| None) {
        return Ok(vec![literal]);
    }
    // Both mean this computer's own addresses.
    let name = if name.is_empty() || name.eq_ignore_ascii_case("..localmachine") { "localhost" } else { name };
    let Addresses { v6, v4 } = resolve(name, &Asked)?;
    let (v6, v4) = (v6.map(Scoped::plain), v4.map(Scoped::plain));
    Ok(v6.into_iter().chain(v4).collect())
}

fn text(Scoped { address, scope }: Scoped) -> String {
    if scope == 0 { address.to_string() } else { format!("{address}%{scope}") }
}

fn number(unknown: Unknown) -> i32 {
    match unknown {
        Unknown::NotFound => WSAHOST_NOT_FOUND,
        Unknown::Again => WSATRY_AGAIN,
    }
}

/// The name of an address; the number for the program when it has none.
pub(super) fn name(address: IpAddr) -> Result<String, i32> {
    name_of(address, &Asked).map_err(number)
}
