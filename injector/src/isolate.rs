//! The namespace way: the program's only network is the phantom namespace, its only resolver the gate.

use std::fs;
use std::os::fd::{AsFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::apart::Walls;
use crate::control::Namespaces;
use crate::filter::Doors;
use crate::mounts::{self, View};
use crate::{apart, devices, doors, privileges, run_folder, sys};

/// Moves this process into the namespaces for good. On any error the program must not be started.
///
/// `say` hears about each step. Returns whether a user namespace keeps it from those of others.
pub(crate) fn enter(spaces: &Namespaces, view: &View<'_>, say: &dyn Fn(&str)) -> Result<Doors> {
    let doors = enter_namespaces(spaces, say)?;
    sys::unshare(UnshareFlags::NEWNS).context("creating a private mount namespace")?;
    mounts::make_private(view, say)?;
    Ok(doors)
}

/// What every way ends with: no descriptor of another network, no privilege that leads there.
pub(crate) fn give_up_the_rest(walls: Walls, doors: Doors, keeps_cores: bool, say: &dyn Fn(&str)) -> Result<()> {
    close_foreign_sockets(say)?;
    privileges::forget_login();
    privileges::drop_all_but_safe().context("dropping privileges")?;
    say("dropped capabilities, no new privileges");
    doors::shut(doors, keeps_cores).context("installing the filter of system calls")?;
    say(apart::set_apart(walls).context("setting the program apart from other processes")?);
    Ok(())
}

/// By own rights if they suffice, as root's do: then it keeps its place among users. Else through the user namespace.
fn enter_namespaces(spaces: &Namespaces, say: &dyn Fn(&str)) -> Result<Doors> {
    let mut doors = Doors::Shut;
    let network = || move_into_link_name_space(spaces.network.as_fd(), Some(LinkNameSpaceType::Network));
    if network().is_err() {
        if let Some(user) = &spaces.user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)).context(
                "entering the user namespace of the session failed: it opens where the daemon lives alone, not from \
                 another user namespace (a container's), and to nobody whom a filter of system calls keeps from it; try \
                 --isolation inject",
            )?;
            doors = Doors::Walled;
            say("entered the user namespace");
        }
        network().context(
            "entering the phantom namespace failed: is phantom-run itself confined (by seccomp or a container)? Try \
             --isolation inject",
        )?;
    }
    say("entered the phantom network namespace");
    Ok(doors)
}

/// Closes inherited sockets that belong to other networks; standard input, output and error stay as they are.
///
/// Directories are opened anew: below those of the outer mounts lies what is masked in ours.
fn close_foreign_sockets(say: &dyn Fn(&str)) -> Result<()> {
    for number in inherited()? {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        if sys::is_place(number) {
            if !sys::open_anew(number, &target, run_folder::may_be_ours(&target)) {
                sys::close(number);
                say(&format!("closed the inherited directory {number}"));
            }
        } else if number > 2 && is_foreign(number, &target) {
            sys::close(number);
            say(&format!("closed the inherited descriptor {number}"));
        }
    }
    Ok(())
}

/// The descriptors that came from whoever started us: our own are closed on exec, those never are.
pub(crate) fn inherited() -> Result<Vec<RawFd>> {
    let entries = fs::read_dir("/proc/self/fd").context("listing open descriptors")?;
    let numbers: Vec<RawFd> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    Ok(numbers.into_iter().filter(|number| sys::is_inherited(*number)).collect())
}

/// What the kernel makes without a file, and that stays: what it tells concerns whoever made it alone.
const HARMLESS: [&str; 5] = ["[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "inotify"];

/// Whether an inherited descriptor leads to another network, or to processes in it: rings keep the network that they were made in,
/// namespaces are doors to it, and there are ever new kinds of such objects.
fn is_foreign(number: RawFd, target: &Path) -> bool {
    let target = target.to_string_lossy();
    match target.split_once(':') {
        _ if target.starts_with('/') => devices::acts_outside(number, Path::new(&*target)),
        Some(("socket", _)) => sys::is_foreign_socket(number),
        Some(("anon_inode", kind)) => !HARMLESS.contains(&kind),
        Some(("pipe", _)) => false,
        _ => true,
    }
}
