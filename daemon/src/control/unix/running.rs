//! Processes that receive or close for users and have not ended: for the next process, whose children they are then, and who is to hear
//! of their ends.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::places::Place;

/// By number, whose they are.
static RUNNING: Mutex<BTreeMap<u32, u32>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<u32, u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One runs for this user.
pub(super) fn begun(process: Option<u32>, uid: u32) {
    running().extend(process.map(|process| (process, uid)));
}

/// And has ended.
pub(super) fn ended(process: Option<u32>) {
    if let Some(process) = process {
        running().remove(&process);
    }
}

/// All of them, each with its user.
pub(crate) fn all_running() -> Vec<(u32, u32)> {
    running().iter().map(|(process, uid)| (*process, *uid)).collect()
}

/// One of them.
pub(super) enum Process {
    /// Started by this process.
    Own(Child),
    /// By the one before; the place is kept until its end.
    Adopted(u32, #[expect(dead_code, reason = "it is kept")] Option<Place>),
}

impl Process {
    /// Asked once.
    pub(super) fn has_ended(&mut self) -> bool {
        let (id, has_ended) = match self {
            Self::Own(child) => (child.id(), matches!(child.try_wait(), Ok(Some(_)))),
            Self::Adopted(id, _) => {
                let pid = i32::try_from(*id).ok().and_then(Pid::from_raw);
                // Any other error: it is no child any more.
                (*id, !matches!(waitpid(pid, WaitOptions::NOHANG), Ok(None) | Err(Errno::INTR)))
            }
        };
        if has_ended {
            ended(Some(id));
        }
        has_ended
    }
}
