//! The control tunnel of a path, at either end: one tunnel on which now and again something passes, so that what an owner tells its
//! terminating node does not stand out (docs/protocol.md, section 5.2).

use std::sync::{Arc, Weak};
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::node::{Input, PathNo};
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Event;
use super::ready::Queue;
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

/// Mean time between two cells of padding from one end: one cell then says nothing, and costs as little.
const PADDING_MEAN: Duration = Duration::from_secs(600);

/// How long a ready tunnel may take when something must be said.
const TUNNEL_LIMIT: Duration = Duration::from_secs(30);

/// What may wait to be said on one path: a record, perhaps its successor, and a tunnel of the other end's.
const SAID: usize = 4;

/// Which end of the path this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Its owner's.
    Own,
    /// Its terminating node's.
    End,
}

enum Said {
    Record(Vec<u8>),
    Adopt(Box<Tunnel>),
}

/// Speaks to the task of one path's control tunnel; the task ends with it.
pub(super) struct Control(mpsc::Sender<Said>);

impl Control {
    pub(super) fn start(whose: Whose, path: PathNo, queue: &Arc<Queue>, event_tx: mpsc::Sender<Event>) -> Self {
        let (said_tx, said_rx) = mpsc::channel(SAID);
        let task = Task { whose, path, queue: Arc::downgrade(queue), event_tx, tunnel: None };
        tokio::spawn(task.run(said_rx));
        Self(said_tx)
    }

    /// Owner: says SERVE.
    pub(super) fn serve(&self, record: Vec<u8>) {
        // A path on which four records wait is of no use any more; the next one finds another.
        let _ = self.0.try_send(Said::Record(record));
    }

    /// A tunnel that the other end began to use for control.
    pub(super) fn adopt(&self, tunnel: Box<Tunnel>) {
        let _ = self.0.try_send(Said::Adopt(tunnel));
    }
}

struct Task {
    whose: Whose,
    path: PathNo,
    queue: Weak<Queue>,
    event_tx: mpsc::Sender<Event>,
    tunnel: Option<Tunnel>,
}

impl Task {
    async fn run(mut self, mut said_rx: mpsc::Receiver<Said>) {
        let mut padding = next_padding();
        loop {
            let said = tokio::select! {
                biased;
                said = said_rx.recv() => match said {
                    Some(Said::Record(record)) => self.say(CellKind::Serve, &record).await,
                    Some(Said::Adopt(tunnel)) => {
                        self.adopt(tunnel);
                        Ok(())
                    }
                    None => return,
                },
                () = sleep_until(padding) => {
                    padding = next_padding();
                    self.say(CellKind::Padding, &[]).await
                }
                heard = hear(&mut self.tunnel) => self.heard(heard).await,
            };
            if said.is_err() {
                // The next cell takes another.
                self.tunnel = None;
            }
        }
    }

    /// Both ends may begin one at the same time: then the terminating node's stays.
    fn adopt(&mut self, tunnel: Box<Tunnel>) {
        if self.tunnel.is_none() || self.whose == Whose::Own {
            self.tunnel = Some(*tunnel);
        }
    }

    async fn say(&mut self, kind: CellKind, data: &[u8]) -> Result<(), RelayError> {
        if self.tunnel.is_none() {
            let Some(queue) = self.queue.upgrade() else { return Ok(()) };
            self.tunnel = queue.take(TUNNEL_LIMIT).await;
        }
        let Some(tunnel) = &mut self.tunnel else { return Ok(()) };
        let said = async {
            tunnel.outgoing.write(kind, data).await?;
            tunnel.outgoing.flush().await
        };
        tokio::time::timeout(TUNNEL_LIMIT, said).await.map_err(|_| RelayError::TimedOut)?
    }

    async fn heard(&mut self, heard: Result<(CellKind, Vec<u8>), RelayError>) -> Result<(), RelayError> {
        let (kind, data) = heard?;
        let input = match (kind, self.whose) {
            (CellKind::Padding, _) => return Ok(()),
            (CellKind::Serve, Whose::End) => Input::Served { path: self.path, record: data },
            _ => Input::Misused(self.path),
        };
        let _ = self.event_tx.send(Event::Input(input)).await;
        Ok(())
    }
}

fn next_padding() -> Instant {
    let uniform = (f64::from(crate::random().random::<u32>()) + 1.0) / (f64::from(u32::MAX) + 2.0);
    Instant::now() + PADDING_MEAN.mul_f64(-uniform.ln())
}

/// The next cell; never without a tunnel.
async fn hear(tunnel: &mut Option<Tunnel>) -> Result<(CellKind, Vec<u8>), RelayError> {
    match tunnel {
        Some(tunnel) => {
            let (kind, data) = tunnel.incoming.read().await?.ok_or(RelayError::Ended)?;
            Ok((kind, data.to_vec()))
        }
        None => std::future::pending().await,
    }
}
