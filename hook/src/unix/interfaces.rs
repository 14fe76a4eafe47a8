//! getifaddrs and the if_ functions: libc asks over sockets of its own, which would show the normal network.
//!
//! Results lie in memory as libc's own do, so that its `freeifaddrs` and `if_freenameindex` free them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{c_char, c_int, c_uint, ifaddrs, sockaddr, sockaddr_ll, sockaddr_storage};

use super::addrinfo::write_address;
use super::glue;
use super::netlink::{self, Address, Link};
use crate::names::literal::Scoped;
use crate::outcome::Outcome;

/// Bytes of an interface's name, final zero included.
const NAME: usize = libc::IF_NAMESIZE;

/// Bytes of the statistics that AF_PACKET entries carry: 23 numbers of 32 bits, rounded up.
const STATISTICS: usize = 96;

/// Bytes of a hardware address in sockaddr_ll.
const HARDWARE: usize = 8;

redhook::hook! {
    unsafe fn getifaddrs(list: *mut *mut ifaddrs) -> c_int => phantom_getifaddrs {
        glue::answer(-1, || match all() {
            Ok(head) => {
                // SAFETY: the caller gave a place for the list.
                unsafe { list.write(head) };
                Outcome::Done(0)
            }
            Err(error) => Outcome::Fail(error),
        })
    }
}

redhook::hook! {
    unsafe fn freeifaddrs(list: *mut ifaddrs) -> () => phantom_freeifaddrs {
        // SAFETY: the caller gives back what it got: one piece of libc's memory.
        unsafe { libc::free(list.cast()) }
    }
}

redhook::hook! {
    unsafe fn if_nametoindex(name: *const c_char) -> c_uint => phantom_if_nametoindex {
        // SAFETY: the caller gives a C string.
        glue::answer(0, || match unsafe { glue::text(name) }.and_then(number) {
            Some(index) => Outcome::Done(index),
            None => Outcome::Fail(libc::ENODEV),
        })
    }
}

redhook::hook! {
    unsafe fn if_indextoname(index: c_uint, name: *mut c_char) -> *mut c_char => phantom_if_indextoname {
        glue::answer(std::ptr::null_mut(), || {
            let Some(found) = self::name(index) else { return Outcome::Fail(libc::ENXIO) };
            // SAFETY: the caller gave room for the longest name.
            unsafe { name.cast::<[u8; NAME]>().write(name_bytes(&found)) };
            Outcome::Done(name)
        })
    }
}

redhook::hook! {
    unsafe fn if_nameindex() -> *mut libc::if_nameindex => phantom_if_nameindex {
        glue::answer(std::ptr::null_mut(), || {
            netlink::links().and_then(|links| index(&links).ok_or(libc::ENOBUFS)).map_or_else(Outcome::Fail, Outcome::Done)
        })
    }
}

/// Number of the interface of that name.
pub(super) fn number(name: &str) -> Option<u32> {
    netlink::links().ok()?.iter().find(|link| link.name == name).map(|link| link.index)
}

/// Name of the interface of that number.
pub(super) fn name(index: u32) -> Option<String> {
    Some(netlink::links().ok()?.into_iter().find(|link| link.index == index)?.name)
}

/// An entry with all that it points to. The first one's address is the list's, so one `free` frees all.
#[repr(C)]
struct Entry {
    head: ifaddrs,
    name: [u8; NAME],
    address: sockaddr_storage,
    mask: sockaddr_storage,
    other: sockaddr_storage,
    statistics: [u8; STATISTICS],
}

fn all() -> Result<*mut ifaddrs, c_int> {
    let links = netlink::links()?;
    let addresses = netlink::addresses()?;
    let link_of = |address: &Address| links.iter().find(|link| link.index == address.index);
    let pairs: Vec<(&Address, &Link)> = addresses.iter().filter_map(|at| Some((at, link_of(at)?))).collect();
    let count = links.len() + pairs.len();
    let Some(memory) = glue::allocate(count * size_of::<Entry>()) else { return Err(libc::ENOMEM) };
    let first: *mut Entry = memory.cast();
    for at in 0..count {
        // SAFETY: there is memory for `count` entries; zeros are a value of each field. What is behind the last is not used.
        unsafe {
            let entry = first.add(at);
            entry.write(std::mem::zeroed());
            match at.checked_sub(links.len()) {
                None => fill_link(entry, &links[at]),
                Some(at) => fill_address(entry, pairs[at].0, pairs[at].1),
            }
            if at + 1 < count {
                (*entry).head.ifa_next = entry.add(1).cast();
            }
        }
    }
    Ok(if count == 0 { std::ptr::null_mut() } else { first.cast() })
}

/// # Safety
/// `entry` is a zeroed entry.
unsafe fn fill_link(entry: *mut Entry, link: &Link) {
    // SAFETY: as the caller says.
    unsafe {
        fill_name(entry, &link.name, link.flags);
        (*entry).head.ifa_addr = fill_hardware(&raw mut (*entry).address, link, &link.address);
        (*entry).head.ifa_ifu = fill_hardware(&raw mut (*entry).other, link, &link.broadcast);
        let length = link.statistics.len().min(STATISTICS);
        (&mut (*entry).statistics)[..length].copy_from_slice(&link.statistics[..length]);
        (*entry).head.ifa_data = (&raw mut (*entry).statistics).cast();
    }
}

/// # Safety
/// `entry` is a zeroed entry.
unsafe fn fill_address(entry: *mut Entry, address: &Address, link: &Link) {
    // SAFETY: as the caller says.
    unsafe {
        fill_name(entry, address.label.as_deref().unwrap_or(&link.name), link.flags);
        (*entry).head.ifa_addr = fill_internet(&raw mut (*entry).address, address.local, link.index);
        (*entry).head.ifa_netmask = fill_internet(&raw mut (*entry).mask, mask(address.local, address.prefix), 0);
        if let Some(other) = address.broadcast.or(address.peer) {
            (*entry).head.ifa_ifu = fill_internet(&raw mut (*entry).other, other, link.index);
        }
    }
}

/// # Safety
/// `entry` is a zeroed entry.
unsafe fn fill_name(entry: *mut Entry, name: &str, flags: u32) {
    // SAFETY: as the caller says.
    unsafe {
        (*entry).name = name_bytes(name);
        (*entry).head.ifa_name = (&raw mut (*entry).name).cast();
        (*entry).head.ifa_flags = flags;
    }
}

/// # Safety
/// `to` can be written.
unsafe fn fill_internet(to: *mut sockaddr_storage, address: IpAddr, index: u32) -> *mut sockaddr {
    let on_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let scoped = Scoped { address, scope: if on_link { index } else { 0 } };
    // SAFETY: room for any address, aligned for all.
    unsafe { write_address(to.cast(), &scoped, 0) };
    to.cast()
}

/// # Safety
/// `to` can be written.
unsafe fn fill_hardware(to: *mut sockaddr_storage, link: &Link, address: &[u8]) -> *mut sockaddr {
    let length = address.len().min(HARDWARE);
    let mut hardware = sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: 0,
        // Interface numbers are positive ints in C.
        sll_ifindex: link.index as c_int,
        sll_hatype: link.kind,
        sll_pkttype: 0,
        sll_halen: length as u8,
        sll_addr: [0; HARDWARE],
    };
    hardware.sll_addr[..length].copy_from_slice(&address[..length]);
    // SAFETY: room for any address, aligned for all.
    unsafe { to.cast::<sockaddr_ll>().write(hardware) };
    to.cast()
}

pub(super) fn mask(of: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match of {
        IpAddr::V4(_) => Ipv4Addr::from(!u32::MAX.checked_shr(prefix).unwrap_or(0)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(!u128::MAX.checked_shr(prefix).unwrap_or(0)).into(),
    }
}

pub(super) fn name_bytes(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    let length = name.len().min(NAME - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// The array of if_nameindex; none when memory is short. What was allocated until then is lost with it.
fn index(links: &[Link]) -> Option<*mut libc::if_nameindex> {
    let array: *mut libc::if_nameindex = glue::allocate((links.len() + 1) * size_of::<libc::if_nameindex>())?.cast();
    for (at, link) in links.iter().enumerate() {
        let entry = libc::if_nameindex { if_index: link.index, if_name: glue::allocate_text(&link.name)? };
        // SAFETY: the array has room for all and the end.
        unsafe { array.add(at).write(entry) };
    }
    // SAFETY: as above.
    unsafe { array.add(links.len()).write(libc::if_nameindex { if_index: 0, if_name: std::ptr::null_mut() }) };
    Some(array)
}
