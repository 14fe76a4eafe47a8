//! The namespace way: the program's only network is the phantom namespace, its only resolver the gate.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::net::AddressFamily;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{privileges, sys};

/// Where programs send DNS questions: any address would do, the gate answers them all.
const RESOLVER: &str = "nameserver 198.18.0.53\noptions ndots:1\n";

/// Sockets of services that would reach a network or resolve names on behalf of a program.
const DEPUTIES: [&str; 23] = [
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
    "/run/pcscd/pcscd.comm",
];

/// The same, below the user's runtime directory.
const USER_DEPUTIES: [&str; 5] = ["bus", "systemd/private", "docker.sock", "podman/podman.sock", "gvfsd"];

/// What the daemon hands over.
pub(crate) struct Namespaces {
    /// The phantom namespace.
    pub(crate) network: OwnedFd,
    /// The user namespace that owns it, if the daemon needed one.
    pub(crate) user: Option<OwnedFd>,
}

/// Moves this process into the namespaces for good. On any error the program must not be started.
///
/// `say` hears about each step; `socket` is the daemon's own, which is masked with the deputies.
pub(crate) fn enter(spaces: &Namespaces, socket: &Path, say: &dyn Fn(&str)) -> Result<()> {
    if let Some(user) = &spaces.user {
        move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)).context(
            "entering the daemon's user namespace failed: run phantom-run as the user that phantomd runs as",
        )?;
        say("entered the user namespace");
    }
    move_into_link_name_space(spaces.network.as_fd(), Some(LinkNameSpaceType::Network)).context(
        "entering the phantom namespace failed: run phantom-run as root or start phantomd as your own user, or try \
         --isolation preload, which is best effort only",
    )?;
    say("entered the phantom network namespace");
    private_mounts(socket, say)?;
    close_foreign_sockets(say)?;
    privileges::drop_all_but_safe().context("dropping privileges")?;
    say("dropped capabilities, no new privileges");
    Ok(())
}

fn private_mounts(socket: &Path, say: &dyn Fn(&str)) -> Result<()> {
    sys::unshare_mounts().context("creating a private mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("making mounts private")?;
    replace("/etc/resolv.conf", RESOLVER, say)?;
    if let Ok(text) = fs::read_to_string("/etc/nsswitch.conf") {
        replace("/etc/nsswitch.conf", &only_files_and_dns(&text), say)?;
    }
    for deputy in deputies(socket) {
        mount_bind("/dev/null", &deputy).with_context(|| format!("masking {}", deputy.display()))?;
        say(&format!("masked {}", deputy.display()));
    }
    Ok(())
}

/// The deputies that exist here, each once, links followed.
fn deputies(socket: &Path) -> Vec<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtimes = runtime.into_iter().chain([PathBuf::from(format!("/run/user/{uid}"))]);
    let of_user = runtimes.flat_map(|directory| USER_DEPUTIES.map(|name| directory.join(name)));
    let all = DEPUTIES.iter().map(PathBuf::from).chain(of_user).chain([socket.to_owned()]);
    let mut found: Vec<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).filter(|p| is_socket(p)).collect();
    found.sort();
    found.dedup();
    found
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.file_type().is_socket())
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

/// Closes inherited sockets that belong to other networks; standard input, output and error stay as they are.
fn close_foreign_sockets(say: &dyn Fn(&str)) -> Result<()> {
    let entries = fs::read_dir("/proc/self/fd").context("listing open descriptors")?;
    let numbers: Vec<RawFd> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
    for number in numbers {
        if is_foreign(number) {
            sys::close(number);
            say(&format!("closed the inherited descriptor {number}"));
        }
    }
    Ok(())
}

/// Whether a descriptor is inherited and leads to another network.
fn is_foreign(number: RawFd) -> bool {
    // Our own are closed on exec, inherited ones never are.
    if sys::is_close_on_exec(number) {
        return false;
    }
    let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    let target = target.to_string_lossy();
    // Rings keep the network they were made in; namespaces are doors to it.
    if target.contains("io_uring") || target.starts_with("net:[") || target == "/dev/net/tun" {
        return true;
    }
    target.starts_with("socket:") && sys::socket_domain(number).is_some_and(|domain| domain != AddressFamily::UNIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_looked_up_in_files_and_dns_alone() {
        let text = "passwd: files sss\n hosts: files resolve [!UNAVAIL=return] dns\nnetworks: files";
        assert_eq!(only_files_and_dns(text), "passwd: files sss\nnetworks: files\nhosts: files dns\n");
    }
}
