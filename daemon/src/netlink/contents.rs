//! What a network namespace holds: its devices, and their addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    AF_INET, AF_INET6, IFA_ADDRESS, IFA_LOCAL, IFF_UP, IFLA_IFNAME, LOOPBACK, NLM_F_DUMP, Netlink, RTM_NEWADDR,
    RTM_NEWLINK, attribute, number, value_of,
};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const IFLA_IFALIAS: u16 = 20;

/// Bytes before the attributes of a device, and of an address.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Where a message says which device it is about, and in which state that is.
const INDEX: usize = 4;
const FLAGS: usize = 8;

/// A device, as the kernel tells of it.
pub(crate) struct Link<'a> {
    /// Its number.
    pub(crate) index: u32,
    /// What it is called.
    pub(crate) name: &'a [u8],
    /// What else: words that somebody gave it.
    pub(crate) alias: &'a [u8],
    /// Whether anything goes by it.
    pub(crate) is_up: bool,
}

impl Netlink {
    /// Whether this holds for all devices.
    pub(crate) fn all_links(&self, holds: impl Fn(&Link<'_>) -> bool) -> io::Result<bool> {
        let mut all = true;
        self.dump_route(RTM_GETLINK, LINK, |kind, message| {
            if kind == RTM_NEWLINK && message.len() >= LINK {
                all &= holds(&link(message));
            }
        })?;
        Ok(all)
    }

    /// Whether this holds for all addresses; none that is neither IPv6 nor IPv4 counts as one for which it does.
    pub(crate) fn all_addresses(&self, holds: impl Fn(IpAddr) -> bool) -> io::Result<bool> {
        let mut all = true;
        self.dump_route(RTM_GETADDR, ADDRESS, |kind, message| {
            if kind == RTM_NEWADDR && message.len() >= ADDRESS {
                all &= address(message).is_some_and(&holds);
            }
        })?;
        Ok(all)
    }

    /// Gives the loopback device words of ours, which stay as long as the namespace.
    pub(crate) fn mark_loopback(&self, words: &str) -> io::Result<()> {
        let mut body = vec![0; LINK];
        body[INDEX..FLAGS].copy_from_slice(&LOOPBACK.to_ne_bytes());
        attribute(&mut body, IFLA_IFALIAS, words.as_bytes());
        self.request(RTM_NEWLINK, 0, &body)
    }

    fn dump_route(&self, what: u16, header: usize, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(what, NLM_F_DUMP, &vec![0; header])?;
        self.receive(each)
    }
}

fn link(message: &[u8]) -> Link<'_> {
    let text = |kind| value_of(&message[LINK..], kind).unwrap_or_default();
    let whole = |text: &'_ [u8]| text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let (name, alias) = (text(IFLA_IFNAME), text(IFLA_IFALIAS));
    Link {
        index: number(message, INDEX),
        name: &name[..whole(name)],
        alias: &alias[..whole(alias)],
        is_up: number(message, FLAGS) & IFF_UP != 0,
    }
}

fn address(message: &[u8]) -> Option<IpAddr> {
    let attributes = &message[ADDRESS..];
    // Between two ends the other attribute is the far one's.
    let own = value_of(attributes, IFA_LOCAL).or_else(|| value_of(attributes, IFA_ADDRESS))?;
    match message[0] {
        AF_INET => Some(Ipv4Addr::from(*own.first_chunk::<4>()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(*own.first_chunk::<16>()?).into()),
        _ => None,
    }
}
