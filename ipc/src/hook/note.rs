//! What the daemon says of a run while it goes on, for the person who started it.

use super::bytes::{Reader, Writer};
use super::{MAX_MESSAGE, Malformed};

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A published identity was reached from outside.
    Reached,
    /// One was not, and is not looked at any more.
    Unreached,
    /// Something that the person should know: what is not published, what takes long.
    Hint,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// For people, one line; at most [`MAX_MESSAGE`] bytes.
    pub text: String,
}

impl About {
    fn tag(self) -> u8 {
        match self {
            Self::Reached => 0,
            Self::Unreached => 1,
            Self::Hint => 2,
        }
    }
}

impl Note {
    /// A note; `text` is cut to [`MAX_MESSAGE`] bytes.
    pub fn new(about: About, text: &str) -> Self {
        Self { about, text: super::cut(text).to_owned() }
    }

    pub(super) fn put(&self, to: &mut Writer) -> Result<(), Malformed> {
        to.u8(self.about.tag());
        to.text(&self.text, MAX_MESSAGE)
    }

    pub(super) fn take(from: &mut Reader) -> Result<Self, Malformed> {
        let about = match from.u8()? {
            0 => About::Reached,
            1 => About::Unreached,
            2 => About::Hint,
            tag => return Err(Malformed::Tag(tag)),
        };
        Ok(Self { about, text: from.text(MAX_MESSAGE)? })
    }
}
