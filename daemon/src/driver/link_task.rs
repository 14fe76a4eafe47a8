//! One task per link that the node controls: frames up, commands down, until the data plane takes the link over.

use std::time::Duration;

use phantom_proto::node::LinkId;
use phantom_proto::wire::frame::kind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Event;
use crate::link::frame::{Frame, LinkReader, LinkWriter};

/// Commands that may wait for one link: a standing connection forwards a few blocks at a time. A link that is further
/// behind is stuck, and is closed.
const COMMANDS: usize = 64;

/// How long one write may take before the link counts as stuck.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What the driver wants of a link.
pub(super) enum Command {
    Send { kind: u8, payload: Vec<u8> },
    HandOver(oneshot::Sender<Taken>),
}

/// A link that left the node's control.
pub struct Taken {
    /// Frames that arrive.
    pub reader: LinkReader,
    /// Frames to send.
    pub writer: LinkWriter,
    /// A frame of the data plane that had arrived already.
    pub pending: Option<Frame>,
}

/// The driver's end of a link task; dropping it closes the link.
pub(super) struct LinkTask {
    command_tx: mpsc::Sender<Command>,
}

impl LinkTask {
    /// Starts the task of a link. Events carry `id`.
    pub(super) fn start(id: LinkId, reader: LinkReader, writer: LinkWriter, event_tx: mpsc::Sender<Event>) -> Self {
        let (command_tx, command_rx) = mpsc::channel(COMMANDS);
        tokio::spawn(async move {
            run(id, reader, writer, command_rx, &event_tx).await;
            // The driver may be gone: then nobody needs to know.
            let _ = event_tx.send(Event::Down(id)).await;
        });
        Self { command_tx }
    }

    /// Queues a command; false when the link is stuck or gone.
    pub(super) fn command(&self, command: Command) -> bool {
        self.command_tx.try_send(command).is_ok()
    }
}

async fn run(
    id: LinkId,
    mut reader: LinkReader,
    mut writer: LinkWriter,
    mut command_rx: mpsc::Receiver<Command>,
    event_tx: &mpsc::Sender<Event>,
) {
    let mut pending = None;
    loop {
        tokio::select! {
            biased;
            command = command_rx.recv() => match command {
                Some(Command::Send { kind, payload }) => {
                    let write = async { writer.write(kind, &payload).await?; writer.flush().await };
                    if !matches!(timeout(WRITE_LIMIT, write).await, Ok(Ok(()))) {
                        return;
                    }
                }
                Some(Command::HandOver(taken_tx)) => {
                    // A taker that is gone drops the link.
                    let _ = taken_tx.send(Taken { reader, writer, pending });
                    return;
                }
                None => {
                    let _ = timeout(WRITE_LIMIT, writer.shutdown()).await;
                    return;
                }
            },
            frame = reader.read(), if pending.is_none() => match frame {
                Ok(Some(frame)) if kind::is_data(frame.kind) => pending = Some(frame),
                Ok(Some(frame)) => {
                    if event_tx.send(Event::Frame { id, frame }).await.is_err() {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            },
        }
    }
}
