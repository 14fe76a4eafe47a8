//! Asks the daemon for a session: the identity's address, and the descriptors of its phantom namespace.
//!
//! The connection is the session: as long as it is open, the daemon keeps the identity's gate.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use phantom_ipc::absent::Absence;
use phantom_ipc::hook::{IdentityRef, MAX_FRAME, PREAMBLE, Reply, Request, split_frame};
use phantom_ipc::reach::reach;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// A gate may have to be made first, which takes milliseconds; paths of a fresh identity are not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long of that nobody is told what is waited for.
const SILENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Descriptors beside an answer: the network namespace, and the user namespace that owns it.
const MAX_DESCRIPTORS: usize = 2;

/// Where a program lives whose only network is Phantom.
pub(crate) struct Namespaces {
    /// The phantom namespace.
    pub(crate) network: OwnedFd,
    /// The user namespace that owns it, if the daemon needed one.
    pub(crate) user: Option<OwnedFd>,
}

impl Namespaces {
    /// Whether it is the same phantom namespace.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let both = rustix::fs::fstat(&self.network).and_then(|one| Ok((one, rustix::fs::fstat(&other.network)?)));
        both.is_ok_and(|(one, other)| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }
}

/// What the daemon gives.
pub(crate) struct Session {
    /// To be held open until the last descendant is gone.
    pub(crate) line: Line,
    /// Who the program is, as its own processes say it.
    pub(crate) identity: IdentityRef,
    /// What the program is to enter; none where no phantom namespace can be.
    pub(crate) spaces: Option<Namespaces>,
    /// Why there is none, in the daemon's words, if there should be one.
    pub(crate) why_no_spaces: Option<String>,
    /// Who the program is, for people.
    pub(crate) who: String,
    /// Which of its ports others reach and where, one sentence each.
    pub(crate) published: Vec<String>,
}

/// Where the daemon is, and as whom to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Contact {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// As whom.
    pub(crate) identity: IdentityRef,
}

/// An open connection to the daemon.
pub(crate) struct Line(UnixStream);

impl Line {
    /// Connects.
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let mut line = reach(socket)?;
        line.set_read_timeout(Some(PATIENCE))?;
        line.set_write_timeout(Some(PATIENCE))?;
        line.write_all(&PREAMBLE).map_err(in_words)?;
        Ok(Self(line))
    }

    /// One request, and the connection for whoever reads what comes.
    pub(crate) fn say(mut self, request: &Request) -> Result<UnixStream> {
        self.0.write_all(&request.encode().context("the identity's name is not valid")?).map_err(in_words)?;
        Ok(self.0)
    }

    /// A descriptor that tells whether the connection is still open.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// Says what is waited for, once that takes long: whether a daemon runs that answers, nobody sees from here.
    fn say_if_silent(&self, socket: &Path) {
        let mut answer = [PollFd::new(&self.0, PollFlags::IN)];
        if let Ok(0) = rustix::io::retry_on_intr(|| poll(&mut answer, Some(&SILENCE))) {
            eprintln!("phantom-run: waiting for the daemon at {}, which says nothing", socket.display());
        }
    }

    /// One request, one reply with its descriptors. After an error the line is of no more use.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, None)?;
        receive(&self.0)
    }

    /// The same, with a descriptor beside the request.
    pub(crate) fn ask_with(&self, request: &Request, beside: BorrowedFd<'_>) -> Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, Some(beside))?;
        receive(&self.0)
    }

    fn send(&self, request: &Request, beside: Option<BorrowedFd<'_>>) -> Result<()> {
        let frame = request.encode().context("the identity's name is not valid")?;
        let descriptors: Vec<BorrowedFd<'_>> = beside.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            bail!("no room for a descriptor");
        }
        // Far below the size of any socket buffer: all of it is taken or none.
        sendmsg(&self.0, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)
            .map_err(|error| in_words(error.into()))?;
        Ok(())
    }

    /// A socket of the phantom namespace, as socket(2) would give one, or the error number that it would; closes on exec.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub(crate) fn socket(&mut self, identity: &IdentityRef, arguments: [i32; 3]) -> Result<Result<OwnedFd, i32>> {
        let [domain, kind, protocol] = arguments;
        match self.ask(&Request::Socket { identity: identity.clone(), domain, kind, protocol })? {
            (Reply::Descriptor, descriptors) => Ok(Ok(descriptors.into_iter().next().context("no descriptor")?)),
            (Reply::Failed { errno, .. }, _) => Ok(Err(errno)),
            _ => bail!("the daemon's answer makes no sense"),
        }
    }
}

/// The identity of that name, or a fresh one that nobody can link to another run.
pub(crate) fn identity(name: Option<String>) -> Result<IdentityRef> {
    Ok(match name {
        Some(name) => IdentityRef::Named(name),
        None => IdentityRef::Session(token()?),
    })
}

/// Sixteen bytes that nobody guesses.
pub(crate) fn token() -> Result<[u8; 16]> {
    let mut token = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut token)).context("reading /dev/urandom")?;
    Ok(token)
}

/// What a session is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Namespaces.
    Spaces,
    /// Namespaces, where they can be made.
    SpacesIfPossible,
    /// None: sockets are emulated.
    None,
}

/// A daemon is there, and gives no session.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why, as Linux counts.
    pub(crate) errno: i32,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the daemon refused: {}", self.message)
    }
}

impl std::error::Error for Refused {}

/// Opens a session of the daemon; `is_quiet`: a wait for it is not told.
pub(crate) fn enter(contact: &Contact, wanted: Wanted, is_quiet: bool) -> Result<Session> {
    let lent = match contact.identity {
        IdentityRef::Named(_) => token()?,
        IdentityRef::Session(own) => own,
    };
    open(contact, wanted, lent, None, is_quiet)
}

/// The same with another daemon, for processes that say they are `identity`, in the phantom namespace that they have, if they have one.
pub(crate) fn enter_again(
    contact: &Contact,
    wanted: Wanted,
    identity: &IdentityRef,
    before: Option<BorrowedFd<'_>>,
) -> Result<Session> {
    let IdentityRef::Session(lent) = identity else { bail!("the session has no token") };
    open(contact, wanted, *lent, before, true)
}

/// A session; processes of a named identity go by the token `lent`.
fn open(
    contact: &Contact,
    wanted: Wanted,
    lent: [u8; 16],
    before: Option<BorrowedFd<'_>>,
    is_quiet: bool,
) -> Result<Session> {
    let line = Line::open(&contact.socket).map_err(|error| nobody(&contact.socket, error))?;
    let ask = |request: &Request, before: Option<BorrowedFd<'_>>| {
        line.send(request, before)
            .and_then(|()| {
                if !is_quiet {
                    line.say_if_silent(&contact.socket);
                }
                receive(&line.0)
            })
            .context("the conversation with the daemon broke off")
    };
    let identity = contact.identity.clone();
    let hold = Request::Hold { identity: identity.clone() };
    let first = if wanted == Wanted::None { hold.clone() } else { Request::Enter { identity } };
    let (mut reply, mut descriptors) = ask(&first, before)?;
    let mut why_no_spaces = None;
    if wanted == Wanted::SpacesIfPossible
        && let Reply::Failed { errno: libc::EOPNOTSUPP, message } = &reply
    {
        why_no_spaces = Some(message.clone());
        (reply, descriptors) = ask(&hold, None)?;
    }
    let (address, name) = match reply {
        Reply::Entered { address, name, .. } | Reply::Info { address, name, .. } => (Ipv6Addr::from(address), name),
        Reply::Failed { errno, message } => return Err(Refused { errno, message }.into()),
        _ => bail!("the daemon's answer makes no sense: is it of another version?"),
    };
    let mut descriptors = descriptors.into_iter();
    let spaces = descriptors.next().map(|network| Namespaces { network, user: descriptors.next() });
    let kind = match &contact.identity {
        IdentityRef::Named(name) => format!("identity {name}"),
        IdentityRef::Session(_) => "fresh for this run".to_owned(),
    };
    let who = format!("runs as {name} ({address}), {kind}");
    let mut identity = contact.identity.clone();
    if let IdentityRef::Named(_) = identity {
        // Names are for the daemon's user alone: processes of a server that gave root up go by a token.
        match ask(&Request::Lend { identity, token: lent }, None)?.0 {
            Reply::Info { .. } => identity = IdentityRef::Session(lent),
            Reply::Failed { message, .. } => bail!("the daemon refused: {message}"),
            _ => bail!("the daemon's answer makes no sense: is it of another version?"),
        }
    }
    Ok(Session { line, identity, spaces, why_no_spaces, who, published: Vec::new() })
}

/// Why no daemon could be reached, and what to do.
fn nobody(socket: &Path, error: io::Error) -> anyhow::Error {
    let is_masked = fs::metadata(socket).is_ok_and(|about| about.file_type().is_char_device());
    match Absence::of(&error, socket, is_masked) {
        Some(absence) => absence.into(),
        None => anyhow::Error::new(error).context(format!("the daemon at {} does not answer", socket.display())),
    }
}

/// The system says of a time that is over that something was not available.
pub(crate) fn in_words(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error;
    }
    let why = format!(
        "the daemon takes connections, and has said nothing for {} seconds: is it stopped?",
        PATIENCE.as_secs()
    );
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// One reply, and as many descriptors as it says.
fn receive(connection: &UnixStream) -> Result<(Reply, Vec<OwnedFd>)> {
    let mut descriptors = Vec::new();
    let mut received = Vec::new();
    loop {
        if let Some((body, _)) = split_frame(&received)? {
            let reply = Reply::decode(body)?;
            if reply.descriptors() != descriptors.len() {
                bail!("descriptors are missing");
            }
            return Ok((reply, descriptors));
        }
        let mut buffer = [0; MAX_FRAME];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let length =
            rustix::io::retry_on_intr(|| recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))
                .map_err(|error| in_words(error.into()))?
                .bytes;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = part {
                descriptors.extend(passed);
            }
        }
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        received.extend(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_never_answers_is_said_to_be_silent() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = Line(ours).ask(&Request::Info { identity: IdentityRef::Session([0; 16]) }).unwrap_err();
        assert!(error.to_string().contains("has said nothing for 30 seconds"), "{error:#}");
        assert!(crate::reason::is_passing(&error));
    }
}
