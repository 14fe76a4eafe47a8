//! What is laid over a file of the system's comes off when that file is replaced: the kernel takes away what other mount
//! namespaces have there. Computers that change networks replace /etc/resolv.conf, upgrades replace /etc/nsswitch.conf, modules that are
//! loaded anew their devices, services their sockets. So the keeper looks, and lays it anew over what is there now.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::awaited::Awaited;
use crate::host::Cover;
use crate::link::Spaces;
use crate::mounts::{RESOLV_CONF, Seen, settings};
use crate::{anew, deputies, devices, host, mountinfo, services};

/// A thread that starts processes now and then.
const STACK: usize = 256 * 1024;

/// How often something is laid over a file that is replaced again and again, until it is looked at the next time.
const MOST_TRIES: usize = 4;

/// A socket's file is there a moment before the kernel tells its name: so long after that it is looked for, and so often.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const MOST_LOOKS: usize = 4;

/// Folders of devices.
const DEVICES: [&str; 2] = ["/dev", "/dev/input"];

/// What lies over the system's.
pub(crate) struct Laid {
    pub(crate) spaces: Spaces,
    pub(crate) seen: Seen,
    /// Places at which sockets are masked, whenever they come.
    pub(crate) sockets: Vec<PathBuf>,
}

/// Looks, in a thread of its own, for files, devices and sockets over which nothing lies any more, until the process ends; `bare` is done
/// once should the program see a resolv.conf of the system's, or none, all the same. This process must not fork any more.
pub(crate) fn watch(program: Pid, laid: Laid, bare: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mounts = File::open(format!("/proc/{}/mountinfo", program.as_raw_nonzero()))?;
    let Laid { spaces, seen, sockets } = laid;
    let (doubted, covered) = (Vec::new(), BTreeSet::new());
    let mut watched = Watched { mounts, spaces, seen, sockets, doubted, looks: MOST_LOOKS, covered, changes: None };
    watched.begin()?;
    let mut bare = Some(bare);
    thread::Builder::new().stack_size(STACK).spawn(move || {
        loop {
            if !watched.align().unwrap_or(true)
                && let Some(bare) = bare.take()
            {
                bare();
            }
            watched.wait();
        }
    })?;
    Ok(())
}

struct Watched {
    /// Says when it has changed since it was read.
    mounts: File,
    spaces: Spaces,
    seen: Seen,
    /// Where sockets are masked.
    sockets: Vec<PathBuf>,
    /// Of those that came, those that are nobody's of this network, as far as the kernel tells now.
    doubted: Vec<PathBuf>,
    /// How often they are still looked at again.
    looks: usize,
    /// Of the files that tell what the computer is called, those over which something lay at the start: where nothing could be laid
    /// nothing is tried again. Settings of names were all covered then, or the program would not run.
    covered: BTreeSet<PathBuf>,
    /// In the folders of these files; none where the user may have no more of such.
    changes: Option<Awaited>,
}

impl Watched {
    fn begin(&mut self) -> io::Result<()> {
        let points = self.points()?;
        let of_host = host::covers("").into_iter().map(|cover| cover.over);
        self.covered = of_host.filter(|file| is_covered(file, &points)).collect();
        // Where it could not be hidden, none of its files is covered.
        self.seen.is_hidden &= !self.covered.is_empty();
        self.changes = Awaited::new().ok();
        Ok(())
    }

    /// Folders are made anew, too, and links lead to others.
    fn look_into_folders(&mut self, covers: &[Cover]) {
        let Some(changes) = &mut self.changes else { return };
        let real = covers.iter().filter_map(|cover| fs::canonicalize(&cover.over).ok());
        let files = real.chain(covers.iter().map(|cover| cover.over.clone()));
        let folders: BTreeSet<PathBuf> = files.filter_map(|file| Some(file.parent()?.to_owned())).collect();
        folders
            .into_iter()
            .chain(DEVICES.into_iter().chain(devices::FOLDERS).map(PathBuf::from))
            .for_each(|folder| changes.all_in(&folder));
        self.sockets.iter().for_each(|socket| changes.file(socket));
    }

    /// Where something is mounted for the program.
    fn points(&mut self) -> io::Result<BTreeSet<PathBuf>> {
        let mut text = Vec::new();
        self.mounts.rewind()?;
        self.mounts.read_to_end(&mut text)?;
        Ok(mountinfo::all(&text).into_iter().map(|mount| mount.point).collect())
    }

    /// What is to lie over the files as they are now.
    fn covers(&self) -> Vec<Cover> {
        let of_host = self.seen.is_hidden.then(|| host::covers(&self.seen.number)).into_iter().flatten();
        let of_host = of_host.filter(|cover| self.covered.contains(&cover.over));
        settings(&self.seen).unwrap_or_default().into_iter().chain(of_host).collect()
    }

    /// Lays what is missing. Whether resolv.conf is covered then.
    fn align(&mut self) -> io::Result<bool> {
        // Before anything is looked at, so that nothing is missed.
        let covers = self.covers();
        self.look_into_folders(&covers);
        for Cover { over, .. } in &covers {
            self.cover(over)?;
        }
        let points = self.points()?;
        let devices = devices::devices().unwrap_or_default();
        let sockets = self.come().unwrap_or_default();
        for bare in devices.iter().chain(&sockets).filter(|file| !points.contains(*file)) {
            // What cannot be done may be next time.
            let _ = anew::mask(&self.spaces, bare);
        }
        let points = self.points()?;
        Ok(is_covered(Path::new(RESOLV_CONF), &points))
    }

    /// The sockets that have come, of this network: those that the program and others below phantom-run make are their own.
    fn come(&mut self) -> Result<Vec<PathBuf>> {
        let points = self.points()?;
        let mut come = deputies::come(&self.sockets)?;
        come.retain(|socket| !points.contains(socket));
        self.doubted.clear();
        if come.is_empty() {
            return Ok(come);
        }
        let listening: BTreeSet<PathBuf> =
            services::listening()?.iter().filter_map(|socket| fs::canonicalize(socket).ok()).collect();
        let (outside, doubted) = come.into_iter().partition(|socket| listening.contains(socket));
        self.doubted = doubted;
        Ok(outside)
    }

    /// Lays ours over a file if it is not there, and once more where another file has come meanwhile than that of which ours was made.
    fn cover(&mut self, file: &Path) -> io::Result<()> {
        let mut made_of = None;
        for _ in 0..MOST_TRIES {
            // Where links lead from here: from there they may lead elsewhere.
            let Ok(over) = fs::canonicalize(file) else { return Ok(()) };
            let now = which(&over);
            if self.points()?.contains(&over) && (made_of.is_none() || made_of == now) {
                return Ok(());
            }
            let Some(cover) = self.covers().into_iter().find(|cover| cover.over == file) else { return Ok(()) };
            let _ = anew::cover(&self.spaces, &Cover { over, ..cover });
            made_of = now;
        }
        Ok(())
    }

    /// Until there may be something to do.
    fn wait(&mut self) {
        loop {
            let mut polled = vec![PollFd::new(&self.mounts, PollFlags::PRI)];
            polled.extend(self.changes.iter().map(|changes| PollFd::new(changes, PollFlags::IN)));
            let is_doubted = self.looks > 0 && !self.doubted.is_empty();
            let limit = is_doubted.then_some(&MOMENT);
            let told = rustix::io::retry_on_intr(|| poll(&mut polled, limit));
            // The kernel tells of mounts by an error.
            let is_mounts = !polled[0].revents().is_empty();
            let has_come = self.changes.as_mut().is_some_and(Awaited::has_come);
            if is_mounts || has_come {
                self.looks = MOST_LOOKS;
                return;
            }
            if is_doubted && told == Ok(0) {
                self.looks -= 1;
                return;
            }
        }
    }
}

/// Which file it is, as far as it has not been changed.
fn which(file: &Path) -> Option<(u64, u64, i64, i64)> {
    let about = fs::metadata(file).ok()?;
    Some((about.dev(), about.ino(), about.ctime(), about.ctime_nsec()))
}

/// Whether something is mounted over a file.
fn is_covered(file: &Path, points: &BTreeSet<PathBuf>) -> bool {
    fs::canonicalize(file).is_ok_and(|real| points.contains(&real))
}
