//! `phantom-run` with real programs: what they may do, how they end, how long their session lives.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails says where

mod daemon;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use phantom_ipc::hook::{About, IdentityRef, Note, format_session};
use rustix::process::{Pid, Signal, kill_process};

use daemon::{Daemon, PATIENCE};

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Whether the host has a network device of that name, one that new namespaces are not born with.
fn host_has(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("device").exists()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

#[test]
fn the_exit_status_is_the_programs_own() {
    let daemon = Daemon::start();
    assert_eq!(daemon.output(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(daemon.output(&["true"]).status.code(), Some(0));
    assert_eq!(daemon.output(&["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15));
    assert_eq!(daemon.output(&["sh", "-c", "kill -KILL $$"]).status.signal(), Some(9));
    assert_eq!(daemon.output(&["no-such-program"]).status.code(), Some(127));
    assert_eq!(daemon.output(&["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(daemon.output(&["--no-such-option", "true"]).status.code(), Some(125));
    assert_eq!(daemon.output(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_program_that_nobody_reaches_is_ended_where_that_is_wanted() {
    let daemon = Daemon::start();
    daemon.will_note(Note::new(About::Hint, "a hint"));
    daemon.will_note(Note::new(About::Unreached, "not reachable at web"));
    let output = daemon.output(&["--publish", "80", "--publish-or-fail", "sleep", "1000"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("publishes port 80") && said.contains("a hint"), "{said}");
    assert!(said.contains("not reachable at web; the program is ended"), "{said}");
    let output = daemon.output(&["-q", "--publish", "80", "--publish-or-fail", "sleep", "1000"]);
    assert_eq!(output.stderr, b"phantom-run: not reachable at web; the program is ended\n");
    // Else it is said, and everything goes on: also when the daemon says no more.
    let output = daemon.output(&["--publish", "80", "sh", "-c", "sleep 1; exit 7"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(7) && said.ends_with("phantom-run: not reachable at web\n"), "{said}");
    let output = daemon.output(&["-q", "--publish", "80", "sh", "-c", "sleep 1; exit 7"]);
    assert!(output.status.code() == Some(7) && output.stderr.is_empty(), "{output:?}");
    // Nothing was to be published.
    assert_eq!(daemon.output(&["--publish-or-fail", "true"]).status.code(), Some(125));
}

#[test]
fn without_a_daemon_it_says_what_to_do_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let touched = directory.path().join("touched");
    let mut command = Command::new(env!("CARGO_BIN_EXE_phantom-run"));
    let output =
        command.arg("--daemon").arg(directory.path().join("none")).arg("touch").arg(&touched).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("phantomd") && said.contains("--daemon"), "{said}");
    assert!(!touched.exists());
    let daemon = Daemon::answering(Some("there is no identity of this name"));
    let output = daemon.output(&["--identity", "nobody", "touch", touched.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no identity of this name"));
    assert!(!touched.exists());
    assert_eq!(daemon.sessions.recv_timeout(PATIENCE).unwrap().0, IdentityRef::Named("nobody".into()));
}

#[test]
fn an_identity_that_cannot_be_is_refused_before_anybody_is_asked() {
    let daemon = Daemon::start();
    for name in ["", " ", "Shop", "a b", "../shop", "80", "localhost"] {
        let output = daemon.output(&["--identity", name, "true"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(125) && said.contains("a-z"), "{name:?}: {said}");
        let output = daemon.command(&["true"]).env("PHANTOM_IDENTITY", name).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        // An empty variable counts as unset.
        let refused = output.status.code() == Some(125) && said.contains("PHANTOM_IDENTITY") && said.contains("a-z");
        assert!(if name.is_empty() { output.status.success() } else { refused }, "{name:?}: {said}");
    }
    assert!(matches!(daemon.sessions.recv_timeout(PATIENCE).unwrap().0, IdentityRef::Session(_)));
    assert!(daemon.sessions.try_recv().is_err(), "nobody was asked for the others");
    let output = daemon.command(&["true"]).env("PHANTOM_IDENTITY", "shop").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(daemon.sessions.recv_timeout(PATIENCE).unwrap().0, IdentityRef::Named("shop".into()));
}

/// A super-server gives the visitor's connection as standard error: neither the usual line nor an error goes there.
#[test]
fn nothing_is_said_to_a_connection() {
    let daemon = Daemon::start();
    for arguments in [&["sh", "-c", "echo own >&2"][..], &["/nowhere"]] {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut command = daemon.command(arguments);
        command.env_remove("JOURNAL_STREAM").stderr(std::os::fd::OwnedFd::from(theirs)).status().unwrap();
        drop(command);
        let mut said = String::new();
        Read::read_to_string(&mut ours, &mut said).unwrap();
        assert_eq!(said, if arguments.len() > 1 { "own\n" } else { "" });
    }
}

/// Whatever resolver the program brings along: none adds a domain that would say where it runs.
#[test]
fn no_domain_of_this_computer_is_searched() {
    let daemon = Daemon::start();
    let text =
        daemon.script("grep -E '^(search|domain)' /etc/resolv.conf; echo $LOCALDOMAIN; head -n4 /etc/hosts; uname -n");
    let (rest, own) = text.trim_end().rsplit_once('\n').unwrap();
    let short = own.split_once('.').map(|(short, _)| format!(" {short}")).unwrap_or_default();
    let hosts = ["127.0.0.1", "::1"].map(|at| format!("{at} localhost\n{at} {own}{short}\n"));
    assert_eq!(format!("{rest}\n"), format!("search invalid\ninvalid\n{}", hosts.concat()));
}

#[test]
fn the_program_is_alone_with_the_phantom_network() {
    let daemon = Daemon::start();
    let text = daemon.script(
        "readlink /proc/self/ns/net; grep -c 198.18.0.53 /etc/resolv.conf; grep hosts: /etc/nsswitch.conf || echo none
         grep -E '^(NoNewPrivs|CapPrm|CapInh|CapAmb|CapEff):' /proc/self/status; ls /sys/class/net | tr '\\n' ' '; echo; id -u",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], daemon.network.to_str().unwrap());
    assert_ne!(lines[0], std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    assert_eq!(lines[1], "1");
    assert!(["hosts: files dns", "none"].contains(&lines[2]), "{text}");
    let value = |name: &str| lines.iter().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    // SYS_PTRACE, SYS_ADMIN, SYS_MODULE, NET_ADMIN, NET_RAW, BPF, PERFMON, DAC_READ_SEARCH, MKNOD, SYS_RAWIO.
    let dangerous = [19, 21, 16, 12, 13, 39, 38, 2, 27, 17].iter().fold(0u64, |set, bit| set | 1 << bit);
    // Not the bounding set: under no_new_privs it gives nothing, and cut it keeps files with capabilities from starting.
    for set in ["CapPrm:", "CapInh:", "CapAmb:", "CapEff:"] {
        assert_eq!(u64::from_str_radix(&value(set), 16).unwrap() & dangerous, 0, "{text}");
    }
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(lines[lines.len() - 1], rustix::process::geteuid().as_raw().to_string());
    // As in every new network namespace there is nothing but `lo`, and /sys says no more than that.
    let interfaces: Vec<&str> = lines[lines.len() - 2].split_whitespace().filter(|name| *name != "lo").collect();
    assert!(interfaces.iter().all(|name| !host_has(name)), "{text}");
    // The host is as it was.
    assert!(!std::fs::read_to_string("/etc/resolv.conf").unwrap().contains("198.18.0.53"));
}

#[test]
fn inherited_sockets_and_deputies_are_out_of_reach() {
    let daemon = Daemon::start();
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let _bus = UnixListener::bind(runtime.path().join("bus")).unwrap();
    let bus = runtime.path().join("bus");
    let script = "
import os, socket, sys
for fd in map(int, os.listdir('/proc/self/fd')):
    try: target = os.readlink('/proc/self/fd/%d' % fd)
    except OSError: continue
    if fd > 2 and target.startswith(('socket:', 'net:')): print('inherited', fd, target)
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(path); print('connected to', path)
    except ConnectionRefusedError: print('refused')
";
    let control = daemon.directory.path().join("daemon.sock");
    let mut command = daemon.command(&["python3", "-c", script, bus.to_str().unwrap(), control.to_str().unwrap()]);
    command.env("XDG_RUNTIME_DIR", runtime.path());
    // Without the flag the descriptor goes to whatever is started meanwhile, which does no harm.
    rustix::io::fcntl_setfd(&outside, rustix::io::FdFlags::empty()).unwrap();
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "refused\nrefused\n");
    assert!(outside.as_raw_fd() > 2);
}

#[test]
fn signals_are_passed_on() {
    let daemon = Daemon::start();
    let script = "trap 'echo got it; exit 3' USR1; trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
    for (signal, code) in [(Signal::USR1, 3), (Signal::TERM, 4)] {
        let mut child = daemon.command(&["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(line(&mut child), "up");
        kill_process(pid(child.id()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn the_session_lives_as_long_as_the_last_descendant() {
    let daemon = Daemon::start();
    // The front ends at once, though a grandchild, detached from everything, lives on.
    let script = "setsid sh -c 'sleep 1000 & echo $!' 2>/dev/null >&1 | head -n 1";
    let script = script.replace("sleep 1000", "sleep 1000 >/dev/null 2>&1 </dev/null");
    let left: u32 = daemon.script(&script).trim().parse().unwrap();
    let (identity, mut connection) = daemon.sessions.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(identity, IdentityRef::Session(_)));
    connection.set_nonblocking(true).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "the session ended too early");
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    kill_process(pid(left), Signal::KILL).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "the session ends with the last descendant");
}

#[test]
fn preloading_hands_the_hook_what_it_needs() {
    let daemon = Daemon::start();
    let mut library = tempfile::NamedTempFile::new().unwrap();
    library.write_all(b"no library").unwrap();
    // Where every user comes; elsewhere they are laid for those who give root up.
    daemon.open_to_all();
    std::fs::set_permissions(library.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let script = "echo $LD_PRELOAD; echo $PHANTOM_SOCKET; echo $PHANTOM_SESSION";
    let mut command = daemon.command(&["--isolation", "preload", "sh", "-c", script]);
    let output = command.env("PHANTOM_LIBRARY", library.path()).env("LD_PRELOAD", "").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let socket = daemon.directory.path().join("daemon.sock");
    let (IdentityRef::Session(token), _) = daemon.sessions.recv_timeout(PATIENCE).unwrap() else { panic!("no token") };
    let expected = format!("{}\n{}\n{}\n", library.path().display(), socket.display(), format_session(&token));
    assert_eq!(text, expected);
    assert!(String::from_utf8(output.stderr).unwrap().contains("with a filter"));
    let mut command = daemon.command(&["--isolation", "preload", "true"]);
    let output = command.env("PHANTOM_LIBRARY", "/no/such/library").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
}
