//! One look-up, as its owner judges it: "there is none" is believed when the ends of two paths say so, and not before
//! (docs/protocol.md, section 5.2).
//!
//! ```text
//!   Ask ──▶ a record, newer than what is known ──────────────▶ that one
//!    ╰────▶ none, not sure, silence, noise ──▶ AskAgain ──▶ a record ──▶ that one, and what the first was worth
//!                                                 ╰───────▶ what both said
//! ```

use super::{Input, PathNo, Work};
use crate::record::ApRecord;

/// What came of a question over one path.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A record of the address, which holds.
    Record(ApRecord),
    /// That there is none; or what was to be the record does not hold, or is another's.
    Nothing,
    /// That it is not sure.
    Unsure,
    /// That it does not look now.
    Refused,
    /// It broke off, or no answer came in time.
    Silence,
    /// No cell; or the end says that none came, or says what is no answer.
    Noise,
}

impl Heard {
    /// Whether the end has looked, and said what it found.
    fn is_said(&self) -> bool {
        matches!(self, Self::Record(_) | Self::Nothing | Self::Unsure)
    }
}

/// What comes of a look-up.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The newest that was heard of.
    Record(ApRecord),
    /// All who were asked say that there is none.
    Nothing,
    /// They do not agree, or do not know.
    Unsure,
    /// Nobody has answered.
    Silence,
}

/// See the module.
#[derive(Debug)]
pub struct Inquiry {
    newer_than: Option<u64>,
    again: bool,
    /// Two at most.
    heard: Vec<(PathNo, Heard)>,
}

impl Inquiry {
    /// `newer_than`: the serial of a record that has led nowhere. `again`: whether a second end may be asked although the first has said
    /// something.
    pub fn new(newer_than: Option<u64>, again: bool) -> Self {
        Self { newer_than, again, heard: Vec::new() }
    }

    /// Over which path the next question goes. `None`: enough was heard.
    // protocol: U30, U32
    pub fn next(&self) -> Option<Work> {
        match &self.heard[..] {
            [] => Some(Work::Ask),
            [(_, first)] if (self.again || !first.is_said()) && !self.is_answered() => Some(Work::AskAgain),
            _ => None,
        }
    }

    /// What came of it; returns what the node is to be told of that path, or of the one before.
    // protocol: U30, U31
    pub fn heard(&mut self, path: PathNo, heard: Heard) -> Option<Input> {
        let told = match (&heard, self.heard.first()) {
            (Heard::Noise, _) => Some(Input::Misused(path)),
            (Heard::Silence, _) => Some(Input::Broke(path)),
            // The record is signed: it is there, whatever the other one said.
            (Heard::Record(_), Some((first, Heard::Nothing))) => Some(Input::Denied(*first)),
            // As good as no answer, when that is the rule.
            (Heard::Record(_), Some((first, Heard::Unsure))) => Some(Input::Broke(*first)),
            _ => None,
        };
        self.heard.push((path, heard));
        told
    }

    /// Whether two ends were asked, and neither had what was asked for.
    pub fn is_in_vain(&self) -> bool {
        self.heard.len() > 1 && !self.is_answered()
    }

    /// What comes of all that was heard.
    pub fn verdict(self) -> Verdict {
        let all = |one: &Heard| self.heard.iter().all(|(_, heard)| heard == one);
        match self.records().max_by_key(|record| record.serial) {
            Some(newest) => Verdict::Record(newest.clone()),
            None if all(&Heard::Silence) => Verdict::Silence,
            None if all(&Heard::Nothing) => Verdict::Nothing,
            None => Verdict::Unsure,
        }
    }

    fn records(&self) -> impl Iterator<Item = &ApRecord> {
        self.heard.iter().filter_map(|(_, heard)| match heard {
            Heard::Record(record) => Some(record),
            _ => None,
        })
    }

    fn is_answered(&self) -> bool {
        self.records().any(|record| Some(record.serial) > self.newer_than)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;

    const FIRST: PathNo = PathNo(1);
    const SECOND: PathNo = PathNo(2);

    fn record(serial: u64) -> ApRecord {
        let key = SigningKey::from_seed(&[1; 32]).verifying_key();
        ApRecord { key, serial, issued: 0, expires: 0, entries: Vec::new() }
    }

    /// One look-up of which this is heard: what comes of it, and what the node is told.
    fn look_up(newer_than: Option<u64>, all: [Heard; 2]) -> (Verdict, Vec<Input>, usize) {
        let (mut inquiry, mut told, mut asked) = (Inquiry::new(newer_than, true), Vec::new(), 0);
        let works = [(FIRST, Work::Ask), (SECOND, Work::AskAgain)];
        for ((path, work), heard) in works.into_iter().zip(all) {
            match inquiry.next() {
                None => break,
                next => assert_eq!(next, Some(work)),
            }
            asked += 1;
            told.extend(inquiry.heard(path, heard));
        }
        assert_eq!(inquiry.next(), None, "two are enough");
        (inquiry.verdict(), told, asked)
    }

    // protocol: U30
    #[test]
    fn that_there_is_no_record_two_ends_must_say() {
        let none = [Heard::Nothing, Heard::Unsure, Heard::Refused, Heard::Silence, Heard::Noise];
        for first in &none {
            for second in &none {
                let (verdict, _, asked) = look_up(None, [first.clone(), second.clone()]);
                let expected = match (first, second) {
                    (Heard::Nothing, Heard::Nothing) => Verdict::Nothing,
                    (Heard::Silence, Heard::Silence) => Verdict::Silence,
                    _ => Verdict::Unsure,
                };
                assert_eq!((verdict, asked), (expected, 2), "{first:?}, {second:?}");
            }
            let (verdict, _, asked) = look_up(None, [first.clone(), Heard::Record(record(1))]);
            assert_eq!((verdict, asked), (Verdict::Record(record(1)), 2), "{first:?}");
        }
        let (verdict, told, asked) = look_up(None, [Heard::Record(record(1)), Heard::Nothing]);
        assert_eq!((verdict, told.len(), asked), (Verdict::Record(record(1)), 0, 1), "who finds is believed");
        // Nobody was asked again a moment ago for nothing, or there is no path for it.
        let mut once = Inquiry::new(None, false);
        assert!(once.heard(FIRST, Heard::Nothing).is_none() && once.next().is_none() && !once.is_in_vain());
        assert_eq!(once.verdict(), Verdict::Nothing);
    }

    /// A tunnel that broke was the end of it, and the program waited for two minutes.
    // protocol: U32
    #[test]
    fn who_says_nothing_is_no_reason_to_ask_nobody_else() {
        for nothing in [Heard::Silence, Heard::Noise, Heard::Refused] {
            let mut once = Inquiry::new(None, false);
            once.heard(FIRST, nothing.clone());
            assert_eq!(once.next(), Some(Work::AskAgain), "{nothing:?}");
            once.heard(SECOND, Heard::Nothing);
            assert_eq!((once.next(), once.verdict()), (None, Verdict::Unsure));
        }
    }

    // protocol: U31
    #[test]
    fn who_denied_what_another_finds_is_told_on() {
        let found = || Heard::Record(record(1));
        let told = |first| look_up(None, [first, found()]).1;
        assert!(matches!(told(Heard::Nothing)[..], [Input::Denied(FIRST)]));
        assert!(matches!(told(Heard::Unsure)[..], [Input::Broke(FIRST)]));
        assert!(matches!(told(Heard::Silence)[..], [Input::Broke(FIRST)]));
        assert!(matches!(told(Heard::Noise)[..], [Input::Misused(FIRST)]));
        assert!(told(Heard::Refused).is_empty());
        assert!(look_up(None, [Heard::Nothing, Heard::Nothing]).1.is_empty(), "what is true is no offence");
        let silent = look_up(None, [Heard::Nothing, Heard::Noise]).1;
        assert!(matches!(silent[..], [Input::Misused(SECOND)]));
    }

    /// Whoever answers with a record that led nowhere would keep its service away for as long as that one holds.
    // protocol: U30
    #[test]
    fn a_record_that_led_nowhere_is_no_answer() {
        let old = || Heard::Record(record(5));
        assert_eq!(look_up(Some(5), [old(), Heard::Record(record(6))]).0, Verdict::Record(record(6)));
        assert_eq!(look_up(Some(5), [old(), Heard::Nothing]).0, Verdict::Record(record(5)));
        let (verdict, told, asked) = look_up(Some(5), [Heard::Record(record(6)), old()]);
        assert_eq!((verdict, told.len(), asked), (Verdict::Record(record(6)), 0, 1));
        let mut inquiry = Inquiry::new(Some(5), true);
        assert!(inquiry.heard(FIRST, old()).is_none() && !inquiry.is_in_vain());
        assert!(inquiry.heard(SECOND, old()).is_none() && inquiry.is_in_vain());
    }
}
