//! Links in memory: the twin of the TLS transport for tests and simulation of the levels above.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::crypto::hash::same;
use phantom_proto::wire::NodeContact;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::{Link, LinkError, Purpose, Transport};

/// Bytes in flight per direction of a link.
const BUFFER: usize = 256 * 1024;

/// Accepted links that may wait, as for the TLS transport.
const BACKLOG: usize = 256;

struct Listener {
    contact: NodeContact,
    link_tx: mpsc::Sender<Link>,
}

/// The network that memory transports of one simulation share.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<BTreeMap<SocketAddr, Listener>>>,
    /// How long opening a link takes.
    latency: Duration,
}

impl MemoryNetwork {
    /// A network on which opening a link takes this long.
    pub fn with_latency(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    /// Joins the network as `contact`.
    pub fn join(&self, contact: NodeContact) -> MemoryTransport {
        let (link_tx, link_rx) = mpsc::channel(BACKLOG);
        self.lock().insert(contact.addr, Listener { contact: contact.clone(), link_tx });
        MemoryTransport { network: self.clone(), own: contact, link_rx: AsyncMutex::new(link_rx) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self, peer: &NodeContact) -> Result<(VerifyingKey, mpsc::Sender<Link>), LinkError> {
        let listeners = self.lock();
        let refused = || LinkError::Unreachable(std::io::ErrorKind::ConnectionRefused.into());
        let listener = listeners.get(&peer.addr).ok_or_else(refused)?;
        if !same(&listener.contact.link_secret, &peer.link_secret) {
            return Err(LinkError::NotTheNode("it answers like a web server"));
        }
        if listener.contact.identity != peer.identity {
            return Err(LinkError::NotTheNode("it has another identity key"));
        }
        Ok((listener.contact.identity, listener.link_tx.clone()))
    }
}

/// One node's links in a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    own: NodeContact,
    link_rx: AsyncMutex<mpsc::Receiver<Link>>,
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        tokio::time::sleep(self.network.latency).await;
        let (identity, link_tx) = self.network.listener(peer)?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let link = |peer, remote, stream| Link { peer, remote, purpose, stream: Box::new(stream) };
        link_tx
            .try_send(link(self.own.identity, self.own.addr, theirs))
            .map_err(|_| LinkError::Unreachable(std::io::ErrorKind::ConnectionRefused.into()))?;
        Ok(link(identity, peer.addr, ours))
    }

    async fn accept(&self) -> Option<Link> {
        self.link_rx.lock().await.recv().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.own.addr
    }

    async fn close(&self) {
        self.network.lock().remove(&self.own.addr);
    }
}
