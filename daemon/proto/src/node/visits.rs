//! An owner visits its own entries from outside, as any client would: over a spare path that has grown old and would end anyway, at a
//! time that the Poisson clock of its class has set (docs/protocol.md, section 4.7). An entry node that only pretends to serve, or
//! whose record never came to be, shows by that, and by nothing else. One such path in three looks the record up instead.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::own_record::OwnRecord;
use super::paths::{Ending, Path};
use super::progress::ago;
use super::service::STEP_MS;
use super::{Node, Output, PathNo, Work};
use crate::chance::exponential;
use crate::ident::{ApAddress, NodeId};
use crate::path::choice::Short;
use crate::path::{Class, Persona};

/// Mean time in milliseconds for which a path that has no work any more stays: its end then says neither what ended its work nor when
/// its successor came.
const LINGER_MEAN: u64 = 120_000;

/// Mean time between the end of an identity and the end of each of its paths, in milliseconds.
const FAREWELL_MEAN: u64 = 60_000;

/// Paths that linger at once. Beyond it the next to go goes at once: programs that start without end must not hold links without end.
const LINGERING: usize = 256;

/// How long a visit may take in milliseconds: longer than the shell waits for a tunnel and an answer.
const LIMIT: u64 = 120_000;

/// How long after its record has left an entry must serve, in milliseconds: a record that is sent at once may wait for a tunnel.
const SETTLED: u64 = 60_000;

/// Exits that must have failed to reach an entry, one after the other, before it counts as one that does not serve: any of them may lie.
pub(super) const WITNESSES: usize = 3;

/// What is known of a service from outside.
#[derive(Default)]
pub(super) struct Watch {
    entries: BTreeMap<PathNo, Entry>,
    /// When an entry was last reached, in milliseconds since 1970.
    reached: Option<u64>,
    /// The record that names them.
    pub(super) record: OwnRecord,
}

struct Entry {
    node: NodeId,
    /// From when on it must serve, in milliseconds since 1970.
    serves: u64,
    /// Exits that did not reach it since it was last reached.
    failed: BTreeSet<NodeId>,
}

/// One in so many paths that go looks the record up instead of visiting an entry: of entries there are three.
const LOOKS_UP: u32 = 3;

/// A look from outside that is under way.
pub(super) struct Visit {
    pub(super) persona: Persona,
    pub(super) exit: NodeId,
    pub(super) to: To,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// An own entry.
    Entry(PathNo),
    /// The own record.
    Record,
}

impl Watch {
    /// A record of `step` with this serial names these entries; until `last` it is on its way.
    pub(super) fn named(
        &mut self,
        now: u64,
        (step, serial, last): (u64, u64, u64),
        live: impl IntoIterator<Item = (PathNo, NodeId)>,
    ) {
        // The record of a step to come is published somewhere within it.
        let serves = SETTLED + if step > now / STEP_MS { (step + 1) * STEP_MS } else { now };
        self.record.sent(now, serial, serves.max(last + SETTLED));
        for (no, node) in live {
            self.entries.entry(no).or_insert_with(|| Entry { node, serves, failed: BTreeSet::new() });
        }
    }

    /// A clock was set back: all serve since long ago.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    fn in_words(&self, now: u64) -> String {
        let seen = match self.reached {
            None => "not seen from outside yet".to_owned(),
            Some(at) => format!("seen from outside {}", ago(now, at)),
        };
        let failing = self.entries.values().filter(|entry| !entry.failed.is_empty());
        let failing = failing.map(|Entry { node, failed, .. }| {
            format!("; entry node {} was not reached by {} of {WITNESSES}", Short(*node), failed.len())
        });
        std::iter::once(seen).chain(failing).chain([self.record.in_words(now)]).collect()
    }
}

impl Node {
    /// A path has no work any more: it stays for a while.
    pub(super) fn let_go(&mut self, now: u64, no: PathNo) {
        self.linger(now, no, LINGER_MEAN);
        self.bound_lingering(now);
    }

    /// The identity of a path is gone: each of them ends at a time of its own.
    pub(super) fn say_farewell(&mut self, now: u64, identity: ApAddress, no: PathNo) {
        self.linger(now, no, FAREWELL_MEAN);
        self.out.push_back(Output::PathWorks { path: no, identity, work: Work::Leaving });
        self.bound_lingering(now);
    }

    fn bound_lingering(&mut self, now: u64) {
        let lingers = |path: &Path| path.owned().filter(|owned| owned.work == Work::Leaving)?.leaves;
        let mut all: Vec<_> = self.paths.iter().filter_map(|(no, path)| Some((lingers(path)?, *no))).collect();
        all.sort_unstable();
        for (_, no) in &all[..all.len().saturating_sub(LINGERING)] {
            self.drop_path(now, *no);
        }
    }

    // protocol: K21
    fn linger(&mut self, now: u64, no: PathNo, mean: u64) {
        let at = now + exponential(&mut *self.rng, mean);
        if let Some(owned) = self.paths.get_mut(&no).and_then(Path::owned_mut) {
            (owned.work, owned.leaves) = (Work::Leaving, Some(at));
        }
        self.wake(at);
        self.ready.retire(no);
    }

    /// Ends the paths whose time has come; one whose identity offers something is used once before.
    pub(super) fn leave(&mut self, now: u64) {
        let over = |path: &Path| path.owned().is_some_and(|owned| owned.leaves.is_some_and(|at| now >= at));
        let over: Vec<_> = self.paths.iter().filter(|(_, path)| over(path)).map(|(no, _)| *no).collect();
        for no in over {
            if self.look_from_outside(now, no).is_none() {
                self.drop_path(now, no);
            }
        }
    }

    /// Uses a path once before it ends. `None`: there is nothing to be looked at over it.
    // protocol: K27
    fn look_from_outside(&mut self, now: u64, no: PathNo) -> Option<()> {
        if self.rng.random_ratio(1, LOOKS_UP) {
            self.begin_look_up(now, no).or_else(|| self.begin_visit(now, no))
        } else {
            self.begin_visit(now, no).or_else(|| self.begin_look_up(now, no))
        }
    }

    /// A path sets out to look at something.
    pub(super) fn go_out(&mut self, now: u64, no: PathNo, visit: Visit) {
        self.visits.insert(no, visit);
        if let Some(owned) = self.paths.get_mut(&no).and_then(Path::owned_mut) {
            owned.leaves = Some(now + LIMIT);
        }
    }

    /// What it looked at was told: it stays for a while more.
    pub(super) fn come_home(&mut self, now: u64, no: PathNo) {
        self.linger(now, no, LINGER_MEAN);
    }

    // protocol: K13
    fn begin_visit(&mut self, now: u64, no: PathNo) -> Option<()> {
        let owned = self.paths.get(&no)?.owned()?;
        if owned.class != Class::Out || owned.work != Work::Leaving || self.visits.contains_key(&no) {
            return None;
        }
        let (persona, exit) = (owned.persona, owned.end.node_id());
        // A guard that carried both ways of a visit would see that they meet here.
        let nearest = *owned.case.nearest();
        let apart = |entry: &PathNo| {
            self.paths.get(entry).and_then(Path::owned).is_some_and(|owned| *owned.case.nearest() != nearest)
        };
        let watch = &self.personas.get(&persona)?.service.as_ref()?.watch;
        let (time, live) = (self.network_time(now), self.serving(persona, now));
        let live: BTreeMap<_, _> = live.into_iter().collect();
        let fits = |(no, entry): &(&PathNo, &Entry)| {
            live.contains_key(no) && time >= entry.serves && entry.node != exit && apart(no)
        };
        let fits: Vec<_> = watch.entries.iter().filter(fits).collect();
        // Who has failed is looked at first, by an exit that has not seen it fail.
        let most = fits.iter().map(|(_, entry)| entry.failed.len()).max()?;
        let first = |(_, entry): &&(&PathNo, &Entry)| entry.failed.len() == most && !entry.failed.contains(&exit);
        let first: Vec<_> = fits.iter().filter(first).map(|(no, _)| **no).collect();
        let entry = *first.choose(&mut self.rng)?;
        let (identity, route) = (self.personas.get(&persona)?.identity?, live.get(&entry)?.clone());
        self.go_out(now, no, Visit { persona, exit, to: To::Entry(entry) });
        let (node, handle) = (route.entry_node.node_id(), route.handle);
        self.out.push_back(Output::Visit { path: no, identity, entry, node, handle });
        Some(())
    }

    /// How a visit ended. Its path stays for a while more.
    // protocol: K15
    pub(super) fn visited(&mut self, now: u64, no: PathNo, reached: bool) {
        let Some(&Visit { persona, exit, to: To::Entry(entry) }) = self.visits.get(&no) else { return };
        self.come_home(now, no);
        let Some(service) = self.personas.get_mut(&persona).and_then(|own| own.service.as_mut()) else { return };
        let Some(seen) = service.watch.entries.get_mut(&entry) else { return };
        if reached {
            seen.failed.clear();
            service.watch.reached = Some(now);
        } else {
            seen.failed.insert(exit);
            if seen.failed.len() >= WITNESSES {
                self.end_path(now, entry, Ending::Mute);
            }
        }
    }

    /// Somebody else came to an own service from outside, as any client would.
    pub(super) fn seen(&mut self, now: u64, identity: ApAddress) {
        let services = self.personas.values_mut().filter(|own| own.identity == Some(identity));
        for service in services.filter_map(|own| own.service.as_mut()) {
            service.watch.reached = Some(now);
        }
    }

    /// A path is gone, and what was to be seen over it, or of it.
    pub(super) fn unwatch(&mut self, persona: Persona, no: PathNo) {
        self.visits.remove(&no);
        if let Some(service) = self.personas.get_mut(&persona).and_then(|own| own.service.as_mut()) {
            service.watch.entries.remove(&no);
        }
    }

    /// Services of which each entry that was visited was not reached.
    pub(super) fn unseen(&self) -> usize {
        let services = self.personas.values().filter_map(|own| own.service.as_ref());
        let unseen =
            |watch: &Watch| !watch.entries.is_empty() && watch.entries.values().all(|entry| !entry.failed.is_empty());
        services.filter(|service| unseen(&service.watch)).count()
    }

    /// How each service is seen from outside, in words.
    pub fn seen_from_outside(&self, now: u64) -> Vec<(ApAddress, String)> {
        let seen = self.personas.values().filter_map(|own| Some((own.identity?, own.service.as_ref()?)));
        seen.map(|(identity, service)| (identity, service.watch.in_words(now))).collect()
    }
}
