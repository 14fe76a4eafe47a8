//! A link that left the node's control: one use of it, and what becomes of it when that use has ended.
//!
//! ```text
//!   side that has ended ──what is left, CLOSE──▶ other side      what this one still sends is thrown away
//!                       ◀──what is left, CLOSE──                 then the link is fresh again, at both
//! ```
//!
//! Nothing of a use is left on the link after it, and only its dialer begins the next one (docs/protocol.md, section 3.3).

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::wire::frame::kind;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Event;
use crate::link::LinkPool;
use crate::link::frame::{LinkReader, LinkWriter};
use crate::relay::RelayError;

/// How long the other side may take to end its side, too. A neighbour does it at once, so this is a slow round trip.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How much of what the other side had on its way is thrown away. Behind more than that a new connection is cheaper.
const DISCARD_LIMIT: usize = 256 * 1024;

/// Bytes of a frame that are not payload, as far as they count here: frames without payload are not free.
const FRAME_COST: usize = 16;

/// A link that left the node's control.
pub struct Taken {
    /// Frames that arrive.
    pub reader: LinkReader,
    /// Frames to send.
    pub writer: LinkWriter,
    /// Where it goes after its use. `None`: nowhere, it is closed.
    pub back: Option<Back>,
}

/// Where links go after their use; cheap to clone.
#[derive(Clone)]
pub struct Back {
    links: Arc<LinkPool>,
    event_tx: mpsc::Sender<Event>,
}

impl Back {
    pub(super) fn new(links: Arc<LinkPool>, event_tx: mpsc::Sender<Event>) -> Self {
        Self { links, event_tx }
    }

    /// A link that is fresh again: its dialer keeps it for the next use, the other side waits for that.
    async fn fresh(self, reader: LinkReader, writer: LinkWriter) {
        if reader.is_dialed() {
            self.links.give_back(reader, writer);
        } else {
            // The control task is gone only when the daemon stops.
            let _ = self.event_tx.send(Event::Fresh { reader, writer }).await;
        }
    }
}

impl Taken {
    /// Ends this use in order, so that the link may serve again; `heard` says whether the other side's CLOSE has come. A link
    /// whose other side does not follow soon is closed.
    pub async fn close(self, heard: bool) {
        let Self { mut reader, mut writer, back } = self;
        let Some(back) = back else { return };
        let close = async {
            writer.write(kind::CLOSE, &[]).await?;
            writer.flush().await?;
            if heard { Ok(()) } else { closed(&mut reader).await }
        };
        if matches!(timeout(CLOSE_LIMIT, close).await, Ok(Ok(()))) {
            back.fresh(reader, writer).await;
        }
    }
}

/// Throws away what comes before the other side's CLOSE.
async fn closed(reader: &mut LinkReader) -> Result<(), RelayError> {
    let mut left = DISCARD_LIMIT;
    loop {
        let frame = reader.read().await?.ok_or(RelayError::Ended)?;
        if frame.kind == kind::CLOSE {
            return if frame.payload.is_empty() { Ok(()) } else { Err(RelayError::Misbehaved("CLOSE with a payload")) };
        }
        let cost = frame.payload.len() + FRAME_COST;
        left = left.checked_sub(cost).ok_or(RelayError::Misbehaved("too much after the end of a use"))?;
    }
}
