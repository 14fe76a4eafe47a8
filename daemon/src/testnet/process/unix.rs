//! Unix: processes by id, never mistaken for a later process of the same id.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::logging;
use super::sys::detached;
use crate::datadir::holder;

/// A process and the moment it began, which tells it from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::testnet) struct Process {
    pid: i32,
    /// Clock ticks since boot (field 22 of /proc/PID/stat).
    began: u64,
}

impl Process {
    /// Starts `program` in the background: a session of its own, no terminal, standard descriptors alone, output appended
    /// to `log`.
    pub(in crate::testnet) fn start(
        program: &Path,
        arguments: &[&std::ffi::OsStr],
        log: &Path,
    ) -> io::Result<(Self, Child)> {
        let mut command = logging(program, arguments, log)?;
        let mut child = detached(&mut command).spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Not yet waited for, so the entry in /proc is there even if it has ended.
        match stat(pid) {
            Some((_, began)) => Ok((Self { pid, began }, child)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other("/proc does not show the new process"))
            }
        }
    }

    /// The process that holds this data folder: the one whose number the folder's lock names, if it has just that file open.
    pub(in crate::testnet) fn holding(data_dir: &Path) -> Option<Self> {
        let (pid, lock) = holder(data_dir)?;
        let pid = i32::try_from(pid).ok()?;
        // First who it is, then what it has open: whoever gets its number afterwards began at another time.
        let (_, began) = stat(pid)?;
        let lock = lock.metadata().ok()?;
        let open =
            fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().filter_map(|fd| fs::metadata(fd.path()).ok());
        let has_it = open.into_iter().any(|file| (file.dev(), file.ino()) == (lock.dev(), lock.ino()));
        has_it.then_some(Self { pid, began })
    }

    /// Its number.
    pub(in crate::testnet) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub(in crate::testnet) fn lives(&self) -> bool {
        stat(self.pid).is_some_and(|(state, began)| began == self.began && state != 'Z' && state != 'X')
    }

    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
            // It may end in between; then there is nothing to do.
            let _ = kill_process(pid, signal);
        }
    }
}

/// State letter and time of start of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything; the fields begin after the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{STOP_TIME, stop, tail};
    use std::fs::File;

    use super::*;

    fn start(script: &str) -> (Process, Child, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["-c".as_ref(), script.as_ref()];
        let (process, child) = Process::start(Path::new("/bin/sh"), &arguments, &dir.path().join("log")).unwrap();
        (process, child, dir)
    }

    /// Waits until the script has said something, so that its traps are set.
    fn wait_for_log(dir: &tempfile::TempDir) {
        let deadline = Instant::now() + STOP_TIME;
        while fs::read(dir.path().join("log")).unwrap().is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_that_obeys_is_asked() {
        let (process, mut child, dir) = start("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done");
        wait_for_log(&dir);
        assert!(process.lives());
        assert_eq!(stop(std::slice::from_ref(&process)), 0);
        assert!(child.wait().unwrap().success());
        assert!(!process.lives());
        assert_eq!(tail(&dir.path().join("log")), "up\nbye");
    }

    #[test]
    fn another_process_of_the_same_id_is_left_alone() {
        let (process, mut child, _dir) = start("exec sleep 100");
        let earlier = Process { began: process.began - 1, ..process.clone() };
        assert!(!earlier.lives());
        earlier.signal(Signal::KILL);
        assert!(child.try_wait().unwrap().is_none(), "must still run");
        process.signal(Signal::KILL);
        child.wait().unwrap();
    }

    /// A number in a file is no proof: it may be anybody's by now.
    #[test]
    fn only_who_has_the_lock_open_holds_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let (process, mut child, _dir) = start("exec sleep 100");
        fs::write(&lock, format!("{}\n", process.pid)).unwrap();
        assert_eq!(Process::holding(folder.path()), None, "nobody has locked it");
        let ours = File::options().write(true).open(&lock).unwrap();
        ours.lock().unwrap();
        assert_eq!(Process::holding(folder.path()), None, "somebody else has");
        fs::write(&lock, format!("{}\n", std::process::id())).unwrap();
        let own = Process::holding(folder.path()).expect("it is this process");
        assert!(own.lives() && own.pid() == i32::try_from(std::process::id()).unwrap());
        process.signal(Signal::KILL);
        child.wait().unwrap();
    }

    /// A lock or a pipe around whoever starts a network ends with them.
    #[test]
    fn nothing_but_standard_descriptors_and_no_session_is_inherited() {
        let _inherited = rustix::pipe::pipe().unwrap();
        let (process, mut child, dir) = start("echo /proc/self/fd/*; exec sleep 100");
        wait_for_log(&dir);
        // The last is the folder that the shell reads.
        let open = tail(&dir.path().join("log"));
        assert_eq!(open, [0, 1, 2, 3].map(|number| format!("/proc/self/fd/{number}")).join(" "));
        let own = Pid::from_raw(process.pid);
        assert_eq!(rustix::process::getsid(own).ok(), own);
        process.signal(Signal::KILL);
        child.wait().unwrap();
    }
}
