//! fopen of the one file in /proc/net by which programs list interfaces: it shows the network of the process, where the program
//! has sockets of another.

use std::ffi::CStr;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::IntoRawFd;

use libc::{FILE, c_char, c_int};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};

use super::{glue, netlink};
use crate::outcome::{Outcome, Why};

/// IPv6 addresses, one a line; Java's source of them.
const ADDRESSES: [&[u8]; 2] = [b"/proc/net/if_inet6", b"/proc/self/net/if_inet6"];

redhook::hook! {
    unsafe fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE => phantom_fopen {
        // SAFETY: the caller gives two C strings.
        glue::conclude(std::ptr::null_mut(), || unsafe { open(path) }, || unsafe { redhook::real!(fopen)(path, mode) })
    }
}

redhook::hook! {
    unsafe fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE => phantom_fopen64 {
        // SAFETY: as above.
        glue::conclude(std::ptr::null_mut(), || unsafe { open(path) }, || unsafe { redhook::real!(fopen64)(path, mode) })
    }
}

/// Finds the real functions while nobody forks.
pub(super) fn prepare() {
    let _ = (redhook::real!(fopen), redhook::real!(fopen64));
}

/// # Safety
/// `path` is NULL or a C string.
unsafe fn open(path: *const c_char) -> Outcome<*mut FILE> {
    // SAFETY: as the caller says.
    if path.is_null() || !ADDRESSES.contains(&unsafe { CStr::from_ptr(path) }.to_bytes()) {
        return Outcome::Bypass(Why::Unrelated);
    }
    match addresses().and_then(|text| file(&text)) {
        Ok(file) => Outcome::Done(file),
        Err(error) => Outcome::Fail(error),
    }
}

/// As the kernel writes it: address, and in hexadecimal number of the interface, prefix, scope, flags; name.
fn addresses() -> Result<String, c_int> {
    /// IFA_F_PERMANENT: there is no other kind here.
    const PERMANENT: u32 = 0x80;
    let links = netlink::links()?;
    let mut text = String::new();
    for address in netlink::addresses()? {
        let (IpAddr::V6(v6), Some(link)) = (address.local, links.iter().find(|link| link.index == address.index))
        else {
            continue;
        };
        let scope = match v6 {
            _ if v6.is_loopback() => 0x10,
            _ if v6.is_unicast_link_local() => 0x20,
            _ => 0,
        };
        let (bits, name) = (v6.to_bits(), &link.name);
        text +=
            &format!("{bits:032x} {:02x} {:02x} {scope:02x} {PERMANENT:02x} {name:>8}\n", link.index, address.prefix);
    }
    Ok(text)
}

fn file(text: &str) -> Result<*mut FILE, c_int> {
    let memory = memfd_create("if_inet6", MemfdFlags::CLOEXEC).map_err(|error| error.raw_os_error())?;
    let mut file = std::fs::File::from(memory);
    file.write_all(text.as_bytes()).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    seek(&file, SeekFrom::Start(0)).map_err(|error| error.raw_os_error())?;
    // SAFETY: the descriptor is open and nobody else's; the mode is a C string.
    let stream = unsafe { libc::fdopen(file.into_raw_fd(), c"r".as_ptr()) };
    if stream.is_null() { Err(libc::ENOMEM) } else { Ok(stream) }
}
