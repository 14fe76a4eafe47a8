//! How the node is, as a value, for who watches it: what is true now, and how often what happened. Words for people are made elsewhere.

use super::Node;
use super::notes::Times;
use crate::path::choice::Note as ChoiceNote;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Guards that are kept.
    pub guards: usize,
    /// What is true of the choice of nodes.
    pub choice: Vec<ChoiceNote>,
    /// By how many milliseconds the clocks of others are ahead, where that is too much to be corrected.
    pub clock_off: Option<i64>,
    /// Why the last build could not even begin.
    pub problem: Option<String>,
    /// Builds that failed since the last one that worked.
    pub failures: u32,
    /// Own services of which no entry was reached from outside at the last visits.
    pub unseen: usize,
    /// Own services whose records were not found when they were looked up from outside.
    pub unrecorded: usize,
    /// What has become of builds and paths since the start.
    pub times: Times,
}

impl Node {
    /// How it is now.
    pub fn vitals(&self, now: u64) -> Vitals {
        Vitals {
            guards: self.choice.guards().count(),
            choice: self.choice.notes(now / 1000),
            clock_off: self.clock_off(),
            problem: self.problem.clone(),
            failures: self.failures,
            unseen: self.unseen(),
            unrecorded: self.unrecorded(),
            times: self.notes.times(),
        }
    }
}
