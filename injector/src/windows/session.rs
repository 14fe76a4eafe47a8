//! The daemon's side of a run: open as long as the pipe.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv6Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use phantom_ipc::absent::Absence;
use phantom_ipc::hook::{HEADER, IdentityRef, MAX_FRAME, PREAMBLE, Reply, Request, split_frame};
use phantom_ipc::pipe::Pipe;
use phantom_ipc::publish::Publish;

use super::sys;

/// A conversation with the daemon.
struct Line {
    pipe: File,
    received: Vec<u8>,
}

impl Line {
    fn open(socket: &Path) -> Result<Self> {
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
    /// Passes on what comes, until there is no more.
    pub(super) fn tell(mut self, say: impl Fn(&str)) {
        while let Ok(reply) = self.0.next() {
            if let Reply::Note(note) = reply {
                say(&note.text);
            }
        }
    }
}

/// An identity that is open for a program.
pub(super) struct Session {
    line: Line,
    identity: IdentityRef,
    /// What the program's processes say they are.
    pub(super) token: [u8; 16],
    /// Who the program is, for people.
    pub(super) who: String,
}

fn senseless<T>() -> Result<T> {
    bail!("the daemon's answer makes no sense: is it of another version?")
}

impl Session {
    /// Opens the identity of that name, or a fresh one that nobody can link to another run.
    pub(super) fn open(socket: &Path, name: Option<String>) -> Result<Self> {
        let token = sys::token()?;
        let kind = name.as_ref().map_or_else(|| "fresh for this run".to_owned(), |name| format!("identity {name}"));
        let identity = name.map_or(IdentityRef::Session(token), IdentityRef::Named);
        let mut line = Line::open(socket)?;
        let Reply::Info { address, name, .. } = line.ask(&Request::Hold { identity: identity.clone() })? else {
            return senseless();
        };
        if let IdentityRef::Named(_) = identity {
            let Reply::Info { .. } = line.ask(&Request::Lend { identity: identity.clone(), token })? else {
                return senseless();
            };
        }
        let who = format!("runs as {name} ({}), {kind}", Ipv6Addr::from(address));
        Ok(Self { line, identity, token, who })
    }

    /// Begins to hear notes.
    pub(super) fn follow(&self, socket: &Path) -> Result<Notes> {
        let mut line = Line::open(socket)?;
        match line.ask(&Request::Follow { identity: self.identity.clone() })? {
            Reply::Done => Ok(Notes(line)),
            _ => senseless(),
        }
    }

    /// Publishes as long as the session. Returns sentences about it, for people.
    pub(super) fn publish(&mut self, wanted: &[Publish]) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for Publish { ports, at } in wanted {
            for ports in ports {
                let request =
                    Request::Publish { identity: self.identity.clone(), ports: *ports, at: at.clone(), stays: false };
                let reply = self.line.ask(&request).with_context(|| format!("publishing {ports}"))?;
                let Reply::Published { address, name, .. } = reply else { return senseless() };
                let whose = at.as_ref().map(|at| format!(", identity {at}")).unwrap_or_default();
                said.push(format!("publishes {ports} at {name} ({}){whose}", Ipv6Addr::from(address)));
            }
        }
        Ok(said)
    }
}
