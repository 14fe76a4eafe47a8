//! The owner's policy: which paths to have, when to build them, what to do when a build fails.

use std::sync::Arc;

use super::hops::{Part, Path};
use super::links::Errand;
use super::{Node, Output, PathNo, Purpose};
use rand::RngExt;

use crate::crypto::SigningKey;
use crate::ident::{ApAddress, NodeId};
use crate::path::plan::Role;
use crate::path::{self, Build, BuildError, BuiltPath, Candidate, Plan, PlanError, Step, Terms, Wish};
use crate::record::{ApRecord, RoutingEntry, Signed};
use crate::tunnel;
use crate::wire::array::{ArrayFrame, BuildId};
use crate::wire::{NodeContact, Wire};

/// Builds of our own under way at once: more would be a burst that an observer sees.
const MAX_BUILDS: usize = 6;

/// First and longest wait after a failed build, in milliseconds; it doubles in between.
const BACKOFF: (u64, u64) = (500, 10_000);

/// How long the owner waits for an array to come home, in milliseconds: five times what sixteen hops across the world take. The
/// nodes in between wait longer (`BUILD_LIFE`).
const BUILD_PATIENCE: u64 = 12_000;

/// How long a node that did not answer is left out of plans, in milliseconds: in a small network two or three that were
/// merely slow once leave too few for a circle.
const AWAY: u64 = 60_000;

/// Candidates that are plenty to draw guards from: the first few nodes that a newcomer hears of must not become its guards.
const AMPLE_SAMPLE: usize = 64;

/// How long to wait for an ample sample, in milliseconds: a small network has no more.
const SAMPLE_PATIENCE: u64 = 1_500;

/// Life of an AP record beyond the path that it names, in seconds: clocks differ.
const RECORD_MARGIN: u64 = 120;

/// A build under way.
pub(super) struct Building {
    build: Build,
    purpose: Purpose,
    entry: Option<RoutingEntry>,
    since: u64,
}

/// When the next try for a purpose may start.
#[derive(Default)]
pub(super) struct Backoff {
    until: u64,
    wait: u64,
}

/// Why a build could not even start.
#[derive(Debug, thiserror::Error)]
enum CannotBuild {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The X-node farthest from the owner.
fn terminating(plan: &Plan) -> Option<NodeContact> {
    let position = |role: &Role| if let Role::X { position } = role { Some(*position) } else { None };
    let last = plan.circle.iter().max_by_key(|placed| position(&placed.role))?;
    Some(last.candidate.contact.clone())
}

impl Node {
    pub(super) fn want_exit(&mut self, now: u64, identity: ApAddress) {
        if self.exits.contains(&identity) {
            return;
        }
        self.exits.push(identity);
        let spare = self.paths.iter_mut().find(|(_, path)| path.proven && path.purpose() == Some(Purpose::Spare));
        if let Some((no, path)) = spare {
            if let Part::Own(_, purpose) = &mut path.part {
                *purpose = Purpose::Exit(identity);
            }
            self.out.push_back(Output::PathAssigned { path: *no, identity });
        }
        self.pursue(now);
    }

    pub(super) fn want_entry(&mut self, now: u64, key: Arc<SigningKey>) {
        self.entries.insert(ApAddress::of(&key.verifying_key()), key);
        self.pursue(now);
    }

    pub(super) fn forget(&mut self, now: u64, identity: ApAddress) {
        self.exits.retain(|other| *other != identity);
        self.entries.remove(&identity);
        let of = |purpose| purpose == Purpose::Exit(identity) || purpose == Purpose::Entry(identity);
        self.builds.retain(|_, building| !of(building.purpose));
        let gone: Vec<_> =
            self.paths.iter().filter(|(_, path)| path.purpose().is_some_and(of)).map(|(no, _)| *no).collect();
        for no in gone {
            self.drop_path(now, no);
        }
        self.backoff.retain(|purpose, _| !of(*purpose));
    }

    /// Starts the builds that are missing.
    pub(super) fn pursue(&mut self, now: u64) {
        for (purpose, want) in self.targets() {
            let have = self.have(now, purpose);
            for _ in have..want {
                if self.builds.len() >= MAX_BUILDS || !self.may_try(now, purpose) {
                    break;
                }
                if let Err(problem) = self.build(now, purpose) {
                    self.problem = Some(problem.to_string());
                    self.failed(now, purpose);
                    break;
                }
                self.problem = None;
            }
        }
    }

    fn targets(&self) -> Vec<(Purpose, usize)> {
        let exits = self.exits.iter().map(|identity| (Purpose::Exit(*identity), 1));
        let entries = self.entries.keys().map(|identity| (Purpose::Entry(*identity), self.settings.entry_paths));
        exits.chain(entries).chain([(Purpose::Spare, self.settings.spare_exits)]).collect()
    }

    fn have(&self, now: u64, purpose: Purpose) -> usize {
        let standing =
            self.paths.values().filter(|path| path.purpose() == Some(purpose) && !path.retiring(now)).count();
        standing + self.builds.values().filter(|building| building.purpose == purpose).count()
    }

    fn may_try(&self, now: u64, purpose: Purpose) -> bool {
        self.backoff.get(&purpose).is_none_or(|backoff| now >= backoff.until)
    }

    fn failed(&mut self, now: u64, purpose: Purpose) {
        let backoff = self.backoff.entry(purpose).or_default();
        backoff.wait = (backoff.wait * 2).clamp(BACKOFF.0, BACKOFF.1);
        backoff.until = now + backoff.wait;
    }

    /// The sample is new: bring the guards up to date before anything is planned with it.
    pub(super) fn take_sample(&mut self, now: u64, sample: Vec<Candidate>) {
        self.sample = sample;
        let spread = self.settings.spread;
        let first = *self.sampled.get_or_insert(now);
        if self.sample.len() < AMPLE_SAMPLE && now < first + SAMPLE_PATIENCE {
            return;
        }
        if self.guards.refresh(&mut *self.rng, now / 1000, &self.own.contact, &self.sample, spread) {
            self.out.push_back(Output::Guards(self.guards.to_bytes()));
        }
        self.pursue(now);
    }

    fn build(&mut self, now: u64, purpose: Purpose) -> Result<(), CannotBuild> {
        let wish = Wish { kind: Self::kind_of(purpose), hops: self.settings.hops, spread: self.settings.spread };
        self.away.retain(|_, until| now < *until);
        let present: Vec<_> =
            self.sample.iter().filter(|node| self.is_present(&node.contact.node_id())).cloned().collect();
        let plan = path::plan(&mut *self.rng, &wish, &self.own.contact, &present, &self.guards, &self.accounts)?;
        let (terms, entry) = self.terms(now, purpose, &plan);
        let (build, send) = Build::start(&mut *self.rng, now / 1000, plan, &self.own, terms)?;
        let id = build.build_id();
        self.builds.insert(id, Building { build, purpose, entry, since: now });
        self.deliver(send.to, send.frame, Some(id));
        Ok(())
    }

    fn is_present(&self, node: &NodeId) -> bool {
        !self.away.contains_key(node) && !self.silent.contains(node)
    }

    /// What the terminating node is told: for an entry path the signed AP record with all its entries.
    fn terms(&mut self, now: u64, purpose: Purpose, plan: &Plan) -> (Terms, Option<RoutingEntry>) {
        let until = now / 1000 + self.settings.path_life;
        let mut handle = [0; 16];
        self.rng.fill_bytes(&mut handle);
        let Purpose::Entry(identity) = purpose else {
            return (Terms { until, handle, ap_record: Vec::new() }, None);
        };
        let Some(entry_node) = terminating(plan) else {
            return (Terms { until, handle, ap_record: Vec::new() }, None);
        };
        let entry = RoutingEntry { entry_node, handle, until };
        let ap_record = self.ap_record(now, identity, &entry);
        (Terms { until, handle, ap_record }, Some(entry))
    }

    fn ap_record(&self, now: u64, identity: ApAddress, entry: &RoutingEntry) -> Vec<u8> {
        let Some(key) = self.entries.get(&identity) else { return Vec::new() };
        let mut entries = vec![entry.clone()];
        let standing = self.paths.values().filter(|path| path.purpose() == Some(Purpose::Entry(identity)));
        entries
            .extend(standing.filter(|path| path.proven && !path.retiring(now)).filter_map(|path| path.entry.clone()));
        let building = self.builds.values().filter(|building| building.purpose == Purpose::Entry(identity));
        entries.extend(building.filter_map(|building| building.entry.clone()));
        entries.truncate(ApRecord::MAX_ENTRIES);
        let record = ApRecord {
            key: key.verifying_key(),
            serial: now,
            issued: now / 1000,
            expires: now / 1000 + self.settings.path_life + RECORD_MARGIN,
            entries,
        };
        Signed::sign(&record, key).bytes().to_vec()
    }

    fn deliver(&mut self, to: NodeContact, frame: ArrayFrame, own: Option<BuildId>) {
        self.dial(to, Errand::Array(Box::new(frame), own));
    }

    /// A node did not answer us: it is left out for a while.
    pub(super) fn away(&mut self, now: u64, node: NodeId) {
        self.away.insert(node, now + AWAY);
    }

    /// The first node of one of our circles did not answer.
    pub(super) fn first_node_away(&mut self, now: u64, build: BuildId) {
        let Some(building) = self.builds.remove(&build) else { return };
        if let Some(first) = building.build.nodes().first() {
            self.away(now, *first);
        }
        self.failed(now, building.purpose);
        self.pursue(now);
    }

    /// A dead guard would fail every build: after a failure the owner looks whether those of this circle are there. Rarely, since
    /// it shows them a link that leads to nothing.
    fn probe(&mut self, nodes: &[NodeId]) {
        let guards: Vec<_> = self.guards.nodes().filter(|guard| nodes.contains(guard)).collect();
        for node in guards {
            let contact = self.sample.iter().find(|known| known.contact.node_id() == node);
            if let Some(contact) = contact.map(|known| known.contact.clone()) {
                self.dial(contact, Errand::Probe(node));
            }
        }
    }

    /// An array arrived: home to one of our builds, or to be passed on.
    pub(super) fn array(&mut self, now: u64, peer: NodeId, frame: ArrayFrame) {
        if let Some(building) = self.builds.remove(&frame.build) {
            return self.array_home(now, peer, building, frame);
        }
        let Ok(done) = self.hop.handle(&mut *self.rng, now / 1000, peer, frame) else { return };
        // Known before the array goes on: the neighbour may attach as soon as it has its own package.
        if let Some(path) = done.path {
            self.join_path(now, path);
        }
        self.deliver(done.send.to, done.send.frame, None);
    }

    fn array_home(&mut self, now: u64, peer: NodeId, building: Building, frame: ArrayFrame) {
        let Building { build, purpose, entry, since } = building;
        let nodes = build.nodes();
        match build.handle(&mut *self.rng, now / 1000, peer, frame) {
            Ok(Step::Send(build, send)) => {
                let id = build.build_id();
                self.builds.insert(id, Building { build: *build, purpose, entry, since });
                self.deliver(send.to, send.frame, Some(id));
            }
            Ok(Step::Built(path)) => {
                self.accounts.note(&nodes, true);
                self.built(now, purpose, entry, path);
            }
            Err(_) => self.build_failed(now, purpose, &nodes),
        }
    }

    fn built(&mut self, now: u64, purpose: Purpose, entry: Option<RoutingEntry>, built: BuiltPath) {
        let hops: Vec<_> = built.hops.iter().map(|hop| hop.contact.clone()).collect();
        let secrets = built.hops.into_iter().map(|hop| hop.secret).collect();
        let part = Part::Own(Box::new(tunnel::Owner::new(secrets)), purpose);
        // As random as the hops' own: who closes first must tell nothing.
        let until = built.until * 1000 + self.rng.random_range(0..=path::UNTIL_SPREAD * 1000);
        let mut path = Path::new(now, until, part, vec![built.segment]);
        path.entry = entry;
        if let Some(no) = self.add_path(path) {
            self.out.push_back(Output::PathUp { path: no, purpose, hops });
        }
    }

    fn build_failed(&mut self, now: u64, purpose: Purpose, nodes: &[NodeId]) {
        self.accounts.note(nodes, false);
        self.probe(nodes);
        self.failed(now, purpose);
    }

    pub(super) fn expire_builds(&mut self, now: u64) {
        let over: Vec<_> = self
            .builds
            .iter()
            .filter(|(_, building)| now > building.since + BUILD_PATIENCE || now / 1000 >= building.build.deadline())
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(building) = self.builds.remove(&id) {
                self.build_failed(now, building.purpose, &building.build.nodes());
            }
        }
    }

    /// An own path ended; one that never carried a tunnel counts as a failed build.
    pub(super) fn path_ended(&mut self, now: u64, purpose: Purpose, proven: bool) {
        if !proven {
            self.failed(now, purpose);
        }
    }

    /// A tunnel stands on an own path: the path works.
    pub(super) fn path_proven(&mut self, now: u64, no: PathNo) {
        let Some(purpose) = self.paths.get(&no).and_then(Path::purpose) else { return };
        self.backoff.remove(&purpose);
        // An identity that waits takes a spare path as soon as one works.
        let waiting = self.exits.iter().copied().find(|identity| {
            purpose == Purpose::Spare
                && !self.paths.values().any(|path| path.purpose() == Some(Purpose::Exit(*identity)))
        });
        if let (Some(identity), Some(path)) = (waiting, self.paths.get_mut(&no)) {
            if let Part::Own(_, purpose) = &mut path.part {
                *purpose = Purpose::Exit(identity);
            }
            self.out.push_back(Output::PathAssigned { path: no, identity });
        }
        self.pursue(now);
    }
}
