//! How many tunnels of a path are wanted ready: as many as are used up while others are being set up.

use rand::{CryptoRng, RngExt};

/// How long uses count, in milliseconds. A page, a shell's script, a visitor come back within it, or not for long.
const WINDOW: u64 = 60_000;

/// So many uses in a window make one more tunnel worth while: setting one up takes about a second, and uses come in bursts of four times
/// their average and more.
const USES_PER_TUNNEL: usize = 15;

/// Uses within so many milliseconds are one burst: a page asks for all that it is made of.
const BURST: u64 = 1_000;

/// Without a use for so long, in milliseconds, the like of the largest burst is made ready: set-ups for the next one would hold up those
/// for which the last of this one still wait.
const REST: u64 = 3_000;

/// Ready tunnels that this end wants, however many are used: half of what is kept, since the other end counts like this too, and as
/// many as may be set up at once.
// protocol: T20
const MOST: usize = 32;

/// Uses of a path's tunnels, by either end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    /// How much sooner than by the clock its windows begin: all paths of a node would else forget their uses at once.
    phase: u64,
    window: u64,
    this: Uses,
    last: Uses,
    burst: Burst,
    /// Uses in all, and those of them that broke off before a word had come.
    all: u32,
    broken: u32,
}

/// Those of one window.
#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    count: usize,
    /// Those of its largest burst.
    at_once: usize,
}

/// Uses that follow each other without a rest.
#[derive(Debug, Clone, Copy, Default)]
struct Burst {
    began: u64,
    last: u64,
    uses: usize,
    /// Uses of the largest one since the last rest.
    most: usize,
}

/// Uses that broke off before a word had come, from which on they count: a node that fails takes a few with it.
const BROKEN: u32 = 3;

impl Demand {
    /// None yet; its windows begin at times of their own.
    pub(super) fn drawn(rng: &mut dyn CryptoRng) -> Self {
        Self { phase: rng.random_range(0..WINDOW), ..Self::default() }
    }

    /// A tunnel is used.
    pub(super) fn used(&mut self, now: u64) {
        self.turn(now);
        let Burst { began, uses, most, .. } = self.burst;
        let (began, uses) = if now.wrapping_sub(began) < BURST { (began, uses + 1) } else { (now, 1) };
        self.burst = Burst { began, last: now, uses, most: most.max(uses) };
        self.this.count += 1;
        self.all = self.all.saturating_add(1);
    }

    /// A use broke off before a word had come: no honest end says nothing. True: so do most of this path's.
    pub(super) fn broke(&mut self) -> bool {
        self.broken = self.broken.saturating_add(1);
        self.broken >= BROKEN && self.broken >= self.all / 2
    }

    /// Whether none was used, ever.
    pub(super) fn is_none(&self) -> bool {
        self.all == 0
    }

    /// How many are wanted ready, of which `least` in any case.
    // protocol: T20
    pub(super) fn target(&self, now: u64, least: usize) -> usize {
        let mut at = *self;
        at.turn(now);
        let of_minute = least + at.this.count.max(at.last.count) / USES_PER_TUNNEL;
        of_minute.max(at.this.at_once).max(at.last.at_once).min(MOST.max(least))
    }

    /// Beyond so many one goes: the other end wants as many as this one.
    // protocol: T21
    pub(super) fn surplus(&self, now: u64, least: usize) -> usize {
        2 * self.target(now, least)
    }

    /// When its next window begins, and it may want fewer.
    pub(super) fn turns(&self, now: u64) -> u64 {
        ((now + self.phase) / WINDOW + 1) * WINDOW - self.phase
    }

    /// When the like of a burst is made ready, if no use comes before.
    pub(super) fn rests(&self, now: u64) -> Option<u64> {
        let at = self.burst.last.saturating_add(REST);
        (self.burst.most > 0 && at > now).then_some(at)
    }

    fn turn(&mut self, now: u64) {
        // A clock that was set back is a rest, too.
        if now.wrapping_sub(self.burst.last) >= REST {
            self.this.at_once = self.this.at_once.max(self.burst.most);
            self.burst.most = 0;
        }
        let window = (now + self.phase) / WINDOW;
        if window == self.window {
            return;
        }
        self.last = if window == self.window + 1 { self.this } else { Uses::default() };
        (self.window, self.this) = (window, Uses::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 4;

    // protocol: T20, T21
    #[test]
    fn it_follows_the_uses_of_a_minute_and_forgets_them_after_two() {
        let begun = 1_800_000_000_000 / WINDOW * WINDOW;
        let mut demand = Demand::default();
        assert!(demand.is_none());
        assert_eq!(demand.target(begun, LEAST), LEAST);
        for use_ in 0..30 {
            demand.used(begun + use_ * BURST);
        }
        assert!(!demand.is_none());
        assert_eq!(demand.target(begun + 30 * BURST, LEAST), LEAST + 2);
        assert_eq!(demand.target(begun + WINDOW, LEAST), LEAST + 2, "a minute is over");
        assert_eq!(demand.surplus(begun + WINDOW, LEAST), 2 * (LEAST + 2));
        assert_eq!(demand.target(begun + 2 * WINDOW, LEAST), LEAST);
        for use_ in 0..100_000 {
            demand.used(begun + 3 * WINDOW + use_ % 1000);
        }
        assert_eq!(demand.target(begun + 3 * WINDOW, LEAST), MOST);
        // The clock is set back: what was, counts no more.
        assert_eq!(demand.target(begun, LEAST), LEAST);
    }

    /// A page of 30 connections, whose next visit finds as many.
    // protocol: T20
    #[test]
    fn what_is_wanted_at_once_is_ready_for_the_next_time() {
        let begun = 1_800_000_000_000 / WINDOW * WINDOW;
        let mut demand = Demand::default();
        (0..20).for_each(|use_| demand.used(begun + use_));
        (0..10).for_each(|use_| demand.used(begun + 900 + use_));
        assert_eq!(demand.target(begun + 909 + REST - 1, LEAST), LEAST + 2, "it may go on");
        assert_eq!(demand.rests(begun + 1_000), Some(begun + 909 + REST));
        assert_eq!((demand.target(begun + 909 + REST, LEAST), demand.rests(begun + 909 + REST)), (30, None));
        (0..20).for_each(|use_| demand.used(begun + 5_000 + use_));
        assert_eq!(demand.target(begun + WINDOW, LEAST), 30, "another burst adds nothing to it");
        (0..100).for_each(|_| demand.used(begun + WINDOW));
        assert_eq!(demand.target(begun + WINDOW + REST, LEAST), MOST);
        assert_eq!(demand.target(begun + 3 * WINDOW, LEAST), LEAST);
    }

    #[test]
    fn a_path_breaks_when_most_of_its_uses_do() {
        let mut demand = Demand::default();
        let uses = |demand: &mut Demand, count| (0..count).for_each(|_| demand.used(1_800_000_000_000));
        uses(&mut demand, 2);
        assert!(!demand.broke() && !demand.broke(), "two may be one node that failed");
        uses(&mut demand, 1);
        assert!(demand.broke());
        uses(&mut demand, 100);
        assert!((0..47).all(|_| !demand.broke()));
        assert!(demand.broke());
    }
}
