//! Messages of a session over the bytes of a full connection (docs/protocol.md, section "Session").

use super::{Reader, WireError};

/// Most bytes of one DATA message.
pub const DATA_MAX: usize = 16_384;

/// Bytes before a message's body: type(1) ‖ length(2).
pub const HEADER: usize = 3;

/// Version of HELLO.
// protocol: Y5
pub const VERSION: u8 = 1;

/// Why a side resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetCode {
    /// Its program did.
    Aborted = 1,
    /// The other side broke the protocol.
    Protocol = 2,
    /// It cannot take more sessions.
    Busy = 3,
}

/// The client's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Random; names the session.
    pub session: [u8; 16],
    /// The port that the client dialed, covered.
    pub port: [u8; 2],
    /// Shows that the client knows the address.
    pub knock: [u8; Self::KNOCK],
}

impl Hello {
    /// Length of a knock: nobody guesses it, one try per tunnel.
    pub const KNOCK: usize = 16;
}

/// One message.
// protocol: S1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// See [`Hello`].
    Hello(Hello),
    /// Bytes of the TLS stream at an absolute offset.
    Data {
        /// Where they belong.
        offset: u64,
        /// 1 to [`DATA_MAX`] bytes.
        bytes: &'a [u8],
    },
    /// Everything before the offset has been taken.
    Ack(u64),
    /// This side's TLS stream ends at the offset.
    Fin(u64),
    /// The session is over.
    Reset(ResetCode),
    /// The session goes on here, on another tunnel.
    Resume {
        /// Names the session.
        session: [u8; 16],
        /// Counts up from 1.
        attempt: u32,
        /// Every byte before it has arrived at the sender.
        offset: u64,
        /// Proves that the sender is an end of the session.
        token: [u8; 32],
    },
}

impl<'a> Message<'a> {
    /// Appends the encoding; `bytes` of DATA must be within [`DATA_MAX`].
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, len) = match self {
            Self::Hello(_) => (1, 19 + Hello::KNOCK),
            Self::Data { bytes, .. } => (2, 8 + bytes.len().min(DATA_MAX)),
            Self::Ack(_) => (3, 8),
            Self::Fin(_) => (4, 8),
            Self::Reset(_) => (5, 1),
            Self::Resume { .. } => (6, 60),
        };
        out.push(kind);
        out.extend_from_slice(&(len as u16).to_be_bytes());
        match self {
            Self::Hello(Hello { session, port, knock }) => {
                out.push(VERSION);
                out.extend_from_slice(session);
                out.extend_from_slice(port);
                out.extend_from_slice(knock);
            }
            Self::Data { offset, bytes } => {
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&bytes[..bytes.len().min(DATA_MAX)]);
            }
            Self::Ack(offset) | Self::Fin(offset) => out.extend_from_slice(&offset.to_be_bytes()),
            Self::Reset(code) => out.push(*code as u8),
            Self::Resume { session, attempt, offset, token } => {
                out.extend_from_slice(session);
                out.extend_from_slice(&attempt.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(token);
            }
        }
    }

    /// Reads the message at the start of `bytes` and says how long it is. `None`: more bytes are needed.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > 8 + DATA_MAX {
            return Err(WireError::TooLong);
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        Ok(Some((Self::body(*kind, body)?, HEADER + len)))
    }

    fn body(kind: u8, body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let message = match kind {
            1 => {
                if reader.u8()? != VERSION {
                    return Err(WireError::Value);
                }
                Self::Hello(Hello { session: reader.array()?, port: reader.array()?, knock: reader.array()? })
            }
            2 => match (reader.u64()?, reader.rest()) {
                (_, []) => return Err(WireError::Value),
                (offset, bytes) => Self::Data { offset, bytes },
            },
            3 => Self::Ack(reader.u64()?),
            4 => Self::Fin(reader.u64()?),
            5 => Self::Reset(match reader.u8()? {
                1 => ResetCode::Aborted,
                2 => ResetCode::Protocol,
                3 => ResetCode::Busy,
                _ => return Err(WireError::Value),
            }),
            6 => Self::Resume {
                session: reader.array()?,
                attempt: reader.u32()?,
                offset: reader.u64()?,
                token: reader.array()?,
            },
            _ => return Err(WireError::Value),
        };
        reader.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol: S1
    #[test]
    fn vectors() {
        for line in include_str!("../../vectors/session.txt").lines().filter(|line| !line.starts_with('#')) {
            let (name, bytes) = line.split_once(' ').unwrap();
            let bytes = hex::decode(bytes).unwrap();
            let expected = match name {
                "hello" => Message::Hello(Hello { session: [0xab; 16], port: [0, 80], knock: [0xcd; 16] }),
                "data" => Message::Data { offset: 0x0102_0304_0506_0708, bytes: b"bytes" },
                "ack" => Message::Ack(65_536),
                "fin" => Message::Fin(u64::MAX),
                "reset" => Message::Reset(ResetCode::Protocol),
                "resume" => Message::Resume { session: [0xab; 16], attempt: 2, offset: 1 << 40, token: [0xcd; 32] },
                _ => panic!("{name}"),
            };
            let mut written = Vec::new();
            expected.write(&mut written);
            assert_eq!(hex::encode(&written), hex::encode(&bytes), "{name}");
            assert_eq!(Message::read(&bytes), Ok(Some((expected, bytes.len()))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0u8..8) {
            let mut framed = vec![kind];
            framed.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            framed.extend_from_slice(&bytes);
            if let Ok(Some((message, len))) = Message::read(&framed) {
                let mut written = Vec::new();
                message.write(&mut written);
                prop_assert_eq!(&written[..], &framed[..len]);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&bytes);
        }
    }
}
