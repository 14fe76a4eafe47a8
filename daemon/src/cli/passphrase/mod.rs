//! Where a passphrase comes from: a file, or the terminal, which does not show it.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow, bail, ensure};
use phantom_ipc::admin::Passphrase;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

#[cfg(unix)]
use unix::Terminal;
#[cfg(windows)]
use windows::Terminal;

use super::Interrupted;
use crate::advice::cannot_read;
use crate::identity::sealed::{SHORTEST, SealedError};
use crate::os::interrupted;

/// Longest passphrase, in bytes: a request is one line.
const LONGEST: usize = 512;

const NOTHING: &str = "nothing was done";

const END: u8 = 0x04;
const INTERRUPT: u8 = 0x03;
const ERASE: [u8; 2] = [0x08, 0x7f];
const KILL: u8 = 0x15;
const WORD: u8 = 0x17;
const TAB: u8 = 0x09;

/// What a passphrase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A new one: typed twice, and not too short.
    Seal,
    /// One that was taken before.
    Open,
}

impl Use {
    fn check(self, passphrase: &str) -> Result<(), SealedError> {
        if self == Self::Seal && passphrase.len() < SHORTEST { Err(SealedError::Short) } else { Ok(()) }
    }
}

/// The first line of the file or, without one, what is typed.
pub(super) async fn read(file: Option<&Path>, what_for: Use) -> anyhow::Result<Passphrase> {
    match file {
        Some(path) => first_line(path, what_for),
        None => ask(what_for).await,
    }
}

fn first_line(path: &Path, what_for: Use) -> anyhow::Result<Passphrase> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 2));
    let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 2;
    let read = File::open(path).and_then(|opened| opened.take(limit).read_to_string(&mut text));
    read.map_err(|error| cannot_read(path, &error))?;
    let line = text.lines().next().unwrap_or_default();
    ensure!(line.len() <= LONGEST, "the first line of {} is longer than {LONGEST} bytes", path.display());
    ensure!(!line.is_empty(), "the first line of {} is empty: it is to be the passphrase", path.display());
    what_for.check(line)?;
    Ok(Passphrase::new(line))
}

async fn ask(what_for: Use) -> anyhow::Result<Passphrase> {
    let terminal = Terminal::open().map_err(|error| {
        anyhow!("there is no terminal to ask for the passphrase: {error}\n  give it with --passphrase-file FILE")
    })?;
    let terminal = Arc::new(terminal);
    let question = if what_for == Use::Seal { "at least 8 characters\npassphrase: " } else { "passphrase: " };
    let first = unseen(&terminal, question).await?;
    // Not after it was typed a second time.
    what_for.check(&first)?;
    if what_for == Use::Seal && *unseen(&terminal, "the same again: ").await? != *first {
        bail!("the two differ; nothing was done");
    }
    Ok(Passphrase::new(&first))
}

/// What is typed after a question. Read by a thread of its own, which ends with the process: whatever signal ends that must not leave a
/// terminal that shows nothing.
async fn unseen(terminal: &Arc<Terminal>, question: &'static str) -> anyhow::Result<Zeroizing<String>> {
    let (interrupted, asks) = (interrupted(), Arc::clone(terminal));
    let (typed_tx, typed_rx) = oneshot::channel();
    thread::Builder::new().spawn(move || typed_tx.send(asks.unseen(question, |keys| typed(keys))))?;
    tokio::select! {
        typed = typed_rx => typed??,
        status = interrupted => {
            terminal.restore();
            Err(Interrupted { what: NOTHING, status }.into())
        }
    }
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
            INTERRUPT => return Err(Interrupted { what: NOTHING, status: 130 }.into()),
            KILL => line.clear(),
            erase if ERASE.contains(&erase) => {
                // A whole character.
                while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            WORD => {
                while line.pop_if(|last| *last == b' ').is_some() {}
                while line.pop_if(|last| *last != b' ').is_some() {}
            }
            // Ctrl-Z, an arrow: what nobody sees stands in the passphrase, and is not typed again another time.
            key if key.is_ascii_control() && key != TAB => {
                bail!("a key that writes nothing (Ctrl-Z, an arrow) cannot be in a passphrase; nothing was done")
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
            (b"correct hoarse \x17horse\n", "correct horse"),
            (b"a\x17b\tc\n", "b\tc"),
        ] {
            assert_eq!(*typed(keys).unwrap(), line);
        }
        for keys in [&b"abc\x03\n"[..], b"\n", b"", b"\xff\n", b"abc\x1a\n", b"abc\x1b[D\n", &[b'x'; LONGEST + 1]] {
            assert!(typed(keys).is_err(), "{keys:?}");
        }
    }

    #[test]
    fn of_a_file_the_first_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, "correct horse\r\nnotes\n").unwrap();
        assert_eq!(first_line(&path, Use::Seal).unwrap().as_str(), "correct horse");
        for wrong in ["\n", "", &"x".repeat(LONGEST + 1)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(first_line(&path, Use::Open).is_err(), "{wrong}");
        }
        // What another release took is opened.
        std::fs::write(&path, "x".repeat(SHORTEST - 1)).unwrap();
        assert!(first_line(&path, Use::Open).is_ok());
        assert!(first_line(&path, Use::Seal).unwrap_err().to_string().contains("at least"));
    }
}
