//! The real database: libp2p's Kademlia over our links, under the rules of `phantom_proto::netdb`.

mod commands;
mod exchange;
mod joining;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use libp2p::core::Transport as _;
use libp2p::core::multiaddr::Protocol;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, GetClosestPeersError, QueryId, QueryResult};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm, identify, swarm};
use phantom_proto::ident::{ApAddress, NodeId, Operator, Spread};
use phantom_proto::netdb::{self, Key, Publisher, QUOTA, Region, Shelf, Value};
use phantom_proto::record::{ApRecord, NodeRecord, Signed};
use phantom_proto::wire::NodeContact;
use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::exchange::{Aim, Exchange};
use super::alone::Alone;
use super::behaviour::{Behaviour, BehaviourEvent, KAD};
use super::commands::{CommandState, Commands};
use super::rounds::Rounds;
use super::sample::{SIZE, Sample};
use super::transport::{LinkTransport, contact, multiaddr, peer_id};
use super::{Database, DatabaseError};
use crate::clock::unix_seconds;
use crate::link::{self, Link};

/// Requests that may wait for the database's task.
const COMMANDS: usize = 256;

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

/// When a node's own record is published again after its start, in seconds: early, since its first neighbours know few others.
const REGISTER_AT: [u64; 5] = [1, 3, 6, 12, 30];

/// And from then on every so many seconds, when others have come that may have to keep it; and in any case every so many, since those
/// that keep it may have been started anew.
const REGISTER_NEWS: u64 = 600;
const REGISTER_EVERY: u64 = 3600;

/// How long a connection stays without a use: longer than the longest wait between two rounds, so that a quiet node is not alone.
const IDLE: Duration = Duration::from_secs(1800);

/// Connections beyond which those go that have stood for [`TRIED`]: each costs some 40 KiB, and a look-up in a large network opens 20.
const CONNECTED: usize = 64;
const TRIED: Duration = Duration::from_secs(60);

/// How often expired records are thrown out, in seconds.
const SWEEP_EVERY: u64 = 60;

/// What a [`NetDb`] needs.
pub struct NetDbConfig {
    /// This node.
    pub own: NodeContact,
    /// Nodes of the configuration.
    pub peers: Vec<NodeContact>,
    /// Nodes known from an earlier run.
    pub known: Vec<NodeContact>,
    /// Their records, as [`NetDb::records`] gave them.
    pub records: Vec<Vec<u8>>,
    /// Of maintainers, as they were kept.
    pub commands: Commands,
    /// What was kept for others, as [`NetDb::shelf`] gave it.
    pub shelf: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which nodes have one voice.
    pub spread: Spread,
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

/// Speaks to the database's task; cheap to clone.
#[derive(Clone)]
pub struct NetDb {
    command_tx: mpsc::Sender<Command>,
    known_rx: watch::Receiver<Known>,
}

type Looked = Result<Option<(Value, Vec<u8>)>, DatabaseError>;

enum Command {
    Join(Vec<NodeContact>),
    Some { most: usize, some_tx: oneshot::Sender<Vec<NodeContact>> },
    Register(Vec<u8>),
    Pin(BTreeSet<NodeId>),
    Heard(Vec<u8>),
    Put { key: Key, record: Vec<u8>, done_tx: oneshot::Sender<Result<(), DatabaseError>> },
    Get { key: Key, answer_tx: oneshot::Sender<Looked> },
    Records(oneshot::Sender<Vec<(NodeId, Vec<u8>)>>),
    Take { command: Vec<u8>, taken_tx: oneshot::Sender<Result<(), String>> },
    Allow { serial: u64, allowed_tx: oneshot::Sender<Result<bool, String>> },
    Commands(oneshot::Sender<CommandState>),
    Shelf(oneshot::Sender<Vec<(Vec<u8>, Vec<u8>)>>),
}

impl NetDb {
    /// Starts the database's task. It ends with the last handle.
    pub fn start(config: NetDbConfig) -> Result<Self, DatabaseError> {
        let (command_tx, command_rx) = mpsc::channel(COMMANDS);
        let (known_tx, known_rx) = watch::channel(Known::default());
        let task = Task::new(config, known_tx)?;
        tokio::spawn(task.run(command_rx));
        Ok(Self { command_tx, known_rx })
    }

    /// Joins through these nodes, now and whenever there are no others.
    pub async fn join(&self, contacts: Vec<NodeContact>) {
        let _ = self.command_tx.send(Command::Join(contacts)).await;
    }

    /// Some nodes that the database would name to anybody, at most `most`.
    pub async fn some(&self, most: usize) -> Vec<NodeContact> {
        let (some_tx, some_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Some { most, some_tx }).await;
        some_rx.await.unwrap_or_default()
    }

    /// This node's own record, from now on; it is published now and again.
    pub async fn register(&self, record: &Signed<NodeRecord>) {
        let _ = self.command_tx.send(Command::Register(record.bytes().to_vec())).await;
    }

    /// Nodes whose records stay in the sample, whoever else must make room.
    pub async fn pin(&self, nodes: BTreeSet<NodeId>) {
        let _ = self.command_tx.send(Command::Pin(nodes)).await;
    }

    /// What is known of the network, and its changes.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known_rx.clone()
    }

    /// Records of the sample as they were signed, for the disk.
    pub async fn records(&self) -> Vec<(NodeId, Vec<u8>)> {
        let (records_tx, records_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Records(records_tx)).await;
        records_rx.await.unwrap_or_default()
    }

    /// Takes a maintainers' command and hands it to all neighbours.
    ///
    /// # Errors
    /// Why it is not taken, in words.
    pub async fn send_command(&self, command: Vec<u8>) -> Result<(), String> {
        let (taken_tx, taken_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Take { command, taken_tx }).await;
        taken_rx.await.unwrap_or_else(|_| Err(stopping().to_string()))
    }

    /// The operator's word for a command that waits for it. False: none of that serial does.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub async fn allow_command(&self, serial: u64) -> Result<bool, String> {
        let (allowed_tx, allowed_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Allow { serial, allowed_tx }).await;
        allowed_rx.await.unwrap_or_else(|_| Err(stopping().to_string()))
    }

    /// Maintainers' commands, and what they do here.
    pub async fn commands(&self) -> CommandState {
        let (state_tx, state_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Commands(state_tx)).await;
        state_rx.await.unwrap_or_default()
    }

    /// What is kept for others, for the disk: keys and entries.
    pub async fn shelf(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (shelf_tx, shelf_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Shelf(shelf_tx)).await;
        shelf_rx.await.unwrap_or_default()
    }

    /// The record of a node.
    pub async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, DatabaseError> {
        Ok(match self.get(netdb::node_key(&id)).await? {
            Some((Value::Node(record), _)) => Some(*record),
            Some((Value::Ap(_), _)) | None => None,
        })
    }

    async fn get(&self, key: Key) -> Looked {
        let (answer_tx, answer_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Get { key, answer_tx }).await;
        answer_rx.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> DatabaseError {
    DatabaseError::Unreachable("the daemon is stopping".into())
}

#[async_trait]
impl Database for NetDb {
    async fn publish(&self, record: Vec<u8>) -> Result<(), DatabaseError> {
        let signed = Signed::<ApRecord>::from_bytes(&record).map_err(phantom_proto::record::RecordError::from)?;
        let key = netdb::ap_key(&signed.check(unix_seconds())?.address());
        let (done_tx, done_rx) = oneshot::channel();
        let _ = self.command_tx.send(Command::Put { key, record, done_tx }).await;
        done_rx.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn lookup(&self, address: ApAddress) -> Result<Option<(ApRecord, Vec<u8>)>, DatabaseError> {
        Ok(match self.get(netdb::ap_key(&address)).await? {
            Some((Value::Ap(record), bytes)) => Some((record, bytes)),
            Some((Value::Node(_), _)) | None => None,
        })
    }

    async fn contact(&self, node: NodeId) -> Result<Option<NodeContact>, DatabaseError> {
        let of = |record: &&Arc<NodeRecord>| record.contact.node_id() == node;
        let known = self.known_rx.borrow().nodes.iter().find(of).map(|record| record.contact.clone());
        match known {
            Some(contact) => Ok(Some(contact)),
            None => Ok(self.node(node).await?.map(|record| record.contact)),
        }
    }

    async fn heard(&self, record: Vec<u8>) {
        let _ = self.command_tx.send(Command::Heard(record)).await;
    }
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
    /// Since when each connected node is.
    since: HashMap<PeerId, Instant>,
    /// And where.
    remotes: HashMap<PeerId, IpAddr>,
    /// The look-up of a random point that is under way.
    point: Option<QueryId>,
    /// Nodes have come since the own record was last published.
    newcomers: bool,
    /// Of the configuration.
    peers: Vec<NodeContact>,
    /// Of an earlier run, or of the sample when the last connection was lost.
    contacts: Vec<NodeContact>,
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
        swarm.listen_on(addr.clone()).map_err(local)?;
        swarm.add_external_address(addr);
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
            sample: Sample::default(),
            commands: config.commands,
            answered: commands::Answered::default(),
            rounds: Rounds::default(),
            asked: HashSet::new(),
            since: HashMap::new(),
            remotes: HashMap::new(),
            point: None,
            newcomers: false,
            peers: config.peers,
            contacts: config.known,
            alone: None,
            known_tx,
        };
        let now = unix_seconds();
        for (key, entry) in &config.shelf {
            task.shelf.restore(now, key, entry);
        }
        // By chance: there may be more than the sample has room for.
        let mut records = config.records;
        records.shuffle(&mut crate::random());
        records.into_iter().for_each(|bytes| task.remember(bytes));
        task.contacts.clone().iter().chain(&task.peers.clone()).for_each(|contact| task.add(contact));
        task.obey();
        Ok(task)
    }

    /// A record of an earlier run, if it still holds: paths can be planned before anybody has answered.
    // protocol: J8
    fn remember(&mut self, bytes: Vec<u8>) {
        if let Ok(record) = Signed::<NodeRecord>::from_bytes(&bytes).map(|signed| signed.check(unix_seconds()))
            && let Ok(record) = record
        {
            self.add(&record.contact);
            self.learn(record, bytes);
        }
    }

    async fn run(mut self, mut command_rx: mpsc::Receiver<Command>) {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seconds = 0;
        loop {
            tokio::select! {
                command = command_rx.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.event(event),
                _ = second.tick() => {
                    seconds += 1;
                    self.second(seconds);
                }
            }
        }
    }

    fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.swarm.behaviour_mut().kad
    }

    fn add(&mut self, contact: &NodeContact) {
        if let (Some(peer), Some(addr)) = (peer_id(&contact.identity), multiaddr(contact))
            && peer != self.own
        {
            self.kad().add_address(&peer, addr);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join(contacts) => self.join(contacts),
            Command::Some { most, some_tx } => drop(some_tx.send(self.some(most))),
            Command::Register(record) => {
                self.own_record = Some(record);
                self.register();
            }
            Command::Put { key, record, done_tx } => self.publish(key, Self::publication(record, done_tx)),
            Command::Get { key, answer_tx } => self.inquire(key, Aim::Read(answer_tx)),
            Command::Pin(nodes) => self.sample.pin(nodes),
            Command::Heard(record) => self.heard(record),
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
            Command::Shelf(shelf_tx) => drop(shelf_tx.send(self.shelf.entries().collect())),
        }
    }

    fn register(&mut self) {
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
            silent.iter().for_each(|contact| self.dial(contact));
        }
        if seconds.is_multiple_of(SWEEP_EVERY) {
            self.sweep();
        }
        self.write_again();
        self.disconnect_some();
    }

    /// Of too many connections any that have had their use go: which, says nothing.
    fn disconnect_some(&mut self) {
        let most = self.since.len().saturating_sub(CONNECTED);
        let tried = self.since.iter().filter(|(_, since)| since.elapsed() >= TRIED).map(|(peer, _)| *peer);
        for peer in tried.sample(&mut crate::random(), most) {
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
        if !self.sample.is_sparse() {
            return;
        }
        // Nodes of the routing table whose records are missing.
        let peers: Vec<_> = self
            .kad()
            .kbuckets()
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>())
            .collect();
        peers.into_iter().for_each(|peer| self.fetch(peer));
    }

    /// Asks for newer records of nodes in the sample, whichever are due: those of a plan are no more among them than others.
    fn renew(&mut self) {
        for id in self.sample.take_due(&mut crate::random(), unix_seconds(), RENEW) {
            self.inquire(netdb::node_key(&id), Aim::Sample);
        }
    }

    /// Nobody is connected: tries those of the configuration and some of all others that were ever known, from time to time.
    fn try_to_return(&mut self) {
        if self.alone.is_some_and(|alone| Instant::now() < alone.next) {
            return;
        }
        // Before the records expire.
        self.contacts.retain(|contact| !self.sample.contains(&contact.node_id()));
        self.contacts.splice(0..0, self.sample.records().map(|record| record.contact.clone()));
        self.contacts.truncate(SIZE);
        let rng = &mut crate::random();
        let some: Vec<_> = self.contacts.sample(rng, PRIMES).chain(&self.peers).cloned().collect();
        self.alone = Some(Alone::after(self.alone, rng, Instant::now()));
        some.iter().for_each(|contact| self.dial(contact));
        self.sample.sweep(unix_seconds());
        self.tell();
    }

    /// Connects to a node, if it is not connected yet.
    fn dial(&mut self, contact: &NodeContact) {
        let (Some(peer), Some(addr)) = (peer_id(&contact.identity), multiaddr(contact)) else { return };
        if peer == self.own {
            return;
        }
        // The DHT forgets the address of a node that does not answer.
        self.kad().add_address(&peer, addr.clone());
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
            // protocol: D15, D22
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                // A node says where it listens; only its own address counts, and only if it speaks the DHT.
                let own = |addr: &&Multiaddr| {
                    contact(addr).and_then(|c| super::transport::peer_id(&c.identity)) == Some(peer_id)
                };
                if info.protocols.contains(&KAD)
                    && let Some(addr) = info.listen_addrs.iter().find(own)
                {
                    self.kad().add_address(&peer_id, addr.clone());
                }
                self.ask_if_it_knows(peer_id, &info.protocols);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Commands(event)) => self.flood_event(event),
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), .. } => {
                if let Some(id) = node_id(&peer) {
                    self.sample.unreachable(&mut crate::random(), unix_seconds(), id);
                }
                self.tell();
            }
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                self.since.entry(peer_id).or_insert_with(Instant::now);
                if let Some(ip) = ip_of(endpoint.get_remote_address()) {
                    self.remotes.insert(peer_id, ip);
                }
                if let Some(id) = node_id(&peer_id) {
                    self.sample.connected(unix_seconds(), &id);
                }
                // Of one that others keep out all connections end at once, and it is as alone as before.
                if !self.is_banned() && self.alone.take().is_some() {
                    self.register();
                    self.explore();
                    self.rounds.news();
                }
                self.tell();
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.since.remove(&peer_id);
                self.remotes.remove(&peer_id);
                // It let go of us, where nobody has a reason to: the next round finds out whether it is gone.
                if cause.is_some() && self.sample.len() < CONNECTED {
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
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::GetClosestPeers(result), .. } => {
                self.progress(id, result);
            }
            kad::Event::RoutingUpdated { peer, is_new_peer, .. } => {
                self.newcomers |= is_new_peer;
                // Its record may come a while after itself.
                if is_new_peer && node_id(&peer).is_some_and(|id| !self.sample.contains(&id)) {
                    self.rounds.news();
                }
                // Above that, who is near is no random draw.
                if self.sample.is_sparse() {
                    self.fetch(peer);
                }
            }
            // The DHT's own records are no table of ours; the rest is told by other events.
            _ => {}
        }
    }

    fn learn(&mut self, record: NodeRecord, bytes: Vec<u8>) {
        let foreign = peer_id(&record.contact.identity) != Some(self.own);
        if foreign && !self.sample.contains(&record.contact.node_id()) {
            self.rounds.news();
        }
        if foreign && self.sample.learn(&mut crate::random(), record, bytes) {
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
    fn progress(&mut self, id: QueryId, result: kad::GetClosestPeersResult) {
        let (target, peers, complete) = match result {
            Ok(found) => (found.key, found.peers, true),
            // Who answered until then.
            Err(GetClosestPeersError::Timeout { key, peers }) => (key, peers, false),
        };
        if self.point.take_if(|point| *point == id).is_some() {
            if complete {
                self.measure(&target, &peers);
            }
            peers.iter().for_each(|peer| self.fetch(peer.peer_id));
        } else {
            self.looked(id, peers);
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
        let stands = self.stands;
        self.known_tx.send_replace(Known { nodes, connected, connected_to, silent, seen, alone, stands });
    }
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
mod tests {
    use super::*;
    use crate::link::MemoryNetwork;
    use crate::netdb::tests::{contact, record};

    // protocol: J2
    #[tokio::test]
    async fn the_routing_table_is_asked_only_while_the_sample_is_sparse() {
        for (known, asked) in [(3, 4), (30, 0)] {
            let own = contact(1);
            let config = NetDbConfig {
                own: own.clone(),
                peers: (10..14).map(contact).collect(),
                known: Vec::new(),
                records: (0..known).map(|number| record(100 + number).bytes().to_vec()).collect(),
                commands: Commands::nobody(),
                shelf: Vec::new(),
                spread: Spread::default(),
                links: Arc::new(MemoryNetwork::default().join(own)),
                incoming_rx: mpsc::channel(1).1,
            };
            let mut task = Task::new(config, watch::channel(Known::default()).0).unwrap();
            // As when they had said what they are.
            for contact in (10..14).map(contact) {
                task.add(&contact);
            }
            task.explore();
            assert_eq!(task.exchange.len(), asked, "{known} are known");
        }
    }
}
