//! What proves, on another tunnel, that a session goes on with the same two ends (docs/protocol.md, section "Session").

use rustls::Connection;
use zeroize::Zeroizing;

use super::SessionError;
use crate::crypto::hash::{Hash32, keyed, same};

/// The key of a session's resume tokens: from its TLS, so that only its two ends have it.
pub struct ResumeKey {
    key: Zeroizing<Hash32>,
    session: [u8; 16],
}

/// Which end a token is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Asks to go on.
    Client,
    /// Answers.
    Server,
}

impl ResumeKey {
    /// From a TLS whose handshake is complete.
    pub(super) fn of(tls: &Connection, session: [u8; 16]) -> Result<Self, SessionError> {
        let key = tls.export_keying_material(Zeroizing::new([0; 32]), b"EXPORTER-phantom-v1-resume", None)?;
        Ok(Self { key, session })
    }

    /// The token of one attempt. `attempt` counts up from 1, so that a token is of use once; `offset` is what `end` has received.
    // protocol: S17
    pub fn token(&self, end: End, attempt: u32, offset: u64) -> Hash32 {
        let end: &[u8] = match end {
            End::Client => b"client",
            End::Server => b"server",
        };
        keyed(&self.key, &[b"resume", end, &self.session, &attempt.to_be_bytes(), &offset.to_be_bytes()])
    }

    /// Whether a token is right; in constant time.
    pub fn check(&self, end: End, attempt: u32, offset: u64, token: &Hash32) -> bool {
        same(&self.token(end, attempt, offset), token)
    }
}

impl std::fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by scripts/vectors/resume.py.
    // protocol: S17
    #[test]
    fn independently_computed_tokens() {
        let key = ResumeKey { key: Zeroizing::new([7; 32]), session: [0xab; 16] };
        let mut count = 0;
        for line in include_str!("../../vectors/resume.txt").lines().filter(|line| !line.starts_with('#')) {
            let [end, attempt, offset, token] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let end = if end == "client" { End::Client } else { End::Server };
            let token = hex::decode(token).unwrap().try_into().unwrap();
            let (attempt, offset) = (attempt.parse().unwrap(), offset.parse().unwrap());
            assert!(key.check(end, attempt, offset, &token));
            assert!(!key.check(end, attempt + 1, offset, &token) && !key.check(end, attempt, offset + 1, &token));
            count += 1;
        }
        assert_eq!(count, 3);
        assert_eq!(format!("{key:?}"), "ResumeKey(…)");
    }
}
