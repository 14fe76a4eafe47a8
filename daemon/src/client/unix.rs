//! Unix: a socket, of which the kernel tells whose daemon is behind it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use interprocess::local_socket::tokio::Stream;
use phantom_ipc::SYSTEM_SOCKET;
use phantom_ipc::reach::reach;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;

use crate::os::Owner;

/// Connects; none when it is the daemon of a user whom this one has no reason to believe.
pub(super) async fn connect(path: &Path) -> io::Result<Option<(Stream, Owner)>> {
    let place = path.to_owned();
    // In the kernel's queue, from which whoever does not wait is turned away.
    let stream = spawn_blocking(move || reach(&place)).await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let peer = stream.peer_cred()?;
    let owner = Owner { uid: peer.uid(), gid: peer.gid() };
    let stream = Stream::UdSocket(stream.into());
    let is_known = [0, Owner::own().uid].contains(&owner.uid) || is_system_service(path, owner.uid);
    Ok(is_known.then_some((stream, owner)))
}

/// Whether that user runs the system's daemon: only root makes folders in /run, and gives one to the service.
fn is_system_service(socket: &Path, uid: u32) -> bool {
    let folder = Path::new(SYSTEM_SOCKET).parent().unwrap_or_else(|| Path::new("/"));
    socket == Path::new(SYSTEM_SOCKET) && fs::metadata(folder).is_ok_and(|about| about.uid() == uid)
}

/// Whether something else than a socket lies there, as phantom-run puts it.
pub(super) fn is_masked(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_char_device())
}
