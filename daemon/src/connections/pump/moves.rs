//! How a session goes on when its tunnel is lost: a client's over the next that leads on, a server's over the one on which its client comes.

use std::time::Duration;

use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;

use super::super::opening;
use super::super::redial::{self, Redial};
use super::super::sessions::Resumption;
use super::role::{Role, Server};
use super::way::{Over, Run, Way};
use super::{Pump, Turn};
use crate::clock::Since;
use crate::relay::RelayError;

/// How long a session waits for another tunnel when much waits to be taken, or nothing but the other end's word that all has come.
// protocol: S40
pub(super) const RESUME_LIMIT: Duration = Duration::from_secs(120);

/// How long when little waits: a computer sleeps for an hour, or overnight.
// protocol: S40
const SLEEP_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What is little.
const LITTLE: u64 = 64 * 1024;

impl Pump {
    /// Whether the other end has been heard of on this tunnel.
    pub(super) fn answered(&mut self) {
        if self.lost.is_some() && self.session.is_proven() {
            self.lost = None;
            if let Role::Client { redial: Some(redial), .. } = &mut self.role {
                redial.answered();
            }
        }
    }

    /// How long a session without a tunnel still waits.
    // protocol: S40
    pub(super) fn left_to_wait(&self) -> Option<Duration> {
        Some(self.patience().saturating_sub(self.lost?.elapsed()))
    }

    /// How long a session without a tunnel waits.
    fn patience(&self) -> Duration {
        let ends = self.session.is_over() || (self.app.ended && self.session.app_is_over());
        let much = self.session.held().max(self.session.unread()) > LITTLE;
        if ends || much { RESUME_LIMIT } else { SLEEP_LIMIT }
    }

    /// The tunnel is lost, or there was none in time. An error: that is the end.
    // protocol: S15, S37, U25
    pub(super) async fn lose(&mut self, error: RelayError) -> Result<Turn, RelayError> {
        if self.faulty || self.session.secret().is_none() {
            return Err(error);
        }
        let Some(mut way) = self.way.take() else { return Err(error) };
        tracing::debug!(%error, "a session has lost its tunnel");
        self.left.get_or_insert_with(|| what_came(&error));
        way.blame(&error).await;
        let without_word = matches!(error, RelayError::Link(_) | RelayError::Ended | RelayError::Noise);
        tokio::spawn(async move { way.abort(&error).await });
        self.session.far_lost();
        if self.stopping || !self.session.wants_tunnel() {
            return Ok(Turn::Over);
        }
        self.lost.get_or_insert_with(Since::now);
        match &mut self.role {
            Role::Client { redial, .. } => {
                let mut redial = redial.take().ok_or(RelayError::Ended)?;
                redial.lost(without_word);
                self.searching = Some(Box::pin(redial.next()));
                Ok(Turn::Goes)
            }
            // It is told when it comes: that is a client's to do.
            Role::Server(_) if self.session.is_over() => Ok(Turn::Over),
            Role::Server(Server { listed: Some(listed), .. }) => {
                self.waiting = Some(listed.waits());
                Ok(Turn::Goes)
            }
            Role::Server(_) => Err(RelayError::Ended),
        }
    }

    /// Another tunnel is there.
    pub(super) fn found(&mut self, found_by: Box<Redial>, found: Option<redial::Found>) -> Result<(), RelayError> {
        let found = found.map(|found| (found_by.over(found.path.no), found));
        if let Role::Client { redial, .. } = &mut self.role {
            *redial = Some(found_by);
        }
        let (over, redial::Found { tunnel, path, entry }) = found.ok_or(RelayError::Ended)?;
        self.session.resume().map_err(|_| RelayError::TimedOut)?;
        let (open, rest) = opening(&mut self.session, entry.entry_node.node_id(), entry.handle);
        let mut way = Way::new(tunnel, Some(over));
        way.to_far = Run { bytes: rest, gone: 0 };
        self.role.moved(Some(path), Some(entry.entry_node), self.left.take().unwrap_or_default());
        self.way.insert(way).tunnel.outgoing.queue(&Word::Open(open))
    }

    /// Somebody comes over another tunnel, perhaps the client.
    // protocol: S34
    pub(super) fn resumed(&mut self, resumption: Option<Resumption>) -> Result<Turn, RelayError> {
        let Role::Server(server) = &mut self.role else { return Ok(Turn::Goes) };
        let Some(resumption) = resumption else {
            // The identity is gone: what stands may go on, and nothing comes again.
            server.listed = None;
            return if self.way.is_some() { Ok(Turn::Goes) } else { Err(RelayError::Ended) };
        };
        let Resumption { tunnel, path, attempt, bytes } = resumption;
        let before = self.session.attempt();
        let taken = self.session.resume_on(attempt, &bytes);
        if self.session.attempt() == before {
            tokio::spawn(tunnel.abort(Reason::Protocol));
            return Ok(Turn::Goes);
        }
        let handle = &server.incoming.network.handle;
        let over = path.as_ref().map(|path| Over { handle: handle.clone(), path: path.no });
        if let Some(listed) = &server.listed {
            listed.moved(attempt);
        }
        self.role.moved(path, None, self.left.take().unwrap_or("the other end came another way"));
        let way = Way { heard: true, ..Way::new(tunnel, over) };
        if let Some(before) = self.way.replace(way) {
            tokio::spawn(before.tunnel.abort(Reason::GoingAway));
        }
        (self.lost, self.waiting) = (None, None);
        self.far_took(taken)?;
        Ok(Turn::Goes)
    }
}

/// For who asks why a connection moved.
fn what_came(error: &RelayError) -> &'static str {
    match error {
        RelayError::Link(_) | RelayError::Ended => "a node on the way was lost",
        RelayError::Noise | RelayError::Misbehaved(_) => "bytes were changed on the way",
        RelayError::Aborted(_) => "the way was given up at its far end",
        RelayError::TimedOut => "nothing came any more",
    }
}
