//! Bans at the links: none to or from who is banned, and those that stand when a ban comes break off.
//!
//! Strangers see nothing of it: who is banned gets the web server's answers like everybody, until it has proven that it is a node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::task::AtomicWaker;
use phantom_proto::command::Bans;
use phantom_proto::ident::NodeId;
use phantom_proto::wire::NodeContact;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Link, LinkError, Purpose, Stream, Transport};

/// How long links stand after a ban has come: the command leaves by them too, also towards who is banned, and its operator learns why.
const GRACE: Duration = Duration::from_secs(3);

/// A transport that keeps bans.
pub struct Barred<T> {
    inner: T,
    bans_rx: watch::Receiver<Arc<Bans>>,
    standing: Arc<Standing>,
}

/// The links that stand.
#[derive(Default)]
struct Standing(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    links: BTreeMap<u64, (NodeId, IpAddr, Arc<Cut>)>,
}

/// How a link learns that it is over.
#[derive(Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl<T: Transport> Barred<T> {
    /// Keeps these bans, now and as they change. Needs to be made inside a tokio runtime.
    pub fn new(inner: T, bans_rx: watch::Receiver<Arc<Bans>>) -> Self {
        let standing = Arc::new(Standing::default());
        tokio::spawn(keep(bans_rx.clone(), Arc::downgrade(&standing)));
        Self { inner, bans_rx, standing }
    }

    // protocol: M16
    fn banned(&self, node: &NodeId, ip: IpAddr) -> bool {
        self.bans_rx.borrow().ban(node, ip).is_some()
    }

    /// Lets a link in, if its node is not banned.
    // protocol: M16
    fn admit(&self, link: Link) -> Option<Link> {
        let Link { peer, remote, purpose, retires, stream } = link;
        let (node, cut) = (NodeId::of(&peer), Arc::new(Cut::default()));
        // On the list before the bans are looked at: a ban that comes in between finds it there.
        let entry = Standing::enter(&self.standing, node, remote.ip(), cut.clone());
        if self.banned(&node, remote.ip()) {
            return None;
        }
        Some(Link { peer, remote, purpose, retires, stream: Box::new(Watched { stream, cut, _entry: entry }) })
    }
}

/// Cuts the links of who is banned, as long as there is a transport.
// protocol: M16
async fn keep(mut bans_rx: watch::Receiver<Arc<Bans>>, standing: std::sync::Weak<Standing>) {
    while bans_rx.changed().await.is_ok() {
        sleep(GRACE).await;
        let bans = bans_rx.borrow_and_update().clone();
        let Some(standing) = standing.upgrade() else { return };
        let table = standing.lock();
        let hit = table.links.values().filter(|(node, ip, _)| bans.ban(node, *ip).is_some());
        hit.for_each(|(_, _, cut)| cut.now());
    }
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(this: &Arc<Self>, node: NodeId, ip: IpAddr, cut: Arc<Cut>) -> Entry {
        let mut table = this.lock();
        table.next += 1;
        let number = table.next;
        table.links.insert(number, (node, ip, cut));
        Entry { standing: this.clone(), number }
    }
}

/// A place among the links that stand.
struct Entry {
    standing: Arc<Standing>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.standing.lock().links.remove(&self.number);
    }
}

impl Cut {
    fn now(&self) {
        self.done.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    /// Whether it is over; if not, `waker` hears when it is.
    fn is_done(&self, waker: &AtomicWaker, cx: &Context<'_>) -> bool {
        waker.register(cx.waker());
        self.done.load(Ordering::Acquire)
    }
}

/// A link's bytes, until it is cut.
struct Watched {
    stream: Box<dyn Stream>,
    cut: Arc<Cut>,
    _entry: Entry,
}

fn cut<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the other node is banned")))
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.is_done(&self.cut.reader, cx) {
            return cut();
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.is_done(&self.cut.writer, cx) {
            return cut();
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut.is_done(&self.cut.writer, cx) {
            return cut();
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.is_done(&self.cut.writer, cx) {
            return cut();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Also of one that is cut: it is to end as others do.
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl<T: Transport> Transport for Barred<T> {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        if self.banned(&peer.node_id(), peer.addr.ip()) {
            return Err(LinkError::Banned);
        }
        let link = self.inner.dial(peer, purpose).await?;
        self.admit(link).ok_or(LinkError::Banned)
    }

    async fn accept(&self) -> Option<Link> {
        loop {
            if let Some(link) = self.admit(self.inner.accept().await?) {
                return Some(link);
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::command::{Action, Command, Target};
    use phantom_proto::crypto::SigningKey;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::link::MemoryNetwork;

    fn contact(seed: u8) -> NodeContact {
        let identity = SigningKey::from_seed(&[seed; 32]).verifying_key();
        NodeContact { identity, addr: ([10, seed, 0, 1], 443).into(), link_secret: [seed; 32] }
    }

    fn bans(target: Target) -> Arc<Bans> {
        let actions = vec![Action::Ban(target)];
        let command = Command { serial: 1, predecessor: [0; 32], issued: 1, expires: 100, actions };
        Arc::new(Bans::of(2, &Default::default(), [(2, &command)]))
    }

    fn targets() -> [Target; 2] {
        [Target::Node(contact(2).node_id()), Target::Range("10.2.0.0/16".parse().unwrap())]
    }

    // protocol: M16
    #[tokio::test(start_paused = true)]
    async fn a_link_that_stands_breaks_off_at_a_ban_for_who_reads_and_who_writes() {
        for target in targets() {
            let network = MemoryNetwork::default();
            let (bans_tx, bans_rx) = watch::channel(Arc::default());
            let one = Barred::new(network.join(contact(1)), bans_rx);
            let (two, three) = (network.join(contact(2)), network.join(contact(3)));
            let mut out = one.dial(&contact(2), Purpose::Frames).await.unwrap();
            let _theirs = two.accept().await.unwrap();
            let mut full = one.dial(&contact(2), Purpose::Frames).await.unwrap();
            let _full = two.accept().await.unwrap();
            let mut come = two.dial(&contact(1), Purpose::Frames).await.unwrap();
            let mut incoming = one.accept().await.unwrap();
            let mut other = one.dial(&contact(3), Purpose::Frames).await.unwrap();
            let mut others = three.accept().await.unwrap();
            let reader = tokio::spawn(async move { out.stream.read(&mut [0]).await });
            // Nobody takes it: it waits for room.
            let writer = tokio::spawn(async move { full.stream.write_all(&[0; 1 << 20]).await });
            tokio::task::yield_now().await;
            bans_tx.send_replace(bans(target));
            assert!(reader.await.unwrap().is_err() && writer.await.unwrap().is_err());
            // As soon as it is cut here, it is over there.
            while incoming.stream.write(&[1]).await.is_ok() {
                tokio::task::yield_now().await;
            }
            drop(incoming);
            while come.stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
            others.stream.write_all(b"on").await.unwrap();
            other.stream.read_exact(&mut [0; 2]).await.unwrap();
        }
    }

    // protocol: M16
    #[tokio::test]
    async fn who_is_banned_is_neither_dialed_nor_let_in_until_it_is_over() {
        for target in targets() {
            let network = MemoryNetwork::default();
            let (bans_tx, bans_rx) = watch::channel(bans(target));
            let one = Barred::new(network.join(contact(1)), bans_rx);
            let (two, three) = (network.join(contact(2)), network.join(contact(3)));
            assert!(matches!(one.dial(&contact(2), Purpose::Frames).await, Err(LinkError::Banned)));
            let mut refused = two.dial(&contact(1), Purpose::Frames).await.unwrap();
            let _let_in = three.dial(&contact(1), Purpose::Frames).await.unwrap();
            assert_eq!(one.accept().await.unwrap().peer, contact(3).identity);
            assert_eq!(refused.stream.read(&mut [0]).await.unwrap(), 0);
            bans_tx.send_replace(Arc::default());
            assert!(one.dial(&contact(2), Purpose::Frames).await.is_ok());
            assert!(one.standing.lock().links.is_empty(), "what has ended is remembered");
        }
    }
}
