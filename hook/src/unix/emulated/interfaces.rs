//! Questions about interfaces by ioctl, as Java and old programs ask: an emulated socket is the daemon's, whose network is not
//! the program's, so they are answered as for getifaddrs.

use std::net::{IpAddr, Ipv4Addr};

use libc::{c_int, c_ulong, c_void, ifconf, ifreq, sockaddr};

use super::on;
use crate::names::literal::Scoped;
use crate::outcome::Outcome;
use crate::unix::addrinfo::write_address;
use crate::unix::interfaces::{mask, name_bytes};
use crate::unix::netlink::{self, Address, Link};
use crate::unix::{glue, sandbox};

/// From SIOCGIFNAME to the last question about radio, as in the launcher's filter.
const QUESTIONS: std::ops::RangeInclusive<c_ulong> = 0x8910..=0x8bff;

/// What libc::ioctl calls a request depends on the libc.
const NAME: c_ulong = libc::SIOCGIFNAME as c_ulong;
const LIST: c_ulong = libc::SIOCGIFCONF as c_ulong;
const FLAGS: c_ulong = libc::SIOCGIFFLAGS as c_ulong;
const ADDRESS: c_ulong = libc::SIOCGIFADDR as c_ulong;
const FAR_ADDRESS: c_ulong = libc::SIOCGIFDSTADDR as c_ulong;
const BROADCAST: c_ulong = libc::SIOCGIFBRDADDR as c_ulong;
const MASK: c_ulong = libc::SIOCGIFNETMASK as c_ulong;
const METRIC: c_ulong = libc::SIOCGIFMETRIC as c_ulong;
const MTU: c_ulong = libc::SIOCGIFMTU as c_ulong;
const HARDWARE: c_ulong = libc::SIOCGIFHWADDR as c_ulong;
const INDEX: c_ulong = libc::SIOCGIFINDEX as c_ulong;

/// Longest packets, as in a phantom namespace.
const LOOPBACK_MTU: c_int = 65_536;
const OTHER_MTU: c_int = 65_535;

redhook::hook! {
    unsafe fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int => phantom_ioctl {
        // SAFETY: the caller's arguments are as ioctl wants them; one pointer stands for the variadic one, whatever it is.
        let real = || unsafe { redhook::real!(ioctl)(fd, request, argument) };
        if !QUESTIONS.contains(&request) || sandbox::filtered() {
            return real();
        }
        // SAFETY: as above.
        glue::conclude(-1, || unsafe { question(fd, request, argument) }, real)
    }
}

pub(super) fn prepare() {
    let _ = redhook::real!(ioctl);
}

/// # Safety
/// As for ioctl with one of the requests.
unsafe fn question(fd: c_int, request: c_ulong, argument: *mut c_void) -> Outcome<c_int> {
    on(fd, |_| {
        if request == LIST {
            // SAFETY: this request takes such a list.
            let list = unsafe { argument.cast::<ifconf>().as_mut() }.ok_or(libc::EFAULT)?;
            // SAFETY: as the caller says.
            return unsafe { fill(list) }.map(|()| 0);
        }
        // SAFETY: all others take one of these.
        let asked = unsafe { argument.cast::<ifreq>().as_mut() }.ok_or(libc::EFAULT)?;
        answer(request, asked).map(|()| 0)
    })
}

/// All IPv4 addresses, one entry each; without room, only how much they take.
///
/// # Safety
/// The list has as much room as it says, or none at all.
unsafe fn fill(list: &mut ifconf) -> Result<(), c_int> {
    let links = netlink::links()?;
    let mut entries = Vec::new();
    for address in netlink::addresses()?.iter().filter(|address| address.local.is_ipv4()) {
        let Some(link) = links.iter().find(|link| link.index == address.index) else { continue };
        entries.push(entry(address.label.as_deref().unwrap_or(&link.name), address.local));
    }
    // SAFETY: the kernel's union of two pointers.
    let to = unsafe { list.ifc_ifcu.ifcu_req };
    let room = usize::try_from(list.ifc_len).unwrap_or(0) / size_of::<ifreq>();
    let count = if to.is_null() { entries.len() } else { entries.len().min(room) };
    if !to.is_null() {
        // SAFETY: as the caller says.
        entries.iter().take(count).enumerate().for_each(|(at, entry)| unsafe { to.add(at).write_unaligned(*entry) });
    }
    // A few entries of 40 bytes.
    list.ifc_len = (count * size_of::<ifreq>()) as c_int;
    Ok(())
}

fn entry(name: &str, address: IpAddr) -> ifreq {
    // SAFETY: all zeros is a value of this type.
    let mut entry: ifreq = unsafe { std::mem::zeroed() };
    set_name(&mut entry, name);
    set_address(&mut entry, address);
    entry
}

fn answer(request: c_ulong, asked: &mut ifreq) -> Result<(), c_int> {
    let links = netlink::links()?;
    if request == NAME {
        // SAFETY: this request is about a number.
        let index = unsafe { asked.ifr_ifru.ifru_ifindex };
        let link = links.iter().find(|link| c_int::try_from(link.index) == Ok(index)).ok_or(libc::ENODEV)?;
        set_name(asked, &link.name);
        return Ok(());
    }
    let name = asked.ifr_name.map(|byte| byte.to_ne_bytes()[0]);
    let link = links.iter().find(|link| name_bytes(&link.name) == name).ok_or(libc::ENODEV)?;
    match request {
        // The kernel cuts them off, too.
        FLAGS => asked.ifr_ifru.ifru_flags = link.flags as i16,
        INDEX => asked.ifr_ifru.ifru_ifindex = c_int::try_from(link.index).unwrap_or(0),
        METRIC => asked.ifr_ifru.ifru_metric = 0,
        MTU => asked.ifr_ifru.ifru_mtu = if link.index == 1 { LOOPBACK_MTU } else { OTHER_MTU },
        HARDWARE => set_hardware(asked, link),
        ADDRESS | FAR_ADDRESS | BROADCAST | MASK => set_address(asked, about(request, &of(link)?)),
        _ => return Err(libc::EPERM),
    }
    Ok(())
}

/// The interface's IPv4 address.
fn of(link: &Link) -> Result<Address, c_int> {
    let mut all = netlink::addresses()?.into_iter();
    all.find(|address| address.index == link.index && address.local.is_ipv4()).ok_or(libc::EADDRNOTAVAIL)
}

fn about(request: c_ulong, address: &Address) -> IpAddr {
    match request {
        MASK => mask(address.local, address.prefix),
        FAR_ADDRESS => address.peer.unwrap_or(address.local),
        BROADCAST => address.broadcast.unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into()),
        _ => address.local,
    }
}

fn set_name(entry: &mut ifreq, name: &str) {
    entry.ifr_name = name_bytes(name).map(|byte| libc::c_char::from_ne_bytes([byte]));
}

fn set_address(entry: &mut ifreq, address: IpAddr) {
    let to: *mut sockaddr = (&raw mut entry.ifr_ifru).cast();
    // SAFETY: the union has room for an IPv4 address, and is aligned for more.
    unsafe { write_address(to, &Scoped::plain(address), 0) };
}

fn set_hardware(entry: &mut ifreq, link: &Link) {
    // SAFETY: all zeros is a value of this type.
    let mut hardware: sockaddr = unsafe { std::mem::zeroed() };
    hardware.sa_family = link.kind;
    for (to, from) in hardware.sa_data.iter_mut().zip(&link.address) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    entry.ifr_ifru.ifru_hwaddr = hardware;
}
