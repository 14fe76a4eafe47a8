//! How launcher and command line come to the daemon on Unix, whatever other users of the computer do.
//!
//! The kernel keeps a queue of those who have connected and were not let in, and whoever finds it full waits. Any user can fill that of
//! a socket which is everybody's. So a daemon that serves all has a second one beside it, for its own user and root alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

/// How long others may keep this one waiting who come to the same socket, as the library waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the daemon at `socket` that serves all users listens for its own user and root alone.
pub fn operators_socket(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".own");
    path.into()
}

/// Whether what lies at `own` was put there by whom the daemon at `socket` is: in a folder where all may write anybody could put one
/// there, but none of the daemon's user's.
pub fn is_the_operators(own: &Path, socket: &Path) -> bool {
    let owner = |path: &Path| fs::symlink_metadata(path).map(|about| about.uid()).ok();
    owner(own).is_some_and(|whose| owner(socket) == Some(whose))
}

/// Connects to the daemon at `socket`: by the way for its own user and root, if there is one and this is who may; else by that for all.
///
/// # Errors
/// What connect(2) says; `TimedOut` when the daemon lets nobody in.
pub fn reach(socket: &Path) -> io::Result<UnixStream> {
    let own = operators_socket(socket);
    if is_the_operators(&own, socket)
        && let Ok(stream) = reach_at(&own)
    {
        return Ok(stream);
    }
    reach_at(socket)
}

fn reach_at(socket: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let line = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&line, sockopt::Timeout::Send, Some(PATIENCE))?;
    match rustix::io::retry_on_intr(|| connect(&line, &address)) {
        Ok(()) => {}
        Err(Errno::AGAIN) => {
            let why = format!("whoever comes waits, for {} seconds so far: is it stopped?", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Err(error) => return Err(error.into()),
    }
    sockopt::set_socket_timeout(&line, sockopt::Timeout::Send, None)?;
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_way_for_the_daemons_own_user_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        assert!(reach(&socket).is_err());
        let all = UnixListener::bind(&socket).expect("a socket");
        reach(&socket).expect("the one that is there");
        all.accept().expect("it came here");
        let own = UnixListener::bind(operators_socket(&socket)).expect("a socket");
        reach(&socket).expect("the other one");
        own.accept().expect("it came here");
        drop(own);
        reach(&socket).expect("the one that somebody listens at");
        all.accept().expect("it came here");
    }

    /// As root, who gives the daemon's socket to another.
    #[test]
    fn what_another_user_puts_beside_the_daemons_socket_is_not_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let all = UnixListener::bind(&socket).expect("a socket");
        std::os::unix::fs::chown(&socket, Some(65534), None).expect("root does this");
        all.set_nonblocking(true).expect("a socket");
        let _theirs = UnixListener::bind(operators_socket(&socket)).expect("a socket");
        reach(&socket).expect("the one that is there");
        all.accept().expect("it came here");
    }
}
