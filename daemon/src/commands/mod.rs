//! Override commands as people handle them: sets of maintainers' keys, files on their way from maintainer to maintainer, and words for
//! what a command does. What a command is, `phantom_proto::command` says.

mod file;
mod key_set;
mod words;

pub use file::{FileError, MAX_FILE, read, write};
pub use key_set::{KeySetFileError, compiled_in, read_key, read_key_set, write_key, write_key_set};
pub use words::{action, date, subject, target};
