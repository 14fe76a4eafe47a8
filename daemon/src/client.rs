//! The command line's end of the admin dialect.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::ToFsName;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::os::unix::uds_local_socket::tokio::Stream;
use phantom_ipc::SYSTEM_SOCKET;
use phantom_ipc::admin::{BadLine, Failure, MAX_REPLY, Reply, Request, Status};
use rustix::process::Uid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::inside;

/// How long an answer may take: the daemon's own limit, and some.
const ANSWER_TIME: Duration = Duration::from_secs(70);

/// Why there is no answer. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon listens on {0}\n  start one with `phantomd` (the first time: `phantom setup`), or name its socket: --daemon SOCKET or PHANTOM_SOCKET"
    )]
    NoDaemon(PathBuf),
    /// Kept in.
    #[error(
        "under phantom-run no daemon can be asked: a program must not learn what else this computer's daemon does, and as whom\n  \
         ask in a terminal outside of it"
    )]
    Inside,
    /// It ended the conversation without a word.
    #[error(
        "the daemon at {0} does not answer\n  under phantom-run no daemon can be asked, ask outside; elsewhere look whether it \
         still runs"
    )]
    Silent(PathBuf),
    /// Not ours.
    #[error("{0} belongs to a daemon of another user\n  ask that user, or run your own `phantomd`")]
    Forbidden(PathBuf),
    /// The socket failed.
    #[error("the daemon at {0} does not answer: {1}")]
    Io(PathBuf, io::Error),
    /// The answer is none.
    #[error("the daemon's answer is not understood: {0}\n  use the `phantom` of the same release")]
    Answer(#[from] BadLine),
    /// The daemon says no.
    #[error("{}{}", .0.message, .0.hint.as_ref().map(|hint| format!("\n  {hint}")).unwrap_or_default())]
    Refused(#[from] Failure),
}

/// A connection to the daemon.
pub struct Client {
    path: PathBuf,
    stream: BufReader<Stream>,
    daemon: u32,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or somebody else's daemon.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused if is_masked(path) => ClientError::Inside,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied
                if inside::is_here() =>
            {
                ClientError::Inside
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(path.to_owned()),
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(path.to_owned()),
            _ => ClientError::Io(path.to_owned(), error),
        };
        let name = path.to_fs_name::<interprocess::local_socket::GenericFilePath>().map_err(failed)?;
        let stream = Stream::connect(name).await.map_err(failed)?;
        // Somebody else could offer a socket in a folder that all may write into.
        let owner = stream.inner().peer_cred().map_err(failed)?.uid();
        if ![0, rustix::process::geteuid().as_raw()].contains(&owner) && !is_system_service(path, owner) {
            return Err(ClientError::Forbidden(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream), daemon: owner })
    }

    /// As whom the daemon runs.
    pub fn daemon(&self) -> Uid {
        Uid::from_raw(self.daemon)
    }

    /// Asks and returns the answer, which has the type that the request names.
    ///
    /// # Errors
    /// When the daemon refuses or the connection breaks.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let line = timeout(ANSWER_TIME, self.exchange(request)).await;
        let line = line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let line = line.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                if inside::is_here() =>
            {
                ClientError::Inside
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                ClientError::Silent(self.path.clone())
            }
            _ => ClientError::Io(self.path.clone(), error),
        })?;
        Ok(Result::from(Reply::<T>::from_line(&line)?)?)
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        // A passphrase may be in it.
        let line = Zeroizing::new(request.to_line().map_err(io::Error::other)?);
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_REPLY).unwrap_or(u64::MAX) + 1;
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).await?;
        if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
    }

    /// [`Request::Status`].
    ///
    /// # Errors
    /// See [`Client::ask`].
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.ask(&Request::Status).await
    }
}

/// Whether that user runs the system's daemon: only root makes folders in /run, and gives one to the service.
fn is_system_service(socket: &Path, uid: u32) -> bool {
    let folder = Path::new(SYSTEM_SOCKET).parent().unwrap_or_else(|| Path::new("/"));
    socket == Path::new(SYSTEM_SOCKET) && fs::metadata(folder).is_ok_and(|about| about.uid() == uid)
}

/// Whether something else than a socket lies there, as phantom-run puts it.
fn is_masked(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_char_device())
}
