//! The link level: an authenticated byte stream between two nodes that looks like a web connection to everybody else.
//!
//! [`Transport`] is what the levels above see. [`TlsTransport`] is the real one, [`MemoryTransport`] its twin without sockets.

mod accept;
mod dial;
pub mod face;
pub mod frame;
mod memory;
mod pool;
mod tls;

use std::net::SocketAddr;

use async_trait::async_trait;
use phantom_proto::crypto::VerifyingKey;
use phantom_proto::wire::NodeContact;
pub use phantom_proto::wire::link::Purpose;
use tokio::io::{AsyncRead, AsyncWrite};

pub use face::Face;
pub use memory::{MemoryNetwork, MemoryTransport};
pub use pool::LinkPool;
pub use tls::{Certificate, Limits, LinkConfig, TlsTransport};

/// A bidirectional stream of bytes.
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
    /// The bytes.
    pub stream: Box<dyn Stream>,
}

impl Link {
    /// The link as frames.
    pub fn into_frames(self) -> (frame::LinkReader, frame::LinkWriter) {
        frame::split(self.peer, self.stream)
    }
}

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answers there.
    #[error("node unreachable: {0}")]
    Unreachable(std::io::Error),
    /// A step took too long.
    #[error("timed out")]
    TimedOut,
    /// Whoever answers is not the node that we want.
    #[error("not the node: {0}")]
    NotTheNode(&'static str),
    /// This side cannot.
    #[error("{0}")]
    Local(String),
}

/// Opens and accepts links.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Opens a link to `peer`.
    async fn dial(&self, peer: &NodeContact, purpose: Purpose) -> Result<Link, LinkError>;
    /// The next link of a node that proved membership and identity. `None`: closed.
    async fn accept(&self) -> Option<Link>;
    /// Where links are accepted.
    fn local_addr(&self) -> SocketAddr;
    /// Stops accepting.
    async fn close(&self);
}
