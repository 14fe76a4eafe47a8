//! How far a start is: the steps until programs can be served, and the time that each took.

use phantom_ipc::admin::StartStep;
use tokio::time::Instant;

use super::Facts;

/// What a step brings, and whether it is done.
type Step = (&'static str, fn(&Facts) -> bool);

/// In the order in which they come.
const STEPS: [Step; 5] = [
    ("a first peer", |facts| facts.connected > 0),
    ("other nodes to choose from", |facts| facts.known > 0),
    ("guards", |facts| facts.vitals.guards > 0),
    ("a first path", |facts| facts.exit_paths > 0),
    ("a first tunnel", |facts| facts.ready_tunnels > 0),
];

/// When each step was done, since the first look.
#[derive(Debug, Default)]
pub(super) struct Start {
    began: Option<Instant>,
    done: [Option<Instant>; STEPS.len()],
}

impl Start {
    pub(super) fn look(&mut self, now: Instant, facts: &Facts) {
        self.began.get_or_insert(now);
        for (done, (_, is_done)) in self.done.iter_mut().zip(STEPS) {
            if done.is_none() && is_done(facts) {
                *done = Some(now);
            }
        }
    }

    /// Milliseconds from the step before to each, or, of the first that is not done, until now.
    pub(super) fn steps(&self, now: Instant) -> Vec<StartStep> {
        let Some(mut before) = self.began else { return Vec::new() };
        let one = |(done, (what, _)): (&Option<Instant>, Step)| {
            let until = done.unwrap_or(now);
            let took = until.saturating_duration_since(before);
            before = before.max(until);
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            StartStep { what: what.to_owned(), done: done.is_some(), milliseconds }
        };
        self.done.iter().zip(STEPS).map(one).collect()
    }
}
