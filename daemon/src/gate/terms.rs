//! What a gate is made of, what it needs from the rest of the daemon, and why there is none.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use phantom_proto::ident::ApAddress;
use tokio::io::{AsyncRead, AsyncWrite};

use super::dns::{Found, Unanswered};

/// What a connection through the network looks like: shutdown is a half-close, dropping before both directions have ended
/// is a reset, and the read error `ConnectionReset` is a reset by the far end. After the far end's half-close another read
/// either says the end again, or waits until both directions have ended or the far end resets.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

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

/// What the gate needs from the rest of the daemon.
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

/// A user, and their group: who may enter a phantom namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Who this process is.
    pub fn own() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// What a gate is made of.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// The identity's address.
    pub address: ApAddress,
    /// Whose programs may enter it. Another user than our own takes root, or [`super::can_serve_others`].
    pub owner: Owner,
    /// Executable that becomes the helper: the daemon itself.
    pub helper: PathBuf,
    /// Its arguments: [`super::HELPER_ARGUMENT`].
    pub helper_arguments: Vec<OsString>,
}

impl GateConfig {
    /// The gate of `address` for our own user, its helper being the executable at `helper`.
    pub fn new(address: ApAddress, helper: PathBuf) -> Self {
        Self { address, owner: Owner::own(), helper, helper_arguments: vec![super::HELPER_ARGUMENT.into()] }
    }
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The helper could not be started.
    #[error("starting the namespace helper {0}: {1}")]
    Helper(PathBuf, io::Error),
    /// It could not make the namespaces; the text says what was not permitted and what to do.
    #[error("{0}")]
    SetUp(String),
    /// The helper or the wire broke.
    #[error("setting the gate up: {0}")]
    Io(#[from] io::Error),
}
