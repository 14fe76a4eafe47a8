//! What libc does with sockets of its own and nobody needs over Phantom: refused, since no library can give it others.

use libc::{c_char, c_int, c_long, c_ushort, c_void, size_t};

use super::glue;
use super::hostent::NOT_FOUND;
use crate::outcome::Outcome;

type Text = *const c_char;
type Texts = *mut *mut c_char;
type Results = *mut *mut c_void;

/// What gethostid says on a machine whose name is 127.0.1.1, as on most; libc would look its own name up.
const HOST_ID: c_long = 0x007f_0101;

/// A remote shell of the eighties.
fn no_shell() -> c_int {
    glue::answer(-1, || Outcome::Fail(libc::ENETUNREACH))
}

fn no_network() -> *mut c_void {
    glue::set_h_errno(NOT_FOUND);
    std::ptr::null_mut()
}

/// # Safety
/// The pointers are NULL or can be written.
unsafe fn no_network_in(result: Results, error: *mut c_int) -> c_int {
    // SAFETY: as the caller says.
    if let Some(result) = unsafe { result.as_mut() } {
        *result = std::ptr::null_mut();
    }
    // SAFETY: as the caller says.
    if let Some(error) = unsafe { error.as_mut() } {
        *error = NOT_FOUND;
    }
    0
}

redhook::hook! {
    unsafe fn rcmd(_host: Texts, _port: c_ushort, _from: Text, _as: Text, _command: Text, _errors: *mut c_int) -> c_int => phantom_rcmd {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn rcmd_af(
        _host: Texts, _port: c_ushort, _from: Text, _as: Text, _command: Text, _errors: *mut c_int, _family: c_ushort
    ) -> c_int => phantom_rcmd_af {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn rexec(_host: Texts, _port: c_int, _user: Text, _word: Text, _command: Text, _errors: *mut c_int) -> c_int => phantom_rexec {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn rexec_af(
        _host: Texts, _port: c_int, _user: Text, _word: Text, _command: Text, _errors: *mut c_int, _family: c_ushort
    ) -> c_int => phantom_rexec_af {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn ruserok(_host: Text, _root: c_int, _there: Text, _here: Text) -> c_int => phantom_ruserok {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn ruserok_af(_host: Text, _root: c_int, _there: Text, _here: Text, _family: c_ushort) -> c_int => phantom_ruserok_af {
        no_shell()
    }
}

redhook::hook! {
    unsafe fn getnetbyname(_name: Text) -> *mut c_void => phantom_getnetbyname {
        no_network()
    }
}

redhook::hook! {
    unsafe fn getnetbyaddr(_network: u32, _family: c_int) -> *mut c_void => phantom_getnetbyaddr {
        no_network()
    }
}

redhook::hook! {
    unsafe fn getnetbyname_r(
        _name: Text, _network: *mut c_void, _buffer: *mut c_char, _size: size_t, result: Results, error: *mut c_int
    ) -> c_int => phantom_getnetbyname_r {
        // SAFETY: the caller gave places for both.
        unsafe { no_network_in(result, error) }
    }
}

redhook::hook! {
    unsafe fn getnetbyaddr_r(
        _address: u32, _family: c_int, _network: *mut c_void, _buffer: *mut c_char, _size: size_t, result: Results,
        error: *mut c_int
    ) -> c_int => phantom_getnetbyaddr_r {
        // SAFETY: as above.
        unsafe { no_network_in(result, error) }
    }
}

redhook::hook! {
    unsafe fn gethostid() -> c_long => phantom_gethostid {
        HOST_ID
    }
}
