//! Lays something over a file in the program's mounts, long after they were made, in a process of its own: the keeper has threads by
//! then, and nobody who has any may enter a user namespace.
//!
//! ```text
//! keeper -- /proc/self/exe __lay MODE FILE     standard input: the text; output and error: the mounts and users to enter
//! ```

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{CWD, fstat};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::host::Cover;
use crate::link::Spaces;
use crate::scratch::Scratch;
use crate::{mounts, sys};

/// Argument that makes the launcher do this.
pub(crate) const ARGUMENT: &str = "__lay";

/// In the place of a mode: /dev/null.
const NOTHING: &str = "nothing";

/// Lays a file of ours over another. Whether that was done the mounts say.
pub(crate) fn cover(spaces: &Spaces, cover: &Cover) -> io::Result<()> {
    lay(spaces, &format!("{:o}", cover.mode()), &cover.over, &cover.text)
}

/// Masks a device or a socket.
pub(crate) fn mask(spaces: &Spaces, file: &Path) -> io::Result<()> {
    lay(spaces, NOTHING, file, &[])
}

fn lay(spaces: &Spaces, mode: &str, over: &Path, text: &[u8]) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, mode]).arg(over).env_clear();
    command.stdin(OwnedFd::from(theirs)).stdout(spaces.mounts.try_clone()?).stderr(spaces.users.try_clone()?);
    let mut child = command.spawn()?;
    // Or nobody would see its end.
    drop(command);
    let written = ours.write_all(text).and_then(|()| ours.shutdown(Shutdown::Write));
    let _ = ours.read_to_end(&mut Vec::new());
    // The keeper waits for all its children, and may have been first.
    let _ = child.wait();
    written
}

/// The process that this starts: its exit status.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let (Some(mode), Some(over)) = (arguments.next(), arguments.next()) else { return 2 };
    i32::from(sys::hide().map_err(Into::into).and_then(|()| work(&mode, Path::new(&over))).is_err())
}

fn work(mode: &OsStr, over: &Path) -> Result<()> {
    let mut text = Vec::new();
    fs::File::from(stdin().try_clone_to_owned()?).read_to_end(&mut text)?;
    let mounts = stdout();
    enter_users(stderr())?;
    move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    if mode == NOTHING {
        return Ok(mounts::mask(over)?);
    }
    let mode = mode.to_str().and_then(|mode| u32::from_str_radix(mode, 8).ok()).context("no mode")?;
    // In a copy of the mounts, so that the program sees nothing of it.
    sys::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let file = Scratch::mount()?.take(&text, mode)?;
    move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    Ok(move_mount(&file, "", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Unless this process is there already.
fn enter_users(users: BorrowedFd<'_>) -> Result<()> {
    let own = fs::metadata("/proc/self/ns/user")?;
    if fstat(users)?.st_ino != own.ino() {
        move_into_link_name_space(users, Some(LinkNameSpaceType::User))?;
    }
    Ok(())
}
