//! The routing table, which FIND_NODE and bundles tell to every stranger, beside the sample, of which paths are made: neither is filled from
//! the other.
//!
//! Places have the nodes of the configuration and of a bundle, those that had one when this node last ran, and those that are connected,
//! for whatever reason. The sample has those whom look-ups of random keys find: whom a node happens to keep connected is some of all
//! that look-ups pass on their way, and hardly ever of the sample.

use libp2p::{Multiaddr, PeerId};
use phantom_proto::ident::{NodeId, Operator};
use phantom_proto::wire::NodeContact;

use super::super::transport::{contact, identity_key, multiaddr, peer_id};
use super::Task;

/// Of the 20 places of a bucket, those that nodes of one operator have at most.
// protocol: D43
const OF_OPERATOR: usize = 4;

impl Task {
    /// Everybody who has a place, and where.
    pub(super) fn placed(&mut self) -> Vec<NodeContact> {
        let buckets = self.kad().kbuckets();
        let addresses: Vec<Multiaddr> = buckets
            .flat_map(|bucket| bucket.iter().map(|entry| entry.node.value.first().clone()).collect::<Vec<_>>())
            .collect();
        addresses.iter().filter_map(contact).collect()
    }

    /// Gives a node a place: one that may be told to others.
    // protocol: D36
    pub(super) fn add(&mut self, contact: &NodeContact) {
        if let (Some(peer), Some(addr)) = (peer_id(&contact.identity), multiaddr(contact))
            && peer != self.own
        {
            self.give_place(&peer, addr);
        }
    }

    /// Gives a node a place, if of its distance from this one not too many are of its operator: who has many identities in one network
    /// would have all of them. In a full bucket it waits until it is seen that one that is not connected does not answer either; all
    /// others stay.
    // protocol: D43
    pub(super) fn give_place(&mut self, peer: &PeerId, addr: Multiaddr) {
        let operator = |peer: &PeerId, addr: &Multiaddr| {
            let (key, at) = (identity_key(peer)?, contact(addr)?);
            Some(Operator::of(self.spread, NodeId::of(&key), at.addr.ip()))
        };
        let own = operator(peer, &addr);
        let bucket = self.swarm.behaviour_mut().kad.kbucket(*peer);
        let others = bucket.iter().flat_map(|bucket| bucket.iter()).filter(|entry| entry.node.key.preimage() != peer);
        let of_operator = others.filter(|entry| operator(entry.node.key.preimage(), entry.node.value.first()) == own);
        if of_operator.count() < OF_OPERATOR {
            self.kad().add_address(peer, addr);
        }
    }
}

#[cfg(test)]
mod tests;
