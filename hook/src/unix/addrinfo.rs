//! getaddrinfo, getnameinfo and their relatives.
//!
//! Lists lie in memory as libc's own do, so that either `freeaddrinfo` frees them.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{addrinfo, c_char, c_int, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};

use super::directory::Daemon;
use super::glue;
use crate::names::forward::{Entry, Family, Found, Refusal, Wanted, find};
use crate::names::literal::Scoped;
use crate::names::{Directory, Unknown, reverse};
use crate::outcome::Outcome;

/// EAI_ADDRFAMILY and EAI_IDN_ENCODE of glibc.
const NO_SUCH_FAMILY: c_int = -9;
const NOT_ENCODED: c_int = -105;

/// The four flags about international names; such names are not encoded here.
const INTERNATIONAL: c_int = 0x3c0;

/// Modes of getaddrinfo_a.
const WAIT: c_int = 0;
const NOWAIT: c_int = 1;

const KNOWN_FLAGS: c_int = libc::AI_PASSIVE
    | libc::AI_CANONNAME
    | libc::AI_NUMERICHOST
    | libc::AI_V4MAPPED
    | libc::AI_ALL
    | libc::AI_ADDRCONFIG
    | libc::AI_NUMERICSERV
    | INTERNATIONAL;

/// Flags of getnameinfo: numeric host and service, no domain, name required, datagram, and two about international names.
const KNOWN_NAME_FLAGS: c_int = 0x1f | 0xe0;

redhook::hook! {
    unsafe fn getaddrinfo(
        node: *const c_char, service: *const c_char, hints: *const addrinfo, list: *mut *mut addrinfo
    ) -> c_int => phantom_getaddrinfo {
        // SAFETY: the caller's arguments are as getaddrinfo wants them.
        glue::answer(libc::EAI_SYSTEM, || Outcome::Done(unsafe { look_up(node, service, hints, list) }))
    }
}

redhook::hook! {
    unsafe fn freeaddrinfo(list: *mut addrinfo) -> () => phantom_freeaddrinfo {
        // SAFETY: the caller gives a list back that it got from getaddrinfo.
        unsafe { free(list) }
    }
}

redhook::hook! {
    unsafe fn getnameinfo(
        address: *const sockaddr, length: socklen_t, host: *mut c_char, host_size: socklen_t,
        service: *mut c_char, service_size: socklen_t, flags: c_int
    ) -> c_int => phantom_getnameinfo {
        glue::answer(libc::EAI_SYSTEM, || {
            // SAFETY: the caller's arguments are as getnameinfo wants them.
            let named = unsafe { name(address, length, (host, host_size), (service, service_size), flags) };
            Outcome::Done(named.err().unwrap_or(0))
        })
    }
}

/// A question of getaddrinfo_a.
#[repr(C)]
pub(super) struct Question {
    name: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    answer: *mut addrinfo,
    state: c_int,
    unused: [c_int; 5],
}

redhook::hook! {
    unsafe fn getaddrinfo_a(
        mode: c_int, questions: *mut *mut Question, count: c_int, event: *mut libc::sigevent
    ) -> c_int => phantom_getaddrinfo_a {
        // SAFETY: the caller's arguments are as getaddrinfo_a wants them.
        glue::answer(libc::EAI_SYSTEM, || unsafe { look_up_all(mode, questions, count, event) })
    }
}

/// # Safety
/// As for getaddrinfo.
unsafe fn look_up(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    list: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: as the caller says.
    let (flags, family, kind, protocol) = match unsafe { hints.as_ref() } {
        Some(hints) => (hints.ai_flags, hints.ai_family, hints.ai_socktype, hints.ai_protocol),
        None => (0, libc::AF_UNSPEC, 0, 0),
    };
    // SAFETY: as the caller says.
    let (node, service) = unsafe { (glue::text(node), glue::text(service)) };
    let family = match family {
        libc::AF_UNSPEC => None,
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => Some(Family::Other),
    };
    if flags & INTERNATIONAL != 0 && node.is_some_and(|node| !node.is_ascii()) {
        return NOT_ENCODED;
    }
    let has = |flag| flags & flag != 0;
    let wanted = Wanted {
        node,
        service,
        family,
        kind,
        protocol,
        passive: has(libc::AI_PASSIVE),
        canonical: has(libc::AI_CANONNAME),
        numeric_host: has(libc::AI_NUMERICHOST),
        numeric_service: has(libc::AI_NUMERICSERV),
        v4_mapped: has(libc::AI_V4MAPPED),
        all: has(libc::AI_ALL),
        unknown: flags & !KNOWN_FLAGS != 0,
    };
    let found = match find(&wanted, &Daemon) {
        Ok(found) => found,
        Err(refusal) => return code(refusal),
    };
    let Some(head) = build(&found, flags) else { return libc::EAI_MEMORY };
    // SAFETY: the caller gave a place for the list.
    unsafe { list.write(head) };
    0
}

fn code(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::BadFlags => libc::EAI_BADFLAGS,
        Refusal::NoName => libc::EAI_NONAME,
        Refusal::Family => libc::EAI_FAMILY,
        Refusal::AddressFamily => NO_SUCH_FAMILY,
        Refusal::Service => libc::EAI_SERVICE,
        Refusal::SocketType => libc::EAI_SOCKTYPE,
        Refusal::Again => libc::EAI_AGAIN,
    }
}

/// The list in libc's memory; none when there is not enough.
fn build(found: &Found, flags: c_int) -> Option<*mut addrinfo> {
    let mut head = std::ptr::null_mut();
    for entry in found.entries.iter().rev() {
        let Some(node) = build_entry(entry, flags, head) else {
            // SAFETY: the list so far is one.
            unsafe { free(head) };
            return None;
        };
        head = node;
    }
    if let Some(name) = &found.canonical {
        let Some(name) = glue::allocate_text(name) else {
            // SAFETY: as above.
            unsafe { free(head) };
            return None;
        };
        // SAFETY: a list has at least one entry, and this one is fresh.
        unsafe { (*head).ai_canonname = name };
    }
    Some(head)
}

/// An entry and the address behind it in one piece of memory.
fn build_entry(entry: &Entry, flags: c_int, next: *mut addrinfo) -> Option<*mut addrinfo> {
    let (family, size) = match entry.to.address {
        IpAddr::V4(_) => (libc::AF_INET, size_of::<sockaddr_in>()),
        IpAddr::V6(_) => (libc::AF_INET6, size_of::<sockaddr_in6>()),
    };
    let node: *mut addrinfo = glue::allocate(size_of::<addrinfo>() + size)?.cast();
    // SAFETY: the address lies right behind the entry, whose size is a multiple of its alignment.
    let address: *mut sockaddr = unsafe { node.add(1) }.cast();
    // SAFETY: fresh memory of at least that size.
    unsafe {
        write_address(address, &entry.to, entry.port);
        node.write(addrinfo {
            ai_flags: flags,
            ai_family: family,
            ai_socktype: entry.kind,
            ai_protocol: entry.protocol,
            ai_addrlen: size as socklen_t,
            ai_addr: address,
            ai_canonname: std::ptr::null_mut(),
            ai_next: next,
        });
    }
    Some(node)
}

/// Writes a socket address.
///
/// # Safety
/// `to` has room for one of that family, and is aligned for it.
pub(super) unsafe fn write_address(to: *mut sockaddr, address: &Scoped, port: u16) {
    match address.address {
        IpAddr::V4(v4) => {
            let address = sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: as the caller says.
            unsafe { to.cast::<sockaddr_in>().write(address) };
        }
        IpAddr::V6(v6) => {
            let address = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.octets() },
                sin6_scope_id: address.scope,
            };
            // SAFETY: as the caller says.
            unsafe { to.cast::<sockaddr_in6>().write(address) };
        }
    }
}

/// # Safety
/// `list` is NULL or a list of getaddrinfo, libc's or this one's, that is not used any more.
unsafe fn free(mut list: *mut addrinfo) {
    while !list.is_null() {
        // SAFETY: each entry and its name are pieces of libc's memory.
        unsafe {
            let next = (*list).ai_next;
            libc::free((*list).ai_canonname.cast());
            libc::free(list.cast());
            list = next;
        }
    }
}

/// # Safety
/// As for getaddrinfo_a.
unsafe fn look_up_all(
    mode: c_int,
    questions: *mut *mut Question,
    count: c_int,
    event: *mut libc::sigevent,
) -> Outcome<c_int> {
    // SAFETY: as the caller says.
    let event = unsafe { event.as_ref() }.filter(|_| mode == NOWAIT);
    if !matches!(mode, WAIT | NOWAIT) {
        return Outcome::Fail(libc::EINVAL);
    }
    if event.is_some_and(|event| !matches!(event.sigev_notify, libc::SIGEV_NONE | libc::SIGEV_SIGNAL)) {
        return Outcome::Fail(libc::ENOSYS);
    }
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` pointers; those that are not NULL point to questions.
        if let Some(question) = unsafe { (*questions.add(at)).as_mut() } {
            // SAFETY: a question holds what getaddrinfo takes. All are answered before this returns.
            question.state =
                unsafe { look_up(question.name, question.service, question.hints, &raw mut question.answer) };
        }
    }
    if let Some(event) = event.filter(|event| event.sigev_notify == libc::SIGEV_SIGNAL) {
        // SAFETY: a signal to this process, as it asked for.
        unsafe { libc::sigqueue(libc::getpid(), event.sigev_signo, event.sigev_value) };
    }
    Outcome::Done(0)
}

/// # Safety
/// As for getnameinfo.
unsafe fn name(
    address: *const sockaddr,
    length: socklen_t,
    host: (*mut c_char, socklen_t),
    service: (*mut c_char, socklen_t),
    flags: c_int,
) -> Result<(), c_int> {
    let wants = |(to, size): (*mut c_char, socklen_t)| !to.is_null() && size > 0;
    let has = |flag| flags & flag != 0;
    if flags & !KNOWN_NAME_FLAGS != 0 {
        return Err(libc::EAI_BADFLAGS);
    }
    // SAFETY: as the caller says.
    let end = unsafe { read_end(address, length) }.ok_or(libc::EAI_FAMILY)?;
    if has(libc::NI_NAMEREQD) && !wants(host) && !wants(service) {
        return Err(libc::EAI_NONAME);
    }
    let (host_text, service_text) = match end {
        End::Local(path) => {
            let own = if has(libc::NI_NUMERICHOST) { None } else { Daemon.own_name() };
            (own.unwrap_or_else(|| "localhost".to_owned()), path)
        }
        End::Internet(at, port) => {
            let name = |at| reverse::host(at, has(libc::NI_NUMERICHOST), has(libc::NI_NAMEREQD), &Daemon);
            let host = if wants(host) { name(at).map_err(name_code)? } else { String::new() };
            (host, reverse::service(port, has(libc::NI_DGRAM), has(libc::NI_NUMERICSERV), &Daemon))
        }
    };
    for ((to, size), text) in [(host, host_text), (service, service_text)] {
        if wants((to, size)) {
            // SAFETY: the caller gave that much room.
            unsafe { write_text(to, size as usize, &text) }.ok_or(libc::EAI_OVERFLOW)?;
        }
    }
    Ok(())
}

fn name_code(unknown: Unknown) -> c_int {
    code(Refusal::from(unknown))
}

/// One end of a connection.
enum End {
    Internet(Scoped, u16),
    Local(String),
}

/// # Safety
/// `address` is NULL or points to `length` bytes.
unsafe fn read_end(address: *const sockaddr, length: socklen_t) -> Option<End> {
    let length = length as usize;
    if address.is_null() || length < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: that much is there.
    match c_int::from(unsafe { (*address).sa_family }) {
        libc::AF_INET if length >= size_of::<sockaddr_in>() => {
            // SAFETY: that much is there; the program may have put it anywhere.
            let end = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
            let v4 = Ipv4Addr::from(end.sin_addr.s_addr.to_ne_bytes());
            Some(End::Internet(Scoped::plain(v4), u16::from_be(end.sin_port)))
        }
        libc::AF_INET6 if length >= size_of::<sockaddr_in6>() => {
            // SAFETY: as above.
            let end = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
            let v6 = Ipv6Addr::from(end.sin6_addr.s6_addr);
            Some(End::Internet(Scoped { address: v6.into(), scope: end.sin6_scope_id }, u16::from_be(end.sin6_port)))
        }
        libc::AF_UNIX => {
            // SAFETY: the bytes behind the family are there.
            let path = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length) };
            let path = &path[size_of::<libc::sa_family_t>()..];
            let path = CStr::from_bytes_until_nul(path).map_or(path, CStr::to_bytes);
            Some(End::Local(String::from_utf8_lossy(path).into_owned()))
        }
        _ => None,
    }
}

/// Writes a C string; none when it does not fit.
///
/// # Safety
/// `to` has room for `size` bytes.
unsafe fn write_text(to: *mut c_char, size: usize, text: &str) -> Option<()> {
    if text.len() >= size {
        return None;
    }
    // SAFETY: as the caller says, and the text fits with its final zero.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    Some(())
}
