//! Programs under supervisors: for whoever started it, phantom-run is the program, in its end, its signals and its pauses.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use anyhow::{Context, Result, bail, ensure};
use phantom_tests::{Alone, Kind, Way, eventually, signal};

/// A launcher whose program has said its process id.
struct Started {
    launcher: Child,
    says: BufReader<ChildStdout>,
    program: libc::pid_t,
}

impl Started {
    /// A script of sh under the launcher; its own process id goes first.
    fn new(alone: &Alone, kind: Kind, way: Way, script: &str) -> Result<Self> {
        let script = format!("echo $$; {script}");
        let mut command = alone.run(kind, way, &["sh", "-c", &script]);
        // As a shell's job: the kernel does not let a group stop that nobody could continue.
        let mut launcher = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let says = BufReader::new(launcher.stdout.take().context("no pipe")?);
        let mut started = Self { launcher, says, program: 0 };
        started.program = started.line()?.parse()?;
        Ok(started)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.says.read_line(&mut line)? > 0, "it said no more");
        Ok(line.trim().to_owned())
    }

    fn send(&self, number: libc::c_int) -> Result<()> {
        signal(self.launcher.id().try_into()?, number);
        Ok(())
    }

    /// The launcher's exit status or signal, as shells count, when nobody is left who could write.
    fn ends(&mut self) -> Result<i32> {
        self.says.read_to_string(&mut String::new())?;
        let status = self.launcher.wait()?;
        status.signal().map(|signal| 128 + signal).or_else(|| status.code()).context("neither")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Of a test that failed.
        if let Ok(None) = self.launcher.try_wait() {
            signal(self.program, libc::SIGKILL);
            let _ = self.launcher.kill();
            let _ = self.launcher.wait();
        }
    }
}

/// The letter of a process' state; none when it is gone.
fn state(pid: libc::pid_t) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn gone(pid: libc::pid_t) -> Result<()> {
    eventually(|| match state(pid) {
        None | Some('Z' | 'X') => Ok(()),
        Some(state) => bail!("the program is still there: {state}"),
    })
}

/// What kills by itself, or by default, whoever gets it.
const DEADLY: [libc::c_int; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGUSR1,
    libc::SIGSEGV,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGXCPU,
    libc::SIGIO,
    libc::SIGSYS,
    34,
];

#[test]
fn what_kills_the_launcher_ends_the_program() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let mut started = Started::new(&alone, kind, way, "exec sleep 1000")?;
        started.send(libc::SIGKILL)?;
        // The pipe ends: nobody else keeps it, so a supervisor that reads to the end is not held up.
        ensure!(started.ends()? == 128 + libc::SIGKILL);
        gone(started.program)
    })
}

#[test]
fn signals_that_can_be_passed_are_passed() -> Result<()> {
    // A shell has what it runs in the background ignore them, `nohup` one more; programs would ignore them, too, and not end.
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default; nothing of these tests handles them.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let alone = Alone::shared()?;
    // One kind in every way, the others in one: the launcher's part is the same.
    for (kind, way) in
        [(Kind::Root, Way::ALL.to_vec()), (Kind::OfRoots, vec![Way::Inject]), (Kind::Own, vec![Way::Namespace])]
            .into_iter()
            .flat_map(|(kind, ways)| ways.into_iter().map(move |way| (kind, way)))
    {
        for number in DEADLY {
            let mut started = Started::new(&alone, kind, way, "exec sleep 1000")?;
            started.send(number)?;
            ensure!(started.ends()? == 128 + number, "{number} to {kind:?} by {way:?}");
            gone(started.program)?;
        }
    }
    Ok(())
}

/// An alarm that was set before exec is the launcher's, and comes from the kernel: `perl -e 'alarm 9; exec @ARGV'` is a
/// time limit of old.
#[test]
fn alarms_set_before_are_the_programs() -> Result<()> {
    let alone = Alone::shared()?;
    let run = alone.run(Kind::Root, Way::Namespace, &["sleep", "1000"]);
    let mut perl = alone.command(Kind::Root, "perl");
    perl.args(["-e", "alarm 1; exec @ARGV"]).arg(run.get_program()).args(run.get_args());
    ensure!(perl.status()?.signal() == Some(libc::SIGALRM));
    Ok(())
}

#[test]
fn values_come_with_queued_signals() -> Result<()> {
    let alone = Alone::shared()?;
    let script = "exec python3 -uc 'import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [36]); print(0)
s = signal.sigwaitinfo([36]); print(s.si_code)'";
    let mut started = Started::new(&alone, Kind::Root, Way::Inject, script)?;
    started.line()?;
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(7) };
    // SAFETY: numbers; nobody takes the value for an address.
    let sent = unsafe { libc::sigqueue(started.launcher.id().try_into()?, 36, value) };
    ensure!(sent == 0 && started.line()? == libc::SI_QUEUE.to_string());
    ensure!(started.ends()? == 0);
    Ok(())
}

#[test]
fn pauses_are_shared() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let mut started = Started::new(&alone, kind, way, "trap 'echo on' CONT; echo; while :; do sleep 0.1; done")?;
        started.line()?;
        let (launcher, program) = (started.launcher.id().try_into()?, started.program);
        let both = |wanted: &[char]| {
            eventually(|| {
                let now = [launcher, program].map(state);
                ensure!(now.iter().all(|state| state.is_some_and(|state| wanted.contains(&state))), "{now:?}");
                Ok(())
            })
        };
        started.send(libc::SIGTSTP)?;
        both(&['T'])?;
        started.send(libc::SIGCONT)?;
        both(&['S', 'R'])?;
        ensure!(started.line()? == "on");
        // The program alone, by somebody who knows it.
        signal(started.program, libc::SIGSTOP);
        both(&['T'])?;
        signal(started.program, libc::SIGCONT);
        both(&['S', 'R'])?;
        ensure!(started.line()? == "on");
        started.send(libc::SIGTERM)?;
        ensure!(started.ends()? == 128 + libc::SIGTERM);
        Ok(())
    })
}

/// Says what becomes of a connection and of a name, whenever it is asked.
const ASKED: &str = "
import errno, os, socket, sys
print('up', flush=True)
for line in sys.stdin:
    try: socket.create_connection(('fd70::1', 80), timeout=60); print('connected', flush=True)
    except OSError as error: print(errno.errorcode.get(error.errno, error), flush=True)
    try: socket.getaddrinfo('nobody.phantom', 80)
    except socket.gaierror as error: print(error.errno == socket.EAI_AGAIN, flush=True)
";

/// A program of a session that its daemon will leave.
struct Left {
    launcher: Child,
    program: BufReader<ChildStdout>,
    said: BufReader<ChildStderr>,
}

impl Left {
    fn start(alone: &Alone, kind: Kind, way: Way, on_loss: &str) -> Result<Self> {
        let mut command = alone.tool(kind, "phantom-run");
        command.args(["-q", "--isolation", way.flag(), "--on-daemon-loss", on_loss, "python3", "-uc", ASKED]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut launcher = command.spawn()?;
        let mut program = BufReader::new(launcher.stdout.take().context("no pipe")?);
        let said = BufReader::new(launcher.stderr.take().context("no pipe")?);
        ensure!(line(&mut program)? == "up");
        Ok(Self { launcher, program, said })
    }
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

#[test]
fn who_loses_the_daemon_is_told_and_waits_or_ends() -> Result<()> {
    let mut alone = Alone::start()?;
    let mut left = Vec::new();
    for on_loss in ["wait", "exit"] {
        for kind in Kind::ALL {
            for way in Way::ALL {
                left.push((on_loss, kind, way, Left::start(&alone, kind, way, on_loss)?));
            }
        }
    }
    alone.stop_daemon(Kind::Root);
    alone.stop_daemon(Kind::Own);
    for (on_loss, kind, way, mut left) in left {
        let which = || format!("{on_loss} for {kind:?} by {way:?}");
        let said = line(&mut left.said)?;
        ensure!(said.contains("the daemon is gone"), "{}: {said}", which());
        if on_loss == "wait" {
            let mut stdin = left.launcher.stdin.take().context("no pipe")?;
            writeln!(stdin)?;
            let error = line(&mut left.program)?;
            ensure!(["ENETUNREACH", "ENETDOWN"].contains(&&*error), "{}: {error}", which());
            // As libc says where nobody can be asked: programs that know the word try again later.
            ensure!(line(&mut left.program)? == "True", "{}: a name", which());
        }
        // The one that waits ends by itself, with its input.
        let status = left.launcher.wait()?;
        let expected = if on_loss == "wait" { 0 } else { 125 };
        ensure!(status.code() == Some(expected), "{}: {status}", which());
        ensure!(line(&mut left.program)?.is_empty(), "{}: the program is still there", which());
    }
    Ok(())
}
