//! Frames over a link: kind, length, payload; many of them per system call.

use std::io;

use bytes::BytesMut;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::wire::link::{FRAME_HEADER, frame_header, write_frame_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::Stream;

/// How much is read or gathered at once: four TLS records.
const BATCH: usize = 64 * 1024;

/// One frame.
#[derive(Debug)]
pub struct Frame {
    /// See `phantom_proto::wire::frame::kind`.
    pub kind: u8,
    /// At most `MAX_FRAME` bytes.
    pub payload: BytesMut,
}

/// Splits a link into frames that arrive and frames to send.
pub(super) fn split(peer: VerifyingKey, stream: Box<dyn Stream>) -> (LinkReader, LinkWriter) {
    let (read, write) = tokio::io::split(stream);
    (LinkReader { peer, read, buffer: BytesMut::new() }, LinkWriter { write, buffer: Vec::with_capacity(BATCH) })
}

/// Reads frames.
pub struct LinkReader {
    peer: VerifyingKey,
    read: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

impl LinkReader {
    /// The node at the other end.
    pub fn peer(&self) -> VerifyingKey {
        self.peer
    }

    /// The next frame. `None`: the link ended between two frames. Cancel-safe.
    pub async fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(BATCH);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Whether a whole frame has arrived already.
    pub fn has_frame(&self) -> bool {
        matches!(self.whole(), Ok(Some(_)))
    }

    /// Whether nothing has arrived that was not read.
    pub fn is_drained(&self) -> bool {
        self.buffer.is_empty()
    }

    fn whole(&self) -> io::Result<Option<(u8, usize)>> {
        let Some(header) = self.buffer.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
        let (kind, len) = frame_header(*header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((self.buffer.len() >= FRAME_HEADER + len).then_some((kind, len)))
    }

    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some((kind, len)) = self.whole()? else { return Ok(None) };
        let mut payload = self.buffer.split_to(FRAME_HEADER + len);
        bytes::Buf::advance(&mut payload, FRAME_HEADER);
        Ok(Some(Frame { kind, payload }))
    }
}

/// Writes frames; what is written leaves with [`LinkWriter::flush`], or when a batch is full.
pub struct LinkWriter {
    write: WriteHalf<Box<dyn Stream>>,
    buffer: Vec<u8>,
}

impl LinkWriter {
    /// Queues a frame.
    pub async fn write(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let header = write_frame_header(kind, payload.len())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        if self.buffer.len() >= BATCH { self.send().await } else { Ok(()) }
    }

    /// Hands everything to the system.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        self.write.flush().await
    }

    /// Flushes and ends this direction.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.write.shutdown().await
    }

    async fn send(&mut self) -> io::Result<()> {
        self.write.write_all(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }
}
