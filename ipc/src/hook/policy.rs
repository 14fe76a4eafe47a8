//! Which sockets a program gets: of the phantom namespace, of its own, or none. Hook and launcher's supervisor agree on it.

/// What becomes of a call to socket(2). Numbers are those of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program's own: it stays on this machine.
    Own,
    /// One of the phantom namespace, with this protocol, since Multipath TCP becomes TCP.
    Phantom {
        /// The protocol to ask for.
        protocol: i32,
    },
    /// None; the program sees this error number.
    Refused(i32),
}

/// AF_UNIX.
pub const UNIX: i32 = 1;
/// AF_INET.
pub const INET: i32 = 2;
/// AF_INET6.
pub const INET6: i32 = 10;
/// AF_NETLINK.
pub const NETLINK: i32 = 16;
/// AF_PACKET.
pub const PACKET: i32 = 17;

/// SOCK_NONBLOCK.
pub const NONBLOCK: i32 = 0o4000;
/// SOCK_CLOEXEC.
pub const CLOEXEC: i32 = 0o2_000_000;

/// EPERM.
pub const NOT_PERMITTED: i32 = 1;
const INVALID: i32 = 22;
const NO_SUCH_PROTOCOL: i32 = 93;
const NO_SUCH_TYPE: i32 = 94;
/// EAFNOSUPPORT.
pub const NO_SUCH_FAMILY: i32 = 97;

/// Bits of the type that are the type.
const TYPE: i32 = 0xf;
const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;
/// SOCK_PACKET, an old name for AF_PACKET.
const OLD_PACKET: i32 = 10;
/// First number that is no socket type.
const TYPES: i32 = 11;

const TCP: i32 = 6;
const SCTP: i32 = 132;
const UDP_LITE: i32 = 136;
const MULTIPATH: i32 = 262;

/// What becomes of a call with these arguments of socket(2).
///
/// Error numbers are those that an unprivileged program on a kernel without the family or protocol gets. Unknown families
/// are refused, not passed: each is a network that Phantom knows nothing of.
pub const fn judge(domain: i32, kind: i32, protocol: i32) -> Verdict {
    if domain == UNIX {
        return Verdict::Own;
    }
    let (flags, kind) = (kind & !TYPE, kind & TYPE);
    if flags & !(CLOEXEC | NONBLOCK) != 0 || kind >= TYPES {
        return Verdict::Refused(INVALID);
    }
    match domain {
        INET | INET6 => internet(kind, protocol),
        // The kernel's own view of networks, of processes, of devices: that of the phantom namespace.
        NETLINK => Verdict::Phantom { protocol },
        PACKET => Verdict::Refused(NOT_PERMITTED),
        _ => Verdict::Refused(NO_SUCH_FAMILY),
    }
}

const fn internet(kind: i32, protocol: i32) -> Verdict {
    match (kind, protocol) {
        (RAW | OLD_PACKET, _) => Verdict::Refused(NOT_PERMITTED),
        (STREAM, MULTIPATH) => Verdict::Phantom { protocol: TCP },
        (STREAM, SCTP) | (DATAGRAM, UDP_LITE) => Verdict::Refused(NO_SUCH_PROTOCOL),
        (STREAM | DATAGRAM, _) => Verdict::Phantom { protocol },
        _ => Verdict::Refused(NO_SUCH_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_udp_and_netlink_are_the_phantom_namespaces_and_the_rest_is_refused() {
        let phantom = |protocol| Verdict::Phantom { protocol };
        for (call, verdict) in [
            ((UNIX, STREAM, 0), Verdict::Own),
            ((INET, STREAM | CLOEXEC | NONBLOCK, 0), phantom(0)),
            ((INET6, STREAM, MULTIPATH), phantom(TCP)),
            ((INET, DATAGRAM, 17), phantom(17)),
            ((NETLINK, RAW, 0), phantom(0)),
            ((INET, RAW, 1), Verdict::Refused(NOT_PERMITTED)),
            ((INET, OLD_PACKET, 0), Verdict::Refused(NOT_PERMITTED)),
            ((PACKET, RAW, 3), Verdict::Refused(NOT_PERMITTED)),
            ((INET, STREAM, SCTP), Verdict::Refused(NO_SUCH_PROTOCOL)),
            ((INET, 5, 0), Verdict::Refused(NO_SUCH_TYPE)),
            ((INET, 11, 0), Verdict::Refused(INVALID)),
            ((INET, STREAM | 0x100, 0), Verdict::Refused(INVALID)),
            ((40, STREAM, 0), Verdict::Refused(NO_SUCH_FAMILY)),
            ((-1, STREAM, 0), Verdict::Refused(NO_SUCH_FAMILY)),
        ] {
            assert_eq!(judge(call.0, call.1, call.2), verdict, "{call:?}");
        }
    }
}
