//! Winsock's functions on sockets.
//!
//! Each reads what it is given, has `sockets` decide, and turns that into what Windows returns.

use std::ffi::c_void;
use std::mem::offset_of;
use std::net::SocketAddr;

use windows_sys::Win32::Foundation::{FALSE, HWND};
use windows_sys::Win32::Networking::WinSock::{
    AF_INET, AF_INET6, AF_UNIX, FIONBIO, INVALID_SOCKET, LPCONDITIONPROC, LPWSAOVERLAPPED_COMPLETION_ROUTINE, QOS,
    SO_UPDATE_ACCEPT_CONTEXT, SOCK_DGRAM, SOCK_STREAM, SOCKADDR, SOCKET as Socket, SOCKET_ERROR, SOL_SOCKET, WSABUF,
    WSAEAFNOSUPPORT, WSAEFAULT, WSAEOPNOTSUPP, WSAEPROTONOSUPPORT, WSAEVENT, WSAPROTOCOL_INFOW, WSASetLastError,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{BOOL, PCSTR};

use super::address;
use super::afd::{Within, is_within};
use super::patch::replaced;
use super::quiet::quietly;
use super::sockets;
use crate::outcome::Outcome;

type WithAddress = unsafe extern "system" fn(Socket, *const SOCKADDR, i32) -> i32;
type WsaConnect =
    unsafe extern "system" fn(Socket, *const SOCKADDR, i32, *const WSABUF, *mut WSABUF, *const QOS, *const QOS) -> i32;
type Join = unsafe extern "system" fn(
    Socket,
    *const SOCKADDR,
    i32,
    *const WSABUF,
    *mut WSABUF,
    *const QOS,
    *const QOS,
    u32,
) -> Socket;
type Given = unsafe extern "system" fn(Socket, *mut SOCKADDR, *mut i32) -> i32;
type Accept = unsafe extern "system" fn(Socket, *mut SOCKADDR, *mut i32) -> Socket;
type WsaAccept = unsafe extern "system" fn(Socket, *mut SOCKADDR, *mut i32, LPCONDITIONPROC, usize) -> Socket;
type SendTo = unsafe extern "system" fn(Socket, PCSTR, i32, i32, *const SOCKADDR, i32) -> i32;
type WsaSendTo = unsafe extern "system" fn(
    Socket,
    *const WSABUF,
    u32,
    *mut u32,
    u32,
    *const SOCKADDR,
    i32,
    *mut OVERLAPPED,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32;
/// Three functions that connect to names and lists have as many arguments, of which none is looked at.
type ByName = unsafe extern "system" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize) -> BOOL;
type ByList = unsafe extern "system" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> BOOL;

replaced! {
    c"ws2_32.dll" c"socket" SOCKET = socket: unsafe extern "system" fn(i32, i32, i32) -> Socket;
    c"ws2_32.dll" c"WSASocketW" WSASOCKETW = wsa_socket_w: unsafe extern "system" fn(i32, i32, i32, *const WSAPROTOCOL_INFOW, u32, u32) -> Socket;
    c"ws2_32.dll" c"WSASocketA" WSASOCKETA = wsa_socket_a: unsafe extern "system" fn(i32, i32, i32, *const c_void, u32, u32) -> Socket;
    c"ws2_32.dll" c"connect" CONNECT = connect: WithAddress;
    c"ws2_32.dll" c"WSAConnect" WSACONNECT = wsa_connect: WsaConnect;
    c"ws2_32.dll" c"WSAJoinLeaf" WSAJOINLEAF = wsa_join_leaf: Join;
    c"ws2_32.dll" c"WSAConnectByNameA" BYNAMEA = connect_by_name_a: ByName;
    c"ws2_32.dll" c"WSAConnectByNameW" BYNAMEW = connect_by_name_w: ByName;
    c"ws2_32.dll" c"WSAConnectByList" BYLIST = connect_by_list: ByList;
    c"ws2_32.dll" c"bind" BIND = bind: WithAddress;
    c"ws2_32.dll" c"listen" LISTEN = listen: unsafe extern "system" fn(Socket, i32) -> i32;
    c"ws2_32.dll" c"accept" ACCEPT = accept: Accept;
    c"ws2_32.dll" c"WSAAccept" WSAACCEPT = wsa_accept: WsaAccept;
    c"ws2_32.dll" c"getpeername" GETPEERNAME = getpeername: Given;
    c"ws2_32.dll" c"getsockname" GETSOCKNAME = getsockname: Given;
    c"ws2_32.dll" c"closesocket" CLOSESOCKET = closesocket: unsafe extern "system" fn(Socket) -> i32;
    c"ws2_32.dll" c"ioctlsocket" IOCTLSOCKET = ioctlsocket: unsafe extern "system" fn(Socket, i32, *mut u32) -> i32;
    c"ws2_32.dll" c"WSAEventSelect" WSAEVENTSELECT = wsa_event_select: unsafe extern "system" fn(Socket, WSAEVENT, i32) -> i32;
    c"ws2_32.dll" c"WSAAsyncSelect" WSAASYNCSELECT = wsa_async_select: unsafe extern "system" fn(Socket, HWND, u32, i32) -> i32;
    c"ws2_32.dll" c"setsockopt" SETSOCKOPT = setsockopt: unsafe extern "system" fn(Socket, i32, i32, PCSTR, i32) -> i32;
    c"ws2_32.dll" c"sendto" SENDTO = sendto: SendTo;
    c"ws2_32.dll" c"WSASendTo" WSASENDTO = wsa_send_to: WsaSendTo;
}

/// Fails as Winsock does.
pub(super) fn failed(number: i32) -> i32 {
    // SAFETY: it takes a number.
    unsafe { WSASetLastError(number) };
    SOCKET_ERROR
}

/// What the program gets: success, its error, or whatever the real function does.
fn status(outcome: Outcome<()>, real: impl FnOnce() -> i32) -> i32 {
    match outcome {
        Outcome::Done(()) => 0,
        Outcome::Fail(number) => failed(number),
        Outcome::Bypass(_) => {
            let _within = Within::ours();
            real()
        }
    }
}

/// The same for a call on an address.
///
/// # Safety
/// As of [`address::read`].
unsafe fn on_address(
    at: *const SOCKADDR,
    length: i32,
    decide: impl FnOnce(SocketAddr) -> Outcome<()>,
    real: impl FnOnce() -> i32,
) -> i32 {
    if is_within() {
        return real();
    }
    // SAFETY: the caller says so.
    match unsafe { address::read(at, length) } {
        Ok(address) => status(quietly(|| decide(address)), real),
        // Files of this computer.
        // SAFETY: there are two bytes, or it would be WSAEFAULT.
        Err(WSAEAFNOSUPPORT) if unsafe { at.cast::<u16>().read_unaligned() } == AF_UNIX => {
            let _within = Within::ours();
            real()
        }
        Err(number) => failed(number),
    }
}

/// Whether a socket of that kind can be carried, or stays on this computer; no family says that the kind decides.
fn may_open(family: i32, kind: i32) -> Result<(), i32> {
    let families = [0, AF_INET, AF_INET6, AF_UNIX].map(i32::from);
    match (families.contains(&family), [0, SOCK_STREAM, SOCK_DGRAM].contains(&kind)) {
        (true, true) => Ok(()),
        (false, _) => Err(WSAEAFNOSUPPORT),
        (true, false) => Err(WSAEPROTONOSUPPORT),
    }
}

fn open(family: i32, kind: i32, real: impl FnOnce() -> Socket) -> Socket {
    // Some functions of Windows come by others of it.
    if is_within() {
        return real();
    }
    if let Err(number) = may_open(family, kind) {
        failed(number);
        return INVALID_SOCKET;
    }
    let socket = real();
    quietly(|| sockets::opened(socket));
    socket
}

unsafe extern "system" fn socket(family: i32, kind: i32, protocol: i32) -> Socket {
    // SAFETY: numbers.
    open(family, kind, || unsafe { SOCKET.get()(family, kind, protocol) })
}

/// Where a protocol is described, it is the one that is meant where the numbers say so.
const FROM_PROTOCOL_INFO: i32 = -1;

/// Family and kind that are meant; both forms of a description have them in one place.
///
/// # Safety
/// `about` is null, or a description.
unsafe fn meant(family: i32, kind: i32, about: *const c_void) -> (i32, i32) {
    let described = |number, at| {
        if number != FROM_PROTOCOL_INFO || about.is_null() {
            return number;
        }
        // SAFETY: the caller says so; programs need not align it.
        unsafe { about.wrapping_byte_add(at).cast::<i32>().read_unaligned() }
    };
    (
        described(family, offset_of!(WSAPROTOCOL_INFOW, iAddressFamily)),
        described(kind, offset_of!(WSAPROTOCOL_INFOW, iSocketType)),
    )
}

unsafe extern "system" fn wsa_socket_w(
    family: i32,
    kind: i32,
    protocol: i32,
    about: *const WSAPROTOCOL_INFOW,
    group: u32,
    flags: u32,
) -> Socket {
    // SAFETY: null, or a description.
    let (meant_family, meant_kind) = unsafe { meant(family, kind, about.cast()) };
    // SAFETY: as the program gave them.
    open(meant_family, meant_kind, || unsafe { WSASOCKETW.get()(family, kind, protocol, about, group, flags) })
}

unsafe extern "system" fn wsa_socket_a(
    family: i32,
    kind: i32,
    protocol: i32,
    about: *const c_void,
    group: u32,
    flags: u32,
) -> Socket {
    // SAFETY: null, or a description.
    let (meant_family, meant_kind) = unsafe { meant(family, kind, about) };
    // SAFETY: as the program gave them.
    open(meant_family, meant_kind, || unsafe { WSASOCKETA.get()(family, kind, protocol, about, group, flags) })
}

unsafe extern "system" fn connect(socket: Socket, at: *const SOCKADDR, length: i32) -> i32 {
    // SAFETY: as the program gave them.
    let real = || unsafe { CONNECT.get()(socket, at, length) };
    // SAFETY: a program that gives less than it says ends here as it would there.
    unsafe { on_address(at, length, |to| sockets::connect(socket, to), real) }
}

unsafe extern "system" fn wsa_connect(
    socket: Socket,
    at: *const SOCKADDR,
    length: i32,
    _: *const WSABUF,
    _: *mut WSABUF,
    _: *const QOS,
    _: *const QOS,
) -> i32 {
    // SAFETY: what else is given no protocol of streams or datagrams takes.
    unsafe { connect(socket, at, length) }
}

unsafe extern "system" fn wsa_join_leaf(
    _: Socket,
    _: *const SOCKADDR,
    _: i32,
    _: *const WSABUF,
    _: *mut WSABUF,
    _: *const QOS,
    _: *const QOS,
    _: u32,
) -> Socket {
    failed(WSAEOPNOTSUPP);
    INVALID_SOCKET
}

unsafe extern "system" fn connect_by_name_a(
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) -> BOOL {
    failed(WSAEOPNOTSUPP);
    FALSE
}

unsafe extern "system" fn connect_by_name_w(
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) -> BOOL {
    failed(WSAEOPNOTSUPP);
    FALSE
}

unsafe extern "system" fn connect_by_list(
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) -> BOOL {
    failed(WSAEOPNOTSUPP);
    FALSE
}

unsafe extern "system" fn bind(socket: Socket, at: *const SOCKADDR, length: i32) -> i32 {
    // SAFETY: as the program gave them.
    let real = || unsafe { BIND.get()(socket, at, length) };
    // SAFETY: as in `connect`.
    unsafe { on_address(at, length, |local| sockets::bind(socket, local), real) }
}

unsafe extern "system" fn listen(socket: Socket, backlog: i32) -> i32 {
    // SAFETY: numbers.
    status(quietly(|| sockets::listen(socket, backlog)), || unsafe { LISTEN.get()(socket, backlog) })
}

unsafe extern "system" fn accept(socket: Socket, to: *mut SOCKADDR, length: *mut i32) -> Socket {
    match quietly(|| sockets::accept(socket)) {
        Outcome::Done((accepted, peer)) => {
            // SAFETY: a program that has less room than it says ends here as it would there.
            unsafe { address::write(peer, to, length) };
            accepted
        }
        Outcome::Fail(number) => {
            failed(number);
            INVALID_SOCKET
        }
        // SAFETY: as the program gave them.
        Outcome::Bypass(_) => open(0, 0, || unsafe { ACCEPT.get()(socket, to, length) }),
    }
}

unsafe extern "system" fn wsa_accept(
    socket: Socket,
    to: *mut SOCKADDR,
    length: *mut i32,
    condition: LPCONDITIONPROC,
    _: usize,
) -> Socket {
    if condition.is_some() {
        failed(WSAEOPNOTSUPP);
        return INVALID_SOCKET;
    }
    // SAFETY: without a condition it is the same.
    unsafe { accept(socket, to, length) }
}

/// Gives an address to the program.
///
/// # Safety
/// As of [`address::write`].
unsafe fn give(outcome: Outcome<SocketAddr>, to: *mut SOCKADDR, length: *mut i32, real: impl FnOnce() -> i32) -> i32 {
    match outcome {
        Outcome::Bypass(_) => real(),
        Outcome::Fail(number) => failed(number),
        // SAFETY: the caller says so.
        Outcome::Done(address) if unsafe { address::write(address, to, length) } => 0,
        Outcome::Done(_) => failed(WSAEFAULT),
    }
}

unsafe extern "system" fn getpeername(socket: Socket, to: *mut SOCKADDR, length: *mut i32) -> i32 {
    // SAFETY: as the program gave them.
    unsafe { give(quietly(|| sockets::remote(socket)), to, length, || GETPEERNAME.get()(socket, to, length)) }
}

unsafe extern "system" fn getsockname(socket: Socket, to: *mut SOCKADDR, length: *mut i32) -> i32 {
    // SAFETY: as the program gave them.
    unsafe { give(quietly(|| sockets::local(socket)), to, length, || GETSOCKNAME.get()(socket, to, length)) }
}

unsafe extern "system" fn closesocket(socket: Socket) -> i32 {
    quietly(|| sockets::closing(socket));
    // SAFETY: a number.
    unsafe { CLOSESOCKET.get()(socket) }
}

unsafe extern "system" fn ioctlsocket(socket: Socket, code: i32, argument: *mut u32) -> i32 {
    // SAFETY: as the program gave them.
    let status = unsafe { IOCTLSOCKET.get()(socket, code, argument) };
    if status == 0 && code == FIONBIO {
        // SAFETY: the real function has read it.
        let waits = unsafe { argument.read_unaligned() } == 0;
        quietly(|| sockets::set_blocking(socket, waits));
    }
    status
}

unsafe extern "system" fn wsa_event_select(socket: Socket, event: WSAEVENT, events: i32) -> i32 {
    // SAFETY: as the program gave them.
    let status = unsafe { WSAEVENTSELECT.get()(socket, event, events) };
    // It stays so when no events are asked for any more.
    if status == 0 && events != 0 {
        quietly(|| sockets::set_blocking(socket, false));
    }
    status
}

unsafe extern "system" fn wsa_async_select(socket: Socket, window: HWND, message: u32, events: i32) -> i32 {
    // SAFETY: as the program gave them.
    let status = unsafe { WSAASYNCSELECT.get()(socket, window, message, events) };
    if status == 0 && events != 0 {
        quietly(|| sockets::set_blocking(socket, false));
    }
    status
}

unsafe extern "system" fn setsockopt(socket: Socket, level: i32, option: i32, value: PCSTR, length: i32) -> i32 {
    // SAFETY: as the program gave them.
    let status = unsafe { SETSOCKOPT.get()(socket, level, option, value, length) };
    if status == 0
        && level == SOL_SOCKET
        && option == SO_UPDATE_ACCEPT_CONTEXT
        && length as usize >= size_of::<Socket>()
    {
        // SAFETY: the real function has read it.
        let listener = unsafe { value.cast::<Socket>().read_unaligned() };
        quietly(|| sockets::accepted(socket, listener));
    }
    status
}

unsafe extern "system" fn sendto(
    socket: Socket,
    data: PCSTR,
    size: i32,
    flags: i32,
    at: *const SOCKADDR,
    length: i32,
) -> i32 {
    // SAFETY: as the program gave them.
    let real = || unsafe { SENDTO.get()(socket, data, size, flags, at, length) };
    if at.is_null() {
        return real();
    }
    // SAFETY: as in `connect`.
    unsafe { on_address(at, length, |to| sockets::send_to(socket, to), real) }
}

unsafe extern "system" fn wsa_send_to(
    socket: Socket,
    data: *const WSABUF,
    count: u32,
    sent: *mut u32,
    flags: u32,
    at: *const SOCKADDR,
    length: i32,
    overlapped: *mut OVERLAPPED,
    completion: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // SAFETY: as the program gave them.
    let real = || unsafe { WSASENDTO.get()(socket, data, count, sent, flags, at, length, overlapped, completion) };
    if at.is_null() {
        return real();
    }
    // SAFETY: as in `connect`.
    unsafe { on_address(at, length, |to| sockets::send_to(socket, to), real) }
}
