//! One owner's month: a service that is always there, visits by fresh identities, and what hostile nodes get of it.

use phantom_proto::path::choice::{Choice, How, Sets};
use phantom_proto::path::{Class, Persona, Spread};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::world::{Attack, DAY, HOUR, Net, START, Sample};

/// The identity that offers something.
const SERVICE: Persona = Persona(0);

/// A service has two paths of an hour, renewed after four fifths; visits are what fills up the builds.
const SERVICE_LIFE: u64 = 3600;
const VISIT_LIFE: u64 = 600;

/// Paths that a fresh identity has in its life.
const VISIT_PATHS: u64 = 5;

/// How often the owner's sample is handed over, in seconds: what costs most here, and changes little.
const SAMPLE_EVERY: u64 = 3 * HOUR;

/// How often a path that cannot be built is tried at once.
const TRIES: usize = 8;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) size: usize,
    /// In hundredths of the operators.
    pub(crate) hostile: usize,
    pub(crate) attack: Attack,
    pub(crate) days: u64,
    pub(crate) builds_per_day: u64,
    pub(crate) hops: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) builds: u64,
    pub(crate) failed: u64,
    /// Paths that could not be planned.
    pub(crate) waits: u64,
    pub(crate) paths: u64,
    /// Seconds of path, and those of hostile ones.
    pub(crate) time: u64,
    pub(crate) nearest: u64,
    pub(crate) both: u64,
    pub(crate) whole: u64,
    /// Distinct nodes that stood next to the owner.
    pub(crate) adjacent: usize,
    /// Until the attacker's terminating node of the service saw a node of layer 2; until another node of its in the same circle saw
    /// a guard; until a guard of its was in such a circle itself. In seconds.
    pub(crate) second: Option<u64>,
    pub(crate) first: Option<u64>,
    pub(crate) owner: Option<u64>,
    pub(crate) notes: Vec<String>,
}

pub(crate) struct Owner<'a> {
    setting: Setting,
    net: &'a Net,
    rng: ChaCha8Rng,
    choice: Choice,
    sample: Sample,
    report: Report,
    adjacent: std::collections::BTreeSet<usize>,
    /// Paths that stand: when they end, and what then.
    standing: Vec<(u64, phantom_proto::path::choice::Case, How)>,
}

impl<'a> Owner<'a> {
    pub(crate) fn new(setting: Setting, net: &'a Net, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(setting.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut choice = Choice::new(net.nodes[0].contact.clone(), Spread::Prefixes);
        let sample = Sample::new(&mut rng, net, START);
        choice.born(SERVICE, Sets::persistent(rng.random()));
        // The newcomer's minutes are over: what they are worth is another test's.
        choice.sample(&mut rng, START - HOUR, sample.candidates(net));
        choice.sample(&mut rng, START, sample.candidates(net));
        let report = Report::default();
        Self { setting, net, rng, choice, sample, report, adjacent: Default::default(), standing: Vec::new() }
    }

    pub(crate) fn run(mut self) -> Report {
        let step = DAY / self.setting.builds_per_day;
        let (mut hour, mut visitor) = (START, 0);
        let service_every = 5;
        for n in 0..self.setting.days * self.setting.builds_per_day {
            let now = START + n * step;
            while hour + HOUR <= now {
                hour += HOUR;
                self.hour(hour);
            }
            self.expire(now);
            if n % service_every == 0 {
                self.path(now, SERVICE, Class::In, SERVICE_LIFE);
            } else {
                if visitor % VISIT_PATHS == 0 {
                    self.choice.gone(Persona(visitor / VISIT_PATHS));
                    self.choice.born(Persona(visitor / VISIT_PATHS + 1), Sets::fresh());
                }
                self.path(now, Persona(visitor / VISIT_PATHS + 1), Class::Out, VISIT_LIFE);
                visitor += 1;
            }
            self.trial(now);
        }
        let now = START + self.setting.days * DAY;
        self.expire(u64::MAX);
        self.report.adjacent = self.adjacent.len();
        self.report.notes = self.choice.notes(now).iter().map(ToString::to_string).collect();
        self.report
    }

    fn hour(&mut self, now: u64) {
        self.sample.pass(&mut self.rng, self.net, now);
        if (now - START).is_multiple_of(SAMPLE_EVERY) {
            // The database keeps pinned nodes in the sample while they are there.
            let pinned = self.choice.pinned().into_iter().map(|id| self.net.by_id[&id]);
            let pinned = pinned.filter(|node| self.net.up(*node, now)).map(|node| self.net.nodes[node].clone());
            let sample = self.sample.candidates(self.net).into_iter().chain(pinned).collect();
            self.choice.sample(&mut self.rng, now, sample);
        }
        for id in self.choice.guards().collect::<Vec<_>>() {
            self.choice.dialed(now, &id, self.net.up(self.net.by_id[&id], now));
        }
    }

    fn expire(&mut self, now: u64) {
        let over: Vec<_> = self.standing.extract_if(.., |(until, ..)| *until <= now).collect();
        for (until, case, how) in over {
            self.choice.went(until.min(now), &case, how);
        }
    }

    fn path(&mut self, now: u64, persona: Persona, class: Class, planned: u64) {
        for attempt in 0..TRIES as u64 {
            if self.attempt(now + 10 * attempt, persona, class, planned) {
                return;
            }
        }
    }

    fn attempt(&mut self, now: u64, persona: Persona, class: Class, planned: u64) -> bool {
        let hops = if persona == SERVICE { self.setting.hops } else { 3 };
        let Ok((plan, case)) = self.choice.plan(&mut self.rng, now, persona, class, hops, &|_| false) else {
            self.report.waits += 1;
            return false;
        };
        let circle = self.net.circle(&plan);
        self.report.builds += 1;
        self.adjacent.extend([circle.first, circle.path[0], circle.last]);
        let fate = self.net.fate(&mut self.rng, self.setting.attack, now, &circle, planned);
        if persona == SERVICE {
            self.seen(now, &circle, fate.is_some());
        }
        let Some(lived) = fate else {
            if !self.net.up(circle.nodes[0], now) {
                let first = plan.circle[0].candidate.contact.node_id();
                self.choice.dialed(now, &first, false);
            } else {
                self.choice.went(now, &case, How::Failed);
            }
            self.report.failed += 1;
            return false;
        };
        self.choice.went(now, &case, How::Built);
        self.report.paths += 1;
        self.report.time += lived;
        self.report.nearest += if self.net.hostile(circle.path[0]) { lived } else { 0 };
        self.report.both += if self.net.both_ends(&circle) { lived } else { 0 };
        self.report.whole += if self.net.all_hostile(&circle) { lived } else { 0 };
        let how = if lived < planned { How::Died { lived, planned } } else { How::Ended };
        self.standing.push((now + lived, case, how));
        true
    }

    /// What the attacker has seen of the service's circle. Its nodes know each other's times, so two in one circle find each other.
    fn seen(&mut self, now: u64, circle: &super::world::Circle, stood: bool) {
        let hostile = |node: &usize| self.net.hostile(*node);
        // A build that stood: only then does the terminating node know whose it is.
        if !stood || !circle.path.last().is_some_and(hostile) {
            return;
        }
        let when = Some(now - START);
        self.report.second = self.report.second.or(when);
        let near: Vec<usize> = circle
            .nodes
            .windows(2)
            .chain(circle.path.windows(2))
            .flat_map(|pair| {
                let guard = |node: &usize| [circle.first, circle.path[0], circle.last].contains(node);
                let (a, b) = (pair[0], pair[1]);
                [(a, b), (b, a)].into_iter().filter(|(a, b)| guard(a) && !guard(b)).map(|(_, b)| b).collect::<Vec<_>>()
            })
            .collect();
        if near.iter().any(hostile) {
            self.report.first = self.report.first.or(when);
        }
        if [circle.first, circle.path[0], circle.last].iter().any(hostile) {
            self.report.owner = self.report.owner.or(when);
        }
    }

    /// Trial builds run beside the others until the trial is over.
    fn trial(&mut self, now: u64) {
        for n in 0..20 {
            let now = now + 10 * n;
            let Some((plan, case)) = self.choice.trial(&mut self.rng, now, &|_| false) else { return };
            let circle = self.net.circle(&plan);
            self.adjacent.extend([circle.first, circle.path[0], circle.last]);
            let stood = self.net.fate(&mut self.rng, self.setting.attack, now, &circle, 60).is_some();
            self.choice.went(now, &case, if stood { How::Built } else { How::Failed });
        }
    }
}
