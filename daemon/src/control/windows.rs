//! The local socket on Windows: a named pipe that its user alone may open. Nothing goes beside bytes.
//!
//! ```text
//!  file in the user's profile ── says name and greeting ──> client ── compares ──> speaks first, as on Unix
//!             ^                                               ^
//!  daemon ────┘ chance, anew at each start                    └── greeting ── daemon
//! ```
//! Pipes of all users have their names in one place, and whoever is first has one. Nobody guesses this name, and nobody but
//! the daemon knows the greeting: who is not greeted says nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use interprocess::local_socket::tokio::{Listener as Inner, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::windows::local_socket::ListenerOptionsExt;
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use phantom_ipc::hook::IdentityRef;
use phantom_ipc::pipe::Pipe;
use rand::Rng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use widestring::u16cstr;

use super::{Owner, SocketError};
use crate::datadir::{make_private_dir, write_private};
use crate::identity::Whose;
use crate::listening::Listening;

/// What would go beside bytes, if anything did.
pub enum Descriptor {}

/// See [`Descriptor`].
pub enum Beside {}

/// What is expected to come, where anything does.
pub enum Kind {
    /// A local socket that listens.
    Listening,
}

/// See [`Descriptor`].
pub(super) enum Grave {}

impl Grave {
    /// See [`Descriptor`].
    pub(super) fn for_any(_: u32, descriptor: Descriptor) -> Self {
        match descriptor {}
    }

    /// See [`Descriptor`].
    pub(super) fn take(self) -> Option<Descriptor> {
        match self {}
    }
}

impl From<Descriptor> for Beside {
    fn from(descriptor: Descriptor) -> Self {
        match descriptor {}
    }
}

impl Beside {
    /// See [`Descriptor`].
    pub async fn take(self, _: Kind) -> Option<Descriptor> {
        match self {}
    }
}

/// The listening pipe; the file that leads to it goes when this is dropped.
pub struct Listener {
    inner: Inner,
    greeting: [u8; Pipe::GREETING],
    file: PathBuf,
}

impl Listener {
    /// Nothing outlives a daemon here.
    pub(in crate::control) fn leave(self) -> Vec<Connection> {
        Vec::new()
    }

    /// Offers a pipe and writes what leads to it into the file `path`, in a folder that is made when it is missing. A file
    /// left by a daemon that was killed is replaced; one to a pipe that is open is not. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path, _: &Arc<Listening>) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
            make_private_dir(dir)?;
        }
        if fs::read_to_string(path).ok().and_then(|text| Pipe::parse(&text)).is_some_and(|pipe| is_open(&pipe)) {
            return Err(SocketError::InUse(path.to_owned()));
        }
        let (mut name, mut greeting) = ([0; Pipe::NAME], [0; Pipe::GREETING]);
        let mut rng = crate::random();
        rng.fill_bytes(&mut name);
        rng.fill_bytes(&mut greeting);
        let pipe = Pipe::new(name, greeting);
        // Everything to the owner, and nothing to anybody else, administrators too.
        let owners = SecurityDescriptor::deserialize(u16cstr!("D:P(A;;GA;;;OW)")).map_err(failed)?;
        let at = pipe.path().to_fs_name::<GenericFilePath>().map_err(failed)?;
        let inner = ListenerOptions::new().name(at).security_descriptor(owners).create_tokio().map_err(failed)?;
        write_private(path, pipe.to_text().as_bytes()).map_err(failed)?;
        Ok(Self { inner, greeting, file: path.to_owned() })
    }

    /// The next program that connects. It is greeted when something is first asked of the connection: who waits here for other
    /// things too would lose a program that was just being greeted.
    ///
    /// # Errors
    /// When the system has no handles left and the like; waiting a little and calling again is right.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        let stream = self.inner.accept().await?;
        Ok(Connection { stream: BufReader::new(stream), greeting: Some(self.greeting) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Whether somebody offers that pipe.
fn is_open(pipe: &Pipe) -> bool {
    fs::File::open(pipe.path()).err().is_none_or(|error| error.kind() != ErrorKind::NotFound)
}

/// One program at the pipe: of the daemon's own user, as all that can open it.
pub struct Connection {
    stream: BufReader<Stream>,
    /// What is still to be said first.
    greeting: Option<[u8; Pipe::GREETING]>,
}

/// Nothing outlives a daemon here.
impl Connection {
    pub(super) fn hold(&mut self, _: Vec<u8>, _: bool) {}

    pub(super) fn in_hand(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    pub(super) fn release(&mut self) {}

    pub(super) fn emulates(&self) {}

    pub(super) fn is_emulating(&self) -> bool {
        false
    }

    pub(super) fn leave(self) -> Option<(Descriptor, Vec<u8>)> {
        None
    }

    pub(super) fn go_on(socket: Descriptor, _: Owner, _: Option<IdentityRef>, _: Vec<u8>) -> io::Result<Self> {
        match socket {}
    }
}

impl Connection {
    /// The only identity that it may speak as: none comes by a socket for programs.
    pub fn only(&self) -> Option<&IdentityRef> {
        None
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Owner {
        Owner::own()
    }

    /// Who is to own what this program opens.
    pub fn owner_of_new(&self) -> Owner {
        Owner::own()
    }

    /// Whose names it may use.
    pub(super) fn whose(&self) -> Option<Whose> {
        Some(Whose::Operator)
    }

    /// Whether they may ask about the node and use its named identities.
    pub fn may_administer(&self) -> bool {
        true
    }

    /// The first byte of what comes next, without taking it; `None` when the program has closed.
    ///
    /// # Errors
    /// What the pipe says.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        if let Some(greeting) = self.greeting.take() {
            self.send(&greeting).await?;
        }
        match self.stream.fill_buf().await {
            Ok(there) => Ok(there.first().copied()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Exactly `len` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the program closes before.
    pub async fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// One line of at most `limit` bytes, without its end; `None` when the program has closed.
    ///
    /// # Errors
    /// `InvalidData` when the line is longer; `UnexpectedEof` when the program closes within it.
    pub async fn line(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        if self.peek().await?.is_none() {
            return Ok(None);
        }
        let (mut line, most) = (Vec::new(), u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1));
        (&mut self.stream).take(most).read_until(b'\n', &mut line).await?;
        match line.pop() {
            Some(b'\n') => Ok(Some(line)),
            _ if line.len() >= limit => Err(io::Error::new(ErrorKind::InvalidData, "line too long")),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// None.
    pub fn take_descriptor(&mut self) -> Option<Beside> {
        None
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the pipe says.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the pipe says.
    pub async fn send_with(&mut self, bytes: &[u8], _: Vec<Descriptor>) -> io::Result<()> {
        self.send(bytes).await
    }
}

/// How many listening sockets a run may pass.
pub(super) const MAX_OF_RUN: usize = 0;

/// Sockets for programs, which cannot be passed here.
pub(super) struct ProgramSockets {
    /// Nobody comes by one; who waits for that waits for ever.
    _came: mpsc::Sender<Connection>,
}

/// See [`ProgramSockets`].
pub(super) enum ProgramSocket {}

impl ProgramSocket {
    pub(super) fn another(&self) -> Option<Descriptor> {
        match *self {}
    }

    pub(super) fn spare(&self) {
        match *self {}
    }

    pub(super) fn is_emulating(&self) -> bool {
        match *self {}
    }
}

/// See [`ProgramSockets`].
pub(super) struct Ending;

impl ProgramSockets {
    pub(super) fn new() -> (Self, mpsc::Receiver<Connection>) {
        let (came, arriving) = mpsc::channel(1);
        (Self { _came: came }, arriving)
    }

    pub(super) fn ending(&self) -> Ending {
        Ending
    }

    pub(super) async fn end(&self) {}

    pub(super) fn open(&self, listening: Descriptor, _: &IdentityRef, _: &Connection) -> io::Result<ProgramSocket> {
        match listening {}
    }
}
