//! The kernel's own file systems as the program shall see them: no processes but its own, nothing to be set.
//!
//! Root needs no capability to write some of these files, and the kernel acts on them outside: it starts the program that
//! core_pattern names, in the host's namespaces, for whoever crashes.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, mount, mount_bind_recursive, mount_remount, move_mount};

use crate::mountinfo::{self, Mount};
use crate::reason;

/// File systems that are the kernel's; what is written there concerns the whole machine. Groups of processes (cgroup) are
/// left: they cannot reach out without a capability.
const KINDS: [&str; 14] = [
    "proc",
    "sysfs",
    "debugfs",
    "tracefs",
    "configfs",
    "bpf",
    "securityfs",
    "efivarfs",
    "binfmt_misc",
    // A server of files that listens in the system's network, and what helps it and its clients.
    "nfsd",
    "rpc_pipefs",
    "xenfs",
    "resctrl",
    "fusectl",
];

/// What of /proc is for the whole machine and may do harm everywhere. What else there is differs between machines (scsi, acpi, what drivers
/// are told), and is found.
const SETTINGS: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];

/// What is whoever's who asks: names that lead to its own files, and where it is told when it has to wait.
const OF_PROCESSES: [&str; 5] = ["self", "thread-self", "net", "mounts", "pressure"];

/// By it we know whether the program could do harm.
const WITNESS: &str = "/proc/sys/kernel/core_pattern";

const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Tells one start of this computer from others.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Changes this process' mounts, which are its own already; `boot` is to lie over what tells the computer's start.
///
/// Where the program could not write these files anyway, as an ordinary user, /proc stays as it is: the kernel lets nobody
/// mount another one below whose own is covered in part, and sandboxes (bubblewrap, flatpak) need one.
pub(crate) fn protect(boot: Option<&OwnedFd>, say: &dyn Fn(&str)) -> Result<()> {
    // Before: what is listed stays known there, and of processes outside that alone, that there are such, is to be hidden.
    let settings = settings()?;
    // Network settings of a process are those of its namespace: /proc/PID/net of a process outside shows the host's.
    match mount("proc", "/proc", "proc", FLAGS, Some(c"hidepid=ptraceable")) {
        Ok(()) => say("hid processes outside from /proc"),
        Err(error) => say(&format!("processes outside and what they see of networks stay visible in /proc: {error}")),
    }
    if is_writable() {
        if let Some(boot) = boot {
            let _ = move_mount(boot, "", CWD, BOOT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        }
        for name in settings {
            let settings = Path::new("/proc").join(&name);
            match mount_bind_recursive(&settings, &settings).and_then(|()| read_only(&settings)) {
                // Not every kernel has each.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) if SETTINGS.iter().any(|harmful| name == *harmful) => {
                    return Err(error).with_context(|| format!("protecting {}", settings.display()));
                }
                Err(error) => say(&format!("{} stays writable: {error}", crate::say::path(&settings))),
            }
        }
    }
    for point in mounted(&mountinfo::own().context("reading what is mounted")?) {
        match read_only(&point) {
            Ok(()) => {}
            // Something else lies over it, or nobody gets there: what cannot be reached needs no protection.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            // As an ordinary user's it may have been mounted with flags that stay; nothing in it is that user's to write.
            Err(_) if accessat(CWD, &point, Access::WRITE_OK, AtFlags::EACCESS).is_err() => {}
            Err(error) => return Err(error).with_context(|| format!("protecting {}", crate::say::path(&point))),
        }
    }
    if is_writable() {
        let why = format!("{WITNESS} stays writable: by it the program could have the kernel start others outside");
        return Err(reason::lacking(why).into());
    }
    Ok(())
}

/// The names in /proc that are no process' own and in which something could be written, the worst first.
fn settings() -> Result<Vec<OsString>> {
    let mut names = SETTINGS.map(OsString::from).to_vec();
    for entry in fs::read_dir("/proc").context("looking into /proc")? {
        let entry = entry.context("looking into /proc")?;
        let name = entry.file_name();
        let is_of_processes =
            name.as_bytes().iter().all(u8::is_ascii_digit) || OF_PROCESSES.iter().any(|own| name == *own);
        let is_to_set =
            |about: fs::Metadata| about.is_dir() || about.is_file() && about.permissions().mode() & 0o222 != 0;
        if !is_of_processes && !names.contains(&name) && entry.metadata().is_ok_and(is_to_set) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_writable() -> bool {
    OpenOptions::new().write(true).open(WITNESS).is_ok()
}

fn read_only(point: &Path) -> Result<(), Errno> {
    mount_remount(point, MountFlags::BIND | MountFlags::RDONLY | FLAGS, "")
}

/// Where file systems of the kernel lie, but /proc itself: programs write to their own files there.
fn mounted(mounts: &[Mount]) -> Vec<PathBuf> {
    let is_kernels = |mount: &&Mount| KINDS.iter().any(|kind| mount.kind == *kind) && mount.point != Path::new("/proc");
    mounts.iter().filter(is_kernels).map(|mount| mount.point.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_file_systems_are_found() {
        let info = b"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /proc rw shared:1 - proc proc rw\n3 2 0:3 / /srv/my\\040root/proc rw - \
                     proc proc rw\n4 1 0:4 / /sys/kernel/config rw - configfs configfs rw\n5 1 0:5 / /sys/fs/cgroup rw - \
                     cgroup2 cgroup2 rw\n6 1 0:6 / /var/lib/nfs/own rw - nfsd nfsd rw\nodd line";
        let found = ["/srv/my root/proc", "/sys/kernel/config", "/var/lib/nfs/own"].map(Path::new);
        assert_eq!(mounted(&mountinfo::all(info)), found);
    }
}
