//! A session: mutual TLS between two AP keys, then a resumable stream under keys from it, with TCP's semantics for the programs.
//!
//! ```text
//! client                                                server
//!   HELLO knock, port, ClientHello ───────────────────▶   knows it the address? does anything listen on the port?
//!   ◀──── ServerHello, verdict as ALPN, … Finished ────
//!   accepted: connect() returns
//!   Certificate … Finished ───────────────────────────▶   peer = hash of its key
//!   sealed: ports, program's bytes ───────────────────▶   connect to the program
//!   ◀──────── sealed: program's bytes ─────────────────
//!        ✗ the tunnel is lost                           ✗
//!   over another: RESUME id, sealed: ACK, bytes ──────▶   the highest attempt that is proven wins
//!   ◀──────── sealed: ACK, bytes ──────────────────────
//! ```
//!
//! The caller carries bytes: [`Session::far_input`] and [`Session::take_far`] on the side of the full connection,
//! [`Session::app_input`] and [`Session::take_app`] on the program's, and polls [`Event`]s after each input. Bytes leave in one
//! contiguous run that the caller's buffer takes over; back-pressure is [`Session::wants_app`] one way and, the other way,
//! [`Session::app_took`], without which the other end's window closes. When a full connection is gone ([`Session::far_lost`]) and
//! [`Session::wants_tunnel`], the client's caller brings another ([`Session::resume`]), the server's finds the session by [`Table`].
//! A session that stands outlives its process as well ([`Session::carry`]).
//! No timers: acknowledgements go by bytes, and how long a session may wait is the caller's.

mod begin;
mod carried;
mod gone;
mod knock;
mod resume;
mod seal;
mod stream;
mod table;
mod tls;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::CryptoRng;
use rustls::Connection;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::ident::ApAddress;
use crate::wire::session::{HEADER, Message, ResetCode, Sealed};
use begin::{Begin, Step};
pub use carried::Carried;
pub use gone::{Tombstone, gone};
pub use knock::{Asked, asked, hello};
pub use seal::{End, Secret};
use seal::{Opener, Sealer};
use stream::{FIRST_BYTES, Stream, WINDOW};
pub use table::{AHEAD, Found, SessionNo, Table};

/// Most bytes of one [`Session::app_input`].
pub const APP_MAX: usize = 128 * 1024;

/// Kept free of the window for what is not asked for: one input beyond the mark.
const WINDOW_RESERVE: u64 = 2 * APP_MAX as u64;

/// Bytes for the program that may wait here while arrivals still count as taken.
const BACKLOG: usize = 512 * 1024;

/// Bytes of a program that may wait for the verdict, or for another tunnel. A program seldom writes before its connect() has returned.
// protocol: S41
const EARLY: u64 = FIRST_BYTES;

/// Why a session, or its tunnel, ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The other end broke the protocol, or a node between before there was a secret.
    #[error("the other end misbehaved: {0}")]
    Misbehaved(&'static str),
    /// A node between broke the tunnel: the session may go on over another.
    #[error("the tunnel is lost: {0}")]
    Lost(&'static str),
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
    /// The other end reset the connection, or it cannot go on. What [`Session::take_app`] still gives came before that.
    Reset,
}

/// How far a session is.
enum Phase {
    Begins(Box<Begin>),
    /// Server: the client is who it says; it has not said its ports.
    Proven(ApAddress, Secret),
    Open(Secret),
}

/// What this end says and hears over the tunnel of an attempt.
struct Channel {
    sealer: Sealer,
    opener: Opener,
    /// Something of the other end has come in this attempt.
    heard: bool,
    /// And since somebody asked.
    opened: bool,
}

impl Channel {
    fn new(secret: &Secret, attempt: u32, here: End) -> Self {
        let (sealer, opener) = (Sealer::new(secret, attempt, here), Opener::new(secret, attempt, here.other()));
        Self { sealer, opener, heard: false, opened: false }
    }
}

/// One end of a session.
// protocol: Y4
pub struct Session {
    here: End,
    phase: Phase,
    /// `None`: before there is a secret, and while there is no tunnel.
    channel: Option<Channel>,
    /// The client's ports: source and destination. The server's: what HELLO named.
    ports: (u16, u16),
    /// Whom the client dialed.
    owner: Option<VerifyingKey>,
    /// The present attempt, and the last of which the other end has proven itself.
    attempt: u32,
    proven: u32,
    stream: Stream,
    /// Bytes from far that are no whole message yet.
    partial: Vec<u8>,
    /// Messages other than DATA and FIN that wait to be sent.
    control: Vec<u8>,
    app_out: Vec<u8>,
    /// Bytes taken by the caller that the program has not.
    untaken: usize,
    events: VecDeque<Event>,
    app_ended: bool,
    over: bool,
    /// Server: the other end does not know the address. It hears nothing, and nothing is done for it.
    deaf: bool,
    /// Goes out after everything else.
    last_word: Option<ResetCode>,
    /// Once it was to be said, for whoever asks later.
    reset_by_us: Option<ResetCode>,
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
        let mut control = Vec::new();
        let begin = Begin::client(rng, tls, owner, dst_port, &mut control)?;
        let mut session = Self::new(End::Client, begin);
        (session.control, session.ports, session.owner) = (control, (src_port, dst_port), Some(*owner));
        Ok(session)
    }

    /// A server for one full connection that arrives.
    pub fn accept(key: Arc<SigningKey>) -> Self {
        Self::new(End::Server, Begin::server(key))
    }

    fn new(here: End, begin: Begin) -> Self {
        Self::in_phase(here, Phase::Begins(Box::new(begin)))
    }

    fn in_phase(here: End, phase: Phase) -> Self {
        Self {
            here,
            phase,
            channel: None,
            ports: (0, 0),
            owner: None,
            attempt: 0,
            proven: 0,
            stream: Stream::default(),
            partial: Vec::new(),
            control: Vec::new(),
            app_out: Vec::new(),
            untaken: 0,
            events: VecDeque::new(),
            app_ended: false,
            over: false,
            deaf: false,
            last_word: None,
            reset_by_us: None,
        }
    }

    /// Server: the answer to [`Event::Hello`], once.
    pub fn verdict(&mut self, accepted: bool) -> Result<(), SessionError> {
        let Phase::Begins(begin) = &mut self.phase else { return Err(SessionError::Local("a second verdict")) };
        if self.over {
            return Ok(());
        }
        let step = begin.verdict(accepted, &mut self.control);
        if matches!(step, Err(SessionError::Local(_))) {
            return step.map(|_| ());
        }
        let result = step.and_then(|step| self.step(step));
        if result.is_err() {
            self.reset(ResetCode::Protocol);
        }
        // A refused client needs the first flight and nothing else.
        self.over |= !accepted;
        result
    }

    /// Bytes of the full connection that arrived. After [`SessionError::Lost`] that one is gone, see [`Session::far_lost`]; any other
    /// error ends the session; tell the other end with [`Session::take_far`]. One that does not know the address makes no error: nothing
    /// comes of what it says.
    // protocol: S16
    pub fn far_input(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.over || self.deaf {
            return Ok(());
        }
        let result = self.far_bytes(bytes);
        let strange = matches!(&self.phase, Phase::Begins(begin) if begin.by_stranger());
        match &result {
            Ok(()) => {}
            Err(_) if strange => {
                (self.deaf, self.partial) = (true, Vec::new());
                return Ok(());
            }
            Err(SessionError::Lost(_)) => self.far_lost(),
            Err(_) => self.reset(ResetCode::Protocol),
        }
        result
    }

    /// Whether bytes of the program are wanted: false while too many wait for acknowledgement, and for a server before
    /// [`Event::Peer`].
    pub fn wants_app(&self) -> bool {
        let room = match (&self.phase, &self.channel) {
            (Phase::Open(_), Some(_)) => self.stream.held() < WINDOW - WINDOW_RESERVE,
            (Phase::Open(_), None) => self.stream.held() < EARLY,
            _ => self.here == End::Client && self.stream.held() < EARLY,
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
        self.stream.write(bytes);
        Ok(())
    }

    /// The program sends no more.
    // protocol: S12
    pub fn app_end(&mut self) -> Result<(), SessionError> {
        self.app_ended = true;
        self.stream.finish();
        Ok(())
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
        match (&mut self.channel, &self.phase) {
            (Some(channel), _) => {
                // What was said before an end is sent; behind the other end's RESET nothing is.
                if !self.over || self.last_word.is_some() {
                    self.stream.frame(&mut channel.sealer, out);
                }
                if let Some(code) = self.last_word.take() {
                    channel.sealer.say(&Sealed::Reset(code), out);
                }
            }
            (None, Phase::Begins(_)) => {
                if let Some(code) = self.last_word.take() {
                    Message::Reset(code).write(out);
                }
            }
            _ => {}
        }
    }

    /// Moves bytes for the program to the end of `out`; say with [`Session::app_took`] when the program has them.
    pub fn take_app(&mut self, out: &mut Vec<u8>) {
        self.untaken += self.app_out.len();
        hand_over(&mut self.app_out, out);
    }

    /// The program has taken this many of the bytes of [`Session::take_app`].
    pub fn app_took(&mut self, count: usize) {
        self.untaken = self.untaken.saturating_sub(count);
        self.acknowledge(false);
    }

    /// Bytes that wait for the full connection.
    pub fn far_waiting(&self) -> usize {
        self.control.len() + self.stream.unsent()
    }

    /// Bytes of the program that are held until the other end has taken them.
    pub fn held(&self) -> u64 {
        self.stream.held()
    }

    /// Bytes of the other end that are held until the program has taken them.
    pub fn unread(&self) -> u64 {
        (self.untaken + self.app_out.len()) as u64
    }

    /// Whether no more bytes for the program will come.
    pub fn app_is_over(&self) -> bool {
        self.over || self.stream.ended_there()
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Both directions have ended, orderly or not: nothing more will come or be taken.
    pub fn is_over(&self) -> bool {
        self.over || self.stream.is_over()
    }

    fn far_bytes(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let mut input = std::mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((message, len)) = Message::read(&input[at..]).map_err(|_| self.broken("malformed message"))? {
            match message {
                Message::Sealed(_) => self.sealed(&mut input[at + HEADER..at + len])?,
                message => self.message(message)?,
            }
            at += len;
            if self.over {
                return Ok(());
            }
        }
        input.drain(..at);
        self.partial = input;
        self.acknowledge(false);
        Ok(())
    }

    /// What only somebody between could have made, once there is a secret.
    fn broken(&self, what: &'static str) -> SessionError {
        match self.phase {
            Phase::Begins(_) => SessionError::Misbehaved(what),
            _ => SessionError::Lost(what),
        }
    }

    // protocol: S37
    fn message(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        if let Message::Gone(signature) = &message
            && self.is_gone(signature)
        {
            self.give_up();
            return Ok(());
        }
        let Phase::Begins(begin) = &mut self.phase else { return Err(SessionError::Lost("what is not sealed")) };
        if let Message::Reset(_) = message
            && !begin.by_stranger()
        {
            self.give_up();
            return Ok(());
        }
        let step = begin.message(message, &mut self.control)?;
        self.step(step)
    }

    fn step(&mut self, step: Step) -> Result<(), SessionError> {
        match step {
            Step::Goes => {}
            Step::Asks(port) => {
                self.ports.1 = port;
                self.events.push_back(Event::Hello { port });
            }
            Step::Refused => {
                self.over = true;
                self.events.push_back(Event::Refused);
            }
            Step::Done(secret, address) => {
                let mut channel = Channel::new(&secret, 0, self.here);
                if self.here == End::Client {
                    let (src, dst) = self.ports;
                    channel.sealer.say(&Sealed::Ports { src, dst }, &mut self.control);
                    self.phase = Phase::Open(secret);
                    self.events.push_back(Event::Accepted);
                } else {
                    self.phase = Phase::Proven(address, secret);
                }
                self.channel = Some(channel);
            }
        }
        Ok(())
    }

    // protocol: S11, S27, S33
    fn sealed(&mut self, sealed: &mut [u8]) -> Result<(), SessionError> {
        let Some(channel) = &mut self.channel else { return Err(self.broken("sealed before the handshake is done")) };
        let what = channel.opener.open(sealed)?;
        let first = !std::mem::replace(&mut channel.heard, true);
        channel.opened = true;
        self.proven = self.attempt;
        match (&self.phase, what) {
            (Phase::Proven(address, secret), Sealed::Ports { src, dst }) => {
                if dst != self.ports.1 {
                    return Err(SessionError::Misbehaved("HELLO named another port"));
                }
                self.events.push_back(Event::Peer { address: *address, src_port: src, dst_port: dst });
                self.phase = Phase::Open(secret.clone());
                Ok(())
            }
            (Phase::Open(_), Sealed::Ack { arrived, taken }) if first && self.attempt > 0 => {
                self.stream.learn(arrived, taken)
            }
            (Phase::Open(_), what) if !first || self.attempt == 0 => self.said(what),
            _ => Err(SessionError::Misbehaved("begins with something else")),
        }
    }

    fn said(&mut self, what: Sealed<'_>) -> Result<(), SessionError> {
        match what {
            Sealed::Ports { .. } => return Err(SessionError::Misbehaved("its ports a second time")),
            Sealed::Data { offset, bytes } => self.app_out.extend_from_slice(self.stream.data(offset, bytes)?),
            Sealed::Ack { arrived, taken } => self.stream.ack(arrived, taken)?,
            Sealed::Fin(offset) => {
                let again = self.stream.ended_there();
                self.stream.fin(offset)?;
                if !again {
                    self.events.push_back(Event::End);
                }
            }
            Sealed::Reset(_) => {
                self.over = true;
                self.events.push_back(Event::Reset);
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, now: bool) {
        let takes = self.untaken + self.app_out.len() <= BACKLOG;
        if let Some(channel) = self.channel.as_mut().filter(|_| !self.over)
            && let Some(news) = self.stream.news(now || (takes && self.stream.ended_there()), takes)
        {
            channel.sealer.say(&news, &mut self.control);
        }
    }

    fn reset(&mut self, code: ResetCode) {
        if !self.is_over() {
            (self.over, self.last_word, self.reset_by_us) = (true, Some(code), Some(code));
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

#[cfg(test)]
mod tests;
