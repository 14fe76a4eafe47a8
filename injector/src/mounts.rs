//! The program's own view of files: our resolver's settings, deputies masked, no network interfaces of the host in /sys.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change, move_mount,
    open_tree,
};

use crate::deputies::{Hidden, Masked, deputies, known_places};
use crate::devices::devices;
use crate::host::{self, Cover};
use crate::mountinfo::{self, Mount};
use crate::reason::{self, Passing};
use crate::scratch::Scratch;
use crate::{groups, kernel_files, own_names, run_folder, secrets, working_folder};

/// Where programs send DNS questions: any address would do, the gate answers them all.
pub(crate) const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// What surrounds a program whose mounts are its own.
pub(crate) struct View<'a> {
    pub(crate) hidden: Hidden<'a>,
    /// Folders of daemons' keys.
    pub(crate) secrets: &'a [PathBuf],
    /// Whether it is to see what the computer is called.
    pub(crate) shows_host: bool,
    /// The computer's number, as it sees it.
    pub(crate) number: &'a str,
    /// Folders of the system's, and what lies in their places.
    pub(crate) twins: Vec<(PathBuf, PathBuf)>,
}

/// Changes this process' mounts, which are its own already, as the program shall see them.
pub(crate) fn make_private(view: &View<'_>, say: &dyn Fn(&str)) -> Result<()> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(|error| {
        let what = match error {
            Errno::INVAL => {
                "making mounts private: the root folder is no mount here, as in a plain chroot (`mount --bind FOLDER FOLDER` before it \
                 is entered makes it one)"
            }
            _ => "making mounts private",
        };
        anyhow::Error::from(error).context(what)
    })?;
    // As long as it is to be had.
    let name = host::name().to_string_lossy().into_owned();
    let is_hidden = !view.shows_host && is_hidden(say)?;
    let groups = match is_hidden.then(groups::hide) {
        Some(Err(error)) if reason::is_passing(&error) => return Err(error.context("hiding groups of processes")),
        Some(Err(error)) => {
            say(&format!("names of groups of processes stay visible: {error:#}"));
            None
        }
        done => done.transpose()?,
    };
    let (mut deputies, devices) = (deputies(&view.hidden)?, devices()?);
    run_folder::make_own(&known_places(&view.hidden)?, &view.twins, say)?;
    // Before what lies over sockets in them.
    secrets::cover(view.secrets, say)?;
    let mut scratch = Scratch::mount()?;
    lay_files(&Seen { name, is_hidden, number: view.number.to_owned() }, &mut scratch, say)?;
    if let Masked::Through(daemon, program_socket) = &view.hidden.masked {
        let daemon = fs::canonicalize(daemon).context("finding the daemon's socket")?;
        let (listener, name) = scratch.socket()?;
        program_socket.open_at(&listener)?;
        mount_bind(&name, &daemon).context("laying a way to the daemon over its socket")?;
        deputies.retain(|deputy| *deputy != daemon);
    }
    // Older kernels cannot (Linux 5.2); it is no way out either.
    let number = host::number().ok().filter(|_| is_hidden);
    let boot = number.and_then(|number| scratch.take(number.as_bytes(), 0o444).ok());
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
    for deputy in deputies.into_iter().chain(devices) {
        // These are others' files: whatever happens there, nobody is to decide by it how well the program is kept in.
        mask(&deputy).context(Passing).with_context(|| format!("masking {}", crate::say::path(&deputy)))?;
        say(&format!("masked {}", crate::say::path(&deputy)));
    }
    working_folder::settle()
}

/// Whoever has ended meanwhile, or started anew, is no reason not to start, nor is who shuts the folder of a socket of theirs; and
/// where they have put a link to another file in its place, or in that of a folder above, that file stays as it is.
pub(crate) fn mask(deputy: &Path) -> Result<(), Errno> {
    // None if it is not there, as far as anybody here could find it.
    let attempt = || {
        let place = open(deputy, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let name = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let is_it = fs::read_link(&name).is_ok_and(|real| real == deputy);
        is_it.then(|| mount_bind("/dev/null", &name))
    };
    let mut last = Ok(());
    for _ in 0..8 {
        last = match attempt() {
            None => Ok(()),
            // Removed right then; or there is no /dev/null.
            Some(Err(Errno::NOENT)) => Err(Errno::NOENT),
            Some(done) => return done,
        };
    }
    last
}

/// Whether the computer's name is hidden from here on. It leads nowhere by itself, so where that cannot be, it is no reason not to
/// start; what passes is, since it may be somebody's doing.
fn is_hidden(say: &dyn Fn(&str)) -> Result<bool> {
    match host::hide(say) {
        Ok(()) => Ok(true),
        Err(error) if reason::is_passing(&error) => Err(error),
        Err(error) => {
            say(&format!("what the computer is called stays visible: {error:#}"));
            Ok(false)
        }
    }
}

/// What the program sees of the computer.
pub(crate) struct Seen {
    /// What it is called outside.
    pub(crate) name: String,
    pub(crate) is_hidden: bool,
    /// The number in the place of its own, if that is hidden.
    pub(crate) number: String,
}

/// What lies over the system's settings of names, as far as there are any; as these are now.
pub(crate) fn settings(seen: &Seen) -> Result<Vec<Cover>> {
    let (search, options) = (own_names::search(), "options ndots:1 timeout:10 attempts:3");
    let resolver = format!("nameserver {RESOLVER_ADDRESS}\n{search}{options}\n");
    let (hidden, own) = if seen.is_hidden { (Some(&*seen.name), host::NAME) } else { (None, &*seen.name) };
    let mut hosts = own_names::hosts(hidden, own);
    if fs::canonicalize(RESOLV_CONF).is_ok_and(|real| fs::canonicalize(HOSTS).is_ok_and(|other| other == real)) {
        // One file is both.
        hosts.extend(resolver.as_bytes());
    }
    let mut covers = vec![Cover::public(RESOLV_CONF, resolver), Cover::public(HOSTS, hosts)];
    match fs::read("/etc/nsswitch.conf") {
        Ok(text) => covers.push(Cover::public("/etc/nsswitch.conf", only_files_and_dns(&text))),
        // The program cannot read it either: libc then asks files and DNS.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
        Err(error) => return Err(error).context("reading /etc/nsswitch.conf"),
    }
    covers.retain(|cover| cover.over.exists());
    Ok(covers)
}

/// Where resolvers learn whom to ask.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Lays files of ours over the system's, for this mount namespace.
fn lay_files(seen: &Seen, scratch: &mut Scratch, say: &dyn Fn(&str)) -> Result<()> {
    for cover in settings(seen)? {
        scratch.cover(&cover.text, cover.mode(), &cover.over)?;
        say(&format!("replaced {}", crate::say::path(&cover.over)));
    }
    for cover in seen.is_hidden.then(|| host::covers(&seen.number)).into_iter().flatten() {
        match scratch.cover(&cover.text, cover.mode(), &cover.over) {
            Ok(()) => say(&format!("replaced {}", crate::say::path(&cover.over))),
            Err(error) => say(&format!("what the computer is called stays visible: {error:#}")),
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

    /// In a thread with mounts of its own, as root.
    #[test]
    fn a_link_in_the_place_of_what_is_masked_leads_nowhere() {
        std::thread::spawn(|| {
            crate::sys::unshare(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
                .expect("mounts");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
            let folder = tempfile::tempdir().expect("a folder");
            let at = |name: &str| folder.path().canonicalize().expect("a folder").join(name);
            let is_masked = |name: &str| {
                let device = rustix::fs::stat(at(name)).expect("a file").st_rdev;
                device == rustix::fs::stat("/dev/null").expect("it is there").st_rdev
            };
            for name in ["file", "own"] {
                fs::write(at(name), "text").expect("a file");
            }
            fs::create_dir(at("folder")).and_then(|()| fs::write(at("folder/file"), "text")).expect("a folder");
            std::os::unix::fs::symlink("file", at("link")).expect("a link");
            std::os::unix::fs::symlink("folder", at("above")).expect("a link");
            for name in ["link", "above/file", "own", "none"] {
                assert_eq!(mask(&at(name)), Ok(()), "{name}");
            }
            assert!(!is_masked("file") && !is_masked("folder/file") && is_masked("own"));
            rustix::mount::unmount(at("own"), rustix::mount::UnmountFlags::DETACH).expect("not masked any more");
        })
        .join()
        .expect("it goes well");
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
