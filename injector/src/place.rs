//! A folder that every user reaches, for the library and the way to the daemon where theirs is one of root's alone.
//!
//! A server that gives root up, and each program that it starts then, must still find them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind};

/// Mount points of the kernel that are empty, or root's alone and of no use to programs without its capabilities. Most
/// machines have all of them.
const PLACES: [&str; 5] =
    ["/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing", "/sys/fs/pstore", "/sys/fs/bpf"];

/// The same files where everybody reaches them; as they are when they can be reached already, or when nobody here could
/// become another user. Changes this process' mounts, which are its own already.
pub(crate) fn reachable(files: [PathBuf; 2], say: &dyn Fn(&str)) -> [PathBuf; 2] {
    if !rustix::process::geteuid().is_root() || files.iter().all(|file| is_open_to_all(file)) {
        return files;
    }
    match lay_out(&files) {
        Ok(found) => {
            say("laid the library and the way to the daemon where every user reaches them");
            found
        }
        Err(error) => {
            say(&format!("whoever gives root up has no network, as the library or the daemon is root's: {error:#}"));
            files
        }
    }
}

fn lay_out(files: &[PathBuf; 2]) -> Result<[PathBuf; 2]> {
    let place = PLACES.iter().map(Path::new).find(|place| place.is_dir()).context("there is no place for them")?;
    mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"size=64k,mode=755"))
        .context("making a place for them")?;
    let mut found = files.clone();
    for file in &mut found {
        let at = place.join(file.file_name().context("a file without a name")?);
        File::create(&at).context("making a place for them")?;
        mount_bind(&*file, &at).context("laying them there")?;
        *file = at;
    }
    Ok(found)
}

/// Whether every user may come to it and read it, or connect to it.
fn is_open_to_all(file: &Path) -> bool {
    let may = |path: &Path, mode: u32| fs::metadata(path).is_ok_and(|about| about.mode() & mode == mode);
    may(file, 0o004) && file.ancestors().skip(1).filter(|above| *above != Path::new("")).all(|above| may(above, 0o001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_the_way_that_is_one_users_alone_is_seen() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("file");
        File::create(&file).expect("a file");
        for (mode, open) in [(0o700, false), (0o711, true), (0o750, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("a mode");
            assert_eq!(is_open_to_all(&file), open, "{mode:o}");
        }
        assert!(!is_open_to_all(&dir.path().join("none")));
    }
}
