//! Which setup packages were opened, on disk: a node that was restarted with its path keys opens none a second time (I5).
//!
//! Two files take turns. A package expires within [`EXPIRES_MAX`]; a file that has rested for so long holds nothing of worth and is
//! begun anew. Entries are handed to the system, not to the disk: they outlive the process, however it ends, but not the system.
//! So each file names the boot that it is of, and of an earlier boot nothing counts as known.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use phantom_proto::path::{EXPIRES_MAX, Seen};

use crate::datadir::write_private;
use crate::os;

/// The files in the data directory.
const FILES: [&str; 2] = ["packages.0", "packages.1"];

/// Where Linux names its boot, in 36 characters and a line feed.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Length of an entry: hash(32) ‖ expiry(8).
const ENTRY: usize = 40;

/// Keeps what was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    paths: [PathBuf; 2],
    boot: Vec<u8>,
    /// Which file is written, and since when.
    turn: usize,
    since: u64,
    /// `None`: nothing can be kept just now.
    file: Option<File>,
    /// See [`Earlier::unsure_until`]; also for whoever is started next.
    unsure_until: u64,
}

/// What earlier runs opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// What is known of it and has not expired.
    pub(crate) seen: Vec<Seen>,
    /// Any other package that expires until then may have been opened too: the system was booted since, or the disk failed.
    pub(crate) unsure_until: u64,
}

impl Opened {
    /// Opens the files in `data`.
    pub(crate) fn open(data: &Path, now: u64) -> (Self, Earlier) {
        // A system without it: each start counts as a boot.
        Self::of_boot(data, fs::read(BOOT_ID).unwrap_or_default(), now)
    }

    // protocol: P7
    fn of_boot(data: &Path, boot: Vec<u8>, now: u64) -> (Self, Earlier) {
        let paths = FILES.map(|name| data.join(name));
        let unsure = || Earlier { seen: Vec::new(), unsure_until: now.saturating_add(EXPIRES_MAX) };
        let earlier = read(&paths, &boot, now).unwrap_or_else(unsure);
        let mut opened = Self { paths, boot, turn: 0, since: now, file: None, unsure_until: earlier.unsure_until };
        // Whole before the old files go: a crash in between must lose nothing.
        let begun = write_private(&opened.paths[0], &opened.content(&earlier.seen))
            .and_then(|()| gone(fs::remove_file(&opened.paths[1])))
            .and_then(|()| OpenOptions::new().append(true).open(&opened.paths[0]));
        match begun {
            Ok(file) => opened.file = Some(file),
            Err(error) => opened.give_up(now, &error),
        }
        (opened, earlier)
    }

    /// Keeps one; when this returns it outlives the process.
    pub(crate) fn keep(&mut self, now: u64, seen: Seen) {
        if now >= self.since.saturating_add(EXPIRES_MAX) {
            self.take_turn(now);
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&entry(&seen))
        {
            self.give_up(now, &error);
        }
    }

    fn take_turn(&mut self, now: u64) {
        if self.file.is_none() {
            // What was missed until now.
            self.unsure_until = now.saturating_add(EXPIRES_MAX);
        }
        (self.turn, self.since) = (1 - self.turn, now);
        let content = self.content(&[]);
        let new = os::open_private(&self.paths[self.turn]).and_then(|file| file.set_len(0).map(|()| file));
        match new.and_then(|mut file| file.write_all(&content).map(|()| file)) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.give_up(now, &error),
        }
    }

    fn content(&self, seen: &[Seen]) -> Vec<u8> {
        let head = [&self.boot[..], &self.unsure_until.to_be_bytes()].concat();
        head.into_iter().chain(seen.iter().flat_map(entry)).collect()
    }

    /// A list with a hole is worse than none: without the files the next start knows that it knows nothing.
    fn give_up(&mut self, now: u64, error: &io::Error) {
        tracing::warn!(
            "opened packages cannot be kept ({error}): after a restart this node serves nobody for two minutes"
        );
        (self.file, self.since) = (None, now);
        for path in &self.paths {
            if let Err(error) = gone(fs::remove_file(path)) {
                tracing::error!("{} cannot be removed either: {error}", path.display());
            }
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn entry(seen: &Seen) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..32].copy_from_slice(&seen.package);
    entry[32..].copy_from_slice(&seen.expires.to_be_bytes());
    entry
}

/// What the files hold. `None`: not all that was opened.
fn read(paths: &[PathBuf; 2], boot: &[u8], now: u64) -> Option<Earlier> {
    let mut earlier = Earlier { seen: Vec::new(), unsure_until: 0 };
    let mut found = false;
    for path in paths {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // One of them rests.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return None,
        };
        let (unsure_until, entries) = bytes.strip_prefix(boot)?.split_first_chunk()?;
        let (entries, torn) = entries.as_chunks::<ENTRY>();
        if !torn.is_empty() {
            return None;
        }
        found = true;
        earlier.unsure_until = earlier.unsure_until.max(u64::from_be_bytes(*unsure_until));
        earlier.seen.extend(entries.iter().filter_map(seen).filter(|seen| seen.expires > now));
    }
    (found && !boot.is_empty()).then_some(earlier)
}

fn seen(entry: &[u8; ENTRY]) -> Option<Seen> {
    let (package, expires) = entry.split_first_chunk()?;
    Some(Seen { package: *package, expires: u64::from_be_bytes(expires.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn one(number: u8, expires: u64) -> Seen {
        Seen { package: [number; 32], expires }
    }

    fn open(dir: &Path, now: u64) -> (Opened, Earlier) {
        Opened::of_boot(dir, b"this boot".to_vec(), now)
    }

    /// Numbers of the known ones, when nothing else may have been opened.
    fn known(earlier: Earlier, now: u64) -> Vec<u8> {
        assert!(earlier.unsure_until <= now, "unsure");
        let mut numbers: Vec<_> = earlier.seen.iter().map(|seen| seen.package[0]).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A run that began long ago, so that nothing before it matters.
    fn settled(dir: &Path) -> Opened {
        open(dir, NOW - EXPIRES_MAX).0
    }

    #[test]
    fn what_was_opened_is_known_after_any_end_of_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = settled(dir.path());
        opened.keep(NOW, one(1, NOW + 50));
        opened.keep(NOW + 1, one(2, NOW + 120));
        // Nothing says good-bye: `opened` is still there.
        let (mut again, earlier) = open(dir.path(), NOW + 40);
        assert_eq!(known(earlier, NOW + 40), [1, 2]);
        again.keep(NOW + 41, one(3, NOW + 150));
        for now in [NOW + 60, NOW + 61] {
            assert_eq!(
                known(open(dir.path(), now).1, now),
                [2, 3],
                "a start loses what the runs before the last opened"
            );
        }
    }

    /// Whatever the moments, no package that has not expired is forgotten, and the files stay small.
    #[test]
    fn turns_forget_nothing_that_has_not_expired() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = settled(dir.path());
        for second in 0..1000u64 {
            let now = NOW + second;
            opened.keep(now, one((second % 251) as u8, now + EXPIRES_MAX));
            if second % 97 == 0 {
                let (next, earlier) = open(dir.path(), now);
                assert_eq!(known(earlier, now).len() as u64, second.min(EXPIRES_MAX - 1) + 1);
                opened = next;
            }
        }
        let files = FILES.iter().filter_map(|name| fs::metadata(dir.path().join(name)).ok());
        let length: u64 = files.map(|file| file.len()).sum();
        assert!(length <= 4 * EXPIRES_MAX * ENTRY as u64, "{length}");
    }

    /// Unsure of everything that does not expire before this.
    fn unsure(earlier: &Earlier, now: u64) -> bool {
        earlier.seen.is_empty() && earlier.unsure_until == now + EXPIRES_MAX
    }

    // protocol: P7
    #[test]
    fn after_a_boot_or_a_torn_entry_nothing_counts_as_known() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unsure(&open(dir.path(), NOW).1, NOW), "without files");
        settled(dir.path()).keep(NOW, one(1, NOW + 50));
        assert!(unsure(&Opened::of_boot(dir.path(), Vec::new(), NOW).1, NOW), "a system that names no boots");
        settled(dir.path()).keep(NOW, one(1, NOW + 50));
        let boot = || Opened::of_boot(dir.path(), b"next boot".to_vec(), NOW).1;
        assert!(unsure(&boot(), NOW));
        // It stays so over one more restart.
        assert_eq!(boot().unsure_until, NOW + EXPIRES_MAX);
        settled(dir.path()).keep(NOW, one(1, NOW + 50));
        OpenOptions::new().append(true).open(dir.path().join(FILES[0])).unwrap().write_all(&[1; 7]).unwrap();
        assert!(unsure(&open(dir.path(), NOW).1, NOW));
    }

    #[test]
    fn a_list_with_a_hole_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = settled(dir.path());
        opened.keep(NOW, one(1, NOW + 50));
        // A file that takes no bytes, as on a full disk.
        opened.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        opened.keep(NOW + 1, one(2, NOW + 50));
        opened.keep(NOW + 100, one(3, NOW + 200));
        assert!(FILES.iter().all(|name| !dir.path().join(name).exists()));
        // There is room again, and the hole is remembered as long as it matters.
        opened.keep(NOW + 121, one(4, NOW + 240));
        let (_, earlier) = open(dir.path(), NOW + 122);
        assert_eq!((earlier.seen.len(), earlier.unsure_until), (1, NOW + 121 + EXPIRES_MAX));
    }
}
