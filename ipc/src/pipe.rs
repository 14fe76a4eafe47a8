//! How a daemon on Windows is found: a file that its user alone may read says which pipe is the daemon's, and what the daemon says first
//! on it. Pipes of all users have their names in one place; a name alone would tell nobody whose pipe it is.

/// What Windows says while all of the daemon's ends of its pipe are taken: it offers another at once.
#[cfg(windows)]
const PIPE_BUSY: i32 = 231;

/// How often that is tried again, and how soon: a daemon that takes nobody for five seconds is none.
#[cfg(windows)]
const TRIES: u32 = 500;
#[cfg(windows)]
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A daemon's pipe.
#[derive(Clone, PartialEq, Eq)]
pub struct Pipe {
    path: String,
    greeting: [u8; Self::GREETING],
}

impl Pipe {
    /// Bytes of chance in a pipe's name.
    pub const NAME: usize = 16;

    /// Bytes that the daemon says first.
    pub const GREETING: usize = 32;

    /// Where the system has its pipes, and how ours begin.
    const PREFIX: &str = r"\\.\pipe\phantom-";

    /// One of that name and greeting.
    pub fn new(name: [u8; Self::NAME], greeting: [u8; Self::GREETING]) -> Self {
        Self { path: format!("{}{}", Self::PREFIX, hex(&name)), greeting }
    }

    /// Where it is opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the daemon says first.
    pub fn greeting(&self) -> &[u8; Self::GREETING] {
        &self.greeting
    }

    /// Opens the pipe to which a file leads, if whoever offers it greets as the daemon does that wrote the file.
    ///
    /// # Errors
    /// The system's; [`std::io::ErrorKind::InvalidData`] for what is no such file, or somebody else's pipe.
    #[cfg(windows)]
    pub fn open(file: &std::path::Path) -> std::io::Result<std::fs::File> {
        use std::io::{ErrorKind, Read};
        let pipe = Self::parse(&std::fs::read_to_string(file)?).ok_or(ErrorKind::InvalidData)?;
        let mut tries = 0;
        let mut opened = loop {
            match std::fs::OpenOptions::new().read(true).write(true).open(pipe.path()) {
                Err(error) if error.raw_os_error() == Some(PIPE_BUSY) && tries < TRIES => std::thread::sleep(PAUSE),
                opened => break opened?,
            }
            tries += 1;
        };
        let mut greeting = [0; Self::GREETING];
        opened.read_exact(&mut greeting)?;
        if greeting == pipe.greeting { Ok(opened) } else { Err(ErrorKind::InvalidData.into()) }
    }

    /// What the file holds.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n", self.path, hex(&self.greeting))
    }

    /// Reads what the file holds; `None` for anything that [`Pipe::to_text`] does not write.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, rest) = text.split_once('\n')?;
        let name = bytes(path.strip_prefix(Self::PREFIX)?)?;
        Some(Self::new(name, bytes(rest.strip_suffix('\n')?)?))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly as many bytes, in small letters.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (mut bytes, digits) = ([0; N], text.as_bytes());
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let pipe = Pipe::new([0xab; Pipe::NAME], [7; Pipe::GREETING]);
        let text = pipe.to_text();
        assert_eq!(text.lines().next(), Some(r"\\.\pipe\phantom-abababababababababababababababab"));
        let read = Pipe::parse(&text).unwrap();
        assert!(read == pipe && read.greeting() == &[7; Pipe::GREETING]);
        let elsewhere = text.replace(r"\\.\", r"\\somebody\");
        let other = text.replace("phantom-", "spool-");
        let climbs = text.replace("phantom-ab", r"phantom-..");
        for wrong in
            ["", "\n", text.trim_end(), &text.to_uppercase(), &elsewhere, &other, &climbs, &format!("{text}\n")]
        {
            assert!(Pipe::parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
