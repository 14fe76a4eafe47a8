//! How a session comes from one process to the next: without its tunnel, with its program's connection and every byte that was in hand.

use std::sync::Arc;

use phantom_proto::ident::ApAddress;
use phantom_proto::session::Session;
use phantom_proto::wire::frame::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::kept::{Course, Estate, Kept};
use super::super::redial::Redial;
use super::super::sessions::Share;
use super::super::stream::{Ends, SessionStream, pair};
use super::super::{ConnectionEntry, Identity, Network, lock};
use super::role::{Incoming, Role, Server};
use super::{Pump, Turn};
use crate::clock::Since;
use crate::far::Parked;
use crate::relay::RelayError;
use crate::splice;

/// What a session of the process before gets here.
pub(in crate::connections) struct Continued {
    pub(in crate::connections) entry: ConnectionEntry,
    /// A client's.
    pub(in crate::connections) redial: Option<Redial>,
    pub(in crate::connections) share: Share,
    pub(in crate::connections) course_rx: watch::Receiver<Course>,
}

impl Pump {
    /// The daemon stops, or hands over.
    pub(super) fn is_to_end(&mut self, course: Course) -> Result<Turn, RelayError> {
        self.stopping = true;
        match course {
            // A client that has no answer yet asks again, since its program's kernel does.
            Course::HandsOver(heir) if self.session.secret().is_some() && self.app.ends.parking.ask() => {
                self.heir = Some(heir);
                return Ok(Turn::Over);
            }
            _ => {}
        }
        self.app.ends.reset();
        self.session.app_abort();
        if self.way.is_none() { Err(RelayError::Ended) } else { Ok(Turn::Goes) }
    }

    /// Leaves all to the next process.
    // protocol: S51
    pub(super) async fn bequeath(mut self, heir: &Estate) {
        if let Some(way) = self.way.take() {
            // Who carries bytes in vain for a dead tunnel does not look for another one.
            way.tunnel.abort(Reason::GoingAway).await;
        }
        self.session.far_lost();
        let is_reset = self.app.ends.is_reset();
        // Nothing is written for the program from here on. An end would be said for the far end's.
        let mut up = Vec::new();
        if !self.app.ends.parking.ask() || self.app.read.read_to_end(&mut up).await.is_err() {
            return;
        }
        // Gone, or reset in the same moment.
        let (Some(mut parked), Some(line)) = (self.app.ends.parking.take(), self.role.line()) else { return };
        up.append(&mut parked.up);
        parked.up = up;
        let session = self.session.carry(self.to_app.rest());
        if session.is_none() {
            parked.down.extend_from_slice(self.to_app.rest());
            self.session.take_app(&mut parked.down);
        }
        let entry = self.role.present_entry();
        lock(heir).push(Kept { line, session, entry, is_reset, parked });
    }
}

impl Role {
    fn line(&self) -> Option<super::super::Line> {
        let (Self::Client { entry, .. } | Self::Server(Server { entry, .. })) = self;
        entry.as_ref()?.line()
    }

    fn present_entry(&self) -> Option<phantom_proto::wire::frame::Handle> {
        match self {
            Self::Client { redial: Some(redial), .. } => redial.present(),
            _ => None,
        }
    }
}

/// Goes on with a session that has no tunnel.
// protocol: S51
pub(in crate::connections) fn go_on(
    session: Session,
    parked: Parked,
    continued: Continued,
    identity: &Arc<Identity>,
    address: ApAddress,
    network: &Arc<Network>,
) {
    let (stream, app, ends) = pair();
    let Continued { entry, redial, share, course_rx } = continued;
    let traffic = entry.traffic();
    let mut pump = match redial {
        Some(mut redial) => {
            redial.answered();
            redial.lost(true);
            let role = Role::Client { answer_tx: None, entry: Some(entry), redial: None };
            let pump = Pump::without_way(session, app, ends, role, traffic);
            Pump { searching: Some(Box::pin(Box::new(redial).next())), ..pump }
        }
        None => {
            let sessions = identity.sessions.clone();
            let incoming = Incoming { address, path: None, network: network.clone(), sessions, place: None };
            let (programs, proof_due) = (identity.programs.clone(), Instant::now());
            let mut server = Server { programs, incoming, stream: None, proof_due, entry: Some(entry), listed: None };
            if !server.enters(&session) {
                return;
            }
            let waiting = server.listed.as_ref().map(|listed| {
                listed.moved(session.attempt());
                listed.waits()
            });
            Pump { waiting, ..Pump::without_way(session, app, ends, Role::Server(server), traffic) }
        }
    };
    (pump.share, pump.course_rx) = (share, Some(course_rx));
    carry_on(pump, parked, stream);
}

fn carry_on(pump: Pump, parked: Parked, stream: SessionStream) {
    match splice::go_on(parked, Box::new(stream)) {
        Ok(spliced) => {
            tokio::spawn(spliced);
        }
        Err(error) => tracing::warn!(%error, "a connection of the process before is lost"),
    }
    tokio::spawn(pump.carry());
}

/// A session is over; its program gets the rest.
pub(in crate::connections) fn deliver_rest(parked: Parked, is_reset: bool, entry: ConnectionEntry) {
    let (stream, mut app, ends) = pair();
    match splice::go_on(parked, Box::new(stream)) {
        Ok(spliced) => {
            tokio::spawn(async move {
                if is_reset {
                    ends.reset();
                }
                let _ = app.shutdown().await;
                spliced.await;
                drop(entry);
            });
        }
        Err(error) => tracing::warn!(%error, "a connection of the process before is lost"),
    }
}

impl Pump {
    fn without_way(
        session: Session,
        app: DuplexStream,
        ends: Arc<Ends>,
        role: Role,
        traffic: Option<Arc<super::super::Traffic>>,
    ) -> Self {
        let pump = Self::new(session, None, app, ends, role, traffic);
        Self { lost: Some(Since::now()), left: Some("the daemon was started anew"), ..pump }
    }
}
