//! What a program may still do: no new privileges, and of root's capabilities only those that reach no network but ours.

use std::fs;
use std::io;

use rustix::thread::{CapabilitySet, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

/// What servers such as sshd or nginx need of root. Never SYS_ADMIN, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE, BPF and
/// the like: each of them is a way into another network namespace.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::AUDIT_WRITE);

/// Takes back whose login this process descends from, for who may (root): only where there is none may one be set without a
/// capability that the program does not get, and PAM refuses logins of which it cannot say whose they are.
pub(crate) fn forget_login() {
    let _ = fs::write("/proc/self/loginuid", u32::MAX.to_string());
}

/// Drops everything else for this process and its descendants, for ever.
///
/// The bounding set stays as it is. Under no_new_privs, exec adds nothing to what a process holds: what root or the file's
/// capabilities would add, the kernel takes away again, and only new user namespaces, which the filter keeps shut where they
/// matter, would give more, whatever the set. So the set protects nobody. To cut it takes CAP_SETPCAP, which no ordinary user
/// has; and files with capabilities that are not in it cannot be executed at all, where they start without them otherwise.
pub(crate) fn drop_all_but_safe() -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let mut sets = capabilities(None)?;
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        *set &= KEPT;
    }
    set_capabilities(None, sets)?;
    Ok(())
}
