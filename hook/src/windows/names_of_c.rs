//! The resolver functions of Windows, in their forms for C.

use std::ffi::{CStr, CString, c_void};
use std::mem::offset_of;
use std::net::IpAddr;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::Dns::DnsFree;
use windows_sys::Win32::Networking::WinSock::{
    ADDRINFOA, ADDRINFOEXW, ADDRINFOW, AF_INET, HOSTENT, LPLOOKUPSERVICE_COMPLETION_ROUTINE, NI_NAMEREQD,
    NI_NUMERICHOST, SOCKADDR, TIMEVAL, WSAHOST_NOT_FOUND, WSANO_DATA, WSASERVICE_NOT_FOUND, WSASetLastError,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{GUID, PCSTR, PCWSTR, PSTR, PWSTR};

use super::afd::{Within, is_within};
use super::patch::replaced;
use super::quiet::quietly;
use super::{address, resolver};

/// Only a library that is imported from is there when the functions are replaced.
#[used]
static DNSAPI: unsafe extern "system" fn(*const c_void, i32) = DnsFree;

/// What DnsQuery says of a name that is not there.
const DNS_NAME_ERROR: i32 = 9003;

type InfoA = unsafe extern "system" fn(PCSTR, PCSTR, *const ADDRINFOA, *mut *mut ADDRINFOA) -> i32;
type InfoW = unsafe extern "system" fn(PCWSTR, PCWSTR, *const ADDRINFOW, *mut *mut ADDRINFOW) -> i32;
type InfoExW = unsafe extern "system" fn(
    PCWSTR,
    PCWSTR,
    u32,
    *const GUID,
    *const ADDRINFOEXW,
    *mut *mut ADDRINFOEXW,
    *const TIMEVAL,
    *const OVERLAPPED,
    LPLOOKUPSERVICE_COMPLETION_ROUTINE,
    *mut HANDLE,
) -> i32;
type InfoExA = unsafe extern "system" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> i32;
type NameA = unsafe extern "system" fn(*const SOCKADDR, i32, PSTR, u32, PSTR, u32, i32) -> i32;
type NameW = unsafe extern "system" fn(*const SOCKADDR, i32, PWSTR, u32, PWSTR, u32, i32) -> i32;
type Query = unsafe extern "system" fn(usize, u16, u32, usize, *mut *mut c_void, usize) -> i32;
type QueryEx = unsafe extern "system" fn(*const c_void, *mut QueryResult, *mut c_void) -> i32;
type Begin = unsafe extern "system" fn(*const c_void, u32, *mut HANDLE) -> i32;
type AsyncByName = unsafe extern "system" fn(usize, u32, PCSTR, PSTR, i32) -> HANDLE;
type AsyncByAddress = unsafe extern "system" fn(usize, u32, PCSTR, i32, i32, PSTR, i32) -> HANDLE;

replaced! {
    c"ws2_32.dll" c"getaddrinfo" INFO_A = getaddrinfo: InfoA;
    c"ws2_32.dll" c"GetAddrInfoW" INFO_W = get_addr_info_w: InfoW;
    c"ws2_32.dll" c"GetAddrInfoExW" INFO_EX_W = get_addr_info_ex_w: InfoExW;
    c"ws2_32.dll" c"GetAddrInfoExA" INFO_EX_A = get_addr_info_ex_a: InfoExA;
    c"ws2_32.dll" c"gethostbyname" BY_NAME = gethostbyname: unsafe extern "system" fn(PCSTR) -> *mut HOSTENT;
    c"ws2_32.dll" c"gethostbyaddr" BY_ADDRESS = gethostbyaddr: unsafe extern "system" fn(PCSTR, i32, i32) -> *mut HOSTENT;
    c"ws2_32.dll" c"getnameinfo" NAME_A = getnameinfo: NameA;
    c"ws2_32.dll" c"GetNameInfoW" NAME_W = get_name_info_w: NameW;
    c"ws2_32.dll" c"WSAAsyncGetHostByName" ASYNC_BY_NAME = async_by_name: AsyncByName;
    c"ws2_32.dll" c"WSAAsyncGetHostByAddr" ASYNC_BY_ADDRESS = async_by_address: AsyncByAddress;
    c"ws2_32.dll" c"WSALookupServiceBeginA" BEGIN_A = begin_a: Begin;
    c"ws2_32.dll" c"WSALookupServiceBeginW" BEGIN_W = begin_w: Begin;
    c"dnsapi.dll" c"DnsQuery_A" QUERY_A = query_a: Query;
    c"dnsapi.dll" c"DnsQuery_W" QUERY_W = query_w: Query;
    c"dnsapi.dll" c"DnsQuery_UTF8" QUERY_UTF8 = query_utf8: Query;
    c"dnsapi.dll" c"DnsQueryEx" QUERY_EX = query_ex: QueryEx;
}

/// Fails as Winsock does.
fn failed(number: i32) {
    // SAFETY: it takes a number.
    unsafe { WSASetLastError(number) };
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// A name in UTF-16; none when it is no text.
///
/// # Safety
/// It ends with a zero.
unsafe fn narrow(name: PCWSTR) -> Option<String> {
    // SAFETY: the caller says so.
    let length = (0..).take_while(|at| unsafe { *name.add(*at) } != 0).count();
    // SAFETY: that many were just read.
    String::from_utf16(unsafe { std::slice::from_raw_parts(name, length) }).ok()
}

/// Asks Windows about each address, and makes one list of what it says; `next` is where an entry has the next. Entries need not be
/// aligned: wine's are not.
///
/// # Safety
/// `result` can be written, and `ask` gives lists of such entries.
unsafe fn listed<T>(
    texts: Result<Vec<String>, i32>,
    result: *mut *mut T,
    next: usize,
    ask: impl Fn(&str, *mut *mut T) -> i32,
) -> i32 {
    let texts = match texts {
        Ok(texts) => texts,
        Err(number) => {
            failed(number);
            return number;
        }
    };
    let (mut end, mut any, mut last) = (result, false, WSANO_DATA);
    for text in texts {
        let mut part = null_mut();
        last = ask(&text, &mut part);
        if last != 0 {
            continue;
        }
        any = true;
        // SAFETY: the caller says so of the first; the others are ends of lists that Windows made.
        unsafe { end.write_unaligned(part) };
        while !part.is_null() {
            end = part.wrapping_byte_add(next).cast();
            // SAFETY: it is an entry of such a list.
            part = unsafe { end.read_unaligned() };
        }
    }
    if any { 0 } else { last }
}

/// The family that is wanted, which stands there in what is; 0 for any.
///
/// # Safety
/// Null, or what is wanted.
unsafe fn family<T>(hints: *const T, at: usize) -> i32 {
    if hints.is_null() {
        return 0;
    }
    // SAFETY: the caller says so; programs need not align it.
    unsafe { hints.wrapping_byte_add(at).cast::<i32>().read_unaligned() }
}

unsafe extern "system" fn getaddrinfo(
    node: PCSTR,
    service: PCSTR,
    hints: *const ADDRINFOA,
    result: *mut *mut ADDRINFOA,
) -> i32 {
    if node.is_null() {
        // SAFETY: as the program gave them; without a name nobody is asked.
        return unsafe { INFO_A.get()(node, service, hints, result) };
    }
    // SAFETY: a text that ends with a zero, as the function wants it.
    let name = unsafe { CStr::from_ptr(node.cast()) }.to_str().ok();
    // SAFETY: null, or what is wanted.
    let family = unsafe { family(hints, offset_of!(ADDRINFOA, ai_family)) };
    let texts = quietly(|| name.map_or(Err(WSAHOST_NOT_FOUND), |name| resolver::texts(name, family)));
    let ask = |text: &str, part: *mut *mut ADDRINFOA| {
        let _within = Within::ours();
        let Ok(text) = CString::new(text) else { return WSAHOST_NOT_FOUND };
        // SAFETY: the rest is as the program gave it.
        unsafe { INFO_A.get()(text.as_ptr().cast(), service, hints, part) }
    };
    // SAFETY: as the program gave it.
    unsafe { listed(texts, result, offset_of!(ADDRINFOA, ai_next), ask) }
}

unsafe extern "system" fn get_addr_info_w(
    node: PCWSTR,
    service: PCWSTR,
    hints: *const ADDRINFOW,
    result: *mut *mut ADDRINFOW,
) -> i32 {
    // Some of Windows' own functions come by this one.
    if node.is_null() || is_within() {
        // SAFETY: as the program gave them; without a name nobody is asked.
        return unsafe { INFO_W.get()(node, service, hints, result) };
    }
    // SAFETY: a text that ends with a zero, as the function wants it.
    let name = unsafe { narrow(node) };
    // SAFETY: null, or what is wanted.
    let family = unsafe { family(hints, offset_of!(ADDRINFOW, ai_family)) };
    let texts = quietly(|| name.map_or(Err(WSAHOST_NOT_FOUND), |name| resolver::texts(&name, family)));
    let ask = |text: &str, part: *mut *mut ADDRINFOW| {
        let _within = Within::ours();
        // SAFETY: the rest is as the program gave it.
        unsafe { INFO_W.get()(wide(text).as_ptr(), service, hints, part) }
    };
    // SAFETY: as the program gave it.
    unsafe { listed(texts, result, offset_of!(ADDRINFOW, ai_next), ask) }
}

/// One address alone, the one for programs of IPv4 if there is one: what Windows answers later is one list.
unsafe extern "system" fn get_addr_info_ex_w(
    node: PCWSTR,
    service: PCWSTR,
    space: u32,
    provider: *const GUID,
    hints: *const ADDRINFOEXW,
    result: *mut *mut ADDRINFOEXW,
    patience: *const TIMEVAL,
    overlapped: *const OVERLAPPED,
    completion: LPLOOKUPSERVICE_COMPLETION_ROUTINE,
    handle: *mut HANDLE,
) -> i32 {
    let ask = |node| {
        let _within = Within::ours();
        // SAFETY: the rest is as the program gave it.
        unsafe {
            INFO_EX_W.get()(node, service, space, provider, hints, result, patience, overlapped, completion, handle)
        }
    };
    if node.is_null() || is_within() {
        return ask(node);
    }
    // SAFETY: a text that ends with a zero, as the function wants it.
    let name = unsafe { narrow(node) };
    // SAFETY: null, or what is wanted.
    let family = unsafe { family(hints, offset_of!(ADDRINFOEXW, ai_family)) };
    match quietly(|| name.map_or(Err(WSAHOST_NOT_FOUND), |name| resolver::texts(&name, family))) {
        Ok(texts) => ask(wide(texts.last().map_or("", String::as_str)).as_ptr()),
        Err(number) => {
            failed(number);
            number
        }
    }
}

/// Nobody uses this form, and wine has none.
unsafe extern "system" fn get_addr_info_ex_a(
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: usize,
) -> i32 {
    failed(WSAHOST_NOT_FOUND);
    WSAHOST_NOT_FOUND
}

unsafe extern "system" fn gethostbyname(name: PCSTR) -> *mut HOSTENT {
    let of_loopback = c"127.0.0.1".as_ptr();
    // SAFETY: null, which means this computer, or a text that ends with a zero.
    let name = unsafe { if name.is_null() { CStr::from_ptr(of_loopback) } else { CStr::from_ptr(name.cast()) } };
    let found = quietly(|| {
        let name = name.to_str().map_err(|_| WSAHOST_NOT_FOUND)?;
        let texts = resolver::texts(name, i32::from(AF_INET))?;
        CString::new(texts.concat()).map_err(|_| WSAHOST_NOT_FOUND)
    });
    match found {
        Ok(text) => {
            let _within = Within::ours();
            // SAFETY: an address in text, as it wants it.
            unsafe { BY_NAME.get()(text.as_ptr().cast()) }
        }
        Err(number) => {
            failed(number);
            null_mut()
        }
    }
}

unsafe extern "system" fn gethostbyaddr(_: PCSTR, _: i32, _: i32) -> *mut HOSTENT {
    failed(WSAHOST_NOT_FOUND);
    null_mut()
}

/// The address that is asked about; the flags with which Windows asks nobody about it.
///
/// # Safety
/// As of [`address::read`].
unsafe fn numeric(at: *const SOCKADDR, length: i32, flags: i32) -> (Option<IpAddr>, i32) {
    // SAFETY: the caller says so.
    let address = unsafe { address::read(at, length) }.ok().map(|address| address.ip());
    (address, (flags | NI_NUMERICHOST as i32) & !(NI_NAMEREQD as i32))
}

/// The name of an address, where one is wanted; the number for the program where it is required, and there is none.
fn wanted(address: Option<IpAddr>, flags: i32) -> Result<Option<String>, i32> {
    if flags & NI_NUMERICHOST as i32 != 0 {
        return Ok(None);
    }
    match address.map_or(Err(WSAHOST_NOT_FOUND), resolver::name) {
        Ok(name) => Ok(Some(name)),
        Err(number) if flags & NI_NAMEREQD as i32 != 0 => Err(number),
        Err(_) => Ok(None),
    }
}

/// Puts a text and its end where there is room.
///
/// # Safety
/// There is as much room as is said, or null.
unsafe fn put<T: Copy>(text: &[T], to: *mut T, room: u32) {
    if !to.is_null() && text.len() <= room as usize {
        // SAFETY: it fits, as was just seen.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), to, text.len()) };
    }
}

unsafe extern "system" fn getnameinfo(
    at: *const SOCKADDR,
    length: i32,
    host: PSTR,
    host_room: u32,
    service: PSTR,
    service_room: u32,
    flags: i32,
) -> i32 {
    // SAFETY: as the program gave them.
    let (address, numeric) = unsafe { numeric(at, length, flags) };
    let name = match quietly(|| wanted(address, flags)) {
        Ok(name) => name,
        Err(number) => {
            failed(number);
            return number;
        }
    };
    let _within = Within::ours();
    // SAFETY: as the program gave them.
    let status = unsafe { NAME_A.get()(at, length, host, host_room, service, service_room, numeric) };
    if let (0, Some(name)) = (status, name) {
        // SAFETY: as the program says.
        unsafe { put(&[name.as_bytes(), &[0]].concat(), host, host_room) };
    }
    status
}

unsafe extern "system" fn get_name_info_w(
    at: *const SOCKADDR,
    length: i32,
    host: PWSTR,
    host_room: u32,
    service: PWSTR,
    service_room: u32,
    flags: i32,
) -> i32 {
    if is_within() {
        // SAFETY: as the program gave them, to one of the functions here.
        return unsafe { NAME_W.get()(at, length, host, host_room, service, service_room, flags) };
    }
    // SAFETY: as the program gave them.
    let (address, numeric) = unsafe { numeric(at, length, flags) };
    let name = match quietly(|| wanted(address, flags)) {
        Ok(name) => name,
        Err(number) => {
            failed(number);
            return number;
        }
    };
    let _within = Within::ours();
    // SAFETY: as the program gave them.
    let status = unsafe { NAME_W.get()(at, length, host, host_room, service, service_room, numeric) };
    if let (0, Some(name)) = (status, name) {
        // SAFETY: as the program says.
        unsafe { put(&wide(&name), host, host_room) };
    }
    status
}

unsafe extern "system" fn async_by_name(_: usize, _: u32, _: PCSTR, _: PSTR, _: i32) -> HANDLE {
    failed(WSAHOST_NOT_FOUND);
    null_mut()
}

unsafe extern "system" fn async_by_address(_: usize, _: u32, _: PCSTR, _: i32, _: i32, _: PSTR, _: i32) -> HANDLE {
    failed(WSAHOST_NOT_FOUND);
    null_mut()
}

unsafe extern "system" fn begin_a(query: *const c_void, flags: u32, handle: *mut HANDLE) -> i32 {
    // SAFETY: as given.
    unsafe { begin(query, flags, handle, BEGIN_A.get()) }
}

unsafe extern "system" fn begin_w(query: *const c_void, flags: u32, handle: *mut HANDLE) -> i32 {
    // SAFETY: as given.
    unsafe { begin(query, flags, handle, BEGIN_W.get()) }
}

/// What the functions here have Windows ask is about addresses in text; programs' own questions go nowhere.
///
/// # Safety
/// As of the real one.
unsafe fn begin(query: *const c_void, flags: u32, handle: *mut HANDLE, real: Begin) -> i32 {
    if is_within() {
        // SAFETY: the caller says so.
        return unsafe { real(query, flags, handle) };
    }
    failed(WSASERVICE_NOT_FOUND);
    -1
}

unsafe extern "system" fn query_a(_: usize, _: u16, _: u32, _: usize, to: *mut *mut c_void, _: usize) -> i32 {
    // SAFETY: as the program gave it.
    unsafe { nothing(to) }
}

unsafe extern "system" fn query_w(_: usize, _: u16, _: u32, _: usize, to: *mut *mut c_void, _: usize) -> i32 {
    // SAFETY: as the program gave it.
    unsafe { nothing(to) }
}

unsafe extern "system" fn query_utf8(_: usize, _: u16, _: u32, _: usize, to: *mut *mut c_void, _: usize) -> i32 {
    // SAFETY: as the program gave it.
    unsafe { nothing(to) }
}

/// # Safety
/// Null, or a place for a list.
unsafe fn nothing(to: *mut *mut c_void) -> i32 {
    if !to.is_null() {
        // SAFETY: the caller says so.
        unsafe { *to = null_mut() };
    }
    DNS_NAME_ERROR
}

/// Of DNS_QUERY_RESULT, what is written.
#[repr(C)]
pub(super) struct QueryResult {
    version: u32,
    status: i32,
    options: u64,
    records: *mut c_void,
}

unsafe extern "system" fn query_ex(_: *const c_void, result: *mut QueryResult, _: *mut c_void) -> i32 {
    // SAFETY: null, or a result.
    if let Some(result) = unsafe { result.as_mut() } {
        (result.status, result.records) = (DNS_NAME_ERROR, null_mut());
    }
    DNS_NAME_ERROR
}
