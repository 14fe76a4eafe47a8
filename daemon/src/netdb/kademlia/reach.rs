//! Whether nodes are where they say themselves that they are. Others may say of a node that it is elsewhere: that it does not answer there
//! says nothing of it.

use libp2p::core::ConnectedPoint;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use phantom_proto::ident::NodeId;
use phantom_proto::netdb::Term;

use super::super::transport::contact;
use super::{Task, node_id};
use crate::clock::unix_seconds;

impl Task {
    /// A term of an earlier run. What the disk has that cannot be read is a hint that is lost.
    pub(super) fn restore_term(&mut self, now: u64, id: Vec<u8>, term: &[u8]) {
        if let (Ok(id), Some(term)) = (id.try_into(), Term::from_bytes(term)) {
            self.sample.restore_term(now, NodeId(id), term);
        }
    }

    /// A node is connected.
    pub(super) fn reached(&mut self, peer: &PeerId, endpoint: &ConnectedPoint) {
        let Some(id) = node_id(peer) else { return };
        self.sample.connected(unix_seconds(), &id);
        if endpoint.is_dialer()
            && let Some(at) = contact(endpoint.get_remote_address())
        {
            self.sample.reached(unix_seconds(), &at);
        }
    }

    /// A node was not reached. One of which there is a record is silent when it does not answer where that says that it is; if it was sought
    /// elsewhere, it is sought there.
    // protocol: J18
    pub(super) fn not_reached(&mut self, peer: &PeerId, error: &DialError) {
        let known = node_id(peer).and_then(|id| Some((id, self.sample.contact(&id)?.clone())));
        if let Some((id, known)) = known {
            let is_there = |addr: &Multiaddr| contact(addr).as_ref() == Some(&known);
            let sought_there = match error {
                DialError::Transport(tried) => tried.iter().any(|(addr, _)| is_there(addr)),
                DialError::WrongPeerId { address, .. } => is_there(address),
                DialError::NoAddresses => false,
                // It was not sought at all.
                _ => return,
            };
            if sought_there {
                self.sample.unreachable(&mut crate::random(), unix_seconds(), id);
            } else {
                self.connect(&known);
            }
        }
        self.tell();
    }
}
