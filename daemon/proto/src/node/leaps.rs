//! The wall clock leaps: the computer slept, or somebody set the clock; or it is in another network. What waits for a time must neither happen all at once, which
//! would show what belongs together, nor wait until a time is there again that was wrong (docs/protocol.md, section 4.7).

use super::Node;
use super::paths::Path;
use crate::chance::exponential;

/// Time between two ticks that is no leap, in milliseconds: a loaded computer may be that late.
const ASLEEP: u64 = 30_000;

/// How far back the clock may go before it counts, in milliseconds: clocks are corrected by less all the time.
const BACK: u64 = 2_000;

/// How long a computer must have slept for its paths to be exchanged, in milliseconds: those of its neighbours that had something to say
/// meanwhile have given it up (an end speaks every ten minutes on average).
const STALE: u64 = 600_000;

impl Node {
    /// Looks how time has passed since the last call.
    pub(super) fn note_time(&mut self, now: u64) {
        let last = self.ticked.replace(now).unwrap_or(now);
        if now > last.saturating_add(ASLEEP) {
            self.redraw_clocks(now);
            if now > last.saturating_add(STALE) {
                self.exchange_paths(now);
            }
        } else if now.saturating_add(BACK) < last {
            self.redraw_clocks(now);
            self.begin_anew(now);
        }
    }

    /// Ticks that are overdue, or ages away, are drawn anew, each by itself; what an identity has lost meanwhile it replaces after a
    /// time of its own, too.
    // protocol: K9, K17, K26
    pub(super) fn redraw_clocks(&mut self, now: u64) {
        let mean = self.settings.redrawn_mean;
        for own in self.personas.values_mut() {
            let rest = now + exponential(&mut *self.rng, mean);
            for stock in own.stocks() {
                stock.redraw(now + exponential(&mut *self.rng, mean), rest);
            }
        }
        for at in self.looks.values_mut() {
            *at = now + exponential(&mut *self.rng, mean);
        }
    }

    /// Each path of an earlier day gives up its work, and then ends, at times of its own: else all of them would be found dead at once.
    // protocol: K18
    fn exchange_paths(&mut self, now: u64) {
        let mean = self.settings.redrawn_mean;
        for owned in self.paths.values_mut().filter_map(Path::owned_mut) {
            let retires = now + exponential(&mut *self.rng, mean);
            owned.retires = owned.retires.min(retires);
            // Its successor may need a while; a spare goes when it is retired, or takes over for one.
            owned.leaves = Some(retires + exponential(&mut *self.rng, 2 * mean));
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
