//! The running node: joins link, database, driver, network, gates and the control socket; the only file that knows them all.

mod answers;
mod arrivals;
mod bundles;
mod commands;
mod epochs;
mod explain;
mod facts;
mod forwarded;
mod forwards;
#[cfg(unix)]
mod handover;
mod kept;
#[cfg(test)]
pub(crate) mod lone;
mod numbers;
mod published;
mod sockets;
mod space;
mod unpublished;
mod visit;
mod whereabouts;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use phantom_ipc::admin;
use phantom_proto::command::Bans;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Node, Settings};
use phantom_proto::path::{Choice, Hop, Spread};
use phantom_proto::wire::NodeContact;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::clock::unix_seconds;
use crate::connections::Network;
#[cfg(unix)]
use crate::control::Left;
use crate::control::{Daemon, Owner, Refusal, Space, Target};
use crate::driver::{self, Handle, Services};
use crate::identity::ApIdentity;
use crate::link::{
    Barred, Certificate, Clocks, Face, Limits, Link, LinkConfig, LinkPool, Purpose, TlsTransport, Transport,
};
use crate::local::Listener;
use crate::metrics;
use crate::netdb::{Commands, Database, Known, NetDb, NetDbConfig, Origin};
use crate::opened::Opened;
use crate::path_keys::PathKeyFolder;
use crate::relay::Counters;
use crate::router::{self, Router};
use crate::startup::Setup;
use crate::store::{Store, Table};

/// Links for the database that wait for its task.
const DATABASE_LINKS: usize = 64;

/// Connections that wait to be answered.
const INCOMING: usize = 256;

/// How often known nodes are written to disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How often the own clock is compared with those of others.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// Time for the ends of sessions to be said, and heard: a round trip or two.
const FAREWELL: Duration = Duration::from_millis(700);

/// Time for the last frames after the listener is closed.
const GOODBYE: Duration = Duration::from_millis(100);

/// Everything that answers the control socket.
pub(crate) struct Running {
    pub(crate) setup: Arc<Setup>,
    /// What others need to reach this node.
    here_rx: watch::Receiver<NodeContact>,
    pub(crate) handle: Handle,
    pub(crate) network: Arc<Network>,
    arrivals: Arc<arrivals::Arrivals>,
    forwards: Arc<forwards::Forwards>,
    pub(crate) database: NetDb,
    pub(crate) counters: Arc<Counters>,
    pub(crate) started: Instant,
    watched: facts::Watched,
    /// Local names of the identities, for people.
    pub(crate) names: Mutex<BTreeMap<ApAddress, String>>,
    transport: Arc<dyn Transport>,
    router: Router,
    stop_tx: watch::Sender<bool>,
}

/// Starts the node that was prepared.
///
/// # Errors
/// When a part cannot start; says which and why.
pub async fn start(setup: Arc<Setup>) -> anyhow::Result<Arc<dyn Daemon>> {
    let contact = setup.contact.clone();
    let metrics_listener = match &setup.config.metrics {
        Some(at) => Some(Listener::bind_for_metrics(at, &setup.listening)?),
        None => None,
    };
    let transport = bind(&setup)?;
    bundles::tell_how_to_join(&setup);
    let (clocks, own_place) = (transport.clocks(), transport.place());
    let plan = &setup.config.commands;
    let maintained = Commands::restore(plan.keys.clone(), plan.ignored.clone(), setup.store.clone(), unix_seconds())?;
    let bans = maintained.bans();
    let transport: Arc<dyn Transport> = Arc::new(Barred::new(transport, bans.clone()));
    let links = Arc::new(LinkPool::new(transport.clone()));
    let (database_tx, database_rx) = mpsc::channel(DATABASE_LINKS);
    let settings = settings(&setup);
    let database = NetDb::start(NetDbConfig {
        own: contact.clone(),
        peers: setup.config.peers.iter().map(|peer| peer.0.clone()).collect(),
        known: bundles::known(&setup.store),
        records: known_records(&setup.store)?,
        terms: setup.store.scan(Table::Terms)?,
        commands: maintained,
        shelf: setup.store.scan(Table::Shelf)?,
        spread: settings.spread,
        reachable: setup.config.reachable.said(),
        links: transport.clone(),
        incoming_rx: database_rx,
    })?;
    let now = unix_seconds();
    let folder = Arc::new(PathKeyFolder::open(setup.data.path(), setup.node.node_id())?);
    let own = epochs::Own::at(&setup, &contact, &folder, now);
    let (mut opened, earlier) = Opened::open(setup.data.path(), now);
    let mut hop = Hop::new(contact.identity, own.keys);
    if own.of_earlier_run {
        hop.opened_before(earlier.seen);
        hop.refuse_until(earlier.unsure_until);
    }
    let (stop_tx, stop_rx) = watch::channel(false);
    let (incoming_tx, incoming_rx) = mpsc::channel(INCOMING);
    let (choice_tx, choice_rx) = watch::channel(Vec::new());
    let (pinned_tx, pinned_rx) = watch::channel(BTreeSet::new());
    let counters = Arc::new(Counters::default());
    let choice = choice(&setup.store, &contact, settings.spread)?;
    let node = Node::new(own.candidate, hop, choice, settings, Box::new(crate::random::system_rng()?));
    let kept = Arc::new(kept::Stored::new(setup.store.clone(), setup.identities.clone()));
    let services = Services {
        links,
        database: Arc::new(database.clone()),
        counters: counters.clone(),
        incoming_tx,
        kept: kept.clone(),
        choice_tx,
        pinned_tx,
        opened: Box::new(move |seen| opened.keep(unix_seconds(), seen)),
        relayed_tunnels: setup.config.limits.relayed_tunnels.into(),
    };
    let handle = driver::start(node, services, stop_rx);
    // Until it is known that others can dial, it dials itself: that works in any case.
    handle.reachable(database.known().borrow().reachable == Some(true)).await;
    let network = Network::start(handle.clone(), incoming_rx);
    database.register(&own.record).await;
    let watched = facts::Watched::new(clocks.clone());
    tokio::spawn(accept(transport.clone(), handle.clone(), database_tx));
    tokio::spawn(feed_bans(bans, handle.clone()));
    tokio::spawn(feed_sample(database.known(), handle.clone()));
    tokio::spawn(keep_nodes(database.clone(), setup.store.clone()));
    tokio::spawn(keep_choice(choice_rx, setup.store.clone()));
    tokio::spawn(pin(pinned_rx, database.clone()));
    tokio::spawn(compare_clocks(clocks, handle.clone()));
    let (here_tx, here_rx) = watch::channel(contact);
    let router = whereabouts::start(&setup, own_place, &network, &database, here_tx);
    tokio::spawn(epochs::rotate(setup.clone(), folder, own.epoch, here_rx.clone(), handle.clone(), database.clone()));
    for (identity, used) in kept.expected(now) {
        handle.expect(&identity.key, used).await;
    }
    let arrivals = Arc::new(arrivals::Arrivals::new(network.clone()));
    let forwards = forwards::Forwards::start(arrivals.clone(), setup.store.clone(), &setup.identities).await;
    let running = Arc::new(Running {
        here_rx,
        handle,
        network,
        arrivals,
        forwards,
        database,
        counters,
        started: Instant::now(),
        watched,
        names: Mutex::new(named(&setup)),
        transport,
        router,
        stop_tx,
        setup,
    });
    if let Some(listener) = metrics_listener {
        tokio::spawn(metrics::serve(listener, running.clone()));
    }
    Ok(running)
}

fn bind(setup: &Setup) -> anyhow::Result<TlsTransport> {
    let face = match &setup.config.face {
        crate::config::Face::Builtin => Face::BuiltIn,
        crate::config::Face::Folder(path) => Face::Folder(Arc::new(path.clone())),
        crate::config::Face::Proxy(addr) => Face::Proxy(*addr),
    };
    let listener = setup.listener.try_clone().context("the listening socket")?;
    let config = LinkConfig {
        listen: setup.contact.addr,
        identity: Arc::new(phantom_proto::crypto::SigningKey::from_seed(setup.node.key.seed())),
        link_secret: setup.node.link_secret,
        face,
        certificate: certificate(setup)?,
        limits: Limits {
            links: setup.config.limits.links as usize,
            key_bytes: u64::from(setup.config.limits.link_mib) << 20,
            ..Limits::default()
        },
    };
    Ok(TlsTransport::with_listener(config, listener)?)
}

/// The certificate that strangers see stays the same over restarts, as a web server's does.
fn certificate(setup: &Setup) -> anyhow::Result<Certificate> {
    if let Some(bytes) = setup.store.load(Table::Meta, b"certificate")?
        && let Ok(certificate) = Certificate::from_pem(&bytes, &bytes)
    {
        return Ok(certificate);
    }
    let addr = setup.contact.addr;
    // Strangers are not told which address this computer has behind its router.
    let name = router::behind(addr).map_or_else(|| addr.ip().to_string(), |_| "localhost".to_owned());
    let certificate = Certificate::self_signed(&name)?;
    let (chain, key) = certificate.to_pem();
    let pem = zeroize::Zeroizing::new([chain.as_bytes(), key.as_bytes()].concat());
    setup.store.save(Table::Meta, b"certificate", &pem)?;
    Ok(certificate)
}

fn settings(setup: &Setup) -> Settings {
    let paths = &setup.config.paths;
    Settings {
        hops: paths.hops as usize,
        unborn: paths.ahead as usize,
        entry_paths: paths.entry as usize,
        ready_tunnels: paths.ready_tunnels as usize,
        relayed_paths: setup.config.limits.relayed_paths as usize,
        ..if paths.hurry { Settings::hurried() } else { Settings::default() }
    }
}

/// Records of nodes that were known when this node ran last.
fn known_records(store: &Store) -> anyhow::Result<Vec<Vec<u8>>> {
    Ok(store.scan(Table::Nodes)?.into_iter().map(|(_, record)| record).collect())
}

fn choice(store: &Store, own: &NodeContact, spread: Spread) -> anyhow::Result<Option<Choice>> {
    let kept = store.load(Table::Guards, b"set")?;
    let restored = kept.map(|bytes| Choice::restored(own.clone(), spread, &bytes));
    restored.transpose().context("the guard set in the store cannot be read")
}

async fn accept(transport: Arc<dyn Transport>, handle: Handle, database_tx: mpsc::Sender<Link>) {
    while let Some(link) = transport.accept().await {
        match link.purpose {
            Purpose::Frames => handle.accepted(link).await,
            // More than the database keeps up with: the peer tries again.
            Purpose::Database => drop(database_tx.try_send(link)),
        }
    }
}

/// Shortest and longest wait between two samples that say nothing new: guards are chosen some time after the first, and which keys of a
/// record hold changes with the hours.
const FEED_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

async fn feed_sample(mut known_rx: watch::Receiver<Known>, handle: Handle) {
    let (shortest, longest) = FEED_AGAIN;
    let (mut connected, mut wait, mut told) = (HashSet::new(), shortest, None);
    loop {
        wait = match timeout(wait, known_rx.changed()).await {
            Ok(Err(_)) => return,
            Ok(Ok(())) => shortest,
            Err(_) => longest.min(wait * 2),
        };
        let Known { nodes, silent, connected_to, reachable, .. } = known_rx.borrow_and_update().clone();
        if reachable != told {
            handle.reachable(reachable == Some(true)).await;
            told = reachable;
        }
        let now = unix_seconds();
        handle.back(connected_to.difference(&connected).copied().collect()).await;
        connected = connected_to;
        handle.silent(silent.into_iter().collect()).await;
        handle.sample(nodes.iter().filter_map(|record| epochs::candidate(record, now)).collect()).await;
        // A burst of news becomes one sample.
        sleep(Duration::from_millis(200)).await;
    }
}

/// Those of an earlier run first.
async fn feed_bans(mut bans_rx: watch::Receiver<Arc<Bans>>, handle: Handle) {
    loop {
        let bans = bans_rx.borrow_and_update().clone();
        handle.bans(bans).await;
        if bans_rx.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_nodes(database: NetDb, store: Arc<Store>) {
    let mut save = interval(SAVE_EVERY);
    loop {
        save.tick().await;
        save_nodes(&database, store.clone()).await;
    }
}

/// What is kept for others, and what is known of them: as long as somebody is connected, since of a node that is cut off the sample
/// shrinks, and what it knew before is worth more.
async fn save_nodes(database: &NetDb, store: Arc<Store>) {
    let connected = database.known().borrow().connected > 0;
    let records = database.records().await;
    if connected && !records.is_empty() {
        let entries: Vec<_> = records.into_iter().map(|(id, record)| (id.0.to_vec(), record)).collect();
        save_quietly("known nodes", store.clone(), move |store| store.replace(Table::Nodes, &entries)).await;
        let terms = database.terms().await;
        save_quietly("since when nodes are known", store.clone(), move |store| store.replace(Table::Terms, &terms))
            .await;
        let placed = database.some(bundles::NEIGHBOURS_MOST).await;
        save_quietly("the routing table", store.clone(), move |store| bundles::keep_neighbours(store, &placed)).await;
    }
    let shelf = database.shelf().await;
    save_quietly("records kept for others", store, move |store| store.replace(Table::Shelf, &shelf)).await;
}

async fn keep_choice(mut choice_rx: watch::Receiver<Vec<u8>>, store: Arc<Store>) {
    while choice_rx.changed().await.is_ok() {
        let choice = choice_rx.borrow_and_update().clone();
        save_quietly("the guard set", store.clone(), move |store| store.save(Table::Guards, b"set", &choice)).await;
    }
}

async fn pin(mut pinned_rx: watch::Receiver<BTreeSet<NodeId>>, database: NetDb) {
    while pinned_rx.changed().await.is_ok() {
        let pinned = pinned_rx.borrow_and_update().clone();
        database.pin(pinned).await;
    }
}

/// Until the control task is gone, which is when the daemon stops.
async fn compare_clocks(clocks: Arc<Clocks>, handle: Handle) {
    let mut look = interval(CLOCK_EVERY);
    loop {
        look.tick().await;
        handle.clock(clocks.ahead()).await;
    }
}

async fn save_quietly(
    what: &'static str,
    store: Arc<Store>,
    save: impl FnOnce(&Store) -> Result<(), crate::store::StoreError> + Send + 'static,
) {
    if let Ok(Err(error)) = spawn_blocking(move || save(&store)).await {
        tracing::warn!("{what} could not be saved: {error}");
    }
}

fn named(setup: &Setup) -> BTreeMap<ApAddress, String> {
    setup.identities.all().iter().filter_map(|one| Some((one.address(), one.label()?))).collect()
}

#[async_trait]
impl Daemon for Running {
    async fn status(&self) -> admin::Status {
        self.status_now().await
    }

    async fn doctor(&self) -> admin::Doctor {
        self.doctor_now().await
    }

    async fn seen_from_outside(&self) -> BTreeMap<ApAddress, String> {
        self.handle.snapshot().await.unwrap_or_default().seen
    }

    async fn paths(&self) -> Vec<admin::Path> {
        self.own_paths().await
    }

    async fn peers(&self) -> Vec<admin::Peer> {
        self.known_peers()
    }

    async fn export_peers(&self) -> String {
        self.bundle().await
    }

    async fn import_peers(&self, text: &str) -> Result<admin::Bundle, admin::Failure> {
        self.join(text).await
    }

    async fn connections(&self) -> Vec<admin::Connection> {
        self.connection_list()
    }

    async fn lookup(&self, address: ApAddress) -> Result<admin::Lookup, admin::Failure> {
        match self.database.lookup(Origin::Own, address).await {
            Ok(Some((record, _))) => Ok(answers::lookup(&record)),
            Ok(None) => Err(admin::Failure {
                message: "the network database has no entry for this address".into(),
                hint: Some("its owner must be online with something published (`phantom-run --publish`)".into()),
            }),
            Err(error) => Err(admin::Failure {
                message: error.to_string(),
                hint: Some("see `phantom status`: is this node connected?".into()),
            }),
        }
    }

    async fn command(&self, text: &str) -> Result<(), admin::Failure> {
        self.send_command(text).await
    }

    async fn commands(&self) -> admin::Commands {
        self.command_list().await
    }

    async fn allow_command(&self, serial: u64) -> Result<(), admin::Failure> {
        self.allow(serial).await
    }

    async fn created(&self, identity: Arc<ApIdentity>) {
        if let Some(label) = identity.label() {
            self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(identity.address(), label);
        }
    }

    async fn removed(&self, address: ApAddress) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        // Spares may be kept for it.
        self.handle.removed(address).await;
        let store = self.setup.store.clone();
        save_quietly("the end of an identity", store, move |store| kept::forget(store, address)).await;
    }

    async fn uses(&self, address: ApAddress) -> bool {
        self.network.uses(address)
    }

    async fn forward(&self, at: Arc<ApIdentity>, port: u16, to: Target, keep: bool) -> Result<(), Refusal> {
        self.forwards.add(at, port, to, keep).await
    }

    async fn forwards(&self) -> Vec<admin::Forward> {
        self.forwards.shown().await
    }

    async fn unforward(&self, port: u16, at: Option<ApAddress>) -> Result<admin::Forward, Refusal> {
        self.forwards.remove(port, at).await
    }

    async fn open(&self, identity: Arc<ApIdentity>, owner: Owner) -> Result<Arc<dyn Space>, Refusal> {
        space::open(&self.setup, &self.arrivals, identity, owner).await
    }

    #[cfg(unix)]
    async fn go_on(&self, identity: Arc<ApIdentity>, owner: Owner, left: Left) -> Result<Arc<dyn Space>, Refusal> {
        space::go_on(&self.setup, &self.arrivals, identity, owner, left).await
    }

    #[cfg(unix)]
    async fn leave_sessions(&self) -> Left {
        self.leave_sessions_now().await
    }

    #[cfg(unix)]
    fn expect_sessions(&self) {
        self.network.expect();
    }

    #[cfg(unix)]
    async fn go_on_with_sessions(&self, left: Left) {
        self.go_on_with(left);
    }

    async fn stop(&self) {
        // A router may take longer than all else.
        let (ended, ()) = tokio::join!(timeout(FAREWELL, self.network.stop()), self.router.stop());
        if ended.is_err() {
            tracing::debug!("some sessions could not be ended");
        }
        self.stop_tx.send_replace(true);
        self.transport.close().await;
        save_nodes(&self.database, self.setup.store.clone()).await;
        sleep(GOODBYE).await;
    }
}
