//! A second way to the daemon for the program's library, without a path: servers that jail themselves (chroot) lose all paths.
//!
//! An abstract socket is known in one network namespace only, which here is the program's own, and empty but for it.

use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{IdentityRef, Reply, Request};

use crate::control::Line;

/// Has the daemon serve there whoever speaks as `identity`, as long as `line`; gives the name. In the program's process, when
/// it is set apart: sockets made before count as somebody else's then.
pub(crate) fn open(line: &Line, identity: &IdentityRef) -> Result<String> {
    // Nobody else is in this namespace, so any name is free.
    let name = "phantom-door";
    let address = SocketAddr::from_abstract_name(name)?;
    let listener = UnixListener::bind_addr(&address).context("making an abstract socket")?;
    match line.ask_with(&Request::Door { identity: identity.clone() }, listener.as_fd())?.0 {
        Reply::Info { .. } => Ok(name.to_owned()),
        Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
        _ => bail!("the daemon's answer makes no sense: is it of another version?"),
    }
}
