//! Emulated sockets: calls that a local socket cannot answer as TCP would are answered by the daemon.
//!
//! An emulated socket is known by its name in the abstract name space, which the kernel keeps: through dup, fork, exec and
//! SCM_RIGHTS, without a table here. Reading, writing and waiting are the kernel's own and cost nothing.

mod accept;
mod calls;
mod interfaces;
mod options;
mod receive;
mod send;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, c_long, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};
use phantom_ipc::hook::{Call, NAME, SocketName};

pub(super) use receive::reading;

use super::daemon::{self, Got};
use super::raw;
use crate::outcome::{Outcome, Why};

/// Bytes of sockaddr_in6 that old programs give: without the scope.
const SHORT_V6: usize = 24;

/// Finds the real functions, before anyone forks.
pub(super) fn prepare() {
    accept::prepare();
    calls::prepare();
    interfaces::prepare();
    options::prepare();
    receive::prepare();
    send::prepare();
}

/// A system call on an emulated socket by number; none when it is another call or another socket.
///
/// # Safety
/// As for the system call.
pub(super) unsafe fn by_number(number: c_long, arguments: [c_long; 6]) -> Option<Outcome<c_long>> {
    let [fd, b, c, d, e, f] = arguments;
    // Descriptors, flags and lengths are ints: the kernel looks at the lower halves only.
    let fd = fd as c_int;
    let (address, room) = (b as *mut sockaddr, c as *mut socklen_t);
    // SAFETY: the caller vouches for the arguments.
    let outcome = unsafe {
        match number {
            libc::SYS_connect => calls::connect_to(fd, address, c as socklen_t),
            libc::SYS_bind => calls::bind_to(fd, address, c as socklen_t),
            libc::SYS_listen => calls::listen_on(fd, b as c_int),
            libc::SYS_accept => accept::take(fd, address, room, 0),
            libc::SYS_accept4 => accept::take(fd, address, room, d as c_int),
            libc::SYS_getsockname => calls::name_of(fd, address, room, &Call::Name),
            libc::SYS_getpeername => calls::name_of(fd, address, room, &Call::Peer),
            libc::SYS_shutdown => calls::end(fd, b as c_int),
            libc::SYS_getsockopt => options::value(fd, b as c_int, c as c_int, d as *mut _, e as *mut socklen_t),
            libc::SYS_setsockopt => options::set(fd, b as c_int, c as c_int, d as *const _, e as socklen_t),
            libc::SYS_sendto if e != 0 => {
                let (to, size) = (e as *const sockaddr, f as socklen_t);
                return long(send::to(fd, b as *const _, c as usize, d as c_int, to, size), |sent| sent as c_long);
            }
            _ => return None,
        }
    };
    long(outcome, c_long::from)
}

/// A hook's result as that of `syscall`; none where the kernel is to do it.
fn long<T>(outcome: Outcome<T>, value: impl FnOnce(T) -> c_long) -> Option<Outcome<c_long>> {
    match outcome {
        Outcome::Done(done) => Some(Outcome::Done(value(done))),
        Outcome::Fail(error) => Some(Outcome::Fail(error)),
        Outcome::Bypass(_) => None,
    }
}

/// What an emulated socket is; none for all others, and for what is no socket.
fn known(fd: c_int) -> Option<SocketName> {
    // SAFETY: all zeros is a value of this type.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_un>() as socklen_t;
    let (to, room) = (&raw mut address as c_long, &raw mut length as c_long);
    // SAFETY: both can be written, and the length says how much.
    raw::split(unsafe { raw::syscall(libc::SYS_getsockname, [fd.into(), to, room, 0, 0, 0]) }).ok()?;
    // Behind the family, and the zero of abstract names.
    if address.sun_family != libc::AF_UNIX as sa_family_t || length as usize != size_of::<sa_family_t>() + 1 + NAME {
        return None;
    }
    let (zero, name) = address.sun_path[..=NAME].split_first()?;
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name) {
        *to = from.to_ne_bytes()[0];
    }
    if *zero == 0 { SocketName::decode(&bytes) } else { None }
}

/// Runs `act` on an emulated socket; all others are the kernel's.
fn on<T>(fd: c_int, act: impl FnOnce(SocketName) -> Result<T, c_int>) -> Outcome<T> {
    match known(fd) {
        None => Outcome::Bypass(Why::Unrelated),
        Some(name) => act(name).map_or_else(Outcome::Fail, Outcome::Done),
    }
}

/// A call whose success is 0.
fn ask(name: SocketName, call: &Call) -> Result<c_int, c_int> {
    daemon::emulated(name.socket, call).map(|_| 0)
}

fn address_of(name: SocketName, call: &Call) -> Result<SocketAddr, c_int> {
    match daemon::emulated(name.socket, call)? {
        Got::Address(address) => Ok(address),
        _ => Err(libc::EIO),
    }
}

/// What a program's address says; none for AF_UNSPEC.
///
/// # Safety
/// `address` is NULL or points to `length` bytes.
unsafe fn read(
    fd: c_int,
    name: SocketName,
    address: *const sockaddr,
    length: socklen_t,
) -> Result<Option<SocketAddr>, c_int> {
    // The kernel looks whether it can be read; a connected local socket then refuses it, whatever it is.
    let nothing = [fd.into(), 0, 0, libc::MSG_NOSIGNAL.into(), address as c_long, length.into()];
    // SAFETY: no bytes are sent, and the kernel checks the address.
    let looked = if name.stream { unsafe { raw::syscall(libc::SYS_sendto, nothing) } } else { 0 };
    if address.is_null() || raw::split(looked) == Err(libc::EFAULT) {
        return Err(libc::EFAULT);
    }
    let length = length as usize;
    if length < size_of::<sa_family_t>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the family is there.
    let family = unsafe { address.cast::<sa_family_t>().read_unaligned() };
    if c_int::from(family) == libc::AF_UNSPEC {
        return Ok(None);
    }
    let (own, least) = if name.v6 { (libc::AF_INET6, SHORT_V6) } else { (libc::AF_INET, size_of::<sockaddr_in>()) };
    if length < least {
        return Err(libc::EINVAL);
    }
    if c_int::from(family) != own {
        return Err(libc::EAFNOSUPPORT);
    }
    if name.v6 {
        // SAFETY: all zeros is a value of this type.
        let mut v6: sockaddr_in6 = unsafe { std::mem::zeroed() };
        // SAFETY: at most as many bytes as both have.
        unsafe {
            let to: *mut u8 = (&raw mut v6).cast();
            to.copy_from_nonoverlapping(address.cast(), length.min(size_of::<sockaddr_in6>()));
        }
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        return Ok(Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, 0).into()));
    }
    // SAFETY: the length was checked; the place may be unaligned.
    let v4 = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
    let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
    Ok(Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()))
}

/// Writes an address as the kernel does: as much as there is room for, and its true length.
///
/// # Safety
/// `to` is NULL, or both can be written, `to` for `*length` bytes.
unsafe fn write(address: &SocketAddr, to: *mut sockaddr, length: *mut socklen_t) -> Result<(), c_int> {
    if to.is_null() {
        return Ok(());
    }
    if length.is_null() {
        return Err(libc::EFAULT);
    }
    // SAFETY: all zeros is a value of this type.
    let mut whole: sockaddr_storage = unsafe { std::mem::zeroed() };
    let size = fill(&mut whole, address);
    // SAFETY: as the caller says.
    let room = unsafe { length.read() };
    // Lengths are ints to the kernel.
    if room > c_int::MAX as socklen_t {
        return Err(libc::EINVAL);
    }
    // SAFETY: as the caller says, and no more than there is.
    unsafe {
        let from: *const u8 = (&raw const whole).cast();
        to.cast::<u8>().copy_from_nonoverlapping(from, size.min(room as usize));
        length.write(size as socklen_t);
    }
    Ok(())
}

fn fill(whole: &mut sockaddr_storage, address: &SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            let addr = sockaddr_in {
                sin_family: libc::AF_INET as sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage holds any address, aligned for all.
            unsafe { (&raw mut *whole).cast::<sockaddr_in>().write(addr) };
            size_of::<sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let addr = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { (&raw mut *whole).cast::<sockaddr_in6>().write(addr) };
            size_of::<sockaddr_in6>()
        }
    }
}
