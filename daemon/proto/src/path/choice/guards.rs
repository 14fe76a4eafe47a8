//! Layer 1: the few nodes that may stand next to the owner (docs/protocol.md, section 4.6).
//!
//! ```text
//!   drawn ──▶ provisional ──▶ drawn once more ──▶ in use, or in reserve ──▶ life over, or gone for days
//!             (newcomer)      (kept on disk)      poor, lost, convicted: behind the others, never out of the list
//! ```
//!
//! A role next to the owner, drawn anew for each build, would sooner or later fall to an attacker's node with certainty. So what
//! counts is how many different nodes ever stand there, whatever happens to those that do.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use rand::{CryptoRng, RngExt};

use super::account::{Account, median};
use super::known::Known;
use super::pool::{Pool, View};
use crate::ident::NodeId;
use crate::path::Candidate;
use crate::path::plan::{Needed, Operators, PlanError};
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

const DAY: u64 = 24 * 3600;

/// Guards that one circle needs: first Y, last Y, nearest X.
pub const GUARDS_USED: usize = 3;

/// Guards to keep: two in reserve, so that a node that is away for an hour costs no new draw.
pub const GUARDS: usize = 5;

/// Guards in the list when members are gone or convicted and others had to be drawn.
pub const GUARDS_MAX: usize = 10;

/// How long a guard stays one, in seconds: 60 to 120 days, as Tor's do. It ends later while [`BOUNDS`] leave no room.
// protocol: O5
pub const GUARD_LIFE: RangeInclusive<u64> = 60 * DAY..=120 * DAY;

/// How many nodes may come to stand next to the owner within a time, losses by attack included. The first is met by three in use
/// and two reserves; the second leaves room for one loss every four months.
// protocol: O6
pub const BOUNDS: [(u64, usize); 2] = [(90 * DAY, 5), (365 * DAY, 8)];

/// Room that a guard whose life is over leaves to losses before it makes way for another.
const ROOM_FOR_LOSSES: usize = 2;

/// Absence after which a guard is no guard any more, in seconds: a week of dials in vain.
// protocol: O7
pub const LOST_MAX: u64 = 7 * DAY;

/// Dials in vain below which nobody counts as gone, however long ago the first was: we may have been off ourselves.
const LOST_DIALS: u32 = 8;

/// How long the owner makes do without enough guards before it draws another, in seconds: longer than a restart, a crash or a
/// change of address takes.
const LOST_PATIENCE: u64 = 3600;

/// How long a conviction stands, in seconds. Then the guard is tried again in its old place, before another is drawn.
const CONVICTED: u64 = 10 * DAY;

/// How long a guard that maintainers have banned keeps its place, in seconds: it is not used, and nobody is drawn for it. So a command
/// does not bring all owners to other guards within the hour.
// protocol: M17
pub const BANNED_PAUSE: u64 = DAY;

/// When a newcomer's guards are drawn for good: after some minutes in which look-ups of random keys have filled the sample by
/// answers of many nodes, seconds; later if the network looks small.
// protocol: O8
const SETTLE: (u64, u64) = (600, 3600);

/// How often a newcomer's guards are drawn anew before that, when no three of them work together: who kills all builds stands next to the owner
/// already, and nothing else would come about for an hour.
// protocol: O22
const REDRAWS: u8 = 2;

/// Nodes that make a sample ample.
const AMPLE_SAMPLE: usize = 64;

/// Version of the encoding on disk.
const VERSION: u8 = 2;

/// Nodes remembered as having stood next to the owner: the bound of a year, and as many again for clocks that jump.
const MET_MAX: usize = 2 * BOUNDS[1].1;

#[derive(Debug, Clone, PartialEq)]
struct Guard {
    known: Known,
    until: u64,
    /// Since when, and how often, it did not answer.
    lost: Option<(u64, u32)>,
    convicted: Option<u64>,
    /// Of the paths on which it was the nearest X-node.
    account: Account,
}

impl Guard {
    fn is_convicted(&self, now: u64) -> bool {
        self.convicted.is_some_and(|since| now < since.saturating_add(CONVICTED))
    }

    fn is_gone(&self, now: u64) -> bool {
        self.lost.is_some_and(|(since, dials)| dials >= LOST_DIALS && now > since.saturating_add(LOST_MAX))
    }

    fn is_missed(&self, now: u64) -> bool {
        self.lost.is_some_and(|(since, _)| now > since.saturating_add(LOST_PATIENCE))
    }
}

/// The owner's guards, in the order in which they are used. Goes to disk when drawn for good.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guards {
    list: Vec<Guard>,
    /// Who came to stand next to the owner, and when, since [`BOUNDS`] count.
    met: Vec<(NodeId, u64)>,
    settled: bool,
    /// When the first sample came.
    first: Option<u64>,
    /// How often provisional ones were drawn anew.
    redrawn: u8,
    /// Who is banned, and since when.
    banned: BTreeMap<NodeId, u64>,
}

impl Guards {
    /// Those of the list that are banned, and since when; nobody else is.
    pub(super) fn ban(&mut self, banned: BTreeMap<NodeId, u64>) {
        self.banned = banned;
    }

    /// Whether a banned guard still keeps its place. `None`: it is not banned.
    fn paused(&self, now: u64, id: &NodeId) -> Option<bool> {
        self.banned.get(id).map(|since| now < since.saturating_add(BANNED_PAUSE))
    }

    /// Takes what the sample says about members, lets go who is gone or whose life is over, draws who is missing.
    /// Returns whether to save the list.
    pub(super) fn refresh(&mut self, rng: &mut dyn CryptoRng, now: u64, pool: &Pool) -> bool {
        for guard in &mut self.list {
            pool.nodes.get(&guard.known.id).into_iter().for_each(|node| guard.known.update(now, node));
        }
        let settles = self.settles(now, pool.nodes.len());
        if settles {
            self.list.clear();
            self.settled = true;
        }
        let before = self.list.len();
        self.let_go(now, pool.bounded);
        let drawn = self.draw(rng, now, pool);
        self.settled && (settles || drawn || self.list.len() < before)
    }

    /// No three of them work together. True: others are drawn by the next sample.
    // protocol: O22
    pub(super) fn give_up(&mut self) -> bool {
        let may = !self.settled && self.redrawn < REDRAWS;
        if may {
            self.redrawn += 1;
            self.list.clear();
        }
        may
    }

    fn settles(&mut self, now: u64, sample: usize) -> bool {
        let first = *self.first.get_or_insert(now);
        let since = now.saturating_sub(first);
        !self.settled && sample >= GUARDS_USED && (since >= SETTLE.1 || since >= SETTLE.0 && sample >= AMPLE_SAMPLE)
    }

    pub(super) fn let_go(&mut self, now: u64, bounded: bool) {
        self.met.retain(|(_, since)| now < since.saturating_add(BOUNDS[1].0));
        // Who is gone may come back, and while no other may be drawn it is all there is.
        if !bounded || self.room_to_draw(now) > 0 {
            self.list.retain(|guard| !guard.is_gone(now));
        }
        // One at a time, and only while losses can still be borne.
        if !bounded || self.room(now) > ROOM_FOR_LOSSES {
            let over = self.list.iter().position(|guard| now >= guard.until);
            over.into_iter().for_each(|index| drop(self.list.remove(index)));
        }
    }

    /// How many more nodes may come to stand next to the owner at present.
    pub(super) fn room(&self, now: u64) -> usize {
        let met = |window: u64| self.met.iter().filter(|(_, since)| now < since.saturating_add(window)).count();
        BOUNDS.iter().map(|(window, bound)| bound.saturating_sub(met(*window))).min().unwrap_or_default()
    }

    /// How many more may be drawn: those in reserve will want room too.
    fn room_to_draw(&self, now: u64) -> usize {
        let unmet = self.list.iter().filter(|guard| !self.has_met(&guard.known.id)).count();
        self.room(now).saturating_sub(unmet)
    }

    fn draw(&mut self, rng: &mut dyn CryptoRng, now: u64, pool: &Pool) -> bool {
        let median = self.median();
        let missed = |guard: &&Guard| if pool.bounded { guard.is_missed(now) } else { guard.lost.is_some() };
        let well = |guard: &&Guard| !missed(guard) && !guard.is_convicted(now) && !guard.account.poor(median);
        let serving = |guard: &&Guard| self.paused(now, &guard.known.id).unwrap_or_else(|| well(guard));
        let missing = GUARDS_USED.saturating_sub(self.list.iter().filter(serving).count());
        let missing = missing.max(GUARDS.saturating_sub(self.list.len()));
        let room = if pool.bounded && self.settled { self.room_to_draw(now) } else { GUARDS_MAX };
        let count = missing.min(room).min(GUARDS_MAX.saturating_sub(self.list.len()));
        let mut operators = pool.circle();
        operators.take_all(self.contacts());
        let drawn = pool.draw(rng, count, &mut operators, |_, _| true);
        for (id, node) in &drawn {
            let until = now + rng.random_range(GUARD_LIFE);
            let known = Known::new(now, *id, node);
            self.list.push(Guard { known, until, lost: None, convicted: None, account: Account::default() });
        }
        !drawn.is_empty()
    }

    /// The guards of one circle: the first three of the list that serve; who is poor, lost or convicted comes last.
    pub(super) fn pick(&mut self, view: View<'_>, operators: &mut Operators) -> Result<Vec<Candidate>, PlanError> {
        let View { now, pool: Pool { bounded, .. }, away } = view;
        let bounded = *bounded;
        let median = self.median();
        let rank = |guard: &Guard| match () {
            () if guard.lost.is_some() => 2,
            () if guard.is_convicted(now) || guard.account.poor(median) => 1,
            () => 0,
        };
        let mut order: Vec<(u8, NodeId, Candidate)> = self
            .list
            .iter()
            .filter(|guard| guard.known.current(now) && !away(&guard.known.id))
            .filter(|guard| !self.banned.contains_key(&guard.known.id))
            .map(|guard| (rank(guard), guard.known.id, guard.known.candidate.clone()))
            .collect();
        order.sort_by_key(|(rank, ..)| *rank);
        let mut room = if bounded && self.settled { self.room(now) } else { GUARDS_MAX };
        let mut picked = Vec::with_capacity(GUARDS_USED);
        for (_, id, candidate) in order {
            let known = self.has_met(&id);
            if picked.len() < GUARDS_USED && (known || room > 0) && operators.take(&candidate.contact) {
                room -= usize::from(!known);
                picked.push((id, candidate));
            }
        }
        let have = picked.len();
        if have < GUARDS_USED {
            let waits = bounded && self.settled && self.room_to_draw(now) == 0;
            let not_enough = PlanError::NotEnough { have, need: GUARDS_USED, of: Needed::Guards };
            return Err(if waits { PlanError::Exposed } else { not_enough });
        }
        picked.iter().for_each(|(id, _)| self.meet(now, *id));
        Ok(picked.into_iter().map(|(_, candidate)| candidate).collect())
    }

    fn has_met(&self, id: &NodeId) -> bool {
        self.met.iter().any(|(met, _)| met == id)
    }

    /// Provisional guards are not counted: there is one draw of them, for the first minutes of a node's life.
    fn meet(&mut self, now: u64, id: NodeId) {
        if self.settled && !self.has_met(&id) && self.met.len() < MET_MAX {
            self.met.push((id, now));
        }
    }

    fn median(&self) -> u32 {
        median(self.list.iter().map(|guard| &guard.account))
    }

    /// A dial of ours to a guard succeeded or failed.
    pub(super) fn dialed(&mut self, now: u64, id: &NodeId, answered: bool) {
        for guard in self.list.iter_mut().filter(|guard| guard.known.id == *id) {
            guard.lost = match (answered, guard.lost) {
                (true, _) => None,
                (false, None) => Some((now, 1)),
                (false, Some((since, dials))) => Some((since, dials.saturating_add(1))),
            };
        }
    }

    /// What became of a path on which this guard was the nearest X-node.
    pub(super) fn credit(&mut self, id: &NodeId, credit: u32) {
        self.list.iter_mut().filter(|guard| guard.known.id == *id).for_each(|guard| guard.account.add(credit));
    }

    /// These work together: they go first.
    pub(super) fn prefer(&mut self, good: &[NodeId]) {
        self.list.sort_by_key(|guard| !good.contains(&guard.known.id));
    }

    pub(super) fn convict(&mut self, now: u64, id: &NodeId) {
        self.list.iter_mut().filter(|guard| guard.known.id == *id).for_each(|guard| guard.convicted = Some(now));
    }

    /// Guards that can be put to the test: those that may stand next to the owner anyway.
    pub(super) fn testable(&self, now: u64, bounded: bool) -> Vec<NodeId> {
        let room = if bounded { self.room(now) } else { GUARDS_MAX };
        let unmet = self.list.iter().filter(|guard| !self.has_met(&guard.known.id)).take(room);
        let unmet: Vec<NodeId> = unmet.map(|guard| guard.known.id).collect();
        let fits = |guard: &&Guard| {
            let usable = guard.lost.is_none() && !self.banned.contains_key(&guard.known.id);
            usable && (self.has_met(&guard.known.id) || unmet.contains(&guard.known.id))
        };
        self.list.iter().filter(fits).map(|guard| guard.known.id).take(GUARDS).collect()
    }

    /// The guards with these ids, as a circle of a trial; they now stand next to the owner.
    pub(super) fn trio(&mut self, now: u64, ids: &[NodeId]) -> Option<Vec<Candidate>> {
        let by_id: BTreeMap<NodeId, &Guard> = self.list.iter().map(|guard| (guard.known.id, guard)).collect();
        let find = |id: &NodeId| {
            by_id.get(id).filter(|guard| guard.known.current(now)).map(|guard| guard.known.candidate.clone())
        };
        let trio = ids.iter().map(find).collect::<Option<Vec<_>>>()?;
        ids.iter().for_each(|id| self.meet(now, *id));
        Some(trio)
    }

    pub(super) fn contacts(&self) -> impl Iterator<Item = &NodeContact> {
        self.list.iter().map(|guard| &guard.known.candidate.contact)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.list.iter().map(|guard| guard.known.id)
    }

    pub(super) fn lost(&self) -> impl Iterator<Item = NodeId> {
        self.list.iter().filter(|guard| guard.lost.is_some()).map(|guard| guard.known.id)
    }

    pub(super) fn settled(&self) -> bool {
        self.settled
    }

    pub(super) fn convicted(&self, now: u64) -> impl Iterator<Item = NodeId> {
        self.list.iter().filter(move |guard| guard.is_convicted(now)).map(|guard| guard.known.id)
    }

    pub(super) fn poor(&self) -> impl Iterator<Item = NodeId> {
        let median = self.median();
        self.list.iter().filter(move |guard| guard.account.poor(median)).map(|guard| guard.known.id)
    }

    /// Whether fewer than three serve and no other may be drawn.
    pub(super) fn exposed(&self, now: u64) -> bool {
        let median = self.median();
        let serves = |guard: &&Guard| guard.lost.is_none() && !guard.is_convicted(now) && !guard.account.poor(median);
        self.settled && self.list.iter().filter(serves).count() < GUARDS_USED && self.room_to_draw(now) == 0
    }
}

/// Version, count and guards, count and nodes met. Provisional guards are not among them.
impl Wire for Guards {
    fn write(&self, out: &mut Writer) {
        let list: &[Guard] = if self.settled { &self.list } else { &[] };
        out.u8(VERSION);
        out.u8(list.len() as u8);
        for guard in list {
            guard.known.write(out);
            out.u64(guard.until);
            let (since, dials) = guard.lost.unwrap_or_default();
            out.u64(since);
            out.u32(dials);
            out.u64(guard.convicted.unwrap_or_default());
            guard.account.write(out);
        }
        out.u8(self.met.len() as u8);
        for (id, since) in &self.met {
            out.bytes(&id.0);
            out.u64(*since);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.u8()? != VERSION {
            return Err(WireError::Value);
        }
        let list = read_some(reader, GUARDS_MAX, Guard::read)?;
        let met = read_some(reader, MET_MAX, |reader| Ok((NodeId(reader.array()?), reader.u64()?)))?;
        Ok(Self { settled: !list.is_empty(), list, met, first: None, redrawn: 0, banned: BTreeMap::new() })
    }
}

impl Guard {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (known, until) = (Known::read(reader)?, reader.u64()?);
        let lost = match (reader.u64()?, reader.u32()?) {
            (0, 0) => None,
            (_, 0) => return Err(WireError::Value),
            lost => Some(lost),
        };
        let convicted = Some(reader.u64()?).filter(|since| *since > 0);
        Ok(Self { known, until, lost, convicted, account: Account::read(reader)? })
    }
}

/// A count of at most `limit`, then as many values.
pub(super) fn read_some<T>(
    reader: &mut Reader<'_>,
    limit: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = usize::from(reader.u8()?);
    if count > limit {
        return Err(WireError::TooLong);
    }
    (0..count).map(|_| read(reader)).collect()
}
