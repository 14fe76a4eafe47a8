//! When time next does something to this node: until then nobody need look, and a node to which nothing happens costs nothing.

use super::paths::Path;
use super::{LOOK, Node};

/// Longest time between two looks, in milliseconds: a leap of the clock must be seen, and the accounts of nodes have times of their own
/// that are hours away.
const LONGEST: u64 = 10_000;

impl Node {
    /// When [`Node::tick`] next has something to do, as far as is known at `now`; it may have been overdue for long. An input may make it
    /// sooner.
    pub fn due(&self, now: u64) -> u64 {
        let limits = [self.next_late_build(now), self.next_late_link(), self.next_late_setup(), self.ready.next_over()];
        let rests = self.paths.values().filter_map(|path| path.demand.rests(now)).min();
        let looks = [self.next_look(now), self.next_turn(now), rests, Some(now + LONGEST)];
        limits.into_iter().chain(looks).chain([self.wakes()]).flatten().min().unwrap_or(now)
    }

    /// When something is due of what is looked at once in [`LOOK`]. What was due at the last look and is still there waits for something to
    /// happen.
    fn next_look(&self, now: u64) -> Option<u64> {
        let looked = self.look_at.min(now + LOOK).saturating_sub(LOOK);
        let retires = self.paths.values().filter_map(Path::owned).map(|owned| owned.retires);
        let services = self.personas.values().filter_map(|own| own.service.as_ref());
        let composes = services.flat_map(|service| service.composes()).map(|at| self.own_time(at));
        let at = retires.chain(composes).filter(|at| *at > looked);
        at.chain(self.stirred.then_some(0)).min().map(|at| at.max(self.look_at))
    }

    /// When a path that has many ready tunnels may find that it has too many.
    fn next_turn(&self, now: u64) -> Option<u64> {
        let many = self.settings.ready_tunnels;
        let full = self.paths.iter().filter(|(no, _)| self.ready.count(**no) > 2 * many);
        full.map(|(_, path)| path.demand.turns(now)).min()
    }
}
