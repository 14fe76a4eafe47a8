//! The link level: an authenticated byte stream between two nodes that looks like a web connection to everybody else.
//!
//! [`Transport`] is what the levels above see. [`TlsTransport`] is the real one, [`MemoryTransport`] its twin without sockets.

mod accept;
mod admission;
mod barred;
mod certificate;
mod clocks;
mod dial;
pub mod face;
pub mod frame;
mod gulp;
mod memory;
mod place;
mod pool;
mod records;
mod scope;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::wire::NodeContact;
pub use phantom_proto::wire::link::Purpose;
use rand::RngExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use admission::Limits;
pub use barred::Barred;
pub use certificate::Certificate;
pub use clocks::Clocks;
pub use face::Face;
pub use memory::{MemoryNetwork, MemoryTransport};
pub use place::Place;
pub use pool::{LinkPool, PoolLimits};
pub(crate) use scope::may_dial;
pub use tls::{LinkConfig, TlsTransport};

/// A bidirectional stream of bytes. What was written leaves at the latest with a flush.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An authenticated link: both nodes have proven their identity keys.
pub struct Link {
    /// The other node's identity key.
    pub peer: VerifyingKey,
    /// Where it is connected from or to.
    pub remote: SocketAddr,
    /// What its dialer wants it for.
    pub purpose: Purpose,
    /// For its dialer: no use of it begins after this time. `None`: the other node dialed it.
    pub retires: Option<Instant>,
    /// The bytes.
    pub stream: Box<dyn Stream>,
}

/// Until when a link that is dialed now is used anew: 10 to 60 minutes, as long as browsers stay on a site, drawn for each, so that
/// those of one burst do not end together.
// protocol: B6
fn retirement() -> Instant {
    Instant::now() + Duration::from_secs(crate::random().random_range(600..=3600))
}

/// The identity without its address, which stays out of logs.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({:?}, {:?})", self.peer, self.purpose)
    }
}

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers there, or the connection broke.
    #[error("node unreachable: {0}")]
    Unreachable(std::io::Error),
    /// A step took too long.
    #[error("timed out")]
    TimedOut,
    /// Whoever answers there does not know us by the secret that we have: another web server, or a node with a newer record.
    #[error("not the node: {0}")]
    NotTheNode(&'static str),
    /// A node that knows the secret breaks the protocol, or is another one than we dialed.
    #[error("the node misbehaved: {0}")]
    Misbehaved(&'static str),
    /// Maintainers have banned it.
    #[error("refused: the node is banned")]
    Banned,
    /// The address is of a network that this node must not be sent into.
    #[error("refused: the address is not one of the network's")]
    Refused,
    /// This side cannot.
    #[error("{0}")]
    Local(String),
}

/// Opens and accepts links.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Opens a link to `peer`; every step of it has a time limit.
    ///
    /// Success means that the other side proved its identity. It may still turn this side away, for which it gives no
    /// reason: the link then ends before anything arrives on it.
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError>;
    /// The next link of a node that proved membership and identity. `None`: closed.
    async fn accept(&self) -> Option<Link>;
    /// Where links are accepted.
    fn local_addr(&self) -> SocketAddr;
    /// Stops listening and ends handshakes; when it returns, the address is free. Links that stand go on.
    async fn close(&self);
}
