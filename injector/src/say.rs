//! What the launcher says, on standard error; nothing where that is somebody's connection.
//!
//! Super-servers give a program the visitor's connection as its standard error too. A line there breaks the protocol, and
//! tells the visitor what the server runs under.

use std::env;
use std::fmt::Arguments;
use std::io::{self, Write};

use rustix::fs::{FileType, fstat};

/// In the place of the standard library's, everywhere in the launcher: no line is to be forgotten.
macro_rules! eprintln {
    ($($words:tt)*) => { crate::say::line(format_args!($($words)*)) };
}

/// Says one line. Where nobody reads standard error, nobody is told.
pub(crate) fn line(words: Arguments<'_>) {
    if !is_connection() {
        // One write: lines of several processes do not mix.
        let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
    }
}

/// Whether standard error is a socket other than systemd's log.
fn is_connection() -> bool {
    let Ok(about) = fstat(rustix::stdio::stderr()) else { return true };
    let is_journal =
        || env::var("JOURNAL_STREAM").is_ok_and(|named| named == format!("{}:{}", about.st_dev, about.st_ino));
    FileType::from_raw_mode(about.st_mode) == FileType::Socket && !is_journal()
}
