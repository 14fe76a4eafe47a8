//! What a command asks a person, and the new files that it writes for one.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::path::Path;

use crate::datadir::write_new_private;

/// Whether there is somebody to ask.
pub(super) fn is_somebody_there() -> bool {
    io::stdin().is_terminal()
}

/// The answer, without spaces around it.
pub(super) fn answer(question: &str) -> io::Result<String> {
    eprint!("{question} ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Nothing may be there.
pub(super) fn ensure_new(file: &Path) -> anyhow::Result<()> {
    if file.exists() { Err(there_already(file)) } else { Ok(()) }
}

fn there_already(file: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is there already\n  name a file that is not", file.display())
}

/// Writes a file that only its owner may read, and in no case over another.
pub(super) fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    write_new_private(file, text.as_bytes()).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => there_already(file),
        _ => anyhow::Error::new(error).context(format!("cannot write {}", file.display())),
    })
}
