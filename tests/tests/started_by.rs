//! Whoever starts phantom-run, and what comes with it: limits, signals that are ignored, readers that go away; and programs
//! whose files have rights, or another libc.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{SELF, among_all_users, confined};
use phantom_tests::programs::prepare;
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

/// Gives a file capabilities, as setcap(8) does: here SYS_ADMIN, NET_ADMIN and IPC_LOCK, to be had at once.
const GIVE_RIGHTS: &str = "
import os, struct, sys
os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x02000001, 1 << 21 | 1 << 12 | 1 << 14, 0, 0, 0))
";

/// What of them a process has, and whether it has sockets.
const RIGHTS: &str = "
import socket
for line in open('/proc/self/status'):
    if line[:6] in ('CapPrm', 'CapEff'): print(int(line.split()[1], 16) & (1 << 21 | 1 << 12 | 1 << 14))
try: socket.socket(socket.AF_INET6); print('socket')
except OSError: print('none')
";

fn with_rights(alone: &Alone) -> Result<String> {
    let program = alone.folder.at("with-rights");
    // Links are followed: the interpreter itself.
    fs::copy("/usr/bin/python3", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    prepare(Command::new("python3").args(["-c", GIVE_RIGHTS, &program]))?;
    Ok(program)
}

/// Databases and captures have some: they start, and have none of them.
#[test]
fn programs_whose_files_have_capabilities_start_without_them() -> Result<()> {
    let alone = Alone::shared()?;
    let program = with_rights(&alone)?;
    alone.everywhere(|kind, way| {
        // For whoever is not root, loaders leave the library behind.
        let is_without = kind != Kind::Root && [Way::Preload, Way::Emulate].contains(&way);
        let mut run = alone.tool(kind, "phantom-run");
        let output = run.args(["--isolation", way.flag(), "--", &program, "-c", RIGHTS]).output()?;
        let network = if is_without { "none" } else { "socket" };
        ensure!(stdout(&output)? == format!("0\n0\n{network}\n"), "{output:?}");
        let told = stderr(&output);
        ensure!(told.contains("it starts without them"), "{told}");
        ensure!(told.contains("it has no network: run a copy") == is_without, "{told}");
        Ok(())
    })?;
    // Where the bounding set is cut already, the kernel executes no such file.
    for way in [Way::Inject, Way::Preload, Way::Emulate] {
        let output = confined(&alone.run(Kind::Root, way, &[&program, "-c", RIGHTS])).output()?;
        ensure!(
            output.status.code() == Some(126) && stderr(&output).contains("run a copy of it"),
            "{way:?}: {output:?}"
        );
    }
    Ok(())
}

/// Their loader takes the library for one of its own, and has pages to say about it.
#[test]
fn programs_of_musl_are_named_where_the_library_is_needed() -> Result<()> {
    let alone = Alone::shared()?;
    let source = alone.folder.write("musl.c", "int main(void) { return 0; }")?;
    let program = alone.folder.at("of-musl");
    prepare(Command::new("musl-gcc").args(["-o", &program, &source]))?;
    alone.everywhere(|kind, way| {
        let is_hooked = [Way::Preload, Way::Emulate].contains(&way);
        for (words, is_musl) in [([&program, "-c", ""], true), (["python3", "-c", SELF], false)] {
            let mut run = alone.tool(kind, "phantom-run");
            let output = run.args(["--isolation", way.flag(), "--"]).args(words).output()?;
            ensure!(stderr(&output).contains("musl") == (is_hooked && is_musl), "{words:?}: {output:?}");
            ensure!(output.status.success() != (is_hooked && is_musl), "{words:?}: {output:?}");
        }
        Ok(())
    })
}
