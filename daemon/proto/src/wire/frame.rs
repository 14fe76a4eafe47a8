//! Frames on a link: the kinds, and what each carries (docs/protocol.md, section "Frames").

use std::borrow::Cow;

use super::array::ArrayFrame;
use super::{Reader, Wire, WireError, Writer};
use crate::ident::{PathId, TunnelId};

/// Length of a tunnel block in bytes.
pub const BLOCK_LEN: usize = 64;

/// A tunnel block.
pub type Block = [u8; BLOCK_LEN];

/// Length of a cell in bytes. Four cells with their frame headers fill one TLS record of 16 KiB.
///
/// Chosen by measurement (benches/crypto.rs, GiB/s of one layer on one core): 1020 bytes 2.2, 2044 3.0, 4092 4.1, 8188 4.7,
/// 16 380 5.2. Beyond 4 KiB a layer gains little, while a message of one byte takes twice the time on every link.
pub const CELL_LEN: usize = 4092;

/// Length of a path's name in routing entries and in JOIN.
pub const HANDLE_LEN: usize = 16;

/// A path's name in routing entries and in JOIN.
pub type Handle = [u8; HANDLE_LEN];

/// Most bytes of a session in one BYTES frame.
pub const BYTES_MAX: usize = 65_536;

/// Most bytes of a record in one RECORD frame.
pub const RECORD_MAX: usize = 4096;

/// First byte of a frame.
// protocol: F4
pub mod kind {
    /// A setup array with its reply array.
    pub const ARRAY: u8 = 0x01;
    /// Arrays for the link's dialer may come on this link; and the answer to that.
    pub const HOME: u8 = 0x02;
    /// This link is the standing connection of a segment.
    pub const ATTACH: u8 = 0x10;
    /// Answer to [`ATTACH`].
    pub const ATTACHED: u8 = 0x11;
    /// Tunnel block S, on a standing connection.
    pub const SEED: u8 = 0x12;
    /// The sender's own node record, on a standing connection.
    pub const RECORD: u8 = 0x13;
    /// The sender is there: on a standing connection, and on a joined link.
    pub const ALIVE: u8 = 0x14;
    /// Tunnel id and blocks R and P: this link is one segment of that tunnel.
    pub const TUNNEL: u8 = 0x20;
    /// Tunnel block Q or V.
    pub const CONFIRM: u8 = 0x21;
    /// Tunnel id: this link is for the TUNNEL that answers that seed.
    pub const AWAIT: u8 = 0x22;
    /// One cell.
    pub const CELL: u8 = 0x30;
    /// An exit node asks an entry node for a tunnel.
    pub const JOIN: u8 = 0x40;
    /// Answer to [`JOIN`]: no, with a reason. Else the answer is [`BYTES`].
    pub const REFUSED: u8 = 0x42;
    /// Bytes of a session between exit node and entry node.
    pub const BYTES: u8 = 0x43;
    /// No more [`BYTES`] from this side.
    pub const END: u8 = 0x44;
    /// This side's use of the link is over; after the other side's, too, it is fresh again.
    pub const CLOSE: u8 = 0x50;
}

/// Why an exit node or an entry node gives up (docs/protocol.md, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    /// The network database has no record of the address.
    #[error("no such address")]
    NoSuchAddress = 1,
    /// No entry node of the address answers.
    #[error("entry nodes unreachable")]
    Unreachable = 2,
    /// No tunnel is ready.
    #[error("busy")]
    Busy = 3,
    /// The other side broke the protocol.
    #[error("protocol error")]
    Protocol = 4,
    /// The node is shutting down.
    #[error("going away")]
    GoingAway = 5,
    /// The path's life is over.
    #[error("path expired")]
    Expired = 6,
}

impl Reason {
    /// The reason with this number; an undefined one counts as a protocol error.
    // protocol: U27, Y6
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::NoSuchAddress,
            2 => Self::Unreachable,
            3 => Self::Busy,
            5 => Self::GoingAway,
            6 => Self::Expired,
            _ => Self::Protocol,
        }
    }
}

/// What goes on a new link as its TUNNEL frame: tunnel id(16) ‖ block R(64) ‖ block P(64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelFrame {
    /// Names the tunnel on this segment.
    pub id: TunnelId,
    /// Block R.
    pub r: Block,
    /// Block P.
    pub p: Block,
}

impl Wire for TunnelFrame {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.id.0);
        out.bytes(&self.r);
        out.bytes(&self.p);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { id: TunnelId(reader.array()?), r: reader.array()?, p: reader.array()? })
    }
}

/// A frame: its kind, and a payload of the right length.
#[derive(Debug)]
pub enum Frame<'a> {
    /// [`kind::ARRAY`].
    Array(ArrayFrame),
    /// [`kind::HOME`].
    Home,
    /// [`kind::ATTACH`].
    Attach(PathId),
    /// [`kind::ATTACHED`].
    Attached,
    /// [`kind::SEED`].
    Seed(Block),
    /// [`kind::RECORD`], 1 to [`RECORD_MAX`] bytes.
    Record(&'a [u8]),
    /// [`kind::ALIVE`].
    Alive,
    /// [`kind::TUNNEL`].
    Tunnel(TunnelFrame),
    /// [`kind::CONFIRM`].
    Confirm(Block),
    /// [`kind::AWAIT`].
    Await(TunnelId),
    /// [`kind::CELL`], of [`CELL_LEN`] bytes.
    Cell(&'a [u8]),
    /// [`kind::JOIN`].
    Join(Handle),
    /// [`kind::REFUSED`].
    Refused(Reason),
    /// [`kind::BYTES`], 1 to [`BYTES_MAX`] of them.
    Bytes(&'a [u8]),
    /// [`kind::END`].
    End,
    /// [`kind::CLOSE`].
    Close,
}

impl<'a> Frame<'a> {
    /// The frame with this kind and payload.
    pub fn read(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let frame = match kind {
            kind::ARRAY => Self::Array(ArrayFrame::read(&mut reader)?),
            kind::HOME => Self::Home,
            kind::ATTACH => Self::Attach(PathId(reader.array()?)),
            kind::ATTACHED => Self::Attached,
            kind::SEED => Self::Seed(reader.array()?),
            kind::ALIVE => Self::Alive,
            kind::TUNNEL => Self::Tunnel(TunnelFrame::read(&mut reader)?),
            kind::CONFIRM => Self::Confirm(reader.array()?),
            kind::AWAIT => Self::Await(TunnelId(reader.array()?)),
            kind::CELL => Self::Cell(reader.bytes(CELL_LEN)?),
            kind::JOIN => Self::Join(reader.array()?),
            kind::REFUSED => Self::Refused(Reason::from_byte(reader.u8()?)),
            kind::RECORD => Self::Record(some(reader.rest(), RECORD_MAX)?),
            kind::BYTES => Self::Bytes(some(reader.rest(), BYTES_MAX)?),
            kind::END => Self::End,
            kind::CLOSE => Self::Close,
            _ => return Err(WireError::Value),
        };
        reader.finish()?;
        Ok(frame)
    }

    /// Its first byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Array(_) => kind::ARRAY,
            Self::Home => kind::HOME,
            Self::Attach(_) => kind::ATTACH,
            Self::Attached => kind::ATTACHED,
            Self::Seed(_) => kind::SEED,
            Self::Record(_) => kind::RECORD,
            Self::Alive => kind::ALIVE,
            Self::Tunnel(_) => kind::TUNNEL,
            Self::Confirm(_) => kind::CONFIRM,
            Self::Await(_) => kind::AWAIT,
            Self::Cell(_) => kind::CELL,
            Self::Join(_) => kind::JOIN,
            Self::Refused(_) => kind::REFUSED,
            Self::Bytes(_) => kind::BYTES,
            Self::End => kind::END,
            Self::Close => kind::CLOSE,
        }
    }

    /// What follows its header.
    pub fn payload(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Array(frame) => Cow::Owned(frame.to_bytes()),
            Self::Attach(PathId(name)) => Cow::Borrowed(name),
            Self::Home | Self::Attached | Self::Alive | Self::End | Self::Close => Cow::Borrowed(&[]),
            Self::Seed(block) | Self::Confirm(block) => Cow::Borrowed(block),
            Self::Tunnel(frame) => Cow::Owned(frame.to_bytes()),
            Self::Await(TunnelId(id)) => Cow::Borrowed(id),
            Self::Join(handle) => Cow::Borrowed(handle),
            Self::Refused(reason) => Cow::Owned(vec![*reason as u8]),
            Self::Cell(bytes) | Self::Bytes(bytes) | Self::Record(bytes) => Cow::Borrowed(bytes),
        }
    }
}

/// At least one byte, and no more than `most`.
fn some(bytes: &[u8], most: usize) -> Result<&[u8], WireError> {
    match bytes.len() {
        0 => Err(WireError::Short),
        len if len > most => Err(WireError::TooLong),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::link::{FRAME_HEADER, frame_header};

    /// The bytes of a vector, of which long ones are described: `7*65536`.
    fn bytes(value: &str) -> Vec<u8> {
        match value.split_once('*') {
            Some((byte, count)) => vec![byte.parse().unwrap(); count.parse().unwrap()],
            None => hex::decode(value.trim_start_matches('-')).unwrap(),
        }
    }

    fn whole(header: &str, payload: &str) -> (u8, Vec<u8>) {
        let (kind, len) = frame_header(<[u8; FRAME_HEADER]>::try_from(bytes(header)).unwrap()).unwrap();
        let payload = bytes(payload);
        assert_eq!(payload.len(), len);
        (kind, payload)
    }

    fn lines() -> impl Iterator<Item = [&'static str; 3]> {
        let text = include_str!("../../vectors/frames.txt").lines().filter(|line| !line.starts_with('#'));
        text.map(|line| line.split(' ').collect::<Vec<_>>().try_into().unwrap())
    }

    /// Lines of name, header and payload, computed by scripts/vectors/frames.py.
    #[test]
    fn vectors() {
        let (id, path) = (TunnelId([0xa1; 16]), PathId([0xb2; 16]));
        let [r, p, seed] = [0xc3, 0xd4, 0xe5].map(|byte| [byte; BLOCK_LEN]);
        let cell = [0xf6; CELL_LEN];
        let mut seen = 0;
        for [name, header, payload] in lines().filter(|[name, ..]| !name.starts_with("bad-")) {
            let (kind, payload) = whole(header, payload);
            let expected = match name {
                "home" => Frame::Home,
                "attach" => Frame::Attach(path),
                "attached" => Frame::Attached,
                "seed" => Frame::Seed(seed),
                "record" => Frame::Record(b"record"),
                "alive" => Frame::Alive,
                "largest-record" => Frame::Record(&[9; RECORD_MAX]),
                "tunnel" => Frame::Tunnel(TunnelFrame { id, r, p }),
                "confirm" => Frame::Confirm(seed),
                "await" => Frame::Await(id),
                "cell" => Frame::Cell(&cell),
                "join" => Frame::Join([0x17; 16]),
                "refused" => Frame::Refused(Reason::Busy),
                "bytes" => Frame::Bytes(b"bytes"),
                "largest-bytes" => Frame::Bytes(&[7; BYTES_MAX]),
                "end" => Frame::End,
                "close" => Frame::Close,
                "array" => Frame::read(kind, &payload).unwrap(),
                _ => panic!("{name}"),
            };
            assert_eq!((expected.kind(), &*expected.payload()), (kind, &payload[..]), "{name}");
            let read = Frame::read(kind, &payload).unwrap();
            assert_eq!((read.kind(), &*read.payload()), (kind, &payload[..]), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 18, "one of each kind, and the largest BYTES and RECORD");
    }

    #[test]
    fn vectors_of_what_is_no_frame() {
        let mut seen = 0;
        for [name, header, payload] in lines().filter(|[name, ..]| name.starts_with("bad-")) {
            let (kind, payload) = whole(header, payload);
            assert!(Frame::read(kind, &payload).is_err(), "{name}");
            seen += 1;
        }
        assert!(seen >= 10, "{seen}");
    }

    // protocol: U27, Y6
    #[test]
    fn a_reason_that_is_not_known_counts_as_protocol() {
        for byte in 0..=u8::MAX {
            let Ok(Frame::Refused(reason)) = Frame::read(kind::REFUSED, &[byte]) else { panic!("{byte}") };
            let known = (1..=6).contains(&byte);
            assert_eq!(reason as u8, if known { byte } else { Reason::Protocol as u8 });
        }
    }

    proptest! {
        #[test]
        fn one_encoding(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            match Frame::read(kind, &payload) {
                Ok(Frame::Refused(_)) => prop_assert_eq!(payload.len(), 1),
                Ok(frame) => prop_assert_eq!((frame.kind(), &*frame.payload()), (kind, &payload[..])),
                Err(_) => {}
            }
        }

        /// Each kind has one length, but for BYTES and RECORD.
        #[test]
        fn a_byte_more_or_less_is_no_frame(kind: u8, byte: u8) {
            let lengths = [0, 1, 16, 64, 144, CELL_LEN, ArrayFrame::LEN];
            let fits = |len: usize| Frame::read(kind, &vec![byte; len]).is_ok();
            let fitting: Vec<_> = lengths.into_iter().filter(|len| fits(*len)).collect();
            if kind == kind::BYTES || kind == kind::RECORD {
                let most = if kind == kind::BYTES { BYTES_MAX } else { RECORD_MAX };
                let expected: Vec<_> = lengths.into_iter().filter(|len| (1..=most).contains(len)).collect();
                prop_assert_eq!(fitting, expected);
            } else if let [len] = fitting[..] {
                prop_assert!(!fits(len + 1) && (len == 0 || !fits(len - 1)));
            } else {
                prop_assert!(fitting.is_empty());
            }
        }
    }
}
