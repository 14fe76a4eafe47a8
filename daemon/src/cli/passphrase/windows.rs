//! Windows: the console's keys, one by one.

use std::io::{self, ErrorKind, IsTerminal, Read};

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, read as next_event};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// See the module.
pub(super) struct Terminal;

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        if io::stdin().is_terminal() { Ok(Self) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// As it was, while a question may still wait for its answer.
    pub(super) fn restore(&self) {
        drop(Raw);
        eprintln!("");
    }

    /// What `read` makes of what is typed after a question, none of which is shown.
    pub(super) fn unseen<T>(&self, question: &str, read: impl FnOnce(&mut dyn Read) -> T) -> io::Result<T> {
        enable_raw_mode()?;
        let raw = Raw;
        eprint!("{question}");
        let typed = read(&mut Keys(Vec::new()));
        drop(raw);
        eprintln!("");
        Ok(typed)
    }
}

/// The console as it was, again, whatever happens.
struct Raw;

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = disable_raw_mode();
    }
}

/// Keys as the bytes that a terminal of Unix sends for them, the next one last.
struct Keys(Vec<u8>);

impl Read for Keys {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(to) = room.first_mut() else { return Ok(0) };
        loop {
            if let Some(byte) = self.0.pop() {
                *to = byte;
                return Ok(1);
            }
            if let Event::Key(key) = next_event()?
                && key.is_press()
            {
                self.0 = bytes(key);
            }
        }
    }
}

fn bytes(key: KeyEvent) -> Vec<u8> {
    match key.code {
        KeyCode::Enter => vec![b'\n'],
        KeyCode::Backspace => vec![0x7f],
        KeyCode::Char(letter @ 'a'..='z') if key.modifiers == KeyModifiers::CONTROL => vec![letter as u8 & 0x1f],
        KeyCode::Char(letter) => letter.to_string().bytes().rev().collect(),
        _ => Vec::new(),
    }
}
