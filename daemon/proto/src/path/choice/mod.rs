//! Which nodes stand where in the circles of this node's identities: guards, layers, accounts, joined in one value
//! (docs/protocol.md, section 4.6). Chance, time and the sample are arguments.
//!
//! | file | what |
//! |---|---|
//! | [`guards`] | layer 1: who may stand next to the owner |
//! | [`layers`] | layers 2 and 3, of each identity and class |
//! | `account` | what a node has earned |
//! | `trial` | which guard kills builds |
//! | `seats` | which layer each place belongs to |
//! | `small` | networks without room for layers |

mod account;
pub mod guards;
mod known;
pub mod layers;
mod notes;
mod pool;
mod seats;
mod small;
mod trial;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;
use rand::seq::SliceRandom;

use self::account::{FULL, credit};
use self::guards::Guards;
use self::layers::LAYERS_MIN;
use self::pool::{Pool, View};
use self::seats::{Layer, places, seat};
use self::small::Small;
use self::trial::{Trials, Verdict};
use super::plan::{Candidate, HOPS, Needed, Plan, PlanError, Role};
use super::{Class, Persona};
use crate::ident::{NodeId, Spread};
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

pub use layers::Sets;
pub use notes::{Note, Short};

/// X-nodes of a trial circle: the fewest, so that little else than the guards can fail.
const TRIAL_HOPS: usize = 2;

/// How long a network counts as large after it last looked so, in seconds. A node that has just started, or that an attacker has
/// cut off, knows few nodes; it must not therefore do without layers.
const LARGE: u64 = 24 * 3600;

/// A build that fails counts against an identity's layers only when another stood so many seconds before.
const STANDS_NEAR: u64 = 60;

/// Whom a plan put where, to be handed back with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// `None`: a trial, never to be used.
    of: Option<(Persona, Class)>,
    nearest: NodeId,
    guards: Vec<NodeId>,
    x: Vec<NodeId>,
    y: Vec<NodeId>,
}

impl Case {
    fn new(of: Option<(Persona, Class)>, plan: &Plan, guards: &[Candidate]) -> Self {
        let guards: Vec<NodeId> = guards.iter().map(|guard| guard.contact.node_id()).collect();
        let mut case = Self { of, nearest: NodeId([0; 32]), guards, x: Vec::new(), y: Vec::new() };
        for placed in &plan.circle {
            let id = placed.candidate.contact.node_id();
            match placed.role {
                Role::X { position: 0 } => case.nearest = id,
                _ if case.guards.contains(&id) => {}
                Role::X { .. } => case.x.push(id),
                Role::Y => case.y.push(id),
            }
        }
        case
    }

    /// Of a path that nobody planned.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        let nearest = NodeId([0; 32]);
        Self { of: None, nearest, guards: Vec::new(), x: Vec::new(), y: Vec::new() }
    }

    /// The same, beside this guard.
    #[cfg(test)]
    pub(crate) fn beside(nearest: NodeId) -> Self {
        Self { nearest, ..Self::nobody() }
    }

    /// The X-node next to the owner.
    pub fn nearest(&self) -> &NodeId {
        &self.nearest
    }

    /// Whether the path is a trial: it is built to the end and then left alone.
    pub fn is_trial(&self) -> bool {
        self.of.is_none()
    }
}

/// What became of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The array did not come home, or not as it should; or no tunnel stood on the path.
    Failed,
    /// The path stands. One of those below follows.
    Built,
    /// It ended before its time, not by us (seconds).
    Died {
        /// So long it stood.
        lived: u64,
        /// So long it should have.
        planned: u64,
    },
    /// Its tunnels failed, and we dropped it.
    Mute,
    /// It ended in its time, or because we had no more use for it.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Choice {
    guards: Guards,
    pool: Pool,
    personas: BTreeMap<Persona, Sets>,
    small: Small,
    trials: Trials,
    /// When the sample last had room for layers.
    large: Option<u64>,
    /// Whether the last trial found no three guards that work together.
    no_three_work: bool,
    /// When a circle stood last.
    stood: Option<u64>,
}

impl Choice {
    /// A node that knows nobody yet.
    pub fn new(own: NodeContact, spread: Spread) -> Self {
        let pool = Pool::new(spread, own, Vec::new());
        Self {
            guards: Guards::default(),
            pool,
            personas: BTreeMap::new(),
            small: Small::default(),
            trials: Trials::default(),
            large: None,
            no_three_work: false,
            stood: None,
        }
    }

    /// A node as [`Self::to_bytes`] kept it.
    pub fn restored(own: NodeContact, spread: Spread, bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let guards = Guards::read(&mut reader)?;
        let large = Some(reader.u64()?).filter(|since| *since > 0);
        reader.finish()?;
        Ok(Self { guards, large, ..Self::new(own, spread) })
    }

    /// What is the node's and not one identity's, for the disk. Provisional guards are not in it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.guards.write(&mut out);
        out.u64(self.large.unwrap_or_default());
        out.0
    }

    /// The local sample, whole: brings guards and layers up to date. Returns whether [`Self::to_bytes`] is worth saving.
    pub fn sample(&mut self, rng: &mut dyn CryptoRng, now: u64, nodes: Vec<Candidate>) -> bool {
        self.pool = Pool::new(self.pool.spread, self.pool.own.clone(), nodes);
        if self.pool.operators >= LAYERS_MIN {
            self.large = Some(now);
        }
        self.personas.values_mut().for_each(|sets| sets.update(now, &self.pool));
        let provisional = !self.guards.settled();
        let changed = self.guards.refresh(rng, now, &self.pool);
        if provisional && self.guards.settled() {
            // What was found out is of other guards, and must not hold up a trial of these.
            (self.trials, self.no_three_work) = (Trials::default(), false);
        }
        changed
    }

    /// The owner is there from now on: its operator is in no circle.
    // protocol: O1
    pub fn moves(&mut self, own: NodeContact) {
        let nodes = std::mem::take(&mut self.pool.nodes).into_values().collect();
        self.pool = Pool::new(self.pool.spread, own, nodes);
    }

    /// An identity begins to have paths.
    pub fn born(&mut self, persona: Persona, sets: Sets) {
        self.personas.insert(persona, sets);
    }

    /// An identity has no more paths.
    pub fn gone(&mut self, persona: Persona) {
        self.personas.remove(&persona);
    }

    /// What to keep on disk of a persistent identity, if it changed.
    pub fn changed(&mut self, persona: Persona) -> Option<Vec<u8>> {
        let sets = self.personas.get_mut(&persona)?;
        if sets.take_changed() { sets.to_bytes() } else { None }
    }

    /// Draws a circle for a path. `away`: nodes that do not answer at present.
    pub fn plan(
        &mut self,
        rng: &mut dyn CryptoRng,
        now: u64,
        persona: Persona,
        class: Class,
        hops: usize,
        away: &dyn Fn(&NodeId) -> bool,
    ) -> Result<(Plan, Case), PlanError> {
        if !HOPS.contains(&hops) {
            return Err(PlanError::Hops(hops));
        }
        let view = View { now, pool: &self.pool, away };
        let mut operators = self.pool.circle();
        let mut first = self.guards.pick(view, &mut operators)?;
        first.shuffle(rng);
        let need = (places(hops, Layer::Second), places(hops, Layer::Third));
        let layered = self.layered(now);
        let (second, third) = match layered || self.has_sets(persona, class) {
            true => {
                let sets = self.personas.entry(persona).or_default();
                sets.refill(rng, view, class, need, &self.guards);
                sets.pick(rng, view, class, need, &mut operators)
            }
            false => {
                let convicted = self.guards.convicted(now).collect();
                self.small.draw(rng, view, need, &mut operators, &convicted)
            }
        };
        let (have, need) = (second.len() + third.len(), need.0 + need.1);
        if have < need {
            let of = if layered { Needed::Members } else { Needed::Operators };
            return Err(PlanError::NotEnough { have, need, of });
        }
        let plan = seat(rng, hops, &first, &second, &third);
        let case = Case::new(Some((persona, class)), &plan, &first);
        Ok((plan, case))
    }

    fn layered(&self, now: u64) -> bool {
        self.large.is_some_and(|since| now < since.saturating_add(LARGE))
    }

    fn has_sets(&self, persona: Persona, class: Class) -> bool {
        self.personas.get(&persona).is_some_and(|sets| !sets.is_empty(class))
    }

    /// A circle that puts guards to the test, when one is due.
    pub fn trial(&mut self, rng: &mut dyn CryptoRng, now: u64, away: &dyn Fn(&NodeId) -> bool) -> Option<(Plan, Case)> {
        let testable = self.guards.testable(now, self.pool.bounded);
        let ids = self.trials.next(now, &testable)?;
        let circle = self.trial_circle(rng, now, &ids, away);
        if circle.is_none() {
            // A guard has no current keys, or nobody else is known: as good as a build that fails.
            self.judge(now, &ids, false);
        }
        circle
    }

    fn trial_circle(
        &mut self,
        rng: &mut dyn CryptoRng,
        now: u64,
        ids: &[NodeId],
        away: &dyn Fn(&NodeId) -> bool,
    ) -> Option<(Plan, Case)> {
        let mut first = self.guards.trio(now, ids)?;
        first.shuffle(rng);
        let mut operators = self.pool.circle();
        if !first.iter().all(|guard| operators.take(&guard.contact)) {
            return None;
        }
        let need = places(TRIAL_HOPS, Layer::Second) + places(TRIAL_HOPS, Layer::Third);
        // Nor other guards: one that kills builds would have good ones found guilty.
        let guards: BTreeSet<NodeId> = self.guards.ids().collect();
        let free = |id: &NodeId, _: &Candidate| {
            !away(id) && !guards.contains(id) && !self.personas.values().any(|sets| sets.contains(id))
        };
        let others: Vec<_> =
            self.pool.draw(rng, need, &mut operators, free).into_iter().map(|(_, node)| node).collect();
        let (second, third) = others.split_at_checked(places(TRIAL_HOPS, Layer::Second))?;
        if third.len() < places(TRIAL_HOPS, Layer::Third) {
            return None;
        }
        let plan = seat(rng, TRIAL_HOPS, &first, second, third);
        let mut case = Case::new(None, &plan, &first);
        case.guards = ids.to_vec();
        Some((plan, case))
    }

    /// What became of a plan.
    pub fn went(&mut self, now: u64, case: &Case, how: How) {
        // Where nothing else stands either, the network or a guard is to blame.
        let others_stand = self.stood.is_some_and(|at| (at..=at + STANDS_NEAR).contains(&now));
        if how == How::Built {
            self.stood = Some(now);
        }
        let Some((persona, class)) = case.of else {
            return self.judge(now, &case.guards, how != How::Failed);
        };
        if how == How::Built || how == How::Failed && others_stand {
            self.personas.get_mut(&persona).into_iter().for_each(|sets| sets.built(class, how == How::Built));
        }
        let mut note = |ids: &[NodeId], credit: u32| {
            for id in ids {
                self.small.credit(&self.pool, id, credit);
                self.personas.get_mut(&persona).into_iter().for_each(|sets| sets.credit(class, id, credit));
            }
        };
        // Of those who forgot all after the build only the build can tell.
        match how {
            How::Failed => note(&[&case.x[..], &case.y[..]].concat(), 0),
            How::Built => note(&case.y, FULL),
            How::Died { .. } | How::Mute | How::Ended => note(&case.x, worth(how)),
        }
        match how {
            How::Failed | How::Built => {
                self.trials.note(how == How::Failed);
                self.small.built(how == How::Built);
            }
            How::Died { .. } | How::Mute | How::Ended => self.guards.credit(&case.nearest, worth(how)),
        }
    }

    fn judge(&mut self, now: u64, guards: &[NodeId], stood: bool) {
        match self.trials.ended(now, guards, stood) {
            Some(Verdict::Found { good, guilty }) => {
                self.guards.prefer(&good);
                guilty.iter().for_each(|guard| self.guards.convict(now, guard));
                self.no_three_work = false;
            }
            // protocol: O21
            Some(Verdict::Works { good }) => self.guards.prefer(&good),
            Some(Verdict::None) if self.guards.give_up() => self.trials = Trials::default(),
            Some(Verdict::None) => self.no_three_work = true,
            None => {}
        }
    }

    /// A dial of ours to a node succeeded or failed.
    pub fn dialed(&mut self, now: u64, node: &NodeId, answered: bool) {
        self.guards.dialed(now, node, answered);
    }

    /// Ids of the guards, the first to be used first.
    pub fn guards(&self) -> impl Iterator<Item = NodeId> {
        self.guards.ids()
    }

    /// Guards that did not answer.
    pub fn lost(&self) -> Vec<NodeId> {
        self.guards.lost().collect()
    }

    /// Contacts of the guards, to be looked at at random times.
    pub fn guard_contacts(&self) -> impl Iterator<Item = &NodeContact> {
        self.guards.contacts()
    }

    /// Contacts of guards and members of layers.
    pub fn contacts(&self) -> impl Iterator<Item = &NodeContact> {
        self.guards.contacts().chain(self.personas.values().flat_map(Sets::contacts))
    }

    /// Guards that are banned, and since when (seconds since 1970); the others are not.
    pub fn ban(&mut self, banned: BTreeMap<NodeId, u64>) {
        self.guards.ban(banned);
    }

    /// Guards and members of layers: their records are to be kept fresh, beside and like those of the rest of the sample.
    pub fn pinned(&self) -> BTreeSet<NodeId> {
        self.guards().chain(self.personas.values().flat_map(Sets::ids)).collect()
    }

    /// What the operator should know.
    pub fn notes(&self, now: u64) -> Vec<Note> {
        let mut notes = Vec::new();
        if !self.guards.settled() {
            notes.push(Note::Provisional);
        }
        if !self.layered(now) {
            notes.push(Note::LayersOff);
        }
        if self.trials.running() {
            notes.push(Note::Trial);
        }
        if self.no_three_work {
            notes.push(Note::NoThreeWork);
        }
        if self.pool.bounded && self.guards.exposed(now) {
            notes.push(Note::Exposed);
        }
        notes.extend(self.guards.convicted(now).map(Note::KillsBuilds));
        notes.extend(self.guards.poor().map(Note::KillsPaths));
        notes
    }
}

fn worth(how: How) -> u32 {
    match how {
        How::Died { lived, planned } => credit(lived, planned),
        How::Failed | How::Mute => 0,
        How::Built | How::Ended => FULL,
    }
}
