//! Why a program's connection did not come about, in words for whoever started the run: which step, which cause, what to do.
//!
//! Each is said once in a while and few of them in a row: a program that tries again and again is not to fill a terminal.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::connections::Step;
use crate::far::ConnectError;

/// How long a connection may take before it is said what it waits for: where all is well none takes as long.
pub(super) const LONG: Duration = Duration::from_secs(10);

/// How long the same is not said again.
const AGAIN: Duration = Duration::from_secs(60);

/// How many are said in [`AGAIN`].
const MOST: usize = 8;

/// What went wrong, and about what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// A connection to a port of an address, in this step.
    Connect { to: String, port: u16, step: Step, cause: Cause },
    /// A connection waits long for this step; whichever it is, so that many waiting ones are told as one.
    Waits { step: Step },
    /// An address that is none of this network.
    Outside { address: IpAddr },
    /// A name that nobody here knows; whether others could have been asked.
    NoSuchName { name: String, has_resolver: bool },
    /// A name about which the resolver did not answer.
    NoAnswer { name: String },
}

/// How a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    Refused,
    Failed,
    Unsure,
    TimedOut,
}

impl From<ConnectError> for Cause {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::Refused,
            ConnectError::TimedOut => Self::TimedOut,
            ConnectError::Unreachable | ConnectError::Prohibited => Self::Failed,
            ConnectError::Unsure => Self::Unsure,
        }
    }
}

impl Trouble {
    /// A name that nobody here knows; nothing about the names that resolvers make of it, which nobody asked for.
    pub(super) fn no_such_name(name: &str, has_resolver: bool) -> Option<Self> {
        (!ends_with(name, ".invalid")).then(|| Self::NoSuchName { name: printable(name), has_resolver })
    }

    /// A name about which the resolver did not answer.
    pub(super) fn no_answer(name: &str) -> Self {
        Self::NoAnswer { name: printable(name) }
    }

    /// One line; `waits_for` is what the daemon's own paths wait for.
    pub(super) fn line(&self, waits_for: Option<&str>) -> String {
        match self {
            Self::Connect { to, port, step, cause } => {
                format!("no connection to port {port} of {to}: {}", why(*step, *cause, waits_for))
            }
            Self::Waits { step } => {
                let waits = waits_for.map(|what| format!(" (the daemon waits for {what})"));
                format!("a connection waits {}{}", what_for(*step), waits.unwrap_or_default())
            }
            Self::Outside { address } => format!(
                "no connection to {address}: that address is none of this network, and nothing leaves it; use a `.phantom` name"
            ),
            Self::NoSuchName { name, .. } if ends_with(name, ".phantom") => {
                let mind = if label(name).len() == ADDRESS {
                    "which check each other (is one mistyped?)"
                } else {
                    "or an alias of phantomd.toml; the name of an identity is none: `phantom identity list` shows its address"
                };
                format!("no such name: {name}; before .phantom stand the {ADDRESS} characters of an address, {mind}")
            }
            Self::NoSuchName { name, has_resolver: false } => format!(
                "no such name: {name}; known are `.phantom` names and the aliases of phantomd.toml: for others name a resolver there, \
                 see [resolver]"
            ),
            Self::NoSuchName { name, has_resolver: true } => {
                format!("no such name: {name}; the resolver knows no address of Phantom's for it")
            }
            Self::NoAnswer { name } => {
                format!("no answer about the name {name}: the resolver of phantomd.toml is not reached; try again")
            }
        }
    }
}

/// Names are what a program says, and it may mean a terminal by it.
fn printable(name: &str) -> String {
    name.chars().map(|char| if char.is_ascii_graphic() { char } else { '?' }).collect()
}

/// Characters of a name that holds a key, before its suffix.
const ADDRESS: usize = 56;

/// What stands before the suffix.
fn label(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// Names have no case, and may end with the dot of the root.
fn ends_with(name: &str, suffix: &str) -> bool {
    name.trim_end_matches('.').to_ascii_lowercase().ends_with(suffix)
}

/// A step that is not done yet.
fn what_for(step: Step) -> &'static str {
    match step {
        Step::Record => "until the network database can be asked for the address",
        Step::Path => "for a path of this run's own",
        Step::Answer => "for the other end to answer",
    }
}

fn why(step: Step, cause: Cause, waits_for: Option<&str>) -> String {
    match (step, cause) {
        (_, Cause::Refused) => {
            "refused by the other end: nothing listens on that port there, or it is not published (--publish)"
                .to_owned()
        }
        (Step::Path, _) => {
            let waits = waits_for.map(|what| format!(" (the daemon waits for {what})"));
            format!("no path of this run's own stood in time{}; see `phantom status`", waits.unwrap_or_default())
        }
        (Step::Record, Cause::TimedOut) => {
            "the network database could not be asked for the address in time; see `phantom status`, try again"
                .to_owned()
        }
        (Step::Record, Cause::Failed) => {
            "nobody has published that address: is it right, and is its owner online with something published?"
                .to_owned()
        }
        (Step::Record, Cause::Unsure) => {
            "the network database is not sure whether anybody has that address: too many of those who should know did not answer; try again"
                .to_owned()
        }
        (Step::Answer, Cause::TimedOut) => "the other end did not answer in time; try again".to_owned(),
        (Step::Answer, Cause::Failed | Cause::Unsure) => {
            "its entry nodes do not lead to it any more: its owner has gone, or changes them; try again in a minute"
                .to_owned()
        }
    }
}

/// Says each trouble once in a while.
#[derive(Default)]
pub(super) struct Explains(Mutex<Said>);

#[derive(Default)]
struct Said {
    when: BTreeMap<Trouble, Instant>,
    left_out: usize,
}

impl Explains {
    /// Whether this is to be said now, and how many were left out before it.
    pub(super) fn is_due(&self, trouble: &Trouble, now: Instant) -> Option<usize> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.when.retain(|_, when| now.saturating_duration_since(*when) < AGAIN);
        if said.when.contains_key(trouble) {
            return None;
        }
        if said.when.len() >= MOST {
            said.left_out += 1;
            return None;
        }
        said.when.insert(trouble.clone(), now);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(port: u16, step: Step, cause: Cause) -> Trouble {
        Trouble::Connect { to: "a.phantom".to_owned(), port, step, cause }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_a_while_and_few_in_a_row() {
        let (explains, begun) = (Explains::default(), Instant::now());
        let refused = |port| trouble(port, Step::Answer, Cause::Refused);
        assert_eq!(explains.is_due(&refused(80), begun), Some(0));
        assert_eq!(explains.is_due(&refused(80), begun + AGAIN / 2), None);
        let others = (1..100).filter_map(|port| explains.is_due(&refused(port), begun + AGAIN / 2)).count();
        assert_eq!(others, MOST - 1);
        // What was left out is counted, the same that came again is not.
        assert_eq!(explains.is_due(&refused(80), begun + AGAIN), Some(99 - 1 - (MOST - 1)));
        assert_eq!(explains.is_due(&refused(99), begun + 2 * AGAIN), Some(0));
    }

    #[test]
    fn no_name_speaks_to_a_terminal() {
        let line = Trouble::no_such_name("a\u{1b}]0;title\u{7}\n\u{9b}b", false).expect("a line").line(None);
        assert!(line.contains("no such name: a?]0;title???b;") && line.is_ascii(), "{line}");
        assert!(!Trouble::no_answer("a\u{1b}[2J").line(None).contains('\u{1b}'));
    }

    #[test]
    fn who_mistypes_an_address_is_told_so_and_nothing_of_names_that_resolvers_make() {
        let whole = "a".repeat(ADDRESS) + ".phantom";
        for (name, says) in [(&*whole, "mistyped"), ("web.phantom", "identity list"), ("WEB.Phantom.", "identity list")]
        {
            let line = Trouble::no_such_name(name, true).expect("a line").line(None);
            assert!(line.contains(says) && !line.contains("resolver"), "{line}");
        }
        for made in ["short.phantom.invalid", "example.com.INVALID."] {
            assert_eq!(Trouble::no_such_name(made, false), None, "{made}");
        }
    }

    #[test]
    fn each_step_and_cause_has_words_of_its_own_that_fit_a_note() {
        let steps = [Step::Path, Step::Record, Step::Answer];
        let causes = [Cause::Failed, Cause::TimedOut];
        let all =
            steps.into_iter().flat_map(|step| causes.map(|cause| trouble(65_535, step, cause).line(Some("a path"))));
        let refused = trouble(65_535, Step::Answer, Cause::Refused).line(None);
        let names =
            [true, false].map(|has_resolver| Trouble::NoSuchName { name: "n".repeat(255), has_resolver }.line(None));
        let silent = Trouble::NoAnswer { name: "n".repeat(255) }.line(None);
        let phantom = format!("{}.phantom", "n".repeat(247));
        let mistyped = Trouble::NoSuchName { name: phantom, has_resolver: false }.line(None);
        let outside = Trouble::Outside { address: [192, 0, 2, 1].into() }.line(None);
        let waits = steps.map(|step| Trouble::Waits { step }.line(Some("a path")));
        let mut lines: Vec<String> =
            all.chain(names).chain(waits).chain([refused, silent, mistyped, outside]).collect();
        assert!(
            lines.iter().all(|line| line.len() <= phantom_ipc::hook::MAX_MESSAGE && !line.contains('\n')),
            "{lines:?}"
        );
        lines.sort();
        lines.dedup();
        // A path either stands or not.
        assert_eq!(lines.len(), 14, "{lines:#?}");
    }
}
