//! Steps the protocol's node: one task owns it, link tasks bring it frames, finished tunnels go to the data plane.

mod control;
mod ends;
mod handle;
mod joins;
mod link_task;
mod order;
mod ready;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::NodeId;
use phantom_proto::node::{Input, LinkId, Node, Note, Of, Output, PathNo, TICK, Weight, Work};
use phantom_proto::wire::NodeContact;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::link::frame::{Frame, LinkReader, LinkWriter};
use crate::link::{Link, LinkError};
use crate::logging::journal::NOTES;
use crate::relay::cells::{Crypt, Tunnel};
use crate::relay::{Back, Fresh, Taken, hop};

use control::{Control, Whose};
pub use handle::{Handle, Snapshot};
use joins::Joined;
use link_task::{Command, LinkTask};
use order::Order;
use ready::{Claimant, Given, Waiting, WaitsFor};
pub use ready::{OwnPath, ReadyError};
pub use services::{Arrival, Incoming, Kept, LookUp, NothingKept, Services, Visit};

/// Events that may wait for the control task. Each link task has at most one in here at a time.
const EVENTS: usize = 1024;

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
    /// A link that is still the node's has ended; `silent`: nothing came any more on a standing connection.
    Down {
        id: LinkId,
        silent: bool,
    },
    Input(Input),
    /// The other end of a path began to use a ready tunnel with this cell.
    Used {
        path: PathNo,
        tunnel: Box<Tunnel>,
        kind: CellKind,
        data: Vec<u8>,
    },
    /// Somebody wants a ready tunnel.
    Want {
        of: Of,
        limit: Duration,
        tunnel_tx: oneshot::Sender<Given>,
    },
    Query(oneshot::Sender<Snapshot>),
}

/// Asks the control task for a ready tunnel, behind whoever came before. `None`: there was none in time.
pub(crate) async fn want(event_tx: &mpsc::Sender<Event>, of: Of, limit: Duration) -> Option<Given> {
    let (tunnel_tx, tunnel_rx) = oneshot::channel();
    event_tx.send(Event::Want { of, limit, tunnel_tx }).await.ok()?;
    tunnel_rx.await.ok()
}

/// An own path.
struct Own {
    path: OwnPath,
    /// Held by all that runs over it.
    uses: Arc<()>,
    /// It takes no new work, and the node waits to hear that nothing runs over it any more.
    retired: bool,
}

/// Starts the control task. It ends when `stop` turns true or every [`Handle`] is gone.
pub fn start(node: Node, services: Services, stop: watch::Receiver<bool>) -> Handle {
    let (event_tx, event_rx) = mpsc::channel(EVENTS);
    let (fresh_tx, fresh_rx) = mpsc::channel(EVENTS);
    let kept = services.kept.clone();
    let driver = Driver {
        node,
        services,
        event_tx: event_tx.clone(),
        fresh_tx,
        links: BTreeMap::new(),
        waiting: Waiting::default(),
        own: BTreeMap::new(),
        controls: BTreeMap::new(),
        saves: Order::default(),
        joined: Joined::default(),
        next_accepted: 1,
        cuts: BTreeMap::new(),
        judged: None,
        warmed: BTreeMap::new(),
    };
    tokio::spawn(driver.run(event_rx, fresh_rx, stop));
    Handle { event_tx, kept }
}

struct Driver {
    node: Node,
    services: Services,
    event_tx: mpsc::Sender<Event>,
    /// Links that have ended a use.
    fresh_tx: mpsc::Sender<Fresh>,
    links: BTreeMap<LinkId, LinkTask>,
    waiting: Waiting,
    own: BTreeMap<PathNo, Own>,
    /// Control tunnels of own paths and of those that end here.
    controls: BTreeMap<PathNo, Arc<Control>>,
    /// What is being kept.
    saves: Order,
    joined: Joined,
    next_accepted: u64,
    /// What ends the tunnels of a path that stand.
    cuts: BTreeMap<PathNo, CancellationToken>,
    /// The link whose frame the node is judging.
    judged: Option<LinkId>,
    /// Neighbours to which links are opened ahead, and when a tunnel was last built with them.
    warmed: BTreeMap<NodeId, (NodeContact, Instant)>,
}

impl Driver {
    async fn run(
        mut self,
        mut event_rx: mpsc::Receiver<Event>,
        mut fresh_rx: mpsc::Receiver<Fresh>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tick_at = Instant::now();
        let mut warm_look = interval(WARM_LOOK);
        loop {
            let (mut ticked, mut looked) = (false, false);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep_until(tick_at) => {
                    self.node.tick(now());
                    ticked = true;
                }
                _ = warm_look.tick() => {
                    self.cool();
                    self.close_unused();
                }
                Some((kept, waited)) = self.waiting.next() => self.waited(kept, waited),
                Some(peer) = self.joined.next() => self.node.handle(now(), Input::JoinEnded { peer }),
                () = until(self.node.refill_due()) => self.node.refill(now()),
                () = until(self.node.wakes()) => {
                    self.node.tick(now());
                    ticked = true;
                }
                Some(Fresh { reader, writer }) = fresh_rx.recv() => self.fresh(reader, writer),
                event = event_rx.recv() => match event {
                    Some(event) => {
                        looked = matches!(event, Event::Query(_));
                        self.event(event);
                    }
                    None => return,
                },
            }
            while let Some(output) = self.node.poll() {
                self.output(output);
            }
            self.read_on();
            // A look at the node is nothing that happens to it.
            if ticked {
                tick_at = self.due();
            } else if !looked {
                tick_at = tick_at.min(Instant::now() + Duration::from_millis(TICK));
            }
        }
    }

    /// When time next does something to the node, as long as nothing else happens to it.
    fn due(&self) -> Instant {
        let now = now();
        let left = self.node.due(now).saturating_sub(now);
        Instant::now() + Duration::from_millis(left.max(TICK))
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
                let (reader, writer) = link.into_frames();
                self.fresh(reader, writer);
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
            Event::Down { id: link, silent } => {
                self.links.remove(&link);
                let input = if silent { Input::LinkSilent { link } } else { Input::LinkDown { link } };
                self.node.handle(now(), input);
            }
            Event::Input(input) => self.node.handle(now(), input),
            Event::Used { path, tunnel, kind, data } => self.used(path, tunnel, kind, &data),
            Event::Want { of, limit, tunnel_tx } => {
                self.want(Claimant { of, deadline: Instant::now() + limit, tunnel_tx });
            }
            // Whoever asked may be gone.
            Event::Query(answer_tx) => drop(answer_tx.send(self.snapshot())),
        }
    }

    /// A link that another node dialed waits for a use.
    fn fresh(&mut self, reader: LinkReader, writer: LinkWriter) {
        let id = LinkId(self.next_accepted);
        self.next_accepted += 2;
        self.link_up(id, reader, writer);
    }

    fn back(&self) -> Back {
        Back::new(self.services.links.clone(), self.fresh_tx.clone())
    }

    fn snapshot(&self) -> Snapshot {
        let (exit_paths, entry_paths) = self.node.path_counts();
        let paths = self.own.iter().map(|(no, own)| (own.path.clone(), self.node.ready_tunnels(*no))).collect();
        let (waiting_for, notes) = (self.node.progress(now()), self.node.notes(now()));
        let (relayed_paths, load) = (self.node.relayed_paths(), self.node.load());
        let seen = self.node.seen_from_outside(now()).into_iter().collect();
        let vitals = self.node.vitals(now());
        Snapshot { exit_paths, entry_paths, paths, relayed_paths, waiting_for, notes, vitals, seen, load }
    }

    fn link_up(&mut self, id: LinkId, reader: LinkReader, writer: LinkWriter) {
        let peer = NodeId::of(&reader.peer());
        let link = Taken { reader, writer, back: Some(self.back()) };
        self.links.insert(id, LinkTask::start(id, link, self.event_tx.clone()));
        self.node.handle(now(), Input::LinkUp { link: id, peer });
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Dial { link, to, again } => self.dial(link, to, again),
            Output::Send { link, kind, payload } => self.say(link, Command::Send { kind, payload }),
            Output::Standing { link } => self.say(link, Command::Stands),
            Output::Close { link } => drop(self.links.remove(&link)),
            Output::Release { link } => self.release(link),
            Output::Publish { path, record } => self.publish(path, record),
            Output::Heard(record) => self.heard(record),
            Output::Relay { path, a, b, ab, ba } => {
                let (a, b) = (self.take_for(path, a), self.take_for(path, b));
                // A hop that is full is silent.
                let Some(relayed) = self.services.counters.relay(self.services.relayed_tunnels) else { return };
                tokio::spawn(async move {
                    if let (Some(a), Some(b)) = tokio::join!(a, b) {
                        hop::relay(a, b, ab, ba, relayed).await;
                    }
                });
            }
            Output::EndTunnel { path, tunnel, link, incoming, outgoing } => {
                let [incoming, outgoing] = [incoming, outgoing].map(|layer| Crypt::End(Box::new(layer)));
                self.control(Whose::End, path);
                self.keep(WaitsFor { tunnel, path, whose: Whose::End }, link, incoming, outgoing);
            }
            Output::OwnTunnel { path, tunnel, link, incoming, outgoing } => {
                let [incoming, outgoing] = [incoming, outgoing].map(Crypt::Owner);
                self.keep(WaitsFor { tunnel, path, whose: Whose::Own }, link, incoming, outgoing);
            }
            Output::Grant { want, path, tunnel } => self.grant(want, path, tunnel),
            Output::Unmet { want } => self.waiting.leave(want),
            Output::DropTunnel { tunnel } => self.waiting.drop_tunnel(tunnel),
            Output::Join { link, peer, path } => self.join(link, peer, path),
            Output::Refuse { link, reason } => self.refuse(link, reason),
            Output::Serials { identity, serials } => self.keep_serials(identity, serials),
            Output::Pinned(pinned) => drop(self.services.pinned_tx.send_replace(pinned)),
            Output::Sets { identity, sets } => self.keep_in_order(move |kept| kept.save_sets(identity, sets)),
            Output::Serve { path, record } => self.serve(path, record),
            Output::Visit { path, identity, entry, node, handle } => {
                self.look_from_outside(Incoming::Visit(Visit { identity, path, entry, node, handle }));
            }
            Output::LookUp { path, identity } => {
                self.look_from_outside(Incoming::LookUp(LookUp { identity, path }));
            }
            Output::PathUp { path, hops } => {
                let own = OwnPath { no: path, work: Work::Spare, identity: None, hops, since: Instant::now() };
                self.own.insert(path, Own { path: own, uses: Arc::default(), retired: false });
                self.control(Whose::Own, path);
            }
            Output::PathWorks { path, identity, work } => {
                if let Some(own) = self.own.get_mut(&path) {
                    (own.path.work, own.path.identity) = (work, Some(identity));
                }
            }
            Output::PathRetired { path } => {
                if let Some(own) = self.own.get_mut(&path) {
                    own.retired = true;
                }
            }
            Output::Cut { path } => drop(self.cuts.remove(&path).map(|cut| cut.cancel())),
            Output::PathDown { path } => {
                self.cuts.remove(&path);
                self.own.remove(&path);
                self.waiting.drop_path(path);
                self.controls.remove(&path);
            }
            Output::Opened(seen) => (self.services.opened)(seen),
            Output::Choice(choice) => drop(self.services.choice_tx.send_replace(choice)),
            Output::Note(note) => log(&note),
        }
    }

    /// Has a link's task do something; one that is stuck or gone is closed.
    fn say(&mut self, link: LinkId, command: Command) {
        if !self.links.get(&link).is_some_and(|task| task.command(command)) {
            self.links.remove(&link);
            self.node.handle(now(), Input::LinkDown { link });
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

    /// Asks a link's task for the link, which a tunnel of this path needs, and which breaks when those are to end.
    // protocol: A5
    fn take_for(&mut self, path: PathNo, link: LinkId) -> impl Future<Output = Option<Taken>> + use<> {
        let (link, cut) = (self.take(link), self.cuts.entry(path).or_default().clone());
        async move {
            let mut link = taken(link).await?;
            link.reader.cut_by(Some(cut));
            Some(link)
        }
    }

    fn release(&mut self, link: LinkId) {
        let (link, links) = (self.take(link), self.services.links.clone());
        tokio::spawn(async move {
            if let Some(Taken { reader, writer, .. }) = taken(link).await {
                links.give_back(reader, writer);
            }
        });
    }

    fn heard(&self, record: Vec<u8>) {
        let database = self.services.database.clone();
        tokio::spawn(async move { database.heard(record).await });
    }

    fn publish(&self, path: PathNo, record: Vec<u8>) {
        let Some(origin) = self.origin(path) else { return };
        let database = self.services.database.clone();
        tokio::spawn(async move {
            if let Err(error) = database.publish(origin, record).await {
                tracing::debug!(%error, "an AP record could not be published");
            }
        });
    }
}

/// What the node does for itself is kept for `phantom log`, also where it is too quiet for the log.
fn log(note: &Note) {
    match note.weight() {
        Weight::Trouble => tracing::warn!("{note}"),
        Weight::Normal => tracing::info!("{note}"),
        Weight::Quiet if note.is_own() => tracing::debug!(target: NOTES, "{note}"),
        Weight::Quiet => tracing::debug!("{note}"),
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

#[cfg(test)]
mod tests;
