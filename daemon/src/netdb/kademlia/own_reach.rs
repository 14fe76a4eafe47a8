//! Whether others can open links to this node: some that are connected are asked to, and this node does so for others. One that cannot be
//! reached is a client of the DHT, and publishes no record (docs/protocol.md, section 7.7). What the answers mean says
//! `phantom_proto::netdb::Reach`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::kad::Mode;
use libp2p::request_response::{self, Message, ProtocolSupport, ResponseChannel};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{PeerId, StreamProtocol};
use phantom_proto::ident::{NodeId, Operator};
use phantom_proto::netdb::{ASKED, Reach, Tried};
use phantom_proto::wire::NodeContact;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::messages::Messages;
use super::super::transport::{multiaddr, peer_id};
use super::{Task, node_id};
use crate::link::may_dial;

/// The protocol's name.
const REACH: StreamProtocol = StreamProtocol::new("/phantom/reach/1");

/// How long an answer is waited for: the other side opens a link meanwhile.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// For how many nodes at once this one looks whether they can be reached, for how many of one operator, and how soon again for one. Links
/// that come to nothing take their time: whoever asks for many must not keep the others' from being tried.
// protocol: J20
const TRIES: usize = 16;
const TRIES_OF_ONE: usize = 4;
const TRIED_FOR: Duration = Duration::from_secs(60);

/// Nodes that are remembered for that.
const REMEMBERED: usize = 4096;

/// The behaviour that carries questions and answers.
pub(in super::super) type Asking = request_response::Behaviour<Messages<NodeContact, Tried>>;

// protocol: J19
pub(in super::super) fn asking() -> Asking {
    let config = request_response::Config::default().with_request_timeout(ANSWER_LIMIT).with_max_concurrent_streams(2);
    Asking::with_codec(Messages::of(NodeContact::LEN, 1), [(REACH, ProtocolSupport::Full)], config)
}

/// What is known, and what is under way.
pub(super) struct OwnReach {
    /// `None`: the operator has said it.
    tests: Option<Reach>,
    is_reachable: Option<bool>,
    /// Links that are being opened because somebody asked.
    tries: HashMap<ConnectionId, (Operator, ResponseChannel<Tried>)>,
    /// For whom that was done of late.
    tried: HashMap<PeerId, Instant>,
}

impl OwnReach {
    /// What the operator says, or what tests will.
    pub(super) fn new(said: Option<bool>) -> Self {
        let tests = said.is_none().then(Reach::default);
        Self { tests, is_reachable: said, tries: HashMap::new(), tried: HashMap::new() }
    }

    /// This node is elsewhere: what tests have found out is of another place.
    fn begin_anew(&mut self) {
        if self.tests.is_some() {
            (self.tests, self.is_reachable) = (Some(Reach::default()), None);
        }
    }

    /// Whether others can open links to this node; nothing before that is known.
    pub(super) fn known(&self) -> Option<bool> {
        self.is_reachable
    }

    /// Whether a link may be opened because this node asks for it.
    // protocol: J20
    fn may_try(&mut self, now: Instant, peer: PeerId, operator: Operator) -> bool {
        self.tried.retain(|_, at| now.duration_since(*at) < TRIED_FOR);
        let under_way = self.tries.values().map(|(operator, _)| *operator);
        let may = has_room(under_way, operator) && self.tried.len() < REMEMBERED && !self.tried.contains_key(&peer);
        if may {
            self.tried.insert(peer, now);
        }
        may
    }
}

/// Whether one more may be tried beside these.
// protocol: J20
fn has_room(under_way: impl Iterator<Item = Operator>, one_more: Operator) -> bool {
    let under_way: Vec<_> = under_way.collect();
    let of_one = under_way.iter().filter(|operator| **operator == one_more).count();
    under_way.len() < TRIES && of_one < TRIES_OF_ONE
}

/// Whether a node that says that it is at `said` is connected from there: nobody may be sent elsewhere. Addresses of IPv6 change within
/// their network each day.
// protocol: J20
fn is_there(said: IpAddr, from: IpAddr) -> bool {
    match (said.to_canonical(), from.to_canonical()) {
        (IpAddr::V6(said), IpAddr::V6(from)) => said.octets()[..8] == from.octets()[..8],
        (said, from) => said == from,
    }
}

impl Task {
    /// As the DHT is to know this node.
    // protocol: J23, J24, Q22
    pub(super) fn take_part(&mut self) {
        let is_reachable = self.own_reach.known() == Some(true);
        // Before the word that it takes part: the address goes with that.
        match multiaddr(&self.own_contact) {
            Some(addr) if is_reachable => self.swarm.add_external_address(addr),
            Some(addr) => self.swarm.remove_external_address(&addr),
            None => {}
        }
        self.kad().set_mode(Some(if is_reachable { Mode::Server } else { Mode::Client }));
        if is_reachable {
            self.register();
        }
        self.tell();
    }

    /// Asks some whether they reach this node, when it is time to.
    // protocol: J21, J25
    pub(super) fn look_at_reach(&mut self, seconds: u64) {
        let Some(tests) = &mut self.own_reach.tests else { return };
        if let Some(is_reachable) = tests.look(&mut crate::random(), seconds) {
            tracing::info!(is_reachable, "whether other computers can open links to this one");
            self.own_reach.is_reachable = Some(is_reachable);
            self.take_part();
        } else if tests.is_due(seconds) {
            let (asked, in_vain) = self.ask_back();
            if let Some(tests) = &mut self.own_reach.tests {
                tests.ask(seconds, asked);
                in_vain.into_iter().for_each(|node| tests.answered(seconds, node));
            }
        }
    }

    /// Asks three connected nodes, of different operators as far as there are, that are connected by the family of this node's address:
    /// all of them, and those of them to whom nothing was said, since they could not come. They would learn the address that this computer
    /// has behind its router.
    // protocol: J25
    fn ask_back(&mut self) -> (BTreeSet<NodeId>, Vec<NodeId>) {
        let is_v4 = self.own_contact.addr.ip().to_canonical().is_ipv4();
        let place = |peer: &PeerId| self.nodes.ip(peer).filter(|ip| ip.to_canonical().is_ipv4() == is_v4);
        let mut peers: Vec<_> = self.swarm.connected_peers().filter_map(|peer| Some((*peer, place(peer)?))).collect();
        peers.shuffle(&mut crate::random());
        let mut operators = BTreeSet::new();
        let spread = self.spread;
        // The first of each operator before the second of any.
        peers.sort_by_cached_key(|(peer, ip)| {
            node_id(peer).is_none_or(|id| !operators.insert(Operator::of(spread, id, *ip).name().to_vec()))
        });
        peers.truncate(ASKED);
        let question = self.own_contact.clone();
        let may_come = |ip: &IpAddr| may_dial(*ip, question.addr.ip());
        let asking = &mut self.swarm.behaviour_mut().asking;
        for (peer, _) in peers.iter().filter(|(_, ip)| may_come(ip)) {
            asking.send_request(peer, question.clone());
        }
        let in_vain = peers.iter().filter(|(_, ip)| !may_come(ip)).filter_map(|(peer, _)| node_id(peer)).collect();
        (peers.iter().filter_map(|(peer, _)| node_id(peer)).collect(), in_vain)
    }

    pub(super) fn asking_event(&mut self, event: request_response::Event<NodeContact, Tried>) {
        let request_response::Event::Message { peer, message, .. } = event else { return };
        match message {
            Message::Request { request, channel, .. } => self.try_to_reach(peer, &request, channel),
            Message::Response { response: Tried, .. } => {
                if let (Some(tests), Some(id)) = (&mut self.own_reach.tests, node_id(&peer)) {
                    tests.answered(self.seconds, id);
                }
            }
        }
    }

    /// Opens a link to a node that asks for it, to let go of it at once.
    // protocol: J20
    fn try_to_reach(&mut self, peer: PeerId, to: &NodeContact, channel: ResponseChannel<Tried>) {
        let is_its_own = peer_id(&to.identity) == Some(peer);
        let from = self.nodes.ip(&peer).filter(|from| is_there(to.addr.ip(), *from));
        let (Some(from), Some(id), Some(addr), true) = (from, node_id(&peer), multiaddr(to), is_its_own) else {
            return self.say_tried(channel);
        };
        let operator = Operator::of(self.spread, id, from);
        // Silence counts for nothing. "Tried" would count as a link that did not come.
        if !self.own_reach.may_try(Instant::now(), peer, operator) {
            return;
        }
        let options = DialOpts::peer_id(peer).addresses(vec![addr]).condition(PeerCondition::Always).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.own_reach.tries.insert(connection, (operator, channel))),
            Err(_) => self.say_tried(channel),
        }
    }

    fn say_tried(&mut self, channel: ResponseChannel<Tried>) {
        // Whoever asked may have gone.
        let _ = self.swarm.behaviour_mut().asking.send_response(channel, Tried);
    }

    /// A link that was tried stands, or does not come about.
    pub(super) fn tried(&mut self, connection: ConnectionId) {
        if let Some((_, channel)) = self.own_reach.tries.remove(&connection) {
            self.say_tried(channel);
            // One that failed is no more.
            self.swarm.close_connection(connection);
        }
    }

    /// A connection stands: somebody may have come because this node asked.
    pub(super) fn came(&mut self, peer: &PeerId, endpoint: &ConnectedPoint) {
        let (Some(tests), Some(id)) = (&mut self.own_reach.tests, node_id(peer)) else { return };
        if endpoint.is_listener() {
            tests.came(id);
            // So somebody can who could not, or who is near.
            if self.own_reach.is_reachable != Some(true) {
                tests.hurry(self.seconds);
            }
        } else if self.own_reach.is_reachable.is_none() {
            // The first that is connected.
            tests.hurry(self.seconds);
        }
        self.look_at_reach(self.seconds);
    }

    /// Others reach this node elsewhere, if they can. Its record of there comes by [`super::Command::Register`].
    // protocol: J26
    pub(super) fn at(&mut self, contact: NodeContact) {
        if let Some(old) = multiaddr(&self.own_contact) {
            self.swarm.remove_external_address(&old);
        }
        self.own_contact = contact;
        self.publisher.operator = Operator::of(self.spread, self.own_contact.node_id(), self.own_contact.addr.ip());
        self.own_reach.begin_anew();
        self.take_part();
        // They were opened from where this node is no more, and who is asked looks from where it is connected.
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// This computer is in another network.
    pub(super) fn moved(&mut self) {
        let seconds = self.seconds;
        self.own_reach.tests.as_mut().into_iter().for_each(|tests| tests.hurry(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: J20
    #[test]
    fn one_operator_leaves_places_to_others() {
        let of = |number: usize| Operator::V4([10, number as u8]);
        let crowd = vec![of(1); TRIES_OF_ONE];
        assert!(!has_room(crowd.iter().copied(), of(1)) && has_room(crowd.iter().copied(), of(2)));
        assert!(has_room(crowd.into_iter().skip(1), of(1)));
        assert!(!has_room((0..TRIES).map(of), of(99)) && has_room((1..TRIES).map(of), of(99)));
    }
}
