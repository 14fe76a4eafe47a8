//! How nodes recognise each other inside a link (docs/protocol.md, section "Link").
//!
//! ```text
//! dialer                                            acceptor
//!   TLS 1.3 ──────────────────────────────────────────▶  e = exporter(EXPORTER-phantom-v1-link)
//!   GET … Upgrade: websocket, Cookie: sid=token ──────▶  token = mac(link secret, "token" ‖ e)
//!   ◀──────────── 101, then S ‖ sign(server, e ‖ S)      S = the acceptor's identity key
//!   C ‖ sign(client, e ‖ S ‖ C) ‖ purpose ────────────▶  C = the dialer's identity key
//! ```
//!
//! The acceptor shows its key only to who knows its link secret; the dialer shows its own only to the node it dialed.

use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::{Reader, Wire, WireError, Writer};
use crate::crypto::hash::same;
use crate::crypto::{CryptoError, Signature, SigningKey, VerifyingKey, derive, keyed};

/// Label of the TLS exporter that binds token and signatures to one TLS session; no context, 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-phantom-v1-link";

/// Largest payload of a frame.
pub const MAX_FRAME: usize = 131_072;

/// Length of a frame's header: kind(1) ‖ length(3).
pub const FRAME_HEADER: usize = 4;

/// Kind and payload length of a frame's header; fails above [`MAX_FRAME`].
// protocol: F1
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
// protocol: L18
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

/// The name of the cookie that carries the token.
const COOKIE: &str = "sid=";

/// The membership token for the node with this link secret, in this TLS session.
fn token(link_secret: &[u8; 32], exporter: &Exporter) -> [u8; 32] {
    keyed(link_secret, &[b"token", exporter])
}

/// The value of the Cookie header with which a dialer proves that it knows the node's record.
// protocol: L6
pub fn token_cookie(link_secret: &[u8; 32], exporter: &Exporter) -> String {
    format!("{COOKIE}{}", BASE64URL_NOPAD.encode(&token(link_secret, exporter)))
}

/// Whether a request's Cookie header proves that its sender knows this node's record.
///
/// The MAC is computed for every request, with a cookie or without, and compared in constant time; only the offer's
/// length, which its sender knows, shows in the time. A cookie has one form, so nothing that was offered is decoded.
// protocol: L10
pub fn cookie_proves(link_secret: &[u8; 32], exporter: &Exporter, cookie: Option<&[u8]>) -> bool {
    same(token_cookie(link_secret, exporter).as_bytes(), cookie.unwrap_or_default())
}

/// The `Sec-WebSocket-Key` of a dialer's request: 16 bytes as unpredictable as the session itself.
// protocol: L8
pub fn websocket_key(exporter: &Exporter) -> String {
    BASE64.encode(&derive("phantom v1 link websocket key", &[exporter])[..16])
}

/// Which side proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node that dialed; it speaks to the node with this key, and to no other.
    Client(VerifyingKey),
    /// The node that accepted. It proves itself first, not knowing to whom.
    Server,
}

impl Role {
    fn context(self) -> &'static str {
        match self {
            Self::Client(_) => "phantom v1 link client",
            Self::Server => "phantom v1 link server",
        }
    }

    /// What a node with identity `key` signs in this role.
    fn message(self, exporter: &Exporter, key: &VerifyingKey) -> Vec<u8> {
        match self {
            Self::Client(server) => [*exporter, server.0, key.0].concat(),
            Self::Server => [*exporter, key.0].concat(),
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
        let public = key.verifying_key();
        Self { key: public, signature: key.sign(role.context(), &role.message(exporter, &public)) }
    }

    /// The proven key, if the proof holds in this TLS session and this role.
    pub fn check(&self, role: Role, exporter: &Exporter) -> Result<VerifyingKey, CryptoError> {
        self.key.verify(role.context(), &role.message(exporter, &self.key), &self.signature)?;
        Ok(self.key)
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

/// What the dialer says last before the link is open: its proof and what it wants the link for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The dialer's proof.
    pub proof: Proof,
    /// What the link is for.
    pub purpose: Purpose,
}

impl Opening {
    /// Length in bytes.
    pub const LEN: usize = Proof::LEN + 1;
}

/// proof(96) ‖ purpose(1).
impl Wire for Opening {
    fn write(&self, out: &mut Writer) {
        self.proof.write(out);
        self.purpose.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { proof: Proof::read(reader)?, purpose: Purpose::read(reader)? })
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_round_trip(kind: u8, len in 0usize..=MAX_FRAME) {
            prop_assert_eq!(frame_header(write_frame_header(kind, len).unwrap()), Ok((kind, len)));
        }

        // protocol: F1
        #[test]
        fn any_header_is_read_or_refused_for_its_length(header: [u8; 4]) {
            match frame_header(header) {
                Ok((kind, len)) => prop_assert_eq!(write_frame_header(kind, len), Ok(header)),
                Err(error) => {
                    prop_assert_eq!(error, WireError::TooLong);
                    prop_assert!(u32::from_be_bytes(header) & 0x00ff_ffff > 131_072);
                }
            }
        }

        // protocol: G1
        #[test]
        fn openings_have_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(opening) = Opening::from_bytes(&bytes) {
                prop_assert_eq!(opening.to_bytes(), bytes);
            }
        }

        #[test]
        fn openings_round_trip(key: [u8; 32], signature: [u8; 64], frames: bool) {
            let purpose = if frames { Purpose::Frames } else { Purpose::Database };
            let opening = Opening { proof: Proof { key: VerifyingKey(key), signature }, purpose };
            let bytes = opening.to_bytes();
            prop_assert_eq!(bytes.len(), Opening::LEN);
            prop_assert_eq!(Opening::from_bytes(&bytes), Ok(opening));
        }

        #[test]
        fn no_other_cookie_proves_anything(secret: [u8; 32], exporter: [u8; 32], cookie: Vec<u8>) {
            prop_assert!(!cookie_proves(&secret, &exporter, Some(&cookie)));
        }

        /// Any changed byte of a good cookie, any cut, any addition.
        // protocol: L10
        #[test]
        fn a_changed_cookie_proves_nothing(secret: [u8; 32], exporter: [u8; 32], at in 0usize..47, bit in 0u8..8) {
            let good = token_cookie(&secret, &exporter).into_bytes();
            prop_assert!(cookie_proves(&secret, &exporter, Some(&good)));
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            prop_assert!(!cookie_proves(&secret, &exporter, Some(&flipped)));
            prop_assert!(!cookie_proves(&secret, &exporter, Some(&good[..at])));
            prop_assert!(!cookie_proves(&secret, &exporter, Some(&[&good[..], b";"].concat())));
        }
    }

    #[test]
    fn too_large_a_frame_has_no_header() {
        assert_eq!(write_frame_header(1, MAX_FRAME + 1), Err(WireError::TooLong));
        assert_eq!(write_frame_header(1, 1 << 32), Err(WireError::TooLong));
    }

    #[test]
    fn no_cookie_proves_nothing() {
        assert!(!cookie_proves(&[1; 32], &[2; 32], None));
        assert!(!cookie_proves(&[1; 32], &[2; 32], Some(b"")));
    }

    /// I5: a token is worth nothing in another session or at another node.
    #[test]
    fn a_token_is_bound_to_session_and_node() {
        let cookie = token_cookie(&[5; 32], &[1; 32]);
        assert!(cookie_proves(&[5; 32], &[1; 32], Some(cookie.as_bytes())));
        assert!(!cookie_proves(&[5; 32], &[2; 32], Some(cookie.as_bytes())));
        assert!(!cookie_proves(&[6; 32], &[1; 32], Some(cookie.as_bytes())));
    }

    /// I5: a proof is worth nothing in another session, in the other role, or towards another server.
    #[test]
    fn a_proof_is_bound_to_session_role_and_server() {
        let key = SigningKey::from_seed(&[1; 32]);
        let (server, other) = (VerifyingKey([8; 32]), VerifyingKey([9; 32]));
        let proof = Proof::new(&key, Role::Client(server), &[1; 32]);
        assert_eq!(proof.check(Role::Client(server), &[1; 32]), Ok(key.verifying_key()));
        assert_eq!(proof.check(Role::Client(server), &[2; 32]), Err(CryptoError));
        assert_eq!(proof.check(Role::Client(other), &[1; 32]), Err(CryptoError));
        assert_eq!(proof.check(Role::Server, &[1; 32]), Err(CryptoError));
        let forged = Proof { key: other, ..proof };
        assert_eq!(forged.check(Role::Client(server), &[1; 32]), Err(CryptoError));
    }

    /// Lines of name and hex, computed by scripts/vectors/link.py.
    // protocol: L6, L8, L16, L18, F1, F4
    #[test]
    fn vectors() {
        let text = include_str!("../../vectors/link.txt");
        let vector = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            hex::decode(line.unwrap_or_else(|| panic!("no vector {name}"))).unwrap()
        };
        let exporter: Exporter = vector("exporter").try_into().unwrap();
        let secret: [u8; 32] = vector("link-secret").try_into().unwrap();
        let [server, client] =
            ["server-seed", "client-seed"].map(|name| SigningKey::from_seed(&vector(name).try_into().unwrap()));
        assert_eq!(token_cookie(&secret, &exporter).as_bytes(), vector("cookie"));
        assert_eq!(websocket_key(&exporter).as_bytes(), vector("websocket-key"));
        assert_eq!(Proof::new(&server, Role::Server, &exporter).to_bytes(), vector("server-proof"));
        let proof = Proof::new(&client, Role::Client(server.verifying_key()), &exporter);
        let opening = Opening { proof, purpose: Purpose::Frames };
        assert_eq!(opening.to_bytes(), vector("opening"));
        assert_eq!(Opening::from_bytes(&vector("opening")), Ok(opening));
        assert_eq!(write_frame_header(1, MAX_FRAME).unwrap().to_vec(), vector("largest-header"));
        let too_large: [u8; FRAME_HEADER] = vector("too-large-header").try_into().unwrap();
        assert_eq!(frame_header(too_large), Err(WireError::TooLong));
        assert_eq!(Opening::from_bytes(&vector("refused-opening")), Err(WireError::Value));
    }
}
