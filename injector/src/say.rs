//! What the launcher says, on standard error; nothing where that is somebody's connection.
//!
//! Super-servers give a program the visitor's connection as its standard error too. A line there breaks the protocol, and
//! tells the visitor what the server runs under.

use std::env;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::path::Path;

use clap::error::ContextValue;
use phantom_ipc::text;
use rustix::fs::{FileType, fstat};
use rustix::termios::tcgetwinsize;

/// In the place of the standard library's, everywhere in the launcher: no line is to be forgotten.
macro_rules! eprintln {
    ($($words:tt)*) => { crate::say::line(format_args!($($words)*)) };
}

/// A path as it may stand in a line: others of this computer give names, and must not steer a terminal by them, nor end a line.
pub(crate) fn path(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() })
        .collect()
}

/// Says one line, which on a terminal goes on in others without a broken word. Where nobody reads standard error, nobody is told.
pub(crate) fn line(words: Arguments<'_>) {
    if !is_connection() {
        let text = text::message(&format!("{words}\n"));
        let text = columns().map_or_else(|| text.clone(), |columns| text::folded(&text, columns));
        // One write: lines of several processes do not mix.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// What is wrong with the command line; what of it is repeated stays in its place, whatever it is.
pub(crate) fn wrong(mut error: clap::Error) {
    let one_line = |value: &ContextValue| match value {
        ContextValue::String(said) => ContextValue::String(text::clean(said)),
        ContextValue::Strings(said) => ContextValue::Strings(said.iter().map(|said| text::clean(said)).collect()),
        other => other.clone(),
    };
    let said: Vec<_> = error.context().map(|(kind, value)| (kind, one_line(value))).collect();
    for (kind, value) in said {
        error.insert(kind, value);
    }
    let text = error.render().to_string();
    let fits = |columns: usize| text.lines().all(|line| line.chars().count() <= columns);
    if error.use_stderr() && !columns().is_none_or(fits) {
        eprintln!("{}", text.trim_end());
    } else {
        let _ = error.print();
    }
}

/// How many columns there are; none where standard error is no terminal.
fn columns() -> Option<usize> {
    let size = tcgetwinsize(rustix::stdio::stderr()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether standard error is a socket other than systemd's log.
fn is_connection() -> bool {
    let Ok(about) = fstat(rustix::stdio::stderr()) else { return true };
    let is_journal =
        || env::var("JOURNAL_STREAM").is_ok_and(|named| named == format!("{}:{}", about.st_dev, about.st_ino));
    FileType::from_raw_mode(about.st_mode) == FileType::Socket && !is_journal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_give_do_not_steer_a_terminal() {
        let odd = path(Path::new("/tmp/tmux-1/\x1b]0;title\x07\nphantom-run: all is well\u{9b}"));
        assert!(!odd.chars().any(char::is_control) && odd.contains("phantom-run: all is well"), "{odd}");
        assert_eq!(path(Path::new("/tmp/a b/\u{fc}")), "/tmp/a b/\u{fc}");
    }
}
