//! The program's groups of processes (cgroups): its own is the root of what it sees, since names of groups tell who runs it and
//! where (`user@1000.service`, a container's number).
//!
//! ```text
//! /proc/self/cgroup                0::/user.slice/user-1000.slice/...   becomes   0::/
//! /sys/fs/cgroup/user.slice/...    bound over                                     /sys/fs/cgroup
//! ```
//! Both or none: a runtime that reads its limits (Java) joins the two.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::mount_bind_recursive;
use rustix::thread::UnshareFlags;

use crate::mountinfo::{self, Mount};
use crate::{reason, sys};

/// A folder of the process' own group, and where its hierarchy lies.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    folder: PathBuf,
    over: PathBuf,
}

/// What is left to be done once /sys is the program's own.
pub(crate) struct Groups(Vec<Own>);

/// Makes this process' own groups the roots of what it hears of.
///
/// # Errors
/// When the kernel lets nobody do so, or the folders of the groups are not to be seen: then all stays as it is.
pub(crate) fn hide() -> Result<Groups> {
    // A kernel without any has no such file.
    let read = |file| fs::read_to_string(file).map_err(|error| reason::lacking(format!("reading {file}: {error}")));
    let mounts = mountinfo::own().context("reading what is mounted")?;
    let own = own(&read("/proc/self/cgroup")?, &mounts);
    for Own { folder, .. } in &own {
        if !is_plain(folder) || !folder.is_dir() {
            return Err(reason::lacking(format!("{} is not to be seen", folder.display())).into());
        }
    }
    sys::unshare(UnshareFlags::NEWCGROUP).context("creating a space for groups of processes")?;
    Ok(Groups(own))
}

impl Groups {
    /// Lays their folders where the roots are.
    pub(crate) fn lay(&self, say: &dyn Fn(&str)) -> Result<()> {
        for Own { folder, over } in &self.0 {
            mount_bind_recursive(folder, over).with_context(|| format!("laying {} over", folder.display()))?;
        }
        say("hid the names of groups of processes");
        Ok(())
    }
}

/// Nothing leads up: such a group lies outside of what can be seen.
fn is_plain(folder: &Path) -> bool {
    !folder.components().any(|part| part == Component::ParentDir)
}

/// The own group in each hierarchy that is mounted and in which it is not the root already.
fn own(groups: &str, mounts: &[Mount]) -> Vec<Own> {
    let mut found = Vec::new();
    for Mount { root, point, kind, options, .. } in mounts {
        let (kind, options) = (kind.to_string_lossy(), options.to_string_lossy());
        let Some(path) = groups.lines().find_map(|line| path_in(line, &kind, &options)) else { continue };
        let below = Path::new(path).strip_prefix(root).unwrap_or_else(|_| Path::new(""));
        if below != Path::new("") {
            found.push(Own { folder: point.join(below), over: point.clone() });
        }
    }
    found
}

/// The path of a line of /proc/self/cgroup (`number:controllers:path`) if it is of the hierarchy of that mount.
fn path_in<'a>(line: &'a str, kind: &str, options: &str) -> Option<&'a str> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let has: BTreeSet<&str> = options.split(',').collect();
    let is_of = match kind {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => !controllers.is_empty() && controllers.split(',').all(|one| has.contains(one)),
        _ => false,
    };
    is_of.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, mounts: &str) -> Vec<(String, String)> {
        let show = |path: &Path| path.display().to_string();
        own(groups, &mountinfo::all(mounts.as_bytes())).iter().map(|own| (show(&own.folder), show(&own.over))).collect()
    }

    #[test]
    fn the_own_group_is_found_below_its_hierarchy() {
        let mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\nodd";
        let own = found("0::/user.slice/user-7.slice\n", mounts);
        assert_eq!(own, [("/sys/fs/cgroup/user.slice/user-7.slice".to_owned(), "/sys/fs/cgroup".to_owned())]);
        assert!(found("0::/\n", mounts).is_empty(), "it is the root");
        assert!(found("odd line\n", mounts).is_empty());
    }

    #[test]
    fn hierarchies_of_before_are_told_apart_by_what_they_control() {
        let mounts = "1 0 0:1 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n2 0 0:2 / /c/systemd rw - cgroup cgroup rw,name=systemd\n\
                      3 0 0:3 / /c/unified rw - cgroup2 cgroup2 rw\n4 0 0:4 /docker/ab /c/memory rw - cgroup cgroup rw,memory";
        let groups = "4:cpu,cpuacct:/a\n3:name=systemd:/\n2:memory:/docker/ab/c\n1:pids:/x\n0::/u\n";
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(folder, over)| ((*folder).to_owned(), (*over).to_owned())).collect()
        };
        let expected = [("/c/cpu/a", "/c/cpu"), ("/c/unified/u", "/c/unified"), ("/c/memory/c", "/c/memory")];
        assert_eq!(found(groups, mounts), owned(&expected));
    }

    #[test]
    fn a_group_outside_of_what_can_be_seen_leads_nowhere() {
        let mounts = mountinfo::all(b"3 0 0:3 / /c rw - cgroup2 cgroup2 rw");
        let [own] = &own("0::/../b\n", &mounts)[..] else { panic!("one") };
        assert!(!is_plain(&own.folder) && is_plain(Path::new("/c/b")));
    }
}
