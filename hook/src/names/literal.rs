//! Addresses as text, in every form that the resolver functions of C accept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and the interface that it is on; 0 when none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scoped {
    pub(crate) address: IpAddr,
    pub(crate) scope: u32,
}

impl Scoped {
    /// An address on no interface in particular.
    pub(crate) fn plain(address: impl Into<IpAddr>) -> Self {
        Self { address: address.into(), scope: 0 }
    }
}

/// Reads an address; `interface` numbers the interfaces that IPv6 addresses may name after a percent sign.
pub(crate) fn parse(text: &str, interface: impl FnOnce(&str) -> Option<u32>) -> Option<Scoped> {
    if let Some(address) = parse_v4(text) {
        return Some(Scoped::plain(address));
    }
    let (text, name) = text.split_once('%').map_or((text, None), |(text, name)| (text, Some(name)));
    let address: Ipv6Addr = text.parse().ok()?;
    // Only addresses of one link may name it; numbers go with any.
    let named = |name: &str| if is_of_link(address) { interface(name) } else { None };
    let scope = name.map_or(Some(0), |name| name.parse().ok().or_else(|| named(name)))?;
    Some(Scoped { address: address.into(), scope })
}

/// Whether the address means something on one link only.
pub(crate) fn is_of_link(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local() || address.segments()[0] & 0xff0f == 0xff02
}

/// Reads an IPv4 address of one to four parts, each decimal, octal (`0…`) or hexadecimal (`0x…`); the last part fills
/// what is left, as inet_aton(3) has it.
pub(crate) fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(part).collect::<Option<Vec<u32>>>()?;
    let (last, heads) = parts.split_last()?;
    if heads.len() > 3 || heads.iter().any(|head| *head > 255) {
        return None;
    }
    let free_bits = 32 - 8 * heads.len() as u32;
    if free_bits < 32 && *last >> free_bits != 0 {
        return None;
    }
    let head = heads.iter().enumerate().fold(0, |sum, (at, head)| sum | head << (24 - 8 * at));
    Some(Ipv4Addr::from(head | last))
}

fn part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix accepts a sign, addresses do not.
    if digits.starts_with(['+', '-']) { None } else { u32::from_str_radix(digits, radix).ok() }
}
