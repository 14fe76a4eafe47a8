//! A session's present tunnel, and what was said and heard there.

use std::future::pending;

use phantom_proto::cell::CELL_DATA_MAX;
use phantom_proto::node::PathNo;
use phantom_proto::session::Session;
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::Reason;
use tokio::time::Instant;

use super::silence::Silence;
use crate::driver::Handle;
use crate::relay::RelayError;
use crate::relay::cells::{CellReader, CellWriter, Tunnel};

/// An own path, whose nodes answer for noise on its tunnels.
pub(in crate::connections) struct Over {
    pub(in crate::connections) handle: Handle,
    pub(in crate::connections) path: PathNo,
}

/// Bytes on their way, of which some have gone.
#[derive(Default)]
pub(super) struct Run {
    pub(super) bytes: Vec<u8>,
    pub(super) gone: usize,
}

impl Run {
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// Takes the next ones when all have gone.
    pub(super) fn next(&mut self, take: impl FnOnce(&mut Vec<u8>)) {
        if self.gone == self.bytes.len() {
            self.bytes.clear();
            self.gone = 0;
            take(&mut self.bytes);
        }
    }
}

/// See the module.
pub(super) struct Way {
    pub(super) tunnel: Tunnel,
    pub(super) over: Option<Over>,
    pub(super) begun: Instant,
    pub(super) silence: Silence,
    /// What is on its way into it.
    pub(super) to_far: Run,
    /// A cell has come.
    pub(super) heard: bool,
    /// Cells wait to leave.
    pub(super) unflushed: bool,
    pub(super) end_said: bool,
    /// When END had left.
    pub(super) end_left: Option<Instant>,
    pub(super) end_heard: bool,
}

impl Way {
    /// A tunnel on which something is written that has not left.
    pub(super) fn new(tunnel: Tunnel, over: Option<Over>) -> Self {
        let begun = Instant::now();
        let (to_far, silence, end_left) = Default::default();
        let (heard, unflushed, end_said, end_heard) = (false, true, false, false);
        Self { tunnel, over, begun, silence, to_far, heard, unflushed, end_said, end_left, end_heard }
    }

    /// Queues what the session has to say, as far as there is room.
    // protocol: U23
    pub(super) fn fill(&mut self, session: &mut Session) -> Result<(), RelayError> {
        let outgoing = &mut self.tunnel.outgoing;
        while !outgoing.is_full() {
            self.to_far.next(|bytes| session.take_far(bytes));
            let rest = self.to_far.rest();
            let part = &rest[..rest.len().min(CELL_DATA_MAX)];
            if !part.is_empty() {
                outgoing.queue(&Word::Data(part))?;
                self.to_far.gone += part.len();
            } else if session.is_over() && !self.end_said {
                outgoing.queue(&Word::End)?;
                self.end_said = true;
            } else {
                break;
            }
            self.unflushed = true;
        }
        Ok(())
    }

    /// Everything has been said and heard.
    pub(super) fn is_over(&self) -> bool {
        self.end_said && self.end_heard && !self.unflushed
    }

    /// Tells the path's owner, if that is here, what its nodes have done.
    pub(super) async fn blame(&mut self, error: &RelayError) {
        match (error, &self.over) {
            (RelayError::Noise, Some(Over { handle, path })) => handle.noise(*path).await,
            // An exit that reaches nobody says so.
            (RelayError::Link(_) | RelayError::Ended, Some(Over { handle, path })) if !self.heard => {
                handle.broke(*path).await;
            }
            _ => {}
        }
    }

    /// Gives the tunnel up.
    pub(super) async fn abort(self, error: &RelayError) {
        let misbehaved = matches!(error, RelayError::Misbehaved(_) | RelayError::Noise);
        self.tunnel.abort(if misbehaved { Reason::Protocol } else { Reason::GoingAway }).await;
    }
}

/// Both directions of a way, if there is one.
pub(super) fn directions(way: &mut Option<Way>) -> (Option<&mut CellReader>, Option<&mut CellWriter>) {
    match way {
        Some(Way { tunnel: Tunnel { incoming, outgoing, .. }, .. }) => (Some(incoming), Some(outgoing)),
        None => (None, None),
    }
}

pub(super) async fn arrive(incoming: Option<&mut CellReader>) -> Result<(), RelayError> {
    match incoming {
        Some(incoming) => incoming.arrive().await,
        None => pending().await,
    }
}

pub(super) async fn flush(outgoing: Option<&mut CellWriter>) -> Result<(), RelayError> {
    match outgoing {
        Some(outgoing) => outgoing.flush().await,
        None => pending().await,
    }
}
