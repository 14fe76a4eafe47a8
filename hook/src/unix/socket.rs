//! `socket`: answered with a socket of the phantom namespace.

use std::os::fd::IntoRawFd;

use libc::c_int;

use super::{daemon, glue, policy, raw};
use crate::outcome::Outcome;

redhook::hook! {
    unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int => phantom_socket {
        glue::answer(-1, || open(domain, kind, protocol))
    }
}

/// A socket for the program, as socket(2) would give one.
pub(super) fn open(domain: c_int, kind: c_int, protocol: c_int) -> Outcome<c_int> {
    let opened = match policy::judge(domain, kind, protocol) {
        Outcome::Done(protocol) => daemon::socket(domain, kind, protocol).map(IntoRawFd::into_raw_fd),
        Outcome::Bypass(_) => raw::socket(domain, kind, protocol),
        Outcome::Fail(error) => Err(error),
    };
    opened.map_or_else(Outcome::Fail, Outcome::Done)
}
