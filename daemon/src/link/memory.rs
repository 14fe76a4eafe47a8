//! Links in memory: the twin of the TLS transport for tests and simulation of the levels above.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::hash::same;
use phantom_proto::wire::NodeContact;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::tls::BACKLOG;
use super::{Link, LinkError, Purpose, Transport};

/// Bytes in flight per direction of a link: about what a socket holds at first.
const BUFFER: usize = 64 * 1024;

struct Listener {
    contact: NodeContact,
    link_tx: mpsc::Sender<Link>,
}

/// The network that memory transports of one simulation share.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<BTreeMap<SocketAddr, Listener>>>,
    /// Where nobody is let in.
    hidden: Arc<Mutex<BTreeSet<SocketAddr>>>,
    /// How long opening a link takes.
    latency: Duration,
}

impl MemoryNetwork {
    /// A network on which opening a link takes this long.
    pub fn with_latency(latency: Duration) -> Self {
        Self { latency, ..Self::default() }
    }

    /// Joins the network as `contact`; who had its address before is no longer reached, like a node that was stopped.
    pub fn join(&self, contact: NodeContact) -> MemoryTransport {
        let (link_tx, link_rx) = mpsc::channel(BACKLOG);
        self.lock().insert(contact.addr, Listener { contact: contact.clone(), link_tx: link_tx.clone() });
        MemoryTransport {
            network: self.clone(),
            own: contact,
            link_tx: link_tx.downgrade(),
            link_rx: AsyncMutex::new(link_rx),
        }
    }

    /// From now on links to this address do not come about, as to a computer behind a router; or do again.
    pub fn hide(&self, at: SocketAddr, is_hidden: bool) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if is_hidden {
            hidden.insert(at)
        } else {
            hidden.remove(&at)
        };
    }

    fn is_hidden(&self, at: SocketAddr) -> bool {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner).contains(&at)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where links to `peer` go, if it is there and is who it should be.
    fn listener(&self, peer: &NodeContact) -> Result<mpsc::Sender<Link>, LinkError> {
        if self.is_hidden(peer.addr) {
            return Err(LinkError::TimedOut);
        }
        let listeners = self.lock();
        let listener = listeners.get(&peer.addr).ok_or_else(refused)?;
        if !same(&listener.contact.link_secret, &peer.link_secret) {
            return Err(LinkError::NotTheNode("it answers as a web server"));
        }
        if listener.contact.identity != peer.identity {
            return Err(LinkError::Misbehaved("it has another identity key"));
        }
        Ok(listener.link_tx.clone())
    }
}

/// One node's links in a [`MemoryNetwork`]. Dropping it stops listening.
pub struct MemoryTransport {
    network: MemoryNetwork,
    own: NodeContact,
    /// Tells our entry in the network from a successor's at the same address.
    link_tx: mpsc::WeakSender<Link>,
    link_rx: AsyncMutex<mpsc::Receiver<Link>>,
}

impl MemoryTransport {
    fn leave(&self) {
        let mut listeners = self.network.lock();
        let own = listeners.get(&self.own.addr).zip(self.link_tx.upgrade());
        if own.is_some_and(|(listener, link_tx)| listener.link_tx.same_channel(&link_tx)) {
            listeners.remove(&self.own.addr);
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError> {
        tokio::time::sleep(self.network.latency).await;
        let link_tx = self.network.listener(peer)?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let link = |peer, remote, stream, retires| Link { peer, remote, purpose, retires, stream: Box::new(stream) };
        match link_tx.try_send(link(self.own.identity, self.own.addr, theirs, None)) {
            // A full queue drops the link after the dialer's last step, which therefore succeeds.
            Ok(()) | Err(TrySendError::Full(_)) => Ok(link(peer.identity, peer.addr, ours, Some(super::retirement()))),
            Err(TrySendError::Closed(_)) => Err(refused()),
        }
    }

    async fn accept(&self) -> Option<Link> {
        self.link_rx.lock().await.recv().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.own.addr
    }

    async fn close(&self) {
        self.leave();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.leave();
    }
}

fn refused() -> LinkError {
    LinkError::Unreachable(std::io::ErrorKind::ConnectionRefused.into())
}
