//! The ends of a path answer a tunnel's blocks a while later than they could, so that no hop can measure how far they are
//! (docs/protocol.md, section 5).
//!
//! A wait that is drawn anew each time has a minimum, and blurs nothing in the long run: most of it is a constant of the path and
//! the end.

use std::ops::RangeInclusive;

use rand::{CryptoRng, RngExt};

use super::tunnels::Stood;
use super::{LinkId, Node, PathNo};
use crate::wire::frame::{Block, Frame, TunnelFrame};

/// Shortest and longest constant part, in milliseconds: what distances in the world come to.
// protocol: T13
const CONSTANT: RangeInclusive<u64> = 50..=250;

/// Longest random part, in milliseconds.
const RANDOM: u64 = 50;

/// The constant part for this end of a path, in milliseconds. Drawn, and not made of anything that the other end knows: a terminating
/// node that could take it off its owner's waits would measure how far the owner is.
// protocol: T14
pub(super) fn constant(rng: &mut dyn CryptoRng) -> u64 {
    rng.random_range(CONSTANT)
}

/// What an end does when its wait is over.
pub(super) enum Paced {
    /// Answers a seed by TUNNEL.
    Answer { setup: u64, side: usize, frame: TunnelFrame },
    /// Sends Q.
    Confirm(LinkId, Block),
    /// Sends V; then the tunnel stands.
    Stand(Box<Block>, Box<Stood>),
}

impl Node {
    /// Does `step` when the wait of this end of a path is over.
    pub(super) fn paced(&mut self, now: u64, path: PathNo, step: Paced) {
        let constant = self.paths.get(&path).map_or(0, |path| path.pace);
        if !self.settings.paced || constant == 0 {
            return self.step(now, step);
        }
        let at = now + constant + self.rng.random_range(0..=RANDOM);
        let number = self.id();
        self.waits.insert((at, number), step);
    }

    /// Does what has waited long enough.
    pub(super) fn run_paced(&mut self, now: u64) {
        while let Some(next) = self.waits.first_entry().filter(|next| next.key().0 <= now) {
            let step = next.remove();
            self.step(now, step);
        }
    }

    fn step(&mut self, now: u64, step: Paced) {
        match step {
            Paced::Answer { setup, side, frame } => self.answer(setup, side, frame),
            Paced::Confirm(link, q) if self.links.contains_key(&link) => self.send(link, &Frame::Confirm(q)),
            // Its path may have ended meanwhile: a ready tunnel of no path would wait for ever.
            Paced::Stand(_, stood) if !self.paths.contains_key(&stood.path) => self.close(stood.link),
            Paced::Stand(v, stood) if self.links.contains_key(&stood.link) => {
                self.send(stood.link, &Frame::Confirm(*v));
                self.stands_now(now, *stood);
            }
            Paced::Confirm(..) | Paced::Stand(..) => {}
        }
    }
}
