//! The nodes that are connected for the database, and who goes when they are too many.
//!
//! Each connection costs some 40 KiB, and a node that others open in great number must not cost more than some: nor may it push out those
//! of everybody else. So beyond [`MOST`] one goes of the operator that has most of them, whoever came first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use libp2p::PeerId;
use phantom_proto::ident::{NodeId, Operator, Spread};
use rand::Rng;
use rand::seq::IteratorRandom;
use tokio::time::Instant;

use super::transport::identity_key;

/// Connections beyond which those go that have had their use: a look-up in a large network opens 20.
pub(super) const ENOUGH: usize = 64;

/// So long each has its use.
const TRIED: Duration = Duration::from_secs(60);

/// So many stand at once, used or not: 10 MB.
const MOST: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Connected {
    spread: Spread,
    nodes: HashMap<PeerId, Standing>,
}

#[derive(Debug)]
struct Standing {
    since: Instant,
    ip: Option<IpAddr>,
    operator: Option<Operator>,
}

impl Connected {
    /// Nobody, in a network in which nodes are spread so.
    pub(super) fn new(spread: Spread) -> Self {
        Self { spread, nodes: HashMap::new() }
    }

    /// A node is connected, from or at this address. Who is to go, if that is one too many.
    pub(super) fn enter(
        &mut self,
        rng: &mut impl Rng,
        now: Instant,
        peer: PeerId,
        ip: Option<IpAddr>,
    ) -> Option<PeerId> {
        let standing = self.nodes.get(&peer);
        let (since, ip) =
            (standing.map_or(now, |standing| standing.since), ip.or_else(|| standing.and_then(|standing| standing.ip)));
        let operator = identity_key(&peer).zip(ip).map(|(key, ip)| Operator::of(self.spread, NodeId::of(&key), ip));
        self.nodes.insert(peer, Standing { since, ip, operator });
        if self.nodes.len() <= MOST {
            return None;
        }
        let mut held: HashMap<Option<Operator>, usize> = HashMap::new();
        self.nodes.values().for_each(|standing| *held.entry(standing.operator).or_default() += 1);
        let most = held.values().copied().max()?;
        let crowd = self.nodes.iter().filter(|(_, standing)| held.get(&standing.operator) == Some(&most));
        let gone = crowd.map(|(peer, _)| *peer).choose(rng)?;
        // Its connection takes a moment to end, and counts no more.
        self.nodes.remove(&gone);
        Some(gone)
    }

    /// A node is connected no more.
    pub(super) fn leave(&mut self, peer: &PeerId) {
        self.nodes.remove(peer);
    }

    /// Where a node is connected.
    pub(super) fn ip(&self, peer: &PeerId) -> Option<IpAddr> {
        self.nodes.get(peer)?.ip
    }

    /// Of too many any that have had their use: which, says nothing.
    pub(super) fn surplus(&self, rng: &mut impl Rng, now: Instant) -> Vec<PeerId> {
        let most = self.nodes.len().saturating_sub(ENOUGH);
        let tried = self.nodes.iter().filter(|(_, standing)| now.duration_since(standing.since) >= TRIED);
        tried.map(|(peer, _)| *peer).sample(rng, most)
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::transport::peer_id;
    use super::*;

    fn peer(number: u32) -> PeerId {
        let mut seed = [5; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        peer_id(&SigningKey::from_seed(&seed).verifying_key()).unwrap()
    }

    fn in_network(network: u8) -> Option<IpAddr> {
        Some([10, network, 0, 1].into())
    }

    /// Two thousand connections of one network, of as many free identities, beside fifty of others.
    #[test]
    fn who_opens_many_connections_takes_the_places_of_its_own() {
        let (mut connected, mut rng, now) =
            (Connected::new(Spread::Prefixes), StdRng::seed_from_u64(1), Instant::now());
        let others: Vec<_> = (0..50).map(peer).collect();
        for (number, other) in others.iter().enumerate() {
            assert_eq!(connected.enter(&mut rng, now, *other, in_network(number as u8)), None);
        }
        let gone: Vec<_> =
            (100..2100).filter_map(|number| connected.enter(&mut rng, now, peer(number), in_network(200))).collect();
        assert_eq!((connected.nodes.len(), gone.len()), (MOST, 50 + 2000 - MOST));
        assert!(others.iter().all(|other| connected.ip(other).is_some()));
        // And who comes then has a place.
        let late = peer(5000);
        assert!(connected.enter(&mut rng, now, late, in_network(60)).is_some_and(|gone| !others.contains(&gone)));
        assert!(connected.ip(&late).is_some());
    }

    /// A node that connects twice has one place, and is as old as its first connection.
    #[test]
    fn of_too_many_those_that_had_their_use_go() {
        let (mut connected, mut rng, now) =
            (Connected::new(Spread::Prefixes), StdRng::seed_from_u64(1), Instant::now());
        for number in 0..100 {
            connected.enter(&mut rng, now, peer(number), in_network(number as u8));
        }
        let later = now + TRIED;
        connected.enter(&mut rng, later, peer(0), in_network(0));
        for number in 100..110 {
            connected.enter(&mut rng, later, peer(number), in_network(number as u8));
        }
        assert_eq!(connected.surplus(&mut rng, later - Duration::from_secs(1)), []);
        let surplus = connected.surplus(&mut rng, later);
        assert_eq!(surplus.len(), 110 - ENOUGH);
        assert!((100..110).all(|number| !surplus.contains(&peer(number))));
        surplus.iter().for_each(|peer| connected.leave(peer));
        assert_eq!(connected.surplus(&mut rng, later), []);
    }
}
