//! Sockets in folders with names of their own, of keepers of terminals and of browsers, whose folders lie where everybody may make some.
//!
//! Anybody may make hundreds of thousands of them, with as many files in each, and every start of everybody would look at all. So they
//! are looked at once in a start, and of each user only so many. What is passed over for that has still to be masked if
//! somebody listens there: the kernel names those (`services`).

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where, how the names of folders begin, and which socket; all of them when none is named. Whoever reaches a terminal's keeper types
/// there; a browser that runs outside takes over what another is to open.
pub(crate) const IN_FOLDERS: [(&str, &str, Option<&str>); 3] = [
    ("/run/screen", "S-", None),
    ("/tmp", ".org.chromium.", Some("SingletonSocket")),
    ("/tmp", ".com.google.Chrome.", Some("SingletonSocket")),
];

/// The same below the user's runtime directory.
const USER_IN_FOLDERS: [(&str, &str, Option<&str>); 1] = [("gnupg", "d.", Some("S.dirmngr"))];

/// Folders of one user with names that begin alike, and files in one: nobody has as many terminals, or browsers.
const MOST_FOLDERS: usize = 64;
const MOST_FILES: usize = 256;

/// What there is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: Vec<PathBuf>,
    /// Folders in which there is more, or of whose user there are more.
    pub(crate) crowded: Vec<PathBuf>,
}

/// As this process, or the one that it is a copy of, found it first.
pub(crate) fn found(runtimes: &[PathBuf]) -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| {
        let folders = IN_FOLDERS.iter().map(|(at, begin, name)| (PathBuf::from(at), *begin, *name));
        let terminals = terminals().map(|(at, begin)| (at, begin, None));
        let of_users = runtimes
            .iter()
            .flat_map(|directory| USER_IN_FOLDERS.map(|(at, begin, name)| (directory.join(at), begin, name)));
        let mut found = Found::default();
        folders.chain(terminals).chain(of_users).for_each(|(at, begin, name)| found.look(&at, begin, name));
        found
    })
}

/// The folders of this user's terminals.
pub(crate) fn of_own_terminals() -> Vec<PathBuf> {
    let own = terminals().flat_map(|(at, begin)| folders(&at, begin).0);
    own.filter(|(_, about)| about.uid() == own_user()).map(|(folder, _)| folder).collect()
}

/// Where this user's first terminal of each kind will be kept, if none is.
pub(crate) fn to_come() -> impl Iterator<Item = PathBuf> {
    terminals().map(|(at, begin)| at.join(format!("{begin}{}/default", own_user())))
}

/// The folders of users' terminals: where, and how their names begin.
fn terminals() -> impl Iterator<Item = (PathBuf, &'static str)> {
    let own = std::env::var_os("TMUX_TMPDIR").map(PathBuf::from);
    own.into_iter().chain([PathBuf::from("/tmp")]).map(|at| (at, "tmux-"))
}

impl Found {
    /// Files in the folders below `at` whose names begin so.
    fn look(&mut self, at: &Path, begin: &str, name: Option<&str>) {
        let (folders, crowded) = folders(at, begin);
        self.crowded.extend(crowded);
        for (folder, _) in folders {
            if let Some(name) = name {
                self.files.extend([folder.join(name)].into_iter().filter(is_no_link));
                continue;
            }
            let mut entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            self.files.extend(entries.by_ref().take(MOST_FILES).filter(is_no_link));
            if entries.next().is_some() {
                self.crowded.push(folder);
            }
        }
    }
}

/// The folders below `at` whose names begin so and that may be of use to this user: root may become anybody, others may not enter what
/// others than they and root keep for themselves, and whoever leaves theirs open means it. Then those that are too many, one for each user.
fn folders(at: &Path, begin: &str) -> (Vec<(PathBuf, Metadata)>, Vec<PathBuf>) {
    let (mut found, mut crowded, mut counts) = (Vec::new(), Vec::new(), HashMap::<u32, usize>::new());
    let own = own_user();
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(begin.as_bytes()) {
            continue;
        }
        // Of the entry itself: links of others lead to what is not theirs.
        let Some(about) = entry.metadata().ok().filter(|about| about.is_dir()) else { continue };
        if own != 0 && ![0, own].contains(&about.uid()) {
            continue;
        }
        let count = counts.entry(about.uid()).or_default();
        *count += 1;
        match *count {
            ..=MOST_FOLDERS => found.push((entry.path(), about)),
            count if count == MOST_FOLDERS + 1 => crowded.push(entry.path()),
            _ => {}
        }
    }
    (found, crowded)
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Of what lies where others write too: they must not have this user's display or service manager masked by a link to it.
#[expect(clippy::ptr_arg, reason = "a filter's argument")]
pub(crate) fn is_no_link(path: &PathBuf) -> bool {
    !path.is_symlink()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn look(at: &Path, name: Option<&str>) -> Found {
        let mut found = Found::default();
        found.look(at, "tmux-", name);
        found.files.sort();
        found
    }

    fn fill(file: PathBuf) {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, "").expect("a file");
    }

    #[test]
    fn folders_with_names_of_their_own_are_found() {
        let at = tempfile::tempdir().expect("a folder");
        for file in ["tmux-0/default", "tmux-0/other", "tmux-7/default", "else/default"] {
            fill(at.path().join(file));
        }
        assert_eq!(look(at.path(), None).files.len(), 3);
        let defaults = ["tmux-0/default", "tmux-7/default"].map(|file| at.path().join(file));
        assert_eq!(look(at.path(), Some("default")).files, defaults);
        assert_eq!(look(&at.path().join("none"), None), Found::default());
    }

    #[test]
    fn links_of_others_lead_to_nothing_that_is_masked() {
        let at = tempfile::tempdir().expect("a folder");
        let display = at.path().join("displays/X77");
        fill(display.clone());
        fill(at.path().join("tmux-7/default"));
        symlink(&display, at.path().join("tmux-7/link")).expect("a link");
        symlink(at.path().join("displays"), at.path().join("tmux-8")).expect("a link");
        assert_eq!(look(at.path(), None).files, [at.path().join("tmux-7/default")]);
        assert!(look(at.path(), Some("link")).files.is_empty());
    }

    /// As root, who looks at everybody's.
    #[test]
    fn who_makes_many_costs_a_start_only_so_much_and_hides_nobody_elses() {
        let at = tempfile::tempdir().expect("a folder");
        for number in 0..2 * MOST_FOLDERS {
            fill(at.path().join(format!("tmux-a{number}/default")));
            chown(at.path().join(format!("tmux-a{number}")), Some(65533), None).expect("root does this");
        }
        fill(at.path().join("tmux-0/default"));
        (0..2 * MOST_FILES).for_each(|number| fill(at.path().join(format!("tmux-1/{number}"))));
        let found = look(at.path(), None);
        assert!(found.files.contains(&at.path().join("tmux-0/default")));
        assert_eq!(found.files.len(), MOST_FOLDERS + 1 + MOST_FILES);
        assert_eq!(found.crowded.len(), 2, "{:?}", found.crowded);
    }
}
