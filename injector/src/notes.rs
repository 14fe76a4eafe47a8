//! What the daemon says of the run while it goes on, for the person who started it: a connection on which it alone speaks.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use phantom_ipc::hook::{HEADER, IdentityRef, MAX_FRAME, Note, Reply, Request, split_frame};

use crate::control::{Line, in_words};
use crate::options::Options;

/// How long a daemon may take to say its last words: it has them already.
const PATIENCE: Duration = Duration::from_secs(2);

/// Notes as they come.
pub(crate) struct Notes {
    line: UnixStream,
    received: Vec<u8>,
}

impl AsFd for Notes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Notes {
    /// Those that somebody wants to hear.
    pub(crate) fn wanted(options: &Options, socket: &Path, identity: &IdentityRef) -> Result<Option<Self>> {
        if options.quiet && !options.publish_or_fail {
            return Ok(None);
        }
        Self::follow(Line::open(socket)?, identity).map(Some)
    }

    /// Begins to follow.
    fn follow(line: Line, identity: &IdentityRef) -> Result<Self> {
        let line = line.say(&Request::Follow { identity: identity.clone() })?;
        let mut notes = Self { line, received: Vec::new() };
        loop {
            match notes.next()? {
                Some(Reply::Done) => return Ok(notes),
                Some(Reply::Failed { message, .. }) => bail!("the daemon refused: {message}"),
                Some(_) => bail!("the daemon's answer makes no sense: is it of another version?"),
                None => notes.fill().context("the conversation with the daemon broke off")?,
            }
        }
    }

    /// The notes that were read, whole ones; some may have come with the answer to the request.
    pub(crate) fn heard(&mut self) -> Vec<Note> {
        let replies = std::iter::from_fn(|| self.next().ok().flatten());
        replies.filter_map(|reply| if let Reply::Note(note) = reply { Some(note) } else { None }).collect()
    }

    /// What the daemon still has to say of what has been. A daemon that says nothing is waited for a moment.
    pub(crate) fn rest(mut self) -> Vec<Note> {
        let asked = self.line.shutdown(Shutdown::Write).and_then(|()| self.line.set_read_timeout(Some(PATIENCE)));
        let mut all = self.heard();
        while asked.is_ok() && self.fill().is_ok() {
            all.extend(self.heard());
        }
        all
    }

    fn next(&mut self) -> io::Result<Option<Reply>> {
        let malformed = |error| io::Error::new(ErrorKind::InvalidData, error);
        let Some((body, used)) = split_frame(&self.received).map_err(malformed)? else { return Ok(None) };
        let reply = Reply::decode(body).map_err(malformed)?;
        self.received.drain(..used);
        Ok(Some(reply))
    }

    /// Reads what has come, or waits for it.
    ///
    /// # Errors
    /// When there will be no more.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; MAX_FRAME];
        let length = loop {
            match self.line.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(in_words)?,
            }
        };
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&buffer[..length]);
        // What is no frame stays there, and nothing comes after it.
        if self.received.len() > 2 * MAX_FRAME + HEADER { Err(ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}
