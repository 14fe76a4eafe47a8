//! Where a node may be sent: setup packages and AP records name addresses, and whoever writes them must not be able to make a
//! node of the open network connect to what only it can reach.

use std::net::IpAddr;

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// This machine.
    Machine,
    /// A network of its own.
    Site,
    /// Everywhere.
    World,
    /// No host.
    Nowhere,
}

/// Whether a node at `own` may dial `to`: anywhere in the world, and within its own kind of network.
pub(crate) fn may_dial(own: IpAddr, to: IpAddr) -> bool {
    match scope(to) {
        Scope::World => true,
        Scope::Nowhere => false,
        narrow => scope(own) == narrow,
    }
}

fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => Scope::Machine,
        // 0.0.0.0/8 is "this network": Linux takes it for this machine.
        IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast() => Scope::Nowhere,
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip.octets()) => Scope::Site,
        IpAddr::V6(ip) if ip.is_loopback() => Scope::Machine,
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Scope::Nowhere,
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Scope::Site,
        IpAddr::V4(_) | IpAddr::V6(_) => Scope::World,
    }
}

/// 100.64.0.0/10, between a provider and its customers (RFC 6598), and 198.18.0.0/15, which is ours for programs.
fn is_shared([a, b, ..]: [u8; 4]) -> bool {
    (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_where_only_it_can_go() {
        let may = |own: &str, to: &str| may_dial(own.parse().unwrap(), to.parse().unwrap());
        for inner in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!may("93.184.216.34", inner), "{inner}");
            assert!(!may("2606:2800::1", inner), "{inner}");
        }
        for nowhere in ["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
            assert!(!may("127.0.0.1", nowhere) && !may("93.184.216.34", nowhere), "{nowhere}");
        }
        assert!(may("127.10.0.1", "127.11.0.1") && may("10.0.0.1", "192.168.1.1") && may("10.0.0.1", "93.184.216.34"));
        assert!(may("93.184.216.34", "2606:2800::1") && !may("10.0.0.1", "127.0.0.1"));
    }
}
