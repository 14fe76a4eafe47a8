//! A second way to the daemon for the program's library, without a path: servers that jail themselves (chroot) lose all paths.
//!
//! An abstract socket is known in one network namespace only, which here is the program's own, and empty but for it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result};

use crate::program_socket::ProgramSocket;

/// Has the daemon serve there whom it lets in; gives the name, and the socket for whoever is to offer it to the next daemon.
/// In the program's process, when it is set apart: sockets made before count as somebody else's then.
pub(crate) fn open(program_socket: ProgramSocket<'_>) -> Result<(String, UnixListener)> {
    // Nobody else is in this namespace, so any name is free.
    let name = "phantom";
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address).context("making an abstract socket")?;
    program_socket.open_at(&listener)?;
    Ok((name.to_owned(), listener))
}
