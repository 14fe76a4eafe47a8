//! gethostbyname and its relatives: one look-up by name, one by address, and the forms that C wants the answer in.

use std::cell::UnsafeCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{c_char, c_int, c_void, hostent, size_t, socklen_t};

use super::directory::Daemon;
use super::glue;
use crate::names::{Unknown, literal, resolve, reverse};
use crate::outcome::Outcome;

/// Values of h_errno.
pub(super) const INTERNAL: c_int = -1;
pub(super) const NOT_FOUND: c_int = 1;
pub(super) const AGAIN: c_int = 2;
pub(super) const NO_RECOVERY: c_int = 3;
pub(super) const NO_DATA: c_int = 4;

/// Words of memory for the functions that return their own: any name, any number of addresses that a name has here.
const OWN_WORDS: usize = 128;

type Text = *const c_char;
type Results = *mut *mut hostent;

redhook::hook! {
    unsafe fn gethostbyname(name: Text) -> *mut hostent => phantom_gethostbyname {
        // SAFETY: the caller gives a C string.
        in_own_memory(|| unsafe { by_name(name, libc::AF_INET) })
    }
}

redhook::hook! {
    unsafe fn gethostbyname2(name: Text, family: c_int) -> *mut hostent => phantom_gethostbyname2 {
        // SAFETY: as above.
        in_own_memory(|| unsafe { by_name(name, family) })
    }
}

redhook::hook! {
    unsafe fn gethostbyaddr(address: *const c_void, length: socklen_t, family: c_int) -> *mut hostent => phantom_gethostbyaddr {
        // SAFETY: the caller gives that many bytes.
        in_own_memory(|| unsafe { by_address(address, length, family) })
    }
}

redhook::hook! {
    unsafe fn gethostbyname_r(
        name: Text, host: *mut hostent, buffer: *mut c_char, size: size_t, result: Results, error: *mut c_int
    ) -> c_int => phantom_gethostbyname_r {
        // SAFETY: the caller's arguments are as gethostbyname_r wants them.
        unsafe { in_buffer(|| by_name(name, libc::AF_INET), host, (buffer, size), result, error) }
    }
}

redhook::hook! {
    unsafe fn gethostbyname2_r(
        name: Text, family: c_int, host: *mut hostent, buffer: *mut c_char, size: size_t, result: Results,
        error: *mut c_int
    ) -> c_int => phantom_gethostbyname2_r {
        // SAFETY: as above.
        unsafe { in_buffer(|| by_name(name, family), host, (buffer, size), result, error) }
    }
}

#[allow(clippy::too_many_arguments)] // their number is C's
mod eight {
    use super::*;

    redhook::hook! {
        unsafe fn gethostbyaddr_r(
            address: *const c_void, length: socklen_t, family: c_int, host: *mut hostent, buffer: *mut c_char,
            size: size_t, result: Results, error: *mut c_int
        ) -> c_int => phantom_gethostbyaddr_r {
            // SAFETY: as above.
            unsafe { in_buffer(|| by_address(address, length, family), host, (buffer, size), result, error) }
        }
    }
}

/// What is known of a host: addresses of one family.
struct Host {
    name: String,
    family: c_int,
    address: IpAddr,
}

/// # Safety
/// `name` is NULL or a C string.
unsafe fn by_name(name: Text, family: c_int) -> Result<Host, c_int> {
    // SAFETY: as the caller says.
    let name = unsafe { glue::text(name) }.ok_or(NOT_FOUND)?;
    if !matches!(family, libc::AF_INET | libc::AF_INET6) {
        glue::set_errno(libc::EAFNOSUPPORT);
        return Err(INTERNAL);
    }
    let address = match literal::parse(name, |_| None) {
        Some(literal) if literal.address.is_ipv4() == (family == libc::AF_INET) => literal.address,
        Some(_) => return Err(NOT_FOUND),
        None => {
            let found = resolve(name, &Daemon).map_err(code)?;
            let address = if family == libc::AF_INET { found.v4.map(IpAddr::V4) } else { found.v6.map(IpAddr::V6) };
            address.ok_or(NO_DATA)?
        }
    };
    Ok(Host { name: name.strip_suffix('.').unwrap_or(name).to_owned(), family, address })
}

/// # Safety
/// `address` points to `length` bytes.
unsafe fn by_address(address: *const c_void, length: socklen_t, family: c_int) -> Result<Host, c_int> {
    let address: IpAddr = match (family, length) {
        // SAFETY: as the caller says.
        (libc::AF_INET, 4) => Ipv4Addr::from(unsafe { address.cast::<[u8; 4]>().read() }).into(),
        // SAFETY: as the caller says.
        (libc::AF_INET6, 16) => Ipv6Addr::from(unsafe { address.cast::<[u8; 16]>().read() }).into(),
        _ => {
            glue::set_errno(libc::EINVAL);
            return Err(INTERNAL);
        }
    };
    Ok(Host { name: reverse::name_of(address, &Daemon).map_err(code)?, family, address })
}

fn code(unknown: Unknown) -> c_int {
    match unknown {
        Unknown::NotFound => NOT_FOUND,
        Unknown::Again => AGAIN,
    }
}

/// The end of both lists, and what they and the address need.
#[repr(C)]
struct Lists {
    addresses: [*mut c_char; 2],
    aliases: [*mut c_char; 1],
    address: [u8; 16],
}

/// Puts a host into memory; none when it is too small.
///
/// # Safety
/// `host` can be written, `buffer` has room for `size` bytes.
unsafe fn pack(from: &Host, host: *mut hostent, (buffer, size): (*mut c_char, size_t)) -> Option<()> {
    let skip = buffer.align_offset(align_of::<Lists>());
    let needed = skip.checked_add(size_of::<Lists>())?.checked_add(from.name.len() + 1)?;
    if buffer.is_null() || needed > size {
        return None;
    }
    let (bytes, length) = match from.address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 4),
        IpAddr::V6(v6) => (v6.octets(), 16),
    };
    let mut address = [0; 16];
    // The last bytes are the address in either case.
    address[..length].copy_from_slice(&bytes[16 - length..]);
    // SAFETY: aligned, and all of it is inside the buffer.
    unsafe {
        let lists: *mut Lists = buffer.add(skip).cast();
        let bytes: *mut c_char = (&raw mut (*lists).address).cast();
        lists.write(Lists { addresses: [bytes, std::ptr::null_mut()], aliases: [std::ptr::null_mut()], address });
        let name: *mut c_char = lists.add(1).cast();
        name.cast::<u8>().copy_from_nonoverlapping(from.name.as_ptr(), from.name.len());
        name.add(from.name.len()).write(0);
        host.write(hostent {
            h_name: name,
            h_aliases: (&raw mut (*lists).aliases).cast(),
            h_addrtype: from.family,
            h_length: length as c_int,
            h_addr_list: (&raw mut (*lists).addresses).cast(),
        });
    }
    Some(())
}

/// Memory of the functions that return a pointer to their own.
struct OwnMemory(UnsafeCell<(hostent, [u64; OWN_WORDS])>);

// SAFETY: C says that one thread at a time may use these functions and what they return.
unsafe impl Sync for OwnMemory {}

static OWN: OwnMemory = OwnMemory(UnsafeCell::new((
    hostent {
        h_name: std::ptr::null_mut(),
        h_aliases: std::ptr::null_mut(),
        h_addrtype: 0,
        h_length: 0,
        h_addr_list: std::ptr::null_mut(),
    },
    [0; OWN_WORDS],
)));

fn in_own_memory(find: impl FnOnce() -> Result<Host, c_int>) -> *mut hostent {
    glue::set_h_errno(INTERNAL);
    glue::answer(std::ptr::null_mut(), || {
        let host = match find() {
            Ok(host) => host,
            Err(error) => {
                glue::set_h_errno(error);
                return Outcome::Fail(glue::errno());
            }
        };
        let own = OWN.0.get();
        // SAFETY: the memory lives as long as the library; see `Sync` above for who uses it.
        let packed = unsafe {
            let words = &raw mut (*own).1;
            pack(&host, &raw mut (*own).0, (words.cast(), OWN_WORDS * size_of::<u64>()))
        };
        glue::set_h_errno(if packed.is_some() { 0 } else { NO_RECOVERY });
        Outcome::Done(packed.map_or(std::ptr::null_mut(), |()| own.cast()))
    })
}

/// # Safety
/// As for gethostbyname_r.
unsafe fn in_buffer(
    find: impl FnOnce() -> Result<Host, c_int>,
    host: *mut hostent,
    buffer: (*mut c_char, size_t),
    result: Results,
    error: *mut c_int,
) -> c_int {
    let finish = |value, found, code| {
        // SAFETY: the caller gave places for both.
        unsafe {
            result.write(found);
            error.write(code);
        }
        value
    };
    glue::answer(finish(libc::EIO, std::ptr::null_mut(), INTERNAL), || {
        Outcome::Done(match find() {
            // SAFETY: as the caller says.
            Ok(found) => match unsafe { pack(&found, host, buffer) } {
                Some(()) => finish(0, host, 0),
                None => finish(libc::ERANGE, std::ptr::null_mut(), INTERNAL),
            },
            Err(code @ (NOT_FOUND | NO_DATA)) => finish(0, std::ptr::null_mut(), code),
            Err(code @ AGAIN) => finish(libc::EAGAIN, std::ptr::null_mut(), code),
            Err(code @ INTERNAL) => finish(glue::errno(), std::ptr::null_mut(), code),
            Err(code) => finish(libc::EINVAL, std::ptr::null_mut(), code),
        })
    })
}
