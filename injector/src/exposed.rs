//! What is laid over a file of the system's comes off when that file is replaced: the kernel takes away what other mount
//! namespaces have there. A computer that changes networks replaces /etc/resolv.conf; its programs then ask whom that one names.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use crate::control::Contact;
use crate::mountinfo;
use crate::resolver;

/// A thread that waits, and speaks to the daemon once.
const STACK: usize = 256 * 1024;

/// Waits, in a thread of its own, until the program sees the system's resolv.conf; then names are answered where it may send it.
/// This process must not fork any more.
pub(crate) fn watch(program: Pid, contact: Contact, is_exposed: Arc<AtomicBool>) -> io::Result<()> {
    let covered = fs::canonicalize("/etc/resolv.conf")?;
    let mut mounts = File::open(format!("/proc/{}/mountinfo", program.as_raw_nonzero()))?;
    thread::Builder::new().stack_size(STACK).spawn(move || {
        while is_covered(&mut mounts, &covered).unwrap_or(false) {
            // The file says when its mounts have changed since it was read.
            let mut polled = [PollFd::new(&mounts, PollFlags::PRI)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut polled, None));
        }
        is_exposed.store(true, Ordering::Release);
        // Without a daemon there are no names; the next one is asked for them again.
        let _ = resolver::open_anew(&contact).and_then(|stand_in| Ok(resolver::serve(&stand_in)?));
    })?;
    Ok(())
}

/// Whether something lies over the file in a mount namespace.
fn is_covered(mounts: &mut File, file: &Path) -> io::Result<bool> {
    let mut text = Vec::new();
    mounts.rewind()?;
    mounts.read_to_end(&mut text)?;
    Ok(mountinfo::all(&text).iter().any(|mount| mount.point == file))
}
