//! The wall clock leaps: the computer slept, or somebody set the clock. What waits for a time must neither happen all at once, which
//! would show what belongs together, nor wait until a time is there again that was wrong (docs/protocol.md, section 4.7).

use super::hops::Path;
use super::pace::exponential;
use super::{Node, Work};

/// Time between two ticks that is no leap, in milliseconds: a loaded computer may be that late.
const ASLEEP: u64 = 30_000;

/// How far back the clock may go before it counts, in milliseconds: clocks are corrected by less all the time.
const BACK: u64 = 2_000;

/// Mean of what each class of a persona waits after a leap, in milliseconds, before its clock goes on.
const REDRAWN_MEAN: u64 = 60_000;

impl Node {
    /// Looks how time has passed since the last call.
    pub(super) fn note_time(&mut self, now: u64) {
        let last = self.ticked.replace(now).unwrap_or(now);
        if now > last.saturating_add(ASLEEP) {
            self.redraw_clocks(now);
        } else if now.saturating_add(BACK) < last {
            self.redraw_clocks(now);
            self.begin_anew(now);
        }
    }

    /// Ticks that are overdue, or ages away, are drawn anew, each by itself.
    // protocol: K9
    fn redraw_clocks(&mut self, now: u64) {
        for own in self.personas.values_mut() {
            for stock in own.stocks() {
                stock.redraw(now + exponential(&mut *self.rng, REDRAWN_MEAN));
            }
        }
        for at in self.looks.values_mut() {
            *at = now + exponential(&mut *self.rng, REDRAWN_MEAN);
        }
    }

    /// The clock was set back: what is under way gets its whole time once more, and records are made for the step that it is now.
    fn begin_anew(&mut self, now: u64) {
        self.restart_builds(now);
        self.restart_setups(now);
        self.ready.restart(now);
        for link in self.links.values_mut() {
            link.restart(now);
        }
        let waits = std::mem::take(&mut self.waits);
        self.waits = waits.into_iter().map(|((_, number), step)| ((now, number), step)).collect();
        for own in self.personas.values_mut() {
            if let Some(service) = &mut own.service {
                service.restart(now);
            }
        }
    }
}
