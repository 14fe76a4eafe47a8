//! Folders in which daemons of Phantom have their keys, their settings and what they know: a program must not see them, or it learns who
//! all the identities are and which node this computer is, and decides what the daemon does next.
//!
//! Rights of files do not keep it out: it is run by whom the daemon is run by, root or its own user. An empty folder lies over each,
//! with nothing in it but the names of sockets, which are masked by themselves or lead to the daemon.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::deputies::{self, entries, is_socket};
use crate::reason::Passing;
use crate::sys;

/// Data and settings of the system's daemon.
const OF_THE_SYSTEM: [&str; 2] = ["/var/lib/phantom", "/etc/phantom"];

/// Those of users' daemons, below their homes, and below what these variables name.
const OF_USERS: [&str; 2] = [".local/state/phantom", ".config/phantom"];
const VARIABLES: [&str; 2] = ["XDG_STATE_HOME", "XDG_CONFIG_HOME"];

/// What only the folder of a daemon's keys holds, wherever it lies.
const KEY: &str = "node.key";

const OPTIONS: &std::ffi::CStr = c"size=64k,mode=755";
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Those that are to be hidden; `line` leads to the daemon in use. In which of them the program lives itself is said: nothing can lie over those.
pub(crate) fn to_hide(line: Option<OwnedFd>, services: &[PathBuf], is_quiet: bool) -> Vec<PathBuf> {
    let daemon = line.and_then(|line| sys::peer(line.as_fd()));
    let (lived_in, found): (Vec<_>, Vec<_>) = folders(daemon, services).into_iter().partition(|one| is_lived_in(one));
    for folder in lived_in.iter().filter(|_| !is_quiet) {
        let folder = crate::say::path(folder);
        eprintln!(
            "phantom-run: warning: the program reaches the keys of a daemon in {folder}, where its own folder, its home or phantom-run lies"
        );
    }
    found
}

/// The folders that exist here, as far as this user could look into them, links followed; `daemon` is the process of the daemon in use, and
/// `services` are sockets at which somebody listens: mostly a daemon's lies in the folder of its keys.
fn folders(daemon: Option<i32>, services: &[PathBuf]) -> Vec<PathBuf> {
    let of_users = deputies::homes().into_iter().flat_map(|home| OF_USERS.map(|name| home.join(name)));
    let named = VARIABLES.iter().filter_map(std::env::var_os).map(|folder| Path::new(&folder).join("phantom"));
    let known = OF_THE_SYSTEM.iter().map(PathBuf::from).chain(of_users).chain(named);
    let opened = daemon.map(|pid| format!("/proc/{pid}/fd")).map(opened).unwrap_or_default();
    let beside = services.iter().chain(&opened).filter_map(|file| file.parent());
    let mut found: Vec<PathBuf> = beside.filter(|folder| has_keys(folder)).map(Path::to_owned).collect();
    found.extend(known);
    let real = found.into_iter().filter_map(|folder| fs::canonicalize(folder).ok());
    let mut found: Vec<PathBuf> = real.filter(|folder| fs::read_dir(folder).is_ok()).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether it is a daemon's folder, which nobody else may write to: else others would decide that /tmp is not to be seen.
fn has_keys(folder: &Path) -> bool {
    let user = rustix::process::geteuid();
    let is_ones_alone = |about: Metadata| about.mode() & 0o022 == 0 && (user.is_root() || about.uid() == user.as_raw());
    folder.join(KEY).exists() && fs::metadata(folder).is_ok_and(is_ones_alone)
}

/// The files that a process has open, as far as this one may ask.
fn opened(descriptors: String) -> Vec<PathBuf> {
    let files = entries(Path::new(&descriptors)).filter_map(|descriptor| fs::read_link(descriptor).ok());
    files.filter(|file| file.is_absolute()).collect()
}

/// Whether the program itself lives in such a folder: then nothing can lie over it.
fn is_lived_in(folder: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let lived_in = home.into_iter().chain(std::env::current_dir()).chain(std::env::current_exe());
    lived_in.filter_map(|at| fs::canonicalize(at).ok()).any(|at| at.starts_with(folder))
}

/// Lays an empty folder over each, wherever it is mounted, in this process' mounts, which are its own already.
pub(crate) fn cover(folders: &[PathBuf], say: &dyn Fn(&str)) -> Result<()> {
    for folder in deputies::everywhere(folders.to_vec(), Path::is_dir)? {
        let name = crate::say::path(&folder);
        // What others do there meanwhile is not to decide how well the program is kept in.
        if lay_over(&folder).context(Passing).with_context(|| format!("hiding {name}"))? {
            say(&format!("hid {name}"));
        }
    }
    Ok(())
}

/// Whether it is still there, and no link.
fn lay_over(folder: &Path) -> Result<bool> {
    let Ok(place) = open(folder, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty()) else {
        return Ok(false);
    };
    let name = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
    if fs::read_link(&name)? != folder {
        return Ok(false);
    }
    let sockets: Vec<OsString> = entries(folder)
        .filter(|entry| is_socket(entry))
        .filter_map(|socket| Some(socket.file_name()?.into()))
        .collect();
    mount("tmpfs", &name, "tmpfs", FLAGS, Some(OPTIONS))?;
    sockets.iter().try_for_each(|socket| File::create(folder.join(socket)).map(drop))?;
    // Where that cannot be, what the program writes there is lost.
    let _ = mount_remount(folder, MountFlags::BIND | MountFlags::RDONLY | FLAGS, "");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_of_keys_is_found_by_a_socket_in_it_and_by_what_its_daemon_has_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().canonicalize().expect("a folder");
        let services = [real.join("daemon.sock")];
        assert!(!folders(None, &services).contains(&real), "nobody's keys are there");
        let key = File::create(real.join(KEY)).expect("a file");
        assert!(folders(None, &services).contains(&real));
        assert!(!folders(None, &[]).contains(&real));
        assert!(folders(Some(std::process::id().cast_signed()), &[]).contains(&real));
        fs::set_permissions(&real, Permissions::from_mode(0o1777)).expect("a mode");
        assert!(!folders(None, &services).contains(&real), "anybody may put a key there");
        drop(key);
    }

    #[test]
    fn nothing_lies_over_what_the_program_lives_in() {
        let here = std::env::current_dir().and_then(fs::canonicalize).expect("a folder");
        assert!(is_lived_in(&here) && is_lived_in(Path::new("/")));
        assert!(!is_lived_in(&here.join("none")));
    }
}
