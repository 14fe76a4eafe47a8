//! Who is where: addresses as sockets of either family see them, and which of them may share a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First and last port that are handed out, as the kernel does it by default.
pub(super) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What a socket occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Mapped IPv4 addresses as IPv4.
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// The IPv6 wildcard stands for IPv4 too.
    pub(super) dual: bool,
}

impl Place {
    /// Whether a connection to `ip` meets a socket here.
    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.is_unspecified() || own == ip,
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && self.dual,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }

    /// Whether both have an address in common, on the same port.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let half = |a: &Self, b: &Self| a.covers(b.ip) || (b.ip.is_unspecified() && b.covers(a.ip));
        self.port == other.port && (half(self, other) || half(other, self))
    }
}

/// An address without the detour by IPv6.
pub(super) fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        ip => ip,
    }
}

/// An address as a socket of that family shows it.
pub(super) fn seen(ip: IpAddr, v6: bool) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().into(),
        ip => ip,
    }
}

/// The wildcard of a family.
pub(super) fn anywhere(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// A port that `free` says is free; begins to look at `from`.
pub(super) fn find_port(from: u16, free: impl Fn(u16) -> bool) -> Option<u16> {
    let count = EPHEMERAL.end() - EPHEMERAL.start() + 1;
    let begin = from % count;
    (0..count).map(|step| EPHEMERAL.start() + (begin + step) % count).find(|port| free(*port))
}

/// As a program writes it.
pub(super) fn endpoint(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(ip: &str, port: u16, dual: bool) -> Place {
        Place { ip: ip.parse().unwrap(), port, dual }
    }

    #[test]
    fn wildcards_overlap_with_what_they_stand_for() {
        let overlaps = |a: &str, dual_a, b: &str, dual_b| place(a, 1, dual_a).overlaps(&place(b, 1, dual_b));
        assert!(overlaps("0.0.0.0", false, "127.0.0.1", false));
        assert!(overlaps("::", true, "127.0.0.1", false));
        assert!(overlaps("::", true, "0.0.0.0", false));
        assert!(!overlaps("::", false, "0.0.0.0", false));
        assert!(!overlaps("::", false, "127.0.0.1", false));
        assert!(overlaps("::", false, "::1", false));
        assert!(!overlaps("127.0.0.1", false, "127.0.0.2", false));
        assert!(!place("::", 1, true).overlaps(&place("::", 2, true)));
    }

    proptest! {
        #[test]
        fn overlap_is_mutual(a: IpAddr, b: IpAddr, dual_a: bool, dual_b: bool, any_a: bool, any_b: bool) {
            let ip = |ip: IpAddr, any| if any { anywhere(ip.is_ipv6()) } else { ip };
            let a = Place { ip: ip(a, any_a), port: 1, dual: dual_a };
            let b = Place { ip: ip(b, any_b), port: 1, dual: dual_b };
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }

        #[test]
        fn a_free_port_is_found_if_there_is_one(from: u16, only in EPHEMERAL) {
            prop_assert_eq!(find_port(from, |port| port == only), Some(only));
            prop_assert_eq!(find_port(from, |_| false), None);
        }
    }
}
