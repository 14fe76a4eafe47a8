//! Steps the protocol's node: one task owns it, link tasks bring it frames, finished tunnels go to the data plane.

mod control;
mod joins;
mod link_task;
mod ready;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use phantom_proto::cell::CellKind;
use phantom_proto::crypto::{SigningKey, derive};
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Input, LinkId, Node, Output, PathNo, Serials, TICK, Use, Work};
use phantom_proto::path::{Candidate, PathKeys, Seen};
use phantom_proto::wire::cells::{Lookup, Open};
use phantom_proto::wire::frame::Reason;
use phantom_proto::wire::{NodeContact, Wire};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use zeroize::Zeroizing;

use crate::link::frame::{Frame, LinkReader, LinkWriter};
use crate::link::{Link, LinkError, LinkPool};
use crate::netdb::Database;
use crate::relay::cells::{Crypt, Tunnel};
use crate::relay::exit::ExitServices;
use crate::relay::{Counters, entry, exit, hop};

use control::{Control, Whose};
use joins::Joins;
pub use link_task::Taken;
use link_task::{Command, LinkTask};
pub use ready::{OwnPath, Ready, ReadyError};
use ready::{Queue, Waited};

/// Events that may wait for the control task. Each link task has at most one in here at a time.
const EVENTS: usize = 1024;

/// How long an exit node's JOIN waits for a tunnel to be ready.
const JOIN_WAIT: Duration = Duration::from_secs(8);

/// Links opened ahead to a neighbour with which tunnels are built.
const WARM: usize = 2;

/// How long links stay open ahead after the last tunnel was built with a neighbour.
const WARM_LIFE: Duration = Duration::from_secs(300);

/// How often that is looked at.
const WARM_LOOK: Duration = Duration::from_secs(30);

/// What happens to the control task.
pub(crate) enum Event {
    Accepted(Link),
    Dialed {
        id: LinkId,
        result: Result<Link, LinkError>,
    },
    Frame {
        id: LinkId,
        frame: Frame,
    },
    Down(LinkId),
    Input(Input),
    /// The other end of a path began to use a ready tunnel with this cell.
    Used {
        path: PathNo,
        whose: Whose,
        tunnel: Box<Tunnel>,
        kind: CellKind,
        data: Vec<u8>,
    },
    Query(oneshot::Sender<Snapshot>),
}

/// What the node says of itself.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Own paths that work for what goes out, or will.
    pub exit_paths: usize,
    /// Own entry paths that work.
    pub entry_paths: usize,
    /// Paths carried for others.
    pub relayed_paths: usize,
    /// What a first own path waits for, in words.
    pub waiting_for: Option<String>,
    /// What the operator should know, in words.
    pub notes: Vec<String>,
    /// Sizes of the node's tables: links, dials, paths, segments, tunnels under way, seeds.
    pub load: [usize; 6],
}

/// What the control task needs of the rest of the daemon.
pub struct Services {
    /// Opens and keeps links.
    pub links: Arc<LinkPool>,
    /// The network database.
    pub database: Arc<dyn Database>,
    /// Counts of the data plane.
    pub counters: Arc<Counters>,
    /// Tunnels that arrive on own entry paths, after INCOMING.
    pub incoming_tx: mpsc::Sender<Arrival>,
    /// Keeps what belongs to identities.
    pub kept: Arc<dyn Kept>,
    /// Keeps the guard set.
    pub choice_tx: watch::Sender<Vec<u8>>,
    /// Keeps a package that was opened until it expires, so that it outlives the process when this returns.
    pub opened: Box<dyn FnMut(Seen) + Send>,
    /// Tunnels of others that may pass through this node at once. Each has two links with buffers.
    pub relayed_tunnels: u64,
}

/// What of an identity outlives the daemon, if the identity does. Each call may take the time of a disk access.
pub trait Kept: Send + Sync + 'static {
    /// Whether it does.
    fn lasts(&self, identity: ApAddress) -> bool;
    /// The serials of the AP records of earlier runs.
    fn serials(&self, identity: ApAddress) -> Serials;
    /// A record that bears them leaves when this returns.
    fn save_serials(&self, identity: ApAddress, serials: Serials);
    /// The nodes of its layers, as [`Output::Sets`] gave them in an earlier run.
    fn sets(&self, identity: ApAddress) -> Option<Vec<u8>>;
    /// Keeps these for the next run.
    fn save_sets(&self, identity: ApAddress, sets: Vec<u8>);
}

/// For identities that die with the daemon.
pub struct NothingKept;

impl Kept for NothingKept {
    fn lasts(&self, _: ApAddress) -> bool {
        false
    }

    fn serials(&self, _: ApAddress) -> Serials {
        Serials::default()
    }

    fn save_serials(&self, _: ApAddress, _: Serials) {}

    fn sets(&self, _: ApAddress) -> Option<Vec<u8>> {
        None
    }

    fn save_sets(&self, _: ApAddress, _: Vec<u8>) {}
}

/// Somebody connects to an identity.
pub struct Arrival {
    /// Which one.
    pub identity: ApAddress,
    /// The own path that it came along.
    pub path: PathNo,
    /// What it came on.
    pub tunnel: Tunnel,
    /// The session's first bytes.
    pub first: Vec<u8>,
}

/// Speaks to the control task; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    event_tx: mpsc::Sender<Event>,
    ready: Arc<Ready>,
    kept: Arc<dyn Kept>,
}

impl Handle {
    /// Own paths and their ready tunnels.
    pub fn ready(&self) -> &Arc<Ready> {
        &self.ready
    }

    /// Gives the node the local sample of the node table.
    pub async fn sample(&self, sample: Vec<Candidate>) {
        self.input(Input::Sample(sample)).await;
    }

    /// Tells which nodes the database has just connected with.
    pub async fn back(&self, nodes: BTreeSet<NodeId>) {
        self.input(Input::Back(nodes)).await;
    }

    /// Tells which nodes of the sample do not answer.
    pub async fn silent(&self, silent: BTreeSet<NodeId>) {
        self.input(Input::Silent(silent)).await;
    }

    /// Asks for paths over which this identity connects.
    pub async fn want_exit(&self, key: &SigningKey) {
        let identity = ApAddress::of(&key.verifying_key());
        self.settle(key, identity).await;
        self.input(Input::WantExit(identity)).await;
    }

    /// Asks for entry paths of this identity, to be published.
    pub async fn want_entry(&self, key: Arc<SigningKey>) {
        let (kept, identity) = (self.kept.clone(), ApAddress::of(&key.verifying_key()));
        self.settle(&key, identity).await;
        let serials = spawn_blocking(move || kept.serials(identity)).await.unwrap_or_default();
        self.input(Input::WantEntry(key, serials)).await;
    }

    /// Gives an identity that outlives the daemon the nodes that it had in earlier runs.
    async fn settle(&self, key: &SigningKey, identity: ApAddress) {
        let kept = self.kept.clone();
        let sets = spawn_blocking(move || kept.lasts(identity).then(|| kept.sets(identity)));
        if let Ok(Some(sets)) = sets.await {
            let secret = derive("phantom v1 identity secret", &[key.seed()]);
            self.input(Input::Lasting { identity, secret: Zeroizing::new(secret), sets }).await;
        }
    }

    /// All keys with which others build paths from now on, and what this node's record says.
    pub async fn rotate(&self, keys: Vec<PathKeys>, own: Candidate) {
        self.input(Input::Rotate(keys, Box::new(own))).await;
    }

    /// Drops all paths of this identity.
    pub async fn forget(&self, identity: ApAddress) {
        self.input(Input::Forget(identity)).await;
    }

    /// Gives the node a link that was accepted.
    pub async fn accepted(&self, link: Link) {
        // The control task is gone only when the daemon stops.
        let _ = self.event_tx.send(Event::Accepted(link)).await;
    }

    /// What the node says of itself; `None` when the daemon is stopping.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.event_tx.send(Event::Query(answer_tx)).await.ok()?;
        answer_rx.await.ok()
    }

    /// A ready tunnel of an own path that does this work for the identity, taken for use.
    pub async fn tunnel(
        &self,
        identity: ApAddress,
        work: Work,
        limit: Duration,
    ) -> Result<(OwnPath, Tunnel), ReadyError> {
        self.ready.take(identity, work, limit).await
    }

    async fn input(&self, input: Input) {
        let _ = self.event_tx.send(Event::Input(input)).await;
    }
}

/// Starts the control task. It ends when `stop` turns true or every [`Handle`] is gone.
pub fn start(node: Node, services: Services, stop: watch::Receiver<bool>) -> Handle {
    let (event_tx, event_rx) = mpsc::channel(EVENTS);
    let ready = Arc::new(Ready::default());
    let kept = services.kept.clone();
    let driver = Driver {
        node,
        services,
        event_tx: event_tx.clone(),
        ready: ready.clone(),
        links: BTreeMap::new(),
        ends: BTreeMap::new(),
        controls: BTreeMap::new(),
        saved: None,
        joins: Joins::default(),
        next_accepted: 1,
        judged: None,
        warmed: BTreeMap::new(),
    };
    tokio::spawn(driver.run(event_rx, stop));
    Handle { event_tx, ready, kept }
}

struct Driver {
    node: Node,
    services: Services,
    event_tx: mpsc::Sender<Event>,
    ready: Arc<Ready>,
    links: BTreeMap<LinkId, LinkTask>,
    /// Ready tunnels of paths that end at this node.
    ends: BTreeMap<PathNo, Arc<Queue>>,
    /// Control tunnels of own paths and of those that end here.
    controls: BTreeMap<PathNo, Arc<Control>>,
    /// Resolves when the newest serials are kept.
    saved: Option<Shared<oneshot::Receiver<()>>>,
    joins: Joins,
    next_accepted: u64,
    /// The link whose frame the node is judging.
    judged: Option<LinkId>,
    /// Neighbours to which links are opened ahead, and when a tunnel was last built with them.
    warmed: BTreeMap<NodeId, (NodeContact, Instant)>,
}

impl Driver {
    async fn run(mut self, mut event_rx: mpsc::Receiver<Event>, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(Duration::from_millis(TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warm_look = interval(WARM_LOOK);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = tick.tick() => self.node.tick(now()),
                _ = warm_look.tick() => self.cool(),
                () = until(self.node.refill_due()) => self.node.refill(now()),
                event = event_rx.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
            }
            while let Some(output) = self.node.poll() {
                self.output(output);
            }
            self.read_on();
        }
    }

    /// The link of the frame that the node has just judged may bring the next one, if the node kept it.
    fn read_on(&mut self) {
        let Some(link) = self.judged.take() else { return };
        if self.links.get(&link).is_some_and(|task| !task.command(Command::Read)) {
            // Stuck: its task ends, and says so.
            self.links.remove(&link);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Accepted(link) => {
                let id = LinkId(self.next_accepted);
                self.next_accepted += 2;
                let (reader, writer) = link.into_frames();
                self.link_up(id, reader, writer);
            }
            Event::Dialed { id, result: Ok(link) } => {
                let (reader, writer) = link.into_frames();
                self.link_up(id, reader, writer);
            }
            Event::Dialed { id, result: Err(error) } => {
                tracing::debug!(%error, "a link could not be opened");
                self.node.handle(now(), Input::DialFailed { link: id });
            }
            Event::Frame { id, frame } => {
                self.judged = Some(id);
                self.node.handle(now(), Input::Frame { link: id, kind: frame.kind, payload: frame.payload.to_vec() });
            }
            Event::Down(id) => {
                self.links.remove(&id);
                self.node.handle(now(), Input::LinkDown { link: id });
            }
            Event::Input(input) => self.node.handle(now(), input),
            Event::Used { path, whose: Whose::End, tunnel, kind, data } => self.used_end(path, tunnel, kind, data),
            Event::Used { path, whose: Whose::Own, tunnel, kind, data } => self.used_own(path, tunnel, kind, data),
            Event::Query(answer_tx) => {
                let (exit_paths, entry_paths) = self.node.path_counts();
                let (waiting_for, notes) = (self.node.progress(now()), self.node.notes(now()));
                let (relayed_paths, load) = (self.node.relayed_paths(), self.node.load());
                let snapshot = Snapshot { exit_paths, entry_paths, relayed_paths, waiting_for, notes, load };
                let _ = answer_tx.send(snapshot);
            }
        }
    }

    fn link_up(&mut self, id: LinkId, reader: LinkReader, writer: LinkWriter) {
        let peer = NodeId::of(&reader.peer());
        self.links.insert(id, LinkTask::start(id, reader, writer, self.event_tx.clone()));
        self.node.handle(now(), Input::LinkUp { link: id, peer });
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Dial { link, to, again } => self.dial(link, to, again),
            Output::Send { link, kind, payload } => {
                if !self.links.get(&link).is_some_and(|task| task.command(Command::Send { kind, payload })) {
                    self.links.remove(&link);
                    self.node.handle(now(), Input::LinkDown { link });
                }
            }
            Output::Close { link } => drop(self.links.remove(&link)),
            Output::Release { link } => self.release(link),
            Output::Publish(record) => self.publish(record),
            Output::Relay { a, b, ab, ba } => {
                let (a, b) = (self.take(a), self.take(b));
                // A hop that is full is silent.
                let Some(relayed) = self.services.counters.relay(self.services.relayed_tunnels) else { return };
                tokio::spawn(async move {
                    if let (Some(a), Some(b)) = (taken(a).await, taken(b).await) {
                        hop::relay(a, b, ab, ba, relayed).await;
                    }
                });
            }
            Output::EndTunnel { path, link, incoming, outgoing } => {
                let tunnel = self.tunnel(link, Crypt::End(Box::new(incoming)), Crypt::End(Box::new(outgoing)));
                let queue = self.end(path);
                self.keep(Whose::End, path, &queue, tunnel);
            }
            Output::OwnTunnel { path, link, incoming, outgoing } => {
                let tunnel = self.tunnel(link, Crypt::Owner(incoming), Crypt::Owner(outgoing));
                if let Some(queue) = self.ready.queue(path) {
                    self.keep(Whose::Own, path, &queue, tunnel);
                }
            }
            Output::Join { link, path } => self.join(link, path),
            Output::Serials { identity, serials } => self.keep_serials(identity, serials),
            Output::Sets { identity, sets } => {
                let kept = self.services.kept.clone();
                spawn_blocking(move || kept.save_sets(identity, sets));
            }
            Output::Serve { path, record } => self.serve(path, record),
            Output::PathUp { path, hops } => {
                let queue = self.ready.path_up(path, hops);
                self.control(Whose::Own, path, &queue);
            }
            Output::PathWorks { path, identity, work } => self.ready.works(path, identity, work),
            Output::PathDown { path } => {
                self.ready.path_down(path);
                self.ends.remove(&path);
                self.controls.remove(&path);
            }
            Output::Opened(seen) => (self.services.opened)(seen),
            Output::Choice(choice) => drop(self.services.choice_tx.send_replace(choice)),
        }
    }

    fn dial(&mut self, id: LinkId, to: NodeContact, again: bool) {
        if again && self.services.links.warm(&to, WARM) {
            self.warmed.insert(to.node_id(), (to.clone(), Instant::now()));
        }
        let (links, event_tx) = (self.services.links.clone(), self.event_tx.clone());
        tokio::spawn(async move {
            let result = links.take(&to).await;
            let _ = event_tx.send(Event::Dialed { id, result }).await;
        });
    }

    /// Lets go of neighbours with which no tunnels are built any more.
    fn cool(&mut self) {
        let links = &self.services.links;
        self.warmed.retain(|_, (neighbour, last)| {
            let keep = last.elapsed() < WARM_LIFE;
            if !keep {
                links.warm(neighbour, 0);
            }
            keep
        });
    }

    /// Asks a link's task for the link. `None`: it is gone.
    fn take(&mut self, link: LinkId) -> Option<oneshot::Receiver<Taken>> {
        let (taken_tx, taken_rx) = oneshot::channel();
        let task = self.links.remove(&link)?;
        let answers = self.judged == Some(link);
        task.command(Command::HandOver { taken_tx, answers }).then_some(taken_rx)
    }

    fn tunnel(
        &mut self,
        link: LinkId,
        incoming: Crypt,
        outgoing: Crypt,
    ) -> impl Future<Output = Option<Tunnel>> + use<> {
        let link = self.take(link);
        async move { Some(Tunnel::new(taken(link).await?, incoming, outgoing)) }
    }

    fn release(&mut self, link: LinkId) {
        let (link, links) = (self.take(link), self.services.links.clone());
        tokio::spawn(async move {
            if let Some(Taken { reader, writer }) = taken(link).await {
                links.give_back(reader, writer);
            }
        });
    }

    fn publish(&self, record: Vec<u8>) {
        let database = self.services.database.clone();
        tokio::spawn(async move {
            if let Err(error) = database.publish(record).await {
                tracing::debug!(%error, "an AP record could not be published");
            }
        });
    }

    /// The ready tunnels of a path that ends here; its first one makes the path.
    fn end(&mut self, path: PathNo) -> Arc<Queue> {
        if let Some(queue) = self.ends.get(&path) {
            return queue.clone();
        }
        let queue = Arc::<Queue>::default();
        self.ends.insert(path, queue.clone());
        self.control(Whose::End, path, &queue);
        queue
    }

    fn control(&mut self, whose: Whose, path: PathNo, queue: &Arc<Queue>) {
        self.controls.insert(path, Arc::new(Control::start(whose, path, queue, self.event_tx.clone())));
    }

    /// Lets a new tunnel wait for its use.
    fn keep(
        &self,
        whose: Whose,
        path: PathNo,
        queue: &Arc<Queue>,
        tunnel: impl Future<Output = Option<Tunnel>> + Send + 'static,
    ) {
        let (queue, ready, event_tx) = (Arc::downgrade(queue), self.ready.clone(), self.event_tx.clone());
        tokio::spawn(async move {
            let waited = match tunnel.await {
                Some(tunnel) => Queue::wait(queue, tunnel, || ready.put()).await,
                None => Waited::Lost,
            };
            let used = !matches!(waited, Waited::Lost);
            let _ = event_tx.send(Event::Input(Input::TunnelSpent { path, used })).await;
            if let Waited::Used(tunnel, kind, data) = waited {
                let _ = event_tx.send(Event::Used { path, whose, tunnel, kind, data }).await;
            }
        });
    }

    /// The owner of a path that ends here uses a tunnel.
    fn used_end(&mut self, path: PathNo, tunnel: Box<Tunnel>, kind: CellKind, data: Vec<u8>) {
        match kind {
            CellKind::Open => self.open(path, *tunnel, &data),
            CellKind::Lookup => self.look_up(path, *tunnel, &data),
            CellKind::Padding => self.adopt(path, tunnel),
            CellKind::Serve => {
                self.adopt(path, tunnel);
                self.node.handle(now(), Input::Served { path, record: data });
            }
            _ => self.misused(path, *tunnel),
        }
    }

    /// The terminating node of an own path uses a tunnel.
    fn used_own(&mut self, path: PathNo, tunnel: Box<Tunnel>, kind: CellKind, data: Vec<u8>) {
        let serves = self.ready.path(path).filter(|own| own.work == Work::Serve).and_then(|own| own.identity);
        match (kind, serves) {
            (CellKind::Padding, _) => self.adopt(path, tunnel),
            (CellKind::Incoming, Some(identity)) => {
                let arrival = Arrival { identity, path, tunnel: *tunnel, first: data };
                if self.services.incoming_tx.try_send(arrival).is_err() {
                    tracing::warn!("more connections arrive than can be answered; one was dropped");
                }
            }
            _ => self.misused(path, *tunnel),
        }
    }

    /// An end broke the protocol: it hears so, and the path ends.
    fn misused(&mut self, path: PathNo, mut tunnel: Tunnel) {
        tokio::spawn(async move { tunnel.outgoing.abort(Reason::Protocol).await });
        self.node.handle(now(), Input::Misused(path));
    }

    fn adopt(&self, path: PathNo, tunnel: Box<Tunnel>) {
        if let Some(control) = self.controls.get(&path) {
            control.adopt(tunnel);
        }
    }

    fn open(&mut self, path: PathNo, tunnel: Tunnel, data: &[u8]) {
        let Ok(open) = Open::from_bytes(data) else { return self.misused(path, tunnel) };
        if !self.node.may_use(now(), path, Use::Connect) {
            return self.misused(path, tunnel);
        }
        let services = ExitServices { database: self.services.database.clone(), links: self.services.links.clone() };
        tokio::spawn(async move {
            if let Err(error) = exit::connect(tunnel, open, services).await {
                tracing::debug!(%error, "an exit tunnel ended");
            }
        });
    }

    fn look_up(&mut self, path: PathNo, tunnel: Tunnel, data: &[u8]) {
        let Ok(Lookup(address)) = Lookup::from_bytes(data) else { return self.misused(path, tunnel) };
        if !self.node.may_use(now(), path, Use::Ask) {
            return self.misused(path, tunnel);
        }
        let database = self.services.database.clone();
        tokio::spawn(async move {
            if let Err(error) = exit::look_up(tunnel, address, database).await {
                tracing::debug!(%error, "a look-up for others ended");
            }
        });
    }

    /// The serials reach the disk before the record that bears them leaves.
    fn keep_serials(&mut self, identity: ApAddress, serials: Serials) {
        let (saved_tx, saved_rx) = oneshot::channel();
        let kept = self.services.kept.clone();
        spawn_blocking(move || {
            kept.save_serials(identity, serials);
            let _ = saved_tx.send(());
        });
        self.saved = Some(saved_rx.shared());
    }

    fn serve(&mut self, path: PathNo, record: Vec<u8>) {
        let Some(control) = self.controls.get(&path).cloned() else { return };
        let saved = self.saved.clone();
        tokio::spawn(async move {
            if let Some(saved) = saved {
                let _ = saved.await;
            }
            control.serve(record);
        });
    }

    fn join(&mut self, link: LinkId, path: PathNo) {
        let Some(exit) = self.take(link) else { return };
        let (queue, joins) = (self.end(path), self.joins.clone());
        tokio::spawn(async move {
            let Some(exit) = taken(Some(exit)).await else { return };
            let peer = NodeId::of(&exit.reader.peer());
            let Some(_held) = joins.enter(peer) else { return entry::refuse(exit.into(), Reason::Busy).await };
            let Ok((joined, first)) = entry::greet(exit).await else { return };
            let ready = queue.take(JOIN_WAIT).await;
            let Some(tunnel) = ready else { return entry::refuse_late(joined, Reason::Busy).await };
            if let Err(error) = entry::serve(tunnel, joined, first).await {
                tracing::debug!(%error, "an entry tunnel ended");
            }
        });
    }
}

/// Resolves at a time of [`now`]; never without one.
async fn until(due: Option<u64>) {
    match due {
        Some(due) => sleep(Duration::from_millis(due.saturating_sub(now()))).await,
        None => std::future::pending().await,
    }
}

async fn taken(link: Option<oneshot::Receiver<Taken>>) -> Option<Taken> {
    link?.await.ok()
}

/// Milliseconds since 1970, from tokio's clock, so that a simulation can hold the time.
fn now() -> u64 {
    crate::clock::unix_millis()
}
