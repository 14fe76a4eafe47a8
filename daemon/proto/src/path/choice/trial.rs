//! Which guard kills builds: found by trial circles, since all guards in use stand in every circle and no account can tell them
//! apart (docs/protocol.md, section 4.6).
//!
//! ```text
//!   trouble ──▶ search: three of the guards that work together ──▶ test: each other one beside two of those ──▶ verdict
//! ```
//!
//! A trial circle has two X-nodes and, beside three guards, two freshly drawn nodes of no layer. Its path is never used.

use std::collections::VecDeque;

use crate::ident::NodeId;

/// Builds that are looked back upon.
const RECENT: usize = 40;

/// Failures among them that start a trial. Where a quarter fails anyway, a killer that stays below may kill a third of the rest and
/// gains half as much again as chance gives; lower, and nodes that are merely down would start trials again and again.
const TROUBLE: usize = 20;

/// Builds of three guards that must stand, and failures after which they are given up: the first if none stood. Where three of ten nodes fail
/// all builds, half of the trials of good guards fail, too: one of 120 times the first seven, one of six times ten before six stand.
/// Where two thirds fail whoever is in them, no three are found.
const GOOD: usize = 6;
const DEAD: usize = 7;
const BAD: usize = 10;

/// Builds with a suspect, and how many must fail to convict it.
// protocol: O9
const TESTS: usize = 10;
const GUILTY: usize = 8;

/// A failure counts against a suspect only when another build stood within so many seconds: else the network is to blame.
const NEAR: u64 = 60;

/// The shortest time between two trials, in seconds: failures that no guard causes must not double the number of builds.
// protocol: O10
const PAUSE: u64 = 6 * 3600;

/// Failures in a row of three that worked, after which the trial is given up: the network is not what it was.
const VAIN: usize = 10;

/// How long the next trial build may be waited for, in seconds; then it is given up as failed.
const PATIENCE: u64 = 60;

/// What a trial found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// These three work together; who is guilty is still to be found.
    Works { good: Vec<NodeId> },
    /// These three work together; those are guilty.
    Found { good: Vec<NodeId>, guilty: Vec<NodeId> },
    /// No three of the guards work together.
    None,
}

/// Looks back on builds, and runs one trial at a time.
#[derive(Debug, Default)]
pub(super) struct Trials {
    recent: VecDeque<bool>,
    trial: Option<Trial>,
    next: u64,
}

#[derive(Debug)]
struct Trial {
    /// Every three of the guards.
    trios: Vec<Trio>,
    /// The ones that work, once found.
    good: Option<usize>,
    suspects: Vec<Suspect>,
    /// Failures of the three that work, without a success since.
    vain: usize,
    /// Since when a build is under way.
    pending: Option<u64>,
    last_stood: u64,
}

#[derive(Debug)]
struct Trio {
    guards: [NodeId; 3],
    stood: usize,
    failed: usize,
}

#[derive(Debug)]
struct Suspect {
    node: NodeId,
    tests: usize,
    failed: usize,
    /// When builds failed with it that may yet count.
    unsure: Vec<u64>,
}

impl Trials {
    /// How a build for an identity went.
    pub(super) fn note(&mut self, failed: bool) {
        self.recent.push_back(failed);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    pub(super) fn running(&self) -> bool {
        self.trial.is_some()
    }

    fn trouble(&self) -> bool {
        self.recent.iter().filter(|failed| **failed).count() >= TROUBLE
    }

    /// The guards that the next trial build needs, if one is due. `guards`: those that can be tested, in the order of use.
    pub(super) fn next(&mut self, now: u64, guards: &[NodeId]) -> Option<[NodeId; 3]> {
        if self.trial.is_none() && self.trouble() && now >= self.next && guards.len() > 3 {
            self.trial = Some(Trial::new(guards));
        }
        let trial = self.trial.as_mut()?;
        if trial.pending.is_some_and(|since| now < since + PATIENCE) {
            return None;
        }
        trial.pending = Some(now);
        trial.next(now)
    }

    /// How a trial build with these guards went.
    pub(super) fn ended(&mut self, now: u64, guards: &[NodeId], stood: bool) -> Option<Verdict> {
        let trial = self.trial.as_mut()?;
        let verdict = trial.ended(now, guards, stood)?;
        if let Verdict::Works { .. } = verdict {
            return Some(verdict);
        }
        self.trial = None;
        self.recent.clear();
        self.next = now + PAUSE;
        Some(verdict)
    }
}

impl Trial {
    fn new(guards: &[NodeId]) -> Self {
        let mut trios = Vec::new();
        for (a, first) in guards.iter().enumerate() {
            for (b, second) in guards.iter().enumerate().skip(a + 1) {
                trios.extend(guards[b + 1..].iter().map(|third| [*first, *second, *third]));
            }
        }
        let trios = trios.into_iter().map(|guards| Trio { guards, stood: 0, failed: 0 }).collect();
        Self { trios, good: None, suspects: Vec::new(), vain: 0, pending: None, last_stood: 0 }
    }

    fn next(&self, now: u64) -> Option<[NodeId; 3]> {
        let Some(good) = self.good.and_then(|index| self.trios.get(index)) else { return Some(self.search()?.guards) };
        let suspect = self.suspects.iter().find(|suspect| suspect.tests < TESTS)?;
        // A control before each test that would have none.
        let [first, second, _] = good.guards;
        let control = now >= self.last_stood + NEAR / 2;
        Some(if control { good.guards } else { [suspect.node, first, second] })
    }

    /// The three that stood most often, among them those that were tried least.
    fn search(&self) -> Option<&Trio> {
        let open = self.trios.iter().filter(|trio| trio.failed < if trio.stood == 0 { DEAD } else { BAD });
        open.max_by_key(|trio| (trio.stood, std::cmp::Reverse(trio.failed)))
    }

    fn ended(&mut self, now: u64, guards: &[NodeId], stood: bool) -> Option<Verdict> {
        self.pending = None;
        if stood {
            self.last_stood = now;
        }
        match self.good {
            None => self.searched(guards, stood),
            Some(good) => self.tested(now, good, guards, stood),
        }
    }

    fn searched(&mut self, guards: &[NodeId], stood: bool) -> Option<Verdict> {
        let index = self.trios.iter().position(|trio| trio.guards == guards)?;
        let trio = &mut self.trios[index];
        *(if stood { &mut trio.stood } else { &mut trio.failed }) += 1;
        if trio.stood >= GOOD {
            self.good = Some(index);
            let good = trio.guards;
            let mut others: Vec<NodeId> = self.trios.iter().flat_map(|trio| trio.guards).collect();
            others.sort_unstable();
            others.dedup();
            others.retain(|node| !good.contains(node));
            let suspect = |node| Suspect { node, tests: 0, failed: 0, unsure: Vec::new() };
            self.suspects = others.into_iter().map(suspect).collect();
            return Some(Verdict::Works { good: good.to_vec() });
        }
        self.search().is_none().then_some(Verdict::None)
    }

    fn tested(&mut self, now: u64, good: usize, guards: &[NodeId], stood: bool) -> Option<Verdict> {
        match self.suspects.iter_mut().find(|suspect| guards.contains(&suspect.node)) {
            Some(suspect) => {
                suspect.tests += 1;
                suspect.unsure.extend((!stood).then_some(now));
            }
            None if stood => self.vain = 0,
            None => self.vain += 1,
        }
        if self.vain >= VAIN {
            return Some(Verdict::None);
        }
        if now <= self.last_stood + NEAR {
            self.suspects.iter_mut().for_each(|suspect| suspect.confirm(now));
        }
        if self.suspects.iter().any(|suspect| suspect.tests < TESTS) {
            return None;
        }
        let guilty = self.suspects.iter().filter(|suspect| suspect.failed >= GUILTY).map(|suspect| suspect.node);
        Some(Verdict::Found { good: self.trios[good].guards.to_vec(), guilty: guilty.collect() })
    }
}

impl Suspect {
    /// A build stood near `now`: what failed around it counts.
    fn confirm(&mut self, now: u64) {
        let unsure = std::mem::take(&mut self.unsure);
        self.failed += unsure.iter().filter(|at| now <= **at + NEAR).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    /// Runs a trial of five guards in which builds go as `stands` says, one every ten seconds.
    fn run(mut stands: impl FnMut(u64, &[NodeId; 3]) -> bool) -> (Option<Verdict>, usize) {
        let mut trials = Trials::default();
        (0..RECENT).for_each(|_| trials.note(true));
        let guards: Vec<NodeId> = (1..=5).map(id).collect();
        for n in 0..500 {
            let now = 1_000_000 + n * 10;
            let Some(trio) = trials.next(now, &guards) else { continue };
            match trials.ended(now, &trio, stands(now, &trio)) {
                Some(Verdict::Works { .. }) | None => {}
                verdict => return (verdict, n as usize),
            }
        }
        (None, 500)
    }

    // protocol: O9
    #[test]
    fn the_guilty_one_is_found() {
        for guilty in 1..=5 {
            let (verdict, builds) = run(|_, trio| !trio.contains(&id(guilty)));
            let Some(Verdict::Found { good, guilty: found }) = verdict else { panic!("{verdict:?}") };
            assert!(!good.contains(&id(guilty)));
            assert_eq!(found, [id(guilty)]);
            assert!(builds < 60, "{builds}");
        }
    }

    #[test]
    fn two_guilty_ones_are_found() {
        let (verdict, _) = run(|_, trio| !trio.contains(&id(1)) && !trio.contains(&id(3)));
        assert_eq!(verdict, Some(Verdict::Found { good: vec![id(2), id(4), id(5)], guilty: vec![id(1), id(3)] }));
    }

    /// Three of ten nodes fail all builds: so do half of the trials of good guards, for the two beside them, and more by chance.
    // protocol: O9
    #[test]
    fn good_ones_are_found_where_most_of_their_trials_fail() {
        let mut tries = 0;
        let (verdict, builds) = run(|_, trio| {
            let good = !trio.contains(&id(2)) && !trio.contains(&id(4));
            tries += u32::from(good);
            good && matches!(tries % 5, 1 | 3)
        });
        let Some(Verdict::Found { good, guilty }) = verdict else { panic!("{verdict:?}") };
        assert_eq!((good, guilty), (vec![id(1), id(3), id(5)], vec![id(2), id(4)]));
        assert!(builds < 120, "{builds}");
        // Of three builds one, whoever is in it: nobody is to blame.
        let mut tries = 0;
        let (verdict, _) = run(|_, _| {
            tries += 1;
            tries % 3 == 0
        });
        assert_eq!(verdict, Some(Verdict::None));
    }

    // protocol: O9
    #[test]
    fn a_network_that_fails_convicts_nobody() {
        assert_eq!(run(|_, _| false).0, Some(Verdict::None));
        // It works until three are found, and then no more: what fails alone decides nothing.
        let mut builds = 0;
        let (verdict, _) = run(|_, _| {
            builds += 1;
            builds <= GOOD
        });
        assert_eq!(verdict, Some(Verdict::None));
    }

    #[test]
    fn without_trouble_there_is_no_trial() {
        let mut trials = Trials::default();
        let guards: Vec<NodeId> = (1..=5).map(id).collect();
        (0..RECENT).for_each(|n| trials.note(n < TROUBLE - 1));
        assert_eq!(trials.next(1_000_000, &guards), None);
        trials.note(true);
        // The oldest, a failure, made room for it.
        assert_eq!(trials.next(1_000_000, &guards), None);
        (0..RECENT).for_each(|n| trials.note(n < TROUBLE));
        assert!(trials.next(1_000_000, &guards).is_some());
        assert_eq!(trials.next(1_000_001, &guards), None, "one at a time");
    }

    // protocol: O10
    #[test]
    fn after_a_trial_there_is_none_for_hours() {
        let mut trials = Trials::default();
        let guards: Vec<NodeId> = (1..=5).map(id).collect();
        let mut now = 1_000_000;
        let over = loop {
            (0..RECENT).for_each(|_| trials.note(true));
            now += 10;
            let Some(trio) = trials.next(now, &guards) else { continue };
            if trials.ended(now, &trio, false).is_some() {
                break now;
            }
        };
        let hours = 6 * 3600;
        let next = (over..over + 2 * hours).find(|now| {
            (0..RECENT).for_each(|_| trials.note(true));
            trials.next(*now, &guards).is_some()
        });
        assert_eq!(next, Some(over + hours));
    }
}
