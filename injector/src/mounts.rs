//! The program's own view of files: our resolver's settings, deputies masked, no network interfaces of the host in /sys.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change, move_mount,
    open_tree,
};

use crate::deputies::{Hidden, Masked, deputies, known_places};
use crate::host::{self, Cover};
use crate::mountinfo::{self, Mount};
use crate::scratch::Scratch;
use crate::{groups, kernel_files, own_names, run_folder};

/// Where programs send DNS questions: any address would do, the gate answers them all.
pub(crate) const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// What surrounds a program whose mounts are its own.
pub(crate) struct View<'a> {
    pub(crate) hidden: Hidden<'a>,
    /// Whether it is to see what the computer is called.
    pub(crate) shows_host: bool,
    /// Folders of the system's, and what lies in their places.
    pub(crate) twins: Vec<(PathBuf, PathBuf)>,
}

/// Changes this process' mounts, which are its own already, as the program shall see them.
pub(crate) fn make_private(view: &View<'_>, say: &dyn Fn(&str)) -> Result<()> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("making mounts private")?;
    // As long as it is to be had.
    let name = host::name().to_string_lossy().into_owned();
    let hidden = (!view.shows_host && is_hidden(say)).then_some(&*name);
    let groups = hidden.and_then(|_| {
        let hid = groups::hide();
        hid.inspect_err(|error| say(&format!("names of groups of processes stay visible: {error:#}"))).ok()
    });
    let mut deputies = deputies(&view.hidden)?;
    run_folder::make_own(&known_places(&view.hidden)?, &view.twins, say)?;
    let mut scratch = Scratch::mount()?;
    lay_files(hidden, &mut scratch, say)?;
    if let Masked::Through(daemon, program_socket) = &view.hidden.masked {
        let daemon = fs::canonicalize(daemon).context("finding the daemon's socket")?;
        let (listener, name) = scratch.socket()?;
        program_socket.open_at(&listener)?;
        mount_bind(&name, &daemon).context("laying a way to the daemon over its socket")?;
        deputies.retain(|deputy| *deputy != daemon);
    }
    // Older kernels cannot (Linux 5.2); it is no way out either.
    let boot = hidden.and_then(|_| scratch.take(&host::number().ok()?).ok());
    drop(scratch);
    match fresh_sysfs() {
        Ok(()) => say("hid the host's network interfaces from /sys"),
        // No way out leads through there, so this is no reason not to start.
        Err(error) => {
            say(&format!("names and hardware addresses of the host's interfaces stay visible in /sys: {error}"))
        }
    }
    if let Some(Err(error)) = groups.map(|groups| groups.lay(say)) {
        say(&format!("folders of groups of processes stay visible: {error:#}"));
    }
    kernel_files::protect(boot.as_ref(), say)?;
    for deputy in deputies {
        mask(&deputy).with_context(|| format!("masking {}", deputy.display()))?;
        say(&format!("masked {}", deputy.display()));
    }
    Ok(())
}

/// Whoever has ended meanwhile, or started anew, is no reason not to start.
fn mask(deputy: &Path) -> Result<(), Errno> {
    let is_gone = || fs::symlink_metadata(deputy).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let attempt = || match mount_bind("/dev/null", deputy) {
        Err(Errno::NOENT) if is_gone() => Ok(()),
        done => done,
    };
    (0..8).map(|_| attempt()).find(|done| *done != Err(Errno::NOENT)).unwrap_or(Err(Errno::NOENT))
}

/// Whether the computer's name is hidden from here on. It leads nowhere by itself, so this is no reason not to start.
fn is_hidden(say: &dyn Fn(&str)) -> bool {
    host::hide(say).inspect_err(|error| say(&format!("what the computer is called stays visible: {error:#}"))).is_ok()
}

/// Lays files of ours over the system's, for this mount namespace; `hidden` is what the computer is called outside.
fn lay_files(hidden: Option<&str>, scratch: &mut Scratch, say: &dyn Fn(&str)) -> Result<()> {
    let mut replace = |path: &str, text: &[u8]| {
        if !Path::new(path).exists() {
            say(&format!("there is no {path}"));
            return Ok(());
        }
        scratch.lay(text, Path::new(path))?;
        say(&format!("replaced {path}"));
        anyhow::Ok(())
    };
    let options = "options ndots:1 timeout:10 attempts:3";
    let search = own_names::search();
    replace("/etc/resolv.conf", format!("nameserver {RESOLVER_ADDRESS}\n{search}{options}\n").as_bytes())?;
    replace("/etc/hosts", &own_names::hosts(hidden))?;
    match fs::read("/etc/nsswitch.conf") {
        Ok(text) => replace("/etc/nsswitch.conf", &only_files_and_dns(&text))?,
        // The program cannot read it either: libc then asks files and DNS.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
        Err(error) => return Err(error).context("reading /etc/nsswitch.conf"),
    }
    if hidden.is_some() {
        for Cover { over, text, is_secret } in host::covers()? {
            match scratch.cover(&text, if is_secret { 0o600 } else { 0o644 }, &over) {
                Ok(()) => say(&format!("replaced {}", over.display())),
                Err(error) => say(&format!("what the computer is called stays visible: {error:#}")),
            }
        }
    }
    Ok(())
}

/// The system's nsswitch.conf, with host names looked up in files and by DNS alone.
fn only_files_and_dns(text: &[u8]) -> Vec<u8> {
    let is_of_hosts = |line: &[u8]| {
        let rest = line.trim_ascii_start().strip_prefix(b"hosts").map(<[u8]>::trim_ascii_start);
        rest.is_some_and(|rest| rest.starts_with(b":"))
    };
    let others = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !is_of_hosts(line));
    others.chain([&b"hosts: files dns"[..]]).flat_map(|line| [line, b"\n"]).flatten().copied().collect()
}

/// Mounts a /sys that shows the phantom namespace's interfaces, with what was mounted below the old one.
fn fresh_sysfs() -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mut below: Vec<(PathBuf, OwnedFd)> = Vec::new();
    for point in mounts_below_sys(&mountinfo::own()?) {
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
fn mounts_below_sys(mounts: &[Mount]) -> Vec<PathBuf> {
    let sys = Path::new("/sys");
    let mut found: Vec<PathBuf> = Vec::new();
    for Mount { point, .. } in mounts.iter().filter(|mount| mount.point.starts_with(sys) && mount.point != sys) {
        if !found.iter().any(|other| point.starts_with(other)) {
            found.push(point.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_looked_up_in_files_and_dns_alone() {
        let text =
            b"# caf\xe9\npasswd: files sss\n hosts: files resolve [!UNAVAIL=return] dns\nhosts : mdns\nnetworks: files";
        assert_eq!(only_files_and_dns(text), b"# caf\xe9\npasswd: files sss\nnetworks: files\nhosts: files dns\n");
    }

    #[test]
    fn mounts_below_mounts_move_with_them() {
        let points = ["/", "/sys", "/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup\\040b", "/system"];
        let info = points.map(|point| format!("1 0 0:1 / {point} rw - ext4 a rw\n")).concat();
        assert_eq!(
            mounts_below_sys(&mountinfo::all(info.as_bytes())),
            [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup b")]
        );
    }
}
