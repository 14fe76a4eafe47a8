//! What only the two ends of a session can say and know: sealed messages and the ids of attempts, from a secret of its TLS.

use rustls::Connection;
use zeroize::Zeroizing;

use super::SessionError;
use crate::crypto::aead::BulkKey;
use crate::crypto::hash::{Hash32, derive};
use crate::wire::session::{AttemptId, HEADER, Sealed};

/// Messages under one key: less than a fourth of what AES-GCM bears before it can be told from noise (RFC 8446, section 5.5).
// protocol: S30
const MESSAGES_PER_KEY: u64 = 1 << 22;

/// Which end says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Dials.
    Client,
    /// Is dialed.
    Server,
}

impl End {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Server => b"server",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// From a session's TLS, so that only its two ends have it; all keys and ids of its attempts derive from it.
#[derive(Clone)]
pub struct Secret(Zeroizing<Hash32>);

impl Secret {
    /// From a TLS whose handshake is complete.
    // protocol: S28
    pub(super) fn of(tls: &Connection) -> Result<Self, SessionError> {
        Ok(Self(tls.export_keying_material(Zeroizing::new([0; 32]), b"EXPORTER-phantom-v1-session", None)?))
    }

    pub(super) fn of_bytes(bytes: Zeroizing<Hash32>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &Hash32 {
        &self.0
    }

    /// The id by which the client asks to go on, at this attempt.
    // protocol: S31
    pub fn id(&self, attempt: u32) -> AttemptId {
        let id = derive("phantom v1 session attempt", &[&*self.0, &attempt.to_be_bytes()]);
        id.first_chunk().copied().unwrap_or_default()
    }

    // protocol: S29, S30
    fn key(&self, attempt: u32, from: End, number: u64) -> BulkKey {
        let [attempt, part] = [&attempt.to_be_bytes()[..], &(number / MESSAGES_PER_KEY).to_be_bytes()];
        BulkKey::new(&Zeroizing::new(derive("phantom v1 session seal", &[&*self.0, attempt, from.label(), part])))
    }
}

#[cfg(test)]
impl Secret {
    pub(super) fn test(byte: u8) -> Self {
        Self(Zeroizing::new([byte; 32]))
    }

    pub(super) fn of_number(number: usize) -> Self {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn hex(&self) -> String {
        hex::encode(*self.0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One direction of one attempt: a key, and the number of the next message.
struct Line {
    secret: Secret,
    attempt: u32,
    from: End,
    key: BulkKey,
    next: u64,
}

impl Line {
    fn new(secret: &Secret, attempt: u32, from: End) -> Self {
        Self { secret: secret.clone(), attempt, from, key: secret.key(attempt, from, 0), next: 0 }
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next.is_multiple_of(MESSAGES_PER_KEY) {
            self.key = self.secret.key(self.attempt, self.from, self.next);
        }
    }
}

/// Seals what one end says in one attempt.
pub(super) struct Sealer(Line);

impl Sealer {
    pub(super) fn new(secret: &Secret, attempt: u32, from: End) -> Self {
        Self(Line::new(secret, attempt, from))
    }

    /// Appends a message with this in it.
    pub(super) fn say(&mut self, what: &Sealed<'_>, out: &mut Vec<u8>) {
        let from = out.len() + HEADER;
        what.write_message(out);
        self.0.key.seal(self.0.next, out, from);
        self.0.advance();
    }
}

/// Opens what one end says in one attempt, in order.
pub(super) struct Opener(Line);

impl Opener {
    pub(super) fn new(secret: &Secret, attempt: u32, from: End) -> Self {
        Self(Line::new(secret, attempt, from))
    }

    /// Opens the next message in place. An error: it is not what that end said next, and nothing after it can be.
    pub(super) fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<Sealed<'a>, SessionError> {
        let plain = self.0.key.open(self.0.next, sealed).map_err(|_| SessionError::Lost("what does not open"))?;
        self.0.advance();
        Sealed::read(plain).map_err(|_| SessionError::Misbehaved("malformed message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by scripts/vectors/seal.py.
    // protocol: S29, S30, S31
    #[test]
    fn independently_computed() {
        let secret = Secret::test(7);
        let mut count = 0;
        for line in include_str!("../../vectors/seal.txt").lines().filter(|line| !line.starts_with('#')) {
            let [attempt, end, number, id, plain, sealed] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (attempt, number) = (attempt.parse().unwrap(), number.parse().unwrap());
            let end = if end == "client" { End::Client } else { End::Server };
            assert_eq!(hex::encode(secret.id(attempt)), id);
            let (plain, sealed) = (hex::decode(plain).unwrap(), hex::decode(sealed).unwrap());
            let what = Sealed::read(&plain).unwrap();
            let mut out = Vec::new();
            let mut sealer = Sealer(at(&secret, attempt, end, number));
            sealer.say(&what, &mut out);
            assert_eq!(hex::encode(&out), hex::encode(&sealed));
            let mut opener = Opener(at(&secret, attempt, end, number));
            assert_eq!(opener.open(&mut out[HEADER..]), Ok(what));
            for other in [
                at(&secret, attempt + 1, end, number),
                at(&secret, attempt, end.other(), number),
                at(&secret, attempt, end, number + 1),
                at(&Secret::test(8), attempt, end, number),
            ] {
                assert!(Opener(other).open(&mut sealed[HEADER..].to_vec()).is_err());
            }
            count += 1;
        }
        assert_eq!(count, 4);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    fn at(secret: &Secret, attempt: u32, from: End, number: u64) -> Line {
        Line { next: number, key: secret.key(attempt, from, number), ..Line::new(secret, attempt, from) }
    }

    // protocol: S30
    #[test]
    fn a_key_is_used_for_so_many_messages() {
        let secret = Secret::test(7);
        let last = || at(&secret, 0, End::Client, MESSAGES_PER_KEY - 1);
        let (mut sealer, mut opener) = (Sealer(last()), Opener(last()));
        let mut out = Vec::new();
        for offset in 0..2 {
            out.clear();
            sealer.say(&Sealed::Fin(offset), &mut out);
            assert_eq!(opener.open(&mut out[HEADER..]), Ok(Sealed::Fin(offset)));
        }
        let mut fresh = Opener(at(&secret, 0, End::Client, MESSAGES_PER_KEY));
        let mut first = Vec::new();
        let mut sealer = Sealer(Line { next: MESSAGES_PER_KEY, ..last() });
        sealer.say(&Sealed::Fin(1), &mut first);
        assert!(fresh.open(&mut first[HEADER..]).is_err(), "still the key before");
    }
}
