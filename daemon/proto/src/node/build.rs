//! Builds of own paths: starting them, both rounds, what their failure means.

use std::collections::BTreeSet;

use rand::RngExt;

use super::ends::DRAWS;
use super::links::{Errand, Role};
use super::pace;
use super::paths::{Owned, Part, Path};
use super::{Node, Note, Output, PathNo, Work};
use crate::chance::exponential;
use crate::ident::NodeId;
use crate::path::{
    self, Build, BuildError, BuiltPath, Candidate, Case, Class, How, Persona, Plan, PlanError, Send, Step,
};
use crate::tunnel;
use crate::wire::NodeContact;
use crate::wire::array::{ArrayFrame, BuildId};
use crate::wire::frame::Frame;

/// Builds of our own under way at once: more would be a burst that an observer sees.
pub(super) const MAX_BUILDS: usize = 6;

/// So many of them are never builds for an identity to come: where nodes die, all would be, while somebody waits.
pub(super) const KEPT_FREE: usize = 2;

/// How long the owner waits for an array to come home, in milliseconds: five times what sixteen hops across the world take. The
/// nodes in between wait longer (`BUILD_LIFE`).
// protocol: Z5
pub(super) const BUILD_PATIENCE: u64 = 12_000;

/// From then on a build is not counted on, nor is one that came home and has no tunnel yet, in milliseconds: twice what sixteen hops across
/// the world take. It may still come about.
// protocol: K33
pub(super) const LATE: u64 = 5_000;

/// How long a node that did not answer is left out of plans, in milliseconds: in a small network two or three that were
/// merely slow once leave too few for a circle.
// protocol: O19
const AWAY: u64 = 60_000;

/// Candidates that are plenty to draw guards from: the first few nodes that a newcomer hears of must not become its guards.
const AMPLE_SAMPLE: usize = 64;

/// How long to wait for an ample sample, in milliseconds: a small network has no more.
const SAMPLE_PATIENCE: u64 = 1_500;

/// Mean of the random time after a failed build before the guards of its circle are looked at, in milliseconds: who killed the
/// build must not be able to tell from a look that follows who its owner was.
const PROBE_MEAN: u64 = 60_000;

/// A build under way.
pub(super) struct Building {
    build: Build,
    /// `None`: a trial.
    pub(super) whose: Option<(Persona, Class)>,
    case: Case,
    since: u64,
    /// Its first array, until there is a way home.
    waits: Option<Send>,
}

/// Why a build could not even start.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotBuild {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl From<CannotBuild> for Note {
    fn from(why: CannotBuild) -> Self {
        match why {
            CannotBuild::Plan(why) => Self::NoPlan(why),
            CannotBuild::Build(why) => Self::BuildFailed(why),
        }
    }
}

impl Node {
    /// The sample is new: bring guards and layers up to date before anything is planned with it.
    // protocol: J7
    pub(super) fn take_sample(&mut self, now: u64, mut sample: Vec<Candidate>) {
        sample.retain(|candidate| self.bans.of_contact(&candidate.contact).is_none());
        self.hop.knows(sample.iter().map(|candidate| candidate.contact.node_id()));
        let first = *self.sampled.get_or_insert(now);
        if sample.len() < AMPLE_SAMPLE && now < first + SAMPLE_PATIENCE {
            return;
        }
        if self.choice.sample(&mut *self.rng, now / 1000, sample) {
            self.out.push_back(Output::Choice(self.choice.to_bytes()));
            self.note(now, Note::Guards);
        }
        // Who has just been drawn may be banned, by what a guard's or a member's older record said.
        self.mark_banned();
        self.pursue(now);
    }

    /// When the oldest build under way began.
    pub(super) fn oldest_build(&self) -> Option<u64> {
        self.builds.values().map(|building| building.since).min()
    }

    /// A guard that the database cannot reach any more counts as one dial in vain, however often it says so; one that it reaches again has
    /// answered.
    pub(super) fn take_silent(&mut self, now: u64, silent: BTreeSet<NodeId>) {
        for guard in self.choice.guards().collect::<Vec<_>>() {
            if silent.contains(&guard) != self.silent.contains(&guard) {
                self.choice.dialed(now / 1000, &guard, !silent.contains(&guard));
            }
        }
        self.silent = silent;
    }

    /// Builds under way are as if they had just begun.
    pub(super) fn restart_builds(&mut self, now: u64) {
        self.builds.values_mut().for_each(|building| building.since = building.since.min(now));
    }

    /// Whether there is room for one more.
    pub(super) fn may_build(&self, persona: Persona) -> bool {
        let is_had = self.personas.get(&persona).is_some_and(|own| own.identity.is_some());
        self.builds.len() < if is_had { MAX_BUILDS } else { MAX_BUILDS - KEPT_FREE }
    }

    /// Builds under way for a class of a persona that may be counted on.
    pub(super) fn building(&self, now: u64, persona: Persona, class: Class) -> usize {
        let counts = |building: &&Building| building.whose == Some((persona, class)) && now < building.since + LATE;
        self.builds.values().filter(counts).count()
    }

    pub(super) fn build(&mut self, now: u64, persona: Persona, class: Class) -> Result<(), CannotBuild> {
        self.away.retain(|_, until| now < *until);
        let (plan, case) = self.draw(now, persona, class)?;
        // On disk as soon as it is met: drawn anew, it would be somebody else.
        self.keep_sets();
        self.start(now, Some((persona, class)), plan, case)
    }

    /// A circle that ends where a further path may end, if there is one among a few.
    // protocol: K31
    pub(super) fn draw(&mut self, now: u64, persona: Persona, class: Class) -> Result<(Plan, Case), PlanError> {
        let taken = self.taken_ends(now, persona, class);
        let (silent, banned) = (&self.silent, &self.banned);
        let away = |node: &NodeId| self.away.contains_key(node) || silent.contains(node) || banned.contains(node);
        let (hops, mut draws) = (self.settings.hops, 0);
        loop {
            let (plan, case) = self.choice.plan(&mut *self.rng, now / 1000, persona, class, hops, &away)?;
            draws += 1;
            if draws == DRAWS || plan.end().is_none_or(|end| !taken.contains(&self.operator(end))) {
                return Ok((plan, case));
            }
        }
    }

    /// Puts guards to the test when many builds fail, beside all other builds.
    pub(super) fn try_guards(&mut self, now: u64) {
        let (silent, banned) = (&self.silent, &self.banned);
        let away = |node: &NodeId| self.away.contains_key(node) || silent.contains(node) || banned.contains(node);
        let Some((plan, case)) = self.choice.trial(&mut *self.rng, now / 1000, &away) else { return };
        if let Err(why) = self.start(now, None, plan, case.clone()) {
            self.note(now, why.into());
            self.choice.went(now / 1000, &case, How::Failed);
        }
    }

    fn start(&mut self, now: u64, whose: Option<(Persona, Class)>, plan: Plan, case: Case) -> Result<(), CannotBuild> {
        let stamp = self.network_time(now) / 1000;
        let until = stamp + self.rng.random_range(self.settings.path_life.clone());
        let last = plan.circle.last().map(|placed| placed.candidate.contact.clone());
        let (mut build, send) = Build::start(&mut *self.rng, stamp, plan, &self.own, until)?;
        if !self.reachable {
            build = build.dialing();
        }
        let id = build.build_id();
        self.builds.insert(id, Building { build, whose, case, since: now, waits: None });
        self.set_out(now, id, last.unwrap_or_else(|| send.to.clone()), send);
        Ok(())
    }

    /// A build begins when an array can come home.
    pub(super) fn wait_for_home(&mut self, build: BuildId, first: Send) {
        if let Some(building) = self.builds.get_mut(&build) {
            building.waits = Some(first);
        }
    }

    /// Builds that wait until arrays can come home from there.
    pub(super) fn waiting_for_home(&mut self, last: NodeId) -> Vec<(BuildId, Send)> {
        let waiting = self.builds.iter_mut().filter(|(_, building)| building.build.nodes().last() == Some(&last));
        waiting.filter_map(|(id, building)| Some((*id, building.waits.take()?))).collect()
    }

    /// Sends an array over the link on which its node has arrays brought, if there is one, else over one that is dialed.
    // protocol: Q19
    pub(super) fn deliver(&mut self, now: u64, to: NodeContact, frame: ArrayFrame, own: Option<BuildId>) {
        match self.home_of(to.node_id(), Role::Brings) {
            Some(link) => {
                self.touch(now, link);
                self.send(link, &Frame::Array(frame));
            }
            None => self.dial(to, Errand::Array(Box::new(frame), own)),
        }
    }

    /// A node did not answer us: it is left out for a while.
    pub(super) fn away(&mut self, now: u64, node: NodeId) {
        self.away.insert(node, now + AWAY);
    }

    /// The first node of one of our circles did not answer: that says nothing about the others.
    pub(super) fn first_node_away(&mut self, now: u64, build: BuildId) {
        let first = self.builds.get(&build).and_then(|building| building.build.nodes().first().copied());
        first.into_iter().for_each(|first| self.node_away(now, build, first));
    }

    /// A node of one of our circles that stands beside this one did not answer.
    pub(super) fn node_away(&mut self, now: u64, build: BuildId, node: NodeId) {
        let Some(building) = self.builds.remove(&build) else { return };
        self.note(now, Note::FirstAway);
        self.guard_away(now, node);
        match building.whose {
            Some((persona, class)) => self.build_failed(now, building.since, persona, class),
            None => self.choice.went(now / 1000, &building.case, How::Failed),
        }
    }

    /// A guard did not answer.
    pub(super) fn guard_away(&mut self, now: u64, node: NodeId) {
        self.away(now, node);
        self.choice.dialed(now / 1000, &node, false);
    }

    /// Guards that did not answer, and, since a dead one would fail every build, those of a circle that failed, are looked at some
    /// time later.
    fn look_later(&mut self, now: u64, nodes: &[NodeId]) {
        let guards: Vec<_> = self.choice.guards().filter(|guard| nodes.contains(guard)).collect();
        for guard in guards.into_iter().chain(self.choice.lost()) {
            let at = now + exponential(&mut *self.rng, PROBE_MEAN);
            self.looks.entry(guard).or_insert(at);
        }
    }

    /// Looks at the guards whose time has come, by a link on which nothing is sent.
    pub(super) fn look_at_guards(&mut self, now: u64) {
        self.look_later(now, &[]);
        let due: Vec<_> = self.looks.iter().filter(|(_, at)| now >= **at).map(|(node, _)| *node).collect();
        for node in due {
            self.looks.remove(&node);
            let contact = self.choice.guard_contacts().find(|contact| contact.node_id() == node).cloned();
            if let Some(contact) = contact {
                self.dial(contact, Errand::Probe(node));
            }
        }
    }

    /// An array arrived: home to one of our builds, or to be passed on.
    pub(super) fn array(&mut self, now: u64, peer: NodeId, frame: ArrayFrame) {
        if let Some(building) = self.builds.remove(&frame.build) {
            return self.array_home(now, peer, building, frame);
        }
        let done = self.hop.handle(&mut *self.rng, now / 1000, peer, frame);
        self.out.extend(self.hop.take_noted().into_iter().map(Output::Opened));
        let done = match done {
            Ok(done) => done,
            Err(why) => return self.note(now, Note::Array(why)),
        };
        // Known before the array goes on: the neighbour may attach as soon as it has its own package.
        if let Some(path) = done.path {
            self.join_path(now, path);
        }
        self.deliver(now, done.send.to, done.send.frame, None);
    }

    fn array_home(&mut self, now: u64, peer: NodeId, building: Building, frame: ArrayFrame) {
        let Building { build, whose, case, since, .. } = building;
        let nodes = build.nodes();
        let stamp = self.network_time(now) / 1000;
        match (build.handle(&mut *self.rng, stamp, peer, frame), whose) {
            (Ok(Step::Send(build, send)), _) => {
                let id = build.build_id();
                self.builds.insert(id, Building { build: *build, whose, case, since, waits: None });
                self.deliver(now, send.to, send.frame, Some(id));
            }
            (Ok(Step::Built(path)), Some((persona, class))) => self.built(now, persona, class, case, path),
            // Its nodes drop it when no tunnel stands on it.
            (Ok(Step::Built(_)), None) => self.choice.went(now / 1000, &case, How::Built),
            (Err(why), _) => self.failed(now, since, whose, &case, &nodes, why),
        }
    }

    fn built(&mut self, now: u64, persona: Persona, class: Class, case: Case, built: BuiltPath) {
        let hops: Vec<_> = built.hops.iter().map(|hop| hop.contact.clone()).collect();
        let Some(end) = built.hops.last() else { return };
        let (end, handle) = (end.contact.clone(), path::handle(&end.secret));
        let retires = now + 1000 * self.rng.random_range(self.settings.work_life(class));
        let owned =
            Owned { persona, class, work: Work::Spare, retires, leaves: None, end, hops: hops.clone(), handle, case };
        let secrets = built.hops.into_iter().map(|hop| (hop.secret, hop.inner)).collect();
        let part = Part::Own(Box::new(tunnel::Owner::new(secrets)), owned);
        // As random as the hops' own: who closes first must tell nothing.
        let until = built.until * 1000 + self.rng.random_range(0..=path::UNTIL_SPREAD * 1000);
        let mut path = Path::new(now, until, part, vec![built.segment]);
        path.pace = pace::constant(&mut *self.rng);
        if let Some(no) = self.add_path(path) {
            self.out.push_back(Output::PathUp { path: no, hops });
        }
    }

    pub(super) fn failed(
        &mut self,
        now: u64,
        since: u64,
        whose: Option<(Persona, Class)>,
        case: &Case,
        nodes: &[NodeId],
        why: BuildError,
    ) {
        self.note(now, Note::BuildFailed(why));
        self.choice.went(now / 1000, case, How::Failed);
        self.look_later(now, nodes);
        if let Some((persona, class)) = whose {
            self.build_failed(now, since, persona, class);
        }
    }

    /// When the next build under way is not counted on any more, or given up.
    pub(super) fn next_late_build(&self, now: u64) -> Option<u64> {
        let late = |building: &Building| {
            let left = building.build.deadline().saturating_mul(1000).saturating_sub(self.network_time(now));
            let over = (building.since + BUILD_PATIENCE + 1).min(now + left);
            Some(building.since + LATE).filter(|late| now < *late).map_or(over, |late| over.min(late))
        };
        self.builds.values().map(late).min()
    }

    pub(super) fn expire_builds(&mut self, now: u64) {
        let stamp = self.network_time(now) / 1000;
        let over: Vec<_> = self
            .builds
            .iter()
            .filter(|(_, building)| now > building.since + BUILD_PATIENCE || stamp >= building.build.deadline())
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(building) = self.builds.remove(&id) {
                self.failed(
                    now,
                    building.since,
                    building.whose,
                    &building.case,
                    &building.build.nodes(),
                    BuildError::Late,
                );
            }
        }
    }

    /// A tunnel stands on an own path: the path works.
    pub(super) fn path_proven(&mut self, now: u64, no: PathNo) {
        let Some(Part::Own(_, owned)) = self.paths.get(&no).map(|path| &path.part) else { return };
        let (persona, class) = (owned.persona, owned.class);
        let case = owned.case.clone();
        self.note(now, Note::PathUp);
        self.choice.went(now / 1000, &case, How::Built);
        self.build_worked(persona, class);
        self.put_to_work(now, persona);
        self.thin_spares(now, persona, class);
        self.pursue(now);
    }
}
