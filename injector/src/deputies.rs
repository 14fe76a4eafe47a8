//! Who would do outside what a program may not do: the sockets of services that reach networks, or start programs that do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use phantom_ipc::reach::operators_socket;
use phantom_ipc::{SYSTEM_SOCKET, USER_SOCKET};

use crate::mountinfo::{self, Mount};
use crate::named_folders::{self, IN_FOLDERS, is_no_link};
use crate::program_socket::ProgramSocket;

/// Sockets of services that would reach a network or resolve names on behalf of a program.
const DEPUTIES: [&str; 31] = [
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/var/run/dbus/system_bus_socket",
    "/run/avahi-daemon/socket",
    "/var/run/avahi-daemon/socket",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/virtqemud-sock",
    "/run/libvirt/virtnetworkd-sock",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    "/run/lxd.socket",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/run/pcscd/pcscd.comm",
    "/run/cups/cups.sock",
    "/run/NetworkManager/private",
    "/run/NetworkManager/private-dbus",
    "/run/chrony/chronyd.sock",
    "/run/dhcpcd/sock",
    "/run/tor/socks",
    "/run/tor/control",
];

/// The same, below the user's runtime directory.
const USER_DEPUTIES: [&str; 7] =
    ["bus", "systemd/private", "docker.sock", "podman/podman.sock", "gvfsd", "gnupg/S.dirmngr", "emacs/server"];

/// The same, below homes.
const HOME_DEPUTIES: [&str; 6] = [
    ".gnupg/S.dirmngr",
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".rd/docker.sock",
    ".emacs.d/server/server",
];

/// Folders outside /run that are theirs alone.
const FOLDERS_OF_THEIRS: [&str; 2] = ["/var/lib/lxd", "/var/snap/lxd/common/lxd"];

/// Which daemons' sockets the program must not see.
pub(crate) enum Masked<'a> {
    /// That of the daemon in use, and those at the known places.
    All(PathBuf),
    /// Those at the known places but this one, which the preloaded library speaks to.
    AllBut(PathBuf),
    /// All; in the place of the daemon in use lies another socket, where it serves the program's library.
    Through(PathBuf, ProgramSocket<'a>),
}

/// What the program must not see of sockets.
pub(crate) struct Hidden<'a> {
    pub(crate) masked: Masked<'a>,
    /// All others at which somebody listens.
    pub(crate) services: &'a [PathBuf],
    /// What its user lets it see all the same.
    pub(crate) allowed: &'a [PathBuf],
}

/// Variables that name such services where they are not at their usual places.
const VARIABLES: [&str; 15] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "TMUX",
    "NVIM",
    "KITTY_LISTEN_ON",
    "VSCODE_IPC_HOOK_CLI",
    "NVIM_LISTEN_ADDRESS",
    "EMACS_SOCKET_NAME",
    "SWAYSOCK",
    "I3SOCK",
    "ALACRITTY_SOCKET",
    "WEZTERM_UNIX_SOCKET",
];

/// The deputies that exist here, each once, links followed.
///
/// # Errors
/// When it cannot be said where else they lie: some would stay open.
pub(crate) fn deputies(hidden: &Hidden<'_>) -> Result<Vec<PathBuf>> {
    // Whoever reaches one reaches the daemon.
    let spared: Vec<PathBuf> = match &hidden.masked {
        Masked::AllBut(socket) => vec![socket.clone(), operators_socket(socket)],
        Masked::All(_) | Masked::Through(..) => Vec::new(),
    };
    let spared: Vec<PathBuf> = spared.iter().filter_map(|socket| fs::canonicalize(socket).ok()).collect();
    let all = places(&hidden.masked).into_iter().chain(hidden.services.iter().cloned());
    let all = all.filter(|path| is_socket(path));
    let mut found: Vec<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).collect();
    found.retain(|path| !spared.contains(path) && !hidden.allowed.contains(path));
    everywhere(found, is_socket)
}

/// Most places that are looked at again and again: others of this computer can listen at as many as they like.
const MOST_AWAITED: usize = 4096;

/// The places, but those below these folders, at which a socket that comes later is to be masked too.
///
/// # Errors
/// As for [`deputies`].
pub(crate) fn awaited(hidden: &Hidden<'_>, own: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut places = known_places(hidden)?;
    places.extend(named_folders::to_come());
    if let Masked::Through(socket, _) = &hidden.masked {
        // Over it lies the way to the daemon; the next daemon knows whom it refuses.
        let real = fs::canonicalize(socket);
        places.retain(|place| place != socket && !real.as_ref().is_ok_and(|real| place == real));
    }
    places.retain(|place| !hidden.allowed.contains(place) && !own.iter().any(|folder| place.starts_with(folder)));
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.len() < MOST_AWAITED && seen.insert(place.clone()));
    Ok(places)
}

/// The sockets at these places now, each once. Whoever puts a link to another one there has nothing masked.
///
/// # Errors
/// As for [`deputies`].
pub(crate) fn come(places: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_it = |path: &Path| fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let found = places.iter().filter(|place| is_it(place));
    let found = found.filter_map(|place| Some(fs::canonicalize(place.parent()?).ok()?.join(place.file_name()?)));
    everywhere(found.collect(), is_it)
}

/// All places of these files, as far as they are such there.
pub(crate) fn everywhere(mut found: Vec<PathBuf>, is_such: fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mounts = mountinfo::own().context("reading what is mounted")?;
    let again: Vec<PathBuf> = found.iter().flat_map(|path| elsewhere(path, &mounts)).filter(|at| is_such(at)).collect();
    found.extend(again);
    found.sort();
    found.dedup();
    Ok(found)
}

/// All places of theirs, by every name that is known.
pub(crate) fn known_places(hidden: &Hidden<'_>) -> Result<Vec<PathBuf>> {
    let places = places(&hidden.masked).into_iter().filter(|path| !hidden.allowed.contains(path));
    Ok(places.chain(deputies(hidden)?).collect())
}

/// Whether nobody else, but root, can change what is in a folder.
pub(crate) fn is_ours_alone(about: &Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o022 == 0
}

/// Whether a folder is on the way to a place of theirs.
pub(crate) fn leads_to(folder: &Path, places: &[PathBuf]) -> bool {
    places.iter().any(|place| place != folder && place.starts_with(folder))
}

/// The folders outside /run in which there is nothing but them and what they need.
pub(crate) fn folders_of_theirs() -> Vec<PathBuf> {
    let named = FOLDERS_OF_THEIRS.map(PathBuf::from).into_iter().filter(|folder| folder.is_dir());
    // Others could lead away from theirs.
    let is_ours =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|about| about.is_dir() && is_ours_alone(&about));
    named.chain(named_folders::of_own_terminals().into_iter().filter(is_ours)).collect()
}

/// Where deputies are looked for, whether they are there or not.
fn places(masked: &Masked<'_>) -> Vec<PathBuf> {
    let runtimes = runtimes();
    let of_user = runtimes.iter().flat_map(|directory| USER_DEPUTIES.map(|name| directory.join(name)));
    let named = VARIABLES.iter().filter_map(std::env::var_os).flat_map(|value| paths(&value));
    let folders = runtimes.iter().cloned().chain(states());
    let daemons = folders.map(|directory| directory.join(USER_SOCKET)).chain([PathBuf::from(SYSTEM_SOCKET)]);
    let in_use = match masked {
        Masked::All(socket) | Masked::Through(socket, _) => Some(socket.clone()),
        Masked::AllBut(_) => None,
    };
    let at_home = homes().into_iter().flat_map(|home| HOME_DEPUTIES.map(|name| home.join(name))).filter(is_no_link);
    let daemons = daemons.chain(in_use).flat_map(|socket| [operators_socket(&socket), socket]);
    let all = DEPUTIES.iter().map(PathBuf::from).chain(of_user).chain(at_home).chain(daemons);
    // Those whose folders come later.
    let to_come = IN_FOLDERS.iter().map(|(at, begin, _)| Path::new(at).join(begin));
    all.chain(named_folders::found(&runtimes).files.iter().cloned()).chain(to_come).chain(named).collect()
}

/// Users' runtime directories: all users', since root may become any of them.
pub(crate) fn runtimes() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    own.into_iter().chain(entries(Path::new("/run/user"))).collect()
}

/// Where the daemons of users have their sockets who did not log in: beside their data.
fn states() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    homes().into_iter().map(|home| home.join(".local/state")).chain(own)
}

/// All users': root may become any of them. A letter that is no UTF-8 in somebody's name hides nobody's home.
pub(crate) fn homes() -> Vec<PathBuf> {
    let users = fs::read("/etc/passwd").unwrap_or_default();
    let homes = users.split(|byte| *byte == b'\n').filter_map(|user| user.split(|byte| *byte == b':').nth(5));
    let homes = homes.filter(|home| !home.is_empty()).map(|home| PathBuf::from(OsStr::from_bytes(home)));
    homes.chain(std::env::var_os("HOME").map(PathBuf::from)).collect()
}

/// Where the same file lies too, because its file system is mounted more than once.
fn elsewhere(path: &Path, mounts: &[Mount]) -> Vec<PathBuf> {
    // Of those above the path the last counts: it lies over the others.
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let Some(above) = above.max_by_key(|mount| mount.point.components().count()) else { return Vec::new() };
    let Ok(inside) = path.strip_prefix(&above.point) else { return Vec::new() };
    let inside = above.root.join(inside);
    let others = mounts.iter().filter(|other| other.device == above.device);
    let others = others.filter_map(|other| Some(other.point.join(inside.strip_prefix(&other.root).ok()?)));
    others.filter(|other| other != path).collect()
}

pub(crate) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_socket())
}

pub(crate) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Paths in a variable's value: `unix:path=/a,guid=1;unix:path=/b`, `unix:///a`, `/a,1,0`.
pub(crate) fn paths(value: &OsStr) -> Vec<PathBuf> {
    let parts = value.as_bytes().split(|byte| matches!(byte, b',' | b';'));
    let path =
        |part: &[u8]| Some(PathBuf::from(OsStr::from_bytes(&part[part.iter().position(|byte| *byte == b'/')?..])));
    parts.filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_sockets_in_several_forms() {
        let found =
            |value: &str| paths(value.as_ref()).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(found("unix:path=/tmp/dbus-a,guid=12;unix:abstract=/tmp/b"), ["/tmp/dbus-a", "/tmp/b"]);
        assert_eq!(found("unix:///run/docker.sock"), ["///run/docker.sock"]);
        assert_eq!(found("/tmp/tmux-0/default,12,0"), ["/tmp/tmux-0/default"]);
        assert!(found("tcp:host=localhost").is_empty());
    }

    #[test]
    fn what_is_mounted_twice_is_found_twice() {
        let mounts = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /run rw - tmpfs run rw\n3 1 0:2 /user /srv/user rw - tmpfs run \
                      rw\n4 1 0:2 / /my\\040own/run rw - tmpfs run rw\n5 1 8:1 /srv /mnt rw - ext4 /dev/a rw\nodd line";
        let mounts = mountinfo::all(mounts);
        let found = |path: &str| elsewhere(Path::new(path), &mounts);
        assert_eq!(found("/run/user/7/bus"), [Path::new("/srv/user/7/bus"), Path::new("/my own/run/user/7/bus")]);
        assert_eq!(found("/run/docker.sock"), [Path::new("/my own/run/docker.sock")]);
        assert_eq!(found("/srv/own/a.sock"), [Path::new("/mnt/own/a.sock")]);
        assert!(elsewhere(Path::new("/a"), &[]).is_empty());
    }
}
