//! The daemon's side of a run: open as long as the pipe.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use phantom_ipc::absent::Absence;
use phantom_ipc::hook::{HEADER, IdentityRef, MAX_FRAME, Note, PREAMBLE, Reply, Request, split_frame};
use phantom_ipc::pipe::Pipe;
use phantom_ipc::publish::Publish;

/// What a run is to have of a daemon, whichever it is.
pub(super) struct Wanted {
    /// The file that leads to the daemon.
    pub(super) socket: PathBuf,
    /// What the program's processes say they are.
    pub(super) token: [u8; 16],
    /// As whom; none for a fresh identity that nobody can link to another run.
    pub(super) identity: Option<String>,
    pub(super) publish: Vec<Publish>,
    /// Whether somebody wants to hear notes.
    pub(super) follows: bool,
}

impl Wanted {
    fn identity(&self) -> IdentityRef {
        self.identity.clone().map_or(IdentityRef::Session(self.token), IdentityRef::Named)
    }
}

/// A conversation with the daemon.
pub(super) struct Line {
    pipe: File,
    received: Vec<u8>,
}

impl Line {
    /// Begins one.
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let open = || {
            let mut pipe = Pipe::open(socket)?;
            pipe.write_all(&PREAMBLE)?;
            Ok(Self { pipe, received: Vec::new() })
        };
        open().map_err(|error: io::Error| match Absence::of(&error, socket, false) {
            Some(absence) => absence.into(),
            None => anyhow::Error::new(error).context(format!("the daemon at {} does not answer", socket.display())),
        })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.pipe.write_all(&request.encode().context("the identity's name is not valid")?)?;
        match self.next().context("the conversation with the daemon broke off")? {
            Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
            reply => Ok(reply),
        }
    }

    fn next(&mut self) -> io::Result<Reply> {
        let malformed = |error| io::Error::new(ErrorKind::InvalidData, error);
        loop {
            if let Some((body, used)) = split_frame(&self.received).map_err(malformed)? {
                let reply = Reply::decode(body).map_err(malformed)?;
                self.received.drain(..used);
                return Ok(reply);
            }
            let mut buffer = [0; HEADER + MAX_FRAME];
            let length = self.pipe.read(&mut buffer)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..length]);
        }
    }
}

/// What the daemon says of the run while it goes on.
pub(super) struct Notes(Line);

impl Notes {
    fn follow(wanted: &Wanted) -> Result<Self> {
        let mut line = Line::open(&wanted.socket)?;
        match line.ask(&Request::Follow { identity: wanted.identity() })? {
            Reply::Done => Ok(Self(line)),
            _ => senseless(),
        }
    }

    /// Passes on what comes, until there is no more.
    pub(super) fn tell(mut self, heard: impl Fn(&Note)) {
        while let Ok(reply) = self.0.next() {
            if let Reply::Note(note) = reply {
                heard(&note);
            }
        }
    }
}

/// An identity that is open for a program.
pub(super) struct Session {
    line: Line,
    /// Its name and address.
    pub(super) name: String,
    /// What others reach of it: sentences for people.
    pub(super) published: Vec<String>,
    /// What is to be heard of it, if anything.
    pub(super) notes: Option<Notes>,
}

fn senseless<T>() -> Result<T> {
    bail!("the daemon's answer makes no sense: is it of another version?")
}

impl Session {
    /// Has a daemon do all that is wanted.
    pub(super) fn begin(mut line: Line, wanted: &Wanted) -> Result<Self> {
        let identity = wanted.identity();
        let Reply::Info { address, name, .. } = line.ask(&Request::Hold { identity: identity.clone() })? else {
            return senseless();
        };
        if let IdentityRef::Named(_) = identity {
            let Reply::Info { .. } = line.ask(&Request::Lend { identity, token: wanted.token })? else {
                return senseless();
            };
        }
        // First, so that nothing of what is published is missed.
        let notes = if wanted.follows { Some(Notes::follow(wanted)?) } else { None };
        let published = publish(&mut line, wanted)?;
        Ok(Self { line, name: format!("{name} ({})", Ipv6Addr::from(address)), published, notes })
    }

    /// Waits until it is over: the daemon says nothing unasked here.
    pub(super) fn over(mut self) {
        while self.line.next().is_ok() {}
    }
}

/// Publishes as long as the conversation. Returns sentences about it, for people.
fn publish(line: &mut Line, wanted: &Wanted) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for Publish { ports, at } in &wanted.publish {
        for ports in ports {
            let request = Request::Publish { identity: wanted.identity(), ports: *ports, at: at.clone(), stays: false };
            let reply = line.ask(&request).with_context(|| format!("publishing {ports}"))?;
            let Reply::Published { address, name, .. } = reply else { return senseless() };
            let whose = at.as_ref().map(|at| format!(", identity {at}")).unwrap_or_default();
            said.push(format!("publishes {ports} at {name} ({}){whose}", Ipv6Addr::from(address)));
        }
    }
    Ok(said)
}
