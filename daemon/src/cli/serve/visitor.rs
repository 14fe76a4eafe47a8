//! A visitor's connection that ends when nothing is taken from it for long: an answer that nobody reads would keep its place for ever.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

use super::crowd::Taken;

/// How long a visitor may take nothing of what is said.
const TAKING: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct Visitor {
    stream: UnixStream,
    taken: Taken,
    /// While nothing is taken.
    due: Option<Pin<Box<Sleep>>>,
}

impl Visitor {
    /// It counts what is taken.
    pub(super) fn new(stream: UnixStream, taken: Taken) -> Self {
        Self { stream, taken, due: None }
    }

    /// The same, unless it has been pending for too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.due = None;
            return polled;
        }
        let due = self.due.get_or_insert_with(|| Box::pin(sleep(TAKING)));
        due.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.taken.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.within(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_left_and_who_takes_slowly_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let counted = Taken::default();
        let mut visitor = Visitor::new(ours, counted.clone());
        let writing = tokio::spawn(async move { visitor.write_all(&vec![7; 8 << 20]).await });
        let begun = Instant::now();
        // Nearly all that the socket holds: the kernel does not say earlier that there is room.
        let mut taken = vec![0; 192 * 1024];
        for _ in 0..3 {
            sleep(TAKING / 2).await;
            theirs.read_exact(&mut taken).await.unwrap();
        }
        let end = timeout(TAKING * 10, writing).await.expect("it is left").unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= TAKING * 2, "it was waited for as long as something was taken");
        assert!(counted.load(Ordering::Relaxed) >= 3 * 192 * 1024);
    }
}
