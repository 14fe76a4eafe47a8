//! The program's end of a session, as a stream with TCP's ends: shutdown is a half-close, a drop before it is a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Bytes between program and session, per direction.
const BUFFER: usize = 256 * 1024;

/// Which ends were no orderly ones.
#[derive(Default)]
pub(super) struct Ends {
    /// The program's side went away without its end.
    aborted: AtomicBool,
    /// The far end reset.
    reset: AtomicBool,
}

impl Ends {
    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
    }
}

/// See the module.
pub(super) struct SessionStream {
    inner: DuplexStream,
    ends: Arc<Ends>,
    finished: bool,
}

/// The program's end, and the session's end of it.
pub(super) fn pair() -> (SessionStream, DuplexStream, Arc<Ends>) {
    let (inner, session) = tokio::io::duplex(BUFFER);
    let ends = Arc::new(Ends::default());
    (SessionStream { inner, ends: ends.clone(), finished: false }, session, ends)
}

impl SessionStream {
    fn check(&self) -> io::Result<()> {
        if self.ends.reset.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        match result {
            // Bytes that came before the reset are delivered first.
            Poll::Ready(Ok(())) if buf.filled().len() == before => Poll::Ready(self.check()),
            other => other,
        }
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        if !self.finished {
            self.ends.aborted.store(true, Ordering::Release);
        }
    }
}
