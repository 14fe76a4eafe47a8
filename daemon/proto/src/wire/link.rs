//! How nodes recognise each other inside a link (docs/protocol.md, section "Link").
//!
//! ```text
//! dialer                                            acceptor
//!   TLS 1.3 ──────────────────────────────────────────▶  e = exporter(EXPORTER-phantom-v1-link)
//!   GET … Upgrade: websocket, Cookie: sid=token ──────▶  token = mac(link secret, "token" ‖ e)
//!   ◀──────────────── 101, then key ‖ signature(server, e)
//!   key ‖ signature(client, e) ‖ purpose ─────────────▶  frames, or the database's streams
//! ```

use super::{Reader, Wire, WireError, Writer};
use crate::crypto::hash::same;
use crate::crypto::{Signature, SigningKey, VerifyingKey, keyed};

/// Label of the TLS exporter that binds token and signatures to one TLS session; no context, 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-phantom-v1-link";

/// Largest payload of a frame.
pub const MAX_FRAME: usize = 131_072;

/// Length of a frame's header: kind(1) ‖ length(3).
pub const FRAME_HEADER: usize = 4;

/// Kind and payload length of a frame's header; fails above [`MAX_FRAME`].
pub fn frame_header(header: [u8; FRAME_HEADER]) -> Result<(u8, usize), WireError> {
    let [kind, a, b, c] = header;
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    if len > MAX_FRAME { Err(WireError::TooLong) } else { Ok((kind, len)) }
}

/// The header of a frame; `len` is at most [`MAX_FRAME`].
pub fn write_frame_header(kind: u8, len: usize) -> Result<[u8; FRAME_HEADER], WireError> {
    let [_, a, b, c] = u32::try_from(len).map_err(|_| WireError::TooLong)?.to_be_bytes();
    if len > MAX_FRAME { Err(WireError::TooLong) } else { Ok([kind, a, b, c]) }
}

/// What a link is for; its dialer says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The network database's streams.
    Database = 1,
    /// Frames: path building, standing connections, tunnels.
    Frames = 2,
}

/// The exporter value of a TLS session.
pub type Exporter = [u8; 32];

/// The membership token for the node with this link secret, in this TLS session.
pub fn token(link_secret: &[u8; 32], exporter: &Exporter) -> [u8; 32] {
    keyed(link_secret, &[b"token", exporter])
}

/// Whether `offered` is the token; takes the same time for any offer of the same length.
pub fn token_fits(link_secret: &[u8; 32], exporter: &Exporter, offered: &[u8]) -> bool {
    same(&token(link_secret, exporter), offered)
}

/// Which side proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node that dialed.
    Client,
    /// The node that accepted.
    Server,
}

impl Role {
    fn context(self) -> &'static str {
        match self {
            Self::Client => "phantom v1 link client",
            Self::Server => "phantom v1 link server",
        }
    }
}

/// A node's proof of its identity: key(32) ‖ signature(64).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    key: VerifyingKey,
    signature: Signature,
}

impl Proof {
    /// Length in bytes.
    pub const LEN: usize = 96;

    /// The proof of `key`'s holder in one TLS session.
    pub fn new(key: &SigningKey, role: Role, exporter: &Exporter) -> Self {
        Self { key: key.verifying_key(), signature: key.sign(role.context(), exporter) }
    }

    /// The proven key, if the proof holds in this TLS session.
    pub fn check(&self, role: Role, exporter: &Exporter) -> Option<VerifyingKey> {
        self.key.verify(role.context(), exporter, &self.signature).ok()?;
        Some(self.key)
    }
}

impl Wire for Proof {
    fn write(&self, out: &mut Writer) {
        out.bytes(&self.key.0);
        out.bytes(&self.signature);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { key: VerifyingKey(reader.array()?), signature: reader.array()? })
    }
}

impl Wire for Purpose {
    fn write(&self, out: &mut Writer) {
        out.u8(*self as u8);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8()? {
            1 => Ok(Self::Database),
            2 => Ok(Self::Frames),
            _ => Err(WireError::Value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(kind: u8, len in 0usize..=MAX_FRAME) {
            prop_assert_eq!(frame_header(write_frame_header(kind, len).unwrap()), Ok((kind, len)));
        }

        #[test]
        fn any_header_is_read(header: [u8; 4]) {
            if let Ok((kind, len)) = frame_header(header) {
                prop_assert_eq!(write_frame_header(kind, len), Ok(header));
            }
        }
    }

    /// I5: neither token nor proof of one TLS session is worth anything in another, or in the other role.
    #[test]
    fn everything_is_bound_to_its_session() {
        let key = SigningKey::from_seed(&[1; 32]);
        let proof = Proof::from_bytes(&Proof::new(&key, Role::Client, &[1; 32]).to_bytes()).unwrap();
        assert_eq!(proof.check(Role::Client, &[1; 32]), Some(key.verifying_key()));
        assert_eq!(proof.check(Role::Client, &[2; 32]), None);
        assert_eq!(proof.check(Role::Server, &[1; 32]), None);
        assert!(token_fits(&[5; 32], &[1; 32], &token(&[5; 32], &[1; 32])));
        assert!(!token_fits(&[5; 32], &[2; 32], &token(&[5; 32], &[1; 32])));
        assert!(!token_fits(&[5; 32], &[1; 32], &token(&[6; 32], &[1; 32])));
        assert!(!token_fits(&[5; 32], &[1; 32], b""));
    }
}
