//! The ends of paths, our own and others': ready tunnels wait there, and what the other end says first decides what comes of one.

use std::sync::Arc;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Input, LinkId, Of, PathNo, Serials, TunnelNo, WantNo};
use phantom_proto::terminating::First;
use phantom_proto::wire::cells::Open;
use phantom_proto::wire::frame::Reason;
use tokio::time::Instant;

use super::control::{Control, Whose};
use super::ready::{Claimant, Granted, Waited, WaitsFor};
use super::{Arrival, Driver, Incoming, Kept, Services, now, taken, want};
use crate::netdb::Origin;
use crate::relay::cells::{Crypt, Tunnel};
use crate::relay::exit::ExitServices;
use crate::relay::{entry, exit};

impl Driver {
    /// The control tunnel of a path; of one that ends here, its first ready tunnel makes it.
    pub(super) fn control(&mut self, whose: Whose, path: PathNo) {
        let start = || Arc::new(Control::start(whose, path, self.event_tx.clone()));
        self.controls.entry(path).or_insert_with(start);
    }

    /// Lets a new tunnel wait for its use.
    pub(super) fn keep(&mut self, kept: WaitsFor, link: LinkId, incoming: Crypt, outgoing: Crypt) {
        let link = self.take_for(kept.path, link);
        self.waiting.keep(kept, async { Some(Tunnel::new(link.await?, incoming, outgoing)) });
    }

    /// The wait of a ready tunnel is over.
    pub(super) fn waited(&mut self, kept: WaitsFor, waited: Waited) {
        let WaitsFor { tunnel: number, path, whose } = kept;
        let noise = matches!(waited, Waited::Noise { .. });
        let (used, late) = match waited {
            // The node knows: it has granted it.
            Waited::Claimed => return,
            Waited::Used { tunnel, kind, data, late } => (Some((tunnel, kind, data)), late),
            Waited::Lost { late } | Waited::Noise { late } => (None, late),
        };
        if let Some(claim) = late {
            self.want_again(claim.want, claim.claimant);
        }
        self.node.handle(now(), Input::TunnelGone { tunnel: number, used: used.is_some() });
        if let Some((tunnel, kind, data)) = used {
            self.used(path, tunnel, kind, &data);
        } else if noise && whose == Whose::Own {
            self.node.handle(now(), Input::Misused(path));
        }
    }

    /// Somebody wants a ready tunnel.
    pub(super) fn want(&mut self, claimant: Claimant) {
        let of = claimant.of;
        let limit = left(&claimant);
        let want = self.waiting.enter(claimant);
        self.node.handle(now(), Input::Want { want, of, limit });
    }

    fn want_again(&mut self, want: WantNo, claimant: Claimant) {
        let (of, limit) = (claimant.of, left(&claimant));
        self.waiting.wait_again(want, claimant);
        self.node.handle(now(), Input::Want { want, of, limit });
    }

    /// A ready tunnel is somebody's. Those of an own path that works count as its uses until they end.
    pub(super) fn grant(&mut self, want: WantNo, path: PathNo, tunnel: TunnelNo) {
        let own = self.own.get(&path).map(|own| (own.path.clone(), own.uses.clone()));
        let (own, held) = own.unzip();
        match self.waiting.grant(want, tunnel, own, held) {
            Granted::Given => {}
            Granted::Missed(want, claimant) => self.want_again(want, claimant),
            Granted::Declined => self.node.handle(now(), Input::Declined { path, tunnel }),
        }
    }

    /// Of own paths that take no new work, those end over which nothing runs any more.
    pub(super) fn close_unused(&mut self) {
        let unused = self.own.iter().filter(|(_, own)| own.retired && Arc::strong_count(&own.uses) == 1);
        for path in unused.map(|(path, _)| *path).collect::<Vec<_>>() {
            if let Some(own) = self.own.get_mut(&path) {
                own.retired = false;
            }
            self.node.handle(now(), Input::Unused(path));
        }
    }

    /// The other end of a path uses a tunnel.
    pub(super) fn used(&mut self, path: PathNo, tunnel: Box<Tunnel>, kind: CellKind, data: &[u8]) {
        match self.node.first_word(now(), path, kind, data) {
            First::Open { open, anew } => self.open(path, *tunnel, open, anew),
            First::LookUp(address) => self.look_up(path, *tunnel, address),
            First::Incoming(first) => self.arrives(path, *tunnel, first),
            First::Control => self.adopt(path, tunnel),
            First::Serve(record) => {
                self.adopt(path, tunnel);
                self.node.handle(now(), Input::Served { path, record });
            }
            First::Misused => drop(tokio::spawn(tunnel.abort(Reason::Protocol))),
        }
    }

    /// Somebody connects to the identity for which an own path works, or did.
    fn arrives(&mut self, path: PathNo, tunnel: Tunnel, first: Vec<u8>) {
        let own = self.own.get(&path).map(|own| own.path.clone());
        let Some(identity) = own.as_ref().and_then(|own| own.identity) else { return self.misused(path, tunnel) };
        let arrival = Arrival { identity, path: own, tunnel, first };
        if self.services.incoming_tx.try_send(Incoming::Arrival(Box::new(arrival))).is_err() {
            tracing::warn!("more connections arrive than can be answered; one was dropped");
        }
    }

    /// Something of our own is to be looked at from outside.
    pub(super) fn look_from_outside(&mut self, look: Incoming) {
        // With so much to do, nothing is learned from one that does not come about: its path ends in time.
        let _ = self.services.incoming_tx.try_send(look);
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

    fn open(&self, path: PathNo, tunnel: Tunnel, open: Open, anew: bool) {
        let Some(services) = self.exit_services(path) else { return };
        tokio::spawn(async move {
            if let Err(error) = exit::connect(tunnel, open, anew, services).await {
                tracing::debug!(%error, "an exit tunnel ended");
            }
        });
    }

    fn look_up(&self, path: PathNo, tunnel: Tunnel, address: ApAddress) {
        let Some(services) = self.exit_services(path) else { return };
        tokio::spawn(async move {
            if let Err(error) = exit::look_up(tunnel, address, services).await {
                tracing::debug!(%error, "a look-up for others ended");
            }
        });
    }

    /// For whom the database is asked by what uses a path that ends here: its owner is not known, its neighbour is. `None`: the path is gone.
    // protocol: D41
    pub(super) fn origin(&self, path: PathNo) -> Option<Origin> {
        let link = self.links.get(&self.node.end_link(path)?)?;
        Some(Origin::Path { no: path, neighbour: link.with() })
    }

    fn exit_services(&self, path: PathNo) -> Option<ExitServices> {
        let Services { links, database, counters, relayed_tunnels, .. } = &self.services;
        Some(ExitServices {
            database: database.clone(),
            origin: self.origin(path)?,
            links: links.clone(),
            counters: counters.clone(),
            most: *relayed_tunnels,
            back: Some(self.back()),
        })
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

    /// An exit node comes to a path that ends here and serves.
    pub(super) fn join(&mut self, link: LinkId, peer: NodeId, path: PathNo) {
        let (exit, event_tx) = (self.take(link), self.event_tx.clone());
        let ready = move |limit| {
            let event_tx = event_tx.clone();
            async move { want(&event_tx, Of::Path(path), limit).await.map(|given| given.tunnel) }
        };
        // Also without its link: the node has counted it.
        self.joined.start(peer, async move {
            let Some(exit) = taken(exit).await else { return };
            if let Err(error) = entry::serve(exit, ready).await {
                tracing::debug!(%error, "an entry tunnel ended");
            }
        });
    }

    /// An exit node cannot be served.
    pub(super) fn refuse(&mut self, link: LinkId, reason: Reason) {
        let exit = self.take(link);
        tokio::spawn(async move {
            if let Some(exit) = taken(exit).await {
                entry::refuse(exit, reason).await;
            }
        });
    }
}

/// Milliseconds that somebody waits yet.
fn left(claimant: &Claimant) -> u64 {
    u64::try_from(claimant.deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX)
}
