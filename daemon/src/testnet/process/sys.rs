//! What a process of a private network does between fork and exec; the only unsafe file of these networks.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The first descriptor that is nobody's standard one.
const FIRST: libc::c_uint = 3;

/// Lets the command start in a session of its own, with nothing open but its standard descriptors.
pub(super) fn detached(command: &mut Command) -> &mut Command {
    // SAFETY: system calls alone, without memory or locks: whatever the other threads of this process did at the fork.
    unsafe { command.pre_exec(leave) }
}

/// Out of the terminal's reach: Ctrl-C is for the one who asked for the network, and that one stops the nodes.
fn leave() -> io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: three numbers; descriptors stay open until exec, so nobody who owns one is disturbed.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed())
    };
    if closed < 0 { one_by_one() } else { Ok(()) }
}

/// The same before Linux 5.11.
fn one_by_one() -> io::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    for number in FIRST..libc::c_uint::try_from(most).unwrap_or(1 << 20) {
        // SAFETY: numbers; one that is not open gives an error, nothing worse.
        unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}
