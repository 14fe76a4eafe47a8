//! Reading and writing records: Kademlia finds the nodes of a key's region, requests of our own ask them, and the rules of
//! `phantom_proto::netdb` say who is asked and what the answers mean.
//!
//! ```text
//!   inquire ── nearest to the key ──┬─────────────────────────┬── ask all of them ── verdict: found, none, not sure
//!                                   └─ points of the region ──┘                      outcome: stands, refused, again later
//! ```

use std::collections::HashMap;
use std::time::Duration;

use libp2p::kad::{K_VALUE, KBucketKey};
use libp2p::request_response::{self, Message, OutboundRequestId};
use libp2p::{Multiaddr, PeerId, kad};
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::ident::{NodeId, Operator};
use phantom_proto::netdb::{
    self, Answer, Ballot, Claim, Ended, Key, Met, NotKept, Place, Publisher, Request, Search, Standing, Tally, Value,
    Verdict, Written,
};
use phantom_proto::record::NodeRecord;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::transport::{contact, identity_key, peer_id};
use super::handle::Looked;
use super::{DatabaseError, QueryId, Stands, Task, local};
use crate::clock::unix_seconds;

/// Whom a look-up of an AP record asks at most, and a publication.
// protocol: D32
const REGION_MOST: usize = 128;

/// And the look-up of a node's record, which somebody waits for, or which fills the sample: others will be met.
const NODE_MOST: usize = 20;
const SAMPLE_MOST: usize = 5;

/// Look-ups for the sample at once: what is met beyond that is met again.
const FOR_SAMPLE: usize = 24;

/// When a record that too few keep is written again; each wait is twice the one before it.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MOST: Duration = Duration::from_secs(600);

/// What an inquiry is for; `of` whose, if it is not this node's.
pub(super) enum Aim {
    /// A record that somebody waits for.
    Read { answer_tx: oneshot::Sender<Looked>, of: Option<Claim> },
    /// A node's record, for the sample.
    Sample,
    /// An AP record of somebody who uses a path that ends here.
    Publish { record: Vec<u8>, done_tx: oneshot::Sender<Result<(), DatabaseError>>, wait: Duration, of: Option<Claim> },
    /// This node's own record.
    Own { record: Vec<u8>, wait: Duration },
}

/// One key that is asked about.
pub(super) struct Inquiry {
    key: Key,
    pub(super) aim: Aim,
    search: Search,
    /// Where the nodes are that were found.
    addresses: HashMap<PeerId, Vec<Multiaddr>>,
    /// Look-ups under way. The first has ended as soon as there is a second.
    lookups: usize,
    has_looked_further: bool,
    votes: Votes,
}

enum Votes {
    None,
    Tally(Tally),
    Ballot(Ballot),
}

/// All inquiries under way.
#[derive(Default)]
pub(super) struct Exchange {
    last: u64,
    pub(super) inquiries: HashMap<u64, Inquiry>,
    lookups: HashMap<QueryId, u64>,
    requests: HashMap<OutboundRequestId, (u64, Operator)>,
    /// Publications that too few confirmed.
    pub(super) again: Vec<(Instant, Key, Aim)>,
}

impl Exchange {
    /// Whether a node's record may be asked for, for the sample: not twice at once, and not more than a round's.
    pub(super) fn has_room_for(&self, key: &Key) -> bool {
        let mut asked = self.inquiries.values().filter(|inquiry| matches!(inquiry.aim, Aim::Sample));
        asked.clone().count() < FOR_SAMPLE && !asked.any(|inquiry| inquiry.key == *key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.inquiries.len()
    }

    #[cfg(test)]
    pub(super) fn wait(&mut self, at: Instant, key: Key, aim: Aim) {
        self.again.push((at, key, aim));
    }
}

impl Aim {
    fn most(&self, key: &Key) -> usize {
        match self {
            Self::Sample => SAMPLE_MOST,
            Self::Read { .. } if netdb::Table::of(key) == Some(netdb::Table::Nodes) => NODE_MOST,
            Self::Read { .. } | Self::Publish { .. } | Self::Own { .. } => REGION_MOST,
        }
    }

    fn votes(&self, key: Key, asked: impl Iterator<Item = Operator>, is_whole: bool) -> Votes {
        match self {
            Self::Read { .. } | Self::Sample => Votes::Tally(Tally::new(key, asked, is_whole)),
            Self::Publish { .. } | Self::Own { .. } => Votes::Ballot(Ballot::new(asked)),
        }
    }

    fn request(&self, key: Key) -> Request {
        match self {
            Self::Read { .. } | Self::Sample => Request::Get(key),
            Self::Publish { record, .. } | Self::Own { record, .. } => Request::Put(key, record.clone()),
        }
    }

    pub(super) fn fail(self, error: DatabaseError) {
        match self {
            Self::Read { answer_tx, .. } => drop(answer_tx.send(Err(error))),
            Self::Publish { done_tx, .. } => drop(done_tx.send(Err(error))),
            Self::Own { .. } => tracing::warn!(%error, "this node's record could not be published"),
            Self::Sample => {}
        }
    }
}

impl Task {
    /// Begins to ask about a key.
    pub(super) fn inquire(&mut self, key: Key, aim: Aim) {
        if !self.exchange.makes_room(&mut crate::random(), &key, &aim) {
            return aim.fail(local("too much is asked for at once"));
        }
        let query = self.kad().get_closest_peers(key.to_vec());
        let search = Search::new(&key, self.region.writers());
        let inquiry = Inquiry {
            key,
            aim,
            search,
            addresses: HashMap::new(),
            lookups: 1,
            has_looked_further: false,
            votes: Votes::None,
        };
        self.exchange.last += 1;
        self.exchange.inquiries.insert(self.exchange.last, inquiry);
        self.exchange.lookups.insert(query, self.exchange.last);
    }

    /// Publishes under the same rules as others' records. What stands here already says at once what would be refused elsewhere.
    // protocol: D16
    pub(super) fn publish(&mut self, key: Key, aim: Aim) {
        let (Aim::Publish { record, .. } | Aim::Own { record, .. }) = &aim else { return };
        if self.bars(&key, record) {
            return aim.fail(local("maintainers have banned it: `phantom command list`"));
        }
        let reach = self.region.storers();
        match self.shelf.put(unix_seconds(), reach, &key, record, &self.publisher) {
            // Whether there is a place for it here says nothing of other nodes.
            Ok(()) | Err(NotKept::Far | NotKept::Full) => self.inquire(key, aim),
            Err(error) => aim.fail(local(error)),
        }
    }

    /// A look-up of Kademlia has ended with these. False: it was for no inquiry.
    // protocol: D31
    pub(super) fn looked(&mut self, query: QueryId, peers: Vec<kad::PeerInfo>, ended: Ended) -> bool {
        let Some(number) = self.exchange.lookups.remove(&query) else { return false };
        let met: Vec<_> = peers.iter().filter_map(|peer| self.met(peer)).collect();
        let Some(inquiry) = self.exchange.inquiries.get_mut(&number) else { return true };
        inquiry.search.found(met, ended);
        inquiry.addresses.extend(peers.into_iter().map(|peer| (peer.peer_id, peer.addrs)));
        inquiry.lookups -= 1;
        if !std::mem::replace(&mut inquiry.has_looked_further, true) {
            let points = inquiry.search.more(&mut crate::random());
            inquiry.lookups = points.len();
            for point in points {
                let query = self.kad().get_closest_peers(point.to_vec());
                self.exchange.lookups.insert(query, number);
            }
        }
        if self.exchange.inquiries.get(&number).is_some_and(|inquiry| inquiry.lookups == 0) {
            self.ask(number);
        }
        true
    }

    /// A node that answered a look-up: the address from which or at which it is connected says whose it is.
    pub(super) fn met(&self, peer: &kad::PeerInfo) -> Option<Met> {
        let identity = identity_key(&peer.peer_id)?;
        let own_addr = |addr: &Multiaddr| contact(addr).filter(|contact| contact.identity == identity);
        let said = || peer.addrs.iter().find_map(own_addr).map(|contact| contact.addr.ip());
        let ip = self.nodes.ip(&peer.peer_id).or_else(said)?;
        Some(Met { identity, operator: Operator::of(self.spread, NodeId::of(&identity), ip) })
    }

    /// The nearest nodes of the routing table with which a connection stands.
    fn neighbours(&mut self, key: &Key) -> Vec<Met> {
        let place = KBucketKey::new(key.to_vec());
        let near: Vec<_> = self.kad().get_closest_local_peers(&place).map(|peer| *peer.preimage()).collect();
        let connected = near.into_iter().filter(|peer| self.swarm.is_connected(peer));
        let met = |peer_id| self.met(&kad::PeerInfo { peer_id, addrs: Vec::new() });
        connected.filter_map(met).take(K_VALUE.get()).collect()
    }

    /// Asks whom the search has found, and neighbours that are near.
    // protocol: D39
    fn ask(&mut self, number: u64) {
        let Some(key) = self.exchange.inquiries.get(&number).map(|inquiry| inquiry.key) else { return };
        let neighbours = self.neighbours(&key);
        let Some(inquiry) = self.exchange.inquiries.get_mut(&number) else { return };
        inquiry.search.knows(neighbours);
        let now = unix_seconds();
        let chosen = inquiry.search.chosen(&mut crate::random(), inquiry.aim.most(&key));
        let request = inquiry.aim.request(key);
        inquiry.votes = inquiry.aim.votes(key, chosen.iter().map(|met| met.operator), inquiry.search.is_whole());
        if let (Votes::Tally(tally), Some(record)) = (&mut inquiry.votes, self.shelf.get(now, &key)) {
            tally.know(now, record.to_vec());
        }
        for met in chosen {
            let Some(peer) = peer_id(&met.identity) else { continue };
            let addresses = inquiry.addresses.remove(&peer).unwrap_or_default();
            let records = &mut self.swarm.behaviour_mut().records;
            let sent = records.send_request_with_addresses(&peer, request.clone(), addresses);
            self.exchange.requests.insert(sent, (number, met.operator));
        }
        self.conclude(number);
    }

    pub(super) fn records_event(&mut self, event: request_response::Event<Request, Answer>) {
        match event {
            request_response::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let answer = self.serve(&peer, request);
                // Whoever asked may have gone.
                let _ = self.swarm.behaviour_mut().records.send_response(channel, answer);
            }
            request_response::Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.answered(request_id, Some(response));
            }
            request_response::Event::OutboundFailure { request_id, .. } => self.answered(request_id, None),
            request_response::Event::InboundFailure { .. } | request_response::Event::ResponseSent { .. } => {}
        }
    }

    /// What another node asks of the shelf. What it brings does not enter the sample: what others push must not fill it.
    // protocol: D25, J2
    fn serve(&mut self, peer: &PeerId, request: Request) -> Answer {
        let now = unix_seconds();
        match request {
            Request::Get(key) => {
                self.shelf.get(now, &key).map_or(Answer::Nothing, |record| Answer::Record(record.to_vec()))
            }
            Request::Put(key, record) => {
                let publisher = identity_key(peer).and_then(|identity| {
                    let ip = self.nodes.ip(peer)?;
                    Some(Publisher { identity, operator: Operator::of(self.spread, NodeId::of(&identity), ip) })
                });
                let Some(publisher) = publisher.filter(|_| !self.bars(&key, &record)) else { return Answer::Refused };
                let put = self.shelf.put(now, self.region.storers(), &key, &record, &publisher);
                if let Err(error) = &put {
                    tracing::debug!(%error, "a record was refused");
                }
                put.into()
            }
        }
    }

    fn answered(&mut self, request: OutboundRequestId, answer: Option<Answer>) {
        let Some((number, operator)) = self.exchange.requests.remove(&request) else { return };
        let Some(inquiry) = self.exchange.inquiries.get_mut(&number) else { return };
        match &mut inquiry.votes {
            Votes::Tally(tally) => tally.hear(unix_seconds(), operator, answer),
            Votes::Ballot(ballot) => ballot.hear(operator, answer.as_ref()),
            Votes::None => {}
        }
        self.conclude(number);
    }

    /// Ends an inquiry whose answers suffice.
    fn conclude(&mut self, number: u64) {
        let Some(inquiry) = self.exchange.inquiries.get(&number) else { return };
        match &inquiry.votes {
            Votes::Tally(tally) => {
                if let Some(verdict) = tally.verdict()
                    && let Some(inquiry) = self.exchange.inquiries.remove(&number)
                {
                    self.read(inquiry, verdict);
                }
            }
            Votes::Ballot(ballot) => {
                if let Some(written) = ballot.outcome()
                    && let Some(inquiry) = self.exchange.inquiries.remove(&number)
                {
                    self.written(inquiry, written);
                }
            }
            Votes::None => {}
        }
    }

    // protocol: D7, D33
    fn read(&mut self, inquiry: Inquiry, verdict: Verdict) {
        let looked = match verdict {
            Verdict::Found(found) if self.is_barred(&inquiry.key, &found.0) => Ok(None),
            Verdict::Found(found) => {
                let (value, bytes) = *found;
                if let Value::Node(record) = &value {
                    let for_sample = matches!(inquiry.aim, Aim::Sample);
                    self.learn(NodeRecord::clone(record), bytes.clone(), for_sample);
                }
                Ok(Some((value, bytes)))
            }
            Verdict::Absent => Ok(None),
            Verdict::Unsure if self.swarm.connected_peers().next().is_none() => {
                Err(local("no node of the network is connected"))
            }
            Verdict::Unsure => Err(DatabaseError::Unsure),
            Verdict::Contradicted => {
                self.contradicted(&inquiry.key);
                Err(DatabaseError::Contradicted)
            }
        };
        if let Aim::Read { answer_tx, .. } = inquiry.aim {
            let _ = answer_tx.send(looked);
        }
    }

    /// A node gave different nodes different keys for one epoch: whoever builds with one of them may be told by it.
    fn contradicted(&mut self, key: &Key) {
        tracing::warn!("a node has published different keys for one epoch; it is left out");
        self.sample.forget(|id| netdb::node_key(id) == *key);
        self.tell();
    }

    // protocol: D34
    fn written(&mut self, inquiry: Inquiry, written: Written) {
        let (key, now) = (inquiry.key, unix_seconds());
        let (Written::Stands(standing) | Written::TooFew(standing) | Written::Refused(standing)) = written;
        if matches!(&inquiry.aim, Aim::Own { record, .. } if self.own_record.as_ref() == Some(record)) {
            self.own_stands(now, standing, matches!(written, Written::Stands(_)));
        }
        match (inquiry.aim, written) {
            (Aim::Publish { done_tx, .. }, Written::Stands(_)) => drop(done_tx.send(Ok(()))),
            (aim @ Aim::Publish { .. }, Written::Refused(_)) => aim.fail(local("other nodes refuse the record")),
            (Aim::Publish { record, done_tx, wait, of }, Written::TooFew(_)) => {
                let next = Aim::Publish { record, done_tx, wait: AGAIN_MOST.min(wait * 2), of };
                self.exchange.again.push((Instant::now() + wait, key, next));
            }
            (Aim::Own { record, wait }, Written::Refused(_) | Written::TooFew(_)) => {
                let next = Aim::Own { record, wait: AGAIN_MOST.min(wait * 2) };
                self.exchange.again.push((Instant::now() + wait, key, next));
            }
            (Aim::Own { .. } | Aim::Read { .. } | Aim::Sample, _) => {}
        }
    }

    fn own_stands(&mut self, now: u64, standing: Standing, stands: bool) {
        let since = self.stands.and_then(|before| before.since).or(Some(now)).filter(|_| stands);
        self.stands = Some(Stands { keep: standing.keep, asked: standing.asked, since });
        self.tell();
    }

    /// Writes again what too few keep, as long as it holds and somebody wants it.
    pub(super) fn write_again(&mut self) {
        let now = Instant::now();
        let due = |(at, ..): &mut (Instant, Key, Aim)| *at <= now;
        let due: Vec<_> = self.exchange.again.extract_if(.., due).collect();
        for (_, key, aim) in due {
            let wanted = match &aim {
                Aim::Own { record, .. } => self.own_record.as_ref() == Some(record),
                Aim::Publish { record, done_tx, .. } => {
                    !done_tx.is_closed() && netdb::check(unix_seconds(), &key, record).is_ok()
                }
                Aim::Read { .. } | Aim::Sample => false,
            };
            if wanted {
                self.publish(key, aim);
            } else {
                aim.fail(local("too few nodes kept the record until it was over"));
            }
        }
    }

    /// The first wait before a record is written again.
    pub(super) fn publication(
        record: Vec<u8>,
        done_tx: oneshot::Sender<Result<(), DatabaseError>>,
        of: Option<Claim>,
    ) -> Aim {
        Aim::Publish { record, done_tx, wait: AGAIN, of }
    }

    /// This node's record, from the beginning: what waited to be written again waits no more.
    pub(super) fn publish_own(&mut self, key: Key, record: Vec<u8>) {
        self.exchange.again.retain(|(_, _, aim)| !matches!(aim, Aim::Own { .. }));
        self.publish(key, Aim::Own { record, wait: AGAIN });
    }

    /// The nodes near a random point were looked for.
    // protocol: D28
    pub(super) fn measure(&mut self, target: &[u8], peers: &[kad::PeerInfo]) {
        let place = |identity: &VerifyingKey| Place::of_node(identity);
        let met: Vec<_> = peers.iter().filter_map(|peer| self.met(peer)).collect();
        let nodes = met.iter().map(|met| (place(&met.identity), met.operator));
        self.region.measured(unix_seconds(), &Place::of_key(target), nodes);
    }
}
