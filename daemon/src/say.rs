//! What commands and daemon say to people: nothing in it steers a terminal, and where nobody reads any more it is said to nobody.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::exit;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use phantom_ipc::text;
pub(crate) use phantom_ipc::text::{clean, plain};

use crate::os;

/// In the place of the standard library's, everywhere in this crate: that one ends the program where standard error is gone
/// (`2>&1 | head -1`), and says what others have written as they have written it.
macro_rules! eprintln {
    ($($words:tt)*) => { crate::say::aside(format_args!("{}\n", format_args!($($words)*))) };
}

/// The same.
macro_rules! eprint {
    ($($words:tt)*) => { crate::say::aside(format_args!($($words)*)) };
}

/// Says it on standard error, in one write: lines of several processes do not mix. On a terminal no word is broken.
pub(crate) fn aside(words: Arguments<'_>) {
    let text = text::message(&words.to_string());
    let _ = io::stderr().write_all(fitted(&text, os::columns(io::stderr())).as_bytes());
}

/// As it stands on standard output, for people.
pub fn laid_out(text: &str) -> String {
    fitted(&text::message(text), os::columns(io::stdout())).into_owned()
}

/// As it is on a terminal with that many columns; none is no terminal, which gets a line for each fact.
pub(crate) fn fitted(text: &str, columns: Option<usize>) -> Cow<'_, str> {
    columns.map_or(Cow::Borrowed(text), |columns| Cow::Owned(text::folded(text, columns)))
}

/// The command line of this process; `tip` knows what may have been meant by a word that is no command.
pub fn command_line<T: Parser>(tip: impl FnOnce(&str) -> Option<&'static str>) -> T {
    T::try_parse().unwrap_or_else(|error| refuse(error, tip))
}

/// What of the command line is refused is said so that it stays in its place, whatever it is.
fn refuse(mut error: clap::Error, tip: impl FnOnce(&str) -> Option<&'static str>) -> ! {
    let said: Vec<_> = error.context().map(|(kind, value)| (kind, one_line(value))).collect();
    for (kind, value) in said {
        error.insert(kind, value);
    }
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(tip) = tip(word)
    {
        // What is only spelt alike leads astray.
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    let text = error.render().to_string();
    let fits = |columns: usize| text.lines().all(|line| line.chars().count() <= columns);
    if !error.use_stderr() || os::columns(io::stderr()).is_none_or(fits) {
        error.exit();
    }
    eprint!("{text}");
    exit(error.exit_code())
}

fn one_line(value: &ContextValue) -> ContextValue {
    match value {
        ContextValue::String(text) => ContextValue::String(clean(text)),
        ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(|text| clean(text)).collect()),
        other => other.clone(),
    }
}
