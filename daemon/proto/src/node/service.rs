//! What an identity that listens publishes: one AP record per step of the public grid, sent ahead along each entry path at a time
//! of its own, so that no record says when its owner did anything (docs/protocol.md, section 7.4).
//!
//! ```text
//!   step k                                     step k + 1
//!   ├── composed ─── sent to A ─ sent to B ────┼───── B publishes ──────── A publishes ──┤
//!      at random      at random each              each at random, by its own clock
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::visits::Watch;
use super::{Node, Output, PathNo, Work};
use crate::chance::exponential;
use crate::crypto::SigningKey;
use crate::path::Persona;
use crate::record::{ApRecord, RoutingEntry, STEP, Signed};
use crate::wire::frame::Handle;

/// Length of a step in milliseconds.
pub(super) const STEP_MS: u64 = STEP * 1000;

/// The last part of a step, in milliseconds, in which no record of the next one leaves: clocks may differ by 120 s, and a record that
/// arrives in its own step is published at once, so that its appearance tells when it was sent.
const TOO_LATE: u64 = 180_000;

/// The newest serials of two different steps: a record of this step may follow one of the next.
// protocol: H4
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Serials(pub [u64; 2]);

impl Serials {
    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self([(both >> 64) as u64, both as u64])
    }

    /// For the disk.
    pub fn to_bytes(self) -> [u8; 16] {
        let [older, newer] = self.0;
        (u128::from(older) << 64 | u128::from(newer)).to_be_bytes()
    }

    /// The newest of a step. 0: there is none.
    fn newest(self, step: u64) -> u64 {
        self.0.into_iter().filter(|serial| serial >> 16 == step).max().unwrap_or_default()
    }

    /// A new one in a step, larger than all before it there.
    fn draw(&mut self, step: u64) -> u64 {
        let Self([older, newer]) = *self;
        let of_step = |serial: u64| serial > 0 && serial >> 16 == step;
        let serial = if of_step(newer) {
            newer + 1
        } else if of_step(older) {
            older + 1
        } else {
            step << 16
        };
        let other = if of_step(newer) { older } else { newer };
        *self = Self([serial.min(other), serial.max(other)]);
        serial
    }
}

/// One identity's public face.
pub(super) struct Service {
    key: Arc<SigningKey>,
    serials: Serials,
    /// The step of the newest record.
    step: u64,
    /// When the first record may go out, in milliseconds.
    first: u64,
    /// What each record names that may be the newest public one, by its step: the one that was made last, and the one before, which is it
    /// until the terminating nodes publish the next. Empty: there is no record of this run yet.
    named: BTreeMap<u64, BTreeSet<Handle>>,
    /// A record has named as many entries as are wanted, since the last one out of turn.
    whole: bool,
    /// When the record of the next step is composed.
    compose: u64,
    /// Records on their way: when each is sent along which path.
    sends: BTreeMap<PathNo, (u64, Vec<u8>)>,
    /// When a record out of turn goes out.
    revive: Option<u64>,
    /// What is seen of it from outside.
    pub(super) watch: Watch,
}

impl Service {
    /// `serials` are those of earlier runs.
    pub(super) fn new(key: Arc<SigningKey>, serials: Serials, first: u64) -> Self {
        let (named, sends) = (BTreeMap::new(), BTreeMap::new());
        let watch = Watch::default();
        Self { key, serials, step: 0, first, named, whole: false, compose: u64::MAX, sends, revive: None, watch }
    }

    /// The clock was set back: what was published bears times to come, and counts for nobody.
    pub(super) fn restart(&mut self, now: u64) {
        self.first = self.first.min(now);
        (self.whole, self.revive) = (false, None);
        self.named.clear();
        self.sends.clear();
        self.watch.restart();
    }

    /// The newest record is not found from outside: as if no entry of it lived any more, another follows.
    // protocol: K28
    pub(super) fn make_anew(&mut self) {
        self.named.insert(self.step, BTreeSet::new());
    }

    /// The serial of the newest record.
    #[cfg(test)]
    pub(super) fn newest(&self) -> u64 {
        self.serials.newest(self.step)
    }

    /// When something is to be done for it, by network time.
    pub(super) fn times(&self) -> impl Iterator<Item = u64> {
        let first = self.named.is_empty().then_some(self.first);
        first.into_iter().chain(self.revive).chain(self.sends.values().map(|(at, _)| *at))
    }

    /// When a record may have to be composed, by network time.
    pub(super) fn composes(&self) -> impl Iterator<Item = u64> + use<> {
        [self.compose, (self.step + 1) * STEP_MS].into_iter()
    }

    /// The next record of a step; one that is sent ahead leaves the one before it public for a while.
    fn record(&mut self, step: u64, ahead: bool, entries: Vec<RoutingEntry>) -> Vec<u8> {
        self.step = step;
        self.named.retain(|of, _| ahead && of + 1 == step);
        self.named.insert(step, entries.iter().map(|entry| entry.handle).collect());
        let count = self.serials.draw(step) as u16;
        let record = ApRecord::on_grid(self.key.verifying_key(), step, count, entries);
        Signed::sign(&record, &self.key).bytes().to_vec()
    }
}

/// What is to be done for a service now.
enum Due {
    Nothing,
    /// A record of the present step, soon.
    Now,
    /// The record of the next step, at a time of its own along each path.
    Ahead,
}

impl Node {
    /// Composes and sends the records whose time has come.
    pub(super) fn serve(&mut self, now: u64) {
        let all: Vec<_> = self.personas.iter().filter(|(_, own)| own.service.is_some()).map(|(p, _)| *p).collect();
        for persona in all {
            let live = self.serving(persona, now);
            match self.service_due(now, persona, &live) {
                Due::Nothing => {}
                Due::Now => {
                    let step = now / STEP_MS;
                    let last = (now + self.settings.publish_within / 6).min((step + 1) * STEP_MS - 1);
                    self.compose(now, persona, live, step, now..=last.max(now));
                }
                Due::Ahead => {
                    let step = now / STEP_MS + 1;
                    self.compose(now, persona, live, step, now..=(step * STEP_MS - TOO_LATE).max(now));
                }
            }
            self.send_records(now, persona);
        }
    }

    /// Entry paths of a persona that a record names: those that stand and have not retired, and, while these are fewer than are wanted,
    /// those that have retired last. Who kills builds must not silence a service sooner than its paths end.
    // protocol: K25
    pub(super) fn serving(&self, persona: Persona, now: u64) -> Vec<(PathNo, RoutingEntry)> {
        let mut entries: Vec<_> = self.entries(persona).collect();
        entries.sort_by_key(|(retires, ..)| std::cmp::Reverse(*retires));
        let wanted = self.settings.entry_paths;
        let named = entries.into_iter().enumerate().filter(|(place, (retires, ..))| now < *retires || *place < wanted);
        named.map(|(_, (_, no, entry))| (no, entry)).collect()
    }

    /// Entry paths of a persona that stand, and when they retire.
    fn entries(&self, persona: Persona) -> impl Iterator<Item = (u64, PathNo, RoutingEntry)> {
        self.paths.iter().filter_map(move |(no, path)| {
            let owned = path.owned().filter(|owned| owned.persona == persona && owned.work == Work::Serve)?;
            let entry =
                RoutingEntry { entry_node: owned.end.clone(), handle: owned.handle, until: path.until() / 1000 };
            (path.proven && path.stands()).then_some((owned.retires, *no, entry))
        })
    }

    // protocol: H3
    fn service_due(&mut self, now: u64, persona: Persona, live: &[(PathNo, RoutingEntry)]) -> Due {
        let wanted = self.settings.entry_paths;
        let wait = exponential(&mut *self.rng, self.settings.revive_mean);
        let standing: BTreeSet<_> = self.entries(persona).map(|(_, _, entry)| entry.handle).collect();
        let Some(service) = self.personas.get_mut(&persona).and_then(|own| own.service.as_mut()) else {
            return Due::Nothing;
        };
        if now < service.first || live.is_empty() {
            return Due::Nothing;
        }
        if service.named.is_empty() {
            return Due::Now;
        }
        let step = now / STEP_MS;
        let lost = service.step < step || service.named.values().any(|named| named.is_disjoint(&standing));
        if lost {
            return if now >= *service.revive.get_or_insert(now + wait) { Due::Now } else { Due::Nothing };
        }
        service.revive = None;
        if !service.whole && live.len() >= wanted && service.step == step {
            return Due::Now;
        }
        if now >= service.compose && service.step == step { Due::Ahead } else { Due::Nothing }
    }

    // protocol: H1, H2
    fn compose(
        &mut self,
        now: u64,
        persona: Persona,
        mut live: Vec<(PathNo, RoutingEntry)>,
        step: u64,
        when: std::ops::RangeInclusive<u64>,
    ) {
        live.shuffle(&mut *self.rng);
        live.truncate(ApRecord::MAX_ENTRIES);
        let wanted = self.settings.entry_paths;
        // In the step that the record is for, or, for one at once, in what is left of this one.
        let from = now.max(step * STEP_MS);
        let compose = self.rng.random_range(from..=((step + 1) * STEP_MS - TOO_LATE).max(from));
        let Some(own) = self.personas.get_mut(&persona) else { return };
        let (Some(identity), Some(service)) = (own.identity, own.service.as_mut()) else { return };
        service.revive = None;
        service.compose = compose;
        let ahead = step > now / STEP_MS;
        // What was made when all were lost names the first that came: the others follow, or the service hangs on that one for a step.
        service.whole = live.len() >= wanted || ahead && service.whole;
        let record = service.record(step, ahead, live.iter().map(|(_, entry)| entry.clone()).collect());
        service.watch.named(
            now,
            (step, service.serials.newest(step), *when.end()),
            live.iter().map(|(no, entry)| (*no, entry.entry_node.node_id())),
        );
        service.sends.clear();
        for (no, _) in live {
            service.sends.insert(no, (self.rng.random_range(when.clone()), record.clone()));
        }
        self.out.push_back(Output::Serials { identity, serials: service.serials });
    }

    fn send_records(&mut self, now: u64, persona: Persona) {
        let Some(service) = self.personas.get_mut(&persona).and_then(|own| own.service.as_mut()) else { return };
        let due: Vec<_> = service.sends.iter().filter(|(_, (at, _))| now >= *at).map(|(no, _)| *no).collect();
        for path in due {
            if let Some((_, record)) = service.sends.remove(&path) {
                self.out.push_back(Output::Serve { path, record });
            }
        }
    }
}
