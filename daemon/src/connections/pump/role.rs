//! The two ends of a connection as the pump knows them: whose answer is waited for, and whose programs are asked.

use std::pin::Pin;
use std::sync::Arc;

use phantom_proto::ident::ApAddress;
use phantom_proto::session::Session;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::super::kept::Course;
use super::super::redial::Redial;
use super::super::sessions::{Listed, Sessions, Share};
use super::super::stream::SessionStream;
use super::super::unproven::Place;
use super::super::{Connection, ConnectionEntry, Network, Programs, Traffic};
use crate::driver::OwnPath;
use crate::far::ConnectError;
use crate::relay::RelayError;

/// Whether a program listens; or nobody could say in time.
pub(super) type Verdict = Pin<Box<dyn Future<Output = Result<bool, RelayError>> + Send>>;

/// To whom the answer to a connect goes.
pub(super) type Asked = oneshot::Sender<Result<(), ConnectError>>;

/// What a client's session has that is a program's, and no visit.
pub(in crate::connections) struct ForProgram {
    /// Its line in the list, as long as it lives.
    pub(in crate::connections) entry: ConnectionEntry,
    pub(in crate::connections) redial: Redial,
    pub(in crate::connections) share: Share,
    pub(in crate::connections) course_rx: watch::Receiver<Course>,
}

/// What is known of a connection that arrives.
pub struct Incoming {
    pub(in crate::connections) address: ApAddress,
    pub(in crate::connections) path: Option<OwnPath>,
    pub(in crate::connections) network: Arc<Network>,
    pub(in crate::connections) sessions: Arc<Sessions>,
    /// A place among those who have not proven anything yet.
    pub(in crate::connections) place: Option<Place>,
}

/// Which end of the connection this is.
pub(super) enum Role {
    Client {
        /// The answer to a connect, sent once.
        answer_tx: Option<Asked>,
        /// The connection's line in the list, as long as it lives.
        entry: Option<ConnectionEntry>,
        /// How it comes to another tunnel; taken while it looks for one.
        redial: Option<Box<Redial>>,
    },
    Server(Server),
}

pub(super) struct Server {
    pub(super) programs: Arc<dyn Programs>,
    pub(super) incoming: Incoming,
    /// For the program, once the client has proven its address.
    pub(super) stream: Option<SessionStream>,
    /// When the client must have proven it.
    pub(super) proof_due: Instant,
    /// The connection's line in the list, once it has.
    pub(super) entry: Option<ConnectionEntry>,
    /// By which the client finds the session again, from then on until it is over.
    pub(super) listed: Option<Listed>,
}

impl Role {
    pub(super) fn say(&mut self, answer: Result<(), ConnectError>) {
        if let Self::Client { answer_tx, .. } = self
            && let Some(answer_tx) = answer_tx.take()
        {
            // Whoever asked may have given up.
            let _ = answer_tx.send(answer);
        }
    }

    /// What another tunnel comes by, and who waits for an answer.
    pub(super) fn waits(&mut self) -> (Option<&mut Listed>, Option<&mut Asked>) {
        match self {
            Self::Client { answer_tx, .. } => (None, answer_tx.as_mut()),
            Self::Server(server) => (server.listed.as_mut(), None),
        }
    }

    /// Nobody waits for the answer any more, and there is none yet.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self, Self::Client { answer_tx: Some(answer_tx), .. } if answer_tx.is_closed())
    }

    /// The session is over: a client that has not heard of it will be told.
    pub(super) fn over(&mut self, session: &Session) {
        if let Self::Server(server) = self
            && let Some(listed) = server.listed.take()
        {
            listed.end(session.tombstone());
        }
    }

    /// It goes on another way.
    pub(super) fn moved(&self, path: Option<OwnPath>, to: Option<phantom_proto::wire::NodeContact>, why: &'static str) {
        let (Self::Client { entry, .. } | Self::Server(Server { entry, .. })) = self;
        entry.iter().for_each(|entry| entry.moved(path.clone(), to.clone(), why));
    }
}

impl Server {
    /// The client has proven its address; whether the session may stand.
    // protocol: S44
    pub(super) fn enters(&mut self, session: &Session) -> bool {
        drop(self.incoming.place.take());
        self.listed = session.secret().and_then(|secret| self.incoming.sessions.enter(secret));
        self.listed.is_some()
    }

    /// Hands the connection to its program; what counts its bytes.
    pub(super) fn serve(&mut self, peer: ApAddress, src_port: u16, port: u16) -> Option<Arc<Traffic>> {
        let Incoming { address, path, network, .. } = &self.incoming;
        if let Some(stream) = self.stream.take() {
            let programs = self.programs.clone();
            tokio::spawn(async move { programs.serve(peer, src_port, port, Box::new(stream)).await });
        }
        let entry = network.remember(Connection::new(*address, peer, port, true, path.clone()));
        let traffic = entry.traffic();
        self.entry = Some(entry);
        traffic
    }
}
