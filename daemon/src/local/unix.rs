//! Unix: a socket in the file system, of which the kernel says who comes; of the loopback device's connections it says whose they are.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use tokio::net::{UnixListener, UnixStream};

use crate::netlink::Netlink;
use crate::os::OwnFile;

/// Connections that may wait for accept().
const BACKLOG: i32 = 64;

/// A socket of its owner.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// Cleared with it.
    _file: OwnFile,
}

impl Socket {
    /// A socket file that a run before left is replaced, anything else is not.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self { listener: bind_unix(path)?, _file: OwnFile::at(path)? })
    }

    /// The next one who comes, and as whom.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, uid))
    }
}

/// The user whose connection of the loopback device that is; none when it is nobody's in this network (any more).
pub(super) fn owner(theirs: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    Netlink::sock_diag()?.owner(theirs, ours)
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    // Any other answer than this is somebody's: of another kind of socket, or of one who has no time for us.
    let connected = || connect(&socket()?, &SocketAddrUnix::new(path)?);
    if fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
        && connected() == Err(Errno::CONNREFUSED)
    {
        fs::remove_file(path)?;
    }
    let socket = socket()?;
    // Linux makes the file with the mode that the socket has before it has a name: nobody can come in between. Who else may read
    // it is for the operator to say, by the folder or by chmod.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Listener, LocalAddress};
    use super::*;

    /// A socket for datagrams, and one whose queue is full: they were taken for left over, and the second was waited for without end.
    #[tokio::test]
    async fn what_others_have_bound_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [datagrams, full] = ["datagrams", "full"].map(|name| folder.path().join(name));
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
        let busy = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&busy, &SocketAddrUnix::new(&full).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&full).unwrap();
        for path in [&datagrams, &full] {
            assert_eq!(bind_unix(path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert!(path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_one_that_a_run_before_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local.sock");
        let at: LocalAddress = format!("unix:{}", path.display()).parse().unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as after a crash");
        let bound = Listener::bind(&at, "it").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let in_use = Listener::bind(&at, "it").await.unwrap_err();
        assert!(in_use.to_string().starts_with(&format!("cannot offer it at {at}: ")), "{in_use}");
        let (_visitor, came) = tokio::join!(UnixStream::connect(&path), bound.accept());
        assert_eq!(came.unwrap().1.uid().unwrap(), Some(rustix::process::geteuid().as_raw()));
        // Whoever has put another socket there keeps it; one's own goes.
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        let other = Listener::bind(&at, "it").await.unwrap();
        drop(bound);
        assert!(path.exists(), "it was another's");
        drop(other);
        assert!(!path.exists());
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Listener::bind(&format!("unix:{}", file.display()).parse().unwrap(), "it").await.is_err());
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
