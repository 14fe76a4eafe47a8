//! Processes that this one has started and that have not ended: for the next one (`phantom restart`), whose children they are then, and who
//! is to hear of their ends. To one that a service manager starts they are strangers, of whom it can only ask whether they are there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, test_kill_process, waitpid};

/// By number, whose they are.
static RUNNING: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<u32, u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One runs for this user.
pub(crate) fn begun(process: Option<u32>, uid: u32) {
    running().extend(process.map(|process| (process, uid)));
}

/// And has ended, or the next process knows of it by itself.
pub(crate) fn ended(process: Option<u32>) {
    if let Some(process) = process {
        running().remove(&process);
    }
}

/// All of them, each with its user.
pub(crate) fn all() -> Vec<(u32, u32)> {
    running().iter().map(|(process, uid)| (*process, *uid)).collect()
}

/// Whether one that the process before has started has ended; asked until it has.
pub(crate) fn has_ended(process: u32) -> bool {
    // None would be whichever.
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return true };
    let has_ended = match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(None) | Err(Errno::INTR) => false,
        Ok(Some(_)) => true,
        Err(_) => test_kill_process(pid) == Err(Errno::SRCH),
    };
    if has_ended {
        ended(Some(process));
    }
    has_ended
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn one_is_known_until_it_is_heard_to_have_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let id = child.id();
        begun(Some(id), 7);
        assert!(all().contains(&(id, 7)) && !has_ended(id));
        drop(child.stdin.take());
        while !has_ended(id) {
            std::thread::yield_now();
        }
        assert!(all().iter().all(|(other, _)| *other != id));
        assert!(has_ended(id) && child.wait().is_err(), "nobody's child");
    }
}
