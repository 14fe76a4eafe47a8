//! A daemon that is killed while it stores a command: at whichever of its writes to the disk, before it, behind it or in its middle, and
//! also when it is killed again while it looks what is left.

use std::io;
use std::sync::{Mutex, MutexGuard};

use phantom_proto::command::KeySet;
use redb::{Database, StorageBackend};

use super::commands::{ban, chain, keys};
use super::*;
use crate::store::{Entries, Store, Table};

/// What a process does to a file.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A file in memory, and what was done to it; cheap to clone. What a killed process has written the system has, synced or not.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<Step>)>>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, Vec<Step>)> {
        self.0.lock().expect("no panic while it is held")
    }

    fn of(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new((image, Vec::new()))))
    }

    fn image(&self) -> Vec<u8> {
        self.lock().0.clone()
    }

    fn steps(&self) -> Vec<Step> {
        self.lock().1.clone()
    }

    fn store(&self) -> Arc<Store> {
        Arc::new(Store::over(Database::builder().create_with_backend(self.clone()).expect("a store that opens")))
    }

    /// Every state in which this file may be left, `from` which it came by these steps.
    fn left(mut from: Vec<u8>, steps: &[Step]) -> Vec<Vec<u8>> {
        let mut all = vec![from.clone()];
        for step in steps {
            if let Step::Write(at, data) = step {
                let mut torn = from.clone();
                put(&mut torn, *at, &data[..data.len() / 2]);
                all.push(torn);
            }
            match step {
                Step::Write(at, data) => put(&mut from, *at, data),
                Step::Length(length) => from.resize(*length, 0),
            }
            all.push(from.clone());
        }
        all
    }
}

fn put(image: &mut [u8], at: usize, data: &[u8]) {
    image[at..at + data.len()].copy_from_slice(data);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let held = self.lock();
        let part = held.0.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut held = self.lock();
        held.0.resize(len as usize, 0);
        held.1.push(Step::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut held = self.lock();
        put(&mut held.0, offset as usize, data);
        held.1.push(Step::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}

/// All that a daemon has of its own: an entry in each table but that of commands.
fn own() -> Vec<(Table, Entries)> {
    let all = [Table::Nodes, Table::Terms, Table::Shelf, Table::Identities, Table::Guards, Table::Meta];
    all.into_iter().map(|table| (table, vec![(b"own".to_vec(), vec![table as u8; 300])])).collect()
}

fn maintained(store: Arc<Store>) -> Commands {
    Commands::restore(keys(), Default::default(), store, unix_seconds()).unwrap()
}

/// What is here in a state in which the file was left: the serials of commands. All else is as it was, and what is in force is what is here.
fn look(disk: &Disk) -> (Vec<u64>, bool) {
    let store = disk.store();
    for (table, entries) in own() {
        assert_eq!(store.scan(table).unwrap(), entries);
    }
    let commands = maintained(store);
    let state = commands.state();
    let serials: Vec<_> = state.entries.iter().map(|entry| entry.command.serial).collect();
    let banned = |serial: u64| commands.in_force().of_contact(&contact(100 + serial as u8)).is_some();
    assert!((1..=3).all(|serial| banned(serial) == serials.contains(&serial)));
    (serials, state.forked)
}

#[test]
fn whoever_is_killed_while_a_command_is_stored_has_all_that_there_was_and_the_command_or_not() {
    let disk = Disk::default();
    let store = disk.store();
    for (table, entries) in own() {
        store.replace(table, &entries).unwrap();
    }
    let mut commands = maintained(store);
    let (all, now) = (chain(3, &[]), unix_seconds());
    commands.take(now, &all[0], &[]).unwrap();
    for (taken, command) in (1..).zip(&all[1..]) {
        let (before, steps) = (disk.image(), disk.steps().len());
        commands.take(now, command, &[]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for image in Disk::left(before, &disk.steps()[steps..]) {
            let (disk, was) = (Disk::of(image.clone()), image);
            let (serials, _) = look(&disk);
            assert!(serials.len() == taken || serials.len() == taken + 1, "{serials:?}");
            seen.insert(serials.len());
            // Looking may have repaired it; whoever is killed there as well has no less.
            for again in Disk::left(was, &disk.steps()) {
                assert_eq!(look(&Disk::of(again)).0, serials);
            }
        }
        assert_eq!(seen.len(), 2, "it was not there, and then it was");
        assert_eq!(look(&Disk::of(disk.image())).0.len(), taken + 1, "what was taken is there");
    }
}

/// Two commands of one serial say that maintainers' keys have signed two. That is known for ever.
// protocol: M10
#[test]
fn a_fork_is_known_after_whoever_saw_it_was_killed() {
    let (disk, now) = (Disk::default(), unix_seconds());
    let mut commands = maintained(disk.store());
    let (all, other) = (chain(2, &[]), chain(2, &[ban(9)]));
    all.iter().for_each(|command| commands.take(now, command, &[]).unwrap());
    assert!(!commands.state().forked);
    let (before, steps) = (disk.image(), disk.steps().len());
    assert!(commands.take(now, &other[1], &[]).is_err() && commands.state().forked);
    let known: Vec<_> = Disk::left(before, &disk.steps()[steps..])
        .into_iter()
        .map(|image| {
            let store = Disk::of(image).store();
            let state = maintained(store).state();
            assert_eq!(state.entries.len(), 2);
            state.forked
        })
        .collect();
    assert!(!known[0] && known[known.len() - 1]);
    // What comes then is stored beside it.
    let third = chain(3, &[]);
    commands.take(now, &third[2], &[]).unwrap();
    let after = maintained(Disk::of(disk.image()).store());
    assert!(after.state().forked && after.state().entries.len() == 3);
    // Of other maintainers it proves nothing.
    let others = KeySet::new(1, vec![SigningKey::from_seed(&[1; 32]).verifying_key()]).unwrap();
    let store = Disk::of(disk.image()).store();
    assert!(!Commands::restore(others, Default::default(), store, now).unwrap().state().forked);
}
