//! What a server says of sessions that it does not have: of those that ended a while ago how they ended, of others that they are gone.

use super::seal::{End, Sealer, Secret};
use crate::crypto::{SigningKey, VerifyingKey};
use crate::wire::session::{AttemptId, Message, ResetCode, Sealed};

const CONTEXT: &str = "phantom v1 session gone";

/// What is left of a session that is over, for a client that has not heard of its end.
#[derive(Clone)]
pub struct Tombstone {
    secret: Secret,
    last: Sealed<'static>,
    reset: Option<ResetCode>,
}

impl Tombstone {
    pub(super) fn new(secret: Secret, last: Sealed<'static>, reset: Option<ResetCode>) -> Self {
        Self { secret, last, reset }
    }

    /// The answer to this attempt.
    // protocol: S39
    pub fn answer(&self, attempt: u32) -> Vec<u8> {
        let (mut sealer, mut out) = (Sealer::new(&self.secret, attempt, End::Server), Vec::new());
        sealer.say(&self.last, &mut out);
        if let Some(code) = self.reset {
            sealer.say(&Sealed::Reset(code), &mut out);
        }
        out
    }
}

impl std::fmt::Debug for Tombstone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tombstone(…)")
    }
}

/// A server's answer to an attempt that it cannot know.
// protocol: S38
pub fn gone(key: &SigningKey, id: &AttemptId) -> Vec<u8> {
    let mut out = Vec::new();
    Message::Gone(key.sign(CONTEXT, id)).write(&mut out);
    out
}

pub(super) fn is_gone(owner: &VerifyingKey, id: &AttemptId, signature: &[u8; 64]) -> bool {
    owner.verify(CONTEXT, id, signature).is_ok()
}
