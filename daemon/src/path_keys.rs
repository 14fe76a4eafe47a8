//! Path keys on disk: a file for each epoch, so that a node that was restarted serves those who hold its record; wiped when over.
//!
//! Files and not the store: that one writes changes beside what they replace, so that nothing in it can be overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use phantom_proto::ident::NodeId;
use phantom_proto::path::PathKeys;
use phantom_proto::record::Epoch;
use zeroize::Zeroizing;

use crate::datadir::{DataError, make_private_dir, read_private, write_private};

/// The folder in the data directory.
const FOLDER: &str = "path-keys";

/// Length of a file that is overwritten at once; keys are 3616 bytes, whatever else lies there is not ours.
const ZEROS: [u8; 4096] = [0; 4096];

/// Where a node's path keys are.
#[derive(Debug)]
pub(crate) struct PathKeyFolder {
    folder: PathBuf,
    node: NodeId,
}

/// The keys that a node serves at one time.
pub(crate) struct Served {
    /// The epoch of `current`.
    pub(crate) epoch: Epoch,
    /// Of the epoch before, if the node was there: for owners whose clocks are behind, and builds under way.
    pub(crate) previous: Option<PathKeys>,
    /// Of this epoch.
    pub(crate) current: PathKeys,
    /// Of the next one, which the record tells ahead.
    pub(crate) next: PathKeys,
    /// Some are of an earlier run, so that packages for them may have been opened then.
    pub(crate) of_earlier_run: bool,
}

impl PathKeyFolder {
    /// The folder in `data`, made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may write into it.
    pub(crate) fn open(data: &Path, node: NodeId) -> Result<Self, DataError> {
        let folder = data.join(FOLDER);
        make_private_dir(&folder)?;
        Ok(Self { folder, node })
    }

    /// The keys to serve at `now`; missing ones are made, those that are over are wiped.
    ///
    /// A disk that takes or gives nothing is said and costs what a restart then costs: others build in vain with the old record.
    // protocol: E4
    pub(crate) fn serve(&self, now: u64) -> Served {
        let epoch = Epoch::at(&self.node, now);
        if let Err(error) = self.wipe_before(epoch.previous()) {
            tracing::warn!("path keys that are over could not be wiped: {error}");
        }
        let previous = self.load(epoch.previous());
        let (current, next) = (self.load(epoch), self.load(epoch.next()));
        let of_earlier_run = previous.is_some() || current.is_some() || next.is_some();
        let or_new = |keys: Option<PathKeys>, epoch| keys.unwrap_or_else(|| self.make(epoch));
        Served { epoch, previous, current: or_new(current, epoch), next: or_new(next, epoch.next()), of_earlier_run }
    }

    fn file(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(epoch.start().to_string())
    }

    fn load(&self, epoch: Epoch) -> Option<PathKeys> {
        let path = self.file(epoch);
        let keys = match read_private(&path) {
            Ok(bytes) => PathKeys::from_bytes(&Zeroizing::new(bytes?)).map_err(|_| "they are damaged".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        keys.inspect_err(|why| tracing::warn!("path keys cannot be used, new ones take their place: {why}")).ok()
    }

    fn make(&self, epoch: Epoch) -> PathKeys {
        let keys = PathKeys::generate(&mut crate::random());
        if let Err(error) = write_private(&self.file(epoch), &keys.to_bytes()) {
            tracing::warn!("path keys could not be saved, a restart will cost this node its part in paths: {error}");
        }
        keys
    }

    /// Wipes the keys of epochs before `first`, and what a crash left half written. Keys of later epochs stay: a clock that is wrong
    /// for a while must not cost them.
    fn wipe_before(&self, first: Epoch) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let start = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            if start.is_none_or(|start| start < first.start()) {
                wipe(&path)?;
            }
        }
        Ok(())
    }
}

/// Overwrites a file and removes it. What a disk keeps of it below the file system is not in our hands.
fn wipe(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(&ZEROS)?;
    file.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use phantom_proto::record::EPOCH;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const NODE: NodeId = NodeId([7; 32]);

    fn public(served: &Served) -> [[u8; 32]; 2] {
        [served.current.dh.public(), served.next.dh.public()]
    }

    fn files(folder: &PathKeyFolder) -> Vec<u64> {
        let names = fs::read_dir(&folder.folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut starts: Vec<_> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
        starts.sort_unstable();
        starts
    }

    #[test]
    fn a_restarted_node_has_its_keys_and_the_next_epoch_begins_with_those_told_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let open = || PathKeyFolder::open(dir.path(), NODE).unwrap();
        let first = open().serve(NOW);
        assert!(!first.of_earlier_run && first.previous.is_none());
        let again = open().serve(NOW);
        assert!(again.of_earlier_run);
        assert_eq!(public(&again), public(&first));
        assert_eq!(again.current.kem.public(), first.current.kem.public());
        let later = open().serve(NOW + EPOCH);
        assert_eq!(later.epoch, first.epoch.next());
        assert_eq!(later.current.dh.public(), first.next.dh.public());
        assert_eq!(later.previous.unwrap().dh.public(), first.current.dh.public());
        for start in files(&open()) {
            let mode = fs::metadata(open().folder.join(start.to_string())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    // protocol: E4
    #[test]
    fn keys_are_wiped_one_epoch_after_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PathKeyFolder::open(dir.path(), NODE).unwrap();
        let first = folder.serve(NOW).epoch;
        let file = folder.file(first);
        // A second name for the same bytes on the disk shows what became of them.
        let trace = dir.path().join("trace");
        fs::hard_link(&file, &trace).unwrap();
        fs::write(folder.folder.join("123.new"), b"half a key").unwrap();
        folder.serve(NOW + EPOCH);
        assert_eq!(files(&folder), [first.start(), first.next().start(), first.next().next().start()]);
        assert!(fs::read(&trace).unwrap().iter().any(|byte| *byte != 0));
        folder.serve(NOW + 2 * EPOCH);
        assert!(!file.exists());
        assert!(fs::read(&trace).unwrap().iter().all(|byte| *byte == 0), "the bytes are still on the disk");
        // After a sleep of days nothing old is left.
        let last = folder.serve(NOW + 100 * EPOCH).epoch;
        assert_eq!(files(&folder), [last.start(), last.next().start()]);
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_while_costs_no_keys() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PathKeyFolder::open(dir.path(), NODE).unwrap();
        let first = folder.serve(NOW);
        folder.serve(NOW - 10 * EPOCH);
        assert_eq!(public(&folder.serve(NOW)), public(&first));
    }

    #[test]
    fn damaged_keys_are_replaced_and_a_folder_that_is_gone_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let folder = PathKeyFolder::open(dir.path(), NODE).unwrap();
        let first = folder.serve(NOW);
        fs::write(folder.file(first.epoch), b"rubbish").unwrap();
        let [current, next] = public(&folder.serve(NOW));
        assert!(current != public(&first)[0] && next == public(&first)[1]);
        assert_eq!(public(&folder.serve(NOW))[0], current, "the new ones are kept");
        fs::remove_dir_all(&folder.folder).unwrap();
        folder.serve(NOW);
    }
}
