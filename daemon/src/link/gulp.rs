//! Reads a socket in large gulps: rustls alone asks for 4 KiB at a time, which would be a system call per cell.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes asked for at once: four TLS records.
const GULP: usize = 64 * 1024;

/// A stream whose reads are large. Its buffer exists only while it holds bytes, so that idle links cost nothing.
#[derive(Debug)]
pub(super) struct Gulps<S> {
    inner: S,
    buffer: BytesMut,
    /// What ends with the stream.
    held: Option<OwnedSemaphorePermit>,
}

impl<S> Gulps<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, buffer: BytesMut::new(), held: None }
    }

    /// Keeps a place as long as the stream is open.
    pub(super) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.held = Some(place);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gulps<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, buffer, .. } = self.get_mut();
        if buffer.is_empty() {
            buffer.reserve(GULP);
            let read = pin!(inner.read_buf(buffer)).poll(cx);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                *buffer = BytesMut::new();
            }
            ready!(read)?;
        }
        let part = buffer.len().min(buf.remaining());
        buf.put_slice(&buffer[..part]);
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
