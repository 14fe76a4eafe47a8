//! Where this node is: what others call it, which decides where it may be sent, and from which of this computer's addresses its links were
//! opened. The kernel says nothing when an address goes; a link from one that is gone would look sound until its keepalive is over.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::scope;

/// Links that are noted before those that have ended are forgotten.
const FORGET_FROM: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Place(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// For others.
    ip: IpAddr,
    ends: Vec<Weak<End>>,
    /// Of them, when the ended ones are next forgotten.
    most: usize,
}

/// How a link hears that its place is no more.
#[derive(Debug)]
struct End {
    from: IpAddr,
    gone: AtomicBool,
    waker: AtomicWaker,
}

impl Place {
    pub(super) fn new(ip: IpAddr) -> Self {
        Self(Mutex::new(Inner { ip, ends: Vec::new(), most: FORGET_FROM }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others reach this node at `ip` from now on.
    pub fn moves(&self, ip: IpAddr) {
        self.lock().ip = ip;
    }

    pub(super) fn may_dial(&self, to: IpAddr) -> bool {
        scope::may_dial(self.lock().ip, to)
    }

    /// Ends the links that were opened from addresses that this computer does not have any more.
    // protocol: L44
    pub fn leave_lost(&self) {
        let mut ours = BTreeMap::new();
        self.leave(|from| !*ours.entry(from).or_insert_with(|| is_ours(from)));
    }

    fn leave(&self, mut is_lost: impl FnMut(IpAddr) -> bool) {
        // Woken without the lock: whoever is woken may open the next one.
        let ends: Vec<_> = self.lock().ends.iter().filter_map(Weak::upgrade).collect();
        for end in ends.iter().filter(|end| is_lost(end.from)) {
            end.gone.store(true, Ordering::Release);
            end.waker.wake();
        }
    }

    /// A connection that ends when the place is lost from which it was opened, or at which it came in.
    ///
    /// # Errors
    /// When the connection has ended already.
    pub(super) fn hold(&self, tcp: TcpStream) -> io::Result<Placed> {
        let from = tcp.local_addr()?.ip();
        let end = Arc::new(End { from, gone: AtomicBool::new(false), waker: AtomicWaker::new() });
        let mut inner = self.lock();
        if inner.ends.len() >= inner.most {
            inner.ends.retain(|end| end.strong_count() > 0);
            inner.most = FORGET_FROM.max(2 * inner.ends.len());
        }
        inner.ends.push(Arc::downgrade(&end));
        Ok(Placed { tcp, end })
    }
}

/// Whether this computer has the address.
fn is_ours(ip: IpAddr) -> bool {
    match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => true,
        // Anything else says nothing of the address.
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// See [`Place::hold`].
#[derive(Debug)]
pub(super) struct Placed {
    tcp: TcpStream,
    end: Arc<End>,
}

impl Placed {
    fn check(&self) -> io::Result<()> {
        if self.end.gone.load(Ordering::Acquire) { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match Pin::new(&mut self.tcp).poll_read(cx, buf) {
            Poll::Pending => {
                self.end.waker.register(cx.waker());
                // It may have gone before it could wake.
                self.check().map_or_else(|gone| Poll::Ready(Err(gone)), |()| Poll::Pending)
            }
            ready => ready,
        }
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn pair(place: &Place, ip: &str) -> (Placed, TcpStream) {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (place.hold(listener.accept().await.unwrap().0).unwrap(), far)
    }

    // protocol: L44
    #[tokio::test]
    async fn links_from_an_address_that_is_gone_end_at_once_and_no_others() {
        let place = Place::new(IpAddr::from([127, 0, 0, 1]));
        let (mut lost, _far) = pair(&place, "127.0.0.2").await;
        let (mut kept, mut far) = pair(&place, "127.0.0.3").await;
        let waits = tokio::spawn(async move { (lost.read(&mut [0]).await, lost) });
        tokio::task::yield_now().await;
        place.leave_lost();
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "this computer has all of 127.0.0.0/8");
        place.leave(|from| from == IpAddr::from([127, 0, 0, 2]));
        let (read, mut lost) = timeout(Duration::from_secs(60), waits).await.unwrap().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert!(lost.write_all(&[0]).await.is_err() && lost.read(&mut [0]).await.is_err(), "it stays so");
        far.write_all(&[7]).await.unwrap();
        assert_eq!(kept.read_u8().await.unwrap(), 7);
        assert!(is_ours(IpAddr::from([127, 0, 0, 2])) && !is_ours(IpAddr::from([192, 0, 2, 1])));
    }

    #[tokio::test]
    async fn ended_links_are_forgotten() {
        let place = Place::new(IpAddr::from([127, 0, 0, 1]));
        let (kept, _far) = pair(&place, "127.0.0.1").await;
        for _ in 0..3 * FORGET_FROM {
            pair(&place, "127.0.0.1").await;
        }
        assert!(place.lock().ends.len() <= FORGET_FROM);
        assert!(place.lock().ends.iter().any(|end| end.upgrade().is_some()));
        drop(kept);
    }
}
