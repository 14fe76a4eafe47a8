//! Reads a socket in large gulps, where rustls alone asks for 4 KiB at a time, and gives rustls no more than one record of them: what
//! it has not asked for yet is whole records, which another may open.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::records::{HEADER, length};

/// Bytes asked for at once: four TLS records.
pub(super) const GULP: usize = 64 * 1024;

/// A stream whose reads are large. Its buffer exists only while it holds bytes, so that idle links cost nothing.
#[derive(Debug)]
pub(super) struct Gulps<S> {
    inner: S,
    buffer: BytesMut,
    record: Record,
    /// What ends with the stream.
    held: Option<OwnedSemaphorePermit>,
}

impl<S> Gulps<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, buffer: BytesMut::new(), record: Record::default(), held: None }
    }

    /// Keeps a place as long as the stream is open.
    pub(super) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.held = Some(place);
    }

    /// The stream, what has been read of it for nobody yet, and what ends with it. `None`: its reader has a part of a record.
    pub(super) fn into_parts(self) -> Option<(S, BytesMut, Option<OwnedSemaphorePermit>)> {
        (self.record.begun == 0).then_some((self.inner, self.buffer, self.held))
    }
}

/// Where in a record a reader is.
#[derive(Debug, Default)]
struct Record {
    header: [u8; HEADER],
    /// Bytes of the header that have been given.
    begun: usize,
    /// Bytes behind the header that have not.
    left: usize,
}

impl Record {
    /// Bytes to its end, as far as they are known to be of it.
    fn rest(&self) -> usize {
        if self.begun < HEADER { HEADER - self.begun } else { self.left }
    }

    /// So much of the rest has been given.
    fn give(&mut self, part: &[u8]) {
        if self.begun < HEADER {
            self.header[self.begun..][..part.len()].copy_from_slice(part);
            self.begun += part.len();
            self.left = length(&self.header);
        } else {
            self.left -= part.len();
        }
        if self.begun == HEADER && self.left == 0 {
            *self = Self::default();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gulps<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, buffer, record, .. } = self.get_mut();
        if buffer.is_empty() {
            buffer.reserve(GULP);
            let read = pin!(inner.read_buf(buffer)).poll(cx);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                *buffer = BytesMut::new();
            }
            ready!(read)?;
        }
        let part = buffer.len().min(buf.remaining()).min(record.rest());
        buf.put_slice(&buffer[..part]);
        record.give(&buffer[..part]);
        buffer.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gulps<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
