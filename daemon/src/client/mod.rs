//! The command line's end of the admin dialect.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use phantom_ipc::absent::Absence;
use phantom_ipc::admin::{BadLine, Failure, MAX_REPLY, Reply, Request, Status};
use phantom_ipc::inside;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::os::Owner;
#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

/// How long an answer may take: the daemon's own limit, and some.
const ANSWER_TIME: Duration = Duration::from_secs(70);

/// Why there is no answer. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none to ask.
    #[error(transparent)]
    Absent(#[from] Absence),
    /// It ended the conversation without a word.
    #[error("the daemon at {0} ends the conversation without a word\n  look whether it still runs, and ask again")]
    Silent(PathBuf),
    /// It says nothing.
    #[error("the daemon at {0} takes connections, and has said nothing for {seconds} seconds: is it stopped?", seconds = ANSWER_TIME.as_secs())]
    TimedOut(PathBuf),
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
    daemon: Owner,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or somebody else's daemon.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |error: io::Error| match Absence::of(&error, path, here::is_masked(path)) {
            Some(absence) => absence.into(),
            None => ClientError::Io(path.to_owned(), error),
        };
        // Somebody else could offer something in a place that all may write into.
        let (stream, owner) =
            here::connect(path).await.map_err(failed)?.ok_or_else(|| Absence::NotYours(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream), daemon: owner })
    }

    /// Over a stream that a test has.
    #[cfg(unix)]
    #[cfg(test)]
    pub(crate) fn over(stream: tokio::net::UnixStream) -> Self {
        let stream = BufReader::new(Stream::UdSocket(stream.into()));
        Self { path: PathBuf::new(), stream, daemon: Owner::own() }
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.path
    }

    /// As whom the daemon runs.
    pub fn daemon(&self) -> Owner {
        self.daemon
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
                Absence::Inside.into()
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                ClientError::Silent(self.path.clone())
            }
            io::ErrorKind::TimedOut => ClientError::TimedOut(self.path.clone()),
            _ => ClientError::Io(self.path.clone(), error),
        })?;
        Ok(Result::from(Reply::<T>::from_line(&line)?)?)
    }

    /// Waits until the daemon ends the conversation, in which nothing more is asked, however long it says nothing. Returns how it did.
    pub async fn ended(&mut self) -> ClientError {
        loop {
            match self.stream.fill_buf().await {
                Ok([]) => return ClientError::Silent(self.path.clone()),
                // An answer that nobody waits for any more.
                Ok(late) => {
                    let length = late.len();
                    self.stream.consume(length);
                }
                Err(error) => return ClientError::Io(self.path.clone(), error),
            }
        }
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
