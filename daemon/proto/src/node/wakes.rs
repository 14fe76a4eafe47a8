//! When something happens next that has a time of its own. What was drawn for one identity or path is done at that time, and not with all
//! that waits for a common tick: what leaves in one moment belongs together (docs/protocol.md, section 4.7).

use super::build::LATE;
use super::paths::{self, Part, Path};
use super::{Node, Work};

impl Node {
    /// When the shell calls [`Node::tick`] next, if before the next [`super::TICK`].
    pub fn wakes(&self) -> Option<u64> {
        self.due
    }

    /// Something was drawn for this time.
    pub(super) fn wake(&mut self, at: u64) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    // protocol: K24
    pub(super) fn look_ahead(&mut self, now: u64) {
        let builds = self.next_builds();
        let services = self.personas.values().filter_map(|own| own.service.as_ref());
        let sends = services.flat_map(|service| service.times()).map(|at| self.own_time(at));
        let paths = self.paths.values().flat_map(Path::times);
        let all = builds.chain(sends).chain(paths).chain(self.looks.values().copied());
        self.due = all.filter(|at| *at > now).min();
    }
}

impl Path {
    /// When something is to happen to it.
    fn times(&self) -> impl Iterator<Item = u64> {
        let limits = [LATE, paths::STAND_LIMIT + 1].map(|limit| (!self.proven).then_some(self.since() + limit));
        let own = match &self.part {
            Part::Own(_, owned) => {
                let retires = (owned.work == Work::Spare).then_some(owned.retires);
                owned.leaves.into_iter().chain(retires).min()
            }
            Part::End(_, terminating) => terminating.publishes(),
            Part::Middle(_) => None,
        };
        [Some(self.until.saturating_add(1)), own, self.thin_at].into_iter().chain(limits).flatten().chain(self.tells())
    }
}
