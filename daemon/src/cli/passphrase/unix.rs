//! Unix: the process's terminal, whatever its standard descriptors are.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// See the module.
pub(super) struct Terminal {
    tty: File,
    /// As it was found.
    before: Termios,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&tty)?;
        Ok(Self { tty, before })
    }

    /// As it was, while a question may still wait for its answer.
    pub(super) fn restore(&self) {
        let _ = tcsetattr(&self.tty, OptionalActions::Flush, &self.before);
        let _ = (&self.tty).write_all(b"\n");
    }

    /// What `read` makes of what is typed after a question, none of which is shown.
    pub(super) fn unseen<T>(&self, question: &str, read: impl FnOnce(&mut dyn Read) -> T) -> io::Result<T> {
        let mut tty = &self.tty;
        let typed = {
            // Before the question: what is typed at once is not shown either.
            let _quiet = Quiet::new(tty)?;
            tty.write_all(question.as_bytes())?;
            read(&mut tty)
        };
        tty.write_all(b"\n")?;
        Ok(typed)
    }
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
