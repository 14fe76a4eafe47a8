//! Whoever starts phantom-run, and what comes with it: limits, signals that are ignored, readers that go away; and programs
//! whose files have rights, or another libc.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::alone::{SELF, among_all_users, confined, with_mounts};
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

/// `ulimit -n`, LimitNOFILE=.
#[test]
fn a_limit_of_open_files_is_told() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        let output = limited("--nofile=11", alone.tool(kind, "phantom-run").args(["--", "echo", "runs"])).output()?;
        ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}: {output:?}");
        ensure!(stderr(&output).contains("ulimit -n"), "{kind:?}: {output:?}");
    }
    Ok(())
}

/// `ulimit -s`: who has no room for a call ends by the system's signal, without a word.
#[test]
fn a_limit_of_the_stack_is_told() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        let run = alone.run(kind, Way::Namespace, &["echo", "runs"]);
        let output = limited("--stack=32768:32768", &run).output()?;
        ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}: {output:?}");
        ensure!(stderr(&output).contains("ulimit -s"), "{kind:?}: {output:?}");
    }
    Ok(())
}

/// A filter of system calls as a unit's SystemCallFilter= makes one: what becomes of mount() is in the second word, all other calls
/// pass. The third has it so only for those with such flags.
const FILTERED: &str = "
import ctypes, struct
libc, mount = ctypes.CDLL(None), {'x86_64': 165, 'aarch64': 40}[os.uname().machine]
answer, flags = int(sys.argv.pop(1), 16), int(sys.argv.pop(1))
rules = [(0x20, 0, 0, 0), (0x15, 0, 3 if flags else 1, mount)]
if flags: rules += [(0x20, 0, 0, 16 + 3 * 8), (0x45, 0, 1, flags)]
rules += [(6, 0, 0, answer), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(rules), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
";

/// What a filter says: the kernel kills, or there is an error.
const KILLS: &str = "80000000";
const NOT_PERMITTED: &str = "50001";
const REMOUNT: &str = "32";

fn filtered(answer: &str, flags: &str, command: &Command) -> Command {
    let mut with = Command::new(answer);
    with.arg(flags).arg(command.get_program()).args(command.get_args());
    begun_by(FILTERED, &with)
}

/// It tells nobody who has killed: somebody who wants programs to start in a weaker way could have.
#[test]
fn a_filter_that_kills_is_named_and_no_reason_for_a_weaker_way() -> Result<()> {
    let alone = Alone::shared()?;
    for kind in Kind::ALL {
        let mut run = alone.tool(kind, "phantom-run");
        let output = filtered(KILLS, "0", run.args(["--", "echo", "runs"])).output()?;
        let told = stderr(&output);
        ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{kind:?}: {output:?}");
        ensure!(told.contains("SystemCallErrorNumber=EPERM") && !told.contains("inject"), "{kind:?}: {told}");
        // What is advised there.
        let mut run = alone.tool(kind, "phantom-run");
        let output = filtered(NOT_PERMITTED, "0", run.args(["--", "python3", "-c", SELF])).output()?;
        ensure!(stdout(&output)? == "True\nself\n", "{kind:?}: {output:?}");
        ensure!(stderr(&output).contains("among your other programs"), "{kind:?}: {output:?}");
    }
    Ok(())
}

/// Where the kernel's settings cannot be protected, root's programs, who could write them, do not start in that way.
#[test]
fn what_cannot_be_mounted_anew_read_only_is_told_or_not_the_users_to_write() -> Result<()> {
    let alone = Alone::shared()?;
    let writes = "python3 -c 'open(\"/proc/sys/kernel/core_pattern\", \"r+\")' 2>/dev/null && echo open; echo runs";
    for kind in Kind::ALL {
        let mut run = alone.tool(kind, "phantom-run");
        run.args(["--isolation", "namespace", "--", "sh", "-c", writes]);
        let output = filtered(NOT_PERMITTED, REMOUNT, &run).output()?;
        let told = stderr(&output);
        if kind == Kind::Root {
            ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{output:?}");
            ensure!(told.contains("protecting /proc/sys"), "{told}");
        } else {
            ensure!(stdout(&output)? == "runs\n", "{kind:?}: {output:?}");
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

/// What waits until a supervisor, or a shell's wrapper, lets it through, waits in the program too.
#[test]
fn signals_that_are_blocked_stay_so_for_the_program() -> Result<()> {
    let alone = Alone::shared()?;
    let begin = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR2])";
    let script = "grep SigBlk /proc/self/status; kill -TERM $$; echo lives on; exit 7";
    alone.everywhere(|kind, way| {
        let mut without = alone.command(kind, "bash");
        let without = begun_by(begin, without.args(["-c", script])).output()?;
        let output = begun_by(begin, &alone.run(kind, way, &["bash", "-c", script])).output()?;
        ensure!(output.status.code() == Some(7) && output.stderr.is_empty(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("lives on") && output.stdout == without.stdout, "{output:?}, {without:?}");
        Ok(())
    })
}

/// A folder that somebody made a root of, or a container, without what every system has.
#[test]
fn a_computer_without_proc_or_null_is_told_what_it_lacks() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let shut = "mount --bind /dev/null /dev/null; mount -o remount,bind,nodev /dev/null";
        for (lack, advice) in [("mount -t tmpfs none /proc", "mount -t proc"), (shut, "mknod")] {
            let output = with_mounts(lack, &alone.run(kind, way, &["echo", "runs"])).output()?;
            let told = stderr(&output);
            ensure!(output.status.code() == Some(125) && output.stdout.is_empty(), "{lack}: {output:?}");
            ensure!(told.contains(advice) && told.lines().count() == 1, "{lack}: {told}");
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

/// Wine, old games: their calls are of a table that filters of our kind do not know.
#[test]
#[cfg(target_arch = "x86_64")]
fn programs_of_32_bits_are_named_where_they_do_not_run() -> Result<()> {
    let alone = Alone::shared()?;
    let source = alone.folder.write("small.s", ".globl _start\n_start: mov $1, %eax\nmov $7, %ebx\nint $0x80\n")?;
    let (object, program) = (alone.folder.at("small.o"), alone.folder.at("small"));
    prepare(Command::new("as").args(["--32", "-o", &object, &source]))?;
    prepare(Command::new("ld").args(["-m", "elf_i386", "-o", &program, &object]))?;
    alone.everywhere(|kind, way| {
        let output = alone.tool(kind, "phantom-run").args(["--isolation", way.flag(), "--", &program]).output()?;
        let is_told = stderr(&output).contains("32-bit program");
        ensure!(is_told == (way != Way::Namespace), "{output:?}");
        ensure!((output.status.code() == Some(7)) != is_told, "{output:?}");
        Ok(())
    })
}

/// What handles crashes lives outside and may send them on; core files stay here.
#[test]
fn crashes_are_handed_to_nobody_outside() -> Result<()> {
    let alone = Alone::shared()?;
    alone.everywhere(|kind, way| {
        let (one, none) = ("ulimit -c 1", "ulimit -c unlimited; ulimit -S -c 0");
        // Who writes no core files has the kernel's sign for the case that somebody is named later.
        let cases =
            [("|/usr/lib/handler %P", one, "1 1\n1 1"), ("core", one, "512 512\n0 0"), ("core", none, "1 -1\n0 0")];
        for (pattern, limit, most) in cases {
            let file = alone.folder.write("core_pattern", pattern)?;
            let script = format!("mount --bind '{file}' /proc/sys/kernel/core_pattern; {limit}");
            // At nothing the kernel would hand them out, and whoever holds secrets sets that.
            let look = "import resource as r; limit = r.RLIMIT_CORE; print(*r.getrlimit(limit)); \
                        r.setrlimit(limit, (0, 0)); print(*r.getrlimit(limit))";
            let run = alone.run(kind, way, &["python3", "-c", look]);
            let said = stdout(&with_mounts(&script, &run).output()?)?;
            ensure!(said == format!("{most}\n"), "{pattern}: {said}");
        }
        Ok(())
    })
}

/// Files, pipes and what tells its owner of time and events; then a process, its mounts, an object of which nothing is known, and a
/// network card by another name than its own.
const OPENED: &str = "
import ctypes, select, shutil, stat, tempfile
rules = ctypes.CDLL(None).syscall(444, ctypes.byref(ctypes.c_uint64(1)), 8, 0)
assert rules >= 0
events = select.epoll()
kept = [os.open('/dev/null', os.O_RDONLY), os.pipe()[0], os.eventfd(0), events.fileno()]
card = f'{tempfile.mkdtemp()}/card'
os.mknod(card, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
gone = [os.pidfd_open(os.getpid()), os.open('/proc/self/ns/mnt', os.O_RDONLY), rules, os.open(card, os.O_RDWR)]
shutil.rmtree(os.path.dirname(card))
for number, opened in enumerate(kept + gone, 50):
    os.dup2(opened, number)
";

/// The kernel has ever new objects without a file, and some act for whoever holds them.
#[test]
fn of_what_was_open_before_only_what_is_known_to_be_harmless_stays() -> Result<()> {
    let alone = Alone::shared()?;
    let look = "import os; print([n for n in range(50, 58) if os.path.exists('/proc/self/fd/%d' % n)])";
    alone.everywhere(|kind, way| {
        let said = stdout(&begun_by(OPENED, &alone.run(kind, way, &["python3", "-c", look])).output()?)?;
        ensure!(said == "[50, 51, 52, 53]\n", "{said}");
        Ok(())
    })
}
