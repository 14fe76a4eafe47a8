//! Asks the daemon for a session: the identity's address, and the descriptors of its phantom namespace.
//!
//! The connection is the session: as long as it is open, the daemon keeps the identity's gate.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{IdentityRef, MAX_FRAME, PREAMBLE, Reply, Request, split_frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::isolate::Namespaces;

/// A gate may have to be made first, which takes milliseconds; paths of a fresh identity are not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Descriptors beside an answer: the network namespace, and the user namespace that owns it.
const MAX_DESCRIPTORS: usize = 2;

/// Both are of one release, or one of them says so.
const NONSENSE: &str = "the daemon's answer makes no sense: is it of another version?";

/// What the daemon gives.
pub(crate) struct Session {
    /// To be held open until the last descendant is gone.
    pub(crate) connection: OwnedFd,
    /// What the program is to enter, if it is to.
    pub(crate) spaces: Option<Namespaces>,
    /// Who the program is, for people.
    pub(crate) who: String,
}

/// The identity of that name, or a fresh one that nobody can link to another run.
pub(crate) fn identity(name: Option<&str>) -> Result<IdentityRef> {
    if let Some(name) = name {
        return Ok(IdentityRef::Named(name.to_owned()));
    }
    let mut token = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut token)).context("reading /dev/urandom")?;
    Ok(IdentityRef::Session(token))
}

/// Opens a session of the daemon at `socket`, with its namespaces.
pub(crate) fn enter(socket: &Path, identity: &IdentityRef) -> Result<Session> {
    let (connection, reply, descriptors) = ask(socket, &Request::Enter { identity: identity.clone() })?;
    let (address, name) = match reply {
        Reply::Entered { address, name, .. } => (Ipv6Addr::from(address), name),
        Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
        _ => bail!(NONSENSE),
    };
    let mut descriptors = descriptors.into_iter();
    let network = descriptors.next().context("the daemon gave no namespace")?;
    let spaces = Namespaces { network, user: descriptors.next() };
    Ok(Session { connection: connection.into(), spaces: Some(spaces), who: format!("{address} ({name})") })
}

/// Opens a session of the daemon at `socket` without namespaces.
pub(crate) fn hold(socket: &Path, identity: &IdentityRef) -> Result<Session> {
    let (connection, reply, _) = ask(socket, &Request::Hold { identity: identity.clone() })?;
    match reply {
        Reply::Info { address, name, .. } => {
            let who = format!("{} ({name})", Ipv6Addr::from(address));
            Ok(Session { connection: connection.into(), spaces: None, who })
        }
        Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
        _ => bail!(NONSENSE),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<(UnixStream, Reply, Vec<OwnedFd>)> {
    let mut connection = UnixStream::connect(socket).with_context(|| {
        format!(
            "no daemon answers at {}. Start it with `phantomd` (or as root: systemctl start phantomd), or name its \
             socket with --daemon",
            socket.display()
        )
    })?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let request = request.encode().context("the identity's name is not valid")?;
    connection.write_all(&[&PREAMBLE[..], &request].concat())?;
    let (reply, descriptors) = receive(&connection).context("the daemon broke the conversation off")?;
    Ok((connection, reply, descriptors))
}

/// One reply, and as many descriptors as it says.
fn receive(connection: &UnixStream) -> Result<(Reply, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut received = Vec::new();
    loop {
        if let Some((body, _)) = split_frame(&received)? {
            let reply = Reply::decode(body)?;
            if reply.descriptors() != descriptors.len() {
                bail!("descriptors are missing");
            }
            return Ok((reply, descriptors));
        }
        let mut buffer = [0; MAX_FRAME];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let length =
            rustix::io::retry_on_intr(|| recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?.bytes;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = part {
                descriptors.extend(passed);
            }
        }
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend(&buffer[..length]);
    }
}
