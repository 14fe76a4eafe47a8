//! Addresses as Windows' functions take and give them.

use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr::from_ref;

use windows_sys::Win32::Networking::WinSock::{
    ADDRESS_FAMILY, AF_INET, AF_INET6, IN_ADDR, IN_ADDR_0, IN6_ADDR, IN6_ADDR_0, SOCKADDR, SOCKADDR_IN, SOCKADDR_IN6,
    SOCKADDR_IN6_0, SOCKADDR_STORAGE, WSAEAFNOSUPPORT, WSAEFAULT,
};

/// Shortest and longest address of those two families.
const V4: i32 = size_of::<SOCKADDR_IN>() as i32;
const V6: i32 = size_of::<SOCKADDR_IN6>() as i32;

/// The address; the number for the program when there is none, or it is of another family.
///
/// # Safety
/// `at` is null, or as many bytes can be read there.
pub(super) unsafe fn read(at: *const SOCKADDR, length: i32) -> Result<SocketAddr, i32> {
    if at.is_null() || length < size_of::<ADDRESS_FAMILY>() as i32 {
        return Err(WSAEFAULT);
    }
    // SAFETY: the caller says that it is there; programs need not align it.
    match unsafe { at.cast::<ADDRESS_FAMILY>().read_unaligned() } {
        AF_INET if length >= V4 => {
            // SAFETY: it is as long, and any bytes are such an address.
            let read = unsafe { at.cast::<SOCKADDR_IN>().read_unaligned() };
            // SAFETY: all forms of the union are the same four bytes.
            let ip = Ipv4Addr::from(unsafe { read.sin_addr.S_un.S_addr }.to_ne_bytes());
            Ok(SocketAddr::new(ip.into(), u16::from_be(read.sin_port)))
        }
        AF_INET6 if length >= V6 => {
            // SAFETY: it is as long, and any bytes are such an address.
            let read = unsafe { at.cast::<SOCKADDR_IN6>().read_unaligned() };
            // SAFETY: all forms of the unions are the same bytes.
            let (ip, scope) = unsafe { (Ipv6Addr::from(read.sin6_addr.u.Byte), read.Anonymous.sin6_scope_id) };
            Ok(SocketAddrV6::new(ip, u16::from_be(read.sin6_port), read.sin6_flowinfo, scope).into())
        }
        AF_INET | AF_INET6 => Err(WSAEFAULT),
        _ => Err(WSAEAFNOSUPPORT),
    }
}

/// An address for a function, and its length.
pub(super) fn stored(address: SocketAddr) -> (SOCKADDR_STORAGE, i32) {
    let mut storage = SOCKADDR_STORAGE::default();
    let at = std::ptr::from_mut(&mut storage);
    let length = match address {
        SocketAddr::V4(address) => {
            let bytes = u32::from_ne_bytes(address.ip().octets());
            let sin_addr = IN_ADDR { S_un: IN_ADDR_0 { S_addr: bytes } };
            let it = SOCKADDR_IN { sin_family: AF_INET, sin_port: address.port().to_be(), sin_addr, sin_zero: [0; 8] };
            // SAFETY: a storage has room for any address.
            unsafe { at.cast::<SOCKADDR_IN>().write(it) };
            V4
        }
        SocketAddr::V6(address) => {
            let it = SOCKADDR_IN6 {
                sin6_family: AF_INET6,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: IN6_ADDR { u: IN6_ADDR_0 { Byte: address.ip().octets() } },
                Anonymous: SOCKADDR_IN6_0 { sin6_scope_id: address.scope_id() },
            };
            // SAFETY: a storage has room for any address.
            unsafe { at.cast::<SOCKADDR_IN6>().write(it) };
            V6
        }
    };
    (storage, length)
}

/// Writes an address where a program wants it; whether it fits.
///
/// # Safety
/// `length` is null or can be read and written, and as many bytes as it says can be written at `to`.
pub(super) unsafe fn write(address: SocketAddr, to: *mut SOCKADDR, length: *mut i32) -> bool {
    if to.is_null() || length.is_null() {
        return true;
    }
    let (storage, needed) = stored(address);
    // SAFETY: the caller says so.
    if unsafe { *length } < needed {
        return false;
    }
    // SAFETY: there is room, as was just seen, and the two do not overlap: one is ours.
    unsafe {
        std::ptr::copy_nonoverlapping(from_ref(&storage).cast::<u8>(), to.cast::<u8>(), needed as usize);
        *length = needed;
    }
    true
}
