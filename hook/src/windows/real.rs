//! What Windows itself does with sockets, and with the pipe.

use std::ffi::c_void;
use std::fs::File;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::windows::io::AsRawHandle;
use std::ptr::{from_mut, from_ref, null_mut};

use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, INVALID_SOCKET, IPPROTO_TCP, LPFN_CONNECTEX, SD_BOTH, SIO_GET_EXTENSION_FUNCTION_POINTER,
    SO_PROTOCOL_INFOW, SO_TYPE, SOCK_STREAM, SOCKADDR, SOCKADDR_STORAGE, SOCKET, SOL_SOCKET, WSA_IO_PENDING,
    WSAEOPNOTSUPP, WSAGetLastError, WSAID_CONNECTEX, WSAPROTOCOL_INFOW, getsockopt, shutdown,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::ResetEvent;

use super::address::{read, stored};
use super::afd::Within;
use super::extensions::WSAIOCTL;
use super::winsock::{ACCEPT, BIND, CLOSESOCKET, CONNECT, GETPEERNAME, GETSOCKNAME, LISTEN, SOCKET as OPEN};

/// How a connection is begun that the program does not wait for.
#[derive(Clone, Copy)]
pub(super) enum Issue {
    /// On a socket whose calls do not wait.
    NonBlocking,
    /// With a completion.
    Overlapped(Overlapped),
}

/// The arguments of ConnectEx, which are the program's until it is told of the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Overlapped {
    pub(super) data: usize,
    pub(super) length: u32,
    pub(super) at: usize,
}

impl Overlapped {
    /// Says to whoever looks that it is under way; returns what stood there.
    ///
    /// # Safety
    /// `at` is the program's OVERLAPPED, and nothing else is under way with it.
    pub(super) unsafe fn begin(&self) -> usize {
        /// As the kernel writes it.
        const STATUS_PENDING: usize = 0x103;
        let overlapped = self.at as *mut OVERLAPPED;
        // SAFETY: the caller says so. The lowest bit of an event says that no port is told, and is none of the handle's.
        unsafe {
            ResetEvent(((*overlapped).hEvent as usize & !1) as *mut c_void);
            std::mem::replace(&mut (*overlapped).Internal, STATUS_PENDING)
        }
    }

    /// It was not begun after all.
    ///
    /// # Safety
    /// As of [`Overlapped::begin`], whose answer `was` is.
    pub(super) unsafe fn restore(&self, was: usize) {
        // SAFETY: the caller says so.
        unsafe { (*(self.at as *mut OVERLAPPED)).Internal = was };
    }
}

/// The loopback address of a family.
pub(super) fn loopback(is_v6: bool) -> IpAddr {
    if is_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

fn outcome(status: i32) -> Result<(), i32> {
    if status == 0 { Ok(()) } else { Err(error()) }
}

fn error() -> i32 {
    // SAFETY: it takes nothing.
    unsafe { WSAGetLastError() }
}

/// Calls a function that takes an address.
fn with(address: SocketAddr, call: impl FnOnce(*const SOCKADDR, i32) -> i32) -> Result<(), i32> {
    let (storage, length) = stored(address);
    let _within = Within::ours();
    outcome(call(from_ref(&storage).cast(), length))
}

/// Calls a function that gives an address.
fn given(call: impl FnOnce(*mut SOCKADDR, *mut i32) -> i32) -> Result<SocketAddr, i32> {
    let (mut storage, mut length) = (SOCKADDR_STORAGE::default(), size_of::<SOCKADDR_STORAGE>() as i32);
    outcome(call(from_mut(&mut storage).cast(), &mut length))?;
    // SAFETY: the storage is longer than any address of the two families, whatever the length says.
    unsafe { read(from_ref(&storage).cast(), length.min(size_of::<SOCKADDR_STORAGE>() as i32)) }
}

/// connect().
pub(super) fn connect(socket: SOCKET, to: SocketAddr) -> Result<(), i32> {
    // SAFETY: the address is ours, and any number may be no socket.
    with(to, |at, length| unsafe { CONNECT.get()(socket, at, length) })
}

/// bind().
pub(super) fn bind(socket: SOCKET, local: SocketAddr) -> Result<(), i32> {
    // SAFETY: as in `connect`.
    with(local, |at, length| unsafe { BIND.get()(socket, at, length) })
}

/// listen().
pub(super) fn listen(socket: SOCKET, backlog: i32) -> Result<(), i32> {
    // SAFETY: any number may be no socket.
    outcome(unsafe { LISTEN.get()(socket, backlog) })
}

/// accept().
pub(super) fn accept(socket: SOCKET) -> Result<(SOCKET, SocketAddr), i32> {
    let mut accepted = INVALID_SOCKET;
    let source = given(|at, length| {
        // SAFETY: there is as much room as the length says.
        accepted = unsafe { ACCEPT.get()(socket, at, length) };
        if accepted == INVALID_SOCKET { -1 } else { 0 }
    })?;
    Ok((accepted, source))
}

/// closesocket().
pub(super) fn close(socket: SOCKET) {
    // SAFETY: whoever calls has the socket.
    unsafe { CLOSESOCKET.get()(socket) };
}

/// Lets nothing through any more; the program closes it.
pub(super) fn shut(socket: SOCKET) {
    // SAFETY: any number may be no socket.
    unsafe { shutdown(socket, SD_BOTH) };
}

/// getsockname().
pub(super) fn local(socket: SOCKET) -> Result<SocketAddr, i32> {
    // SAFETY: there is as much room as the length says.
    given(|at, length| unsafe { GETSOCKNAME.get()(socket, at, length) })
}

/// getpeername().
pub(super) fn remote(socket: SOCKET) -> Result<SocketAddr, i32> {
    // SAFETY: there is as much room as the length says.
    given(|at, length| unsafe { GETPEERNAME.get()(socket, at, length) })
}

/// Whether it is a socket of a stream.
pub(super) fn is_stream(socket: SOCKET) -> bool {
    let (mut kind, mut length) = (0_i32, size_of::<i32>() as i32);
    // SAFETY: there is room for a number.
    let status = unsafe { getsockopt(socket, SOL_SOCKET, SO_TYPE, from_mut(&mut kind).cast(), &mut length) };
    status == 0 && kind == SOCK_STREAM
}

/// Whether it is a socket of IPv6, which may lead to addresses of IPv4 as well.
pub(super) fn is_v6(socket: SOCKET) -> Result<bool, i32> {
    let mut about = WSAPROTOCOL_INFOW::default();
    let mut length = size_of::<WSAPROTOCOL_INFOW>() as i32;
    // SAFETY: there is as much room as the length says.
    let status = unsafe { getsockopt(socket, SOL_SOCKET, SO_PROTOCOL_INFOW, from_mut(&mut about).cast(), &mut length) };
    outcome(status).map(|()| about.iAddressFamily == i32::from(AF_INET6))
}

/// ConnectEx(), which is not waited for.
///
/// # Safety
/// What `overlapped` names is the program's still.
pub(super) unsafe fn connect_ex(socket: SOCKET, to: SocketAddr, overlapped: &Overlapped) -> Result<(), i32> {
    let Some(connect) = extension(socket)? else { return Err(WSAEOPNOTSUPP) };
    let mut sent = 0;
    let Overlapped { data, length, at } = *overlapped;
    // SAFETY: the caller says so.
    let mut begun = |to, size| unsafe {
        connect(socket, to, size, data as *const c_void, length, &mut sent, at as *mut OVERLAPPED)
    };
    let begun = with(to, |to, size| if begun(to, size) == 0 { -1 } else { 0 });
    if begun == Err(WSA_IO_PENDING) { Ok(()) } else { begun }
}

/// The provider's own ConnectEx: each has another.
fn extension(socket: SOCKET) -> Result<LPFN_CONNECTEX, i32> {
    let (which, mut found, mut length) = (WSAID_CONNECTEX, None, 0);
    let (size, room) = (size_of_val(&which) as u32, size_of::<LPFN_CONNECTEX>() as u32);
    let (from, to) = (from_ref(&which).cast::<c_void>(), from_mut::<LPFN_CONNECTEX>(&mut found).cast::<c_void>());
    let code = SIO_GET_EXTENSION_FUNCTION_POINTER;
    // SAFETY: the sizes are those of what is there, and what comes is such a pointer.
    outcome(unsafe { WSAIOCTL.get()(socket, code, from, size, to, room, &mut length, null_mut(), None) })?;
    Ok(found)
}

/// A port of loopback that refuses everybody: what is connected to it fails as the kernel has it fail.
pub(super) fn refusing(is_v6: bool) -> Result<SocketAddr, i32> {
    let family = if is_v6 { AF_INET6 } else { AF_INET };
    let _within = Within::ours();
    // SAFETY: it takes numbers.
    let socket = unsafe { OPEN.get()(i32::from(family), SOCK_STREAM, IPPROTO_TCP) };
    if socket == INVALID_SOCKET {
        return Err(error());
    }
    // Never closed: the port is to be nobody else's.
    bind(socket, SocketAddr::new(loopback(is_v6), 0)).and_then(|()| local(socket))
}

/// Whether somebody has the other end of a pipe.
pub(super) fn is_joined(pipe: &File) -> bool {
    // SAFETY: the handle is open, and nothing is asked for but success.
    unsafe { PeekNamedPipe(pipe.as_raw_handle(), null_mut(), 0, null_mut(), null_mut(), null_mut()) != 0 }
}
