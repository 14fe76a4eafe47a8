//! The far end, as those see it who serve programs: a stream that leads there, why there is none, what a name means.

mod found;
mod parking;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use phantom_proto::ident::ApAddress;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

pub use found::{Found, Unanswered};
pub use parking::{Parked, Parking};

/// The kernel gives a SYN up after 127 s; the far end gets no longer.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(130);

/// What a connection through the network looks like: shutdown is a half-close, dropping before both directions have ended
/// is a reset, and the read error `ConnectionReset` is a reset by the far end. After the far end's half-close another read
/// either says the end again, or waits until both directions have ended or the far end resets.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Where the program's connection is left when this process hands over, if the stream outlives it. Whoever asks for one has
    /// stopped writing, and whoever leaves it takes what there is to read with it.
    fn parking(&self) -> Option<Arc<Parking>> {
        None
    }
}

impl Stream for DuplexStream {}

/// Why a connection did not come about; becomes the program's errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens on the port (ECONNREFUSED).
    #[error("connection refused")]
    Refused,
    /// The address leads nowhere (EHOSTUNREACH).
    #[error("no way to the address")]
    Unreachable,
    /// Whether the address leads anywhere could not be found out: too few nodes of the database answered (EHOSTUNREACH).
    #[error("the network database is not sure whether anybody has that address")]
    Unsure,
    /// No answer in time (ETIMEDOUT, when the program's kernel has lost patience).
    #[error("no answer in time")]
    TimedOut,
    /// Policy forbids it (EACCES).
    #[error("forbidden by policy")]
    Prohibited,
}

/// What those who serve programs need from the rest of the daemon.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Opens a connection from the identity `from` to an AP address; resolves when the far end has answered.
    async fn connect(
        &self,
        from: ApAddress,
        source_port: u16,
        destination: ApAddress,
        port: u16,
    ) -> Result<Box<dyn Stream>, ConnectError>;

    /// The address behind a name (lower case, no trailing dot), if it has one.
    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered>;

    /// A program has tried an address that is none of this network, and was refused. Comes as often as programs try, at most.
    async fn refused(&self, address: IpAddr);

    /// The name of an address, if there is one.
    async fn name_of(&self, address: ApAddress) -> Option<String>;
}
