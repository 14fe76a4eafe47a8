//! What is wrong with this daemon, or may become so: warnings with codes, made from facts that others gather.
//!
//! ```text
//!  facts ── conditions ── true for long enough? ── its cause is true as well? ── told: status, doctor, log, metrics
//!                              no: not yet              yes: an effect, told to scripts only
//! ```
//! Nothing is asked and nothing is changed here; time and facts are arguments.

mod around;
mod checks;
mod codes;
mod start;

use std::collections::BTreeMap;

use phantom_ipc::admin::{StartStep, Warning};
use phantom_proto::node::{Vitals, age};
use phantom_proto::path::choice::Note;
use tokio::time::Instant;

use crate::router::Forwarding;
pub use around::Around;
pub use checks::{checks, daemon_answers, no_daemon, node_is_roots, without_daemon, worst};
use codes::*;
pub use codes::{ALL, About, about};
use start::Start;

/// Builds in a row that fail before it is called trouble: one in three may on a good day.
const MANY_BUILDS: u32 = 5;

/// What warnings and checks are made from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Nodes that there is a link with.
    pub connected: usize,
    /// Nodes that are known.
    pub known: usize,
    /// Own paths that work for what goes out.
    pub exit_paths: usize,
    /// What the next one waits for, in words.
    pub waits_for: Option<String>,
    /// Tunnels that are ready on own paths.
    pub ready_tunnels: usize,
    /// Paths of others.
    pub relayed_paths: usize,
    /// At most so many.
    pub most_relayed: usize,
    /// Whether others can open links to this node, once that is known.
    pub reachable: Option<bool>,
    /// Its operator says that they cannot.
    pub says_unreachable: bool,
    /// Whether a router forwards the port.
    pub(crate) router: Forwarding,
    /// Where it listens.
    pub port: u16,
    /// Whether others took the own record, once that was tried.
    pub published: Option<bool>,
    /// By how many milliseconds other clocks are ahead, as far as known.
    pub clock_ahead: Option<i64>,
    /// How the node is.
    pub vitals: Vitals,
    /// How it is around the daemon.
    pub around: Around,
    /// How it is with maintainers' commands.
    pub commands: CommandFacts,
}

impl Facts {
    /// Where the stock is used up and nothing is waited for, one is built for who comes next.
    fn is_without_path(&self) -> bool {
        self.exit_paths == 0 && self.waits_for.is_some()
    }
}

/// How it is with maintainers' commands.
#[derive(Debug, Clone, Default)]
pub struct CommandFacts {
    /// So many are missing below the highest serial.
    pub missing: u64,
    /// Two with one serial were seen.
    pub forked: bool,
    /// So many wait for the operator.
    pub held: usize,
    /// The operator opted out of some.
    pub ignored: bool,
    /// This node is banned.
    pub banned: bool,
}

/// What is true, and since when.
#[derive(Debug, Default)]
pub struct Health {
    since: BTreeMap<&'static str, (Instant, String)>,
    start: Start,
}

impl Health {
    /// Takes the facts as they are at `now`.
    pub fn look(&mut self, now: Instant, facts: &Facts) {
        self.start.look(now, facts);
        let conditions = conditions(facts);
        self.since.retain(|code, _| conditions.iter().any(|(about, _)| about.code == *code));
        for (about, text) in conditions {
            self.since.entry(about.code).or_insert_with(|| (now, String::new())).1 = text;
        }
    }

    /// What is to be told at `now`, causes before effects.
    pub fn warnings(&self, now: Instant) -> Vec<Warning> {
        let one = |about: &'static About| {
            let (since, text) = self.since.get(about.code)?;
            let age = now.saturating_duration_since(*since);
            let cause = about.causes.iter().find(|cause| self.since.contains_key(cause.code));
            (age >= about.after).then(|| Warning {
                code: about.code.to_owned(),
                severity: about.severity,
                since_seconds: age.as_secs(),
                text: if text.is_empty() { about.title.to_owned() } else { text.clone() },
                advice: about.help(),
                affects_connections: about.affects_connections,
                caused_by: cause.map(|cause| cause.code.to_owned()),
            })
        };
        ALL.into_iter().filter_map(one).collect()
    }

    /// How far the start is.
    pub fn start(&self, now: Instant) -> Vec<StartStep> {
        self.start.steps(now)
    }
}

type Condition = (&'static About, String);

/// What is true, each with what the title does not say.
fn conditions(facts: &Facts) -> Vec<Condition> {
    [network(facts), commands(&facts.commands), paths(facts), choice(facts), computer(facts)].concat()
}

fn when(condition: bool, about: &'static About) -> Option<Condition> {
    condition.then(|| (about, String::new()))
}

fn network(facts: &Facts) -> Vec<Condition> {
    let clock = facts.vitals.clock_off.map(|ahead| (&CLOCK_OFF, clock_in_words(ahead)));
    let unreachable = (facts.reachable == Some(false) && !facts.says_unreachable)
        .then(|| (&UNREACHABLE, format!("{} (port {})", UNREACHABLE.title, facts.port)));
    let own = [
        when(facts.connected == 0, &NO_PEERS),
        clock,
        unreachable,
        when(facts.published == Some(false), &UNPUBLISHED),
        when(facts.relayed_paths >= facts.most_relayed && facts.most_relayed > 0, &RELAY_FULL),
    ];
    own.into_iter().flatten().collect()
}

fn commands(facts: &CommandFacts) -> Vec<Condition> {
    let own = [
        when(facts.banned, &BANNED),
        when(facts.held > 0, &COMMAND_WAITS),
        when(facts.missing > 0, &COMMAND_MISSING),
        when(facts.forked, &COMMAND_FORKED),
        when(facts.ignored, &COMMANDS_IGNORED),
    ];
    own.into_iter().flatten().collect()
}

fn clock_in_words(ahead: i64) -> String {
    // Seconds would change at each look, and say nothing.
    let about = age(ahead.unsigned_abs().saturating_add(30_000) / 60_000 * 60);
    let way = if ahead > 0 { "behind" } else { "ahead of" };
    format!("this computer's clock is about {about} {way} those of other nodes, and they refuse what it says")
}

fn paths(facts: &Facts) -> Vec<Condition> {
    let vitals = &facts.vitals;
    let no_path = facts.is_without_path();
    let problem = vitals.problem.as_ref().filter(|_| no_path);
    let own = [
        problem.map(|problem| (&NO_PLAN, format!("no path can be planned: {problem}"))),
        (vitals.failures >= MANY_BUILDS)
            .then(|| (&BUILDS_FAIL, format!("{} builds of paths have failed, one after the other", vitals.failures))),
        no_path.then(|| (&NO_PATH, without_path(facts.waits_for.as_deref()))),
        when(!no_path && facts.ready_tunnels == 0, &NO_TUNNEL),
        when(vitals.unseen > 0, &SERVICE_UNSEEN),
        when(vitals.unrecorded > 0, &SERVICE_UNRECORDED),
    ];
    own.into_iter().flatten().collect()
}

/// What it waits for is said here and not elsewhere: the log has titles alone, and says that in a line of its own.
fn without_path(waits_for: Option<&str>) -> String {
    waits_for.map_or_else(String::new, |what| format!("{}; it waits for {what}", NO_PATH.title))
}

fn choice(facts: &Facts) -> Vec<Condition> {
    let one = |note: &Note| {
        // Which guard it is.
        let names_it = matches!(note, Note::KillsBuilds(_) | Note::KillsPaths(_));
        (of_choice(note), if names_it { note.to_string() } else { String::new() })
    };
    facts.vitals.choice.iter().map(one).collect()
}

/// The warning that a note about the choice of nodes becomes.
fn of_choice(note: &Note) -> &'static About {
    match note {
        Note::Provisional => &GUARDS_PROVISIONAL,
        Note::LayersOff => &LAYERS_OFF,
        Note::Trial => &GUARD_TRIAL,
        Note::NoThreeWork => &GUARDS_FAIL,
        Note::Exposed => &GUARDS_USED_UP,
        Note::KillsBuilds(_) => &GUARD_KILLS_BUILDS,
        Note::KillsPaths(_) => &GUARD_ENDS_PATHS,
    }
}

fn computer(facts: &Facts) -> Vec<Condition> {
    let around = &facts.around;
    let own = [when(!around.keeps(), &STATE_FOLDER), when(around.no_tun.is_some(), &NO_NAMESPACE)];
    own.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
