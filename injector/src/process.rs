//! Three processes: the front, which the shell waits for; the keeper, which holds the session; the program.
//!
//! ```text
//!   shell -- front            passes signals on, ends with the program's status at once
//!              +-- keeper     adopts all descendants, holds the daemon's connection until the last is gone
//!                    +-- program, in the front's process group: the terminal is its own
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::process::exit;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::sys::{self, Fork, Signals};

/// Exit status when the launcher itself fails.
pub(crate) const FAILED: i32 = 125;

/// Runs `program` (which must not return) with a keeper that holds `session`; does not return on success either.
pub(crate) fn run(session: OwnedFd, program: impl FnOnce() -> i32) -> io::Result<()> {
    let signals = sys::signals()?;
    let (news, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        Fork::Child => {
            drop(news);
            exit(keep(session, signals, &report, program).unwrap_or(FAILED));
        }
        Fork::Parent(_) => {
            drop((session, report));
            front(&signals.arriving, &news)
        }
    }
}

/// Waits for the program's end and passes signals on meanwhile.
fn front(signals: &OwnedFd, news: &OwnedFd) -> io::Result<()> {
    let lost = || io::Error::other("the keeper of the session was killed; programs that still run have no network");
    let program = read_number(news)?.and_then(Pid::from_raw).ok_or_else(lost)?;
    loop {
        let mut polled = [PollFd::new(news, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [news_ready, signal_ready] = [&polled[0], &polled[1]].map(|p| !p.revents().is_empty());
        if news_ready {
            end_like(read_number(news)?.ok_or_else(lost)?);
        }
        if signal_ready {
            let signal = sys::next_signal(signals)?;
            // What the terminal sends to the whole group has reached the program already.
            if let Some(known) = rustix::process::Signal::from_named_raw(signal.number)
                && signal.is_personal
            {
                let _ = rustix::process::kill_process(program, known);
            }
        }
    }
}

/// Ends as the program ended.
fn end_like(status: i32) -> ! {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        sys::die_by(signal);
        exit(128 + signal);
    }
    exit(libc::WEXITSTATUS(status));
}

/// The keeper: starts the program, tells the front about it, and stays until no descendant lives.
fn keep(session: OwnedFd, signals: Signals, report: &OwnedFd, program: impl FnOnce() -> i32) -> io::Result<i32> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let pid = match sys::fork()? {
        Fork::Child => {
            drop(session);
            signals.restore();
            exit(program());
        }
        Fork::Parent(pid) => pid,
    };
    drop(signals);
    // Out of the terminal's reach, and not in the way of whoever waits for our output to end.
    sys::block_all_signals();
    rustix::process::setpgid(None, None)?;
    release_stdio()?;
    write_number(report, pid.as_raw_nonzero().get())?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            // The front may be gone: then nobody wants to know.
            Ok(Some((ended, status))) if ended == pid => drop(write_number(report, WaitStatus::as_raw(status))),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(0),
        }
    }
}

fn release_stdio() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::become_stdio(&null)
}

fn write_number(to: &OwnedFd, number: i32) -> io::Result<()> {
    rustix::io::write(to, &number.to_ne_bytes())?;
    Ok(())
}

/// The next number from the keeper, whole since pipes are atomic; none when it is gone.
fn read_number(from: &OwnedFd) -> io::Result<Option<i32>> {
    let mut raw = [0; 4];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut raw))?;
    Ok((length == raw.len()).then(|| i32::from_ne_bytes(raw)))
}
