//! The program's end of a session, as a stream with TCP's ends: shutdown is a half-close, a drop before both directions have
//! ended is a reset.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;

use super::lock;
use crate::far::{Parking, Stream};

/// Bytes between program and session, per direction.
const BUFFER: usize = 256 * 1024;

/// Which ends were no orderly ones.
#[derive(Default)]
pub(super) struct Ends {
    /// The program's side went away without its end.
    aborted: AtomicBool,
    /// The same, for who waits for it.
    gone: Notify,
    /// The far end reset.
    reset: AtomicBool,
    /// Whoever waits for that, after the far end's half-close.
    reader: Mutex<Option<Waker>>,
    /// Where the program's connection is left when this process hands over.
    pub(super) parking: Arc<Parking>,
}

impl Ends {
    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Resolves when the program's side has gone away without its end.
    pub(super) async fn gone(&self) {
        while !self.aborted() {
            self.gone.notified().await;
        }
    }

    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Release);
        if let Some(reader) = lock(&self.reader).take() {
            reader.wake();
        }
    }

    /// Whether there was a reset.
    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        *lock(&self.reader) = Some(cx.waker().clone());
        // After that, so that a reset in between is not missed.
        if self.is_reset() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// See the module.
pub(super) struct SessionStream {
    inner: DuplexStream,
    ends: Arc<Ends>,
    /// Our half-close.
    finished: bool,
    /// The far end's, as read.
    ended: bool,
}

/// The program's end, and the session's end of it.
pub(super) fn pair() -> (SessionStream, DuplexStream, Arc<Ends>) {
    let (inner, session) = tokio::io::duplex(BUFFER);
    let ends = Arc::new(Ends::default());
    (SessionStream { inner, ends: ends.clone(), finished: false, ended: false }, session, ends)
}

impl SessionStream {
    fn check(&self) -> io::Result<()> {
        if self.ends.is_reset() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Stream for SessionStream {
    fn parking(&self) -> Option<Arc<Parking>> {
        Some(self.ends.parking.clone())
    }
}

/// After the end, another read waits for a reset.
impl AsyncRead for SessionStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return self.ends.poll_reset(cx).map(|()| self.check());
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        match result {
            // Bytes that came before the reset are delivered first.
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => {
                let end = self.check();
                self.ended = end.is_ok();
                Poll::Ready(end)
            }
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
        if !(self.finished && self.ended || self.ends.parking.is_left()) {
            self.ends.aborted.store(true, Ordering::Release);
            self.ends.gone.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_read_after_the_end_waits_for_a_reset() {
        let (mut stream, mut session, ends) = pair();
        session.write_all(b"last").await.unwrap();
        session.shutdown().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
        let waiting = tokio::spawn(async move { stream.read(&mut [0]).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        ends.reset();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn only_a_drop_after_both_ends_is_orderly() {
        for (ours, theirs) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut stream, mut session, ends) = pair();
            if theirs {
                session.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            }
            if ours {
                stream.shutdown().await.unwrap();
            }
            drop(stream);
            assert_eq!(ends.aborted(), !(ours && theirs));
        }
    }
}
