//! The wires of the simulated network: which stand, which are held up, who is hostile behind them, and what passed when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::task::AtomicWaker;
use phantom_daemon::clock;
use phantom_daemon::link::{Link, LinkError, MemoryTransport, Purpose, Stream, Transport};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::link::FRAME_HEADER;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::hostile::{Conduct, Filter, Gang};

/// How long a dial waits for somebody who does not answer.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Something that an observer of one node's uplink sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) what: What,
}

impl Seen {
    pub(crate) fn is_accepted(&self) -> bool {
        self.what == What::Accepted
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It opened a link.
    Dialed,
    /// Somebody opened one to it.
    Accepted,
    /// It sent so many bytes at once.
    Sent(usize),
    /// So many bytes came.
    Got(usize),
}

#[derive(Default)]
struct Node {
    conduct: Conduct,
    /// Links know in which life of both nodes they were opened; those of another life are broken.
    life: u64,
    asleep: bool,
    /// Nobody opens links to it.
    hidden: bool,
    bells: Vec<Weak<Bell>>,
    /// Bells at which those that are gone are thrown out next.
    sweep_at: usize,
}

/// Wakes whoever waits at one end of a link.
#[derive(Default)]
struct Bell {
    read: AtomicWaker,
    write: AtomicWaker,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<usize, Node>,
    at: BTreeMap<SocketAddr, usize>,
    cuts: BTreeSet<(usize, usize)>,
    seen: Option<Vec<Seen>>,
}

/// All wires of one simulation; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    state: Arc<Mutex<State>>,
    gang: Gang,
}

impl Wires {
    /// The transport of a node whose links are these.
    pub(crate) fn join(&self, node: usize, inner: MemoryTransport) -> Arc<dyn Transport> {
        let mut state = self.lock();
        state.at.insert(inner.local_addr(), node);
        state.nodes.entry(node).or_default();
        Arc::new(Wired { wires: self.clone(), node, inner })
    }

    /// From now on the node behaves like this, on links that are opened later.
    pub(crate) fn behave(&self, node: usize, conduct: Conduct) {
        self.lock().nodes.entry(node).or_default().conduct = conduct;
    }

    pub(crate) fn conduct(&self, node: usize) -> Conduct {
        self.lock().nodes.get(&node).map(|node| node.conduct).unwrap_or_default()
    }

    /// From now on what passes is remembered.
    pub(crate) fn watch(&self) {
        self.lock().seen = Some(Vec::new());
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.take().unwrap_or_default()
    }

    /// All links of a node break at once.
    pub(crate) fn lose_links(&self, node: usize) {
        let mut state = self.lock();
        let one = state.nodes.entry(node).or_default();
        one.life += 1;
        one.ring();
    }

    /// A node neither hears nor says anything, as a computer that sleeps; its links stay.
    pub(crate) fn sleep(&self, node: usize, asleep: bool) {
        let mut state = self.lock();
        let one = state.nodes.entry(node).or_default();
        one.asleep = asleep;
        one.ring();
    }

    /// From now on nobody can open a link to this node, which can open links to all; or they can again.
    pub(crate) fn hide(&self, node: usize, is_hidden: bool) {
        self.lock().nodes.entry(node).or_default().hidden = is_hidden;
    }

    pub(crate) fn is_hidden(&self, node: usize) -> bool {
        self.lock().nodes.get(&node).is_some_and(|node| node.hidden)
    }

    /// Two nodes do not reach each other, or do again.
    pub(crate) fn cut(&self, a: usize, b: usize, cut: bool) {
        let mut state = self.lock();
        let pair = (a.min(b), a.max(b));
        if cut {
            state.cuts.insert(pair)
        } else {
            state.cuts.remove(&pair)
        };
        state.nodes.values_mut().for_each(Node::ring);
    }

    /// Whether two nodes, both running, hear each other.
    pub(crate) fn hear(&self, a: usize, b: usize) -> bool {
        self.lock().hear(a, b)
    }

    fn lives(&self, a: usize, b: usize) -> [u64; 2] {
        let state = self.lock();
        [a, b].map(|node| state.nodes.get(&node).map_or(0, |node| node.life))
    }

    fn see(&self, node: usize, what: What) {
        // Both ends of a standing connection say it, whatever else happens: an observer leaves it out.
        if matches!(what, What::Sent(len) | What::Got(len) if len <= FRAME_HEADER) {
            return;
        }
        if let Some(seen) = &mut self.lock().seen {
            seen.push(Seen { at: clock::unix_millis(), node, what });
        }
    }

    fn wire(&self, own: usize, far: usize, link: Link) -> Link {
        let (lives, bell) = (self.lives(own, far), Arc::<Bell>::default());
        let mut state = self.lock();
        for node in [own, far] {
            state.nodes.entry(node).or_default().hang(&bell);
        }
        let conduct = state.nodes.get(&own).map(|node| node.conduct).unwrap_or_default();
        drop(state);
        let filter = Filter::of(conduct, own, self.gang.clone());
        let stream = Wire { inner: link.stream, wires: self.clone(), own, far, lives, bell, filter };
        Link { stream: Box::new(stream), ..link }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

impl State {
    fn hear(&self, a: usize, b: usize) -> bool {
        let awake = |node| self.nodes.get(&node).is_none_or(|node| !node.asleep);
        awake(a) && awake(b) && !self.cuts.contains(&(a.min(b), a.max(b)))
    }
}

impl Node {
    fn ring(&mut self) {
        for bell in self.bells.iter().filter_map(Weak::upgrade) {
            bell.read.wake();
            bell.write.wake();
        }
    }

    fn hang(&mut self, bell: &Arc<Bell>) {
        if self.bells.len() >= self.sweep_at {
            self.bells.retain(|bell| bell.strong_count() > 0);
            self.sweep_at = 64 + 2 * self.bells.len();
        }
        self.bells.push(Arc::downgrade(bell));
    }
}

struct Wired {
    wires: Wires,
    node: usize,
    inner: MemoryTransport,
}

#[async_trait]
impl Transport for Wired {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        let far = self.wires.lock().at.get(&peer.addr).copied();
        self.wires.see(self.node, What::Dialed);
        if far.is_some_and(|far| self.wires.is_hidden(far) || !self.wires.hear(self.node, far)) {
            sleep(DIAL_LIMIT).await;
            return Err(LinkError::TimedOut);
        }
        let link = self.inner.dial(peer, purpose).await?;
        Ok(self.wires.wire(self.node, far.unwrap_or(self.node), link))
    }

    async fn accept(&self) -> Option<Link> {
        let link = self.inner.accept().await?;
        self.wires.see(self.node, What::Accepted);
        let far = self.wires.lock().at.get(&link.remote).copied();
        Some(self.wires.wire(self.node, far.unwrap_or(self.node), link))
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// One end of a link.
struct Wire {
    inner: Box<dyn Stream>,
    wires: Wires,
    own: usize,
    far: usize,
    lives: [u64; 2],
    bell: Arc<Bell>,
    filter: Option<Filter>,
}

impl Wire {
    fn broken(&self) -> bool {
        self.wires.lives(self.own, self.far) != self.lives || self.filter.as_ref().is_some_and(Filter::killed)
    }

    /// That the other end has closed is heard as little as anything else of one that does not reach this one: the system takes what is written.
    fn heard<T>(&self, done: Poll<io::Result<T>>, taken: T) -> Poll<io::Result<T>> {
        match done {
            Poll::Ready(Err(_)) if !self.wires.hear(self.own, self.far) => Poll::Ready(Ok(taken)),
            done => done,
        }
    }
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.bell.read.register(cx.waker());
        if let Some(filter) = &mut self.filter {
            filter.watch_the_time(cx);
        }
        if self.broken() {
            return reset();
        }
        // What the other end writes meanwhile is held by the system, as far as there is room.
        if !self.wires.hear(self.own, self.far) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.wires.see(self.own, What::Got(buf.filled().len() - before));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.bell.write.register(cx.waker());
        if self.broken() {
            return reset();
        }
        let this = &mut *self;
        let written = match &mut this.filter {
            Some(filter) => filter.poll_write(&mut this.inner, cx, buf),
            None => Pin::new(&mut this.inner).poll_write(cx, buf),
        };
        if let Poll::Ready(Ok(len)) = written {
            self.wires.see(self.own, What::Sent(len));
        }
        self.heard(written, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bell.write.register(cx.waker());
        if self.broken() {
            return reset();
        }
        let this = &mut *self;
        let flushed = match &mut this.filter {
            Some(filter) => filter.poll_flush(&mut this.inner, cx),
            None => Pin::new(&mut this.inner).poll_flush(cx),
        };
        self.heard(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
