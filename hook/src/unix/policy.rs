//! Which sockets a program gets: of the phantom namespace, of its own, or none.

use libc::c_int;

use crate::outcome::{Outcome, Why};

/// Bits of the type that are the type.
const TYPE: c_int = 0xf;

/// First number that is no socket type.
const TYPES: c_int = 11;

/// SOCK_PACKET, an old name for AF_PACKET.
const PACKET: c_int = 10;

/// IPPROTO_MPTCP.
const MULTIPATH: c_int = 262;

/// IPPROTO_UDPLITE.
const UDP_LITE: c_int = 136;

/// What of a call to `socket` is asked of the daemon: the protocol, since Multipath TCP becomes TCP.
///
/// Error numbers are those that an unprivileged program on a kernel without the family or protocol gets. Unknown families are
/// refused, not passed: each is a network that Phantom knows nothing of.
pub(super) fn judge(domain: c_int, kind: c_int, protocol: c_int) -> Outcome<c_int> {
    if domain == libc::AF_UNIX {
        return Outcome::Bypass(Why::Local);
    }
    let (flags, kind) = (kind & !TYPE, kind & TYPE);
    if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 || kind >= TYPES {
        return Outcome::Fail(libc::EINVAL);
    }
    match domain {
        libc::AF_INET | libc::AF_INET6 => internet(kind, protocol),
        // The kernel's own view of networks, of processes, of devices: that of the phantom namespace.
        libc::AF_NETLINK => Outcome::Done(protocol),
        libc::AF_PACKET => Outcome::Fail(libc::EPERM),
        _ => Outcome::Fail(libc::EAFNOSUPPORT),
    }
}

fn internet(kind: c_int, protocol: c_int) -> Outcome<c_int> {
    match (kind, protocol) {
        (libc::SOCK_RAW | PACKET, _) => Outcome::Fail(libc::EPERM),
        (libc::SOCK_STREAM, MULTIPATH) => Outcome::Done(libc::IPPROTO_TCP),
        (libc::SOCK_STREAM, libc::IPPROTO_SCTP) | (libc::SOCK_DGRAM, UDP_LITE) => Outcome::Fail(libc::EPROTONOSUPPORT),
        (libc::SOCK_STREAM | libc::SOCK_DGRAM, _) => Outcome::Done(protocol),
        _ => Outcome::Fail(libc::ESOCKTNOSUPPORT),
    }
}
