//! The local socket: reached by its owner and root only (the system's by every user, for programs), with bounded lines and descriptors beside bytes.

use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interprocess::local_socket::{ListenerOptions, ToFsName, traits::tokio::Listener as _};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::Listener as Named;
use interprocess::os::unix::uds_local_socket::tokio::{Listener as Inner, Stream};
use phantom_ipc::reach::operators_socket;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::beside::{self, Beside};
use super::door::{Door, Visitor};
use super::graves::Grave;
use super::outside::Outside;
use super::places::Place;
use crate::datadir::make_private_dir;
use crate::gate;
use crate::identity::Whose;
use crate::listening::Listening;
use crate::os::{FileId, OwnFile, Owner};
use crate::passed::look;

use crate::control::{IdentityRef, SocketError};

/// Most descriptors that go with one message: two namespaces, and one to spare.
pub const MAX_DESCRIPTORS: usize = 3;

/// The longest path that a socket can have.
const LONGEST: usize = 107;

/// The listening sockets; their files go when this is dropped.
pub struct Listener {
    /// Where the daemon's own user and root come; none where a path is too long for it.
    own: Option<Inner>,
    /// Where all users come, to the system's daemon.
    all: Option<Door>,
    outside: Outside,
    listening: Arc<Listening>,
    files: Vec<OwnFile>,
}

impl Listener {
    /// Binds to `path` with mode 0600, in a folder that is made with mode 0700 when it is missing; the
    /// system's daemon is there for all users: 0666 and 0755, and beside it lies one for its own user, where nobody else stands in the
    /// way. A file left by a daemon that was killed is replaced; one that answers is not. What the process before has left is taken as it
    /// is. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path, listening: &Arc<Listening>) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
            make_private_dir(dir)?;
            if serves_all() {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(dir, mode).map_err(failed)?;
            }
        }
        let (outside, files) = (Outside::here(), Vec::new());
        let mut bound = Self { own: None, all: None, outside, listening: Arc::clone(listening), files };
        if !serves_all() {
            bound.own = Some(bound.bind_own(path)?);
            return Ok(bound);
        }
        let operators = operators_socket(path);
        if operators.as_os_str().len() > LONGEST {
            tracing::warn!("the socket's path is too long for a second one beside it: users can keep root waiting");
        } else {
            bound.own = Some(bound.bind_own(&operators)?);
        }
        let all = bound.bind_at(path, true)?;
        let others = |uid| !may_administer(uid, Owner::own().uid);
        bound.all = Some(Door::open(all, others).map_err(failed)?);
        Ok(bound)
    }

    /// For the daemon's own user and root.
    fn bind_own(&mut self, path: &Path) -> Result<Inner, SocketError> {
        Inner::try_from(Named::from(self.bind_at(path, false)?))
            .map_err(|error| SocketError::Io(path.to_owned(), error))
    }

    fn bind_at(&mut self, path: &Path, for_all: bool) -> Result<UnixListener, SocketError> {
        let failed = |error| SocketError::Io(path.to_owned(), error);
        let made = || -> Result<UnixListener, SocketError> {
            remove_stale(path)?;
            let made = options(path).and_then(|options| options.create_sync_as::<Named>()).map_err(failed)?;
            if for_all {
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
            }
            Ok(UnixListener::from(made))
        };
        let socket = self.listening.local_at(path).map_or_else(made, Ok)?;
        self.files.push(OwnFile::at(path).map_err(failed)?);
        Ok(socket)
    }

    /// Leaves the sockets to the next process: who connects meanwhile waits for it. Those who came and have not been heard.
    pub(in crate::control) fn leave(mut self) -> Vec<Connection> {
        let own = self.own.take().and_then(|own| own.as_fd().try_clone_to_owned().ok()).map(UnixListener::from);
        let (all, came) = self.all.take().and_then(|door| door.leave().ok()).unzip();
        // In the order in which they were bound.
        let ids: Vec<FileId> = self.files.iter().map(OwnFile::id).collect();
        self.listening.leave_local(own.into_iter().chain(all).zip(ids).collect());
        self.files.drain(..).for_each(std::mem::forget);
        came.unwrap_or_default().into_iter().filter_map(|visitor| self.admitted(visitor)).collect()
    }

    /// The next program that connects and is allowed to; others are dropped without a word.
    ///
    /// # Errors
    /// When the system has no descriptors left and the like; waiting a little and calling again is right.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let own = async {
                match &self.own {
                    Some(own) => own.accept().await.map(named),
                    None => std::future::pending().await,
                }
            };
            let visitor = match &mut self.all {
                None => own.await?,
                Some(door) => tokio::select! {
                    accepted = own => accepted?,
                    visitor = door.next() => Ok(visitor),
                },
            };
            // Who has gone already is nobody.
            if let Some(connection) = visitor.ok().and_then(|visitor| self.admitted(visitor)) {
                return Ok(connection);
            }
        }
    }

    fn admitted(&self, (connection, process): Visitor) -> Option<Connection> {
        if !self.outside.holds(connection.stream.inner(), process) {
            // Not worth a line each: who writes the log full is no better off.
            tracing::debug!("a program under phantom-run was refused at the daemon's own socket");
            return None;
        }
        if !serves_all() && !may_administer(connection.peer.uid, Owner::own().uid) {
            tracing::warn!("a program of another user was refused at the local socket");
            return None;
        }
        Some(connection)
    }
}

/// How a socket is made. The mode belongs to it before it has a name: nobody can come in between.
fn options(path: &Path) -> io::Result<ListenerOptions<'_>> {
    let name = path.to_fs_name::<interprocess::local_socket::GenericFilePath>()?;
    Ok(ListenerOptions::new().name(name).reclaim_name(false).mode(0o600))
}

/// Who has connected, as the kernel says it.
fn named(stream: Stream) -> io::Result<Visitor> {
    let peer = stream.inner().peer_cred()?;
    let owner = Owner { uid: peer.uid(), gid: peer.gid() };
    Ok((Connection::new(stream, owner), peer.pid()))
}

/// Removes the socket file of a daemon that is no more.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |error| SocketError::Io(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(failed(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket lies there")));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Whether programs of other users are served: by who can give them namespaces that they may enter, which is root, and the
/// system's service with the capabilities for it.
fn serves_all() -> bool {
    rustix::process::geteuid().is_root() || gate::can_serve_others()
}

/// The daemon's own user and root.
fn may_administer(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// One program at the socket.
pub struct Connection {
    stream: Stream,
    peer: Owner,
    /// Read but not yet taken.
    buffer: Vec<u8>,
    /// Came beside what was read last.
    received: Option<Beside>,
    /// The only one it may speak as, if it came by a socket of that one's.
    only: Option<IdentityRef>,
    /// Dropped after the stream.
    grave: Option<Grave>,
    /// Its user's, who has so many.
    _place: Option<Place>,
    /// What was taken and is not answered, and whether something came beside it.
    held: Option<(Vec<u8>, bool)>,
    /// Whether what was taken, or is being, has something beside it, which cannot be left.
    in_hand: Arc<AtomicBool>,
    /// Another process goes on with it: nothing of it is closed.
    is_left: bool,
    /// Whether it, or another one of its run, has emulated sockets.
    emulates: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_stranger() && !self.is_left {
            self.grave = Grave::of(self.peer.uid, self.stream.inner());
        }
    }
}

impl Connection {
    /// For tests and for streams that come by another way than [`Listener`]; `peer` is who is at the other end.
    pub fn new(stream: impl Into<Stream>, peer: Owner) -> Self {
        Self::of(stream.into(), peer, None, None)
    }

    /// One that came by a socket of that identity's programs.
    pub(in crate::control) fn by_program_socket(
        stream: UnixStream,
        only: IdentityRef,
        emulates: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let mut connection = Self::of(stream.into(), Owner { uid: peer.uid(), gid: peer.gid() }, Some(only), None);
        connection.emulates = emulates;
        Ok(connection)
    }

    /// One that keeps a place of its user's.
    pub(super) fn with_place(stream: UnixStream, peer: Owner, place: Option<Place>) -> Self {
        Self::of(stream.into(), peer, None, place)
    }

    fn of(stream: Stream, peer: Owner, only: Option<IdentityRef>, place: Option<Place>) -> Self {
        // A byte out of turn would be skipped, and what is beside it closed, without having been seen.
        let _ = rustix::net::sockopt::set_socket_oobinline(stream.inner(), true);
        let (buffer, received, grave, held, in_hand, is_left, emulates) = Default::default();
        Self { stream, peer, buffer, received, only, grave, _place: place, held, in_hand, is_left, emulates }
    }

    /// What was taken counts as unread until [`Connection::release`].
    pub(in crate::control) fn hold(&mut self, taken: Vec<u8>, has_beside: bool) {
        self.in_hand.store(has_beside || self.received.is_some(), Ordering::Relaxed);
        self.held = Some((taken, has_beside));
    }

    /// Whether what was taken, or is being, cannot be left.
    pub(in crate::control) fn in_hand(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.in_hand)
    }

    /// What was taken is answered.
    pub(in crate::control) fn release(&mut self) {
        self.in_hand.store(false, Ordering::Relaxed);
        self.held = None;
    }

    /// Its program has emulated sockets, which end with this process.
    pub(in crate::control) fn emulates(&self) {
        self.emulates.store(true, Ordering::Relaxed);
    }

    /// Whether that was so of any of its run.
    pub(in crate::control) fn is_emulating(&self) -> bool {
        self.emulates.load(Ordering::Relaxed)
    }

    /// For another process: the socket, and what is unread. `None`: a descriptor is in hand, whose meaning is lost.
    pub(in crate::control) fn leave(mut self) -> Option<(OwnedFd, Vec<u8>)> {
        let (held, has_beside) = self.held.take().unwrap_or_default();
        if has_beside || self.received.is_some() {
            return None;
        }
        let socket = self.stream.inner().as_fd().try_clone_to_owned().ok()?;
        self.is_left = true;
        Some((socket, [held, std::mem::take(&mut self.buffer)].concat()))
    }

    /// What another process has left.
    pub(in crate::control) fn go_on(
        socket: OwnedFd,
        peer: Owner,
        only: Option<IdentityRef>,
        unread: Vec<u8>,
    ) -> io::Result<Self> {
        let stream = UnixStream::from_std(socket.into())?;
        let mut connection = Self::of(stream.into(), peer, only, None);
        connection.buffer = unread;
        Ok(connection)
    }

    /// The only identity that it may speak as, if it came by a program_socket.
    pub fn only(&self) -> Option<&IdentityRef> {
        self.only.as_ref()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Owner {
        self.peer
    }

    /// Who is to own what this program opens: its user, or the daemon's own, as which root is served by everybody.
    pub fn owner_of_new(&self) -> Owner {
        if self.may_administer() { Owner::own() } else { self.peer }
    }

    /// Whose names it may use; nobody's if it came by a socket for programs, or of a user who is no one person.
    pub(in crate::control) fn whose(&self) -> Option<Whose> {
        match &self.only {
            Some(_) => None,
            None if self.is_stranger() => Whose::of_user(self.peer.uid),
            None => Some(Whose::Operator),
        }
    }

    /// Whether they may ask about the node: the daemon's own user and root may, unless they came by a socket for programs.
    pub fn may_administer(&self) -> bool {
        self.only.is_none() && !self.is_stranger()
    }

    /// Whether it is of a user who may not harm the daemon: neither root nor the daemon's own.
    fn is_stranger(&self) -> bool {
        !may_administer(self.peer.uid, Owner::own().uid)
    }

    /// The first byte of what comes next, without taking it; `None` when the program has closed.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.buffer.is_empty() {
            self.fill(1).await?;
        }
        Ok(self.buffer.first().copied())
    }

    /// Exactly `len` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the program closes before.
    pub async fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            if self.fill(len - self.buffer.len()).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(len);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// One line of at most `limit` bytes, without its end; `None` when the program has closed.
    ///
    /// # Errors
    /// `InvalidData` when the line is longer; `UnexpectedEof` when the program closes within it.
    pub async fn line(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let mut line = self.take(searched + at + 1).await?;
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > limit {
                return Err(io::Error::new(ErrorKind::InvalidData, "line too long"));
            }
            if self.fill(limit + 1 - searched).await? == 0 {
                return if searched == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads what is there, at most `most` bytes; 0 when the program has closed.
    async fn fill(&mut self, most: usize) -> io::Result<usize> {
        // One line or message at a time is what programs send: small reads are no loss.
        let mut bytes = vec![0; most.min(beside::MOST)];
        if self.is_stranger() {
            return self.fill_from_stranger(bytes).await;
        }
        let socket = self.stream.inner();
        let mut received = None;
        let count = socket.async_io(Interest::READABLE, || receive_message(socket, &mut bytes, &mut received)).await?;
        self.buffer.extend_from_slice(&bytes[..count]);
        self.received = received.map(Beside::from).or_else(|| self.received.take());
        Ok(count)
    }

    /// See [`beside`].
    async fn fill_from_stranger(&mut self, mut bytes: Vec<u8>) -> io::Result<usize> {
        let socket = self.stream.inner();
        let (count, has_more) = socket.async_io(Interest::READABLE, || look(socket, &mut bytes)).await?;
        if !has_more {
            // No more than was seen: a descriptor may have come since.
            let (_, count) = rustix::net::recv(socket, &mut bytes[..count], RecvFlags::DONTWAIT)?;
            self.buffer.extend_from_slice(&bytes[..count]);
            return Ok(count);
        }
        if self.received.is_some() {
            return Err(io::Error::new(ErrorKind::InvalidData, "more than one descriptor"));
        }
        // In the middle of this nobody could go on.
        self.in_hand.store(true, Ordering::Relaxed);
        let before = self.held.replace((Vec::new(), true));
        let came = beside::receive(self.peer.uid, socket.as_fd().try_clone_to_owned()?, bytes.len()).await;
        self.held = before;
        let (bytes, received) = came?;
        self.buffer.extend_from_slice(&bytes);
        self.received = received;
        Ok(bytes.len())
    }

    /// The descriptor that came beside the bytes taken last.
    pub fn take_descriptor(&mut self) -> Option<Beside> {
        self.received.take()
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.stream).write_all(bytes).await
    }

    /// Sends bytes and, with the first of them, at most [`MAX_DESCRIPTORS`] descriptors.
    ///
    /// They are closed here before the last bytes go: whoever has all of them is the only owner, so that what it closes
    /// is closed, and a port that it gives up is free.
    ///
    /// # Errors
    /// What the socket says; `InvalidInput` for more descriptors or for no bytes.
    pub async fn send_with(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        if descriptors.is_empty() {
            return self.send(bytes).await;
        }
        if descriptors.len() > MAX_DESCRIPTORS || bytes.is_empty() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let (first, rest) = bytes.split_at(1);
        let socket = self.stream.inner();
        socket.async_io(Interest::WRITABLE, || send_message(socket, first, &descriptors)).await?;
        drop(descriptors);
        self.send(rest).await
    }
}

fn send_message(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads, and keeps the last descriptor that came; further ones are closed.
pub(super) fn receive_message(
    socket: impl AsFd,
    bytes: &mut [u8],
    received: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for beside in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = beside {
            descriptors.for_each(|descriptor| *received = Some(descriptor));
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours, Owner::own()), theirs)
    }

    #[tokio::test]
    async fn the_socket_is_as_private_as_the_daemon_and_goes_with_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/phantom/d.sock");
        let listener = Listener::bind(&path, &Arc::default()).unwrap();
        let (file, folder) = if serves_all() { (0o666, 0o755) } else { (0o600, 0o700) };
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, file);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, folder);
        let own = operators_socket(&path);
        let mode = fs::metadata(&own).map(|about| about.mode() & 0o777).ok();
        assert_eq!(mode, serves_all().then_some(0o600));
        drop(listener);
        assert!(!path.exists() && !own.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_as_long_as_can_be_has_one_socket() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(LONGEST - dir.path().as_os_str().len() - 1);
        let path = dir.path().join(name);
        let mut listener = Listener::bind(&path, &Arc::default()).unwrap();
        let _program = phantom_ipc::reach::reach(&path).unwrap();
        timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_living_daemon_keeps_its_socket_and_a_dead_one_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        // As a killed daemon leaves it: bound, nobody listening.
        drop(UnixListener::bind(&path).unwrap());
        let _living = Listener::bind(&path, &Arc::default()).unwrap();
        assert!(matches!(Listener::bind(&path, &Arc::default()), Err(SocketError::InUse(_))));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(Listener::bind(&file, &Arc::default()).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn only_the_same_user_and_root_may_administer() {
        assert!(may_administer(1000, 1000) && may_administer(0, 1000) && may_administer(0, 0));
        assert!(!may_administer(1001, 1000) && !may_administer(1000, 0));
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_are_bounded() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"one\n\ntwo\n12345678\n123456789\n").await.unwrap();
        assert_eq!(ours.peek().await.unwrap(), Some(b'o'));
        for expected in [&b"one"[..], b"", b"two", b"12345678"] {
            assert_eq!(ours.line(8).await.unwrap().as_deref(), Some(expected));
        }
        assert_eq!(ours.line(8).await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn an_endless_line_is_not_gathered() {
        let (mut ours, mut theirs) = pair();
        let flood = tokio::spawn(async move { while theirs.write_all(&[b'x'; 4096]).await.is_ok() {} });
        assert_eq!(ours.line(100).await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(ours.buffer.len() <= 101);
        drop(ours);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_told_from_a_broken_line() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"whole\nhal").await.unwrap();
        drop(theirs);
        assert!(ours.line(100).await.unwrap().is_some());
        assert_eq!(ours.line(100).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (mut ours, theirs) = pair();
        drop(theirs);
        assert!(ours.line(100).await.unwrap().is_none());
        assert!(ours.peek().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn descriptors_are_closed_here_before_the_last_bytes_go() {
        let (mut ours, mut theirs) = pair();
        let (mut kept, passed) = rustix::pipe::pipe().map(|(read, write)| (fs::File::from(read), write)).unwrap();
        // More than the socket takes at once: the sender is still at it when the pipe has no writer any more.
        let bytes = vec![7; 8 << 20];
        let length = bytes.len();
        let sending = tokio::spawn(async move { ours.send_with(&bytes, vec![passed]).await });
        let end = tokio::spawn(async move {
            // A plain read throws the descriptor away that comes with the first byte.
            theirs.read_exact(&mut [0; 1]).await.unwrap();
            let ended = tokio::task::spawn_blocking(move || kept.read(&mut [0; 1]).unwrap());
            let ended = timeout(Duration::from_secs(60), ended).await;
            let mut rest = vec![0; length - 1];
            theirs.read_exact(&mut rest).await.unwrap();
            ended
        });
        assert_eq!(end.await.unwrap().expect("a second owner is left").unwrap(), 0);
        sending.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn too_many_descriptors_or_no_bytes_are_refused() {
        let (mut ours, _theirs) = pair();
        let descriptors = |n| (0..n).map(|_| fs::File::open("/dev/null").unwrap().into()).collect::<Vec<OwnedFd>>();
        assert!(ours.send_with(b"x", descriptors(MAX_DESCRIPTORS + 1)).await.is_err());
        assert!(ours.send_with(b"", descriptors(1)).await.is_err());
    }
}
