//! Messages of a session over the bytes of a full connection, and what is sealed in them (docs/protocol.md, section "Session").

use super::{Reader, WireError};

/// Most bytes of one TLS or DATA message.
pub const DATA_MAX: usize = 16_384;

/// Bytes before a message's body: type(1) ‖ length(2).
pub const HEADER: usize = 3;

/// Behind what is sealed.
const TAG: usize = 16;

/// Kind and offset, before the bytes of a sealed DATA.
const DATA_HEADER: usize = 9;

/// Longest body: a sealed DATA.
const BODY_MAX: usize = DATA_HEADER + DATA_MAX + TAG;

/// Version of HELLO.
// protocol: Y5
pub const VERSION: u8 = 1;

/// Names one attempt of a session to go on over another tunnel.
pub type AttemptId = [u8; 16];

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

impl ResetCode {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            1 => Ok(Self::Aborted),
            2 => Ok(Self::Protocol),
            3 => Ok(Self::Busy),
            _ => Err(WireError::Value),
        }
    }
}

/// The client's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Random; makes port and knock differ from those of other sessions.
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

/// One message, as exit and entry node see it.
// protocol: S1
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// See [`Hello`].
    Hello(Hello),
    /// 1 to [`DATA_MAX`] bytes of the TLS handshake.
    Tls(&'a [u8]),
    /// What only the other end can open: a [`Sealed`] and its tag.
    Sealed(&'a [u8]),
    /// The session goes on here, on another tunnel; the client's first.
    Resume {
        /// Names session and attempt, to the two ends.
        id: AttemptId,
        /// Shows that the client knows the address.
        knock: [u8; Hello::KNOCK],
    },
    /// There will be no session: only before the handshake is done.
    Reset(ResetCode),
    /// The server has no session with an attempt of that id; a signature over it.
    Gone([u8; 64]),
}

impl<'a> Message<'a> {
    /// Appends the encoding; bytes of TLS must be within [`DATA_MAX`].
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(Hello { session, port, knock }) => framed(out, 1, &[&[VERSION], session, port, knock]),
            Self::Tls(bytes) => framed(out, 2, &[bytes]),
            Self::Sealed(bytes) => framed(out, 3, &[bytes]),
            Self::Resume { id, knock } => framed(out, 4, &[id, knock]),
            Self::Reset(code) => framed(out, 5, &[&[*code as u8]]),
            Self::Gone(signature) => framed(out, 6, &[signature]),
        }
    }

    /// Reads the message at the start of `bytes` and says how long it is. `None`: more bytes are needed.
    pub fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > BODY_MAX {
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
            2 if body.is_empty() || body.len() > DATA_MAX => return Err(WireError::Value),
            2 => Self::Tls(reader.rest()),
            3 if body.len() <= TAG => return Err(WireError::Short),
            3 => Self::Sealed(reader.rest()),
            4 => Self::Resume { id: reader.array()?, knock: reader.array()? },
            5 => Self::Reset(ResetCode::read(&mut reader)?),
            6 => Self::Gone(reader.array()?),
            _ => return Err(WireError::Value),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn framed(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What is inside a SEALED message.
// protocol: S27
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed<'a> {
    /// The client's first, once: the ports of its program's connection.
    Ports {
        /// From which.
        src: u16,
        /// To which.
        dst: u16,
    },
    /// The program's bytes at an absolute offset.
    Data {
        /// Where they belong.
        offset: u64,
        /// 1 to [`DATA_MAX`] bytes.
        bytes: &'a [u8],
    },
    /// What has become of the other side's bytes.
    Ack {
        /// Everything before the offset has come; FIN counts as one byte.
        arrived: u64,
        /// Everything before the offset has been taken: the window begins there.
        taken: u64,
    },
    /// This side's bytes end at the offset.
    Fin(u64),
    /// The session is over.
    Reset(ResetCode),
}

impl<'a> Sealed<'a> {
    /// Appends the encoding; `bytes` of DATA must be within [`DATA_MAX`].
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ports { src, dst } => {
                out.extend_from_slice(&[&[1][..], &src.to_be_bytes(), &dst.to_be_bytes()].concat())
            }
            Self::Data { offset, bytes } => {
                out.push(2);
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Ack { arrived, taken } => {
                out.push(3);
                out.extend_from_slice(&arrived.to_be_bytes());
                out.extend_from_slice(&taken.to_be_bytes());
            }
            Self::Fin(offset) => {
                out.push(4);
                out.extend_from_slice(&offset.to_be_bytes());
            }
            Self::Reset(code) => out.extend_from_slice(&[5, *code as u8]),
        }
    }

    /// Appends the message with this in it, so far without its tag: what is to be sealed begins [`HEADER`] bytes after the old end.
    pub fn write_message(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[3, 0, 0]);
        self.write(out);
        let len = out.len() - start - HEADER + TAG;
        out[start + 1..start + HEADER].copy_from_slice(&(len as u16).to_be_bytes());
    }

    /// Reads what fills `bytes` to the last one.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let sealed = match reader.u8()? {
            1 => Self::Ports { src: reader.u16()?, dst: reader.u16()? },
            2 => match (reader.u64()?, reader.rest()) {
                (_, bytes) if bytes.is_empty() || bytes.len() > DATA_MAX => return Err(WireError::Value),
                (offset, bytes) => Self::Data { offset, bytes },
            },
            3 => Self::Ack { arrived: reader.u64()?, taken: reader.u64()? },
            4 => Self::Fin(reader.u64()?),
            5 => Self::Reset(ResetCode::read(&mut reader)?),
            _ => return Err(WireError::Value),
        };
        reader.finish()?;
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol: S1, S27
    #[test]
    fn vectors() {
        let mut count = 0;
        for line in include_str!("../../vectors/session.txt").lines().filter(|line| !line.starts_with('#')) {
            let (name, bytes) = line.split_once(' ').unwrap();
            let bytes = hex::decode(bytes).unwrap();
            let message = match name {
                "hello" => Message::Hello(Hello { session: [0xab; 16], port: [0, 80], knock: [0xcd; 16] }),
                "tls" => Message::Tls(b"bytes"),
                "sealed" => Message::Sealed(b"seventeen bytes.."),
                "resume" => Message::Resume { id: [0xab; 16], knock: [0xcd; 16] },
                "reset" => Message::Reset(ResetCode::Protocol),
                "gone" => Message::Gone([0xee; 64]),
                _ => {
                    inside(name, &bytes);
                    count += 1;
                    continue;
                }
            };
            let mut written = Vec::new();
            message.write(&mut written);
            assert_eq!(hex::encode(&written), hex::encode(&bytes), "{name}");
            assert_eq!(Message::read(&bytes), Ok(Some((message, bytes.len()))), "{name}");
            count += 1;
        }
        assert_eq!(count, 11);
    }

    fn inside(name: &str, bytes: &[u8]) {
        let sealed = match name {
            "in:ports" => Sealed::Ports { src: 40_000, dst: 80 },
            "in:data" => Sealed::Data { offset: 0x0102_0304_0506_0708, bytes: b"bytes" },
            "in:ack" => Sealed::Ack { arrived: 1 << 40, taken: 65_536 },
            "in:fin" => Sealed::Fin(u64::MAX),
            "in:reset" => Sealed::Reset(ResetCode::Aborted),
            _ => panic!("{name}"),
        };
        let mut written = Vec::new();
        sealed.write(&mut written);
        assert_eq!(hex::encode(&written), hex::encode(bytes), "{name}");
        assert_eq!(Sealed::read(bytes), Ok(sealed), "{name}");
    }

    #[test]
    fn lengths_are_bounded() {
        for (kind, len, fits) in
            [(2, DATA_MAX, true), (2, DATA_MAX + 1, false), (3, BODY_MAX, true), (3, BODY_MAX + 1, false)]
        {
            let framed = [&[kind][..], &(len as u16).to_be_bytes(), &vec![0; len]].concat();
            assert_eq!(Message::read(&framed).is_ok(), fits, "{kind} {len}");
        }
        assert!(Message::read(&[3, 0, 16].into_iter().chain([0; 16]).collect::<Vec<_>>()).is_err(), "a tag alone");
        let data = |len| [&[2; DATA_HEADER][..], &vec![0; len]].concat();
        assert!(Sealed::read(&data(DATA_MAX)).is_ok());
        assert!(Sealed::read(&data(DATA_MAX + 1)).is_err() && Sealed::read(&data(0)).is_err());
    }

    proptest! {
        #[test]
        fn one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0u8..8) {
            let mut framed = vec![kind];
            framed.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            framed.extend_from_slice(&bytes);
            if let Ok(Some((message, len))) = Message::read(&framed) {
                let mut written = Vec::new();
                message.write(&mut written);
                prop_assert_eq!(&written[..], &framed[..len]);
            }
            let inside = [&[kind][..], &bytes].concat();
            if let Ok(sealed) = Sealed::read(&inside) {
                let mut written = Vec::new();
                sealed.write(&mut written);
                prop_assert_eq!(written, inside);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::read(&bytes);
            let _ = Sealed::read(&bytes);
        }
    }
}
