//! The two ends of a tunnel: cells in and out of a link, under the end's own layers.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use phantom_proto::cell::{CELL_DATA_MAX, CELL_LEN, Cell, CellKind, Layer, OwnerCrypt};
use phantom_proto::wire::cells::Word;
use phantom_proto::wire::frame::{Reason, kind};

use super::{Back, RelayError, Taken};
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
    back: Option<Back>,
    /// Of an own path that works: what counts the tunnels in use.
    pub(crate) held: Option<Arc<()>>,
}

impl Tunnel {
    /// The end of a tunnel on a link that left the node.
    pub fn new(taken: Taken, incoming: Crypt, outgoing: Crypt) -> Self {
        let Taken { reader, writer, back } = taken;
        Self {
            incoming: CellReader { reader, crypt: incoming, cell: BytesMut::new(), closed: false },
            outgoing: CellWriter { writer, crypt: outgoing, cell: Box::new([0; CELL_LEN]) },
            back,
            held: None,
        }
    }

    /// Ends the tunnel in order: its link may serve again.
    pub async fn close(self) {
        let Self { incoming: CellReader { reader, closed, .. }, outgoing: CellWriter { writer, .. }, back, .. } = self;
        Taken { reader, writer, back }.close(closed).await;
    }

    /// Says why this end gives up, as far as the link still takes it, and ends the tunnel.
    pub async fn abort(mut self, reason: Reason) {
        let say = async {
            self.outgoing.say(&Word::Abort(reason)).await?;
            self.outgoing.flush().await
        };
        // A neighbour that reads nothing must not hold the tunnel.
        if matches!(tokio::time::timeout(ABORT_LIMIT, say).await, Ok(Ok(()))) {
            self.close().await;
        }
    }
}

/// Reads cells.
pub struct CellReader {
    reader: LinkReader,
    crypt: Crypt,
    cell: BytesMut,
    /// CLOSE has come: nothing of this tunnel follows.
    closed: bool,
}

impl CellReader {
    /// The next cell. `None`: the tunnel ended. Cancel-safe.
    pub async fn read(&mut self) -> Result<Option<(CellKind, &[u8])>, RelayError> {
        if self.closed {
            return Ok(None);
        }
        let Some(frame) = self.reader.read().await? else { return Ok(None) };
        if frame.kind == kind::CLOSE && frame.payload.is_empty() {
            self.closed = true;
            return Ok(None);
        }
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
        let cell = Cell::decode(&self.cell).map_err(|_| RelayError::Noise)?;
        Ok(Some((cell.kind, cell.data)))
    }

    /// Waits until [`CellReader::read`] would answer without waiting. Cancel-safe.
    pub async fn arrive(&mut self) -> Result<(), RelayError> {
        if self.closed {
            return Ok(());
        }
        Ok(self.reader.arrive().await?)
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
        self.encipher(cell_kind, data)?;
        Ok(self.writer.write(kind::CELL, &self.cell[..]).await?)
    }

    /// Queues one cell that says this, to leave when flushed; not more than until [`CellWriter::is_full`].
    pub fn queue(&mut self, word: &Word<'_>) -> Result<(), RelayError> {
        self.encipher(word.kind(), &word.data())?;
        Ok(self.writer.queue(kind::CELL, &self.cell[..])?)
    }

    /// Whether enough have gathered to leave.
    pub fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    fn encipher(&mut self, cell_kind: CellKind, data: &[u8]) -> Result<(), RelayError> {
        Cell { kind: cell_kind, data }
            .encode(&mut self.cell)
            .map_err(|_| RelayError::Misbehaved("too much data for a cell"))?;
        let fits = match &mut self.crypt {
            Crypt::End(layer) => layer.encipher(&mut self.cell[..]),
            Crypt::Owner(crypt) => crypt.wrap(&mut self.cell[..]),
        };
        debug_assert!(fits, "the buffer has the length of a cell");
        Ok(())
    }

    /// Sends one cell that says this.
    pub async fn say(&mut self, word: &Word<'_>) -> Result<(), RelayError> {
        self.write(word.kind(), &word.data()).await
    }

    /// Sends bytes in as many DATA cells as they need.
    pub async fn write_data(&mut self, data: &[u8]) -> Result<(), RelayError> {
        for part in data.chunks(CELL_DATA_MAX) {
            self.write(CellKind::Data, part).await?;
        }
        Ok(())
    }

    /// Hands everything written to the system.
    pub async fn flush(&mut self) -> Result<(), RelayError> {
        Ok(self.writer.flush().await?)
    }

    /// As a node does that changes cells.
    #[cfg(test)]
    pub(crate) async fn say_noise(&mut self) {
        self.writer.write(kind::CELL, &[7; CELL_LEN]).await.unwrap();
        self.flush().await.unwrap();
    }
}

/// A tunnel at its terminating node and at its owner, who has one hop; so many bytes are under way at once.
#[cfg(test)]
pub(crate) fn pair(room: usize) -> [Tunnel; 2] {
    use phantom_proto::cell::{Direction, TunnelKey};
    use phantom_proto::crypto::SigningKey;
    use zeroize::Zeroizing;

    use crate::link::{Link, Purpose};

    let (near, far) = tokio::io::duplex(room);
    let [near, far] = [near, far].map(|stream| {
        let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
        let remote = ([127, 0, 0, 1], 443).into();
        let link = Link { peer, remote, purpose: Purpose::Frames, retires: None, stream: Box::new(stream) };
        let (reader, writer) = link.into_frames();
        Taken { reader, writer, back: None }
    });
    let key = || TunnelKey(Zeroizing::new([1; 32]));
    let end = |direction| Crypt::End(Box::new(Layer::new(&key(), direction)));
    let owner = |direction| Crypt::Owner(OwnerCrypt::new(&[key()], direction));
    let end = Tunnel::new(near, end(Direction::Onward), end(Direction::Backward));
    [end, Tunnel::new(far, owner(Direction::Backward), owner(Direction::Onward))]
}
