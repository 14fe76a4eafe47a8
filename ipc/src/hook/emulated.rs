//! Calls on emulated sockets: where no phantom namespace can be, the daemon does what the kernel's TCP would do.
//!
//! An emulated socket is one end of a pair of local stream sockets, the daemon has the other. Its name tells what it is
//! and which, so that the hook keeps no table; a listener hears of each connection by a record with a descriptor beside.
//!
//! ```text
//!  name    = "phantom-emulated/", "s" | "d", "4" | "6", "/", 16 hexadecimal digits     in the abstract name space
//!  request = 16, identity, socket u64, call u8, fields of the call
//!  record  = 4 | 6, 0, port u16, address, zeros up to 16 bytes of it
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bytes::Reader;
use super::{HEADER, IdentityRef, MAX_IDENTITY, MAX_MESSAGE, Malformed, Request, take_address};

/// Longest value of a socket option, bytes: TCP_INFO as libc knows it is the longest.
pub const MAX_OPTION: usize = 128;

/// Bytes of the longest frame: header, tag, identity, socket, call, and the longest call's fields.
const LONGEST: usize = HEADER + 1 + 3 + MAX_IDENTITY + 8 + 1 + 8 + 2 + MAX_OPTION;

/// Bytes of a record that announces a connection to a listener.
pub const RECORD: usize = 20;

const PREFIX: &[u8] = b"phantom-emulated/";
const DIGITS: usize = 16;

/// Bytes of an emulated socket's name, without the zero that begins abstract names.
pub const NAME: usize = PREFIX.len() + 3 + DIGITS;

/// What an emulated socket's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketName {
    /// Which socket.
    pub socket: u64,
    /// Whether it is of AF_INET6; else of AF_INET.
    pub v6: bool,
    /// Whether it stands for TCP; else for UDP.
    pub stream: bool,
}

impl SocketName {
    /// The name.
    pub fn encode(&self) -> [u8; NAME] {
        let mut name = [0; NAME];
        let (prefix, rest) = name.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        rest[0] = if self.stream { b's' } else { b'd' };
        rest[1] = if self.v6 { b'6' } else { b'4' };
        rest[2] = b'/';
        for (at, digit) in rest[3..].iter_mut().enumerate() {
            // Four bits: a digit.
            *digit = b"0123456789abcdef"[(self.socket >> (4 * (DIGITS - 1 - at)) & 0xf) as usize];
        }
        name
    }

    /// Reads a name; none when it is no emulated socket's.
    pub fn decode(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (head, digits) = rest.split_at_checked(3)?;
        let stream = pick(head[0], b's', b'd')?;
        let v6 = pick(head[1], b'6', b'4')?;
        if head[2] != b'/' || digits.len() != DIGITS {
            return None;
        }
        let socket =
            digits.iter().try_fold(0, |socket, digit| Some(socket << 4 | u64::from(super::hex_digit(*digit)?)))?;
        Some(Self { socket, v6, stream })
    }
}

fn pick(byte: u8, yes: u8, no: u8) -> Option<bool> {
    if byte == yes { Some(true) } else { (byte == no).then_some(false) }
}

/// The value of a socket option.
#[derive(Clone, Copy)]
pub struct OptionValue {
    bytes: [u8; MAX_OPTION],
    length: u16,
}

impl OptionValue {
    /// The value of these bytes; none when there are more than [`MAX_OPTION`].
    pub fn new(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_OPTION];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self { bytes, length: u16::try_from(value.len()).ok()? })
    }

    /// An integer, as most options are.
    pub fn of(value: i32) -> Self {
        let mut bytes = [0; MAX_OPTION];
        bytes[..4].copy_from_slice(&value.to_ne_bytes());
        Self { bytes, length: 4 }
    }

    /// The bytes, in the order of the machine.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl PartialEq for OptionValue {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for OptionValue {}

impl std::fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OptionValue({:?})", self.bytes())
    }
}

/// A call on an emulated socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// socket(2), whose arguments these are; answered by [`super::Reply::Descriptor`]. There is no socket yet: it is 0.
    Open {
        /// Address family.
        domain: i32,
        /// Type and flags.
        kind: i32,
        /// Protocol.
        protocol: i32,
    },
    /// connect(2); the socket's own descriptor is beside the request, so that it can be kept from looking writable.
    Connect {
        /// Whither.
        address: SocketAddr,
        /// Whether the answer comes only when the far end has answered; else it is [`super::Reply::Pending`] at once.
        wait: bool,
    },
    /// connect(2) to AF_UNSPEC.
    Disconnect,
    /// bind(2).
    Bind {
        /// The address wanted.
        address: SocketAddr,
    },
    /// listen(2).
    Listen {
        /// Connections that may wait.
        backlog: i32,
    },
    /// getsockname(2); answered by [`super::Reply::Address`].
    Name,
    /// getpeername(2); answered by [`super::Reply::Address`].
    Peer,
    /// getsockopt(2); answered by [`super::Reply::Value`].
    Option {
        /// Level.
        level: i32,
        /// Number of the option.
        option: i32,
    },
    /// setsockopt(2).
    SetOption {
        /// Level.
        level: i32,
        /// Number of the option.
        option: i32,
        /// Its value.
        value: OptionValue,
    },
    /// Whether shutdown(2) may be done; doing it is the program's side's.
    Shutdown,
}

impl Call {
    /// Passes the fields, in order.
    pub(super) fn put(&self, socket: u64, mut put: impl FnMut(&[u8])) {
        put(&socket.to_be_bytes());
        match self {
            Self::Open { domain, kind, protocol } => {
                put(&[1]);
                put([domain, kind, protocol].map(|value| value.to_be_bytes()).as_flattened());
            }
            Self::Connect { address, wait } => {
                put(&[2]);
                put_endpoint(address, &mut put);
                put(&[u8::from(*wait)]);
            }
            Self::Disconnect => put(&[3]),
            Self::Bind { address } => {
                put(&[4]);
                put_endpoint(address, &mut put);
            }
            Self::Listen { backlog } => {
                put(&[5]);
                put(&backlog.to_be_bytes());
            }
            Self::Name => put(&[6]),
            Self::Peer => put(&[7]),
            Self::Option { level, option } => {
                put(&[8]);
                put([level, option].map(|value| value.to_be_bytes()).as_flattened());
            }
            Self::SetOption { level, option, value } => {
                put(&[9]);
                put([level, option].map(|value| value.to_be_bytes()).as_flattened());
                put(&value.length.to_be_bytes());
                put(value.bytes());
            }
            Self::Shutdown => put(&[10]),
        }
    }

    pub(super) fn take(from: &mut Reader) -> Result<(u64, Self), Malformed> {
        let socket = u64::from_be_bytes(from.array()?);
        let call = match from.u8()? {
            1 => Self::Open { domain: from.i32()?, kind: from.i32()?, protocol: from.i32()? },
            2 => Self::Connect { address: take_endpoint(from)?, wait: from.flag()? },
            3 => Self::Disconnect,
            4 => Self::Bind { address: take_endpoint(from)? },
            5 => Self::Listen { backlog: from.i32()? },
            6 => Self::Name,
            7 => Self::Peer,
            8 => Self::Option { level: from.i32()?, option: from.i32()? },
            9 => Self::SetOption { level: from.i32()?, option: from.i32()?, value: take_value(from)? },
            10 => Self::Shutdown,
            tag => return Err(Malformed::Tag(tag)),
        };
        Ok((socket, call))
    }
}

pub(super) fn put_endpoint(address: &SocketAddr, mut put: impl FnMut(&[u8])) {
    match address.ip() {
        IpAddr::V4(ip) => {
            put(&[4]);
            put(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put(&[6]);
            put(&ip.octets());
        }
    }
    put(&address.port().to_be_bytes());
}

pub(super) fn take_endpoint(from: &mut Reader) -> Result<SocketAddr, Malformed> {
    let ip = take_address(from)?;
    Ok(SocketAddr::new(ip, u16::from_be_bytes(from.array()?)))
}

pub(super) fn take_value(from: &mut Reader) -> Result<OptionValue, Malformed> {
    let length = u16::from_be_bytes(from.array()?);
    OptionValue::new(from.take(length.into())?).ok_or(Malformed::Text)
}

/// [`Request::Emulated`] of one identity, put together without allocation: these calls are made in signal handlers too.
#[derive(Debug, Clone)]
pub struct CallFrame {
    bytes: [u8; LONGEST],
    length: usize,
}

impl CallFrame {
    /// The frame for sockets of `identity`.
    ///
    /// # Errors
    /// When the identity's name breaks its limits.
    pub fn new(identity: &IdentityRef) -> Result<Self, Malformed> {
        let frame = Request::Emulated { identity: identity.clone(), socket: 0, call: Call::Name }.encode()?;
        // Without the socket and the call.
        let length = frame.len() - 9;
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..length).ok_or(Malformed::Length(length))?.copy_from_slice(&frame[..length]);
        Ok(Self { bytes, length })
    }

    /// The frame for a call on a socket.
    pub fn with(&self, socket: u64, call: &Call) -> Self {
        let mut frame = self.clone();
        call.put(socket, |piece| {
            // There is room for the longest call.
            frame.bytes[frame.length..frame.length + piece.len()].copy_from_slice(piece);
            frame.length += piece.len();
        });
        let body = (frame.length - HEADER) as u32;
        frame.bytes[..HEADER].copy_from_slice(&body.to_be_bytes());
        frame
    }

    /// The bytes to send, header included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What became of [`Request::Emulated`]; read without allocation.
#[derive(Debug, PartialEq, Eq)]
pub enum CallReply<'a> {
    /// One descriptor is beside the reply.
    Descriptor,
    /// An address.
    Address(SocketAddr),
    /// A socket option.
    Value(OptionValue),
    /// It is done.
    Done,
    /// It has begun.
    Pending,
    /// It did not work: error number for the program, message for people.
    Failed(i32, &'a str),
}

impl<'a> CallReply<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// When it is none of the replies that [`Request::Emulated`] may have.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(body)?;
        let reply = match from.u8()? {
            1 => Self::Descriptor,
            7 => Self::Failed(from.i32()?, from.str(MAX_MESSAGE)?),
            16 => Self::Address(take_endpoint(&mut from)?),
            17 => Self::Value(take_value(&mut from)?),
            18 => Self::Done,
            19 => Self::Pending,
            tag => return Err(Malformed::Tag(tag)),
        };
        from.finish(reply)
    }
}

/// The record that tells a listener of a connection from `peer`.
pub fn encode_record(peer: &SocketAddr) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[2..4].copy_from_slice(&peer.port().to_be_bytes());
    match peer.ip() {
        IpAddr::V4(ip) => {
            record[0] = 4;
            record[4..8].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            record[0] = 6;
            record[4..].copy_from_slice(&ip.octets());
        }
    }
    record
}

/// Who a record is about; none when it is no record.
pub fn decode_record(record: &[u8; RECORD]) -> Option<SocketAddr> {
    let [family, zero, high, low, address @ ..] = record;
    let [a, b, c, d, rest @ ..] = address;
    let ip: IpAddr = match family {
        4 if rest.iter().all(|byte| *byte == 0) => Ipv4Addr::new(*a, *b, *c, *d).into(),
        6 => Ipv6Addr::from(*address).into(),
        _ => return None,
    };
    (*zero == 0).then(|| SocketAddr::new(ip, u16::from_be_bytes([*high, *low])))
}
