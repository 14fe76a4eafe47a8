//! Three processes: the front, which the shell waits for; the keeper, which holds the session; the program.
//!
//! ```text
//!   shell -- front            passes signals on, stops and ends as the program does
//!              +-- keeper     adopts all descendants, holds the daemon's connection until the last is gone
//!                    +-- program, in the front's process group: the terminal is its own
//! ```
//! For supervisors the front is the program: what ends it ends the program, also what cannot be caught (the keeper notices).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use phantom_ipc::hook::Note;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::control::Refused;
use crate::isolate;
use crate::link::{self, Kept, News, Spaces};
use crate::notes::Notes;
use crate::options::OnLoss;
use crate::reason;
use crate::resume;
use crate::sys::{self, Fork, Signals, Target};

/// Exit status when the launcher itself fails.
pub(crate) const FAILED: i32 = 125;

/// The keeper's number for "no program was started".
const NO_PROGRAM: i32 = 0;

/// The keeper's numbers for "the daemon is gone", "another is there", and "another is there, and refuses", because others are where the
/// program was or for another reason: no process ends so.
const LOST: i32 = i32::MIN;
const RESUMED: i32 = i32::MIN + 1;
const OUSTED: i32 = i32::MIN + 2;
const REFUSED: i32 = i32::MIN + 3;

/// The keeper's number for "it cannot go on, and has said why".
const GIVEN_UP: i32 = i32::MIN + 4;

/// How long a program that is asked to end may take, as service managers give it at least.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A thread that only waits needs little.
const STACK: usize = 64 * 1024;

/// How programs are started: several ways, each tried in a process of its own, since what is entered is not left again.
pub(crate) trait Ways: Sync {
    /// How many ways there are.
    fn count(&self) -> usize;
    /// In the new process: gets everything ready, calls `ready` and becomes the program. What is returned is its exit
    /// status, or why this way cannot be had.
    fn start(&self, way: usize, ready: &dyn Fn(Option<OwnedFd>) -> Result<()>) -> Result<i32>;
    /// In the keeper, before a way is tried.
    fn attend(&self, way: usize) -> Result<()>;
    /// In the keeper, after the last fork: the program is about to start.
    fn serve(&self, way: usize, program: Pid, kept: Kept) -> Result<()>;
    /// In the keeper, at its end: no process of the program's lives any more, or none was started.
    fn over(&self);
    /// A descriptor that is silent as long as the daemon serves the program.
    fn session(&self) -> io::Result<OwnedFd>;
    /// In the keeper, a while without a daemon: whoever comes is not to wait.
    fn turn_away(&self);
    /// In the keeper: goes on with another daemon. A descriptor as that of `session`.
    fn resume(&self, way: usize) -> Result<OwnedFd>;
    /// In the front, when the daemon is lost: tells people, and says what is to become of the program.
    fn lost(&self) -> OnLoss;
    /// In the front, when another is there that does not go on: tells people.
    fn refused(&self, is_ousted: bool);
    /// In the front, when another is there: tells people, and what it says of the run from now on.
    fn resumed(&self) -> Option<Notes>;
    /// In the front, what the daemon says of the run: tells people, and says what is to become of the program.
    fn heard(&self, note: &Note) -> OnLoss;
    /// In the keeper: this way could not be had. If the reason is one that passes, no other is tried.
    fn failed(&self, way: usize, why: &str, is_passing: bool);
    /// In the keeper: none of them could be had.
    fn none(&self);
}

/// Runs a program with a keeper, which holds the session; does not return on success.
pub(crate) fn run(ways: &dyn Ways, notes: Option<Notes>) -> Result<()> {
    let signals = sys::signals()?;
    let (news, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let front = Target::new(rustix::process::getpid());
    match sys::fork().context("starting a process")? {
        Fork::Child => {
            drop((news, notes));
            if let Err(error) = keep(signals, &report, &front, ways) {
                give_up(&error, &report, ways);
            }
            exit(0);
        }
        Fork::Parent(keeper) => {
            drop((report, front));
            sys::hide()?;
            // They are the program's: who waits for their end waits for the program alone.
            isolate::inherited()?.into_iter().filter(|number| *number > 2).for_each(sys::close);
            sys::become_stdio(&null()?, 0..=1)?;
            Ok(attend(&signals.arriving, &news, keeper, ways, notes)?)
        }
    }
}

/// In the front: waits for the program's end, passes signals on and hears notes meanwhile.
fn attend(signals: &OwnedFd, news: &OwnedFd, keeper: Pid, ways: &dyn Ways, mut notes: Option<Notes>) -> io::Result<()> {
    let lost = || io::Error::other("the keeper of the session was killed, and so its program");
    let started = read_number(news)?.ok_or_else(lost)?;
    if started == NO_PROGRAM || started == GIVEN_UP {
        exit(FAILED);
    }
    let program = Target::new(Pid::from_raw(started).ok_or_else(lost)?);
    // Until when it may end by itself, once it is to be ended.
    let (mut last, mut is_over) = (None::<Instant>, false);
    let mut is_to_end = false;
    loop {
        for note in notes.as_mut().map(Notes::heard).unwrap_or_default() {
            is_to_end |= ways.heard(&note) == OnLoss::Exit;
        }
        if is_to_end && !is_over {
            program.send(Signal::TERM);
            program.send(Signal::CONT);
            (last, is_over) = (Some(Instant::now() + LAST_WORDS), true);
        }
        let Some([news_ready, signal_ready, notes_ready]) = wait(news, signals, notes.as_ref(), last)? else {
            program.send(Signal::KILL);
            last = None;
            continue;
        };
        if news_ready {
            let Some(status) = read_number(news)? else {
                // Nobody else would know of its end.
                program.send(Signal::KILL);
                return Err(lost());
            };
            match status {
                LOST => is_to_end |= ways.lost() == OnLoss::Exit,
                OUSTED | REFUSED => ways.refused(status == OUSTED),
                RESUMED => notes = ways.resumed(),
                GIVEN_UP => {
                    program.send(Signal::KILL);
                    exit(FAILED);
                }
                _ => {
                    // Why it failed, maybe.
                    for note in notes.take().map(Notes::rest).unwrap_or_default() {
                        ways.heard(&note);
                    }
                    if is_over { exit(FAILED) } else { end_like(status) }
                }
            }
        }
        if notes_ready && notes.as_mut().is_some_and(|notes| notes.fill().is_err()) {
            // The daemon has ended it, and says no more.
            notes = None;
        }
        if signal_ready {
            let signal = sys::next_signal(signals)?;
            // To its whole group the program sends for itself; the keeper wakes us up alone; and what comes from ourselves is
            // SIGPIPE, for a line that nobody reads any more.
            let own = rustix::process::getpid();
            let is_known = [program.pid(), keeper, own].iter().any(|pid| pid.as_raw_nonzero().get() == signal.sender);
            if !signal.is_of_terminal && !is_known {
                program.pass_on(&signal);
            }
        }
    }
}

/// Which of them are readable; none when it is `last` first.
fn wait(
    news: &OwnedFd,
    signals: &OwnedFd,
    notes: Option<&Notes>,
    last: Option<Instant>,
) -> io::Result<Option<[bool; 3]>> {
    // In the place of notes that are over: nothing is asked of it.
    let none = || (news.as_fd(), PollFlags::empty());
    let (third, what) = notes.map_or_else(none, |notes| (notes.as_fd(), PollFlags::IN));
    let mut polled =
        [PollFd::new(news, PollFlags::IN), PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(third, what)];
    let left = last.map(|end| end.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() });
    if rustix::io::retry_on_intr(|| poll(&mut polled, left.as_ref()))? == 0 {
        return Ok(None);
    }
    let [news, signals, third] = polled.map(|one| !one.revents().is_empty());
    Ok(Some([news, signals, third && notes.is_some()]))
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
fn keep(signals: Signals, report: &OwnedFd, front: &Target, ways: &dyn Ways) -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // The program must not get at the supervisor; the new process says for itself that it may be looked at.
    sys::hide()?;
    let Some(started) = try_each(&signals, ways) else {
        ways.none();
        ways.over();
        return Ok(write_number(report, NO_PROGRAM)?);
    };
    drop(signals);
    let (program, way) = (Arc::new(Target::new(started.pid)), started.way);
    if let Err(error) = begin(started, &program, report, ways) {
        // Nobody serves it, so it is not to run; until now it had no network.
        program.send(Signal::KILL);
        give_up(&error, report, ways);
    }
    // The front may be gone here and below: then the program is about to end.
    let _ = write_number(report, program.pid().as_raw_nonzero().get());
    let session = ways.session().context("copying a descriptor")?;
    thread::scope(|scope| {
        let begun = resume::spawn(scope, || attend_session(session, way, report, ways));
        // Standard error last: until here there may be something to say.
        if let Err(error) = begun.context("starting a thread").and_then(|()| release_inherited()) {
            give_up(&error, report, ways);
        }
        loop {
            match rustix::process::wait(WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
                Ok(Some((changed, status))) if changed == program.pid() => follow(status, front, report),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Not by returning: whoever waits for a daemon would be waited for.
                Err(_) => {
                    ways.over();
                    exit(0)
                }
            }
        }
    })
}

/// Says why the program cannot be served, and has the front end it. Not by returning: threads that wait for a daemon would be
/// waited for.
fn give_up(error: &anyhow::Error, report: &OwnedFd, ways: &dyn Ways) -> ! {
    eprintln!("phantom-run: {}", reason::explained(error));
    ways.over();
    let _ = write_number(report, GIVEN_UP);
    exit(FAILED);
}

/// The front does as the program has done: whoever waits for it sees the program.
fn follow(status: WaitStatus, front: &Target, report: &OwnedFd) {
    if status.stopped() {
        // In order with the next, which a signal that the front sends itself would not be.
        front.send(Signal::STOP);
    } else if status.continued() {
        front.send(Signal::CONT);
    } else {
        let _ = write_number(report, status.as_raw());
        // It may have been stopped meanwhile, and nobody could continue the program any more.
        front.send(Signal::CONT);
    }
}

/// A process that is ready to become the program, or has become it.
struct Started {
    way: usize,
    pid: Pid,
    kept: Kept,
}

/// The program's process, by the first way that can be had.
fn try_each(signals: &Signals, ways: &dyn Ways) -> Option<Started> {
    for way in 0..ways.count() {
        match attempt(way, signals, ways) {
            Ok(started) => return Some(started),
            Err(error) => {
                let is_passing = reason::is_passing(&error);
                ways.failed(way, &reason::explained(&error), is_passing);
                if is_passing {
                    break;
                }
            }
        }
    }
    None
}

/// What the keeper does from the last fork on.
fn begin(started: Started, program: &Arc<Target>, report: &OwnedFd, ways: &dyn Ways) -> Result<()> {
    // Out of the terminal's reach.
    sys::block_all_signals();
    rustix::process::setpgid(None, None)?;
    end_with_front(report.try_clone()?, Arc::clone(program)).context("starting a thread")?;
    ways.serve(started.way, started.pid, started.kept)
}

/// Tells the front when the daemon is gone, and when another has taken its place.
fn attend_session(mut session: OwnedFd, way: usize, report: &OwnedFd, ways: &dyn Ways) {
    loop {
        resume::over(&session);
        let _ = write_number(report, LOST);
        let mut is_told = false;
        session = loop {
            ways.turn_away();
            match ways.resume(way) {
                Ok(next) => break next,
                Err(error) => {
                    // Once: what keeps it may pass.
                    if let Some(refused) = error.downcast_ref::<Refused>().filter(|_| !is_told) {
                        is_told = true;
                        let _ = write_number(report, if refused.errno == libc::EBUSY { OUSTED } else { REFUSED });
                    }
                }
            }
        };
        let _ = write_number(report, RESUMED);
    }
}

/// Ends the program when the front is gone, in a thread of its own: it may have been killed.
fn end_with_front(report: OwnedFd, program: Arc<Target>) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(move || {
        // Nothing can be written to a pipe whose reader has gone.
        let mut polled = [PollFd::new(&report, PollFlags::empty())];
        while rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {}
        program.send(Signal::KILL);
    })?;
    Ok(())
}

fn attempt(way: usize, signals: &Signals, ways: &dyn Ways) -> Result<Started> {
    ways.attend(way)?;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context("socketpair")?;
    let pid = match sys::fork().context("starting a process")? {
        Fork::Child => {
            drop(ours);
            let started = sys::show().map_err(Into::into).and_then(|()| {
                ways.start(way, &|listener| {
                    let spaces = Spaces::own().context("opening the program's namespaces")?;
                    link::send_ready(&theirs, &Kept { listener, spaces })?;
                    // Not before: what has come meanwhile is for the program.
                    signals.restore();
                    Ok(())
                })
            });
            exit(started.unwrap_or_else(|error| {
                // Nobody is there to hear it only if the keeper was killed.
                let _ = link::send_failure(&theirs, &reason::explained(&error), reason::is_passing(&error));
                FAILED
            }));
        }
        Fork::Parent(pid) => pid,
    };
    drop(theirs);
    let news = link::receive(&ours).unwrap_or_else(|error| News::Failed { why: error.to_string(), is_passing: true });
    if let News::Ready(kept) = news {
        return Ok(Started { way, pid, kept });
    }
    // It ends by itself if it still can.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let end = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    Err(match news {
        News::Failed { why, is_passing: false } => reason::lacking(why).into(),
        News::Failed { why, .. } => anyhow::Error::msg(why),
        _ => anyhow::Error::msg(reason::of_end(end.ok().flatten().and_then(|(_, status)| status.terminating_signal()))),
    })
}

/// Not in the way of whoever waits for our output, a lock or a pipe to end.
fn release_inherited() -> Result<()> {
    isolate::inherited()?.into_iter().filter(|number| *number > 2).for_each(sys::close);
    Ok(sys::become_stdio(&null()?, 0..=2)?)
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
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
