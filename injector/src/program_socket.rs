//! A way to the daemon for the program's library alone: what comes by it is this run, and may ask for sockets and names.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use anyhow::{Result, bail};
use phantom_ipc::hook::{IdentityRef, Reply, Request};

use crate::control::Line;
use crate::reason::Passing;

/// Who is to be let in.
#[derive(Clone, Copy)]
pub(crate) struct ProgramSocket<'a> {
    pub(crate) line: &'a Line,
    pub(crate) identity: &'a IdentityRef,
}

impl ProgramSocket<'_> {
    /// Has the daemon serve at a listening socket whoever speaks as the identity, as long as the line.
    ///
    /// # Errors
    /// It is not the machine that lacks something then, so no weaker way is to be tried.
    pub(crate) fn open_at(&self, listener: &UnixListener) -> Result<()> {
        // Who keeps it as well must turn away whoever comes when the daemon is dead.
        let asked = self.line.ask_with(&Request::ProgramSocket { identity: self.identity.clone() }, listener.as_fd());
        match asked.map_err(|error| error.context(Passing))?.0 {
            Reply::Info { .. } => Ok(()),
            Reply::Failed { message, .. } => Err(anyhow::anyhow!("the daemon refused: {message}").context(Passing)),
            _ => bail!("the daemon's answer makes no sense: is it of another version?"),
        }
    }
}
