//! The program's own view of files: our resolver's settings, deputies masked, no network interfaces of the host in /sys.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change, move_mount,
    open_tree,
};

use crate::deputies::deputies;
use crate::{kernel_files, own_names};

/// Where programs send DNS questions: any address would do, the gate answers them all.
pub(crate) const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// Which daemons' sockets the program must not see.
#[derive(Debug, Clone)]
pub(crate) enum Masked {
    /// That of the daemon in use, and those at the known places.
    All(PathBuf),
    /// Those at the known places but this one, which the preloaded library speaks to.
    AllBut(PathBuf),
    /// All; in the place of the daemon in use lies another socket, where it serves the program's library.
    Through { daemon: PathBuf, instead: PathBuf },
}

impl Masked {
    /// What lies over a socket.
    fn over(&self, socket: &Path) -> &Path {
        match self {
            Self::Through { daemon, instead } if fs::canonicalize(daemon).is_ok_and(|daemon| daemon == socket) => {
                instead
            }
            _ => Path::new("/dev/null"),
        }
    }
}

/// Changes this process' mounts, which are its own already, as the program shall see them.
pub(crate) fn make_private(masked: &Masked, say: &dyn Fn(&str)) -> Result<()> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("making mounts private")?;
    replace(
        "/etc/resolv.conf",
        &format!("nameserver {RESOLVER_ADDRESS}\n{}options ndots:1 timeout:10 attempts:3\n", own_names::search()),
        say,
    )?;
    replace("/etc/hosts", &own_names::hosts(), say)?;
    if let Ok(text) = fs::read_to_string("/etc/nsswitch.conf") {
        replace("/etc/nsswitch.conf", &only_files_and_dns(&text), say)?;
    }
    match fresh_sysfs() {
        Ok(()) => say("hid the host's network interfaces from /sys"),
        // No way out leads through there, so this is no reason not to start.
        Err(error) => {
            say(&format!("names and hardware addresses of the host's interfaces stay visible in /sys: {error}"))
        }
    }
    kernel_files::protect(say)?;
    for deputy in deputies(masked) {
        mount_bind(masked.over(&deputy), &deputy).with_context(|| format!("masking {}", deputy.display()))?;
        say(&format!("masked {}", deputy.display()));
    }
    Ok(())
}

/// Lays a file of ours over one of the system's, for this mount namespace.
fn replace(path: &str, text: &str, say: &dyn Fn(&str)) -> Result<()> {
    if !Path::new(path).exists() {
        say(&format!("there is no {path}: programs that need it resolve no names"));
        return Ok(());
    }
    let (file, name) = temporary(text).with_context(|| format!("writing our own {path}"))?;
    let mounted = mount_bind(&name, path);
    drop(file);
    fs::remove_file(&name).with_context(|| format!("removing {}", name.display()))?;
    mounted.with_context(|| format!("replacing {path}"))?;
    say(&format!("replaced {path}"));
    Ok(())
}

/// A new file that everybody may read; it needs no name once it is mounted.
fn temporary(text: &str) -> io::Result<(fs::File, PathBuf)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for directory in [std::env::temp_dir(), "/dev/shm".into(), "/run".into(), "/var/tmp".into()] {
        for attempt in 0..16 {
            let name = directory.join(format!(".phantom-run-{}-{attempt}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&name) {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    file.set_permissions(Permissions::from_mode(0o644))?;
                    return Ok((file, name));
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// The system's nsswitch.conf, with host names looked up in files and by DNS alone.
fn only_files_and_dns(text: &str) -> String {
    let others = text.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).flat_map(|line| [line, "\n"]).collect()
}

/// Mounts a /sys that shows the phantom namespace's interfaces, with what was mounted below the old one.
fn fresh_sysfs() -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mut below: Vec<(String, OwnedFd)> = Vec::new();
    for point in mounts_below_sys(&fs::read_to_string("/proc/self/mountinfo")?) {
        let tree = open_tree(CWD, &point, clone)?;
        below.push((point, tree));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("sysfs", "/sys", "sysfs", flags, None)?;
    for (point, tree) in below {
        // A place that the new one does not have is of no use there.
        let _ = move_mount(&tree, "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    }
    Ok(())
}

/// Mount points right below /sys: those below others move with them.
fn mounts_below_sys(mountinfo: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for point in mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).filter(|p| p.starts_with("/sys/")) {
        if !found.iter().any(|other| point == other || point.starts_with(&format!("{other}/"))) {
            found.push(point.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_looked_up_in_files_and_dns_alone() {
        let text = "passwd: files sss\n hosts: files resolve [!UNAVAIL=return] dns\nnetworks: files";
        assert_eq!(only_files_and_dns(text), "passwd: files sss\nnetworks: files\nhosts: files dns\n");
    }

    #[test]
    fn mounts_below_mounts_move_with_them() {
        let info = "1 0 0:1 / / rw\n2 1 0:2 / /sys rw\n3 2 0:3 / /sys/fs/cgroup rw\n4 3 0:4 / /sys/fs/cgroup/a rw\n\
                    5 2 0:5 / /sys/fs/cgroup-b rw\n6 1 0:6 / /system rw\nodd line";
        assert_eq!(mounts_below_sys(info), ["/sys/fs/cgroup", "/sys/fs/cgroup-b"]);
    }
}
