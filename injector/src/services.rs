//! Who listens on this computer at sockets of its file system, whether anybody has heard of it or not: a keeper of terminals, an
//! editor, a connection of ssh that others may share, a container engine. Each may act for whoever asks it.
//!
//! The kernel names all sockets of a network, so this process asks before it enters the program's. What programs
//! cannot do without is left: where they show, play, log and have things signed.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf, absolute};

use crate::deputies::{entries, is_socket, paths, runtimes};
use crate::unix_diag;

/// Where sockets lie that stay, and how their names begin: displays, sound, logs, names of users that exist for a service.
const NEEDED: [(&str, &str); 9] = [
    ("/tmp/.X11-unix", "X"),
    ("/run/pulse", "native"),
    ("/var/run/pulse", "native"),
    ("/dev", "log"),
    ("/run/systemd/journal", ""),
    ("/run/systemd", "notify"),
    ("/run/systemd/userdb", "io.systemd.DynamicUser"),
    ("/run/systemd/userdb", "io.systemd.DropIn"),
    ("/run/systemd/userdb", "io.systemd.Home"),
];

/// The same below users' runtime directories: also keepers of keys, as far as they only sign. GnuPG's agent and GNOME's keyring take
/// variables at their main sockets, with which they start others outside: a window for passphrases, on whatever display and bus.
const NEEDED_OF_USERS: [(&str, &str); 9] = [
    ("", "wayland-"),
    ("", "pipewire-"),
    ("pulse", "native"),
    ("gnupg", RESTRICTED),
    ("gnupg", "S.keyboxd"),
    ("keyring", "ssh"),
    ("keyring", ".ssh"),
    ("keyring", "pkcs11"),
    ("systemd", "notify"),
];

/// How the names of those of the agent's sockets begin at which it takes no variables: for ssh, browsers and other computers.
const RESTRICTED: &str = "S.gpg-agent.";

/// The same, wherever these variables say.
const NEEDED_BY_VARIABLES: [&str; 4] = ["WAYLAND_DISPLAY", "PULSE_SERVER", "PIPEWIRE_REMOTE", "NOTIFY_SOCKET"];

/// An agent of ssh. That of a login from elsewhere (the second variable) is there: what it is told goes over the network.
const AGENT: (&str, &str) = ("SSH_AUTH_SOCK", "SSH_CONNECTION");

/// The sockets, but for those that programs need, as they are called in this process' view of files.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn listening() -> io::Result<Vec<PathBuf>> {
    // Where the kernel has no better list: in this one others can have whatever they like stand there.
    let names =
        unix_diag::names().map(in_files).or_else(|_| fs::read("/proc/self/net/unix").map(|text| bound(&text)))?;
    let folders = if names.iter().all(|name| name.is_absolute()) { Vec::new() } else { working_folders() };
    let places = names.iter().flat_map(|name| places(name, &folders));
    let (mut found, gone): (Vec<PathBuf>, Vec<PathBuf>) = places.partition(|place| is_socket(place));
    found.extend(beside(&gone));
    let needed = Needed::here();
    found.retain(|path| !needed.has(path) && !fs::canonicalize(path).is_ok_and(|real| needed.has(&real)));
    found.sort();
    found.dedup();
    Ok(found)
}

/// Those in the file system, each once, as the kernel ends them. A connection has the name of whoever accepted it; whoever is bound and
/// does not listen may do so next, or takes datagrams.
fn in_files(names: BTreeSet<Vec<u8>>) -> BTreeSet<PathBuf> {
    let paths = names.iter().map(|name| name.split(|byte| *byte == 0).next().unwrap_or_default());
    paths.filter(|path| !path.is_empty()).map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

/// The same from lines.
fn bound(text: &[u8]) -> BTreeSet<PathBuf> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for line in text.split(|byte| *byte == b'\n').skip(1) {
        match name(line) {
            Some(name) => names.push(name.to_vec()),
            // A line feed in a name, which the kernel writes as it is.
            None => names.last_mut().into_iter().for_each(|last| last.extend([b"\n", line].concat())),
        }
    }
    // The last line ends as all do.
    names.last_mut().into_iter().for_each(|last| last.truncate(last.strip_suffix(b"\n").unwrap_or(last).len()));
    let in_files = names.into_iter().filter(|name| !name.is_empty() && !name.starts_with(b"@"));
    in_files.map(|name| PathBuf::from(OsString::from_vec(name))).collect()
}

/// What follows number, references, protocol, flags, type, state and inode; none if it is no such line.
fn name(line: &[u8]) -> Option<&[u8]> {
    let (number, mut rest) = line.split_at(line.iter().position(|byte| *byte == b':')?);
    if number.is_empty() || !number.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    rest = &rest[1..];
    for _ in 0..6 {
        rest = rest.trim_ascii_start();
        let word = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        rest = rest.get(word..).filter(|_| word > 0)?;
    }
    Some(rest.strip_prefix(b" ").unwrap_or(rest))
}

/// Where a name may lead: one that is not absolute was meant from where its process was, and mostly still is.
fn places(name: &Path, folders: &[PathBuf]) -> Vec<PathBuf> {
    if name.is_absolute() {
        return vec![name.to_owned()];
    }
    folders.iter().map(|folder| folder.join(name)).collect()
}

/// Where processes are, as far as this one may know.
fn working_folders() -> Vec<PathBuf> {
    let folders: BTreeSet<PathBuf> =
        entries(Path::new("/proc")).filter_map(|process| fs::read_link(process.join("cwd")).ok()).collect();
    folders.into_iter().collect()
}

/// What sockets that are not where they were bound may have become: ssh makes one with a longer name, and then gives it the one
/// that is wanted. Others in the same folder stay: they may be those of another run. Each folder is read once, however many such
/// names somebody makes in it.
fn beside(gone: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: BTreeMap<&Path, Vec<&[u8]>> = BTreeMap::new();
    for place in gone {
        let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { continue };
        folders.entry(folder).or_default().push(name.as_bytes());
    }
    let alike = |(folder, names): (&Path, Vec<&[u8]>)| {
        // By name first: whoever fills the folder has nobody look at each file.
        let is_alike = |other: &PathBuf| {
            let other = other.file_name().unwrap_or_default().as_bytes();
            names.iter().any(|name| holds(name, other) || holds(other, name))
        };
        entries(folder).filter(is_alike).filter(|path| is_socket(path)).collect::<Vec<_>>()
    };
    folders.into_iter().flat_map(alike).collect()
}

fn holds(name: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && name.windows(part.len()).any(|window| window == part)
}

/// What stays.
struct Needed {
    runtimes: Vec<PathBuf>,
    /// By variables.
    named: Vec<PathBuf>,
}

impl Needed {
    fn here() -> Self {
        let runtimes = runtimes();
        let agent = Some(AGENT.0).filter(|_| env::var_os(AGENT.1).is_none());
        let values = NEEDED_BY_VARIABLES.into_iter().chain(agent).filter_map(env::var_os);
        let named = values.flat_map(|value| match value.as_bytes().contains(&b'/') {
            true => named(&value),
            false => runtimes.iter().map(|folder| folder.join(&value)).collect(),
        });
        let named = named.collect();
        Self { runtimes, named }
    }

    fn has(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let begins = |begin: &str| name.as_bytes().starts_with(begin.as_bytes());
        let is_users =
            |runtime: &PathBuf| NEEDED_OF_USERS.iter().any(|(at, begin)| folder == runtime.join(at) && begins(begin));
        NEEDED.iter().any(|(at, begin)| folder == Path::new(at) && begins(begin))
            || self.runtimes.iter().any(is_users)
            || self.named.iter().any(|named| named == path)
            || is_at_home(folder) && (begins(RESTRICTED) || begins("S.keyboxd"))
            || folder.ends_with(".cache/ibus") && begins("dbus-")
    }
}

/// Where a value leads: whole, also from the working folder, or from the first path in it on; and what lies there by another name.
fn named(value: &OsStr) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = absolute(value).into_iter().chain(paths(value)).collect();
    let real: Vec<PathBuf> = all.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    [all, real].concat()
}

/// Whether people keep their keys of GnuPG there, or its sockets that belong to a folder elsewhere.
fn is_at_home(folder: &Path) -> bool {
    let named = env::var_os("GNUPGHOME").is_some_and(|named| folder == Path::new(&named));
    let of_other = folder.parent().is_some_and(|parent| parent.ends_with("gnupg"));
    named || of_other || folder.ends_with(".gnupg")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn names_are_read_as_they_are() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19 /run/a b.sock\n\
            ffff9c8a42f0a000: 00000002 00000000 00010000 0005 01 123456 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 77\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   500 /tmp/two\nlines: 0\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 21 private/\xe9\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/a b.sock\n";
        let found: Vec<OsString> = bound(text).into_iter().map(OsString::from).collect();
        let expected = [&b"/run/a b.sock"[..], b"/tmp/two\nlines: 0", b"private/\xe9"];
        assert_eq!(found, expected.map(|name| OsString::from_vec(name.to_vec())));
        assert!(bound(b"").is_empty());
        let names: [&[u8]; 5] = [b"/run/a b.sock\0", b"\0abstract", b"/tmp/two\nlines: 0\0", b"private/\xe9\0", b""];
        assert_eq!(in_files(names.map(<[u8]>::to_vec).into()), bound(text));
    }

    #[test]
    fn whoever_listens_is_found_by_whatever_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        // Which would be two in a list of lines.
        let odd = "a\n0000000000000000: 00000002 00000000 00010000 0001 01 19 b";
        let _listening =
            ["plain", "master.x1", "other", odd].map(|name| UnixListener::bind(at(name)).expect("a socket"));
        // As ssh does.
        fs::hard_link(at("master.x1"), at("master")).and_then(|()| fs::remove_file(at("master.x1"))).expect("a link");
        symlink(at("plain"), at("link")).expect("a link");
        let found = listening().expect("the kernel tells");
        assert!(found.contains(&at("plain")) && found.contains(&at("other")), "{found:?}");
        assert!(found.contains(&at("master")) && found.contains(&at(odd)), "{found:?}");
        // Not by what another run has there, in a network of its own.
        assert_eq!(beside(&[at("master.x1"), at("none")]), [at("master")]);
        assert!(beside(&[at("nobody/none")]).is_empty());
        assert_eq!(places(Path::new("b/c"), &["/a".into(), "/d".into()]), [Path::new("/a/b/c"), Path::new("/d/b/c")]);
        assert!(working_folders().contains(&env::current_dir().expect("a folder")));
    }

    #[test]
    fn variables_lead_to_sockets_by_any_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("a folder");
        fs::write(real.join("notify"), "").and_then(|()| symlink(&real, real.join("link"))).expect("files");
        let here = env::current_dir().expect("a folder");
        assert!(named(OsStr::new("./notify")).contains(&here.join("notify")));
        assert!(named(OsStr::new("unix:/run/pulse")).contains(&PathBuf::from("/run/pulse")));
        assert!(named(real.join("link/notify").as_os_str()).contains(&real.join("notify")));
    }

    #[test]
    fn what_programs_need_stays() {
        let needed = Needed { runtimes: vec!["/run/user/7".into()], named: vec!["/tmp/agent.1".into()] };
        let stays = [
            "/tmp/.X11-unix/X0",
            "/run/user/7/wayland-1",
            "/run/user/7/pulse/native",
            "/run/user/7/gnupg/d.abc/S.gpg-agent.extra",
            "/run/user/7/keyring/pkcs11",
            "/home/a/.gnupg/S.gpg-agent.ssh",
            "/run/systemd/journal/stdout",
            "/tmp/agent.1",
        ];
        assert!(stays.iter().all(|path| needed.has(Path::new(path))));
        let goes = [
            "/run/user/7/bus",
            "/run/user/7/sway-ipc.1.sock",
            "/run/user/7/gnupg/S.gpg-agent",
            "/run/user/7/gnupg/d.abc/S.gpg-agent",
            "/run/user/7/keyring/control",
            "/home/a/.gnupg/S.gpg-agent",
            "/home/a/.gnupg/S.dirmngr",
            "/tmp/X0",
            "/tmp/agent.2",
        ];
        assert!(!goes.iter().any(|path| needed.has(Path::new(path))));
    }
}
