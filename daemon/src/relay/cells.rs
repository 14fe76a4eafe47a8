//! The two ends of a tunnel: cells in and out of a link, under the end's own layers.

use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use phantom_proto::cell::{CELL_DATA_MAX, CELL_LEN, Cell, CellKind, Layer, OwnerCrypt};
use phantom_proto::wire::frame::{Reason, kind};

use super::RelayError;
use crate::driver::Taken;
use crate::link::frame::{LinkReader, LinkWriter};

/// How long the last word of an end may take.
const ABORT_LIMIT: Duration = Duration::from_secs(10);

/// What an end does to a cell, in one direction.
pub enum Crypt {
    /// The terminating node enciphers both ways.
    End(Box<Layer>),
    /// The owner wraps for, or peels off, all hops.
    Owner(OwnerCrypt),
}

/// Both halves of an end of a tunnel.
pub struct Tunnel {
    /// Cells that arrive.
    pub incoming: CellReader,
    /// Cells to send.
    pub outgoing: CellWriter,
}

impl Tunnel {
    /// The end of a tunnel on a link that left the node.
    pub fn new(taken: Taken, incoming: Crypt, outgoing: Crypt) -> Self {
        Self {
            incoming: CellReader { reader: taken.reader, crypt: incoming, cell: BytesMut::new() },
            outgoing: CellWriter { writer: taken.writer, crypt: outgoing, cell: Box::new([0; CELL_LEN]) },
        }
    }
}

impl Tunnel {
    /// Whether a tunnel that waits for its use is still whole: nothing may have arrived on it, not even its end.
    pub fn is_quiet(&mut self) -> bool {
        self.incoming.read().now_or_never().is_none()
    }

    /// Waits for the entry node to say INCOMING. False: the tunnel is of no use any more.
    pub async fn wait_incoming(&mut self) -> bool {
        matches!(self.incoming.read().await, Ok(Some((CellKind::Incoming, []))))
    }
}

/// Reads cells.
pub struct CellReader {
    reader: LinkReader,
    crypt: Crypt,
    cell: BytesMut,
}

impl CellReader {
    /// The next cell. `None`: the tunnel's link ended. Cancel-safe.
    pub async fn read(&mut self) -> Result<Option<(CellKind, &[u8])>, RelayError> {
        let Some(frame) = self.reader.read().await? else { return Ok(None) };
        if frame.kind != kind::CELL {
            return Err(RelayError::Misbehaved("not a cell"));
        }
        self.cell = frame.payload;
        let fits = match &mut self.crypt {
            Crypt::End(layer) => layer.encipher(&mut self.cell),
            Crypt::Owner(crypt) => crypt.peel(&mut self.cell),
        };
        if !fits {
            return Err(RelayError::Misbehaved("cell of a wrong length"));
        }
        let cell = Cell::decode(&self.cell).map_err(|_| RelayError::Misbehaved("cell was changed on its way"))?;
        Ok(Some((cell.kind, cell.data)))
    }

    /// Whether a frame has arrived already, so that reading would not wait.
    pub fn has_frame(&self) -> bool {
        self.reader.has_frame()
    }
}

/// Writes cells.
pub struct CellWriter {
    writer: LinkWriter,
    crypt: Crypt,
    cell: Box<[u8; CELL_LEN]>,
}

impl CellWriter {
    /// Sends one cell; `data` has at most [`CELL_DATA_MAX`] bytes. Leaves when flushed, or when enough have gathered.
    pub async fn write(&mut self, cell_kind: CellKind, data: &[u8]) -> Result<(), RelayError> {
        Cell { kind: cell_kind, data }
            .encode(&mut self.cell)
            .map_err(|_| RelayError::Misbehaved("too much data for a cell"))?;
        let fits = match &mut self.crypt {
            Crypt::End(layer) => layer.encipher(&mut self.cell[..]),
            Crypt::Owner(crypt) => crypt.wrap(&mut self.cell[..]),
        };
        debug_assert!(fits, "the buffer has the length of a cell");
        Ok(self.writer.write(kind::CELL, &self.cell[..]).await?)
    }

    /// Sends bytes in as many DATA cells as they need.
    pub async fn write_data(&mut self, data: &[u8]) -> Result<(), RelayError> {
        for part in data.chunks(CELL_DATA_MAX) {
            self.write(CellKind::Data, part).await?;
        }
        Ok(())
    }

    /// Says why this end gives up, as far as the link still takes it.
    pub async fn abort(&mut self, reason: Reason) {
        let say = async {
            if self.write(CellKind::Abort, &[reason as u8]).await.is_ok() {
                let _ = self.close().await;
            }
        };
        // A neighbour that reads nothing must not hold the tunnel.
        let _ = tokio::time::timeout(ABORT_LIMIT, say).await;
    }

    /// Hands everything written to the system.
    pub async fn flush(&mut self) -> Result<(), RelayError> {
        Ok(self.writer.flush().await?)
    }

    /// Flushes and closes this direction of the link.
    pub async fn close(&mut self) -> Result<(), RelayError> {
        self.flush().await?;
        Ok(self.writer.shutdown().await?)
    }
}
