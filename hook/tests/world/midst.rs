//! Sends a victim a signal in the midst of its calls, and waits until the handler has forked.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Who is disturbed, if anybody is: whoever asks first, not its children.
#[derive(Default)]
pub(crate) struct Midst {
    wanted: AtomicBool,
    victim: AtomicI32,
}

impl Midst {
    /// From now on.
    pub(crate) fn disturb(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Whether kept lines are given: what waits for those does so while signals wait, so nothing can happen in their midst.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Before an answer: the victim's handler has run when this returns.
    pub(crate) fn strike(&self, line: &UnixStream) {
        if !self.is_wanted() {
            return;
        }
        let peer = rustix::net::sockopt::socket_peercred(line).unwrap().pid.as_raw_nonzero().get();
        let victim =
            self.victim.compare_exchange(0, peer, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|was| was);
        if ![0, peer].contains(&victim) {
            return;
        }
        // It has asked, and may not wait yet: a handler that runs in between interrupts nothing.
        until("it waits for the answer", || sleeps(peer));
        let before = children(peer);
        // SAFETY: a signal to a victim that waits for our answer.
        unsafe { libc::kill(peer, libc::SIGUSR1) };
        until("the handler runs", || children(peer) != before);
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < super::PATIENCE, "not so: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn sleeps(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may hold anything.
    stat.rsplit(") ").next().is_some_and(|after| after.starts_with('S'))
}

/// How many there are, also such as have ended and were not waited for.
fn children(process: i32) -> usize {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    list.split_whitespace().count()
}
