//! Whom the kernel tells of crashes: a program that it starts outside for each (core_pattern), with all that was in memory. Some
//! send that on over the ordinary network (Ubuntu's whoopsie, Fedora's ABRT). Core files stay here, as without us.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whether they are handed to somebody.
pub(crate) fn are_handed_out() -> bool {
    // A program, or a socket.
    fs::read("/proc/sys/kernel/core_pattern")
        .is_ok_and(|pattern| pattern.starts_with(b"|") || pattern.starts_with(b"@"))
}

/// Has the kernel hand out none of this process and its descendants, as long as none of them sets the limit to nothing, as those do that
/// hold secrets: `doors` sees to that.
///
/// # Errors
/// Where this user may have no cores at all, which the kernel's handlers are asked about all the same.
pub(crate) fn keep() -> io::Result<()> {
    // One byte is the kernel's sign that no handler is to be started (fs/coredump.c); at zero it starts one.
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    if getrlimit(Resource::Core) == none {
        return Ok(());
    }
    Ok(setrlimit(Resource::Core, none)?)
}

/// The same where nobody is told so far, for whoever writes no core files anyway, as most: core_pattern may be changed while the program
/// runs. What it and its user make of the limit stays theirs.
pub(crate) fn keep_to_come() {
    let limit = getrlimit(Resource::Core);
    if limit.current == Some(0) {
        let maximum = limit.maximum.map(|maximum| maximum.max(1));
        // Only root may raise what nobody may exceed.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum });
    }
}
