//! A session: mutual TLS between two AP keys over a resumable stream, with TCP's semantics for the programs at its ends.
//!
//! ```text
//! client                                                server
//!   HELLO port, ClientHello ──────────────────────────▶   does anything listen on the port?
//!   ◀──── ServerHello, verdict as ALPN, … Finished ────
//!   accepted: connect() returns
//!   Certificate … Finished, ports, program's bytes ───▶   peer = hash of its key; connect to the program
//! ```

mod stream;
mod tls;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use rand::CryptoRng;
use rustls::Connection;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::ident::ApAddress;
use crate::wire::session::{Message, ResetCode};
use stream::{Stream, WINDOW};

/// Bytes for the program that may wait here while arrivals are still acknowledged.
const BACKLOG: usize = 512 * 1024;

/// Bytes of a client's TLS that may wait for the verdict: its first flight.
const HELD: usize = 64 * 1024;

/// Why a session ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The other end, or a node between, broke the protocol.
    #[error("the other end misbehaved: {0}")]
    Misbehaved(&'static str),
    /// TLS refused: the other end is not who it must be, or bytes were changed.
    #[error("TLS refused: {0}")]
    Tls(String),
}

impl From<rustls::Error> for SessionError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

/// What a session tells its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Server: somebody wants this port; answer with [`Session::verdict`].
    Hello {
        /// Destination port.
        port: u16,
    },
    /// Client: something listens there, and the other end is the owner of the address.
    Accepted,
    /// Client: nothing listens there.
    Refused,
    /// Server: the client has proven its address; its bytes follow.
    Peer {
        /// The client's AP address.
        address: ApAddress,
        /// The port that its program connected from.
        src_port: u16,
        /// The port that it connected to.
        dst_port: u16,
    },
    /// No more bytes come, after those of [`Session::take_app`].
    End,
    /// The other end reset the connection.
    Reset,
}

enum Side {
    Client { target: ApAddress, record_seen: bool, verdict_seen: bool },
    Server { key: Arc<SigningKey>, port: Option<u16>, peer_told: bool },
}

/// One end of a session.
pub struct Session {
    side: Side,
    /// A server's begins with its verdict.
    tls: Option<Connection>,
    /// What came for a TLS that has not begun.
    held: Vec<u8>,
    stream: Stream,
    /// Bytes from far that are no whole message yet.
    partial: Vec<u8>,
    far_out: Vec<u8>,
    app_out: Vec<u8>,
    /// Bytes taken by the caller that the program has not.
    untaken: usize,
    events: VecDeque<Event>,
    app_ended: bool,
    ended_there: bool,
    over: bool,
}

impl Session {
    /// A client that wants `dst_port` of `target`; its first flight waits in [`Session::take_far`].
    pub fn connect(
        rng: &mut dyn CryptoRng,
        key: &SigningKey,
        target: ApAddress,
        dst_port: u16,
        src_port: u16,
    ) -> Result<Self, SessionError> {
        let side = Side::Client { target, record_seen: false, verdict_seen: false };
        let mut session = Self::new(side, Some(tls::client(key, target)?.into()));
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Message::Hello { session: id, port: dst_port }.write(&mut session.far_out);
        let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
        session.write_plain(&ports)?;
        session.flush_tls()?;
        Ok(session)
    }

    /// A server for one full connection that arrives.
    pub fn accept(key: Arc<SigningKey>) -> Self {
        Self::new(Side::Server { key, port: None, peer_told: false }, None)
    }

    fn new(side: Side, tls: Option<Connection>) -> Self {
        Self {
            side,
            tls: tls.map(unlimited),
            held: Vec::new(),
            stream: Stream::default(),
            partial: Vec::new(),
            far_out: Vec::new(),
            app_out: Vec::new(),
            untaken: 0,
            events: VecDeque::new(),
            app_ended: false,
            ended_there: false,
            over: false,
        }
    }

    /// Client: the key in the AP record that the exit node found. Must be known before the server's answer.
    pub fn expect_record(&mut self, key: &VerifyingKey) -> Result<(), SessionError> {
        let Side::Client { target, record_seen, .. } = &mut self.side else {
            return Err(SessionError::Misbehaved("a record for a server"));
        };
        if ApAddress::of(key) != *target {
            return Err(SessionError::Misbehaved("the AP record is of another address"));
        }
        *record_seen = true;
        Ok(())
    }

    /// Server: the answer to [`Event::Hello`].
    pub fn verdict(&mut self, accepted: bool) -> Result<(), SessionError> {
        let Side::Server { key, .. } = &self.side else {
            return Err(SessionError::Misbehaved("a verdict of a client"));
        };
        self.tls = Some(unlimited(tls::server(key, accepted)?.into()));
        let held = std::mem::take(&mut self.held);
        let result = self.tls_input(&held).and_then(|()| self.flush_tls());
        if result.is_err() {
            self.reset(ResetCode::Protocol);
        }
        // A refused client needs the first flight and nothing else.
        self.over |= !accepted;
        result
    }

    /// Bytes of the full connection that arrived. An error ends the session; tell the other end with [`Session::take_far`].
    pub fn far_input(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.over {
            return Ok(());
        }
        let result = self.far_bytes(bytes);
        if result.is_err() {
            self.reset(ResetCode::Protocol);
        }
        result
    }

    /// The full connection is gone. Without both ends' orderly end that is a reset.
    pub fn far_closed(&mut self) {
        if !self.over && !self.stream.ended_there() {
            self.events.push_back(Event::Reset);
        }
        self.over = true;
    }

    /// Whether bytes of the program are wanted: false while too many wait for acknowledgement.
    pub fn wants_app(&self) -> bool {
        !self.over && !self.app_ended && self.stream.in_flight() < WINDOW
    }

    /// Bytes of the program.
    pub fn app_input(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.write_plain(bytes)?;
        self.flush_tls()
    }

    /// The program sends no more.
    pub fn app_end(&mut self) -> Result<(), SessionError> {
        self.app_ended = true;
        self.flush_tls()
    }

    /// The program reset its connection.
    pub fn app_abort(&mut self) {
        self.reset(ResetCode::Aborted);
    }

    /// Moves bytes for the full connection to the end of `out`.
    pub fn take_far(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.far_out);
    }

    /// Moves bytes for the program to the end of `out`; say with [`Session::app_took`] when the program has them.
    pub fn take_app(&mut self, out: &mut Vec<u8>) {
        // What arrives before the peer is known begins with its ports, of which a part may be missing yet.
        if matches!(self.side, Side::Server { peer_told: false, .. }) {
            return;
        }
        self.untaken += self.app_out.len();
        out.append(&mut self.app_out);
    }

    /// The program has taken this many of the bytes of [`Session::take_app`].
    pub fn app_took(&mut self, count: usize) {
        self.untaken = self.untaken.saturating_sub(count);
        self.acknowledge();
    }

    /// Bytes that wait for the full connection.
    pub fn far_waiting(&self) -> usize {
        self.far_out.len()
    }

    /// Whether no more bytes for the program will come.
    pub fn app_is_over(&self) -> bool {
        self.over || self.ended_there
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Both directions have ended, orderly or not: nothing more will come or be taken.
    pub fn is_over(&self) -> bool {
        self.over || (self.stream.ended_here() && self.stream.ended_there())
    }

    fn far_bytes(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let mut input = std::mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((message, len)) =
            Message::read(&input[at..]).map_err(|_| SessionError::Misbehaved("malformed message"))?
        {
            self.message(message)?;
            at += len;
            if self.over {
                return Ok(());
            }
        }
        input.drain(..at);
        self.partial = input;
        self.flush_tls()?;
        self.acknowledge();
        Ok(())
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        if let Side::Server { port: port @ None, .. } = &mut self.side {
            let Message::Hello { port: wanted, .. } = message else {
                return Err(SessionError::Misbehaved("does not begin with HELLO"));
            };
            *port = Some(wanted);
            self.events.push_back(Event::Hello { port: wanted });
            return Ok(());
        }
        match message {
            Message::Hello { .. } => Err(SessionError::Misbehaved("a second HELLO")),
            Message::Data { offset, bytes } => {
                let new = self.stream.data(offset, bytes)?;
                self.tls_input(new)
            }
            Message::Ack(offset) => self.stream.ack(offset),
            Message::Fin(offset) => {
                self.stream.fin(offset)?;
                // The stream may end only after TLS said so: else somebody cut it.
                if self.ended_there { Ok(()) } else { Err(SessionError::Misbehaved("cut off before its end")) }
            }
            Message::Reset(_) => {
                self.over = true;
                self.events.push_back(Event::Reset);
                Ok(())
            }
        }
    }

    fn tls_input(&mut self, mut bytes: &[u8]) -> Result<(), SessionError> {
        let Some(tls) = &mut self.tls else {
            if self.held.len() + bytes.len() > HELD {
                return Err(SessionError::Misbehaved("does not wait for the verdict"));
            }
            self.held.extend_from_slice(bytes);
            return Ok(());
        };
        let mut ended = false;
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).map_err(|_| SessionError::Misbehaved("too many bytes at once"))?;
            let state = tls.process_new_packets()?;
            let start = self.app_out.len();
            self.app_out.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader()
                .read_exact(&mut self.app_out[start..])
                .map_err(|_| SessionError::Misbehaved("TLS gave fewer bytes than it had"))?;
            ended |= state.peer_has_closed();
        }
        self.preamble()?;
        if ended && !std::mem::replace(&mut self.ended_there, true) {
            self.check_complete()?;
            self.events.push_back(Event::End);
        }
        Ok(())
    }

    /// Reads the verdict from the finished handshake, or takes the ports off the front of what arrived.
    fn preamble(&mut self) -> Result<(), SessionError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        if tls.is_handshaking() {
            return Ok(());
        }
        match &mut self.side {
            Side::Client { record_seen, verdict_seen, .. } if !*verdict_seen => {
                if !*record_seen {
                    return Err(SessionError::Misbehaved("answers before its AP record is known"));
                }
                *verdict_seen = true;
                match tls.alpn_protocol() {
                    Some(tls::ACCEPTED) => self.events.push_back(Event::Accepted),
                    Some(tls::REFUSED) => {
                        self.events.push_back(Event::Refused);
                        self.over = true;
                    }
                    _ => return Err(SessionError::Misbehaved("undefined verdict")),
                }
                Ok(())
            }
            Side::Server { port, peer_told, .. } if !*peer_told => {
                let Some(ports) = self.app_out.first_chunk::<4>() else { return Ok(()) };
                let [a, b, c, d] = *ports;
                let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                if *port != Some(dst_port) {
                    return Err(SessionError::Misbehaved("HELLO named another port"));
                }
                let key = tls.peer_certificates().and_then(|chain| tls::ap_key(chain.first()?));
                let address = ApAddress::of(&key.ok_or(SessionError::Misbehaved("no AP key"))?);
                *peer_told = true;
                self.app_out.drain(..4);
                self.events.push_back(Event::Peer { address, src_port, dst_port });
                Ok(())
            }
            Side::Client { .. } | Side::Server { .. } => Ok(()),
        }
    }

    /// Nobody may end before verdict or ports were said.
    fn check_complete(&self) -> Result<(), SessionError> {
        match self.side {
            Side::Client { verdict_seen: true, .. } | Side::Server { peer_told: true, .. } => Ok(()),
            Side::Client { .. } | Side::Server { .. } => Err(SessionError::Misbehaved("ended before it began")),
        }
    }

    fn write_plain(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let Some(tls) = &mut self.tls else { return Err(SessionError::Misbehaved("bytes before the verdict")) };
        tls.writer().write_all(bytes).map_err(|_| SessionError::Misbehaved("TLS takes no more bytes"))
    }

    /// Moves what TLS wants to send into the stream; ends it after TLS' own end.
    fn flush_tls(&mut self) -> Result<(), SessionError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        // Not before the handshake is done: TLS would say its end in the clear, before the verdict.
        let ends = self.app_ended && !tls.is_handshaking();
        if ends {
            tls.send_close_notify();
        }
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).map_err(|_| SessionError::Misbehaved("TLS cannot write"))?;
        }
        self.stream.send(bytes, &mut self.far_out);
        if ends {
            self.stream.finish(&mut self.far_out);
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        if self.untaken + self.app_out.len() <= BACKLOG && !self.over {
            self.stream.announce(self.ended_there, &mut self.far_out);
        }
    }

    fn reset(&mut self, code: ResetCode) {
        if !std::mem::replace(&mut self.over, true) {
            Message::Reset(code).write(&mut self.far_out);
        }
    }
}

fn unlimited(mut tls: Connection) -> Connection {
    // The window bounds it already.
    tls.set_buffer_limit(None);
    tls
}

#[cfg(test)]
mod tests;
