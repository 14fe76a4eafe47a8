//! The agreement that the specification asks every implementation to carry (M9): shown once, its acceptance recorded.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::datadir::write_private;
use crate::say::laid_out;

/// The agreement as it is shown.
pub const TEXT: &str = include_str!("../../EULA.txt");

/// File of the data directory that records acceptance.
const RECORD: &str = "eula.accepted";

/// Longest answer that is read from the terminal, in bytes; more is no "yes".
const MAX_ANSWER: u64 = 256;

/// Why the daemon does not go on.
#[derive(Debug, thiserror::Error)]
pub enum EulaError {
    /// Asked, and the answer was not yes.
    #[error("the agreement was not accepted; phantomd does not run without it")]
    Declined,
    /// Nobody there to ask.
    #[error(
        "the agreement has not been accepted yet, and there is no terminal to ask on\n  \
         read it in EULA.txt, then accept it once: `phantom setup` (for the computer's service `sudo phantom setup`, for a daemon of your own beside it `phantom setup --own`), or without a terminal \
         `phantom setup --accept-eula`; for a --data-dir of its own `phantomd --accept-eula`"
    )]
    NobodyToAsk,
    /// The terminal or the data directory failed.
    #[error("cannot record that the agreement was accepted: {0}")]
    Io(#[from] io::Error),
}

/// How the user is asked.
pub enum Consent<'a> {
    /// `--accept-eula` was given.
    Given,
    /// On a terminal: what it reads from and what it shows on.
    Ask(&'a mut dyn BufRead, &'a mut dyn Write),
    /// No terminal.
    Nobody,
}

/// True when this version of the agreement has been accepted in `data_dir`.
pub fn accepted(data_dir: &Path) -> bool {
    std::fs::read_to_string(data_dir.join(RECORD)).is_ok_and(|text| text.lines().next() == Some(version().as_str()))
}

/// That somebody has agreed, and where that is to be recorded.
#[derive(Debug)]
#[must_use]
pub struct Agreed {
    /// None when it was before.
    anew: Option<PathBuf>,
}

/// Passes at once when the agreement was accepted before in that folder, which need not be there; else asks. Whoever refuses finds
/// nothing of it afterwards.
///
/// # Errors
/// See [`EulaError`].
pub fn ensure(data_dir: &Path, consent: Consent<'_>) -> Result<Agreed, EulaError> {
    if accepted(data_dir) {
        return Ok(Agreed { anew: None });
    }
    match consent {
        Consent::Given => {}
        Consent::Ask(input, output) => ask(input, output)?,
        Consent::Nobody => return Err(EulaError::NobodyToAsk),
    }
    Ok(Agreed { anew: Some(data_dir.join(RECORD)) })
}

impl Agreed {
    /// Records it, now that the folder is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn record(self) -> Result<(), EulaError> {
        let Some(file) = self.anew else { return Ok(()) };
        Ok(write_private(&file, format!("{}\n", version()).as_bytes())?)
    }
}

fn ask(input: &mut dyn BufRead, output: &mut dyn Write) -> Result<(), EulaError> {
    write!(output, "{}\nType yes to accept: ", laid_out(TEXT))?;
    output.flush()?;
    let mut answer = String::new();
    io::Read::take(input, MAX_ANSWER).read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        // Ctrl-D: what is said next has a line of its own.
        writeln!(output)?;
    }
    if answer.trim().eq_ignore_ascii_case("yes") { Ok(()) } else { Err(EulaError::Declined) }
}

/// A hash of the text: a changed agreement is shown again.
fn version() -> String {
    HEXLOWER.encode(blake3::hash(TEXT.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> (Result<(), EulaError>, String, bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut shown = Vec::new();
        let result = ensure(dir.path(), Consent::Ask(&mut text.as_bytes(), &mut shown)).and_then(Agreed::record);
        (result, String::from_utf8(shown).unwrap(), accepted(dir.path()))
    }

    #[test]
    fn a_typed_yes_is_recorded_and_not_asked_again() {
        let (result, shown, recorded) = answer("Yes\n");
        assert!(result.is_ok() && recorded);
        assert!(shown.starts_with(TEXT));

        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), Consent::Given).unwrap().record().unwrap();
        ensure(dir.path(), Consent::Nobody).expect("accepted before").record().unwrap();
    }

    #[test]
    fn anything_else_is_a_no() {
        for text in ["no\n", "\n", "", "yes please\n", &"y".repeat(10_000)] {
            let (result, _, recorded) = answer(text);
            assert!(matches!(result, Err(EulaError::Declined)), "{text:?}");
            assert!(!recorded);
        }
    }

    #[test]
    fn a_changed_agreement_is_shown_again() {
        let dir = tempfile::tempdir().unwrap();
        write_private(&dir.path().join(RECORD), b"0000\n").unwrap();
        assert!(matches!(ensure(dir.path(), Consent::Nobody), Err(EulaError::NobodyToAsk)));
    }
}
