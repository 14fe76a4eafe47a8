//! Steps the protocol's node: one task owns it, link tasks bring it frames, finished tunnels go to the data plane.

mod joins;
mod link_task;
mod ready;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Input, LinkId, Node, Output, PathNo, Purpose, TICK};
use phantom_proto::path::{Candidate, PathKeys};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::array::Kind;
use phantom_proto::wire::frame::Reason;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::link::frame::{Frame, LinkReader, LinkWriter};
use crate::link::{Link, LinkError, LinkPool};
use crate::netdb::Database;
use crate::relay::cells::{Crypt, Tunnel};
use crate::relay::exit::ExitServices;
use crate::relay::{Counters, entry, exit, hop};

use joins::Joins;
pub use link_task::Taken;
use link_task::{Command, LinkTask};
pub use ready::{OwnPath, Ready, ReadyError};

/// Events that may wait for the control task. Each link task has at most one in here at a time.
const EVENTS: usize = 1024;

/// Tunnels of others that pass through this node at once. Each has two links with buffers; a hop that is full is silent.
const MAX_RELAYS: u64 = 30_000;

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
    Dialed { id: LinkId, result: Result<Link, LinkError> },
    Frame { id: LinkId, frame: Frame },
    Down(LinkId),
    Input(Input),
    Incoming { path: PathNo, tunnel: Box<Tunnel> },
    Query(oneshot::Sender<Snapshot>),
}

/// What the node says of itself.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Own exit paths that work, assigned or spare.
    pub exit_paths: usize,
    /// Own entry paths that work.
    pub entry_paths: usize,
    /// Why no path can be built, in words.
    pub problem: Option<String>,
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
    /// Tunnels that arrive on own entry paths: identity and tunnel, after INCOMING.
    pub incoming_tx: mpsc::Sender<(ApAddress, PathNo, Tunnel)>,
    /// Keeps the guard set.
    pub guards_tx: watch::Sender<Vec<u8>>,
}

/// Speaks to the control task; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    event_tx: mpsc::Sender<Event>,
    ready: Arc<Ready>,
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

    /// Tells which nodes of the sample do not answer.
    pub async fn silent(&self, silent: BTreeSet<NodeId>) {
        self.input(Input::Silent(silent)).await;
    }

    /// Asks for an exit path of this identity's own.
    pub async fn want_exit(&self, identity: ApAddress) {
        self.input(Input::WantExit(identity)).await;
    }

    /// Asks for entry paths of this identity.
    pub async fn want_entry(&self, key: Arc<SigningKey>) {
        self.input(Input::WantEntry(key)).await;
    }

    /// New keys for others to build paths with.
    pub async fn rotate(&self, keys: PathKeys, own: Candidate) {
        self.input(Input::Rotate(Box::new(keys), Box::new(own))).await;
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

    /// A ready tunnel of an own exit path, taken for use.
    pub async fn exit_tunnel(&self, identity: ApAddress, limit: Duration) -> Result<(OwnPath, Tunnel), ReadyError> {
        let (path, tunnel) = self.ready.exit_tunnel(identity, limit, |no| spent(&self.event_tx, no)).await?;
        self.input(Input::TunnelSpent(path.no)).await;
        Ok((path, tunnel))
    }

    async fn input(&self, input: Input) {
        let _ = self.event_tx.send(Event::Input(input)).await;
    }
}

/// Starts the control task. It ends when `stop` turns true or every [`Handle`] is gone.
pub fn start(node: Node, services: Services, stop: watch::Receiver<bool>) -> Handle {
    let (event_tx, event_rx) = mpsc::channel(EVENTS);
    let ready = Arc::new(Ready::default());
    let driver = Driver {
        node,
        services,
        event_tx: event_tx.clone(),
        ready: ready.clone(),
        links: BTreeMap::new(),
        ends: BTreeMap::new(),
        joins: Joins::default(),
        next_accepted: 1,
        warmed: BTreeMap::new(),
    };
    tokio::spawn(driver.run(event_rx, stop));
    Handle { event_tx, ready }
}

struct Driver {
    node: Node,
    services: Services,
    event_tx: mpsc::Sender<Event>,
    ready: Arc<Ready>,
    links: BTreeMap<LinkId, LinkTask>,
    /// Ready tunnels of entry paths that end at this node.
    ends: BTreeMap<PathNo, Arc<ready::Queue>>,
    joins: Joins,
    next_accepted: u64,
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
                self.node.handle(now(), Input::Frame { link: id, kind: frame.kind, payload: frame.payload.to_vec() });
            }
            Event::Down(id) => {
                self.links.remove(&id);
                self.node.handle(now(), Input::LinkDown { link: id });
            }
            Event::Input(input) => self.node.handle(now(), input),
            Event::Incoming { path, tunnel } => self.incoming(path, *tunnel),
            Event::Query(answer_tx) => {
                let (exit_paths, entry_paths) = self.node.path_counts();
                let problem = self.node.problem().map(str::to_owned);
                let _ = answer_tx.send(Snapshot { exit_paths, entry_paths, problem, load: self.node.load() });
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
                let counters = self.services.counters.clone();
                if counters.open_relays() >= MAX_RELAYS {
                    return;
                }
                tokio::spawn(async move {
                    if let (Some(a), Some(b)) = (taken(a).await, taken(b).await) {
                        hop::relay(a, b, ab, ba, counters).await;
                    }
                });
            }
            Output::EndTunnel { path, kind, link, incoming, outgoing } => {
                let tunnel = self.tunnel(link, Crypt::End(Box::new(incoming)), Crypt::End(Box::new(outgoing)));
                match kind {
                    Kind::Exit => self.serve_exit(path, tunnel),
                    Kind::Entry => self.keep_entry(path, tunnel),
                }
            }
            Output::OwnTunnel { path, link, incoming, outgoing } => {
                let tunnel = self.tunnel(link, Crypt::Owner(incoming), Crypt::Owner(outgoing));
                self.own_tunnel(path, tunnel);
            }
            Output::Join { link, path } => self.join(link, path),
            Output::PathUp { path, purpose, hops } => self.ready.path_up(path, purpose, hops),
            Output::PathAssigned { path, identity } => self.ready.assign(path, Purpose::Exit(identity)),
            Output::PathDown { path } => {
                self.ready.path_down(path);
                self.ends.remove(&path);
            }
            Output::Guards(guards) => drop(self.services.guards_tx.send_replace(guards)),
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
        task.command(Command::HandOver(taken_tx)).then_some(taken_rx)
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
            if let Some(Taken { reader, writer, pending: None }) = taken(link).await {
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

    fn serve_exit(&self, path: PathNo, tunnel: impl Future<Output = Option<Tunnel>> + Send + 'static) {
        let services = ExitServices { database: self.services.database.clone(), links: self.services.links.clone() };
        let event_tx = self.event_tx.clone();
        tokio::spawn(async move {
            let Some(tunnel) = tunnel.await else { return spent(&event_tx, path) };
            if let Err(error) = exit::serve(tunnel, services, || spent(&event_tx, path)).await {
                tracing::debug!(%error, "an exit tunnel ended");
            }
        });
    }

    fn keep_entry(&mut self, path: PathNo, tunnel: impl Future<Output = Option<Tunnel>> + Send + 'static) {
        let queue = self.ends.entry(path).or_default().clone();
        tokio::spawn(async move {
            if let Some(tunnel) = tunnel.await {
                queue.put(tunnel);
            }
        });
    }

    fn join(&mut self, link: LinkId, path: PathNo) {
        let Some(exit) = self.take(link) else { return };
        let queue = self.ends.entry(path).or_default().clone();
        let (event_tx, joins) = (self.event_tx.clone(), self.joins.clone());
        tokio::spawn(async move {
            let Some(exit) = taken(Some(exit)).await else { return };
            let peer = NodeId::of(&exit.reader.peer());
            let Some(_held) = joins.enter(peer) else { return entry::refuse(exit, Reason::Busy).await };
            let ready = queue.take(JOIN_WAIT, || spent(&event_tx, path)).await;
            let Some(tunnel) = ready else { return entry::refuse(exit, Reason::Busy).await };
            let _ = event_tx.send(Event::Input(Input::TunnelSpent(path))).await;
            if let Err(error) = entry::serve(tunnel, exit).await {
                tracing::debug!(%error, "an entry tunnel ended");
            }
        });
    }

    fn own_tunnel(&self, path: PathNo, tunnel: impl Future<Output = Option<Tunnel>> + Send + 'static) {
        let (ready, event_tx) = (self.ready.clone(), self.event_tx.clone());
        tokio::spawn(async move {
            let Some(mut tunnel) = tunnel.await else { return spent(&event_tx, path) };
            if !ready.is_entry(path) {
                return ready.put(path, tunnel);
            }
            // An entry node that vanished without a word closes nothing: the end of the path ends its tunnels.
            let came = tokio::select! {
                biased;
                came = tunnel.wait_incoming() => came,
                () = ready.gone(path) => return,
            };
            let _ = event_tx.send(Event::Input(Input::TunnelSpent(path))).await;
            if came {
                let _ = event_tx.send(Event::Incoming { path, tunnel: Box::new(tunnel) }).await;
            }
        });
    }

    fn incoming(&self, path: PathNo, tunnel: Tunnel) {
        if let Some(Purpose::Entry(identity)) = self.ready.purpose(path)
            && self.services.incoming_tx.try_send((identity, path, tunnel)).is_err()
        {
            tracing::warn!("more connections arrive than can be answered; one was dropped");
        }
    }
}

/// A ready tunnel was used or lost. A hint for the refill: when the control task is that far behind, the next one does as well.
fn spent(event_tx: &mpsc::Sender<Event>, path: PathNo) {
    let _ = event_tx.try_send(Event::Input(Input::TunnelSpent(path)));
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
