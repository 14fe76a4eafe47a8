//! How a session begins: HELLO and knock, mutual TLS with the verdict in it, and from it the secret of all that follows.

use std::sync::Arc;

use rand::CryptoRng;
use rustls::Connection;

use super::knock::{self, hello};
use super::seal::Secret;
use super::{SessionError, tls};
use crate::crypto::{SigningKey, VerifyingKey};
use crate::ident::ApAddress;
use crate::wire::session::{DATA_MAX, Hello, Message};

/// Bytes of a client's TLS that may wait for the verdict: its first flight.
// protocol: S21
const HELD: usize = 64 * 1024;

/// What there is of a session before its two ends have a secret.
pub(super) struct Begin {
    side: Side,
    /// A server's begins with its verdict.
    tls: Option<Connection>,
    /// What came for a TLS that has not begun.
    held: Vec<u8>,
}

enum Side {
    Client { owner: VerifyingKey },
    Server { key: Arc<SigningKey>, hello: Option<Hello>, port: Option<u16> },
}

/// How the handshake went on.
pub(super) enum Step {
    /// It is not done.
    Goes,
    /// Server: somebody who knows the address wants this port.
    Asks(u16),
    /// Client: nothing listens there.
    Refused,
    /// Both ends are who they must be; this is whom the other end's key makes it.
    Done(Secret, ApAddress),
}

impl Begin {
    /// A client, and its first messages at the end of `out`.
    pub(super) fn client(
        rng: &mut dyn CryptoRng,
        tls: Connection,
        owner: &VerifyingKey,
        port: u16,
        out: &mut Vec<u8>,
    ) -> Result<Self, SessionError> {
        let mut begin = Self { side: Side::Client { owner: *owner }, tls: Some(tls), held: Vec::new() };
        let first = begin.flight()?;
        let mut session = [0; 16];
        rng.fill_bytes(&mut session);
        Message::Hello(hello(owner, session, port, &first)).write(out);
        write_tls(&first, out);
        Ok(begin)
    }

    /// A server, before anybody has said anything.
    pub(super) fn server(key: Arc<SigningKey>) -> Self {
        Self { side: Side::Server { key, hello: None, port: None }, tls: None, held: Vec::new() }
    }

    /// Whether nobody has shown yet that it knows the address.
    pub(super) fn by_stranger(&self) -> bool {
        matches!(self.side, Side::Server { port: None, .. })
    }

    /// Server: whether something listens.
    pub(super) fn verdict(&mut self, accepted: bool, out: &mut Vec<u8>) -> Result<Step, SessionError> {
        let Side::Server { key, port: Some(_), .. } = &self.side else {
            return Err(SessionError::Local("a verdict that nobody asked for"));
        };
        if self.tls.is_some() {
            return Err(SessionError::Local("a second verdict"));
        }
        self.tls = Some(tls::server(key, accepted)?.into());
        let held = std::mem::take(&mut self.held);
        self.tls_input(&held, out)
    }

    /// Takes a message; what there is to answer goes to the end of `out`.
    // protocol: S20
    pub(super) fn message(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<Step, SessionError> {
        if self.by_stranger() {
            return self.stranger(message);
        }
        match message {
            Message::Tls(bytes) => self.tls_input(bytes, out),
            Message::Hello(_) => Err(SessionError::Misbehaved("a second HELLO")),
            _ => Err(SessionError::Misbehaved("not before the handshake is done")),
        }
    }

    /// Server: a message of somebody who has not shown yet that it knows the address.
    // protocol: S24, S25, S26
    fn stranger(&mut self, message: Message<'_>) -> Result<Step, SessionError> {
        let Side::Server { key, hello, port } = &mut self.side else { return Ok(Step::Goes) };
        match (message, hello.take()) {
            (Message::Hello(first), None) => {
                *hello = Some(first);
                Ok(Step::Goes)
            }
            (Message::Tls(bytes), Some(first)) => {
                let wanted = knock::wanted(&key.verifying_key(), &first, bytes);
                let wanted = wanted.ok_or(SessionError::Misbehaved("does not know the address"))?;
                *port = Some(wanted);
                self.held.extend_from_slice(bytes);
                Ok(Step::Asks(wanted))
            }
            _ => Err(SessionError::Misbehaved("does not begin with HELLO")),
        }
    }

    fn tls_input(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<Step, SessionError> {
        let Some(tls) = &mut self.tls else {
            if self.held.len() + bytes.len() > HELD {
                return Err(SessionError::Misbehaved("does not wait for the verdict"));
            }
            self.held.extend_from_slice(bytes);
            return Ok(Step::Goes);
        };
        while !bytes.is_empty() {
            // After its end TLS takes nothing, and would for ever.
            if tls.read_tls(&mut bytes).map_err(|_| SessionError::Misbehaved("too many bytes at once"))? == 0 {
                return Err(SessionError::Misbehaved("bytes after the end"));
            }
            let state = tls.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                return Err(SessionError::Misbehaved("TLS is for the handshake only"));
            }
        }
        let flight = self.flight()?;
        write_tls(&flight, out);
        self.done()
    }

    /// After the handshake: the verdict, and who the other end is.
    // protocol: S8, S9, S10
    fn done(&self) -> Result<Step, SessionError> {
        let Some(tls) = self.tls.as_ref().filter(|tls| !tls.is_handshaking()) else { return Ok(Step::Goes) };
        let key = tls.peer_certificates().and_then(|chain| tls::ap_key(chain.first()?));
        let key = key.ok_or(SessionError::Misbehaved("no AP key"))?;
        match (&self.side, tls.alpn_protocol()) {
            (Side::Client { owner }, _) if *owner != key => {
                Err(SessionError::Misbehaved("the AP record has another key"))
            }
            (_, Some(tls::ACCEPTED)) => Ok(Step::Done(Secret::of(tls)?, ApAddress::of(&key))),
            (Side::Client { .. }, Some(tls::REFUSED)) => Ok(Step::Refused),
            _ => Err(SessionError::Misbehaved("speaks no version of this protocol")),
        }
    }

    /// What TLS wants to send.
    fn flight(&mut self) -> Result<Vec<u8>, SessionError> {
        let mut flight = Vec::new();
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            tls.write_tls(&mut flight).map_err(|_| SessionError::Local("TLS cannot write"))?;
        }
        Ok(flight)
    }
}

#[cfg(test)]
impl Begin {
    /// As if the record had named another key.
    pub(super) fn wants(&mut self, key: VerifyingKey) {
        self.side = Side::Client { owner: key };
    }

    pub(super) fn has_begun_tls(&self) -> bool {
        self.tls.is_some() || self.held.capacity() > 0
    }
}

fn write_tls(flight: &[u8], out: &mut Vec<u8>) {
    flight.chunks(DATA_MAX).for_each(|bytes| Message::Tls(bytes).write(out));
}
