//! The real database: libp2p's Kademlia over our links, under the rules of `phantom_proto::netdb`.

mod commands;
mod exchange;
mod handle;
mod joining;
mod own_reach;
mod reach;
mod room;
mod table;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::Transport as _;
use libp2p::core::multiaddr::Protocol;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetClosestPeersError, QueryId, QueryResult};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm, identify, swarm};
use phantom_proto::ident::{NodeId, Operator, Spread};
use phantom_proto::netdb::{self, Ended, Publisher, QUOTA, Region, SAMPLE, Sample, Shelf};
use phantom_proto::record::{NodeRecord, Signed};
use phantom_proto::wire::{NodeContact, Wire as _};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::exchange::{Aim, Exchange};
use self::handle::Command;
pub use self::handle::NetDb;
use self::own_reach::OwnReach;
pub(super) use self::own_reach::{Asking, asking};
use super::DatabaseError;
use super::alone::Alone;
use super::behaviour::{Behaviour, BehaviourEvent, KAD, QUERY_LIMIT};
use super::commands::Commands;
use super::connected::{Connected, ENOUGH};
use super::rounds::Rounds;
use super::transport::{LinkTransport, contact, multiaddr, peer_id};
use crate::clock::unix_seconds;
use crate::link::{self, Link};

/// How often it is looked which records of the sample are due to be asked for anew, in seconds, and how many are at once: 512 in half an
/// hour.
const RENEW_EVERY: u64 = 30;
const RENEW: usize = 8;

/// How often nodes that do not answer are tried again, in seconds, and how many at once: one that was restarted is found within
/// seconds, and a dead one costs a dial now and then.
const SILENT_EVERY: u64 = 10;
const SILENT_AT_ONCE: usize = 4;

/// Contacts that are tried at once when nobody is connected, those of the configuration apart.
const PRIMES: usize = 16;

/// Tries in vain after which whoever is in the sample is tried as well: some five minutes.
const LAST_RESORT: u32 = 8;

/// When a node's own record is published again after its start, in seconds: early, since its first neighbours know few others.
const REGISTER_AT: [u64; 5] = [1, 3, 6, 12, 30];

/// And from then on every so many seconds, when others have come that may have to keep it; and in any case every so many, since those
/// that keep it may have been started anew.
const REGISTER_NEWS: u64 = 600;
const REGISTER_EVERY: u64 = 3600;

/// How long a connection stays without a use: longer than the longest wait between two rounds, so that a quiet node is not alone.
const IDLE: Duration = Duration::from_secs(1800);

/// How often expired records are thrown out, in seconds.
const SWEEP_EVERY: u64 = 60;

/// What a [`NetDb`] needs.
pub struct NetDbConfig {
    /// This node.
    pub own: NodeContact,
    /// Nodes of the configuration.
    pub peers: Vec<NodeContact>,
    /// Nodes of an imported bundle, and of the routing table of an earlier run, as [`NetDb::some`] gave them.
    pub known: Vec<NodeContact>,
    /// Records of the sample of an earlier run, as [`NetDb::records`] gave them.
    pub records: Vec<Vec<u8>>,
    /// Since when nodes have been reached, as [`NetDb::terms`] gave it.
    pub terms: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of maintainers, as they were kept.
    pub commands: Commands,
    /// What was kept for others, as [`NetDb::shelf`] gave it.
    pub shelf: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which nodes have one voice.
    pub spread: Spread,
    /// Whether others can open links to this node, if its operator says so; else that is found out.
    pub reachable: Option<bool>,
    /// Opens links.
    pub links: Arc<dyn link::Transport>,
    /// Links that others opened for the database.
    pub incoming_rx: mpsc::Receiver<Link>,
}

/// What is known of the network.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Records of other nodes, checked.
    pub nodes: Vec<Arc<NodeRecord>>,
    /// How many nodes are connected for the database just now.
    pub connected: usize,
    /// Which these are.
    pub connected_to: HashSet<NodeId>,
    /// Nodes of `nodes` that did not answer when the database dialed them last.
    pub silent: HashSet<NodeId>,
    /// When nodes of `nodes` were last connected, in seconds since 1970.
    pub seen: HashMap<NodeId, u64>,
    /// Nobody is connected, and what is done about it.
    pub alone: Option<Alone>,
    /// Whether others can open links to this node; none before that is known.
    pub reachable: Option<bool>,
    /// Who keeps this node's own record; none before its first publication has ended.
    pub stands: Option<Stands>,
}

/// How it stands with a record of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    /// How many of those who were asked to keep it said that they do. Nodes of one operator count as one.
    pub keep: usize,
    /// How many were asked.
    pub asked: usize,
    /// Since when more than half do, in seconds since 1970. `None`: fewer.
    pub since: Option<u64>,
}

struct Task {
    swarm: Swarm<Behaviour>,
    own: PeerId,
    own_contact: NodeContact,
    own_record: Option<Vec<u8>>,
    /// Who keeps it.
    stands: Option<Stands>,
    exchange: Exchange,
    region: Region,
    shelf: Shelf,
    /// This node, as it brings records.
    publisher: Publisher,
    spread: Spread,
    sample: Sample,
    commands: Commands,
    answered: commands::Answered,
    rounds: Rounds,
    asked: HashSet<PeerId>,
    /// Who is connected, since when and where.
    nodes: Connected,
    /// The look-up of a random point that is under way.
    point: Option<QueryId>,
    /// Whether others can open links to this node.
    own_reach: OwnReach,
    /// Since the task began.
    seconds: u64,
    /// Nodes have come since the own record was last published.
    newcomers: bool,
    /// Of the configuration.
    peers: Vec<NodeContact>,
    /// Of the routing table, now or once, and of bundles.
    contacts: Vec<NodeContact>,
    /// Of the sample when it was last known: not to be told to anybody without need.
    sampled: Vec<NodeContact>,
    alone: Option<Alone>,
    known_tx: watch::Sender<Known>,
}

fn local(error: impl std::fmt::Display) -> DatabaseError {
    DatabaseError::Unreachable(error.to_string())
}

impl Task {
    fn new(config: NetDbConfig, known_tx: watch::Sender<Known>) -> Result<Self, DatabaseError> {
        let own = peer_id(&config.own.identity).ok_or_else(|| local("this node's identity key is not valid"))?;
        let addr = multiaddr(&config.own).ok_or_else(|| local("this node's address cannot be written"))?;
        let transport = LinkTransport::new(config.links, config.incoming_rx).boxed();
        let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let behaviour = Behaviour::new(own, &config.own.identity).map_err(local)?;
        let mut swarm = Swarm::new(transport, behaviour, own, swarm_config);
        swarm.listen_on(addr).map_err(local)?;
        let mut task = Self {
            swarm,
            own,
            own_contact: config.own.clone(),
            own_record: None,
            stands: None,
            exchange: Exchange::default(),
            region: Region::default(),
            shelf: Shelf::new(&config.own.identity, QUOTA),
            publisher: Publisher {
                identity: config.own.identity,
                operator: Operator::of(config.spread, config.own.node_id(), config.own.addr.ip()),
            },
            spread: config.spread,
            sample: Sample::new(config.spread),
            commands: config.commands,
            answered: commands::Answered::default(),
            rounds: Rounds::default(),
            asked: HashSet::new(),
            nodes: Connected::new(config.spread),
            point: None,
            own_reach: OwnReach::new(config.reachable),
            seconds: 0,
            newcomers: false,
            peers: config.peers,
            contacts: config.known,
            sampled: Vec::new(),
            alone: None,
            known_tx,
        };
        let now = unix_seconds();
        for (key, entry) in &config.shelf {
            task.shelf.restore(now, key, entry);
        }
        for (id, term) in config.terms {
            task.restore_term(now, id, &term);
        }
        // By chance: there may be more than the sample has room for.
        let mut records = config.records;
        records.shuffle(&mut crate::random());
        records.into_iter().for_each(|bytes| task.remember(bytes));
        task.contacts.clone().iter().chain(&task.peers.clone()).for_each(|contact| task.add(contact));
        task.take_part();
        task.obey();
        Ok(task)
    }

    /// A record of an earlier run, if it still holds: paths can be planned before anybody has answered. It gives no place in the routing
    /// table.
    // protocol: J8, D35
    fn remember(&mut self, bytes: Vec<u8>) {
        self.sampled.extend(contact_in(&bytes));
        if let Ok(record) = Signed::<NodeRecord>::from_bytes(&bytes).map(|signed| signed.check(unix_seconds()))
            && let Ok(record) = record
            && peer_id(&record.contact.identity) != Some(self.own)
        {
            self.sample.restore(&mut crate::random(), record, bytes);
        }
    }

    async fn run(mut self, mut command_rx: mpsc::Receiver<Command>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = command_rx.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.event(event),
                _ = second.tick() => {
                    self.seconds += 1;
                    self.second(self.seconds);
                }
            }
        }
    }

    fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.swarm.behaviour_mut().kad
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join(contacts) => self.join(contacts),
            Command::Some { most, some_tx } => drop(some_tx.send(self.some(most))),
            Command::Register(record) => {
                self.own_record = Some(record);
                self.register();
            }
            Command::Put { key, origin, record, done_tx } => {
                self.publish(key, Self::publication(record, done_tx, self.claim(origin)));
            }
            Command::Get { key, origin, answer_tx } => {
                self.inquire(key, Aim::Read { answer_tx, of: self.claim(origin) })
            }
            Command::Pin(nodes) => self.sample.pin(nodes),
            Command::Heard(record) => self.heard(record),
            Command::Moved => self.moved(),
            Command::Contact(contact) => self.at(contact),
            Command::Take { command, taken_tx } => {
                let taken = self.take_command(&command).map_err(|error| error.to_string());
                if taken.is_ok() {
                    self.swarm.behaviour_mut().commands.publish(command);
                }
                let _ = taken_tx.send(taken);
            }
            Command::Allow { serial, allowed_tx } => {
                let allowed = self.commands.allow(unix_seconds(), serial).map_err(|error| error.to_string());
                self.obey();
                let _ = allowed_tx.send(allowed);
            }
            Command::Commands(state_tx) => drop(state_tx.send(self.commands.state())),
            Command::Records(records_tx) => {
                let records = self.sample.signed().map(|(id, bytes)| (id, bytes.to_vec())).collect();
                let _ = records_tx.send(records);
            }
            Command::Terms(terms_tx) => {
                let terms = self.sample.terms().map(|(id, term)| (id.0.to_vec(), term.to_bytes()));
                let _ = terms_tx.send(terms.collect());
            }
            Command::Shelf(shelf_tx) => drop(shelf_tx.send(self.shelf.entries().collect())),
        }
    }

    // protocol: Q22
    fn register(&mut self) {
        if self.own_reach.known() != Some(true) {
            return;
        }
        let Some(value) = self.own_record.clone() else { return };
        let Ok(signed) = Signed::<NodeRecord>::from_bytes(&value) else { return };
        let Ok(record) = signed.check(unix_seconds()) else { return };
        self.publish_own(netdb::node_key(&record.contact.node_id()), value);
    }

    fn second(&mut self, seconds: u64) {
        self.second_of_commands(seconds);
        if self.swarm.connected_peers().next().is_none() {
            return self.try_to_return();
        }
        self.look_at_reach(seconds);
        let newcomers = seconds.is_multiple_of(REGISTER_NEWS) && std::mem::take(&mut self.newcomers);
        if REGISTER_AT.contains(&seconds) || newcomers || seconds.is_multiple_of(REGISTER_EVERY) {
            self.register();
        }
        if seconds.is_multiple_of(REGISTER_NEWS) {
            // Two networks that lost each other melt into one again where somebody's configuration names both.
            self.peers.clone().iter().for_each(|peer| self.dial(peer));
        }
        if self.rounds.second(&mut crate::random(), self.sample.len()) {
            self.explore();
        }
        if seconds.is_multiple_of(RENEW_EVERY) {
            self.renew();
        }
        if seconds.is_multiple_of(SILENT_EVERY) {
            let silent = self.sample.some_silent(&mut crate::random(), SILENT_AT_ONCE);
            silent.iter().for_each(|contact| self.connect(contact));
        }
        if seconds.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
        self.write_again();
        self.disconnect_some();
    }

    /// Of too many connections any that have had their use go: which, says nothing.
    fn disconnect_some(&mut self) {
        for peer in self.nodes.surplus(&mut crate::random(), Instant::now()) {
            // It may have gone by itself meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Asks for the nodes near a random place, so that the sample is drawn from the whole network.
    fn explore(&mut self) {
        self.asked.clear();
        let mut target = [0; 32];
        crate::random().fill_bytes(&mut target);
        self.point = Some(self.kad().get_closest_peers(target.to_vec()));
    }

    /// Asks for newer records of nodes in the sample, whichever are due: those of a plan are no more among them than others.
    fn renew(&mut self) {
        for id in self.sample.take_due(&mut crate::random(), unix_seconds(), RENEW) {
            self.inquire(netdb::node_key(&id), Aim::Sample);
        }
    }

    /// Nobody is connected: tries those of the configuration and some of all others that ever had a place in the routing table, from time
    /// to time. Whom paths are made of is tried when there are none, or all was in vain, since whoever answers will be told to strangers.
    // protocol: J9
    fn try_to_return(&mut self) {
        if self.alone.is_some_and(|alone| Instant::now() < alone.next) {
            return;
        }
        // Before the records expire.
        let sampled = self.sample.records().map(|record| record.contact.clone()).collect();
        renew(&mut self.sampled, sampled);
        let placed = self.placed();
        renew(&mut self.contacts, placed);
        let rng = &mut crate::random();
        let mut some: Vec<_> = self.contacts.sample(rng, PRIMES).chain(&self.peers).cloned().collect();
        if some.is_empty() || self.alone.is_some_and(|alone| alone.tries >= LAST_RESORT) {
            some.extend(self.sampled.sample(rng, PRIMES).cloned());
        }
        self.alone = Some(Alone::after(self.alone, some.len(), rng, Instant::now()));
        some.iter().for_each(|contact| self.dial(contact));
        self.sample.sweep(unix_seconds());
        self.tell();
    }

    /// Connects to a node that may be told to others, if it is not connected yet.
    fn dial(&mut self, contact: &NodeContact) {
        // Of a node that did not answer the DHT forgets the address.
        self.add(contact);
        self.connect(contact);
    }

    fn connect(&mut self, contact: &NodeContact) {
        let (Some(peer), Some(addr)) = (peer_id(&contact.identity), multiaddr(contact)) else { return };
        if peer == self.own {
            return;
        }
        let options = DialOpts::peer_id(peer).addresses(vec![addr]);
        let options = options.condition(PeerCondition::DisconnectedAndNotDialing).build();
        // Connected or being dialed already: nothing to do.
        let _ = self.swarm.dial(options);
    }

    /// Asks once per round for the record of a node that is not in the sample.
    fn fetch(&mut self, peer: PeerId) {
        let Some(key) = super::transport::identity_key(&peer) else { return };
        let id = NodeId::of(&key);
        if peer != self.own && !self.sample.contains(&id) && self.asked.insert(peer) {
            self.inquire(netdb::node_key(&id), Aim::Sample);
        }
    }

    /// Throws out what has expired, by our own clock.
    // protocol: D5
    fn sweep(&mut self) {
        let now = unix_seconds();
        self.shelf.sweep(now);
        self.sample.sweep(now);
        self.tell();
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.kad_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Records(event)) => self.records_event(event),
            SwarmEvent::Behaviour(BehaviourEvent::Asking(event)) => self.asking_event(event),
            // protocol: D15, D22
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                // A node says where it listens; only its own address counts, and only if it speaks the DHT.
                let own = |addr: &&Multiaddr| {
                    contact(addr).and_then(|c| super::transport::peer_id(&c.identity)) == Some(peer_id)
                };
                if info.protocols.contains(&KAD)
                    && let Some(addr) = info.listen_addrs.iter().find(own)
                {
                    if let Some(at) = contact(addr) {
                        self.sample.says(&mut crate::random(), unix_seconds(), &at);
                    }
                    self.give_place(&peer_id, addr.clone());
                }
                if !info.protocols.contains(&KAD) {
                    self.kad().remove_peer(&peer_id);
                }
                self.ask_if_it_knows(peer_id, &info.protocols);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Commands(event)) => self.flood_event(event),
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, connection_id } => {
                self.not_reached(&peer, &error);
                self.tried(connection_id);
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, connection_id, .. } => {
                let ip = ip_of(endpoint.get_remote_address());
                if let Some(gone) = self.nodes.enter(&mut crate::random(), Instant::now(), peer_id, ip) {
                    let _ = self.swarm.disconnect_peer_id(gone);
                }
                self.reached(&peer_id, &endpoint);
                self.tried(connection_id);
                self.came(&peer_id, &endpoint);
                // Of one that others keep out all connections end at once, and it is as alone as before.
                if !self.is_banned() && self.alone.take().is_some() {
                    self.register();
                    self.explore();
                    self.rounds.news();
                }
                self.tell();
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.nodes.leave(&peer_id);
                // It let go of us, where nobody has a reason to: the next round finds out whether it is gone.
                if cause.is_some() && self.sample.len() < ENOUGH {
                    self.rounds.news();
                }
                if let Some(id) = node_id(&peer_id) {
                    self.sample.connected(unix_seconds(), &id);
                }
                self.tell();
            }
            _ => {}
        }
    }

    fn kad_event(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::GetClosestPeers(result), stats, .. } => {
                self.progress(id, result, stats.duration());
            }
            kad::Event::RoutingUpdated { peer, is_new_peer, .. } => {
                self.newcomers |= is_new_peer;
                // It is not asked for by itself, since it has a place now that strangers are told of: a look-up may meet it.
                if is_new_peer && node_id(&peer).is_some_and(|id| !self.sample.contains(&id)) {
                    self.rounds.news();
                }
            }
            kad::Event::RoutablePeer { peer, address } | kad::Event::PendingRoutablePeer { peer, address } => {
                self.give_place(&peer, address);
            }
            // The DHT's own records are no table of ours; the rest is told by other events.
            _ => {}
        }
    }

    /// Takes a record that was looked up, for the sample or for somebody else.
    // protocol: J16
    fn learn(&mut self, record: NodeRecord, bytes: Vec<u8>, for_sample: bool) {
        let id = record.contact.node_id();
        let welcome = for_sample || self.sample.is_sparse() || self.sample.knows(&id);
        let foreign = welcome && peer_id(&record.contact.identity) != Some(self.own);
        if foreign && !self.sample.contains(&record.contact.node_id()) {
            self.rounds.news();
        }
        if foreign && self.sample.learn(&mut crate::random(), unix_seconds(), record, bytes) {
            self.tell();
        }
    }

    fn heard(&mut self, bytes: Vec<u8>) {
        if let Ok(Ok(record)) = Signed::<NodeRecord>::from_bytes(&bytes).map(|signed| signed.check(unix_seconds()))
            && self.sample.heard(record, bytes)
        {
            self.tell();
        }
    }

    /// A look-up has ended, for a key or for the sample.
    fn progress(&mut self, id: QueryId, result: kad::GetClosestPeersResult, took: Option<Duration>) {
        let (target, peers, ended) = match result {
            // Who is silent has as long as the look-up: one that had to give somebody up has lasted that long, however it ended.
            Ok(found) if took < Some(QUERY_LIMIT) => (found.key, found.peers, Ended::Whole),
            Ok(found) => (found.key, found.peers, Ended::Cut),
            // Who answered until then.
            Err(GetClosestPeersError::Timeout { key, peers }) => (key, peers, Ended::Cut),
        };
        if self.point.take_if(|point| *point == id).is_some() {
            if ended == Ended::Whole {
                self.measure(&target, &peers);
            }
            peers.iter().for_each(|peer| self.fetch(peer.peer_id));
        } else {
            self.looked(id, peers, ended);
        }
    }

    fn tell(&self) {
        let keys = self.swarm.connected_peers().filter_map(super::transport::identity_key);
        let connected_to: HashSet<_> = keys.map(|key| NodeId::of(&key)).collect();
        let bans = self.commands.in_force();
        let free = |record: &&Arc<NodeRecord>| bans.of_contact(&record.contact).is_none();
        let nodes = self.sample.records().filter(free).cloned().collect();
        let silent = self.sample.silent().filter(|id| !connected_to.contains(id)).copied().collect();
        let (connected, alone, seen) = (connected_to.len(), self.alone, self.sample.seen().collect());
        let (stands, reachable) = (self.stands, self.own_reach.known());
        let known = Known { nodes, connected, connected_to, silent, seen, alone, reachable, stands };
        self.known_tx.send_replace(known);
    }
}

/// Puts these in front of those that were known before, all of them at most [`SAMPLE`].
fn renew(contacts: &mut Vec<NodeContact>, now: Vec<NodeContact>) {
    let ids: HashSet<_> = now.iter().map(NodeContact::node_id).collect();
    contacts.retain(|contact| !ids.contains(&contact.node_id()));
    contacts.splice(0..0, now);
    contacts.truncate(SAMPLE);
}

/// The contact in a record of our own disk, which still helps when the record has expired: behind the version byte. What cannot be
/// read is only a hint that is lost.
fn contact_in(record: &[u8]) -> Option<NodeContact> {
    NodeContact::from_bytes(record.get(1..=NodeContact::LEN)?).ok()
}

fn node_id(peer: &PeerId) -> Option<NodeId> {
    super::transport::identity_key(peer).map(|key| NodeId::of(&key))
}

/// The IP address that an address begins with.
fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
