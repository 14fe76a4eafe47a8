//! What tells this computer from others, and what the program finds in its place: a neutral name, a number of its own.
//!
//! Mail servers and many others send the computer's name along; whoever reads it knows where the identity lives.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use rustix::system::{sethostname, uname};
use rustix::thread::UnshareFlags;

use crate::{control, sys};

/// The one name that every computer has, and that resolves everywhere.
pub(crate) const NAME: &str = "localhost";

/// Variables in which shells, containers, screen, X and schedulers keep the name, also among other words.
const VARIABLES: [&str; 13] = [
    "HOSTNAME",
    "HOST",
    "COMPUTERNAME",
    "NAME",
    "STY",
    "XAUTHLOCALHOSTNAME",
    "DISPLAY",
    "NODE_NAME",
    "POD_NAME",
    "SLURMD_NODENAME",
    "SLURM_SUBMIT_HOST",
    "PBS_O_HOST",
    "SGE_O_HOST",
];

/// Where X's session manager listens: at a socket that is masked, below the computer's name. Without it programs do without.
pub(crate) const SESSION: &str = "SESSION_MANAGER";

/// Variables by which sshd tells addresses of this computer and of whoever is logged in, and what says as much without them: that
/// it is a session from elsewhere.
const LOGINS: [(&str, &str); 2] = [("SSH_CONNECTION", "127.0.0.1 22 127.0.0.1 22"), ("SSH_CLIENT", "127.0.0.1 22 22")];

/// Families of addresses in X's file of keys: this computer under a name, and any computer.
const LOCAL: u16 = 256;
const ANY: u16 = 0xffff;

/// How much of that file is taken.
const MOST_KEYS: u64 = 1 << 20;

/// A file that is laid over another.
pub(crate) struct Cover {
    pub(crate) over: PathBuf,
    pub(crate) text: Vec<u8>,
    /// Whether it is secret, as what it lies over is.
    pub(crate) is_secret: bool,
}

impl Cover {
    /// One that everybody may read.
    pub(crate) fn public(over: &str, text: impl Into<Vec<u8>>) -> Self {
        Self { over: over.into(), text: text.into(), is_secret: false }
    }

    pub(crate) fn mode(&self) -> u32 {
        if self.is_secret { 0o600 } else { 0o644 }
    }
}

/// Gives this process, which may do so, a name space of its own with a neutral name in it.
pub(crate) fn hide(say: &dyn Fn(&str)) -> Result<()> {
    sys::unshare(UnshareFlags::NEWUTS).context("creating a space for the computer's name")?;
    sethostname(NAME.as_bytes()).context("giving the program a neutral name of the computer")?;
    // Mostly it has none; no wrapper knows the call.
    let _ = fs::write("/proc/sys/kernel/domainname", "(none)");
    say("hid the computer's name and number");
    Ok(())
}

/// The name as long as it was not hidden.
pub(crate) fn name() -> OsString {
    OsString::from(uname().nodename().to_string_lossy().into_owned())
}

/// Variables that would tell `name` all the same, and what they are to say.
pub(crate) fn variables(name: &OsStr) -> impl Iterator<Item = (&'static str, OsString)> {
    VARIABLES.into_iter().filter_map(|variable| {
        let value = env::var_os(variable)?;
        let neutral = without_name(value.as_bytes(), name.as_bytes())?;
        Some((variable, OsString::from_vec(neutral)))
    })
}

/// The value with another name in the place of this one, whether with a domain or without; none if it is not in there.
fn without_name(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let short = name.split(|byte| *byte == b'.').next().filter(|short| short.iter().any(u8::is_ascii_alphabetic))?;
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let (mut rest, mut to, mut is_inside) = (value, Vec::new(), false);
    while let Some((first, after)) = rest.split_first() {
        let found = rest.get(..short.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(short));
        let follows = rest.get(short.len());
        if found && !is_inside && !follows.is_some_and(is_of_word) {
            let end = rest.iter().position(|byte| !is_of_word(byte) && *byte != b'.').unwrap_or(rest.len());
            to.extend(NAME.as_bytes());
            rest = &rest[end..];
        } else {
            to.push(*first);
            is_inside = is_of_word(first);
            rest = after;
        }
    }
    (to != value).then_some(to)
}

/// Variables that tell where this computer is, and what they are to say.
pub(crate) fn addresses() -> impl Iterator<Item = (&'static str, &'static str)> {
    LOGINS.into_iter().filter(|(variable, _)| env::var_os(variable).is_some())
}

/// What lies over the files that would tell, with a number as [`number`] makes it; as those are now.
pub(crate) fn covers(number: &str) -> Vec<Cover> {
    let mut covers =
        vec![Cover::public("/etc/hostname", format!("{NAME}\n")), Cover::public("/etc/machine-id", number)];
    // Often a link to the other one, which then lies there already.
    if fs::canonicalize(DBUS).is_ok_and(|real| real == Path::new(DBUS)) {
        covers.push(Cover::public(DBUS, number));
    }
    covers.retain(|cover| cover.over.exists());
    // X finds the key of a display by the computer's name.
    if env::var_os("DISPLAY").is_some()
        && let Some(keys) = x_authority()
        && let Ok(text) = read_keys(&keys)
    {
        covers.push(Cover { over: keys, text: of_any_computer(&text), is_secret: true });
    }
    covers
}

const DBUS: &str = "/var/lib/dbus/machine-id";

/// As machine-id(5) wants it; another one in each run.
pub(crate) fn number() -> Result<String> {
    Ok(format!("{:032x}\n", u128::from_be_bytes(control::token()?)))
}

fn x_authority() -> Option<PathBuf> {
    let named = env::var_os("XAUTHORITY").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".Xauthority")))
}

/// Displays are few; what is no file of theirs (a pipe, a device) might never end.
fn read_keys(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file.is_file() {
        File::open(file)?.take(MOST_KEYS).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// The keys for this computer become keys for any; the others stay.
fn of_any_computer(file: &[u8]) -> Vec<u8> {
    let (mut rest, mut to) = (file, Vec::with_capacity(file.len()));
    while let Some((family, entry, after)) = entry(rest) {
        let own = family == LOCAL;
        to.extend(if own { ANY } else { family }.to_be_bytes());
        // Of any computer has no address.
        let skip = if own { 2 + usize::from(u16::from_be_bytes([entry[0], entry[1]])) } else { 0 };
        to.extend(if own { &[0; 2][..] } else { &[] });
        to.extend(&entry[skip..]);
        rest = after;
    }
    to
}

/// Family, the rest of the entry (address, display, kind, key, each with its length before it), and what follows.
fn entry(from: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (family, all) = from.split_first_chunk()?;
    let mut rest = all;
    for _ in 0..4 {
        let (length, after) = rest.split_first_chunk()?;
        rest = after.get(usize::from(u16::from_be_bytes(*length))..)?;
    }
    Some((u16::from_be_bytes(*family), &all[..all.len() - rest.len()], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(family: u16, address: &str) -> Vec<u8> {
        let words = [address, "0", "MIT-MAGIC-COOKIE-1", "secret"];
        let with_length = |word: &str| [&(word.len() as u16).to_be_bytes()[..], word.as_bytes()].concat();
        [family.to_be_bytes().to_vec(), words.map(with_length).concat()].concat()
    }

    #[test]
    fn the_name_is_found_among_other_words_and_never_in_them() {
        let name = |value: &str, name: &str| {
            without_name(value.as_bytes(), name.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        for own in ["laptop", "laptop.corp.net"] {
            for whole in ["laptop", "Laptop", "laptop.corp.net", "laptop.lan"] {
                assert_eq!(name(whole, own).as_deref(), Some(NAME), "{whole}, {own}");
            }
            assert_eq!(name("123.pts-0.laptop", own).as_deref(), Some("123.pts-0.localhost"));
            assert_eq!(name("laptop/unix:0", own).as_deref(), Some("localhost/unix:0"));
            for other in ["laptops", "my-laptop", "laptop-2", "", ":0", "top"] {
                assert_eq!(name(other, own), None, "{other}");
            }
        }
        assert_eq!(name(":0", "0"), None, "a number says nothing, and is one of many");
        assert_eq!(name("localhost", "localhost"), None);
        assert_eq!(name("laptop", ""), None);
    }

    #[test]
    fn what_never_ends_holds_no_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let (keys, link) = (folder.path().join("keys"), folder.path().join("link"));
        fs::write(&keys, "keys").and_then(|()| std::os::unix::fs::symlink("/dev/zero", &link)).expect("files");
        assert_eq!(read_keys(&keys).expect("it is there"), b"keys");
        assert!(read_keys(&link).expect("it is there").is_empty());
        assert!(read_keys(folder.path()).expect("it is there").is_empty());
    }

    #[test]
    fn keys_of_displays_are_found_without_the_computers_name() {
        let file = [key(LOCAL, "laptop"), key(0, "\u{1}\u{2}\u{3}\u{4}"), key(LOCAL, "")].concat();
        let expected = [key(ANY, ""), key(0, "\u{1}\u{2}\u{3}\u{4}"), key(ANY, "")].concat();
        assert_eq!(of_any_computer(&file), expected);
        // What is cut off is left out.
        assert_eq!(of_any_computer(&file[..file.len() - 1]), expected[..expected.len() - key(ANY, "").len()]);
    }
}
