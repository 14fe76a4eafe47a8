//! What a user can do to root's daemon and to its other users, with bytes and descriptors of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Server, binary, eventually, stdout};

/// Two users of this computer who are neither root nor anybody in particular.
const ALICE: &str = "65534";
const BOB: &str = "65533";

/// A daemon of root's, alone, and programs that every user may start.
struct Alone {
    folder: tempfile::TempDir,
    daemon: Server,
}

impl Alone {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["phantomd", "phantom", "phantom-run", "libphantom.so"] {
            fs::copy(binary(name), folder.path().join(name))?;
        }
        let (data, socket) = (folder.path().join("data"), folder.path().join("socket"));
        let mut daemon = Command::new(folder.path().join("phantomd"));
        daemon.arg("--data-dir").arg(data).arg("--socket").arg(&socket).args([
            "--listen",
            "127.0.0.1:0",
            "--accept-eula",
        ]);
        let daemon = Server::start(daemon)?;
        eventually(|| {
            ensure!(socket.exists(), "the daemon does not start");
            Ok(())
        })?;
        Ok(Self { folder, daemon })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// Whether it answers root, several times: each answer may be another thread's.
    fn answers(&self) -> Result<()> {
        for _ in 0..16 {
            let mut status = Command::new("timeout");
            status.arg("60").arg(self.path("phantom")).arg("--daemon").arg(self.socket()).arg("status");
            stdout(&status.output()?)?;
        }
        Ok(())
    }

    /// A program in a phantom namespace of a user's.
    fn run(&self, user: &str) -> Command {
        let mut run = as_user(user, &self.path("phantom-run"));
        run.arg("--daemon").arg(self.socket()).args(["--quiet", "--isolation", "namespace", "--"]);
        run
    }
}

fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program).stdin(Stdio::null());
    for variable in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PHANTOM_SOCKET", "PHANTOM_SESSION", "PHANTOM_IDENTITY"] {
        command.env_remove(variable);
    }
    command
}

/// Passes sockets whose last close waits for ten minutes, by every way on which the daemon reads or closes; then stays, for
/// with it they would end.
const LINGERING: &str = r"
import array, signal, socket, struct, sys, threading
server = socket.create_server(('127.0.0.1', 0))
kept = []
def lingering():
    client = socket.create_connection(server.getsockname())
    kept.append(server.accept()[0])
    client.setblocking(False)
    try:
        while True: client.send(bytes(65536))
    except BlockingIOError: pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 600))
    return client
def passed(to, data, flags=0, count=1):
    sockets = [lingering() for _ in range(count)]
    numbers = array.array('i', [one.fileno() for one in sockets])
    try: to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)], flags)
    except OSError: pass # The daemon has had enough of this line.
    # Where the daemon was faster this one waits.
    for one in sockets: threading.Thread(target=one.close, daemon=True).start()
def daemon():
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    return line
def send(line, data):
    try: line.send(data)
    except OSError: pass
def frame(*parts):
    body = b''.join(parts)
    return struct.pack('>I', len(body)) + body
hello = b'PH\0' + bytes([int(sys.argv[2])])
token = bytes(range(16))
def identity(): return b'\1' + token
for n in range(8):
    passed(daemon(), b'x')
    passed(daemon(), b'P')
    passed(daemon(), b'{')
    passed(daemon(), hello + frame(b'\5', identity()), count=5)
    line = daemon(); send(line, b'P'); passed(line, b'H')
    line = daemon(); send(line, hello); passed(line, b'!', socket.MSG_OOB); send(line, b'!'); kept.append(line)
    line = daemon(); send(line, b'x'); passed(line, b'H')
    line = daemon(); passed(line, hello); passed(line, frame(b'\5', identity())); kept.append(line)
print('passed', flush=True)
signal.pause()
";

#[test]
fn descriptors_that_are_slow_to_close_hold_up_nobody_else() -> Result<()> {
    let alone = Alone::start()?;
    let mut hostile = as_user(ALICE, Path::new("/usr/bin/python3"));
    hostile.args(["-c", LINGERING]).arg(alone.socket()).arg(phantom_ipc::VERSION.to_string());
    let _hostile = Server::start_until(hostile, "passed")?;
    alone.answers()?;
    // Nor other users.
    ensure!(alone.run(BOB).args(["timeout", "60", "true"]).status()?.success());
    // Nor the process: no thread of it waits, which would keep it from becoming the next one.
    let mut restart = Command::new("timeout");
    restart.arg("60").arg(alone.path("phantom")).arg("--daemon").arg(alone.socket()).arg("restart");
    stdout(&restart.output()?)?;
    alone.answers()
}

/// Passes them where the daemon has no time for them: at the door, when the user has no place left, out of turn; to processes that receive,
/// more than one at once; and behind requests that are under way when all is left to the next process, on conversations that cannot be.
const CROWDS: &str = r"
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def waits(to, data, flags=0):
    one = lingering()
    try: to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [one.fileno()]))], flags)
    except OSError: pass
    threading.Thread(target=one.close, daemon=True).start()
    kept.append(to)
def answer(line): return line.recv(int.from_bytes(line.recv(4, socket.MSG_WAITALL)), socket.MSG_WAITALL)
def told(): line = daemon(); send(line, hello); return line
def asks(what, which, *more): return frame(bytes([what, 1]), which, *more)
mine = os.urandom(16)
emulated = told()
send(emulated, asks(0x13, mine, b'\1'))
first, lines, _, _ = socket.recv_fds(emulated, 4, 1)
emulated.recv(int.from_bytes(first))
own = socket.socket(fileno=lines[0])
send(own, asks(1, mine, struct.pack('>iii', 2, 1, 0)))
kept += [emulated, own, socket.recv_fds(own, 65536, 3)]
holds = [told() for _ in range(10)]
for line in holds: send(line, asks(0x11, mine)); answer(line)
for _ in range(20): passed(daemon(), b'P', count=4)
for _ in range(600):
    try: kept.append(told())
    except OSError: break
for _ in range(10):
    for _ in range(40):
        line = socket.socket(socket.AF_UNIX); line.setblocking(False)
        try: line.connect(sys.argv[1])
        except OSError: pass
        kept.append(line)
    line = socket.socket(socket.AF_UNIX); line.setblocking(False)
    try: line.connect(sys.argv[1]); waits(line, b'x', socket.MSG_OOB); send(line, b'y' * 10)
    except OSError: pass
for line in holds: send(line, b''.join(asks(1, os.urandom(16), struct.pack('>iii', 2, 1, 0)) for _ in range(3)))
for line in holds: waits(line, b'\0')
print('passed', flush=True)
signal.pause()
";

/// What waits for ever belongs to whoever sent it: neither a thread nor the process, nor another user, waits for it.
#[test]
fn nothing_that_is_passed_keeps_the_door_or_the_next_process_waiting() -> Result<()> {
    let alone = Alone::start()?;
    let (preparation, _) = LINGERING.split_once("for n in").context("no loop")?;
    let mut hostile = as_user(ALICE, Path::new("/usr/bin/python3"));
    hostile.arg("-c").arg(format!("{preparation}{CROWDS}")).arg(alone.socket()).arg(phantom_ipc::VERSION.to_string());
    let hostile = Server::start_until(hostile, "passed")?;
    let restart = || {
        let mut restart = Command::new("timeout");
        restart.arg("60").arg(alone.path("phantom")).arg("--daemon").arg(alone.socket()).arg("restart");
        stdout(&restart.output()?)
    };
    for _ in 0..3 {
        restart()?;
    }
    alone.answers()?;
    ensure!(alone.run(BOB).args(["timeout", "60", "true"]).status()?.success());
    drop(hostile);
    // What it left ends, and somebody hears of it.
    eventually(|| {
        let daemon = alone.daemon.id().to_string();
        let left = Command::new("ps").args(["-o", "args=", "--ppid", &daemon]).output()?;
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        ensure!(!left.contains("defunct") && !left.contains("__receive") && !left.contains("__bury"), "{left}");
        Ok(())
    })
}

/// Connects as fast as can be, for ever; the last of them stay for a moment, each with a descriptor if it says so.
const FLOODS: &str = r"
import array, os, socket, sys
kept, passes = [], sys.argv[2] == 'passes'
print('floods', flush=True)
while True:
    line = socket.socket(socket.AF_UNIX)
    line.setblocking(False)
    try:
        line.connect(sys.argv[1])
        if passes: line.sendmsg([b'P'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])
    except OSError: pass
    kept.append(line)
    if len(kept) > 600: kept.clear()
";

/// The kernel has one queue for all who come to a socket.
#[test]
fn who_connects_as_fast_as_can_be_keeps_nobody_else_waiting() -> Result<()> {
    let alone = Alone::start()?;
    for passes in ["passes not", "passes"] {
        let mut flood = as_user(ALICE, Path::new("/usr/bin/python3"));
        flood.args(["-c", FLOODS]).arg(alone.socket()).arg(passes);
        let _flood = Server::start_until(flood, "floods")?;
        alone.answers()?;
        let mut root = Command::new(alone.path("phantom-run"));
        root.arg("--daemon").arg(alone.socket()).args(["--quiet", "--isolation", "namespace", "--", "true"]);
        ensure!(root.status()?.success(), "root's program, {passes}");
        for _ in 0..16 {
            let mut list = as_user(BOB, &alone.path("phantom"));
            stdout(&list.arg("--daemon").arg(alone.socket()).args(["identity", "list"]).output()?)?;
        }
        ensure!(alone.run(BOB).args(["timeout", "60", "true"]).status()?.success(), "another user's, {passes}");
    }
    Ok(())
}

/// A daemon that says nothing, at its socket for all and at its own user's; prints where those come who load the library alone: root, two
/// who are not, and root where somebody else has put the second one there.
const DOORS: &str = r"
import os, select, socket, subprocess, sys
folder, library = sys.argv[1:]
doors = {}
for name, mode in ('socket', 0o666), ('socket.own', 0o600):
    door = socket.socket(socket.AF_UNIX)
    door.bind(folder + '/' + name); os.chmod(folder + '/' + name, mode); door.listen()
    doors[door] = name
env = {'PATH': os.environ['PATH'], 'LD_PRELOAD': library, 'PHANTOM_SOCKET': folder + '/socket'}
def first(user):
    program = ['/usr/bin/python3', '-c', 'import socket; socket.socket()']
    with subprocess.Popen(program, env=env, user=user, group=user, extra_groups=[], stderr=subprocess.DEVNULL) as program:
        name = None
        while program.poll() is None:
            for door in select.select(doors, [], [], 0.1)[0]:
                door.accept()[0].close()
                name = name or doors[door]
    return name
print(*[first(user) for user in (0, 65534, 65533)])
os.chown(folder + '/socket.own', 65534, -1)
print(first(0))
";

#[test]
fn who_loads_the_library_alone_comes_by_roots_own_way_if_it_is_root() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let library = folder.path().join("libphantom.so");
    fs::copy(binary("libphantom.so"), &library)?;
    let mut doors = Command::new("/usr/bin/python3");
    let said = stdout(&doors.args(["-c", DOORS]).arg(folder.path()).arg(library).output()?)?;
    ensure!(said == "socket.own socket socket\nsocket\n", "{said}");
    Ok(())
}

/// Says the address, and stays.
const STAYS: &str = r"
import signal, socket
own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); own.connect(('fd70::1', 1))
print(own.getsockname()[0], flush=True)
signal.pause()
";

/// Asks for the name of an address, of the gate and of a DNS server itself.
const ASKS: &str = r"
import socket, sys
own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); own.connect(('fd70::1', 1))
for address in own.getsockname()[0], sys.argv[1]:
    try: print(socket.getnameinfo((address, 1), socket.NI_NAMEREQD)[0].endswith('.phantom'))
    except socket.gaierror: print(None)
";

#[test]
fn users_do_not_learn_who_else_is_here() -> Result<()> {
    let alone = Alone::start()?;
    let mut stays = alone.run(ALICE);
    stays.args(["/usr/bin/python3", "-c", STAYS]);
    let (_alice, address) = Server::start_first_line(&mut stays)?;
    let said = stdout(&alone.run(BOB).args(["/usr/bin/python3", "-c", ASKS, address.trim()]).output()?)?;
    ensure!(said == "True\nNone\n", "{said}");
    Ok(())
}
