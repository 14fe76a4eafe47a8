//! A network in one thread: the daemon's own code over memory links, a virtual clock, one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use phantom_daemon::clock;
use phantom_daemon::connections::{Network, Programs};
use phantom_daemon::driver::{self, Handle, Kept, Services};
use phantom_daemon::far::Stream;
use phantom_daemon::link::{LinkPool, MemoryNetwork, Transport};
use phantom_daemon::netdb::MemoryDatabase;
use phantom_daemon::relay::Counters;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Node, Serials, Settings};
use phantom_proto::path::{Candidate, Choice, Hop, PathKeys, Seen};
use phantom_proto::wire::NodeContact;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::books::{Books, Reader};
use super::hostile::Conduct;
use super::wires::Wires;

/// Virtual time that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How long opening a link takes on the simulated network.
const LATENCY: Duration = Duration::from_millis(20);

/// When simulations begin, in seconds since 1970: at the beginning of a step of the grid of AP records.
pub(crate) const BEGINNING: u64 = 1_800_000_000;

/// What a node has on disk.
#[derive(Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Kinds>>);

#[derive(Default)]
struct Kinds {
    path_keys: Option<Vec<u8>>,
    choice: Vec<u8>,
    opened: Vec<Seen>,
    /// Of identities that outlive the process.
    lasting: BTreeMap<ApAddress, (Serials, Option<Vec<u8>>)>,
}

impl Disk {
    /// From now on the identity outlives the process.
    pub(crate) fn name(&self, identity: ApAddress) {
        self.lock().lasting.entry(identity).or_default();
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl Kept for Disk {
    fn lasts(&self, identity: ApAddress) -> bool {
        self.lock().lasting.contains_key(&identity)
    }

    fn used(&self, _: ApAddress) {}

    fn serials(&self, identity: ApAddress) -> Serials {
        self.lock().lasting.get(&identity).map(|kept| kept.0).unwrap_or_default()
    }

    fn save_serials(&self, identity: ApAddress, serials: Serials) {
        if let Some(kept) = self.lock().lasting.get_mut(&identity) {
            kept.0 = serials;
        }
    }

    fn sets(&self, identity: ApAddress) -> Option<Vec<u8>> {
        self.lock().lasting.get(&identity).and_then(|kept| kept.1.clone())
    }

    fn save_sets(&self, identity: ApAddress, sets: Vec<u8>) {
        if let Some(kept) = self.lock().lasting.get_mut(&identity) {
            kept.1 = Some(sets);
        }
    }
}

/// One node, from one start of its daemon to the next.
pub(crate) struct Simulated {
    pub(crate) identity: SigningKey,
    pub(crate) candidate: Candidate,
    pub(crate) disk: Disk,
    pub(crate) handle: Handle,
    pub(crate) network: Arc<Network>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) running: bool,
    /// Starts before this one, and changes of its address.
    lives: u64,
    moves: u8,
    transport: Arc<dyn Transport>,
    stop_tx: watch::Sender<bool>,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Simulated>,
    pub(crate) wires: Wires,
    pub(crate) reader: Reader,
    pub(crate) database: MemoryDatabase,
    pub(crate) rng: StdRng,
    net: MemoryNetwork,
    seed: u64,
    pub(crate) settings: Settings,
}

/// Echoes what it gets on port 80; nothing listens elsewhere.
pub(crate) struct Echo;

#[async_trait]
impl Programs for Echo {
    async fn listens(&self, port: u16) -> bool {
        port == 80
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, far: Box<dyn Stream>) {
        let (mut read, mut write) = tokio::io::split(far);
        if tokio::io::copy(&mut read, &mut write).await.is_ok() {
            let _ = write.shutdown().await;
        }
    }
}

/// What a node begins with.
struct Start<'a> {
    seed: u64,
    index: usize,
    lives: u64,
    moves: u8,
    settings: Settings,
    disk: Disk,
    wires: &'a Wires,
    reader: &'a Reader,
    net: &'a MemoryNetwork,
    database: &'a MemoryDatabase,
}

impl Start<'_> {
    fn node(self) -> Simulated {
        let Self { seed, index, lives, moves, settings, disk, wires, reader, net, database } = self;
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + index as u64);
        let identity = SigningKey::generate(&mut rng);
        let mut link_secret = [0; 32];
        rng.fill_bytes(&mut link_secret);
        // What is drawn in one run is not drawn again in the next.
        let mut rng = StdRng::seed_from_u64(rng.next_u64() ^ lives);
        // One operator per node: each has a /16 of its own.
        let addr = SocketAddr::from((Ipv4Addr::new(20 + (index / 250) as u8, (index % 250) as u8, moves, 1), 443));
        let contact = NodeContact { identity: identity.verifying_key(), addr, link_secret };
        let keys = path_keys(&disk, &mut rng);
        let candidate = Candidate {
            contact: contact.clone(),
            path_dh: keys.dh.public(),
            path_kem: Arc::new(*keys.kem.public()),
            weight: 1,
        };
        database.add(contact.clone());
        let transport = wires.join(index, net.join(contact.clone()));
        let mut hop = Hop::new(identity.verifying_key(), [keys]);
        hop.opened_before(std::mem::take(&mut disk.lock().opened));
        let kept = disk.lock().choice.clone();
        let choice =
            (!kept.is_empty()).then(|| Choice::restored(contact, settings.spread, &kept).expect("what was kept"));
        let machine = Node::new(candidate.clone(), hop, choice, settings.clone(), Box::new(rng));
        let (incoming_tx, incoming_rx) = mpsc::channel(64);
        let (stop_tx, stop_rx) = watch::channel(false);
        let (choice_tx, choice_rx) = watch::channel(Vec::new());
        tokio::spawn(keep_choice(choice_rx, disk.clone()));
        let counters = Arc::new(Counters::default());
        let opened = disk.clone();
        let services = Services {
            links: Arc::new(LinkPool::new(transport.clone())),
            database: Arc::new(Books::new(index, database.clone(), wires.clone(), reader.clone())),
            counters: counters.clone(),
            incoming_tx,
            kept: Arc::new(disk.clone()),
            choice_tx,
            pinned_tx: watch::channel(BTreeSet::new()).0,
            opened: Box::new(move |seen| opened.lock().opened.push(seen)),
            // A node that carries few paths for others carries few tunnels.
            relayed_tunnels: if settings.relayed_paths < 100 { settings.relayed_paths as u64 } else { 10_000 },
        };
        let handle = driver::start(machine, services, stop_rx);
        let network = Network::start(handle.clone(), incoming_rx);
        tokio::spawn(accept(transport.clone(), handle.clone()));
        Simulated {
            identity,
            candidate,
            disk,
            handle,
            network,
            counters,
            running: true,
            lives,
            moves,
            transport,
            stop_tx,
        }
    }
}

fn path_keys(disk: &Disk, rng: &mut StdRng) -> PathKeys {
    let mut disk = disk.lock();
    let kept = disk.path_keys.get_or_insert_with(|| PathKeys::generate(rng).to_bytes().to_vec());
    PathKeys::from_bytes(kept).expect("what was kept")
}

async fn keep_choice(mut choice_rx: watch::Receiver<Vec<u8>>, disk: Disk) {
    while choice_rx.changed().await.is_ok() {
        disk.lock().choice = choice_rx.borrow_and_update().clone();
    }
}

async fn accept(transport: Arc<dyn Transport>, handle: Handle) {
    while let Some(link) = transport.accept().await {
        handle.accepted(link).await;
    }
}

impl World {
    pub(crate) async fn new(seed: u64, count: usize) -> Self {
        Self::with(seed, count, Settings { unborn: 0, ..Settings::hurried() }).await
    }

    pub(crate) async fn with(seed: u64, count: usize, settings: Settings) -> Self {
        Self::hiding(seed, count, 0, settings).await
    }

    /// One to whose first nodes nobody can open links.
    pub(crate) async fn hiding(seed: u64, count: usize, hidden: usize, settings: Settings) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            wires: Wires::default(),
            reader: Reader::default(),
            net: MemoryNetwork::with_latency(LATENCY),
            database: MemoryDatabase::default(),
            seed,
            settings,
            rng: StdRng::seed_from_u64(seed),
        };
        (0..hidden).for_each(|index| world.wires.hide(index, true));
        for index in 0..count {
            let node = world.started(index, 0, 0, Disk::default(), world.settings.clone());
            world.nodes.push(node);
        }
        // Twice: the first sample is not trusted to choose guards from until it is ample or some time has passed.
        for _ in 0..2 {
            world.feed().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        world
    }

    fn started(&self, index: usize, lives: u64, moves: u8, disk: Disk, settings: Settings) -> Simulated {
        let Self { wires, reader, net, database, seed, .. } = self;
        Start { seed: *seed, index, lives, moves, settings, disk, wires, reader, net, database }.node()
    }

    /// Tells every node what the network database would: records of all, and who of them cannot be reached.
    pub(crate) async fn feed(&self) {
        for index in 0..self.nodes.len() {
            self.introduce(index).await;
        }
    }

    /// Tells a node of all others.
    pub(crate) async fn introduce(&self, index: usize) {
        let node = &self.nodes[index];
        if !node.running {
            return;
        }
        node.handle.reachable(!self.wires.is_hidden(index)).await;
        // Whom nobody can dial publishes no record.
        let is_other = |other: usize| other != index && !self.wires.is_hidden(other);
        let others = || self.nodes.iter().enumerate().filter(|(other, _)| is_other(*other));
        let id = |other: &Simulated| other.candidate.contact.node_id();
        let (back, silent): (Vec<_>, Vec<_>) =
            others().partition(|(other, node)| node.running && self.wires.hear(index, *other));
        let ids =
            |nodes: Vec<(usize, &Simulated)>| nodes.into_iter().map(|(_, node)| id(node)).collect::<BTreeSet<NodeId>>();
        node.handle.back(ids(back)).await;
        node.handle.silent(ids(silent)).await;
        node.handle.sample(others().map(|(other, node)| self.told(other, node)).collect()).await;
    }

    /// What a node says of itself.
    fn told(&self, index: usize, node: &Simulated) -> Candidate {
        let mut candidate = node.candidate.clone();
        if self.wires.conduct(index) == Conduct::Lie {
            candidate.contact.addr.set_port(444);
        }
        candidate
    }

    /// Ends a node and starts it anew: what it held is gone, what is on its disk is not.
    pub(crate) async fn restart(&mut self, index: usize, away: Duration) {
        self.kill(index).await;
        tokio::time::sleep(away).await;
        self.start_again(index, self.settings.clone(), false);
        for _ in 0..2 {
            self.introduce(index).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Starts a node that was ended; `moved`: at another address.
    pub(crate) fn start_again(&mut self, index: usize, settings: Settings, moved: bool) {
        let node = &self.nodes[index];
        let (lives, moves, disk) = (node.lives + 1, node.moves + u8::from(moved), node.disk.clone());
        self.nodes[index] = self.started(index, lives, moves, disk, settings);
    }

    /// Takes a node off the network at once, with its links.
    pub(crate) async fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.running = false;
        node.stop_tx.send_replace(true);
        node.transport.close().await;
        self.wires.lose_links(index);
    }

    /// Brings an echo server into use on a node; returns its address.
    pub(crate) async fn server(&mut self, node: usize) -> ApAddress {
        let address = self.identity(node).await;
        self.nodes[node].network.publish(address).await;
        address
    }

    pub(crate) async fn identity(&mut self, node: usize) -> ApAddress {
        let key = Arc::new(SigningKey::generate(&mut self.rng));
        let address = ApAddress::of(&key.verifying_key());
        self.nodes[node].network.open(key, Arc::new(Echo)).await;
        address
    }

    /// Connects, tries again while the address is not known yet, and has `len` bytes echoed.
    pub(crate) async fn echo(&mut self, node: usize, from: ApAddress, to: ApAddress, len: usize) {
        let mut stream = self.connect(node, from, to).await;
        let mut sent = vec![0; len];
        self.rng.fill_bytes(&mut sent);
        let copy = sent.clone();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut got = Vec::new();
        let work = async {
            tokio::try_join!(
                async {
                    write.write_all(&copy).await?;
                    write.shutdown().await
                },
                async { read.read_to_end(&mut got).await },
            )
        };
        timeout(PATIENCE, work).await.expect("in time").expect("no reset");
        assert!(got == sent, "bytes differ");
    }

    pub(crate) async fn connect(&self, node: usize, from: ApAddress, to: ApAddress) -> Box<dyn Stream> {
        let attempt = async {
            loop {
                match self.nodes[node].network.connect(from, 40_000, to, 80).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        };
        timeout(PATIENCE, attempt).await.expect("connected in time")
    }

    pub(crate) fn relayed(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.counters.relayed_bytes()).collect()
    }
}

/// Runs on a virtual clock, from one seed.
pub(crate) fn simulate<T>(seed: u64, work: impl Future<Output = T>) -> T {
    phantom_daemon::random::follow_seed(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        clock::follow_tokio(Duration::from_secs(BEGINNING));
        work.await
    })
}
