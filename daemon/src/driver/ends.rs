//! The ends of paths, our own and others': ready tunnels wait there, and what the other end says first decides what comes of one.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Input, LinkId, PathNo, Serials, Use, Work};
use phantom_proto::wire::cells::{Lookup, Open, Word};
use phantom_proto::wire::frame::Reason;

use super::control::{Control, Whose};
use super::ready::{Queue, Waited};
use super::{Arrival, Driver, Event, Kept, Services, now, taken};
use crate::relay::cells::Tunnel;
use crate::relay::exit::ExitServices;
use crate::relay::{entry, exit};

/// Entry nodes to which a path has led that are remembered. To further ones each link is a new one: slower, and no loss.
const LED: usize = 1024;

/// How long an exit node's JOIN waits for a tunnel to be ready.
const JOIN_WAIT: Duration = Duration::from_secs(8);

impl Driver {
    /// The ready tunnels of a path that ends here; its first one makes the path.
    pub(super) fn end(&mut self, path: PathNo) -> Arc<Queue> {
        if let Some(queue) = self.ends.get(&path) {
            return queue.clone();
        }
        let queue = Arc::<Queue>::default();
        self.ends.insert(path, queue.clone());
        self.control(Whose::End, path, &queue);
        queue
    }

    pub(super) fn control(&mut self, whose: Whose, path: PathNo, queue: &Arc<Queue>) {
        self.controls.insert(path, Arc::new(Control::start(whose, path, queue, self.event_tx.clone())));
    }

    /// Lets a new tunnel wait for its use.
    pub(super) fn keep(
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
    // protocol: U3
    pub(super) fn used_end(&mut self, path: PathNo, tunnel: Box<Tunnel>, kind: CellKind, data: Vec<u8>) {
        match Word::read(kind, &data) {
            Ok(Word::Open(open)) => self.open(path, *tunnel, open),
            Ok(Word::Lookup(Lookup(address))) => self.look_up(path, *tunnel, address),
            Ok(Word::Padding) => self.adopt(path, tunnel),
            Ok(Word::Serve(_)) => {
                self.adopt(path, tunnel);
                self.node.handle(now(), Input::Served { path, record: data });
            }
            _ => self.misused(path, *tunnel),
        }
    }

    /// The terminating node of an own path uses a tunnel.
    pub(super) fn used_own(&mut self, path: PathNo, tunnel: Box<Tunnel>, kind: CellKind, data: Vec<u8>) {
        let serves = self.ready.path(path).filter(|own| own.work == Work::Serve).and_then(|own| own.identity);
        match (Word::read(kind, &data), serves) {
            (Ok(Word::Padding), _) => self.adopt(path, tunnel),
            (Ok(Word::Incoming(_)), Some(identity)) => {
                let arrival = Arrival { identity, path, tunnel: *tunnel, first: data };
                if self.services.incoming_tx.try_send(arrival).is_err() {
                    tracing::warn!("more connections arrive than can be answered; one was dropped");
                }
            }
            _ => self.misused(path, *tunnel),
        }
    }

    /// An end broke the protocol: it hears so, and the path ends.
    // protocol: U4
    fn misused(&mut self, path: PathNo, tunnel: Tunnel) {
        tokio::spawn(tunnel.abort(Reason::Protocol));
        self.node.handle(now(), Input::Misused(path));
    }

    fn adopt(&self, path: PathNo, tunnel: Box<Tunnel>) {
        if let Some(control) = self.controls.get(&path) {
            control.adopt(tunnel);
        }
    }

    fn open(&mut self, path: PathNo, tunnel: Tunnel, open: Open) {
        if !self.node.may_use(now(), path, Use::Connect) {
            return self.misused(path, tunnel);
        }
        let services = self.exit_services();
        let first = self.leads_for_the_first_time(path, open.node);
        tokio::spawn(async move {
            if let Err(error) = exit::connect(tunnel, open, first, services).await {
                tracing::debug!(%error, "an exit tunnel ended");
            }
        });
    }

    fn look_up(&mut self, path: PathNo, tunnel: Tunnel, address: ApAddress) {
        if !self.node.may_use(now(), path, Use::Ask) {
            return self.misused(path, tunnel);
        }
        let services = self.exit_services();
        tokio::spawn(async move {
            if let Err(error) = exit::look_up(tunnel, address, services).await {
                tracing::debug!(%error, "a look-up for others ended");
            }
        });
    }

    fn exit_services(&self) -> ExitServices {
        let Services { links, database, counters, relayed_tunnels, .. } = &self.services;
        ExitServices {
            database: database.clone(),
            links: links.clone(),
            counters: counters.clone(),
            most: *relayed_tunnels,
            back: Some(self.back()),
        }
    }

    /// Whether a path that ends here has not led to this entry node yet, as far as is remembered.
    // protocol: B7, B8
    fn leads_for_the_first_time(&mut self, path: PathNo, entry: NodeId) -> bool {
        let led = self.led.entry(path).or_default();
        led.len() < LED && led.insert(entry)
    }

    /// The serials reach the disk before the record that bears them leaves.
    pub(super) fn keep_serials(&mut self, identity: ApAddress, serials: Serials) {
        self.keep_in_order(move |kept| kept.save_serials(identity, serials));
    }

    /// Saves one after the other: of two of one identity the later must not be overtaken.
    pub(super) fn keep_in_order(&mut self, save: impl FnOnce(&dyn Kept) + Send + 'static) {
        let kept = self.services.kept.clone();
        self.saves.add(move || save(&*kept));
    }

    pub(super) fn serve(&mut self, path: PathNo, record: Vec<u8>) {
        let Some(control) = self.controls.get(&path).cloned() else { return };
        let saved = self.saves.done();
        tokio::spawn(async move {
            saved.await;
            control.serve(record);
        });
    }

    pub(super) fn join(&mut self, link: LinkId, path: PathNo) {
        let Some(exit) = self.take(link) else { return };
        let (queue, joins) = (self.end(path), self.joins.clone());
        tokio::spawn(async move {
            let Some(exit) = taken(Some(exit)).await else { return };
            let peer = NodeId::of(&exit.reader.peer());
            let Some(_held) = joins.enter(peer) else { return entry::refuse(exit.into(), Reason::Busy).await };
            let Ok((joined, first)) = entry::greet(exit).await else { return };
            let ready = queue.take(JOIN_WAIT).await;
            let Some(tunnel) = ready else { return entry::refuse(joined, Reason::Busy).await };
            if let Err(error) = entry::serve(tunnel, joined, first).await {
                tracing::debug!(%error, "an entry tunnel ended");
            }
        });
    }
}
