//! What the page shows at one moment: the daemon's answers, as many of each kind as a page can show, as JSON.

use std::path::{Path as File, PathBuf};
use std::time::Duration;

use hyper::body::Bytes;
use phantom_ipc::admin::{
    Address, CommandEntry, Commands, Connection, ConnectionState, Forward, LogLine, Path, PathKind, Peer, Published,
    Request, Status,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::client::{Client, ClientError};

/// Rows of a table; the rest is counted. More is for `phantom … list`.
const ROWS: usize = 100;

/// Lines of the log, the newest.
const LINES: usize = 200;

/// How long an answer is new: several windows ask the daemon as often as one.
const FRESH: Duration = Duration::from_millis(400);

/// How long all answers together may take, before the page is told that none comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who waits for an answer: all visitors at once.
const ASKING: usize = super::VISITORS;

/// As many as are shown of a list, and how many more there are.
#[derive(Debug, Serialize)]
pub(super) struct Few<T> {
    pub(super) shown: Vec<T>,
    pub(super) more: usize,
}

impl<T> Few<T> {
    fn of(mut all: Vec<T>, most: usize) -> Self {
        let more = all.len().saturating_sub(most);
        all.truncate(most);
        Self { shown: all, more }
    }
}

/// A moment.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    /// Of this process's clock, for rates.
    pub(super) at_milliseconds: u64,
    /// Why the daemon says nothing, and what to do.
    pub(super) lost: Option<String>,
    /// What it says.
    pub(super) daemon: Option<Shown>,
}

/// What a daemon said.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) status: Status,
    pub(super) published: Few<Published>,
    pub(super) paths: Few<Path>,
    pub(super) connections: Few<Connection>,
    pub(super) addresses: Few<Address>,
    pub(super) forwards: Few<Forward>,
    pub(super) known: usize,
    pub(super) peers: Few<Peer>,
    pub(super) commands: Commands,
    pub(super) banned: Few<String>,
    pub(super) entries: Few<CommandEntry>,
    pub(super) log: Few<LogLine>,
}

/// All that it said, before anything is left out.
pub(super) struct Said {
    pub(super) status: Status,
    pub(super) paths: Vec<Path>,
    pub(super) connections: Vec<Connection>,
    pub(super) addresses: Vec<Address>,
    pub(super) forwards: Vec<Forward>,
    pub(super) peers: Vec<Peer>,
    pub(super) commands: Commands,
    pub(super) log: Vec<LogLine>,
}

impl Said {
    async fn ask(client: &mut Client) -> Result<Self, ClientError> {
        Ok(Self {
            status: client.status().await?,
            paths: client.ask(&Request::PathList).await?,
            connections: client.ask(&Request::Connections).await?,
            addresses: client.ask(&Request::AddressList).await?,
            forwards: client.ask(&Request::ForwardList).await?,
            peers: client.ask(&Request::PeerList).await?,
            commands: client.ask(&Request::CommandList).await?,
            log: client.ask(&Request::Log { after: 0 }).await?,
        })
    }

    /// What matters most comes first, since the rest is only counted: paths in use, connections that are open, nodes with
    /// a link, commands and lines that are new.
    pub(super) fn shown(mut self) -> Shown {
        self.paths.sort_by_key(|path| (order(path.kind), path.id.len(), path.id.clone()));
        self.connections.sort_by_key(|one| (one.state == ConnectionState::Closed, std::cmp::Reverse(one.id)));
        self.peers.sort_by_key(|peer| (!peer.connected, peer.node_id.clone()));
        self.commands.commands.reverse();
        self.log.reverse();
        Shown {
            known: self.peers.len(),
            published: Few::of(std::mem::take(&mut self.status.published), ROWS),
            banned: Few::of(std::mem::take(&mut self.commands.banned), ROWS),
            entries: Few::of(std::mem::take(&mut self.commands.commands), ROWS),
            status: self.status,
            paths: Few::of(self.paths, ROWS),
            connections: Few::of(self.connections, ROWS),
            addresses: Few::of(self.addresses, ROWS),
            forwards: Few::of(self.forwards, ROWS),
            peers: Few::of(self.peers, ROWS),
            commands: self.commands,
            log: Few::of(self.log, LINES),
        }
    }
}

fn order(kind: PathKind) -> u8 {
    match kind {
        PathKind::Exit => 0,
        PathKind::Entry => 1,
        PathKind::Lookup => 2,
        PathKind::Spare => 3,
    }
}

/// Asks the daemon, for all who want to know.
#[derive(Clone)]
pub(super) struct Teller(mpsc::Sender<oneshot::Sender<Bytes>>);

impl Teller {
    /// Of the daemon at that socket.
    ///
    /// # Errors
    /// When none answers now; one that is lost later is said on the page.
    pub(super) async fn start(socket: &File) -> Result<Self, ClientError> {
        Said::ask(&mut Client::connect(socket).await?).await?;
        Ok(Self::of(socket))
    }

    /// The same, whether one answers or not.
    pub(super) fn of(socket: &File) -> Self {
        let mut source = Source { socket: socket.to_owned(), client: None, began: Instant::now() };
        let (asking_tx, mut asking) = mpsc::channel::<oneshot::Sender<Bytes>>(ASKING);
        tokio::spawn(async move {
            let mut last: Option<(Instant, Bytes)> = None;
            while let Some(waiting) = asking.recv().await {
                let (at, told) = match last.take().filter(|(at, _)| at.elapsed() < FRESH) {
                    Some(fresh) => fresh,
                    None => {
                        let told = source.sample().await;
                        (Instant::now(), told)
                    }
                };
                last = Some((at, told.clone()));
                // It may have gone meanwhile.
                let _ = waiting.send(told);
            }
        });
        Self(asking_tx)
    }

    /// A [`Sample`].
    pub(super) async fn tell(&self) -> Bytes {
        let (told_tx, told) = oneshot::channel();
        // It lives as long as there is somebody to ask.
        let _ = self.0.send(told_tx).await;
        told.await.unwrap_or_default()
    }
}

/// A daemon, which may be started again meanwhile.
struct Source {
    socket: PathBuf,
    client: Option<Client>,
    began: Instant,
}

impl Source {
    async fn said(&mut self) -> Result<Said, ClientError> {
        // Whoever breaks off leaves none behind: the next answer would be to the last question.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await?,
        };
        let said = Said::ask(&mut client).await?;
        self.client = Some(client);
        Ok(said)
    }

    async fn sample(&mut self) -> Bytes {
        let said = timeout(PATIENCE, self.said()).await;
        let at_milliseconds = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sample = match said {
            Ok(Ok(said)) => Sample { at_milliseconds, lost: None, daemon: Some(said.shown()) },
            Ok(Err(error)) => Sample { at_milliseconds, lost: Some(error.to_string()), daemon: None },
            Err(_) => {
                let lost = format!("the daemon at {} says nothing for {} s", self.socket.display(), PATIENCE.as_secs());
                Sample { at_milliseconds, lost: Some(lost), daemon: None }
            }
        };
        // All of it has a JSON form.
        serde_json::to_vec(&sample).unwrap_or_default().into()
    }
}
