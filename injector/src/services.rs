//! Who listens on this computer at sockets of its file system, whether anybody has heard of it or not: a keeper of terminals, an
//! editor, a connection of ssh that others may share, a container engine. Each may act for whoever asks it.
//!
//! The kernel names all sockets of a network in one file, so this process asks before it enters the program's. What programs
//! cannot do without is left: where they show, play, log and have things signed.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::deputies::{entries, is_socket, paths, runtimes};

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

/// The same below users' runtime directories: also keepers of keys, which sign and connect nowhere.
const NEEDED_OF_USERS: [(&str, &str); 7] = [
    ("", "wayland-"),
    ("", "pipewire-"),
    ("pulse", "native"),
    ("gnupg", "S.gpg-agent"),
    ("gnupg", "S.keyboxd"),
    ("keyring", ""),
    ("systemd", "notify"),
];

/// The same, wherever these variables say.
const NEEDED_BY_VARIABLES: [&str; 4] = ["WAYLAND_DISPLAY", "PULSE_SERVER", "PIPEWIRE_REMOTE", "NOTIFY_SOCKET"];

/// An agent of ssh. That of a login from elsewhere (the second variable) is there: what it is told goes over the network.
const AGENT: (&str, &str) = ("SSH_AUTH_SOCK", "SSH_CONNECTION");

/// The sockets, but for those that programs need, as they are called in this process' view of files.
///
/// # Errors
/// When the kernel does not tell.
pub(crate) fn listening() -> io::Result<Vec<PathBuf>> {
    let names = bound(&fs::read("/proc/self/net/unix")?);
    let folders = if names.iter().all(|name| name.is_absolute()) { Vec::new() } else { working_folders() };
    let places = names.iter().flat_map(|name| places(name, &folders));
    let mut found: Vec<PathBuf> = places.flat_map(|place| sockets_of(&place)).collect();
    let needed = Needed::here();
    found.retain(|path| !needed.has(path));
    found.sort();
    found.dedup();
    Ok(found)
}

/// Names of sockets in the file system, each once. A connection has the name of whoever accepted it; whoever is bound and does
/// not listen may do so next, or takes datagrams.
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

/// The socket, or those that it may have become: ssh makes one with a longer name, and then gives it the one that is wanted.
fn sockets_of(place: &Path) -> Vec<PathBuf> {
    if is_socket(place) {
        return vec![place.to_owned()];
    }
    let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { return Vec::new() };
    let is_alike = |other: &PathBuf| {
        let (name, other) = (name.as_bytes(), other.file_name().unwrap_or_default().as_bytes());
        holds(name, other) || holds(other, name)
    };
    entries(folder).filter(is_alike).filter(|path| is_socket(path)).collect()
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
            true => paths(&value),
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
            || is_at_home(folder) && (begins("S.gpg-agent") || begins("S.keyboxd"))
            || folder.ends_with(".cache/ibus") && begins("dbus-")
    }
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
    }

    #[test]
    fn whoever_listens_is_found_by_whatever_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let _listening = ["plain", "master.x1", "other"].map(|name| UnixListener::bind(at(name)).expect("a socket"));
        // As ssh does.
        fs::hard_link(at("master.x1"), at("master")).and_then(|()| fs::remove_file(at("master.x1"))).expect("a link");
        symlink(at("plain"), at("link")).expect("a link");
        let found = listening().expect("the kernel tells");
        assert!(found.contains(&at("plain")) && found.contains(&at("other")), "{found:?}");
        assert!(found.contains(&at("master")), "{found:?}");
        assert_eq!(sockets_of(&at("master.x1")), [at("master")]);
        assert_eq!(places(Path::new("b/c"), &["/a".into(), "/d".into()]), [Path::new("/a/b/c"), Path::new("/d/b/c")]);
        assert!(working_folders().contains(&env::current_dir().expect("a folder")));
    }

    #[test]
    fn what_programs_need_stays() {
        let needed = Needed { runtimes: vec!["/run/user/7".into()], named: vec!["/tmp/agent.1".into()] };
        let stays = [
            "/tmp/.X11-unix/X0",
            "/run/user/7/wayland-1",
            "/run/user/7/pulse/native",
            "/run/user/7/gnupg/d.abc/S.gpg-agent",
            "/home/a/.gnupg/S.gpg-agent.ssh",
            "/run/systemd/journal/stdout",
            "/tmp/agent.1",
        ];
        assert!(stays.iter().all(|path| needed.has(Path::new(path))));
        let goes =
            ["/run/user/7/bus", "/run/user/7/sway-ipc.1.sock", "/home/a/.gnupg/S.dirmngr", "/tmp/X0", "/tmp/agent.2"];
        assert!(!goes.iter().any(|path| needed.has(Path::new(path))));
    }
}
