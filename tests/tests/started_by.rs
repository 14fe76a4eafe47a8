//! Whoever starts phantom-run, and what comes with it: limits, signals that are ignored, readers that go away.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::among_all_users;
use phantom_tests::{Alone, Kind, Way, signal, stdout};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command, begun by a script of Python's.
fn begun_by(script: &str, command: &Command) -> Command {
    let mut begun = Command::new("python3");
    begun.args(["-c", &format!("import os, signal, sys\n{script}\nos.execvp(sys.argv[1], sys.argv[1:])")]);
    begun.arg(command.get_program()).args(command.get_args());
    begun
}

fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg(limit).arg(command.get_program()).args(command.get_args());
    limited
}

/// LimitFSIZE= of a unit's, `ulimit -f`: what is laid over the system's files cannot be written.
#[test]
fn a_limit_of_file_sizes_is_told_and_no_reason_for_a_weaker_way() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        for quiet in [None, Some("--quiet")] {
            let mut run = alone.tool(kind, "phantom-run");
            let output = limited("--fsize=0", run.args(quiet).args(["--", "echo", "runs"])).output()?;
            let told = stderr(&output);
            ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}: {output:?}");
            ensure!(told.contains("ulimit -f") && !told.contains("inject"), "{kind:?}: {told}");
        }
    }
    Ok(())
}

/// Who may start so many processes and no more is told so, whichever of ours is the one too many.
#[test]
fn a_limit_of_processes_is_told() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in [Kind::OfRoots, Kind::Own] {
        for way in [Way::Inject, Way::Preload] {
            let (mut ran, mut refused) = (0, 0);
            for most in 1..16 {
                // In a user namespace of its own a user's other processes do not count.
                let run = alone.run(kind, way, &["echo", "runs"]);
                let output = among_all_users(&limited(&format!("--nproc={most}"), &run)).output()?;
                let told = stderr(&output);
                if output.status.success() {
                    ran += 1;
                    continue;
                }
                refused += 1;
                ensure!(output.status.code() == Some(125), "{kind:?} by {way:?}, {most}: {output:?}");
                ensure!(
                    told.contains("ulimit -u") && !told.contains("was killed"),
                    "{kind:?}, {way:?}, {most}: {told}"
                );
            }
            ensure!(ran > 0 && refused > 0, "{kind:?} by {way:?}: {ran} ran, {refused} were refused");
        }
    }
    Ok(())
}

/// Perl's `$SIG{CHLD} = 'IGNORE'`, systemd's `IgnoreSIGPIPE=`: passed on to what is started, and to nobody's harm.
#[test]
fn signals_that_are_ignored_stay_so_for_the_program() -> Result<()> {
    let alone = Alone::shared()?;
    let script = "grep SigIgn /proc/self/status; exit 7";
    alone.everywhere(|kind, way| {
        for ignored in ["SIGCHLD", "SIGPIPE"] {
            // Python ignores one by itself.
            let begin = format!(
                "for name in ('SIGCHLD', 'SIGPIPE'): signal.signal(getattr(signal, name), signal.SIG_IGN if name == \
                 '{ignored}' else signal.SIG_DFL)"
            );
            let mut without = alone.command(kind, "sh");
            let without = begun_by(&begin, without.args(["-c", script])).output()?;
            let output = begun_by(&begin, &alone.run(kind, way, &["sh", "-c", script])).output()?;
            ensure!(output.status.code() == Some(7) && output.stderr.is_empty(), "{ignored}: {output:?}");
            ensure!(!output.stdout.is_empty() && output.stdout == without.stdout, "{ignored}: {output:?}, {without:?}");
        }
        Ok(())
    })
}

/// Our own lines, which the kernel answers with SIGPIPE, are not the program's.
#[test]
fn whoever_no_longer_reads_what_is_said_does_not_harm_the_program() -> Result<()> {
    let up = "
import signal, socket, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE, signal.SIGUSR1})
print('up', flush=True); sys.stdin.readline()
while True:
    try: socket.socket(socket.AF_INET6); break
    except OSError: time.sleep(0.1)
print('again', flush=True)
signal.sigwait({signal.SIGUSR1})
print(signal.SIGPIPE in signal.sigpending(), flush=True)
";
    let mut alone = Alone::start()?;
    for kind in [Kind::Root, Kind::Own] {
        let mut command = alone.tool(kind, "phantom-run");
        command.args(["--isolation", "preload", "--", "python3", "-c", up]);
        let mut run = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut says = BufReader::new(run.stdout.take().context("no pipe")?).lines();
        let mut said = || says.next().context("it said no more")?.context("reading");
        ensure!(said()? == "up", "{kind:?}");
        drop(run.stderr.take());
        // What it says now, that the daemon is gone, nobody reads. What is open to the next one tells that it was said.
        alone.kill_daemon(kind);
        alone.start_daemon(kind)?;
        writeln!(run.stdin.as_mut().context("no pipe")?)?;
        ensure!(said()? == "again", "{kind:?}");
        signal(run.id().try_into()?, libc::SIGUSR1);
        ensure!(said()? == "False", "{kind:?}: the program got SIGPIPE");
        ensure!(run.wait()?.success(), "{kind:?}");
    }
    Ok(())
}

/// The same before the program runs, and where whoever started it had the signal blocked: it would wait for the program.
#[test]
fn what_nobody_reads_at_the_start_leaves_nothing_for_the_program() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        for way in Way::ALL {
            let mut run = alone.tool(kind, "phantom-run");
            run.args(["--isolation", way.flag(), "--", "grep", "SigPnd", "/proc/self/status"]);
            let unread = "signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.pthread_sigmask(signal.SIG_BLOCK, \
                          {signal.SIGPIPE})\nreads, writes = os.pipe(); os.close(reads); os.dup2(writes, 2)";
            let output = begun_by(unread, &run).output()?;
            ensure!(stdout(&output)? == "SigPnd:\t0000000000000000\n", "{kind:?} by {way:?}: {output:?}");
        }
    }
    Ok(())
}
