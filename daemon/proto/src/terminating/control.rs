//! The control tunnel of a path, at either end: one tunnel on which now and again something passes, so that what an owner tells its
//! terminating node does not stand out (docs/protocol.md, section 5.2).
//!
//! ```text
//!   idle ──something to say──▶ wanting a tunnel, if there is none ──▶ saying ──▶ idle
//!                                     │ 30 s; none                      │ 30 s; broken
//!                                     ╰──────────── once more ◀─────────╯
//! ```
//!
//! While something is being said nothing is heard, and what else is to be said waits.

use std::collections::VecDeque;

use rand::CryptoRng;

use crate::chance::exponential;
use crate::wire::cells::{CellKind, Word};
use crate::wire::frame::Reason;

/// Mean time between two cells of padding from one end, in milliseconds: one cell then says nothing, and costs as little.
// protocol: U14
const PADDING_MEAN: u64 = 600_000;

/// How long a ready tunnel may take when something must be said, and its neighbour to take it, in milliseconds.
const LIMIT: u64 = 30_000;

/// Tunnels over which something is tried to be said: a record that is lost leaves its path without one for an hour.
const ATTEMPTS: usize = 2;

/// What may wait to be said on one path: a record, and perhaps its successor, twice. A path on which more waits is of no use any more;
/// the next record finds another.
const WAITING: usize = 4;

/// Which end of the path this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Its owner's.
    Own,
    /// Its terminating node's.
    End,
}

/// What happens to a control tunnel.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Owner: this record is to be served.
    Serve(Vec<u8>),
    /// The other end began to use a tunnel for control. Not while something is being said.
    Offered,
    /// Whether a ready tunnel was to be had.
    Given(bool),
    /// Whether the cell has left.
    Said(bool),
    /// A cell came.
    Heard { kind: CellKind, data: Vec<u8> },
    /// The tunnel has ended; `noise`: because a node of its path makes noise of cells.
    Broke { noise: bool },
}

/// What it wants done.
#[expect(missing_docs, reason = "the fields are what their variant's line says")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Get a ready tunnel of the path within so many milliseconds: it is the control tunnel.
    Want { limit: u64 },
    /// Send this cell on the control tunnel.
    Say { kind: CellKind, data: Vec<u8> },
    /// The tunnel that was offered is the control tunnel from now on, in place of the one before.
    Keep,
    /// Close the tunnel that was offered.
    Reject,
    /// Close the control tunnel.
    Drop,
    /// Say ABORT on the control tunnel; it is none any more.
    Abort(Reason),
    /// The control tunnel is none: it is for what its other end said in this cell.
    Use { kind: CellKind, data: Vec<u8> },
    /// The owner says SERVE.
    Served(Vec<u8>),
    /// The path ends: its other end broke the protocol, or a node of it makes noise.
    Misused,
}

/// What is being said.
#[derive(Debug)]
struct Saying {
    kind: CellKind,
    data: Vec<u8>,
    /// Tunnels that are left to try.
    attempts: usize,
    /// By when a tunnel must be there, or the cell have left.
    deadline: u64,
    wanting: bool,
    /// To be said again on a tunnel of the other end's, if nothing is heard before.
    again: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    whose: Whose,
    /// There is a tunnel.
    has: bool,
    /// This end began it, and has heard nothing on it yet.
    begun: bool,
    /// The last record that was said on such a tunnel: the other end may have closed it for one that it began itself.
    unheard: Option<Vec<u8>>,
    saying: Option<Saying>,
    waiting: VecDeque<Vec<u8>>,
    padding: u64,
    out: VecDeque<Output>,
}

impl Control {
    /// One end of a path that stands.
    pub fn new(now: u64, whose: Whose, rng: &mut dyn CryptoRng) -> Self {
        let padding = now + exponential(rng, PADDING_MEAN);
        let (waiting, out) = (VecDeque::new(), VecDeque::new());
        Self { whose, has: false, begun: false, unheard: None, saying: None, waiting, padding, out }
    }

    /// Takes one input; how something went that was not asked for changes nothing.
    pub fn handle(&mut self, now: u64, input: Input) {
        match input {
            Input::Serve(record) if self.saying.is_none() => self.say(now, CellKind::Serve, record, true),
            Input::Serve(record) if self.waiting.len() < WAITING => self.waiting.push_back(record),
            Input::Serve(_) => {}
            Input::Offered => self.offered(now),
            Input::Given(given) => self.given(now, given),
            Input::Said(said) => self.said(now, said),
            Input::Heard { kind, data } if self.has && self.saying.is_none() => self.heard(kind, data),
            Input::Broke { noise } if self.has && self.saying.is_none() => self.broke(noise),
            Input::Heard { .. } | Input::Broke { .. } => {}
        }
    }

    /// Lets time pass.
    // protocol: U14
    pub fn tick(&mut self, now: u64, rng: &mut dyn CryptoRng) {
        match &self.saying {
            Some(saying) if now < saying.deadline => {}
            Some(Saying { wanting: true, .. }) => self.given(now, false),
            Some(_) => self.said(now, false),
            None if now >= self.padding => {
                self.padding = now + exponential(rng, PADDING_MEAN);
                self.say(now, CellKind::Padding, Vec::new(), false);
            }
            None => {}
        }
    }

    /// What is to be done now, in this order.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Control::tick`].
    pub fn deadline(&self) -> u64 {
        self.saying.as_ref().map_or(self.padding, |saying| saying.deadline)
    }

    /// Both ends may begin one at the same time: then the terminating node's stays. What was said on the other is said again.
    // protocol: U15, U28
    fn offered(&mut self, now: u64) {
        if self.saying.is_some() || self.has && self.whose == Whose::End {
            self.out.push_back(Output::Reject);
        } else {
            (self.has, self.begun) = (true, false);
            self.out.push_back(Output::Keep);
        }
        if self.saying.is_none()
            && let Some(record) = self.unheard.take()
        {
            self.say(now, CellKind::Serve, record, false);
        }
    }

    fn say(&mut self, now: u64, kind: CellKind, data: Vec<u8>, again: bool) {
        self.saying = Some(Saying { kind, data, attempts: ATTEMPTS, deadline: now, wanting: false, again });
        self.attempt(now);
    }

    /// Says it over the control tunnel; when there is none, or it has broken, over another.
    fn attempt(&mut self, now: u64) {
        let Some(saying) = &mut self.saying else { return };
        saying.deadline = now + LIMIT;
        saying.wanting = !self.has;
        self.out.push_back(if self.has {
            Output::Say { kind: saying.kind, data: saying.data.clone() }
        } else {
            self.begun = true;
            Output::Want { limit: LIMIT }
        });
    }

    fn given(&mut self, now: u64, given: bool) {
        if !self.saying.as_ref().is_some_and(|saying| saying.wanting) {
            return;
        }
        self.has = given;
        if given { self.attempt(now) } else { self.failed(now) }
    }

    fn said(&mut self, now: u64, said: bool) {
        if self.saying.as_ref().is_none_or(|saying| saying.wanting) {
            return;
        }
        if said {
            return self.done(now);
        }
        self.has = false;
        self.out.push_back(Output::Drop);
        self.failed(now);
    }

    fn failed(&mut self, now: u64) {
        let Some(saying) = &mut self.saying else { return };
        saying.attempts -= 1;
        if saying.attempts > 0 { self.attempt(now) } else { self.done(now) }
    }

    /// It was said, or cannot be: what waited is next.
    fn done(&mut self, now: u64) {
        let Some(said) = self.saying.take() else { return };
        if said.again {
            self.unheard = Some(said.data).filter(|_| self.begun);
        }
        if let Some(record) = self.waiting.pop_front() {
            self.say(now, CellKind::Serve, record, true);
        }
    }

    // protocol: U2, U4, U16
    fn heard(&mut self, kind: CellKind, data: Vec<u8>) {
        let first = std::mem::replace(&mut self.begun, false);
        self.unheard = None;
        match (Word::read(kind, &data), self.whose) {
            (Ok(Word::Padding), _) => {}
            (Ok(Word::Serve(_)), Whose::End) => self.out.push_back(Output::Served(data)),
            (Ok(Word::Open(_) | Word::Lookup(_) | Word::Incoming(_)), _) if first => {
                // The other end took the same tunnel at the same moment. It ignores our padding; the tunnel is for what it said.
                self.has = false;
                self.out.push_back(Output::Use { kind, data });
            }
            _ => {
                self.has = false;
                self.out.extend([Output::Abort(Reason::Protocol), Output::Misused]);
            }
        }
    }

    fn broke(&mut self, noise: bool) {
        self.has = false;
        self.out.push_back(Output::Drop);
        // Of others' paths it is their owners' to notice.
        if noise && self.whose == Whose::Own {
            self.out.push_back(Output::Misused);
        }
    }
}

#[cfg(test)]
mod tests;
