//! The request for a socket without allocation: `socket()` may be called in signal handlers and in children of vfork.

use super::{HEADER, IdentityRef, MAX_IDENTITY, MAX_MESSAGE, Malformed, Request};

/// Bytes of the longest frame: header, tag, identity, three integers.
const LONGEST: usize = HEADER + 1 + 3 + MAX_IDENTITY + ARGUMENTS;

/// Bytes of the three integers at the end.
const ARGUMENTS: usize = 12;

/// [`Request::Socket`] of one identity, encoded ahead.
#[derive(Debug, Clone)]
pub struct SocketFrame {
    bytes: [u8; LONGEST],
    length: usize,
}

impl SocketFrame {
    /// The frame for sockets of `identity`.
    ///
    /// # Errors
    /// When the identity's name breaks its limits.
    pub fn new(identity: &IdentityRef) -> Result<Self, Malformed> {
        let frame = Request::Socket { identity: identity.clone(), domain: 0, kind: 0, protocol: 0 }.encode()?;
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..frame.len()).ok_or(Malformed::Length(frame.len()))?.copy_from_slice(&frame);
        Ok(Self { bytes, length: frame.len() })
    }

    /// The frame for a socket with these arguments of socket(2).
    pub fn with(&self, domain: i32, kind: i32, protocol: i32) -> Self {
        let mut frame = self.clone();
        let arguments = [domain, kind, protocol].map(i32::to_be_bytes);
        frame.bytes[self.length - ARGUMENTS..self.length].copy_from_slice(arguments.as_flattened());
        frame
    }

    /// The bytes to send, header included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What became of [`Request::Socket`].
#[derive(Debug, PartialEq, Eq)]
pub enum SocketReply<'a> {
    /// One descriptor is beside the reply.
    Descriptor,
    /// It did not work: error number for the program, message for people.
    Failed(i32, &'a str),
}

impl<'a> SocketReply<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// When it is neither of the two replies that [`Request::Socket`] may have.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut from = super::bytes::Reader::new(body)?;
        let reply = match from.u8()? {
            1 => Self::Descriptor,
            7 => Self::Failed(from.i32()?, from.str(MAX_MESSAGE)?),
            tag => return Err(Malformed::Tag(tag)),
        };
        from.finish(reply)
    }
}
