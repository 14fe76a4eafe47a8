//! Notices that this computer has come into another network, awake: all links break then at about one time, and what was lost must not come
//! back at one time, too (docs/protocol.md, section 4.7). And that others reach this node at another address than before.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use phantom_proto::wire::NodeContact;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::connections::Network;
use crate::link::Place;
use crate::netdb::NetDb;
use crate::router::{self, Forwarding, Here, Router};
use crate::startup::{self, Setup, source_address};

/// How often the system is asked from where it would send. Less than it takes until a lost link is noticed and replaced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Addresses of documentation (RFC 5737, RFC 3849): to choose a route to them sends no packet.
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// Where this computer is: the network from which it would send, by IPv4 and IPv6. Addresses of IPv6 change within a network each day.
type Seen = [Option<[u8; 8]>; 2];

fn network(address: IpAddr) -> [u8; 8] {
    let mut network = [0; 8];
    match address {
        IpAddr::V4(v4) => network[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => network.copy_from_slice(&v6.octets()[..8]),
    }
    network
}

fn here() -> Seen {
    OUTSIDE.map(|outside| source_address(outside).map(network))
}

/// Whether links must be expected to break, or to come back: being nowhere alone is nothing to begin anew in.
fn has_moved(before: &Seen, now: &Seen) -> bool {
    before.iter().zip(now).any(|(before, now)| now.is_some() && before != now)
}

/// Looks until the daemon stops, and has the router asked to lead others here. What they need to reach this node goes to `here_tx`.
pub(super) fn start(
    setup: &Arc<Setup>,
    place: Arc<Place>,
    network: &Arc<Network>,
    database: &NetDb,
    here_tx: watch::Sender<NodeContact>,
) -> Router {
    let (for_router_tx, for_router_rx) = watch::channel(Here::default());
    let router = Router::start(&setup.config, for_router_rx, database.known());
    let (setup, network, database) = (setup.clone(), network.clone(), database.clone());
    let whereabouts = Whereabouts { setup, place, network, database, forwarding_rx: router.watch(), for_router_tx };
    tokio::spawn(whereabouts.watch(here_tx));
    router
}

/// Who is told.
struct Whereabouts {
    setup: Arc<Setup>,
    place: Arc<Place>,
    network: Arc<Network>,
    database: NetDb,
    /// What a router does for this node.
    forwarding_rx: watch::Receiver<Forwarding>,
    /// What it could do it for.
    for_router_tx: watch::Sender<Here>,
}

impl Whereabouts {
    // protocol: K26
    async fn watch(self, here_tx: watch::Sender<NodeContact>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut place = here();
        loop {
            look.tick().await;
            let now = here();
            if has_moved(&place, &now) {
                tracing::info!("this computer is in another network");
                self.place.leave_lost();
                self.network.handle().moved().await;
                self.database.moved().await;
                self.network.try_again();
                self.for_router_tx.send_modify(|here| here.moves += 1);
            }
            place = now;
            self.follow(&here_tx);
        }
    }

    /// Tells the address at which others reach this node, if it is another one. One that the operator has said stays.
    // protocol: J26
    fn follow(&self, here_tx: &watch::Sender<NodeContact>) {
        if self.setup.config.advertise.is_some() {
            return;
        }
        let bound = self.setup.listener.local_addr().ok();
        let Some(addr) = bound.and_then(|bound| startup::address_of(bound, &self.setup.config.peers)) else { return };
        let addr = self.outside(addr).map_or(addr, SocketAddr::V4);
        here_tx.send_if_modified(|here| {
            let other = here.addr != addr;
            if other {
                tracing::info!("this computer has another address, which other nodes are told");
                self.place.moves(addr.ip());
                here.addr = addr;
            }
            other
        });
    }

    /// Where others come to this node, as its router says if that forwards its port: they are asked whether they do (J26).
    fn outside(&self, addr: SocketAddr) -> Option<SocketAddrV4> {
        let at = router::behind(addr);
        self.for_router_tx.send_if_modified(|here| std::mem::replace(&mut here.at, at) != at);
        self.forwarding_rx.borrow().outside(*self.for_router_tx.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(v4: Option<&str>, v6: Option<&str>) -> Seen {
        [v4, v6].map(|text| text.map(|text| network(text.parse().unwrap())))
    }

    // protocol: K26
    #[test]
    fn another_network_is_told_from_another_address_and_from_none() {
        let home = place(Some("192.168.1.5"), Some("2001:db8:1:2::5"));
        assert!(!has_moved(&home, &home));
        assert!(!has_moved(&home, &place(Some("192.168.1.5"), Some("2001:db8:1:2:99::7"))), "an address for a day");
        assert!(has_moved(&home, &place(Some("10.0.0.9"), None)));
        assert!(has_moved(&home, &place(Some("192.168.1.5"), Some("2001:db8:1:3::5"))));
        let nowhere = place(None, None);
        assert!(!has_moved(&home, &nowhere));
        assert!(has_moved(&nowhere, &home), "the same again: links broke meanwhile");
        assert!(!has_moved(&nowhere, &nowhere));
    }
}
