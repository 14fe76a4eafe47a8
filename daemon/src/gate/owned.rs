//! Namespaces that belong to another user: made by a child that takes the user's place, so that the user may enter them.
//!
//! ```text
//!  helper -------- fork --> child: becomes the user, unshares user and network namespace
//!     maps the user  <-- descriptors of both --+   ends
//! ```
//! Takes root, or [`NEEDED`] in a service of a user of its own. The helper stays outside of the user namespace: it opens the
//! TUN device and aborts sockets by its own rights.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Gid, Pid, Uid, WaitOptions, waitpid};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::Owner;
use super::netns::{Reply, receive_reply, send_reply};
use super::sys::{self, Fork};

/// To become other users for a moment, to make their namespaces and to enter and furnish them.
const NEEDED: CapabilitySet =
    CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::NET_ADMIN);

/// Whether this process, which is not root, has what it takes to make namespaces for other users.
pub fn is_able() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(NEEDED))
}

/// Both namespaces: network, then user. Only `owner` and root may enter them.
pub(super) fn namespaces(owner: Owner) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = match sys::fork()? {
        Fork::Child => {
            drop(ours);
            sys::end(i32::from(become_and_send(owner, &theirs).is_err()));
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let made = take_over(owner, child, &ours);
    // The child waits for that, and ends.
    drop(ours);
    rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))?;
    made
}

/// The parent's half: receives both namespaces, and maps the user in theirs.
fn take_over(owner: Owner, child: Pid, from: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let reply = receive_reply(from)?;
    if reply.errno != 0 {
        return Err(io::Error::from_raw_os_error(reply.errno));
    }
    let mut descriptors = reply.descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
    let spaces = (next()?, next()?);
    // What belongs to a process that has changed its user is root's.
    sys::with_files_of_root(|| map_user(&child.as_raw_nonzero().to_string(), owner))?;
    Ok(spaces)
}

/// Lets one user and one group keep their numbers in the user namespace of a process; there are no others.
pub(super) fn map_user(process: &str, Owner { uid, gid }: Owner) -> io::Result<()> {
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("{uid} {uid} 1")), ("gid_map", format!("{gid} {gid} 1"))]
    {
        fs::write(format!("/proc/{process}/{file}"), text)?;
    }
    Ok(())
}

/// The child's half; what it tells is either both namespaces or why there are none.
fn become_and_send(owner: Owner, to: &OwnedFd) -> io::Result<()> {
    let reply = match make(owner) {
        Ok(descriptors) => Reply { descriptors, ..Reply::default() },
        Err(error) => Reply { errno: error.raw_os_error().unwrap_or(libc::EIO), ..Reply::default() },
    };
    send_reply(to.as_fd(), reply)?;
    // The map is written below this process's name: it stays until that is done.
    rustix::net::recv(to, &mut [0u8; 1], rustix::net::RecvFlags::empty())?;
    Ok(())
}

fn make(Owner { uid, gid }: Owner) -> io::Result<Vec<OwnedFd>> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    // Where ordinary users may not have user namespaces, root still may make them one.
    set_keep_capabilities(true)?;
    set_thread_res_uid(uid, uid, uid)?;
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    set_capabilities(None, sets)?;
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    ["net", "user"]
        .map(|kind| fs::File::open(format!("/proc/self/ns/{kind}")))
        .into_iter()
        .map(|file| Ok(file?.into()))
        .collect()
}
