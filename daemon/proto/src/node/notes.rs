//! What has happened, for who looks after the node: kept by kind, so that nothing that a stranger can make happen pushes out what else
//! did. Status and logs read the same.
//!
//! No address and no name is in a note, and no node in what it says: logs show it. Which guard makes trouble, only the state says.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::progress::{age, ago};
use super::{Node, Output, Work};
use crate::path::choice::Note as ChoiceNote;
use crate::path::{BuildError, HopError, How, PlanError};
use crate::record::RecordError;
use crate::tunnel::TunnelError;

/// Notes of one kind that are kept; of older ones the number.
const KEPT: usize = 8;

/// How long a note is news to who asks for the state, in milliseconds.
const NEWS: u64 = 3_600_000;

/// What happens again within this time, in milliseconds, is counted but not said again.
const QUIET: u64 = 60_000;

/// Kinds of trouble that are told at once: more is for logs.
const TOLD: usize = 4;

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Something began to be true of the choice of nodes: a guard is suspected, layers are off.
    Choice(ChoiceNote),
    /// Guards were drawn, or their order has changed.
    Guards,
    /// A build could not begin.
    NoPlan(PlanError),
    /// An array did not come home, or not as it should.
    BuildFailed(BuildError),
    /// A node at an end of a circle, a guard, did not answer.
    FirstAway,
    /// An own path stands, and has had its first tunnel.
    PathUp,
    /// An own path took over this work.
    PathWorks(Work),
    /// An own path ended.
    PathDown(How),
    /// The end of an own path denied a record that another has.
    Denied,
    /// A tunnel that this end began came to nothing.
    TunnelInVain,
    /// Tunnels that nobody has used were given up for those of other neighbours.
    TunnelsGivenUp,
    /// What an earlier run had kept of an identity's layers could not be read; others are drawn.
    LayersLost,
    /// A path of others was not taken, since there are as many as may be.
    PathsFull,
    /// A record for a path that ends here did not hold.
    Record(RecordError),
    /// An owner used a path that ends here as it may not.
    Misused,
    /// An array of others was dropped in silence.
    Array(HopError),
    /// A block of a tunnel's set-up was dropped in silence.
    Block(TunnelError),
    /// A frame that its link's state does not accept closed the link.
    Frame,
}

/// How much a note is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Others' doing, or all in order.
    Quiet,
    /// Rare and normal.
    Normal,
    /// Somebody should know.
    Trouble,
}

impl Note {
    /// Notes of one kind stand together.
    fn kind(&self) -> u8 {
        match self {
            Self::Choice(_) => 0,
            Self::Guards => 1,
            Self::NoPlan(_) => 2,
            Self::BuildFailed(_) => 3,
            Self::FirstAway => 4,
            Self::PathUp => 5,
            Self::PathWorks(_) => 6,
            Self::PathDown(How::Ended) => 7,
            Self::PathDown(_) => 8,
            Self::TunnelInVain => 9,
            Self::TunnelsGivenUp => 10,
            Self::LayersLost => 11,
            Self::PathsFull => 12,
            Self::Record(_) => 13,
            Self::Misused => 14,
            Self::Array(_) => 15,
            Self::Block(_) => 16,
            Self::Frame => 17,
            Self::Denied => 18,
        }
    }

    /// For the level of a log.
    pub fn weight(&self) -> Weight {
        match self {
            Self::LayersLost | Self::PathDown(How::Mute) => Weight::Trouble,
            // What is true for a while is told by who watches, once it has been true for long enough.
            Self::Choice(_) | Self::NoPlan(_) => Weight::Quiet,
            Self::Guards
            | Self::Denied
            | Self::BuildFailed(_)
            | Self::FirstAway
            | Self::PathDown(How::Failed | How::Died { .. }) => Weight::Normal,
            _ => Weight::Quiet,
        }
    }

    /// Whether it is about what this node does for itself, and not about what others do here.
    pub fn is_own(&self) -> bool {
        !matches!(
            self,
            Self::TunnelsGivenUp
                | Self::PathsFull
                | Self::Record(_)
                | Self::Misused
                | Self::Array(_)
                | Self::Block(_)
                | Self::Frame
        )
    }

    /// Whether it says that something of our own went wrong.
    fn is_trouble(&self) -> bool {
        matches!(self, Self::BuildFailed(_) | Self::FirstAway | Self::LayersLost | Self::Denied)
            || matches!(self, Self::PathDown(How::Failed | How::Mute | How::Died { .. }))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(ChoiceNote::KillsBuilds(_)) => f.write_str("a guard kills builds: others stand in for it"),
            Self::Choice(ChoiceNote::KillsPaths(_)) => f.write_str("a guard ends paths early: others stand in for it"),
            Self::Choice(note) => note.fmt(f),
            Self::Guards => f.write_str("the guards, or their order, have changed"),
            Self::NoPlan(why) => write!(f, "no path can be planned: {why}"),
            Self::BuildFailed(why) => write!(f, "the build of a path failed: {why}"),
            Self::FirstAway => f.write_str("a build failed, since its first or last node does not answer"),
            Self::PathUp => f.write_str("a path of our own works"),
            Self::PathWorks(work) => write!(f, "a path took over the work: {work:?}"),
            Self::PathDown(How::Failed) => f.write_str("no tunnel stood on a path that was built"),
            Self::PathDown(How::Died { lived, planned }) => {
                write!(f, "a path was ended by others after {} of {}", age(*lived), age(*planned))
            }
            Self::PathDown(How::Mute) => f.write_str("a path was given up, since no tunnel stands on it any more"),
            Self::PathDown(How::Built | How::Ended) => f.write_str("a path ended in its time"),
            Self::Denied => f.write_str("the end of a path denied a record that there is: another path asks"),
            Self::TunnelInVain => f.write_str("a tunnel that we began came to nothing"),
            Self::TunnelsGivenUp => f.write_str("a ready tunnel of others was given up for others'"),
            Self::LayersLost => f.write_str("the stored layers of an identity cannot be read; others are drawn"),
            Self::PathsFull => f.write_str("a path of others was not taken: there are as many as may be"),
            Self::Record(why) => write!(f, "a path of others ended by its record: {why}"),
            Self::Misused => f.write_str("a path of others was misused, and ended"),
            Self::Array(why) => write!(f, "an array of others was dropped: {why}"),
            Self::Block(why) => write!(f, "a block of a tunnel's set-up was dropped: {why}"),
            Self::Frame => f.write_str("a frame that did not belong closed its link"),
        }
    }
}

/// All of one kind.
#[derive(Debug, Default)]
struct Line {
    times: u64,
    last: VecDeque<(u64, Note)>,
}

/// How often it happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// An own path was built and had its first tunnel.
    pub stood: u64,
    /// The array of a build did not come home, or not as it should.
    pub failed: u64,
    /// The first node of a build did not answer.
    pub first_away: u64,
    /// A build could not begin.
    pub no_plan: u64,
    /// An own path was ended by others, or went mute.
    pub lost: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<u8, Line>);

impl Notes {
    pub(super) fn times(&self) -> Times {
        let times = |note: Note| self.0.get(&note.kind()).map_or(0, |line| line.times);
        Times {
            stood: times(Note::PathUp),
            failed: times(Note::BuildFailed(BuildError::Changed)),
            first_away: times(Note::FirstAway),
            no_plan: times(Note::NoPlan(PlanError::Hops(0))),
            lost: times(Note::PathDown(How::Mute)),
        }
    }

    fn add(&mut self, now: u64, note: Note) {
        let line = self.0.entry(note.kind()).or_default();
        line.times = line.times.saturating_add(1);
        if line.last.len() >= KEPT {
            line.last.pop_front();
        }
        line.last.push_back((now, note));
    }

    /// Whether the same was noted within [`QUIET`].
    fn knows(&self, now: u64, note: &Note) -> bool {
        let last = self.0.get(&note.kind()).and_then(|line| line.last.back());
        last.is_some_and(|(at, last)| last == note && now.saturating_sub(*at) < QUIET)
    }

    /// What went wrong of late, the newest first, one sentence for each kind.
    fn news(&self, now: u64) -> Vec<String> {
        let of_late = |line: &Line| {
            // A clock that was set back makes nothing younger than it is.
            let recent = |at: &u64| now.saturating_sub(*at) < NEWS;
            let count = line.last.iter().filter(|(at, _)| recent(at)).count();
            let (at, note) = line.last.back().filter(|(at, note)| recent(at) && note.is_trouble())?;
            Some((*at, count, note.clone()))
        };
        let mut all: Vec<_> = self.0.values().filter_map(of_late).collect();
        all.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let say = |(at, count, note): (u64, usize, Note)| {
            let times = match count {
                1 => String::new(),
                KEPT => format!(", {KEPT} times or more within an hour"),
                count => format!(", {count} times within an hour"),
            };
            format!("{note} ({}{times})", ago(now, at))
        };
        all.into_iter().take(TOLD).map(say).collect()
    }
}

impl Node {
    pub(super) fn note(&mut self, now: u64, note: Note) {
        if !self.notes.knows(now, &note) {
            self.out.push_back(Output::Note(note.clone()));
        }
        self.notes.add(now, note);
    }

    /// What went wrong of late, in words; what is still true says [`Node::vitals`].
    pub fn notes(&self, now: u64) -> Vec<String> {
        self.notes.news(now)
    }

    /// Everything that has happened and is kept, oldest first: when, and what.
    pub fn happened(&self) -> Vec<(u64, &Note)> {
        let mut all: Vec<_> = self.notes.0.values().flat_map(|line| &line.last).map(|(at, note)| (*at, note)).collect();
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Notes what has become true of the choice of nodes since the last look.
    pub(super) fn note_choice(&mut self, now: u64) {
        let true_now = self.choice.notes(now / 1000);
        for note in true_now.iter().filter(|note| !self.known.contains(note)).copied().collect::<Vec<_>>() {
            self.note(now, Note::Choice(note));
        }
        self.known = true_now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn what_strangers_do_pushes_out_nothing_else() {
        let mut notes = Notes::default();
        notes.add(NOW, Note::BuildFailed(BuildError::Changed));
        for number in 0..100_000 {
            notes.add(NOW + number, if number % 2 == 0 { Note::Array(HopError::NoSlot) } else { Note::Frame });
        }
        let kept: usize = notes.0.values().map(|line| line.last.len()).sum();
        assert_eq!(kept, 1 + 2 * KEPT);
        assert_eq!(
            notes.news(NOW + 100_000),
            ["the build of a path failed: the array came home changed (1 min 40 s ago)"]
        );
    }

    #[test]
    fn trouble_is_told_with_its_number_and_for_an_hour() {
        let mut notes = Notes::default();
        for number in 0..3 {
            notes.add(NOW + 1000 * number, Note::FirstAway);
        }
        notes.add(NOW, Note::PathDown(How::Ended));
        let told = notes.news(NOW + 5_000);
        assert_eq!(
            told,
            ["a build failed, since its first or last node does not answer (3 s ago, 3 times within an hour)"]
        );
        assert!(notes.news(NOW + 2_000 + NEWS).is_empty());
    }
}
