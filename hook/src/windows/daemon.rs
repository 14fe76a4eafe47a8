//! What the daemon is asked, each time over a pipe of its own.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use phantom_ipc::errno;
use phantom_ipc::hook::{HEADER, IdentityRef, Loopback, MAX_FRAME, PREAMBLE, Reply, Request, split_frame};
use phantom_ipc::pipe::Pipe;

use super::{own, real};

/// A conversation that goes on: what was given in it lasts as long.
pub(super) struct Line(File);

impl Line {
    /// Whether the daemon holds it, too.
    pub(super) fn lasts(&self) -> bool {
        real::is_joined(&self.0)
    }
}

/// Whether a daemon answers now. It is asked nothing.
pub(super) fn is_there() -> bool {
    Pipe::open(own::socket()).is_ok()
}

/// Opens a connection; the answer comes when the far end has answered, and is the door.
pub(super) fn connect(to: SocketAddr, from: SocketAddr) -> Result<SocketAddr, i32> {
    address(ask(|identity| Request::Loopback { identity, call: Loopback::Connect { to, from } })?.0)
}

/// Listens for others, for as long as the line; says where they reach it.
pub(super) fn listen(local: SocketAddr, at: SocketAddr) -> Result<(Line, SocketAddr), i32> {
    let (reply, line) = ask(|identity| Request::Loopback { identity, call: Loopback::Listen { local, at } })?;
    Ok((line, address(reply)?))
}

/// Whose the connection is that came from `source`; none when nobody's.
pub(super) fn peer(source: SocketAddr) -> Result<Option<SocketAddr>, i32> {
    match ask(|identity| Request::Loopback { identity, call: Loopback::Peer { source } })?.0 {
        Reply::NotFound => Ok(None),
        reply => address(reply).map(Some),
    }
}

/// Addresses of a name: that of the network, and the one for programs of IPv4.
pub(super) fn resolve(name: &str) -> Result<(Option<[u8; 16]>, Option<[u8; 4]>), i32> {
    match ask(|identity| Request::Resolve { identity, name: name.to_owned() })?.0 {
        Reply::Addresses { v6, v4 } => Ok((v6, v4)),
        Reply::NotFound => Ok((None, None)),
        _ => Err(senseless()),
    }
}

/// Name of an address.
pub(super) fn reverse(address: IpAddr) -> Result<Option<String>, i32> {
    match ask(|identity| Request::Reverse { identity, address })?.0 {
        Reply::Name(name) => Ok(Some(name)),
        Reply::NotFound => Ok(None),
        _ => Err(senseless()),
    }
}

/// The program's own addresses.
pub(super) fn own_addresses() -> Result<[IpAddr; 2], i32> {
    match ask(|identity| Request::Info { identity })?.0 {
        Reply::Info { address, ipv4, .. } => Ok([address.into(), ipv4.into()]),
        _ => Err(senseless()),
    }
}

fn address(reply: Reply) -> Result<SocketAddr, i32> {
    match reply {
        Reply::Address(address) => Ok(address),
        _ => Err(senseless()),
    }
}

/// One question; a refusal is its number.
fn ask(request: impl FnOnce(IdentityRef) -> Request) -> Result<(Reply, Line), i32> {
    let Some(identity) = own::identity() else {
        complain("PHANTOM_SESSION or PHANTOM_IDENTITY is not set, or malformed: start it with phantom-run");
        return Err(errno::ENETDOWN);
    };
    // A text that breaks the limits of the dialect is no name of anything.
    let Ok(frame) = request(identity.clone()).encode() else { return Err(errno::EINVAL) };
    let (body, line) = exchange(&frame).map_err(|error| gone(&error))?;
    match Reply::decode(&body) {
        Ok(Reply::Failed { errno, message }) => {
            if errno == errno::ENETDOWN {
                complain(&message);
            }
            Err(errno)
        }
        Ok(reply) => Ok((reply, line)),
        Err(_) => Err(senseless()),
    }
}

fn exchange(frame: &[u8]) -> io::Result<(Vec<u8>, Line)> {
    // Anew each time: a daemon may be another one now.
    let mut pipe = Pipe::open(own::socket())?;
    pipe.write_all(&[&PREAMBLE, frame].concat())?;
    let mut received = Vec::new();
    let mut buffer = [0; HEADER + MAX_FRAME];
    loop {
        let length = pipe.read(&mut buffer)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&buffer[..length]);
        let malformed = |error| io::Error::new(ErrorKind::InvalidData, error);
        if let Some((body, _)) = split_frame(&received).map_err(malformed)? {
            return Ok((body.to_vec(), Line(pipe)));
        }
    }
}

/// The daemon does not answer.
fn gone(error: &io::Error) -> i32 {
    complain(&format!("no daemon answers ({error}): `phantom doctor` says what to do"));
    errno::ENETDOWN
}

/// The daemon answers something else.
fn senseless() -> i32 {
    gone(&ErrorKind::InvalidData.into())
}

/// Says once why there is no network, on standard error.
fn complain(message: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        let _ = writeln!(io::stderr(), "phantom: no network for this program: {message}");
    }
}
