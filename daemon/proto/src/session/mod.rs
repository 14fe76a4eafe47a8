//! A session: mutual TLS between two AP keys over a resumable stream, with TCP's semantics for the programs at its ends.
//!
//! ```text
//! client                                                server
//!   HELLO knock, port, ClientHello ───────────────────▶   knows it the address? does anything listen on the port?
//!   ◀──── ServerHello, verdict as ALPN, … Finished ────
//!   accepted: connect() returns
//!   Certificate … Finished, ports, program's bytes ───▶   peer = hash of its key; connect to the program
//! ```

//!
//! The caller carries bytes: [`Session::far_input`] and [`Session::take_far`] on the side of the full connection,
//! [`Session::app_input`] and [`Session::take_app`] on the program's, and polls [`Event`]s after each input. Bytes leave in one
//! contiguous run that the caller's buffer takes over; back-pressure is [`Session::wants_app`] one way and, the other way,
//! [`Session::app_took`], without which the other end's window closes. No timers: acknowledgements go by bytes.

mod knock;
mod resume;
mod stream;
mod tls;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use rand::CryptoRng;
use rustls::Connection;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::ident::ApAddress;
use crate::wire::session::{Hello, Message, ResetCode};
pub use knock::hello;
pub use resume::{End, ResumeKey};
use stream::{Stream, WINDOW};

/// Most bytes of one [`Session::app_input`].
pub const APP_MAX: usize = 128 * 1024;

/// Kept free of the window for what is not asked for: one input beyond the mark, TLS' own bytes, its key updates.
const WINDOW_RESERVE: u64 = 2 * APP_MAX as u64;

/// Bytes for the program that may wait here while arrivals are still acknowledged.
const BACKLOG: usize = 512 * 1024;

/// Bytes of a client's TLS that may wait for the verdict: its first flight.
// protocol: S21
const HELD: usize = 64 * 1024;

/// Bytes of a client's program that may wait for the verdict. A program seldom writes before its connect() has returned.
const EARLY: usize = 64 * 1024;

/// Why a session ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The other end, or a node between, broke the protocol.
    #[error("the other end misbehaved: {0}")]
    Misbehaved(&'static str),
    /// TLS refused: the other end is not who it must be, or bytes were changed.
    #[error("TLS refused: {0}")]
    Tls(String),
    /// The caller did what this session does not allow.
    #[error("wrong use: {0}")]
    Local(&'static str),
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
    /// The other end reset the connection, or the full connection broke. What [`Session::take_app`] still gives came before that.
    Reset,
}

enum Side {
    Client { owner: VerifyingKey },
    Server { key: Arc<SigningKey>, hello: Option<Hello>, port: Option<u16> },
}

/// One end of a session.
// protocol: Y4
pub struct Session {
    /// From HELLO.
    id: [u8; 16],
    side: Side,
    /// A server's begins with its verdict.
    tls: Option<Connection>,
    /// What came for a TLS that has not begun.
    held: Vec<u8>,
    stream: Stream,
    /// Bytes from far that are no whole message yet.
    partial: Vec<u8>,
    /// Messages other than DATA and FIN that wait to be sent.
    control: Vec<u8>,
    app_out: Vec<u8>,
    /// Bytes taken by the caller that the program has not.
    untaken: usize,
    /// Bytes of the program that TLS keeps until its handshake is done.
    early: usize,
    events: VecDeque<Event>,
    /// Each end has proven itself and said what comes before the programs' bytes.
    open: bool,
    app_ended: bool,
    ended_there: bool,
    over: bool,
    /// Server: the other end does not know the address. It hears nothing, and nothing is done for it.
    deaf: bool,
    /// Goes out after everything else.
    last_word: Option<ResetCode>,
}

impl Session {
    /// A client that wants `dst_port` of the owner of this AP key; its first flight waits in [`Session::take_far`].
    pub fn connect(
        rng: &mut dyn CryptoRng,
        key: &SigningKey,
        owner: &VerifyingKey,
        dst_port: u16,
        src_port: u16,
    ) -> Result<Self, SessionError> {
        Self::connect_over(rng, tls::client(key, ApAddress::of(owner))?.into(), owner, dst_port, src_port)
    }

    fn connect_over(
        rng: &mut dyn CryptoRng,
        tls: Connection,
        owner: &VerifyingKey,
        dst_port: u16,
        src_port: u16,
    ) -> Result<Self, SessionError> {
        let mut session = Self::new(Side::Client { owner: *owner }, Some(tls));
        rng.fill_bytes(&mut session.id);
        let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
        session.write_plain(&ports)?;
        session.flush_tls()?;
        let first = session.stream.writer().make_contiguous();
        Message::Hello(hello(owner, session.id, dst_port, first)).write(&mut session.control);
        Ok(session)
    }

    /// A server for one full connection that arrives.
    pub fn accept(key: Arc<SigningKey>) -> Self {
        Self::new(Side::Server { key, hello: None, port: None }, None)
    }

    fn new(side: Side, tls: Option<Connection>) -> Self {
        Self {
            id: [0; 16],
            side,
            tls: tls.map(unlimited),
            held: Vec::new(),
            stream: Stream::default(),
            partial: Vec::new(),
            control: Vec::new(),
            app_out: Vec::new(),
            untaken: 0,
            early: 0,
            events: VecDeque::new(),
            open: false,
            app_ended: false,
            ended_there: false,
            over: false,
            deaf: false,
            last_word: None,
        }
    }

    /// Server: the answer to [`Event::Hello`], once.
    pub fn verdict(&mut self, accepted: bool) -> Result<(), SessionError> {
        let Side::Server { key, port: Some(_), .. } = &self.side else {
            return Err(SessionError::Local("a verdict that nobody asked for"));
        };
        if self.over {
            return Ok(());
        }
        if self.tls.is_some() {
            return Err(SessionError::Local("a second verdict"));
        }
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

    /// Bytes of the full connection that arrived. An error ends the session; tell the other end with [`Session::take_far`]. One that
    /// does not know the address makes no error: nothing comes of what it says.
    // protocol: S16
    pub fn far_input(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.over || self.deaf {
            return Ok(());
        }
        let result = self.far_bytes(bytes);
        if result.is_err() && matches!(self.side, Side::Server { port: None, .. }) {
            (self.deaf, self.partial) = (true, Vec::new());
            return Ok(());
        }
        if result.is_err() {
            self.reset(ResetCode::Protocol);
        }
        result
    }

    /// The full connection is gone. Without both ends' orderly end that is a reset.
    // protocol: S15
    pub fn far_closed(&mut self) {
        if !self.is_over() {
            self.events.push_back(Event::Reset);
        }
        self.over = true;
    }

    /// Whether bytes of the program are wanted: false while too many wait for acknowledgement, and for a server before
    /// [`Event::Peer`].
    pub fn wants_app(&self) -> bool {
        let room = if self.open {
            self.stream.in_flight() < WINDOW - WINDOW_RESERVE
        } else {
            matches!(self.side, Side::Client { .. }) && self.early < EARLY
        };
        room && !self.over && !self.app_ended
    }

    /// Bytes of the program, at most [`APP_MAX`], when they are wanted. Ignored when the session is over.
    pub fn app_input(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.over {
            return Ok(());
        }
        if bytes.len() > APP_MAX || !self.wants_app() {
            return Err(SessionError::Local("bytes that were not asked for"));
        }
        if !self.open {
            self.early += bytes.len();
        }
        self.write_plain(bytes)?;
        self.flush_tls()
    }

    /// The program sends no more.
    // protocol: S12
    pub fn app_end(&mut self) -> Result<(), SessionError> {
        self.app_ended = true;
        self.flush_tls()
    }

    /// The program reset its connection.
    // protocol: S22
    pub fn app_abort(&mut self) {
        self.reset(ResetCode::Aborted);
    }

    /// Moves bytes for the full connection to the end of `out`.
    pub fn take_far(&mut self, out: &mut Vec<u8>) {
        // An acknowledgement beside bytes that go anyway costs nothing, and lets the other end forget early.
        if self.stream.has_news() {
            self.acknowledge(true);
        }
        hand_over(&mut self.control, out);
        self.stream.frame(out);
        if let Some(code) = self.last_word.take() {
            Message::Reset(code).write(out);
        }
    }

    /// Moves bytes for the program to the end of `out`; say with [`Session::app_took`] when the program has them.
    pub fn take_app(&mut self, out: &mut Vec<u8>) {
        if self.open {
            self.untaken += self.app_out.len();
            hand_over(&mut self.app_out, out);
        }
    }

    /// The program has taken this many of the bytes of [`Session::take_app`].
    pub fn app_took(&mut self, count: usize) {
        self.untaken = self.untaken.saturating_sub(count);
        self.acknowledge(self.ended_there);
    }

    /// Bytes that wait for the full connection.
    pub fn far_waiting(&self) -> usize {
        self.control.len() + self.stream.unsent()
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

    /// What would prove this session on another tunnel, and the offset that it would go on from. `None` before the session is open.
    pub fn resume_key(&self) -> Option<(ResumeKey, u64)> {
        let tls = self.tls.as_ref().filter(|_| self.open)?;
        Some((ResumeKey::of(tls, self.id).ok()?, self.stream.received()))
    }

    fn far_bytes(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let mut joined = std::mem::take(&mut self.partial);
        let mut input = bytes;
        if !joined.is_empty() {
            joined.extend_from_slice(bytes);
            input = &joined;
        }
        while let Some((message, len)) =
            Message::read(input).map_err(|_| SessionError::Misbehaved("malformed message"))?
        {
            self.message(message)?;
            input = &input[len..];
            if self.over {
                return Ok(());
            }
        }
        self.partial.extend_from_slice(input);
        self.flush_tls()?;
        self.acknowledge(self.ended_there);
        Ok(())
    }

    // protocol: S19, S20
    fn message(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        if matches!(self.side, Side::Server { port: None, .. }) {
            return self.stranger(message);
        }
        match message {
            Message::Hello(_) => Err(SessionError::Misbehaved("a second HELLO")),
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
            Message::Resume { .. } => Err(SessionError::Misbehaved("resumes a session that is not interrupted")),
        }
    }

    /// Server: a message of somebody who has not shown yet that it knows the address.
    // protocol: S24, S25, S26
    fn stranger(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        let Side::Server { key, hello, port } = &mut self.side else { return Ok(()) };
        match (message, hello.take()) {
            (Message::Hello(first), None) => *hello = Some(first),
            (Message::Data { offset: 0, bytes }, Some(first)) => {
                let wanted = knock::wanted(&key.verifying_key(), &first, bytes);
                let wanted = wanted.ok_or(SessionError::Misbehaved("does not know the address"))?;
                (self.id, *port) = (first.session, Some(wanted));
                let new = self.stream.data(0, bytes)?;
                self.tls_input(new)?;
                self.events.push_back(Event::Hello { port: wanted });
            }
            _ => return Err(SessionError::Misbehaved("does not begin with HELLO")),
        }
        Ok(())
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
            // After its end TLS takes nothing, and would for ever.
            if tls.read_tls(&mut bytes).map_err(|_| SessionError::Misbehaved("too many bytes at once"))? == 0 {
                return Err(SessionError::Misbehaved("bytes after the end"));
            }
            let state = tls.process_new_packets()?;
            let start = self.app_out.len();
            self.app_out.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader()
                .read_exact(&mut self.app_out[start..])
                .map_err(|_| SessionError::Misbehaved("TLS gave fewer bytes than it had"))?;
            ended |= state.peer_has_closed();
        }
        if !self.open {
            self.open()?;
        }
        if ended && !std::mem::replace(&mut self.ended_there, true) {
            if !self.open {
                return Err(SessionError::Misbehaved("ended before it began"));
            }
            self.events.push_back(Event::End);
        }
        Ok(())
    }

    /// After the handshake: reads the verdict from it, or takes the ports off the front of what arrived.
    // protocol: S8, S9, S10, S11
    fn open(&mut self) -> Result<(), SessionError> {
        let Some(tls) = self.tls.as_ref().filter(|tls| !tls.is_handshaking()) else { return Ok(()) };
        let key = tls.peer_certificates().and_then(|chain| tls::ap_key(chain.first()?));
        let key = key.ok_or(SessionError::Misbehaved("no AP key"))?;
        match (&self.side, tls.alpn_protocol()) {
            (Side::Client { owner }, _) if *owner != key => {
                Err(SessionError::Misbehaved("the AP record has another key"))
            }
            (Side::Client { .. }, Some(tls::ACCEPTED)) => {
                self.open = true;
                self.events.push_back(Event::Accepted);
                Ok(())
            }
            (Side::Client { .. }, Some(tls::REFUSED)) => {
                self.over = true;
                self.events.push_back(Event::Refused);
                Ok(())
            }
            (Side::Server { port, .. }, Some(tls::ACCEPTED)) => {
                let Some([a, b, c, d]) = self.app_out.first_chunk::<4>().copied() else { return Ok(()) };
                let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                if *port != Some(dst_port) {
                    return Err(SessionError::Misbehaved("HELLO named another port"));
                }
                self.app_out.drain(..4);
                self.open = true;
                self.events.push_back(Event::Peer { address: ApAddress::of(&key), src_port, dst_port });
                Ok(())
            }
            _ => Err(SessionError::Misbehaved("speaks no version of this protocol")),
        }
    }

    fn write_plain(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let Some(tls) = &mut self.tls else { return Err(SessionError::Local("bytes before the verdict")) };
        tls.writer().write_all(bytes).map_err(|_| SessionError::Local("TLS takes no more bytes"))
    }

    /// Moves what TLS wants to send into the stream; ends it after TLS' own end.
    fn flush_tls(&mut self) -> Result<(), SessionError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if self.over || self.stream.ended_here() {
            return Ok(());
        }
        // Before the handshake is done an end would not be protected: it waits.
        let ends = self.app_ended && !tls.is_handshaking();
        if ends {
            tls.send_close_notify();
        }
        while tls.wants_write() {
            tls.write_tls(self.stream.writer()).map_err(|_| SessionError::Local("TLS cannot write"))?;
        }
        if ends {
            self.stream.finish();
        }
        Ok(())
    }

    fn acknowledge(&mut self, now: bool) {
        if self.untaken + self.app_out.len() <= BACKLOG && !self.over {
            self.stream.announce(now, &mut self.control);
        }
    }

    fn reset(&mut self, code: ResetCode) {
        if !std::mem::replace(&mut self.over, true) {
            self.last_word = Some(code);
        }
    }
}

/// Shows nothing: a session knows addresses and keys.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(…)")
    }
}

/// Moves all bytes to the end of `out`, without copying when `out` is empty.
fn hand_over(from: &mut Vec<u8>, out: &mut Vec<u8>) {
    if out.is_empty() {
        std::mem::swap(from, out);
    } else {
        out.append(from);
    }
}

fn unlimited(mut tls: Connection) -> Connection {
    // The window bounds it already.
    tls.set_buffer_limit(None);
    tls
}

#[cfg(test)]
mod tests;
