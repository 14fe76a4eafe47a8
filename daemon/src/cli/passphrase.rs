//! Where a passphrase comes from: a file, or the terminal, which does not show it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use phantom_ipc::admin::Passphrase;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longest passphrase, in bytes: a request is one line.
const LONGEST: usize = 512;

const END: u8 = 0x04;
const INTERRUPT: u8 = 0x03;
const ERASE: [u8; 2] = [0x08, 0x7f];
const KILL: u8 = 0x15;

/// The first line of the file or, without one, what is typed; `twice` for one that seals.
pub(super) fn read(file: Option<&Path>, twice: bool) -> anyhow::Result<Passphrase> {
    let Some(path) = file else { return ask(twice) };
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 2));
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 2;
    let opened = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    opened.take(limit).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(line.len() <= LONGEST, "the first line of {} is longer than {LONGEST} bytes", path.display());
    ensure!(!line.is_empty(), "the first line of {} is empty: it is to be the passphrase", path.display());
    Ok(Passphrase::new(line))
}

fn ask(twice: bool) -> anyhow::Result<Passphrase> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let tty = tty.map_err(|error| {
        anyhow!("there is no terminal to ask for the passphrase: {error}\n  give it with --passphrase-file FILE")
    })?;
    let first = prompt(&tty, "passphrase: ")?;
    if twice && *prompt(&tty, "the same again: ")? != *first {
        bail!("the two differ; nothing was done");
    }
    Ok(Passphrase::new(&first))
}

/// The terminal as it was, again, whatever happens.
struct Quiet<'a>(&'a File, Termios);

impl<'a> Quiet<'a> {
    fn new(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        // Signals as well: who interrupts here must not be left with a terminal that shows nothing.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        (quiet.special_codes[SpecialCodeIndex::VMIN], quiet.special_codes[SpecialCodeIndex::VTIME]) = (1, 0);
        tcsetattr(tty, OptionalActions::Flush, &quiet)?;
        Ok(Self(tty, before))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Flush, &self.1);
    }
}

fn prompt(mut tty: &File, question: &str) -> anyhow::Result<Zeroizing<String>> {
    let typed = {
        // Before the question: what is typed at once is not shown either.
        let _quiet = Quiet::new(tty)?;
        tty.write_all(question.as_bytes())?;
        typed(tty)
    };
    tty.write_all(b"\n")?;
    typed
}

/// What is typed until the line ends.
fn typed(mut from: impl Read) -> anyhow::Result<Zeroizing<String>> {
    let (mut line, mut byte) = (Zeroizing::new(Vec::with_capacity(LONGEST)), [0]);
    loop {
        if from.read(&mut byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' | END => break,
            INTERRUPT => bail!("interrupted; nothing was done"),
            KILL => line.clear(),
            erase if ERASE.contains(&erase) => {
                // A whole character.
                while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            _ if line.len() >= LONGEST => bail!("a passphrase has at most {LONGEST} bytes"),
            other => line.push(other),
        }
    }
    let text = std::str::from_utf8(&line).context("the passphrase is not UTF-8")?;
    ensure!(!text.is_empty(), "no passphrase was given; nothing was done");
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_as_on_any_terminal() {
        for (keys, line) in [
            (&b"correct horse\nrest"[..], "correct horse"),
            (b"corrext\x7f\x7f\x7frect\r", "corrrect"),
            ("naïv\x08\x08e\x04".as_bytes(), "nae"),
            (b"wrong\x15right", "right"),
            (b"\x7f\x7fa\n", "a"),
        ] {
            assert_eq!(*typed(keys).unwrap(), line);
        }
        for keys in [&b"abc\x03\n"[..], b"\n", b"", b"\xff\n", &[b'x'; LONGEST + 1]] {
            assert!(typed(keys).is_err(), "{keys:?}");
        }
    }

    #[test]
    fn of_a_file_the_first_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "correct horse\r\nnotes\n").unwrap();
        assert_eq!(read(Some(&path), true).unwrap().as_str(), "correct horse");
        for wrong in ["\n", "", &"x".repeat(LONGEST + 1)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(read(Some(&path), true).is_err(), "{wrong}");
        }
    }
}
