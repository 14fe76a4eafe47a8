//! Socket options of emulated sockets: what a kernel's TCP socket takes and says.

use phantom_ipc::hook::OptionValue;

use super::table::Errno;

/// Options that one socket may have set, of those that only need to be remembered.
const MAX_SET: usize = 48;

/// The largest buffer size that is believed: the kernel's default limit, doubled as it does.
const MAX_BUFFER: i32 = 425_984;

/// Bytes of TCP_INFO that are answered: as libc declares it. Callers cut it.
const INFO: usize = 104;

/// What an option's value is like.
#[derive(Clone, Copy)]
enum Kind {
    /// 0 or 1.
    Flag,
    /// Any number.
    Number,
    /// A buffer's size, which the kernel doubles.
    Size,
    /// Needs privileges that no program here has.
    Forbidden,
}

/// What can be set and only needs to be remembered: level, number, kind, value at first.
const KNOWN: &[(i32, i32, Kind, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_DEBUG, Kind::Forbidden, 0),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, Kind::Size, 87_040),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, Kind::Size, 131_072),
    (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, Kind::Forbidden, 0),
    (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, Kind::Forbidden, 0),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, Kind::Number, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, Kind::Flag, 0),
    (libc::SOL_SOCKET, libc::SO_MARK, Kind::Forbidden, 0),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL, Kind::Number, 0),
    (libc::SOL_SOCKET, libc::SO_INCOMING_CPU, Kind::Number, 0),
    (libc::SOL_TCP, libc::TCP_NODELAY, Kind::Flag, 0),
    (libc::SOL_TCP, libc::TCP_MAXSEG, Kind::Number, 536),
    (libc::SOL_TCP, libc::TCP_CORK, Kind::Flag, 0),
    (libc::SOL_TCP, libc::TCP_KEEPIDLE, Kind::Number, 7200),
    (libc::SOL_TCP, libc::TCP_KEEPINTVL, Kind::Number, 75),
    (libc::SOL_TCP, libc::TCP_KEEPCNT, Kind::Number, 9),
    (libc::SOL_TCP, libc::TCP_SYNCNT, Kind::Number, 6),
    (libc::SOL_TCP, libc::TCP_LINGER2, Kind::Number, 60),
    (libc::SOL_TCP, libc::TCP_DEFER_ACCEPT, Kind::Number, 0),
    (libc::SOL_TCP, libc::TCP_WINDOW_CLAMP, Kind::Number, 0),
    (libc::SOL_TCP, libc::TCP_QUICKACK, Kind::Flag, 1),
    (libc::SOL_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS, Kind::Flag, 0),
    (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, Kind::Number, 0),
    (libc::SOL_TCP, libc::TCP_FASTOPEN, Kind::Number, 0),
    (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, Kind::Number, -1),
    (libc::SOL_IP, libc::IP_TOS, Kind::Number, 0),
    (libc::SOL_IP, libc::IP_TTL, Kind::Number, 64),
    (libc::SOL_IP, libc::IP_PKTINFO, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_MTU_DISCOVER, Kind::Number, 1),
    (libc::SOL_IP, libc::IP_RECVERR, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_RECVTTL, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_RECVTOS, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_FREEBIND, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_TRANSPARENT, Kind::Forbidden, 0),
    (libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, Kind::Flag, 0),
    (libc::SOL_IP, libc::IP_MULTICAST_TTL, Kind::Number, 1),
    (libc::SOL_IP, libc::IP_MULTICAST_LOOP, Kind::Flag, 1),
    (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS, Kind::Number, 64),
    (libc::SOL_IPV6, libc::IPV6_MULTICAST_HOPS, Kind::Number, 1),
    (libc::SOL_IPV6, libc::IPV6_MULTICAST_LOOP, Kind::Flag, 1),
    (libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, Kind::Number, 1),
    (libc::SOL_IPV6, libc::IPV6_RECVERR, Kind::Flag, 0),
    (libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, Kind::Flag, 0),
    (libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT, Kind::Flag, 0),
    (libc::SOL_IPV6, libc::IPV6_RECVTCLASS, Kind::Flag, 0),
    (libc::SOL_IPV6, libc::IPV6_TCLASS, Kind::Number, 0),
    (libc::SOL_IPV6, libc::IPV6_FREEBIND, Kind::Flag, 0),
    (libc::SOL_IPV6, libc::IPV6_TRANSPARENT, Kind::Forbidden, 0),
];

/// The options of one socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) reuse_address: bool,
    pub(super) reuse_port: bool,
    pub(super) only_v6: bool,
    /// On or off, and seconds.
    pub(super) linger: (i32, i32),
    set: Vec<((i32, i32), i32)>,
}

/// What of a socket its options depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) v6: bool,
    pub(super) stream: bool,
    pub(super) bound: bool,
    pub(super) listening: bool,
    /// As TCP_INFO counts states.
    pub(super) state: u8,
}

impl Options {
    /// Closing is a reset.
    pub(super) fn abortive(&self) -> bool {
        self.linger.0 != 0 && self.linger.1 == 0
    }

    /// getsockopt(2), but for SO_ERROR.
    pub(super) fn value(&self, about: About, level: i32, option: i32) -> Result<OptionValue, Errno> {
        let known = |value| Ok(OptionValue::of(value));
        match (level, option) {
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => known(if about.v6 { libc::AF_INET6 } else { libc::AF_INET }),
            (libc::SOL_SOCKET, libc::SO_TYPE) => known(if about.stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM }),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => {
                known(if about.stream { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP })
            }
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => known(about.listening.into()),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => known(self.reuse_address.into()),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => known(self.reuse_port.into()),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let both = [self.linger.0, self.linger.1].map(i32::to_ne_bytes);
                OptionValue::new(both.as_flattened()).ok_or(libc::EINVAL)
            }
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => OptionValue::new(b"").ok_or(libc::EINVAL),
            (libc::SOL_IPV6, libc::IPV6_V6ONLY) if about.v6 => known(self.only_v6.into()),
            (libc::SOL_TCP, libc::TCP_INFO) if about.stream => OptionValue::new(&info(about.state)).ok_or(libc::EINVAL),
            (libc::SOL_TCP, libc::TCP_CONGESTION) if about.stream => {
                OptionValue::new(b"cubic\0\0\0\0\0\0\0\0\0\0\0").ok_or(libc::EINVAL)
            }
            _ => {
                let (_, first) = find(about, level, option)?;
                let set = self.set.iter().find(|(at, _)| *at == (level, option));
                known(set.map_or(first, |(_, value)| *value))
            }
        }
    }

    /// setsockopt(2).
    pub(super) fn set(&mut self, about: About, level: i32, option: i32, value: &[u8]) -> Result<(), Errno> {
        if let (libc::SOL_TCP, libc::TCP_CONGESTION) = (level, option) {
            return if value.starts_with(b"cubic") || value.starts_with(b"reno") { Ok(()) } else { Err(libc::ENOENT) };
        }
        let number = number(level, value).ok_or(libc::EINVAL)?;
        match (level, option) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => self.reuse_address = number != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => self.reuse_port = number != 0,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = value.get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or(libc::EINVAL)?;
                self.linger = (i32::from(number != 0), i32::from_ne_bytes(seconds));
            }
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => return Err(libc::EPERM),
            (libc::SOL_IPV6, libc::IPV6_V6ONLY) if about.v6 => {
                if about.bound {
                    return Err(libc::EINVAL);
                }
                self.only_v6 = number != 0;
            }
            _ => return self.remember(about, level, option, number),
        }
        Ok(())
    }

    fn remember(&mut self, about: About, level: i32, option: i32, number: i32) -> Result<(), Errno> {
        let (kind, _) = find(about, level, option)?;
        let number = match kind {
            Kind::Flag => i32::from(number != 0),
            Kind::Number => number,
            Kind::Size => number.clamp(2304, MAX_BUFFER / 2) * 2,
            Kind::Forbidden => return Err(libc::EPERM),
        };
        if level == libc::SOL_TCP
            && matches!(option, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL)
            && !(1..=32_767).contains(&number)
        {
            return Err(libc::EINVAL);
        }
        self.set.retain(|(at, _)| *at != (level, option));
        if self.set.len() >= MAX_SET {
            return Err(libc::ENOBUFS);
        }
        self.set.push(((level, option), number));
        Ok(())
    }
}

fn find(about: About, level: i32, option: i32) -> Result<(Kind, i32), Errno> {
    let known = KNOWN.iter().find(|known| (known.0, known.1) == (level, option)).ok_or(libc::ENOPROTOOPT)?;
    match level {
        libc::SOL_TCP if !about.stream => Err(libc::ENOPROTOOPT),
        libc::SOL_IPV6 if !about.v6 => Err(libc::ENOPROTOOPT),
        _ => Ok((known.2, known.3)),
    }
}

/// An integer; options of IP may also be one byte.
fn number(level: i32, value: &[u8]) -> Option<i32> {
    match value.first_chunk() {
        Some(bytes) => Some(i32::from_ne_bytes(*bytes)),
        None if level == libc::SOL_IP => value.first().map(|byte| i32::from(*byte)),
        None => None,
    }
}

/// struct tcp_info: the state, and numbers that hurt nobody.
fn info(state: u8) -> [u8; INFO] {
    let mut info = [0; INFO];
    info[0] = state;
    let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    // Retransmission time-out and both segment sizes.
    put(8, 200_000);
    put(16, 65_483);
    put(20, 65_483);
    info
}
