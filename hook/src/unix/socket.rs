//! `socket`: answered with a socket of the phantom namespace.

use std::os::fd::IntoRawFd;

use libc::c_int;
use phantom_ipc::hook::policy::{Verdict, judge};

use super::{daemon, glue, raw, received};
use crate::outcome::Outcome;

redhook::hook! {
    unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int => phantom_socket {
        glue::answer(-1, || open(domain, kind, protocol))
    }
}

/// A socket for the program, as socket(2) would give one.
pub(super) fn open(domain: c_int, kind: c_int, protocol: c_int) -> Outcome<c_int> {
    let opened = match judge(domain, kind, protocol) {
        Verdict::Phantom { protocol } => daemon::socket(domain, kind, protocol).map(|given| {
            received::learn(&given);
            given.into_raw_fd()
        }),
        Verdict::Own => raw::socket(domain, kind, protocol),
        Verdict::Refused(error) => Err(error),
    };
    opened.map_or_else(Outcome::Fail, Outcome::Done)
}
