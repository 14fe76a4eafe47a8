//! res_query and its relatives: DNS packets, answered without DNS. No list of domains is searched: names are whole.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use libc::{c_char, c_int};

use super::directory::Daemon;
use super::glue;
use super::hostent::{AGAIN, NO_DATA, NO_RECOVERY, NOT_FOUND};
use crate::names::dns;
use crate::outcome::Outcome;

/// Id of own questions: nobody listens, nobody can guess.
const ID: u16 = 0;

type Text = *const c_char;

/// libc's `struct __res_state` up to the field that is set here.
#[repr(C)]
pub(super) struct State {
    before: [u64; 62],
    h_errno: c_int,
}

macro_rules! queries {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(name: Text, class: c_int, kind: c_int, answer: *mut u8, size: c_int) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_query wants them.
                unsafe { query(std::ptr::null_mut(), [name, std::ptr::null()], class, kind, answer, size) }
            }
        }
    )*};
}

macro_rules! state_queries {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(
                state: *mut State, name: Text, class: c_int, kind: c_int, answer: *mut u8, size: c_int
            ) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_nquery wants them.
                unsafe { query(state, [name, std::ptr::null()], class, kind, answer, size) }
            }
        }
    )*};
}

macro_rules! domain_queries {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(
                name: Text, domain: Text, class: c_int, kind: c_int, answer: *mut u8, size: c_int
            ) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_querydomain wants them.
                unsafe { query(std::ptr::null_mut(), [name, domain], class, kind, answer, size) }
            }
        }
    )*};
}

macro_rules! state_domain_queries {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(
                state: *mut State, name: Text, domain: Text, class: c_int, kind: c_int, answer: *mut u8, size: c_int
            ) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_nquerydomain wants them.
                unsafe { query(state, [name, domain], class, kind, answer, size) }
            }
        }
    )*};
}

macro_rules! sends {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(packet: *const u8, length: c_int, answer: *mut u8, size: c_int) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_send wants them.
                unsafe { send(packet, length, answer, size) }
            }
        }
    )*};
}

macro_rules! state_sends {
    ($($name:ident => $hook:ident),*) => {$(
        redhook::hook! {
            unsafe fn $name(
                _state: *mut State, packet: *const u8, length: c_int, answer: *mut u8, size: c_int
            ) -> c_int => $hook {
                // SAFETY: the caller's arguments are as res_nsend wants them.
                unsafe { send(packet, length, answer, size) }
            }
        }
    )*};
}

queries!(res_query => phantom_res_query, __res_query => phantom_res_query_alias, res_search => phantom_res_search, __res_search => phantom_res_search_alias);
state_queries!(res_nquery => phantom_res_nquery, __res_nquery => phantom_res_nquery_alias, res_nsearch => phantom_res_nsearch, __res_nsearch => phantom_res_nsearch_alias);
domain_queries!(res_querydomain => phantom_res_querydomain, __res_querydomain => phantom_res_querydomain_alias);
state_domain_queries!(res_nquerydomain => phantom_res_nquerydomain, __res_nquerydomain => phantom_res_nquerydomain_alias);
sends!(res_send => phantom_res_send, __res_send => phantom_res_send_alias);
state_sends!(res_nsend => phantom_res_nsend, __res_nsend => phantom_res_nsend_alias);

/// # Safety
/// As for res_nquerydomain; the state and the domain may be NULL.
unsafe fn query(
    state: *mut State,
    [name, domain]: [Text; 2],
    class: c_int,
    kind: c_int,
    answer: *mut u8,
    size: c_int,
) -> c_int {
    let fail = |code| {
        glue::set_h_errno(code);
        // SAFETY: NULL or libc's state.
        if let Some(state) = unsafe { state.as_mut() } {
            state.h_errno = code;
        }
    };
    fail(NO_RECOVERY);
    glue::answer(-1, || {
        // SAFETY: as the caller says.
        let (name, domain) = unsafe { (glue::text(name).unwrap_or_default(), glue::text(domain)) };
        let name = domain.map_or_else(|| name.to_owned(), |domain| format!("{name}.{domain}"));
        let packet = u16::try_from(class).ok().zip(u16::try_from(kind).ok());
        let packet = packet.and_then(|(class, kind)| dns::question(ID, &name, class, kind));
        let Some(packet) = packet.and_then(|packet| dns::answer(&packet, &Daemon)) else {
            return Outcome::Fail(libc::EMSGSIZE);
        };
        let code = match dns::verdict(&packet) {
            Some((dns::NO_ERROR, 0)) => NO_DATA,
            Some((dns::NO_ERROR, _)) => 0,
            Some((dns::NAME_ERROR, _)) => NOT_FOUND,
            Some((dns::SERVER_FAILURE, _)) => AGAIN,
            _ => NO_RECOVERY,
        };
        fail(code);
        // SAFETY: as the caller says.
        let length = unsafe { put(packet, answer, size) };
        if code == 0 { Outcome::Done(length) } else { Outcome::Fail(libc::ECONNREFUSED) }
    })
}

/// # Safety
/// As for res_send.
unsafe fn send(packet: *const u8, length: c_int, answer: *mut u8, size: c_int) -> c_int {
    glue::answer(-1, || {
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: the caller gives that many bytes.
        let question = if length == 0 { &[][..] } else { unsafe { from_raw_parts(packet, length) } };
        match dns::answer(question, &Daemon) {
            // SAFETY: as the caller says.
            Some(packet) => Outcome::Done(unsafe { put(packet, answer, size) }),
            None => Outcome::Fail(libc::EINVAL),
        }
    })
}

/// Puts a packet where the program wants it, and as much of it as fits; the whole length tells that there was more.
///
/// # Safety
/// `to` has room for `size` bytes.
unsafe fn put(mut packet: Vec<u8>, to: *mut u8, size: c_int) -> c_int {
    let size = usize::try_from(size).unwrap_or(0).min(packet.len());
    if size < packet.len() {
        // The bit that says so in the packet itself.
        packet[2] |= 2;
    }
    if size > 0 && !to.is_null() {
        // SAFETY: as the caller says.
        unsafe { from_raw_parts_mut(to, size) }.copy_from_slice(&packet[..size]);
    }
    // Packets of one name's addresses are short.
    packet.len() as c_int
}
