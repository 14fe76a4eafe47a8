//! How many tunnels of a path are wanted ready: as many as are used up while others are being set up.

/// How long uses count, in milliseconds. A page, a shell's script, a visitor come back within it, or not for long.
const WINDOW: u64 = 60_000;

/// So many uses in a window make one more tunnel worth while: setting one up takes about a second, and uses come in bursts of four times
/// their average and more.
const USES_PER_TUNNEL: usize = 15;

/// Ready tunnels that this end wants, however many are used: half of what is kept, since the other end counts like this too, and as
/// many as may be set up at once.
// protocol: T20
const MOST: usize = 32;

/// Uses of a path's tunnels, by either end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    window: u64,
    this: usize,
    last: usize,
}

impl Demand {
    /// A tunnel is used.
    pub(super) fn used(&mut self, now: u64) {
        self.turn(now);
        self.this += 1;
    }

    /// Whether none was used, ever.
    pub(super) fn is_none(&self) -> bool {
        self.window == 0
    }

    /// How many are wanted ready, of which `least` in any case.
    // protocol: T20
    pub(super) fn target(&self, now: u64, least: usize) -> usize {
        let mut at = *self;
        at.turn(now);
        (least + at.this.max(at.last) / USES_PER_TUNNEL).min(MOST.max(least))
    }

    /// Beyond so many one goes: the other end wants as many as this one.
    // protocol: T21
    pub(super) fn surplus(&self, now: u64, least: usize) -> usize {
        2 * self.target(now, least)
    }

    fn turn(&mut self, now: u64) {
        // Never 0, which says that there was none.
        let window = now / WINDOW + 1;
        if window == self.window {
            return;
        }
        self.last = if window == self.window + 1 { self.this } else { 0 };
        (self.window, self.this) = (window, 0);
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
            demand.used(begun + use_);
        }
        assert!(!demand.is_none());
        assert_eq!(demand.target(begun + 100, LEAST), LEAST + 2);
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
}
