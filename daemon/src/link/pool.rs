//! Warm links: opening a tunnel must not wait for a TLS handshake, nor show one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use phantom_proto::ident::NodeId;
use phantom_proto::wire::NodeContact;
use tokio::time::Instant;

use super::frame::{LinkReader, LinkWriter};
use super::{LinkError, Purpose, Transport};

/// Idle links kept per node: what a burst of tunnels takes before new ones are dialed.
const PER_PEER: usize = 4;

/// Idle links that are opened ahead for a node that is in use.
const WARM: usize = 2;

/// Idle links kept in total; each costs about 50 KiB and a descriptor.
const TOTAL: usize = 512;

/// How long a link may stay idle: below the acceptor's limit.
const MAX_IDLE: Duration = Duration::from_secs(90);

struct Idle {
    reader: LinkReader,
    writer: LinkWriter,
    since: Instant,
}

/// Opens links for frames, and keeps some open for the next use.
pub struct LinkPool {
    transport: Arc<dyn Transport>,
    idle: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    links: BTreeMap<NodeId, VecDeque<Idle>>,
    /// Dials under way to warm a node.
    warming: BTreeMap<NodeId, usize>,
}

impl LinkPool {
    /// A pool over a transport.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, idle: Mutex::default() }
    }

    /// A link to `peer`: a warm one if there is one that still stands, else a new one.
    pub async fn take(&self, peer: &NodeContact) -> Result<(LinkReader, LinkWriter), LinkError> {
        if let Some(link) = self.warm_link(peer.node_id()) {
            return Ok(link);
        }
        Ok(self.transport.dial(peer, Purpose::Frames).await?.into_frames())
    }

    /// As [`LinkPool::take`], and opens links ahead for the next call.
    pub async fn take_and_warm(self: &Arc<Self>, peer: &NodeContact) -> Result<(LinkReader, LinkWriter), LinkError> {
        let link = self.take(peer).await;
        if link.is_ok() {
            self.warm(peer);
        }
        link
    }

    /// Keeps a link that did its work and has nothing in flight.
    pub fn give_back(&self, reader: LinkReader, writer: LinkWriter) {
        if reader.is_drained() {
            self.keep(Idle { reader, writer, since: Instant::now() });
        }
    }

    fn warm_link(&self, peer: NodeId) -> Option<(LinkReader, LinkWriter)> {
        let mut table = self.lock();
        let links = table.links.get_mut(&peer)?;
        while let Some(mut idle) = links.pop_back() {
            // Nothing may arrive on an idle link, not even its end.
            if idle.since.elapsed() < MAX_IDLE && idle.reader.read().now_or_never().is_none() {
                return Some((idle.reader, idle.writer));
            }
        }
        table.links.remove(&peer);
        None
    }

    fn warm(self: &Arc<Self>, peer: &NodeContact) {
        let id = peer.node_id();
        {
            let mut table = self.lock();
            let ready = table.links.get(&id).map_or(0, VecDeque::len);
            let warming = table.warming.entry(id).or_default();
            if ready + *warming >= WARM {
                return;
            }
            *warming += 1;
        }
        let (pool, peer) = (self.clone(), peer.clone());
        tokio::spawn(async move {
            let link = pool.transport.dial(&peer, Purpose::Frames).await;
            pool.warmed(id);
            if let Ok(link) = link {
                let (reader, writer) = link.into_frames();
                pool.give_back(reader, writer);
            }
        });
    }

    fn warmed(&self, id: NodeId) {
        let mut table = self.lock();
        if let Some(warming) = table.warming.get_mut(&id) {
            *warming -= 1;
            if *warming == 0 {
                table.warming.remove(&id);
            }
        }
    }

    fn keep(&self, idle: Idle) {
        let mut table = self.lock();
        if table.links.values().map(VecDeque::len).sum::<usize>() >= TOTAL {
            table.links.retain(|_, links| {
                links.retain(|idle| idle.since.elapsed() < MAX_IDLE);
                !links.is_empty()
            });
        }
        if table.links.values().map(VecDeque::len).sum::<usize>() >= TOTAL {
            return;
        }
        let links = table.links.entry(NodeId::of(&idle.reader.peer())).or_default();
        if links.len() >= PER_PEER {
            links.pop_front();
        }
        links.push_back(idle);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
