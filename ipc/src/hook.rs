//! The hook's dialect: what a program's side asks of the daemon, in bounded binary frames with descriptors beside them.
//!
//! ```text
//!  client                                              daemon
//!    | PREAMBLE, once per connection                     |
//!    | frame(Request) ---------------------------------> |   any number of requests,
//!    | <------ frame(Reply), descriptors on its 1st byte |   one reply each, in order
//!
//!  frame  = length u32, body            length of the body, 1 to MAX_FRAME
//!  body   = tag u8, fields              nothing may follow the last field
//!  text   = length u16, UTF-8           integers are big-endian; signed ones as their two's complement
//!  option = 0 | 1, value
//! ```
//!
//! One value has one encoding. A daemon that reads another version's preamble answers [`Reply::Failed`] with EPROTO and
//! closes. Descriptors travel by SCM_RIGHTS; passing them is the caller's, [`Reply::descriptors`] says how many there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::VERSION;
pub use crate::publish::Ports;
use bytes::{Reader, Writer};

mod bytes;
mod emulated;
mod loopback;
mod note;
pub mod policy;
mod socket;

pub use emulated::{
    Call, CallFrame, CallReply, MAX_OPTION, NAME, OptionValue, RECORD, SocketName, decode_record, encode_record,
};
pub use loopback::Loopback;
pub use note::{About, Note};
pub use socket::{SocketFrame, SocketReply};

/// First bytes of a connection: two letters, a zero that no text protocol would send, the version.
pub const PREAMBLE: [u8; 4] = [b'P', b'H', 0, VERSION];

/// Longest body of a frame, bytes: the longest message with its text at the limits fits four times over.
pub const MAX_FRAME: usize = 4096;

/// Longest host name, bytes: 253 of DNS, a final dot, and one to spare.
pub const MAX_NAME: usize = 255;

/// Longest name of an identity, bytes.
pub const MAX_IDENTITY: usize = 64;

/// Longest error message, bytes; [`Reply::failed`] cuts longer ones.
pub const MAX_MESSAGE: usize = 512;

/// Bytes of a frame before its body.
pub const HEADER: usize = 4;

/// Why bytes are no message, or a message cannot be put into bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A frame's length is 0 or above [`MAX_FRAME`].
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// The body ends inside a field.
    #[error("the message ends too early")]
    Short,
    /// Bytes are left after the last field.
    #[error("bytes are left after the message")]
    Leftover,
    /// A tag, flag or address family of no meaning.
    #[error("tag {0} has no meaning here")]
    Tag(u8),
    /// A port is 0.
    #[error("port 0 is no port")]
    Port,
    /// A text is empty, too long, holds a zero byte, or is not UTF-8.
    #[error("a text is empty, too long or not UTF-8")]
    Text,
}

/// As whom a program runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum IdentityRef {
    /// The identity of that name, which the daemon keeps.
    Named(String),
    /// The fresh identity of one run: made when its token is first seen, forgotten after the run.
    Session([u8; 16]),
}

/// What a program's side asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A socket of the identity's phantom namespace; the arguments are those of socket(2), flags in `kind` included.
    /// Answered by [`Reply::Descriptor`].
    Socket {
        /// As whom.
        identity: IdentityRef,
        /// Address family.
        domain: i32,
        /// Type and flags.
        kind: i32,
        /// Protocol.
        protocol: i32,
    },
    /// The namespaces themselves; they stay as long as this connection. With a network namespace beside it, which programs have from a
    /// daemon before: that one is to be the identity's again. Answered by [`Reply::Entered`].
    Enter {
        /// As whom.
        identity: IdentityRef,
    },
    /// Addresses of a name. Answered by [`Reply::Addresses`] or [`Reply::NotFound`].
    Resolve {
        /// As whom: addresses for IPv4 programs may differ.
        identity: IdentityRef,
        /// Host name, at most [`MAX_NAME`] bytes.
        name: String,
    },
    /// Name of an address. Answered by [`Reply::Name`] or [`Reply::NotFound`].
    Reverse {
        /// As whom.
        identity: IdentityRef,
        /// The address.
        address: IpAddr,
    },
    /// Who the identity is. Answered by [`Reply::Info`].
    Info {
        /// As whom.
        identity: IdentityRef,
    },
    /// Ports to be reachable from the phantom network; nothing else is. Answered by [`Reply::Published`].
    Publish {
        /// As whom the program runs.
        identity: IdentityRef,
        /// The program's.
        ports: Ports,
        /// The persistent identity at which it is reached, made if there is none of that name; none for the program's own.
        at: Option<String>,
        /// Until when: as long as the identity is open, for programs that keep no connection; else as long as this
        /// connection, which must have entered the identity.
        stays: bool,
    },
    /// To hear what the person who started the run should know. Answered by [`Reply::Done`]; from then on the daemon alone
    /// speaks, in [`Reply::Note`]s, until either closes.
    Follow {
        /// Whose run.
        identity: IdentityRef,
    },
    /// A token that means a named identity, until this connection ends: for processes that may not name it themselves, like
    /// workers that gave root up. Only for an identity that the connection has entered. Answered by [`Reply::Info`].
    Lend {
        /// As whom.
        identity: IdentityRef,
        /// What they say instead.
        token: [u8; 16],
    },
    /// A call on an emulated socket; its answer is the call's.
    Emulated {
        /// As whom.
        identity: IdentityRef,
        /// Which socket.
        socket: u64,
        /// What is called.
        call: Call,
    },
    /// The identity without a namespace; it stays as long as this connection. Answered by [`Reply::Info`].
    Hold {
        /// As whom.
        identity: IdentityRef,
    },
    /// A way to the daemon of the program's own, for as long as this connection: whoever connects to the listening socket beside this
    /// request may ask what [`Request::is_of_programs`] names, as this identity, and nothing else. Only for an identity that
    /// the connection has entered. Answered by [`Reply::Info`].
    ProgramSocket {
        /// As whom; a token that was lent, where the identity has a name.
        identity: IdentityRef,
    },
    /// A line to keep, on which a process asks for one socket after the other: it takes [`Request::Socket`], as the identity
    /// whose it is, without a preamble, and ends with the identity. Answered by [`Reply::Descriptor`], the line beside.
    Line {
        /// As whom.
        identity: IdentityRef,
        /// Whether the sockets are to be emulated, whatever the daemon could do.
        emulated: bool,
    },
    /// A call on a socket that stays the program's own; its answer is the call's.
    Loopback {
        /// As whom.
        identity: IdentityRef,
        /// What is called.
        call: Loopback,
    },
}

/// What the daemon answers. Any request may be answered by [`Reply::Failed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A socket: one descriptor beside.
    Descriptor,
    /// Namespaces: one descriptor beside for the network, a second for the user namespace that owns it, if it has one.
    Entered {
        /// AP address of the identity.
        address: [u8; 16],
        /// Its address for IPv4 programs.
        ipv4: [u8; 4],
        /// Its name as others may use it.
        name: String,
        /// Whether the second descriptor is there.
        has_user_namespace: bool,
    },
    /// Addresses of the name; at least one.
    Addresses {
        /// AP address.
        v6: Option<[u8; 16]>,
        /// Address for IPv4 programs, of 198.18.0.0/15.
        v4: Option<[u8; 4]>,
    },
    /// There is no such name or address.
    NotFound,
    /// Name of the address.
    Name(String),
    /// Who the identity is.
    Info {
        /// AP address of the identity.
        address: [u8; 16],
        /// Its address for IPv4 programs.
        ipv4: [u8; 4],
        /// Its name as others may use it.
        name: String,
    },
    /// Where the ports are reached.
    Published {
        /// AP address of the identity.
        address: [u8; 16],
        /// Its name as others may use it.
        name: String,
        /// Whether this request made the identity, which lasts.
        is_new: bool,
    },
    /// It did not work.
    Failed {
        /// Error number for the program, as Linux counts.
        errno: i32,
        /// For people; at most [`MAX_MESSAGE`] bytes, neither addresses nor names in it.
        message: String,
    },
    /// Address of an emulated socket, or what a call of [`Loopback`] gives.
    Address(SocketAddr),
    /// Option of an emulated socket.
    Value(OptionValue),
    /// A call on an emulated socket worked.
    Done,
    /// An emulated connection has begun.
    Pending,
    /// Something for the person who started the run.
    Note(Note),
}

impl Request {
    /// As whom the request is made.
    pub fn identity(&self) -> &IdentityRef {
        match self {
            Self::Socket { identity, .. }
            | Self::Enter { identity }
            | Self::Resolve { identity, .. }
            | Self::Reverse { identity, .. }
            | Self::Info { identity }
            | Self::Publish { identity, .. }
            | Self::Follow { identity }
            | Self::Lend { identity, .. }
            | Self::Emulated { identity, .. }
            | Self::Hold { identity }
            | Self::ProgramSocket { identity }
            | Self::Line { identity, .. }
            | Self::Loopback { identity, .. } => identity,
        }
    }

    /// Whether programs themselves have reason to ask it: for sockets, calls on them, and names.
    pub fn is_of_programs(&self) -> bool {
        match self {
            Self::Socket { .. }
            | Self::Line { .. }
            | Self::Emulated { .. }
            | Self::Loopback { .. }
            | Self::Resolve { .. }
            | Self::Reverse { .. }
            | Self::Info { .. } => true,
            Self::Enter { .. }
            | Self::Hold { .. }
            | Self::Publish { .. }
            | Self::Follow { .. }
            | Self::Lend { .. }
            | Self::ProgramSocket { .. } => false,
        }
    }

    /// The frame, header included.
    ///
    /// # Errors
    /// When a text breaks its limits, or a port is 0.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut to = Writer::new(match self {
            Self::Socket { .. } => 1,
            Self::Enter { .. } => 2,
            Self::Resolve { .. } => 3,
            Self::Reverse { .. } => 4,
            Self::Info { .. } => 5,
            Self::Publish { .. } => 6,
            Self::Lend { .. } => 7,
            Self::Follow { .. } => 8,
            Self::Emulated { .. } => 16,
            Self::Hold { .. } => 17,
            Self::ProgramSocket { .. } => 18,
            Self::Line { .. } => 19,
            Self::Loopback { .. } => 20,
        });
        put_identity(&mut to, self.identity())?;
        match self {
            Self::Socket { domain, kind, protocol, .. } => {
                to.i32(*domain);
                to.i32(*kind);
                to.i32(*protocol);
            }
            Self::Resolve { name, .. } => to.text(name, MAX_NAME)?,
            Self::Reverse { address, .. } => put_address(&mut to, *address),
            Self::Publish { ports, at, stays, .. } => {
                put_ports(&mut to, *ports)?;
                to.u8(u8::from(at.is_some()));
                at.iter().try_for_each(|name| to.text(name, MAX_IDENTITY))?;
                to.u8(u8::from(*stays));
            }
            Self::Lend { token, .. } => to.bytes(token),
            Self::Line { emulated, .. } => to.u8(u8::from(*emulated)),
            Self::Emulated { socket, call, .. } => call.put(*socket, |piece| to.bytes(piece)),
            Self::Loopback { call, .. } => call.put(|piece| to.bytes(piece)),
            Self::Enter { .. }
            | Self::Info { .. }
            | Self::Follow { .. }
            | Self::Hold { .. }
            | Self::ProgramSocket { .. } => {}
        }
        Ok(to.finish())
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// When it is not exactly one request.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(body)?;
        let tag = from.u8()?;
        if !matches!(tag, 1..=8 | 16..=20) {
            return Err(Malformed::Tag(tag));
        }
        let identity = take_identity(&mut from)?;
        let request = match tag {
            1 => Self::Socket { identity, domain: from.i32()?, kind: from.i32()?, protocol: from.i32()? },
            2 => Self::Enter { identity },
            3 => Self::Resolve { identity, name: from.text(MAX_NAME)? },
            4 => Self::Reverse { identity, address: take_address(&mut from)? },
            5 => Self::Info { identity },
            7 => Self::Lend { identity, token: from.array()? },
            8 => Self::Follow { identity },
            16 => {
                let (socket, call) = Call::take(&mut from)?;
                Self::Emulated { identity, socket, call }
            }
            17 => Self::Hold { identity },
            18 => Self::ProgramSocket { identity },
            19 => Self::Line { identity, emulated: from.flag()? },
            20 => Self::Loopback { identity, call: Loopback::take(&mut from)? },
            _ => {
                let (ports, at) = (take_ports(&mut from)?, take_optional_name(&mut from)?);
                Self::Publish { identity, ports, at, stays: from.flag()? }
            }
        };
        from.finish(request)
    }
}

impl Reply {
    /// A failure; `message` is cut to [`MAX_MESSAGE`] bytes, and is "failed" when empty.
    pub fn failed(errno: i32, message: &str) -> Self {
        let clean = message.replace('\0', " ");
        let message = Some(cut(&clean)).filter(|cut| !cut.is_empty()).unwrap_or("failed");
        Self::Failed { errno, message: message.to_owned() }
    }

    /// How many descriptors lie beside the reply.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Descriptor => 1,
            Self::Entered { has_user_namespace, .. } => 1 + usize::from(*has_user_namespace),
            _ => 0,
        }
    }

    /// The frame, header included.
    ///
    /// # Errors
    /// [`Malformed::Text`] when a text breaks its limits.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let to = match self {
            Self::Descriptor => Writer::new(1),
            Self::Entered { address, ipv4, name, has_user_namespace } => {
                let mut to = put_who(2, address, ipv4, name)?;
                to.u8(u8::from(*has_user_namespace));
                to
            }
            Self::Addresses { v6, v4 } => {
                let mut to = Writer::new(3);
                to.option(v6.as_ref().map(<[u8; 16]>::as_slice));
                to.option(v4.as_ref().map(<[u8; 4]>::as_slice));
                to
            }
            Self::NotFound => Writer::new(4),
            Self::Name(name) => {
                let mut to = Writer::new(5);
                to.text(name, MAX_NAME)?;
                to
            }
            Self::Info { address, ipv4, name } => put_who(6, address, ipv4, name)?,
            Self::Failed { errno, message } => {
                let mut to = Writer::new(7);
                to.i32(*errno);
                to.text(message, MAX_MESSAGE)?;
                to
            }
            Self::Published { address, name, is_new } => {
                let mut to = Writer::new(8);
                to.bytes(address);
                to.text(name, MAX_NAME)?;
                to.u8(u8::from(*is_new));
                to
            }
            Self::Address(address) => {
                let mut to = Writer::new(16);
                emulated::put_endpoint(address, |piece| to.bytes(piece));
                to
            }
            Self::Value(value) => {
                let mut to = Writer::new(17);
                to.bytes(&(value.bytes().len() as u16).to_be_bytes());
                to.bytes(value.bytes());
                to
            }
            Self::Done => Writer::new(18),
            Self::Pending => Writer::new(19),
            Self::Note(note) => {
                let mut to = Writer::new(20);
                note.put(&mut to)?;
                to
            }
        };
        Ok(to.finish())
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    /// When it is not exactly one reply.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(body)?;
        let reply = match from.u8()? {
            1 => Self::Descriptor,
            2 => Self::Entered {
                address: from.array()?,
                ipv4: from.array()?,
                name: from.text(MAX_NAME)?,
                has_user_namespace: from.flag()?,
            },
            3 => Self::Addresses { v6: from.option()?, v4: from.option()? },
            4 => Self::NotFound,
            5 => Self::Name(from.text(MAX_NAME)?),
            6 => Self::Info { address: from.array()?, ipv4: from.array()?, name: from.text(MAX_NAME)? },
            7 => Self::Failed { errno: from.i32()?, message: from.text(MAX_MESSAGE)? },
            8 => Self::Published { address: from.array()?, name: from.text(MAX_NAME)?, is_new: from.flag()? },
            16 => Self::Address(emulated::take_endpoint(&mut from)?),
            17 => Self::Value(emulated::take_value(&mut from)?),
            18 => Self::Done,
            19 => Self::Pending,
            20 => Self::Note(Note::take(&mut from)?),
            tag => return Err(Malformed::Tag(tag)),
        };
        from.finish(reply)
    }
}

/// Length of the body that follows a header.
///
/// # Errors
/// [`Malformed::Length`] when there is no such frame.
pub fn body_length(header: [u8; HEADER]) -> Result<usize, Malformed> {
    let length = u32::from_be_bytes(header) as usize;
    if (1..=MAX_FRAME).contains(&length) { Ok(length) } else { Err(Malformed::Length(length)) }
}

/// The first frame's body in `buffer` and the bytes that the frame takes; `None` while it is incomplete.
///
/// # Errors
/// [`Malformed::Length`] when no frame begins here.
pub fn split_frame(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = body_length(*header)?;
    Ok(rest.get(..length).map(|body| (body, HEADER + length)))
}

/// The first [`MAX_MESSAGE`] bytes of a message, whole characters.
fn cut(message: &str) -> &str {
    let most = MAX_MESSAGE.min(message.len());
    &message[..(0..=most).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0)]
}

/// Reads a session token as [`crate::ENV_SESSION`] has it: exactly 32 lower-case hexadecimal digits.
pub fn parse_session(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    let mut token = [0; 16];
    if digits.len() != 2 * token.len() {
        return None;
    }
    for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(token)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Writes a session token for [`crate::ENV_SESSION`].
pub fn format_session(token: &[u8; 16]) -> String {
    token.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn put_identity(to: &mut Writer, identity: &IdentityRef) -> Result<(), Malformed> {
    match identity {
        IdentityRef::Named(name) => {
            to.u8(0);
            to.text(name, MAX_IDENTITY)
        }
        IdentityRef::Session(token) => {
            to.u8(1);
            to.bytes(token);
            Ok(())
        }
    }
}

fn take_identity(from: &mut Reader) -> Result<IdentityRef, Malformed> {
    match from.u8()? {
        0 => Ok(IdentityRef::Named(from.text(MAX_IDENTITY)?)),
        1 => Ok(IdentityRef::Session(from.array()?)),
        tag => Err(Malformed::Tag(tag)),
    }
}

/// 0, which is no port, stands for all.
fn put_ports(to: &mut Writer, ports: Ports) -> Result<(), Malformed> {
    let number = match ports {
        Ports::One(0) => return Err(Malformed::Port),
        Ports::One(port) => port,
        Ports::All => 0,
    };
    to.bytes(&number.to_be_bytes());
    Ok(())
}

fn take_ports(from: &mut Reader) -> Result<Ports, Malformed> {
    Ok(match u16::from_be_bytes(from.array()?) {
        0 => Ports::All,
        port => Ports::One(port),
    })
}

fn take_optional_name(from: &mut Reader) -> Result<Option<String>, Malformed> {
    if from.flag()? { from.text(MAX_IDENTITY).map(Some) } else { Ok(None) }
}

fn put_address(to: &mut Writer, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            to.u8(4);
            to.bytes(&address.octets());
        }
        IpAddr::V6(address) => {
            to.u8(6);
            to.bytes(&address.octets());
        }
    }
}

fn take_address(from: &mut Reader) -> Result<IpAddr, Malformed> {
    match from.u8()? {
        4 => Ok(Ipv4Addr::from(from.array::<4>()?).into()),
        6 => Ok(Ipv6Addr::from(from.array::<16>()?).into()),
        tag => Err(Malformed::Tag(tag)),
    }
}

fn put_who(tag: u8, address: &[u8; 16], ipv4: &[u8; 4], name: &str) -> Result<Writer, Malformed> {
    let mut to = Writer::new(tag);
    to.bytes(address);
    to.bytes(ipv4);
    to.text(name, MAX_NAME)?;
    Ok(to)
}
