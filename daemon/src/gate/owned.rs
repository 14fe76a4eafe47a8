//! Namespaces that belong to another user: made by a child that takes the user's place, so that the user may enter them.
//!
//! ```text
//!  helper -------- fork --> child: becomes the user, unshares user and network namespace
//!     maps the user  <-- descriptors of both --+   ends
//! ```
//! Takes root, or [`NEEDED`] in a service of a user of its own. The helper stays outside of the user namespace: it opens the
//! TUN device and aborts sockets by its own rights. The user may stop the child, as all that is in a namespace of hers or his: it has
//! a limit, and the helper the right to end it, since the child's real user stays the helper's.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Gid, Pid, Signal, Uid, WaitOptions, getgid, getuid, kill_process, waitpid};
use rustix::thread::{
    CapabilitySet, UnshareFlags, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::Owner;
use super::netns::{Reply, receive_reply, send_reply};
use super::sys::{self, Fork};

/// To become other users for a moment, to make their namespaces and to enter and furnish them.
const NEEDED: CapabilitySet =
    CapabilitySet::SETUID.union(CapabilitySet::SETGID).union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::NET_ADMIN);

/// How long the child may take, which has a handful of system calls to do: less than the daemon waits for the helper.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether this process, which is not root, has what it takes to make namespaces for other users.
pub fn is_able() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(NEEDED))
}

/// Both namespaces: network, then user. Only `owner` and root may enter them.
pub(super) fn namespaces(owner: Owner) -> io::Result<(OwnedFd, OwnedFd)> {
    from_child(owner, LIMIT, |theirs| become_and_send(owner, &theirs))
}

/// What a child makes that does this, if it takes no longer than `limit`.
fn from_child(
    owner: Owner,
    limit: Duration,
    does: impl FnOnce(OwnedFd) -> io::Result<()>,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = match sys::fork()? {
        Fork::Child => {
            drop(ours);
            sys::end(i32::from(does(theirs).is_err()));
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    set_socket_timeout(&ours, Timeout::Recv, Some(limit))?;
    let made = take_over(owner, child, &ours);
    end(child)?;
    made
}

/// The namespaces live by their descriptors; the child may have been stopped, and would not end by itself then.
fn end(child: Pid) -> io::Result<()> {
    kill_process(child, Signal::KILL)?;
    rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))?;
    Ok(())
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
    let (real_uid, real_gid) = (getuid(), getgid());
    set_thread_groups(&[])?;
    set_thread_res_gid(real_gid, Gid::from_raw(gid), real_gid)?;
    set_thread_res_uid(real_uid, Uid::from_raw(uid), real_uid)?;
    // Where ordinary users may not have user namespaces, root still may make them one.
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustix::thread::CapabilitySets;

    use super::*;

    const SOMEBODY: Owner = Owner { uid: 65534, gid: 65534 };

    /// A child that does this, and our end of its socket.
    fn child(does: impl FnOnce(OwnedFd)) -> (Pid, OwnedFd) {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        match sys::fork().unwrap() {
            Fork::Child => {
                drop(ours);
                does(theirs);
                sys::end(0)
            }
            Fork::Parent(child) => (child, ours),
        }
    }

    /// Takes root. A service of a user of its own may not end other users' processes.
    #[test]
    fn the_child_is_ended_without_the_right_to_end_those_of_others() {
        if !is_able() {
            return;
        }
        let (child, ours) = child(|theirs| become_and_send(SOMEBODY, &theirs).unwrap());
        let made = take_over(SOMEBODY, child, &ours);
        let before = capabilities(None).unwrap();
        let effective = before.effective.difference(CapabilitySet::KILL);
        set_capabilities(None, CapabilitySets { effective, ..before }).unwrap();
        let ended = end(child);
        set_capabilities(None, before).unwrap();
        assert!(made.is_ok() && ended.is_ok(), "{made:?} {ended:?}");
    }

    /// Its owner may stop it, since it is hers or his by then.
    #[test]
    fn a_child_that_is_stopped_is_waited_for_no_longer_than_the_limit_and_ended() {
        let (made_tx, made_rx) = std::sync::mpsc::channel();
        let (mut pid_read, mut pid_write) = io::pipe().unwrap();
        std::thread::spawn(move || {
            let made = from_child(SOMEBODY, Duration::from_millis(10), |theirs| {
                pid_write.write_all(&rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes())?;
                kill_process(rustix::process::getpid(), Signal::STOP)?;
                drop(theirs);
                Ok(())
            });
            made_tx.send(made.map(drop))
        });
        let late = made_rx.recv_timeout(Duration::from_secs(60)).expect("the limit holds").unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::WouldBlock);
        let mut child = [0; 4];
        pid_read.read_exact(&mut child).unwrap();
        let child = Pid::from_raw(i32::from_ne_bytes(child)).unwrap();
        assert!(kill_process(child, Signal::CONT).is_err(), "it is gone");
    }

    #[test]
    fn the_limit_ends_before_the_daemon_gives_up() {
        assert!(LIMIT < super::super::netns::PATIENCE);
    }
}
