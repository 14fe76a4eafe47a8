//! The last lines of the log in memory, for `phantom log`: whoever asks later reads what was said before, whatever the log's own level.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

/// Lines that are kept: a day of a node that is well, an hour of one that is not.
const KEPT: usize = 512;

/// Longest line that is kept, in bytes: a cause with its advice.
const LONGEST: usize = 1024;

/// Target of what the node notes of its own paths: kept from debug on, since it is what people ask for.
pub const NOTES: &str = "phantom_daemon::notes";

static KEPT_LINES: Mutex<Kept> = Mutex::new(Kept { next: 1, lines: VecDeque::new() });

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counts from 1 at the start of the process.
    pub number: u64,
    /// When, as the log has it.
    pub at: String,
    /// error, warn, info or debug.
    pub level: String,
    /// What was said.
    pub text: String,
}

struct Kept {
    next: u64,
    lines: VecDeque<Line>,
}

impl Kept {
    fn add(&mut self, at: String, level: String, mut text: String) {
        let end = (0..=LONGEST.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { number: self.next, at, level, text });
        self.next += 1;
    }

    fn after(&self, number: u64) -> Vec<Line> {
        self.lines.iter().filter(|line| line.number > number).cloned().collect()
    }
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT_LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was said after the line of this number, the newest last.
pub fn after(number: u64) -> Vec<Line> {
    kept().after(number)
}

/// What is kept: our own from info on, and what the node notes.
pub(super) fn filter() -> Targets {
    Targets::new().with_target("phantom_daemon", LevelFilter::INFO).with_target(NOTES, LevelFilter::DEBUG)
}

/// Keeps events as lines.
pub(super) struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let mut at = String::new();
        // A clock that cannot be told leaves the time empty.
        let _ = SystemTime.format_time(&mut Writer::new(&mut at));
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        kept().add(at, level, text.message + &text.fields);
    }
}

/// The message, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn old_lines_make_room_and_long_ones_are_cut() {
        let mut kept = Kept { next: 1, lines: VecDeque::new() };
        for _ in 0..KEPT {
            kept.add(String::new(), "info".into(), "line".into());
        }
        kept.add(String::new(), "info".into(), "ä".repeat(LONGEST));
        assert_eq!((kept.lines.len(), kept.lines[0].number), (KEPT, 2));
        let last = kept.after(KEPT as u64);
        assert_eq!(last.len(), 1);
        assert_eq!((last[0].number, last[0].text.len()), (KEPT as u64 + 1, LONGEST));
        assert!(kept.after(KEPT as u64 + 1).is_empty());
    }

    /// One test for all, since the lines are those of the whole process.
    #[test]
    fn what_is_said_is_kept_from_info_on_and_notes_from_debug_on() {
        let subscriber = tracing_subscriber::registry().with(Journal.with_filter(filter()));
        let before = kept().next - 1;
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(answer = 42, "journal test: said");
            tracing::debug!("journal test: not kept");
            tracing::warn!(target: "somebody_else", "journal test: not ours");
            tracing::debug!(target: NOTES, "journal test: noted");
        });
        let lines = after(before).into_iter().filter(|line| line.text.starts_with("journal test"));
        let said: Vec<_> = lines.map(|line| (line.level, line.text)).collect();
        let expected = [("info", "journal test: said answer=42"), ("debug", "journal test: noted")];
        assert_eq!(said, expected.map(|(level, text)| (level.to_owned(), text.to_owned())));
        assert!(after(before).iter().all(|line| line.at.starts_with("20")));
    }
}
