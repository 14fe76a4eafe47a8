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

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::link::{self, News};
use crate::sys::{self, Fork, Signals};

/// Exit status when the launcher itself fails.
pub(crate) const FAILED: i32 = 125;

/// The keeper's number for "no program was started".
const NO_PROGRAM: i32 = 0;

/// How programs are started: several ways, each tried in a process of its own, since what is entered is not left again.
pub(crate) trait Ways {
    /// How many ways there are.
    fn count(&self) -> usize;
    /// In the new process: gets everything ready, calls `ready` and becomes the program. What is returned is its exit
    /// status, or why this way cannot be had.
    fn start(&self, way: usize, ready: &dyn Fn(Option<OwnedFd>) -> Result<()>) -> Result<i32>;
    /// In the keeper, before a way is tried.
    fn attend(&self, way: usize) -> Result<()>;
    /// In the keeper, after the last fork: the program is about to start.
    fn serve(&self, way: usize, listener: Option<OwnedFd>) -> Result<()>;
    /// In the keeper: this way could not be had.
    fn failed(&self, way: usize, why: &str);
    /// In the keeper: none of them could be had.
    fn none(&self);
}

/// Runs a program with a keeper, which holds the session; does not return on success.
pub(crate) fn run(ways: &dyn Ways) -> Result<()> {
    let signals = sys::signals()?;
    let (news, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::fork()? {
        Fork::Child => {
            drop(news);
            exit(keep(signals, &report, ways).map_or(FAILED, |()| 0));
        }
        Fork::Parent(_) => {
            drop(report);
            sys::hide()?;
            Ok(front(&signals.arriving, &news)?)
        }
    }
}

/// Waits for the program's end and passes signals on meanwhile.
fn front(signals: &OwnedFd, news: &OwnedFd) -> io::Result<()> {
    let lost = || io::Error::other("the keeper of the session was killed; programs that still run have no network");
    let program = read_number(news)?.ok_or_else(lost)?;
    if program == NO_PROGRAM {
        exit(FAILED);
    }
    let program = Pid::from_raw(program).ok_or_else(lost)?;
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
            if let Some(known) = Signal::from_named_raw(signal.number)
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
fn keep(signals: Signals, report: &OwnedFd, ways: &dyn Ways) -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // The program must not get at the supervisor; the new process says for itself that it may be looked at.
    sys::hide()?;
    let Some(started) = try_each(&signals, ways) else {
        ways.none();
        return write_number(report, NO_PROGRAM);
    };
    drop(signals);
    let pid = started.pid;
    if let Err(error) = begin(started, ways) {
        // Nobody serves it, so it is not to run; until now it had no network.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        eprintln!("phantom-run: {error:#}");
        return write_number(report, NO_PROGRAM);
    }
    release_stdio()?;
    write_number(report, pid.as_raw_nonzero().get())?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            // The front may be gone: then nobody wants to know.
            Ok(Some((ended, status))) if ended == pid => drop(write_number(report, WaitStatus::as_raw(status))),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// A process that is ready to become the program, or has become it.
struct Started {
    way: usize,
    pid: Pid,
    listener: Option<OwnedFd>,
}

/// The program's process, by the first way that can be had.
fn try_each(signals: &Signals, ways: &dyn Ways) -> Option<Started> {
    for way in 0..ways.count() {
        match attempt(way, signals, ways) {
            Ok(started) => return Some(started),
            Err(error) => ways.failed(way, &format!("{error:#}")),
        }
    }
    None
}

/// What the keeper does from the last fork on.
fn begin(started: Started, ways: &dyn Ways) -> Result<()> {
    // Out of the terminal's reach.
    sys::block_all_signals();
    rustix::process::setpgid(None, None)?;
    ways.serve(started.way, started.listener)
}

fn attempt(way: usize, signals: &Signals, ways: &dyn Ways) -> Result<Started> {
    ways.attend(way)?;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context("socketpair")?;
    let pid = match sys::fork()? {
        Fork::Child => {
            drop(ours);
            let started = sys::show().map_err(Into::into).and_then(|()| {
                signals.restore();
                ways.start(way, &|listener| Ok(link::send_ready(&theirs, listener.as_ref())?))
            });
            exit(started.unwrap_or_else(|error| {
                // Nobody is there to hear it only if the keeper was killed.
                let _ = link::send_failure(&theirs, &format!("{error:#}"));
                FAILED
            }));
        }
        Fork::Parent(pid) => pid,
    };
    drop(theirs);
    let news = link::receive(&ours).unwrap_or_else(|error| News::Failed(error.to_string()));
    match news {
        News::Ready(listener) => Ok(Started { way, pid, listener }),
        News::Failed(why) => {
            // It ends by itself if it still can.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
            bail!("{why}");
        }
    }
}

/// Not in the way of whoever waits for our output to end.
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
