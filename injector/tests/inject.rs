//! The way inject with real programs: whose sockets they get, what is refused, and that it fails closed.
#![allow(missing_docs, clippy::unwrap_used)] // a test that fails says where

mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use daemon::{Daemon, compile};

/// The number by which the kernel knows a socket's network.
fn cookie(socket: &OwnedFd) -> String {
    let (mut cookie, mut length) = (0u64, 8);
    // SAFETY: the kernel writes eight bytes at most.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(got, 0);
    cookie.to_string()
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const INJECT: [&str; 2] = ["--isolation", "inject"];

/// An ordinary user's machine without namespaces of its own: neither the launcher nor the program may make any.
const NO_NAMESPACES: &str =
    "for kind in user mnt net; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"";

fn without_namespaces(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh"]).arg(daemon.open_to_all());
    command.args(arguments).env("PHANTOM_SOCKET", daemon.socket()).env_remove("PHANTOM_IDENTITY").stdin(Stdio::null());
    command
}

#[test]
fn static_programs_and_raw_calls_get_sockets_of_the_phantom_namespace() {
    let daemon = Daemon::start();
    daemon.open_to_all();
    let cookie = cookie(&daemon.phantom_socket());
    for (compiler, options) in [("gcc", &[][..]), ("gcc", &["-static"]), ("musl-gcc", &["-static"])] {
        let program = compile(compiler, "sockets", options, daemon.directory.path());
        let program = program.to_str().unwrap();
        for task in [&[][..], &["family"], &["threads"]] {
            let arguments = [&INJECT[..], &[program, &cookie], task].concat();
            assert_eq!(stdout(daemon.output(&arguments)), "all well\n", "{compiler} {options:?} {task:?}");
            let output = daemon.command_of_nobody(&arguments).output().unwrap();
            assert_eq!(stdout(output), "all well\n", "nobody: {compiler} {options:?} {task:?}");
        }
    }
}

#[test]
fn preloading_refuses_what_the_library_does_not_see() {
    let daemon = Daemon::start();
    let program = compile("musl-gcc", "refused", &["-static"], daemon.directory.path());
    let library = tempfile::NamedTempFile::new().unwrap();
    let mut command = daemon.command(&["--isolation", "preload", program.to_str().unwrap()]);
    let output = command.env("PHANTOM_LIBRARY", library.path()).output().unwrap();
    assert_eq!(stdout(output), "all well\n");
}

#[test]
fn a_user_who_may_not_enter_gets_injected_sockets() {
    let daemon = Daemon::start();
    let output = daemon.command_of_nobody(&["--explain", "readlink", "/proc/self/ns/net"]).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("not by namespace") && said.contains("with injected sockets"), "{said}");
    // Neither the phantom namespace nor the host's: an empty one.
    let network = stdout(output);
    for other in [std::fs::read_link("/proc/self/ns/net").unwrap(), daemon.network.clone()] {
        assert_ne!(network.trim(), other.to_str().unwrap());
    }
    // Browsers build sandboxes of their own inside.
    let sandbox = ["--quiet", "unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "echo", "inside"];
    assert_eq!(stdout(daemon.command_of_nobody(&sandbox).output().unwrap()), "inside\n");
    let output = daemon.command_of_nobody(&["--isolation", "namespace", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("--isolation inject"), "{output:?}");
}

#[test]
fn among_other_programs_doors_are_shut_and_names_are_asked_of_phantom() {
    let daemon = Daemon::start();
    let program = "
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(what, result):
    if result != -1 or ctypes.get_errno() != 1: print('not refused:', what, result, ctypes.get_errno())
refused('ptrace', libc.ptrace(16, os.getppid(), 0, 0))
refused('setns', libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0))
refused('pidfd_getfd', libc.syscall(438, os.pidfd_open(os.getppid()), 0, 0))
refused('process_vm_readv', libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0))
refused('process_vm_writev', libc.process_vm_writev(os.getppid(), None, 0, None, 0, 0))
print(socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8) == int(sys.argv[1]).to_bytes(8, 'little'))
";
    let cookie = cookie(&daemon.phantom_socket());
    let arguments = ["--explain", "python3", "-c", program, &cookie];
    let output = without_namespaces(&daemon, &arguments).output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("inject: ") && said.contains("among your other programs"), "{said}");
    assert_eq!(stdout(output), "True\n", "{said}");
}

#[test]
fn one_supervisor_only() {
    let (outer, inner) = (Daemon::start(), Daemon::start());
    let inner_socket = inner.socket();
    let launcher = env!("CARGO_BIN_EXE_phantom-run");
    let nested = [launcher, "--isolation", "inject", "--daemon", inner_socket.to_str().unwrap(), "true"];
    let within_reach = ["--allow-socket", inner_socket.to_str().unwrap()];
    let output = outer.output(&[&INJECT[..], &within_reach, &nested].concat());
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("another supervisor of this kind"), "{output:?}");
}

/// Makes a socket for each line that it reads, and says what came of it.
const ON_DEMAND: &str = "
import errno, socket, sys
print('up', flush=True)
for line in sys.stdin:
    try: socket.socket(); print('socket', flush=True)
    except OSError as error: print(errno.errorcode[error.errno], flush=True)
";

#[test]
fn a_killed_supervisor_has_no_successor() {
    let daemon = Daemon::start();
    let program = compile("gcc", "overthrow", &[], daemon.directory.path());
    let arguments = [&INJECT[..], &["--quiet", program.to_str().unwrap()]].concat();
    // The launcher's front fails, since its keeper is gone; the program says itself what it could do.
    for mut command in [daemon.command(&arguments), without_namespaces(&daemon, &arguments)] {
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said, format!("refused {}\n", libc::EBUSY));
    }
}

#[test]
fn when_the_daemon_or_the_supervisor_dies_there_is_no_network() {
    let daemon = Daemon::start();
    // The one who asks is a child of the program's: that ends with the supervisor.
    let program = ["sh", "-c", "python3 -uc \"$0\"; :", ON_DEMAND];
    let mut command = daemon.command(&[&INJECT[..], &program].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut lines = output.lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "up");
    let mut ask = || {
        writeln!(input).unwrap();
        lines.next().unwrap()
    };
    assert_eq!(ask(), "socket");
    daemon.die();
    assert_eq!(ask(), "ENETDOWN");
    // The keeper is the front's only child.
    let front = child.id();
    let keeper = std::fs::read_to_string(format!("/proc/{front}/task/{front}/children")).unwrap();
    let keeper: i32 = keeper.trim().parse().unwrap();
    kill_process(Pid::from_raw(keeper).unwrap(), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(125), "the front says that the keeper is gone");
    assert_eq!(ask(), "ENOSYS");
    drop(input);
}

#[test]
fn allowed_local_ports_lead_to_the_host_and_no_others() {
    let daemon = Daemon::start();
    let (allowed, other) = (listener(), listener());
    let ports = [allowed, other].map(|port| port.to_string());
    let program = "
import socket, sys
allowed, other = map(int, sys.argv[1:])
for address in ('127.0.0.1', '::1'):
    with socket.create_connection((address, allowed), timeout=20) as s:
        s.sendall(b'x' * 300000)
        s.shutdown(socket.SHUT_WR)
        got = b''
        while part := s.recv(65536): got += part
        print(address, got[:5], len(got))
    try: socket.create_connection((address, other), timeout=20); print('reached the other')
    except ConnectionRefusedError: pass
";
    let expected = "127.0.0.1 b'host:' 300005\n::1 b'host:' 300005\n";
    for way in ["namespace", "inject"] {
        let arguments =
            ["--isolation", way, "--allow-local", &ports[0], "python3", "-c", program, &ports[0], &ports[1]];
        assert_eq!(stdout(daemon.output(&arguments)), expected, "{way}");
    }
    // The port is taken by somebody in the phantom namespace.
    let taken: TcpListener = daemon.phantom_socket().into();
    rustix::net::bind(&taken, &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, other))).unwrap();
    rustix::net::listen(&taken, 1).unwrap();
    let output = daemon.output(&["--allow-local", &ports[1], "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains(&format!("--allow-local {other}")), "{output:?}");
}

/// A server on the host's loopback that greets and sends back what it gets; its port.
fn listener() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut got = Vec::new();
            connection.read_to_end(&mut got).unwrap();
            connection.write_all(b"host:").unwrap();
            connection.write_all(&got).unwrap();
        }
    });
    port
}
