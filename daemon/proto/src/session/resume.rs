//! How a session goes on when its full connection is gone: the client asks over another one, the server finds that it is the client.

use super::seal::{End, Secret};
use super::{AHEAD, Channel, Event, Phase, Session, SessionError, Tombstone, gone, knock};
use crate::crypto::VerifyingKey;
use crate::wire::session::{HEADER, Message, ResetCode, Sealed};

impl Session {
    /// The full connection is gone. Before the session stands that is its end.
    // protocol: S15
    pub fn far_lost(&mut self) {
        (self.channel, self.partial) = (None, Vec::new());
        self.control.clear();
        if !matches!(self.phase, Phase::Open(_)) {
            self.give_up();
        }
    }

    /// Nothing leads on any more. What is not over is reset.
    pub fn give_up(&mut self) {
        if !self.is_over() {
            self.events.push_back(Event::Reset);
            self.reset_by_us = Some(ResetCode::Aborted);
        }
        self.over = true;
    }

    /// Whether it stands, and another full connection would help: bytes may have to go, or the other end has not heard the end.
    pub fn wants_tunnel(&self) -> bool {
        let open = matches!(self.phase, Phase::Open(_)) && self.channel.is_none();
        open && (!self.is_over() || self.last_word.is_some())
    }

    /// Whether the other end has proven itself on the present full connection.
    pub fn is_proven(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.heard)
    }

    /// Whether a message has opened since this was last asked: bytes of one that does not may be anybody's.
    // protocol: S48
    pub fn has_opened(&mut self) -> bool {
        self.channel.as_mut().is_some_and(|channel| std::mem::take(&mut channel.opened))
    }

    /// Whether something was sent on the present full connection of which the other end has not said that it came.
    // protocol: S48
    pub fn is_owed(&self) -> bool {
        self.secret().is_some() && self.channel.is_some() && !self.is_over() && self.stream.is_owed()
    }

    /// Whether something has come of which the other end was not told so.
    pub fn has_unsaid(&self) -> bool {
        self.secret().is_some() && self.channel.is_some() && !self.is_over() && self.stream.has_unsaid()
    }

    /// Says of all that has come that it has, also when it is little, and when it was said before: so the other end knows that this one
    /// is there.
    // protocol: S47
    pub fn acknowledge_all(&mut self) {
        let stands = self.secret().is_some() && !self.is_over();
        if self.has_unsaid() {
            self.acknowledge(true);
        } else if let Some(channel) = self.channel.as_mut().filter(|_| stands) {
            channel.sealer.say(&self.stream.again(), &mut self.control);
        }
    }

    /// Client: begins the next attempt; its first flight waits in [`Session::take_far`]. An error: there have been too many.
    // protocol: S33, S35
    pub fn resume(&mut self) -> Result<(), SessionError> {
        let (Phase::Open(secret), Some(owner), true) = (&self.phase, &self.owner, self.wants_tunnel()) else {
            return Err(SessionError::Local("resumes what needs no tunnel"));
        };
        if self.attempt >= self.proven.saturating_add(AHEAD) {
            return Err(SessionError::Local("too many attempts"));
        }
        self.attempt += 1;
        let id = secret.id(self.attempt);
        let mut channel = Channel::new(secret, self.attempt, self.here);
        Message::Resume { id, knock: knock::resume(owner, &id) }.write(&mut self.control);
        channel.sealer.say(&self.stream.go_on(), &mut self.control);
        self.channel = Some(channel);
        Ok(())
    }

    /// Server: somebody asks to go on with this attempt, and said this behind RESUME. An error: it is not the client, or it comes too
    /// late; nothing has changed then.
    // protocol: S34
    pub fn resume_on(&mut self, attempt: u32, bytes: &[u8]) -> Result<(), SessionError> {
        let Phase::Open(secret) = &self.phase else { return Err(SessionError::Lost("it does not stand")) };
        if attempt <= self.attempt || self.is_over() {
            return Err(SessionError::Lost("a later attempt has won"));
        }
        let First { mut channel, arrived, taken, len } = first(secret, attempt, bytes)?;
        (self.attempt, self.proven, channel.heard) = (attempt, attempt, true);
        self.partial.clear();
        self.control.clear();
        channel.sealer.say(&self.stream.go_on(), &mut self.control);
        self.channel = Some(channel);
        match self.stream.learn(arrived, taken) {
            Ok(()) => self.far_input(&bytes[len..]),
            Err(error) => {
                self.reset(ResetCode::Protocol);
                Err(error)
            }
        }
    }

    /// By what the client will ask to go on. `None` before the session stands.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.phase {
            Phase::Open(secret) => Some(secret),
            _ => None,
        }
    }

    /// Client: whom it dialed.
    pub fn owner(&self) -> Option<VerifyingKey> {
        self.owner
    }

    /// The present attempt.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Server: what a client will still have to hear that has not heard of the end.
    pub fn tombstone(&self) -> Option<Tombstone> {
        let secret = self.secret().filter(|_| self.is_over())?;
        Some(Tombstone::new(secret.clone(), self.stream.last_word(), self.reset_by_us))
    }

    /// Client: whether the server has said of the present attempt that it knows no such session.
    // protocol: S38
    pub(super) fn is_gone(&self, signature: &[u8; 64]) -> bool {
        let (Some(owner), Some(secret)) = (&self.owner, self.secret()) else { return false };
        self.attempt > self.proven && gone::is_gone(owner, &secret.id(self.attempt), signature)
    }
}

/// The first message of an attempt, as it proves the client.
struct First {
    channel: Channel,
    arrived: u64,
    taken: u64,
    /// Its length.
    len: usize,
}

/// Whether somebody who has this secret said this in this attempt.
pub(super) fn proves(secret: &Secret, attempt: u32, said: &[u8]) -> bool {
    first(secret, attempt, said).is_ok()
}

// protocol: S34, S35
fn first(secret: &Secret, attempt: u32, said: &[u8]) -> Result<First, SessionError> {
    let mut channel = Channel::new(secret, attempt, End::Server);
    let Ok(Some((Message::Sealed(_), len))) = Message::read(said) else {
        return Err(SessionError::Lost("nothing proves it"));
    };
    let mut sealed = said[HEADER..len].to_vec();
    let Sealed::Ack { arrived, taken } = channel.opener.open(&mut sealed)? else {
        return Err(SessionError::Lost("it does not begin with ACK"));
    };
    Ok(First { channel, arrived, taken, len })
}
