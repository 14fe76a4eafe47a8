//! What nodes ask each other about records: one request and one answer a stream, each to the end of its direction (docs/protocol.md,
//! section 7.3).

use super::{KEY_LEN, Key};
use crate::record::MAX_RECORD_LEN;
use crate::wire::{Reader, Wire, WireError, Writer};

/// Longest request: kind, key, record.
pub const REQUEST_MAX: usize = 1 + KEY_LEN + MAX_RECORD_LEN;

/// Longest answer: kind, record.
pub const ANSWER_MAX: usize = 1 + MAX_RECORD_LEN;

const GET: u8 = 0;
const PUT: u8 = 1;

const NOTHING: u8 = 0;
const RECORD: u8 = 1;
const STANDS: u8 = 2;
const REFUSED: u8 = 3;

/// What is asked: 00 ‖ key(33), or 01 ‖ key(33) ‖ record(1 to 4096, to the end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The record under a key.
    Get(Key),
    /// That this record be kept under this key.
    Put(Key, Vec<u8>),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To GET, 00: no record stands there.
    Nothing,
    /// To GET, 01 ‖ record(1 to 4096, to the end).
    Record(Vec<u8>),
    /// To PUT, 02: it stands there now.
    Stands,
    /// To PUT, 03: it does not.
    Refused,
}

// protocol: D30
impl Wire for Request {
    fn write(&self, out: &mut Writer) {
        let (kind, key, record) = match self {
            Self::Get(key) => (GET, key, &[][..]),
            Self::Put(key, record) => (PUT, key, &record[..]),
        };
        out.u8(kind);
        out.bytes(key);
        out.bytes(record);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            GET => Ok(Self::Get(reader.array()?)),
            PUT => Ok(Self::Put(reader.array()?, record(reader)?)),
            _ => Err(WireError::Value),
        }
    }
}

// protocol: D30
impl Wire for Answer {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Nothing => out.u8(NOTHING),
            Self::Record(record) => {
                out.u8(RECORD);
                out.bytes(record);
            }
            Self::Stands => out.u8(STANDS),
            Self::Refused => out.u8(REFUSED),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            NOTHING => Ok(Self::Nothing),
            RECORD => Ok(Self::Record(record(reader)?)),
            STANDS => Ok(Self::Stands),
            REFUSED => Ok(Self::Refused),
            _ => Err(WireError::Value),
        }
    }
}

fn record(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    match reader.rest() {
        [] => Err(WireError::Short),
        long if long.len() > MAX_RECORD_LEN => Err(WireError::TooLong),
        record => Ok(record.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by scripts/vectors/dht.py.
    // protocol: D30
    #[test]
    fn independently_computed_messages() {
        let vector = |name: &str| {
            let lines = include_str!("../../vectors/dht.txt").lines();
            let found = lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1;
            hex::decode(found).unwrap()
        };
        let mut key: Key = std::array::from_fn(|byte| (byte as u8).wrapping_sub(1));
        key[0] = b'a';
        let value = || b"value".to_vec();
        for (name, request) in [("get", Request::Get(key)), ("put", Request::Put(key, value()))] {
            assert_eq!(request.to_bytes(), vector(name), "{name}");
            assert_eq!(Request::from_bytes(&vector(name)), Ok(request));
        }
        let answers = [
            ("get-nothing", Answer::Nothing),
            ("get-record", Answer::Record(value())),
            ("put-stands", Answer::Stands),
            ("put-refused", Answer::Refused),
        ];
        for (name, answer) in answers {
            assert_eq!(answer.to_bytes(), vector(name), "{name}");
            assert_eq!(Answer::from_bytes(&vector(name)), Ok(answer));
        }
    }

    // protocol: D30
    #[test]
    fn what_is_too_long_or_too_short_or_of_no_kind_is_malformed() {
        let key = [7; KEY_LEN];
        let long = vec![1; MAX_RECORD_LEN + 1];
        assert_eq!(Request::from_bytes(&Request::Put(key, long.clone()).to_bytes()), Err(WireError::TooLong));
        assert_eq!(Answer::from_bytes(&Answer::Record(long).to_bytes()), Err(WireError::TooLong));
        assert_eq!(Request::from_bytes(&Request::Put(key, Vec::new()).to_bytes()), Err(WireError::Short));
        assert_eq!(Request::from_bytes(&[2; 34]), Err(WireError::Value));
        assert_eq!(Request::from_bytes(&[0; 33]), Err(WireError::Short));
        assert_eq!(Request::from_bytes(&[0; 35]), Err(WireError::Leftover));
        assert_eq!(Answer::from_bytes(&[4]), Err(WireError::Value));
        assert_eq!(Answer::from_bytes(&[2, 0]), Err(WireError::Leftover));
    }
}
