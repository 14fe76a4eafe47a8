//! Functions that a program of Winsock asks for by number, and those that are reached so.

use std::ffi::c_void;
use std::net::SocketAddr;

use windows_sys::Win32::Foundation::FALSE;
use windows_sys::Win32::Networking::WinSock::{
    FIONBIO, GetAcceptExSockaddrs, LPWSAOVERLAPPED_COMPLETION_ROUTINE, SIO_GET_EXTENSION_FUNCTION_POINTER,
    SIO_GET_MULTIPLE_EXTENSION_FUNCTION_POINTER, SOCKADDR, SOCKET as Socket, WSA_IO_PENDING, WSAEFAULT, WSAEOPNOTSUPP,
    WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAID_WSASENDMSG, WSAMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{BOOL, GUID};

use super::afd::{Within, is_within};
use super::patch::{Original, replaced};
use super::quiet::quietly;
use super::real::Overlapped;
use super::winsock::failed;
use super::{address, real, sockets};
use crate::outcome::Outcome;

/// Only a library that is imported from is there when the functions are replaced.
#[used]
static MSWSOCK: Names = GetAcceptExSockaddrs;

type Ioctl = unsafe extern "system" fn(
    Socket,
    u32,
    *const c_void,
    u32,
    *mut c_void,
    u32,
    *mut u32,
    *mut OVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32;
type SendMsg = unsafe extern "system" fn(
    Socket,
    *const WSAMSG,
    u32,
    *mut u32,
    *mut OVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32;
type Names =
    unsafe extern "system" fn(*const c_void, u32, u32, u32, *mut *mut SOCKADDR, *mut i32, *mut *mut SOCKADDR, *mut i32);

replaced! {
    c"ws2_32.dll" c"WSAIoctl" WSAIOCTL = wsa_ioctl: Ioctl;
    c"ws2_32.dll" c"WSASendMsg" WSASENDMSG = wsa_send_msg: SendMsg;
    c"mswsock.dll" c"GetAcceptExSockaddrs" ACCEPTED = accepted_names: Names;
}

/// What whoever has ours from [`extended`] would have: Windows' own does, and comes by it.
static PROVIDERS: Original<Names> = Original::new();

unsafe extern "system" fn wsa_ioctl(
    socket: Socket,
    code: u32,
    given: *const c_void,
    length: u32,
    to: *mut c_void,
    room: u32,
    written: *mut u32,
    overlapped: *mut OVERLAPPED,
    completion: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    if code == SIO_GET_MULTIPLE_EXTENSION_FUNCTION_POINTER {
        return failed(WSAEOPNOTSUPP);
    }
    // SAFETY: as the program gave them.
    let status = unsafe { WSAIOCTL.get()(socket, code, given, length, to, room, written, overlapped, completion) };
    // Windows' own functions ask for each other so.
    if status != 0 || is_within() {
        return status;
    }
    if code == FIONBIO as u32 && length >= 4 {
        // SAFETY: the real function has read it.
        let waits = unsafe { given.cast::<u32>().read_unaligned() } == 0;
        quietly(|| sockets::set_blocking(socket, waits));
    }
    if code == SIO_GET_EXTENSION_FUNCTION_POINTER && room as usize >= size_of::<usize>() {
        // SAFETY: the real function has read the one and written the other.
        return unsafe { extended(&given.cast::<GUID>().read_unaligned(), to.cast()) };
    }
    status
}

/// Gives ours where an extension takes or gives an address.
///
/// # Safety
/// A pointer can be written there.
unsafe fn extended(which: &GUID, to: *mut usize) -> i32 {
    let is = |known: &GUID| {
        (which.data1, which.data2, which.data3, which.data4) == (known.data1, known.data2, known.data3, known.data4)
    };
    let ours = if is(&WSAID_CONNECTEX) {
        connect_ex as *const () as usize
    } else if is(&WSAID_GETACCEPTEXSOCKADDRS) {
        // SAFETY: the provider has just said so.
        unsafe { PROVIDERS.is_at(to.read_unaligned()) };
        accepted_names as *const () as usize
    } else if is(&WSAID_WSASENDMSG) {
        wsa_send_msg as *const () as usize
    } else {
        return 0;
    };
    // SAFETY: the caller says so.
    unsafe { to.write_unaligned(ours) };
    0
}

unsafe extern "system" fn connect_ex(
    socket: Socket,
    at: *const SOCKADDR,
    size: i32,
    data: *const c_void,
    length: u32,
    _: *mut u32,
    overlapped: *mut OVERLAPPED,
) -> BOOL {
    let under_way = Overlapped { data: data as usize, length, at: overlapped as usize };
    // SAFETY: as the program gave them.
    let begun = match unsafe { address::read(at, size) } {
        Err(number) => Err(number),
        Ok(_) if overlapped.is_null() => Err(WSAEFAULT),
        // SAFETY: the program's, which has nothing else under way with it.
        Ok(to) => unsafe { begin(socket, to, &under_way) },
    };
    failed(begun.err().unwrap_or(WSA_IO_PENDING));
    FALSE
}

/// Begins a connection, or leaves what the program gave as it was.
///
/// # Safety
/// `under_way` is the program's, which has nothing else under way with it.
unsafe fn begin(socket: Socket, to: SocketAddr, under_way: &Overlapped) -> Result<(), i32> {
    // Before anything can end.
    // SAFETY: the caller says so.
    let was = unsafe { under_way.begin() };
    let outcome = sockets::connect_ex(socket, to, *under_way);
    if !matches!(outcome, Outcome::Done(())) {
        // SAFETY: as above.
        unsafe { under_way.restore(was) };
    }
    match outcome {
        Outcome::Done(()) => Ok(()),
        Outcome::Fail(number) => Err(number),
        // SAFETY: it is there until the program is told of the end.
        Outcome::Bypass(_) => unsafe { real::connect_ex(socket, to, under_way) },
    }
}

/// The real one is an extension, and another of each provider; what it could do here, WSASendTo does.
unsafe extern "system" fn wsa_send_msg(
    _: Socket,
    _: *const WSAMSG,
    _: u32,
    _: *mut u32,
    _: *mut OVERLAPPED,
    _: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    failed(WSAEOPNOTSUPP)
}

unsafe extern "system" fn accepted_names(
    taken: *const c_void,
    data: u32,
    local_room: u32,
    remote_room: u32,
    local: *mut *mut SOCKADDR,
    local_length: *mut i32,
    remote: *mut *mut SOCKADDR,
    remote_length: *mut i32,
) {
    if is_within() {
        let real = PROVIDERS.get();
        // SAFETY: as one of ours was given them.
        return unsafe { real(taken, data, local_room, remote_room, local, local_length, remote, remote_length) };
    }
    // SAFETY: as the program gave them.
    unsafe {
        let _within = Within::ours();
        ACCEPTED.get()(taken, data, local_room, remote_room, local, local_length, remote, remote_length);
        if remote.is_null() || remote_length.is_null() {
            return;
        }
        // What the kernel wrote into the program's own room, with as much of it as any address needs.
        let source = address::read(*remote, *remote_length);
        let peer = quietly(|| source.ok().and_then(sockets::peer_behind));
        if let Some(peer) = peer {
            address::write(peer, *remote, remote_length);
        }
    }
}
