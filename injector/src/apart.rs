//! Sets the program apart from all others by Landlock: it gets at no process that it did not start (ptrace, memory,
//! descriptors, /proc/PID), and at no abstract socket outside.
//!
//! Being the same user is enough for all of those otherwise, and root may become any user.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What surrounds the program besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walls {
    /// Namespaces of its own.
    Own,
    /// None: it lives among the user's other programs.
    None,
}

/// Asks for the version instead of a rule set.
const VERSION: libc::c_ulong = 1;

/// The first version that knows scopes (Linux 6.12), and the first that can let renames be (Linux 5.19).
const SCOPES: i64 = 6;
const RENAMES: i64 = 2;

/// Abstract sockets of others.
const ABSTRACT_SOCKETS: u64 = 1;

/// Moving files between directories.
const REFER: u64 = 1 << 13;

/// What a rule set concerns, as the kernel wants it.
#[repr(C)]
struct Concerns {
    files: u64,
    ports: u64,
    scopes: u64,
}

/// What is allowed below a directory; the kernel's has no padding at its end.
#[repr(C, packed)]
struct Below {
    allowed: u64,
    directory: i32,
}

/// Among the user's other programs, their abstract sockets stay: there X11 has no second try, and deputies are not masked.
///
/// For this process and all its descendants, for ever; no_new_privs must be set. Says how far it goes here.
pub(crate) fn set_apart(walls: Walls) -> io::Result<&'static str> {
    let version = version();
    if version < RENAMES {
        return Ok("the kernel has no Landlock: other programs of the same user stay within reach");
    }
    let (concerns, said) = if version < SCOPES || walls == Walls::None {
        // Every domain separates processes. It must concern something: moving files, which is allowed everywhere.
        (Concerns { files: REFER, ports: 0, scopes: 0 }, "set apart from other processes; mounts cannot be changed")
    } else {
        let concerns = Concerns { files: 0, ports: 0, scopes: ABSTRACT_SOCKETS };
        (concerns, "set apart from other processes and abstract sockets")
    };
    let rules = rule_set(&concerns)?;
    if concerns.files != 0 {
        allow_everywhere(&rules)?;
    }
    // SAFETY: two numbers, one of them an open descriptor.
    succeed(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })?;
    Ok(said)
}

fn version() -> i64 {
    // SAFETY: with this flag the kernel reads nothing.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Concerns>(), 0, VERSION) }
}

fn rule_set(concerns: &Concerns) -> io::Result<OwnedFd> {
    // Older kernels know the first field only; those get no more than that.
    let size = if concerns.scopes == 0 { size_of::<u64>() } else { size_of::<Concerns>() };
    // SAFETY: the kernel reads `size` bytes, which are there.
    let number = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *concerns, size, 0) };
    let number = i32::try_from(succeed(number)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn allow_everywhere(rules: &OwnedFd) -> io::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let root = File::open("/")?;
    let below = Below { allowed: REFER, directory: root.as_raw_fd() };
    // SAFETY: the kernel reads one `Below`, which lives through the call.
    let added =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const below, 0) };
    succeed(added).map(drop)
}

fn succeed(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
