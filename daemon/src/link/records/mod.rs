//! The TLS of a link that stands: rustls has shaken hands and hands out its keys; from there on records are opened and sealed in place,
//! without the copies and allocations that rustls makes for each.

mod opening;
mod sealing;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::{AlertDescription, Connection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::gulp::{GULP, Gulps};
use opening::{End, Opener};
pub(super) use sealing::KEY_LIMIT;
use sealing::Sealer;

/// Of a record: kind, version, length of what follows.
pub(super) const HEADER: usize = 5;

/// Bytes that may wait to leave before more are sealed: as many as in rustls, which decides how records are cut for a peer that
/// reads slowly.
const WAITING: usize = 64 * 1024;

/// A begun record of up to so many bytes is kept in a place of its own size, when more of it is waited for.
const BEGUN: usize = 4096;

/// See the module.
pub(super) struct Records<S> {
    inner: S,
    opener: Opener,
    sealer: Sealer,
    /// As it came. It exists only while it holds bytes, so that idle links cost nothing.
    arrived: BytesMut,
    /// The rest of the last record that was opened.
    plain: BytesMut,
    /// Why nothing more comes.
    end: Option<End>,
    /// Sealed, to leave.
    leaving: BytesMut,
    /// The last record of this side is among it, or has left.
    ended: bool,
    /// What ends with the stream.
    _held: Option<OwnedSemaphorePermit>,
}

/// Length of what follows a record's header.
pub(super) fn length(header: &[u8; HEADER]) -> usize {
    u16::from_be_bytes([header[3], header[4]]).into()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Records<S> {
    /// Goes on where rustls stops: its handshake is over, nothing of it waits to leave, and it has begun no record. This side's key
    /// seals `key_bytes` at most.
    ///
    /// # Errors
    /// When that is not so, or rustls does not give the keys.
    pub(super) fn after(gulps: Gulps<S>, mut tls: Connection, key_bytes: u64) -> io::Result<Self> {
        let mut plain = Vec::new();
        match tls.reader().read_to_end(&mut plain) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let (inner, arrived, held) = gulps.into_parts().ok_or(io::ErrorKind::InvalidData)?;
        let secrets = tls.dangerous_extract_secrets().map_err(io::Error::other)?;
        let opener = Opener::new(secrets.rx).ok_or(io::ErrorKind::Unsupported)?;
        let sealer = Sealer::new(secrets.tx, key_bytes).ok_or(io::ErrorKind::Unsupported)?;
        let (plain, leaving) = (BytesMut::from(&plain[..]), BytesMut::new());
        Ok(Self { inner, opener, sealer, arrived, plain, end: None, leaving, ended: false, _held: held })
    }

    /// Opens the next record if all of it has arrived. False: it has not, or there is none.
    // protocol: L43
    fn open(&mut self, cx: &mut Context<'_>) -> bool {
        match self.opener.open(&mut self.arrived) {
            Ok(Some(plain)) => {
                self.plain = plain;
                true
            }
            Ok(None) => false,
            Err(end) => {
                self.end = Some(end);
                self.arrived = BytesMut::new();
                if let End::Broken { alert: Some(alert), .. } = end {
                    // It leaves now or never: who reads does not wait for it.
                    let _ = self.say_end(alert).map(|()| self.poll_leave(cx));
                }
                false
            }
        }
    }

    /// Reads what has come. Ready: there is more, or its end.
    fn poll_arrive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.arrived.reserve(GULP);
        let read = pin!(self.inner.read_buf(&mut self.arrived)).poll(cx);
        if read.is_pending() && self.arrived.len() <= BEGUN {
            self.arrived = BytesMut::from(&self.arrived[..]);
        }
        if ready!(read)? == 0 {
            self.end = Some(End::Cut);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals the last record of this side, once.
    fn say_end(&mut self, alert: AlertDescription) -> io::Result<()> {
        if !self.ended {
            self.ended = true;
            self.sealer.alert(alert, &mut self.leaving).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.leaving.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.leaving))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.leaving.advance(count);
        }
        // Not kept while idle.
        self.leaving = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Records<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            let part = this.plain.len().min(buf.remaining());
            buf.put_slice(&this.plain[..part]);
            this.plain.advance(part);
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // So that its place can be read into again.
            this.plain = BytesMut::new();
            if this.end.is_none() && this.open(cx) {
                continue;
            }
            match this.end {
                _ if buf.filled().len() > before => return Poll::Ready(Ok(())),
                Some(End::Said) => return Poll::Ready(Ok(())),
                Some(End::Cut) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Some(End::Broken { why, .. }) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
                None => ready!(this.poll_arrive(cx))?,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut taken = 0;
        while taken < bytes.len() {
            let room = WAITING.saturating_sub(this.leaving.len()).min(bytes.len() - taken);
            if let Err(error) = this.sealer.content(&bytes[taken..][..room], &mut this.leaving) {
                let _ = this.say_end(AlertDescription::CloseNotify).map(|()| this.poll_leave(cx));
                return Poll::Ready(Err(io::Error::other(error)));
            }
            taken += room;
            // What does not leave now leaves with the next write or flush.
            match this.poll_leave(cx) {
                Poll::Ready(left) => left?,
                Poll::Pending if taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_leave(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    // protocol: L21
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_end(AlertDescription::CloseNotify)?;
        ready!(this.poll_leave(cx))?;
        match ready!(Pin::new(&mut this.inner).poll_shutdown(cx)) {
            // The other end was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}
