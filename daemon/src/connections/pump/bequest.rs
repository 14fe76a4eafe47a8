//! How a session comes from one process to the next: without its tunnel, with its program's connection and every byte that was in hand.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::ident::ApAddress;
use phantom_proto::session::Session;
use phantom_proto::wire::frame::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

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

/// How long a connection may take from the other end's word to whoever carries it: a round trip between two kernels of this machine.
const CARRIED_WITHIN: Duration = Duration::from_millis(500);

/// How long a client may take to its proof that has been answered: one that is lost with its tunnel is a request that nobody has heard, and
/// its session is reset.
const PROVEN_WITHIN: Duration = Duration::from_millis(500);

/// How long the last words may take to leave.
const SAID_WITHIN: Duration = Duration::from_millis(300);

impl Pump {
    /// The daemon stops, or hands over.
    pub(super) async fn is_to_end(&mut self, course: Course) -> Result<Turn, RelayError> {
        self.stopping = true;
        if let Course::HandsOver(heir) = course {
            return self.is_to_leave(heir).await;
        }
        self.resets()
    }

    fn resets(&mut self) -> Result<Turn, RelayError> {
        self.app.ends.reset();
        self.session.app_abort();
        if self.way.is_none() { Err(RelayError::Ended) } else { Ok(Turn::Goes) }
    }

    async fn is_to_leave(&mut self, heir: Estate) -> Result<Turn, RelayError> {
        if self.session.secret().is_some() {
            let _ = timeout(CARRIED_WITHIN, self.app.ends.parking.is_carried()).await;
            if !self.app.ends.parking.ask() {
                return self.resets();
            }
            self.heir = Some(heir);
            return Ok(Turn::Over);
        }
        if matches!(self.role, Role::Client { .. }) {
            // A program whose connect has no answer yet hears nothing: its kernel asks again, and the next process is asked. Nobody waits for this.
            self.course_rx = None;
            std::future::pending::<()>().await;
        }
        self.proof_awaited = Some((heir, Instant::now() + PROVEN_WITHIN));
        Ok(Turn::Goes)
    }

    /// When a client's proof is awaited no longer, for this process ends.
    pub(super) fn proof_due(&self) -> Option<Instant> {
        self.proof_awaited.as_ref().map(|(_, due)| *due)
    }

    /// That proof has come, or comes too late: its client hears that this way is over, and asks again.
    pub(super) async fn leaves_if_proven(&mut self) -> Result<Option<Turn>, RelayError> {
        let is_proven = self.session.secret().is_some();
        let late = self.proof_due().is_some_and(|due| due <= Instant::now());
        match self.proof_awaited.take() {
            Some((heir, _)) if is_proven => self.is_to_leave(heir).await.map(Some),
            Some(_) if late => Err(RelayError::Ended),
            waits => {
                self.proof_awaited = waits;
                Ok(None)
            }
        }
    }

    /// Leaves all to the next process.
    // protocol: S51
    pub(super) async fn bequeath(mut self, heir: &Estate) {
        if let Some(mut way) = self.way.take() {
            // What was said last may be what the session stands by at the other end.
            if way.fill(&mut self.session).is_ok() {
                let _ = timeout(SAID_WITHIN, way.tunnel.outgoing.flush()).await;
            }
            // Who carries bytes in vain for a dead tunnel does not look for another one.
            tokio::spawn(way.tunnel.abort(Reason::GoingAway));
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
