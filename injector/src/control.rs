//! Asks the daemon for a session: the identity's address, and the descriptors of its phantom namespace.
//!
//! The connection is the session: as long as it is open, the daemon keeps the identity's gate.

use std::env;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::isolate::Namespaces;

/// Where the system's daemon listens.
const SYSTEM_SOCKET: &str = "/run/phantom/daemon.sock";

/// A gate may have to be made first, which takes milliseconds, and paths for a fresh identity are not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest message either way, in bytes.
const MAX_MESSAGE: usize = 1_024;

/// Request: enter the phantom namespace of an identity.
const ENTER: u8 = 1;

/// What the daemon gives.
pub(crate) struct Session {
    /// To be held open until the last descendant is gone.
    pub(crate) connection: OwnedFd,
    pub(crate) spaces: Namespaces,
    /// Name of the identity, or the token of a fresh one: what a hook names to share this session.
    pub(crate) identity: String,
    /// Who the program is, for people.
    pub(crate) who: String,
}

/// The user's own daemon if there is one, else the system's.
pub(crate) fn default_socket() -> PathBuf {
    let own = env::var_os("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("phantom/daemon.sock"));
    own.filter(|path| path.exists()).unwrap_or_else(|| SYSTEM_SOCKET.into())
}

/// Opens a session, for the named identity or a fresh one.
pub(crate) fn enter(socket: &Path, identity: Option<&str>) -> Result<Session> {
    let mut connection = UnixStream::connect(socket).with_context(|| {
        format!(
            "no daemon answers at {}. Start it with `phantomd` (or as root: systemctl start phantomd), or name its \
             socket with --daemon",
            socket.display()
        )
    })?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut request = vec![ENTER];
    request.extend(identity.unwrap_or_default().as_bytes());
    if request.len() > MAX_MESSAGE {
        bail!("the identity's name is too long");
    }
    connection.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    connection.write_all(&request)?;
    let (reply, descriptors) = receive(&connection).context("the daemon broke the conversation off")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (address, name) = match reply.split_first() {
        Some((0, rest)) => rest.split_first_chunk::<16>().context("the daemon's answer is of another version")?,
        Some((_, why)) => bail!("the daemon refused: {}", text(why)),
        None => bail!("the daemon's answer is empty"),
    };
    let mut descriptors = descriptors.into_iter();
    let network = descriptors.next().context("the daemon gave no namespace")?;
    let name = text(name);
    Ok(Session {
        connection: connection.into(),
        spaces: Namespaces { network, user: descriptors.next() },
        who: format!("{} ({name})", Ipv6Addr::from(*address)),
        identity: name,
    })
}

/// One message: four bytes of length, then as many bytes; descriptors come with the first.
fn receive(connection: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut received = Vec::new();
    loop {
        let wanted = match received.first_chunk::<4>() {
            Some(length) => 4 + u32::from_be_bytes(*length) as usize,
            None => 4,
        };
        if wanted > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if received.len() >= wanted && wanted > 4 {
            return Ok((received.split_off(4), descriptors));
        }
        let mut buffer = vec![0; wanted - received.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let length = recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = part {
                descriptors.extend(passed);
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend(&buffer[..length]);
    }
}
