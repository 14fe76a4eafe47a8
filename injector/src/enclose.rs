//! Namespaces of its own for a program whose sockets come from elsewhere: an empty network, and mounts as it shall see them.
//!
//! Nothing leads out of the empty network, so what gets past a filter or a preloaded library reaches nothing; the host's
//! abstract sockets stay behind, and in a user namespace of its own the program gets at no process outside. Root needs
//! none to make the others, and none is made, since a single user would be mapped into it: the filter shuts the doors then.

use std::fs;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::UnshareFlags;

use crate::filter::Doors;
use crate::mounts::{self, View};
use crate::sys;

/// Moves this process into namespaces of its own; says whether processes outside are out of its reach.
///
/// # Errors
/// When the system permits none; then this process is to be given up.
pub(crate) fn enter(view: &View<'_>, say: &dyn Fn(&str)) -> Result<Doors> {
    let mut doors = Doors::Shut;
    let spaces = UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    if sys::unshare(spaces).is_err() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        sys::unshare(spaces | UnshareFlags::NEWUSER).context("creating a user namespace")?;
        let maps = [("setgroups", "deny".to_owned()), ("uid_map", map(uid)), ("gid_map", map(gid))];
        for (file, text) in maps {
            fs::write(format!("/proc/self/{file}"), text).with_context(|| match uid {
                0 => "mapping the user: root may with CAP_SETFCAP only, other users may without",
                _ => "mapping the user",
            })?;
        }
        doors = Doors::Walled;
        say("made a user namespace");
    }
    say("made an empty network namespace");
    loopback_up().context("starting the loopback interface")?;
    mounts::make_private(view, say)?;
    Ok(doors)
}

/// The user as itself and nobody else.
fn map(id: u32) -> String {
    format!("{id} {id} 1")
}

/// Java takes a machine without any IPv6 address for one without IPv6.
fn loopback_up() -> Result<()> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(sys::interface_up(&any, "lo")?)
}
