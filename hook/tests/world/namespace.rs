//! Network namespaces for tests: made, configured and entered by system calls, without tools.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_char, c_int, c_ulong, sockaddr_in};

use super::{ADDRESS, IPV4};

/// An address that only the phantom namespace has.
const PHANTOM_ONLY: Ipv6Addr = Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 0x99);

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

#[repr(C)]
struct Address6Request {
    address: [u8; 16],
    prefix: u32,
    index: c_int,
}

/// Puts this thread into a new network namespace with the addresses that names lead to; returns the namespace.
pub(crate) fn create(phantom: bool) -> OwnedFd {
    // SAFETY: a flag only; it concerns this thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("namespaces take root, or `unshare -Ur cargo test`");
    let (v4, v6) = (socket(libc::AF_INET), socket(libc::AF_INET6));
    set_up(&v4);
    add_v4(&v4);
    add_v6(&v6, ADDRESS);
    if phantom {
        add_v6(&v6, PHANTOM_ONLY.octets());
    }
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

/// Enters a namespace, and puts files over others. For a child between fork and exec.
pub(crate) fn enter(namespace: RawFd, files: &[(CString, CString)]) -> io::Result<()> {
    let nothing: *const c_char = std::ptr::null();
    // SAFETY: a descriptor and flags.
    check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })?;
    // SAFETY: a flag only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(nothing, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    files.iter().try_for_each(|(from, to)| mount(from.as_ptr(), to, libc::MS_BIND))
}

fn mount(from: *const c_char, to: &CStr, flags: c_ulong) -> io::Result<()> {
    // SAFETY: NULL or C strings.
    check(unsafe { libc::mount(from, to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) })
}

pub(crate) fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(family: c_int) -> OwnedFd {
    // SAFETY: integers only; the descriptor is new.
    unsafe {
        let descriptor = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(descriptor).unwrap();
        OwnedFd::from_raw_fd(descriptor)
    }
}

fn request(name: &str) -> InterfaceRequest {
    let mut request = InterfaceRequest { name: [0; 16], value: [0; 24] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request
}

fn set_up(socket: &OwnedFd) {
    let mut up = request("lo");
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    up.value[..2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request has the kernel's form.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut up) }).unwrap();
}

fn add_v4(socket: &OwnedFd) {
    let mut add = request("lo:1");
    let address = sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(IPV4) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address fits the request's value, and the request has the kernel's form.
    check(unsafe {
        add.value.as_mut_ptr().cast::<sockaddr_in>().write_unaligned(address);
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &raw mut add)
    })
    .unwrap();
}

fn add_v6(socket: &OwnedFd, address: [u8; 16]) {
    // lo is the first interface of every namespace.
    let mut add = Address6Request { address, prefix: 128, index: 1 };
    // SAFETY: the request has the kernel's form.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &raw mut add) }).unwrap();
}
