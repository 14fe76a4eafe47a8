//! What operating systems do each in their own way and the daemon wants in one: users, private files, room on the disk, the end of a
//! process. One file each; a level that has more to do with the system than this has such files of its own.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as here;
#[cfg(windows)]
use windows as here;

pub(crate) use here::{
    Continued, HAS_NAMESPACES, Signals, ask_after_silence, columns, computer, file_is_ours, folder_is_ours, free_space,
    give_to_owner_of, give_up_after, interrupted, is_own, make_folder, new_private, open_private,
    raise_descriptor_limit, rename_to_new, resets, router, suspend, sync_folder, take_port_again, uptime, writable,
};

#[cfg(unix)]
pub(crate) use unix::{Asked, FileId, OwnFile, outlive_file_limit};

/// A user, and their group: whose programs they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Who this process is.
    pub fn own() -> Self {
        here::own_user()
    }
}

/// Why a folder or a file is not this user's alone, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) what: &'static str,
    pub(crate) hint: &'static str,
}
