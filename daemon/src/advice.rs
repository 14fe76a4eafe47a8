//! What helps when the system refuses a file: its own words ("No such file or directory") say what is, not what to do.

use std::io::{self, ErrorKind};
use std::path::Path;

/// What a message of "cannot read FILE: ERROR" ends with: a line of its own, or nothing.
pub(crate) fn to_read(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "\n  is its name right? `ls` shows what is there",
        ErrorKind::NotADirectory => "\n  what stands before the last / in its name is no folder",
        ErrorKind::IsADirectory => "\n  that is a folder: name the file in it",
        ErrorKind::PermissionDenied => "\n  this user may not read it: look at owner and rights (`ls -l`)",
        ErrorKind::InvalidFilename => "\n  no file can have that name, it is too long",
        ErrorKind::InvalidData => "\n  it is to be text in UTF-8",
        _ => "",
    }
}

/// The same of "cannot write FILE: ERROR".
pub(crate) fn to_write(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "\n  its folder is not there: make that first (`mkdir -p`), or name another file",
        ErrorKind::NotADirectory => "\n  what stands before the last / in its name is no folder",
        ErrorKind::IsADirectory => "\n  that is a folder: name a file in it",
        ErrorKind::AlreadyExists => "\n  name a file that is not there",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "\n  this user cannot write there: name a file in another folder"
        }
        _ if is_full(error) => "\n  free some space there",
        ErrorKind::InvalidFilename => "\n  no file can have that name, it is too long",
        ErrorKind::InvalidInput => "\n  that is no name of a file",
        _ => "",
    }
}

/// Whether there is no room where something was to be written.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Why a file cannot be read, and what helps.
pub(crate) fn cannot_read(file: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot read {}: {error}{}", file.display(), to_read(error))
}

/// Why a file cannot be written, and what helps.
pub(crate) fn cannot_write(file: &Path, error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot write {}: {error}{}", file.display(), to_write(error))
}
