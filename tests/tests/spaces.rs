//! Phantom namespaces: who may have one, how many there are, and what becomes of programs when the daemon is gone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use phantom_tests::{
    CLIENT, NODES, Network, SERVER, Server, Way, binary, descriptors_beside_links, eventually, processes, signal,
    stdout,
};

/// Two users of this computer who are neither root nor anybody in particular.
const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 65_533;

/// SIGTERM is promised to end a daemon within two seconds; the rest is for a machine that has other things to do.
const STOP: Duration = Duration::from_secs(5);

/// A folder that every user may enter, with copies of the programs: those of the workspace may lie where only root looks.
struct Common(tempfile::TempDir);

impl Common {
    fn new() -> Result<Self> {
        let common = Self(tempfile::tempdir()?);
        fs::set_permissions(common.0.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["phantomd", "phantom", "phantom-run", "libphantom.so"] {
            fs::copy(binary(name), common.path(name))?;
        }
        Ok(common)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A folder that belongs to a user.
    fn home(&self, uid: u32) -> Result<PathBuf> {
        let home = self.path(&uid.to_string());
        fs::create_dir(&home)?;
        std::os::unix::fs::chown(&home, Some(uid), Some(uid))?;
        Ok(home)
    }

    /// One of the programs, as a user, with `words` before its arguments.
    fn program(&self, uid: u32, name: &str) -> Command {
        let mut command = as_user(uid);
        command.arg(self.path(name));
        command
    }
}

fn as_user(uid: u32) -> Command {
    let uid = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"]).stdin(Stdio::null());
    for variable in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PHANTOM_SOCKET", "PHANTOM_SESSION", "PHANTOM_IDENTITY"] {
        command.env_remove(variable);
    }
    command.env("HOME", "/nonexistent");
    command
}

/// It failed, said all of that in one line, and nothing of a panic.
fn refused(output: &Output, says: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.trim().lines().count() == 1, "{}: {text}", output.status);
    ensure!(says.iter().all(|word| text.contains(word)) && !text.contains("panicked"), "not {says:?}: {text}");
    Ok(())
}

/// Answers whoever connects with a line, for ever.
const HELLO: &str = "
import socket
with socket.create_server(('', 7001)) as server:
    print('listening', flush=True)
    while True:
        with server.accept()[0] as c: c.sendall(b'hello\\n')
";

/// Who the program is, what a server says to it, and whether it may build a sandbox of its own.
const VISIT: &str = "
import os, socket, subprocess, sys
print(os.getuid(), os.getgid(), end=' ')
with socket.create_connection((sys.argv[1], 7001)) as c: print(c.makefile().readline().strip(), end=' ')
sandbox = ['unshare', '--user', '--map-current-user', '--net', 'true']
print(subprocess.run(sandbox, stderr=subprocess.DEVNULL).returncode)
";

#[test]
fn users_run_programs_of_roots_daemon() -> Result<()> {
    let (network, common) = (Network::shared()?, Common::new()?);
    let (_server, name) = network.serve(Way::Namespace, "hello", &["python3", "-c", HELLO], "listening")?;
    network.open_to_all(CLIENT)?;
    let socket = &network.nodes[CLIENT].socket;
    let sandbox =
        stdout(&as_user(NOBODY).args(["sh", "-c", "unshare -U --map-current-user -n true; echo $?"]).output()?)?;
    for way in ["namespace", "preload"] {
        let mut run = common.program(NOBODY, "phantom-run");
        run.arg("--daemon").arg(socket).args(["--isolation", way, "--", "python3", "-c", VISIT, &name]);
        let said = stdout(&run.env("PHANTOM_LIBRARY", common.path("libphantom.so")).output()?)?;
        ensure!(said == format!("{NOBODY} {NOBODY} hello {sandbox}"), "{way}: {said}");
    }
    // Root's own things are not for others, and nobody is no one person.
    let mut run = common.program(NOBODY, "phantom-run");
    run.arg("--daemon").arg(socket).args(["--identity", "hello", "--", "true"]);
    refused(&run.output()?, &["has no names", "leave the name out"])?;
    let mut status = common.program(NOBODY, "phantom");
    let status = status.arg("--daemon").arg(socket).arg("status").output()?;
    let text = String::from_utf8_lossy(&status.stderr);
    ensure!(!status.status.success() && text.contains("only root") && text.contains("sudo"), "{text}");
    Ok(())
}

/// Listens as root, and serves as somebody who may not use the name that root's daemon gave the identity.
const GIVES_ROOT_UP: &str = "
import os, socket, sys
server = socket.create_server(('::', 7002), family=socket.AF_INET6)
os.setgid(65534); os.setuid(65534)
later = socket.socket(socket.AF_INET6); later.bind(('::', 7003)); later.listen()
print('listening', flush=True)
while True:
    for door in server, later:
        with door.accept()[0] as c: c.sendall(b'as %d\\n' % os.getuid())
";

#[test]
fn servers_that_give_root_up_keep_their_identity() -> Result<()> {
    let (network, common) = (Network::shared()?, Common::new()?);
    network.open_to_all(SERVER)?;
    for way in Way::ALL {
        let identity = format!("lent-{way:?}").to_lowercase();
        let name = network.address(SERVER, &identity)?;
        let mut server = network.offering(SERVER, way, Some(&identity), &["python3", "-c", GIVES_ROOT_UP]);
        // Where others than root find it too.
        server.env("PHANTOM_LIBRARY", common.path("libphantom.so"));
        let _server = Server::start_until(server, "listening").with_context(|| format!("{way:?}"))?;
        network.published(&name)?;
        for port in ["7002", "7003"] {
            let said = network.run(Way::Namespace, &["nc", "-N", &name, port]).with_context(|| format!("{way:?}"))?;
            ensure!(said == format!("as {NOBODY}\n"), "{way:?}: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_users_namespace_opens_to_that_user_and_root_alone() -> Result<()> {
    let (network, common) = (Network::shared()?, Common::new()?);
    network.open_to_all(CLIENT)?;
    let socket = &network.nodes[CLIENT].socket;
    let mut run = common.program(NOBODY, "phantom-run");
    run.arg("--daemon").arg(socket).args(["--quiet", "--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let mut program = Killed(run.stdout(Stdio::piped()).spawn()?);
    let mut pid = String::new();
    BufReader::new(program.0.stdout.take().context("no pipe")?).read_line(&mut pid)?;
    let enter = |command: &mut Command, what: &[&str]| -> Result<bool> {
        let entered = command.args(["nsenter", "--target", pid.trim()]).args(what).arg("true").output()?;
        Ok(entered.status.success())
    };
    let both = ["--user", "--preserve-credentials", "--net"];
    ensure!(enter(&mut as_user(NOBODY), &both)?, "its own user may enter");
    ensure!(!enter(&mut as_user(NOBODY), &["--net"])?, "not without the user namespace, which has no rights outside");
    ensure!(!enter(&mut as_user(SOMEBODY), &both)?, "another user may not");
    ensure!(enter(&mut Command::new("env"), &["--net"])?, "root may");
    Ok(())
}

/// A process of a test; killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Ended already, mostly. phantom-run passes this on to its program.
        if let Ok(pid) = self.0.id().try_into() {
            signal(pid, libc::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// In mounts of its own: /dev/net/tun with the mode $1, or none for "-"; then the rest of the arguments.
const WITH_TUN: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
case $1 in -) touch /mnt/tun;; *) mknod /mnt/tun c 10 200; chmod "$1" /mnt/tun;; esac
mount --bind /mnt/tun /dev/net/tun
shift
exec "$@"
"#;

/// A lone daemon with a home of its own, started by `wrap`ping its command line; and its socket.
fn lone_daemon(common: &Common, uid: u32, wrap: &[&str]) -> Result<(Killed, PathBuf)> {
    let home = common.home(uid)?;
    let socket = home.join("socket");
    let mut daemon = Command::new(wrap[0]);
    daemon.args(&wrap[1..]).arg(common.path("phantomd")).arg("--data-dir").arg(home.join("data"));
    daemon.arg("--socket").arg(&socket).args(["--listen", "127.0.0.1:0", "--accept-eula"]).env("HOME", &home);
    daemon.env_remove("XDG_CONFIG_HOME").env_remove("PHANTOM_SOCKET").stdin(Stdio::null());
    let daemon = Killed(daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    eventually(|| std::os::unix::net::UnixStream::connect(&socket).map(drop).context("no daemon"))?;
    Ok((daemon, socket))
}

/// What a program sees without any node in sight: itself.
const ALONE: &str = "
import os, socket
own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); own.connect(('fd70::1', 1))
server = socket.create_server((own.getsockname()[0], 0), family=socket.AF_INET6)
client = socket.create_connection(server.getsockname()[:2]); server.accept()[0].sendall(b'self')
try: socket.getaddrinfo('no-such-name.phantom', 1)
except socket.gaierror: print(os.getuid(), client.recv(4).decode(), 'phantom0' in open('/proc/net/dev').read())
";

#[test]
fn a_user_runs_daemon_and_programs_where_the_system_allows_it() -> Result<()> {
    let common = Common::new()?;
    let uid = NOBODY.to_string();
    let user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"];
    let wrap = [&["unshare", "--mount", "sh", "-c", WITH_TUN, "sh", "0666"][..], &user].concat();
    let (_daemon, socket) = lone_daemon(&common, NOBODY, &wrap)?;
    let run =
        |mut run: Command| run.arg("--daemon").arg(&socket).args(["--quiet", "--", "python3", "-c", ALONE]).output();
    let said = stdout(&run(common.program(NOBODY, "phantom-run"))?)?;
    ensure!(said == format!("{NOBODY} self True\n"), "{said}");
    // Root may use a user's daemon, and stays root.
    let said = stdout(&run(Command::new(binary("phantom-run")))?)?;
    ensure!(said == "0 self True\n", "{said}");
    // Other users are kept out: this daemon could give them no namespace.
    let other = run(common.program(SOMEBODY, "phantom-run"))?;
    let text = String::from_utf8_lossy(&other.stderr);
    ensure!(other.status.code() == Some(125) && text.contains("not this user's to ask"), "{}: {text}", other.status);
    Ok(())
}

#[test]
fn a_tun_device_that_users_may_not_open_is_named_with_what_to_do() -> Result<()> {
    let uid = NOBODY.to_string();
    let user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"];
    for (mode, says) in [("0600", "chmod 0666 /dev/net/tun"), ("-", "/dev/net/tun")] {
        let common = Common::new()?;
        let wrap = [&["unshare", "--mount", "sh", "-c", WITH_TUN, "sh", mode][..], &user].concat();
        let (_daemon, socket) = lone_daemon(&common, NOBODY, &wrap)?;
        let mut run = common.program(NOBODY, "phantom-run");
        let run = run.arg("--daemon").arg(&socket).args(["--isolation", "namespace", "--", "true"]).output()?;
        refused(&run, &["no phantom namespace can be made", says])?;
    }
    Ok(())
}

#[test]
fn a_confined_daemon_says_what_it_lacks() -> Result<()> {
    let common = Common::new()?;
    // Root of a user namespace that may neither make namespaces nor others of its kind.
    let confined = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin -- \"$@\"";
    let wrap = ["unshare", "--user", "--map-root-user", "sh", "-c", confined, "sh"];
    let (_daemon, socket) = lone_daemon(&common, 0, &wrap)?;
    let mut run = Command::new(binary("phantom-run"));
    let run = run.arg("--daemon").arg(&socket).args(["--isolation", "namespace", "--", "true"]).output()?;
    refused(&run, &["no phantom namespace can be made", "user.max_user_namespaces", "SYS_ADMIN"])
}

/// Sends something and then holds the connection for as long as the other side does.
const HOLD: &str = "
import socket, threading
def hold(client):
    with client:
        try:
            client.sendall(b'x')
            while client.recv(65536): pass
        except OSError: pass
with socket.create_server(('', 7002), backlog=100) as server:
    print('listening', flush=True)
    while True: threading.Thread(target=hold, args=(server.accept()[0],), daemon=True).start()
";

/// Waits in every way that a program can for a daemon that dies meanwhile. Says `connected`; at a line of input, when the
/// daemon is stopped, begins to connect and says `waiting`; then how each wait ended.
const WAIT: &str = "
import errno, select, socket, sys, threading
def code(action):
    try: return action()
    except OSError as error: return errno.errorcode.get(error.errno, str(error))
to = socket.getaddrinfo(sys.argv[1], 7002, socket.AF_INET6, socket.SOCK_STREAM)[0][4]
def connected():
    s = socket.create_connection(to[:2]); assert s.recv(1) == b'x'; return s
reader, watched, pending, late = connected(), connected(), socket.socket(socket.AF_INET6), socket.socket(socket.AF_INET6)
print('connected', flush=True)
sys.stdin.readline()
ends = {}
thread = threading.Thread(target=lambda: ends.__setitem__('read', code(lambda: reader.recv(1))))
thread.start()
pending.setblocking(False); watched.setblocking(False)
begun = errno.errorcode[pending.connect_ex(to)]
poll = select.epoll()
for s in (pending, watched): poll.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
# Writable: that is no news.
assert [fd for fd, _ in poll.poll()] == [watched.fileno()]
print('waiting', begun, flush=True)
seen = set()
while len(seen) < 2: seen |= {fd for fd, what in poll.poll() if what & select.EPOLLERR}
error = lambda s: errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
thread.join()
print('read', ends['read'], 'watched', error(watched), 'pending', error(pending), 'late', code(lambda: late.connect(to)))
";

#[test]
fn programs_hear_at_once_that_the_daemon_was_killed() -> Result<()> {
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Namespace, "hold", &["python3", "-c", HOLD], "listening")?;
    let daemon = network.pid(CLIENT)?;
    let waiting = |way| -> Result<_> {
        let mut program = network.program(CLIENT, way, None, &["python3", "-c", WAIT, &name]);
        let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(program.stdout.take().context("no pipe")?).lines();
        ensure!(said.next().context("it never connected")?? == "connected", "{way:?}");
        Ok((way, program, said))
    };
    let ways = kernel_ways();
    let mut programs = ways.into_iter().map(waiting).collect::<Result<Vec<_>>>()?;
    // A stopped daemon answers nothing: what begins now cannot end before it is killed.
    signal(daemon, libc::SIGSTOP);
    for (way, program, said) in &mut programs {
        program.stdin.take().context("no pipe")?.write_all(b"\n")?;
        ensure!(said.next().context("it ended")?? == "waiting EINPROGRESS", "{way:?}");
    }
    signal(daemon, libc::SIGKILL);
    for (way, mut program, mut said) in programs {
        let line = said.next().context("it said nothing")??;
        let expected = "read ECONNABORTED watched ECONNABORTED pending ECONNABORTED late ENETUNREACH";
        ensure!(line == expected, "{way:?}: {line}");
        ensure!(program.wait()?.success(), "{way:?}");
    }
    nothing_is_left(&network)?;
    // A new daemon on the same place serves new programs.
    let _daemon = restart(&network)?;
    let program = &["python3", "-c", VISIT_HOLD, &name];
    eventually(|| ensure_is(&network.run(Way::Namespace, program)?, "x\n"))
}

/// Those in which a program's sockets are the kernel's own.
fn kernel_ways() -> Vec<Way> {
    Way::ALL.into_iter().filter(|way| *way != Way::Emulate).collect()
}

const VISIT_HOLD: &str = "
import socket, sys
with socket.create_connection((sys.argv[1], 7002)) as c: print(c.recv(1).decode())
";

fn ensure_is(said: &str, expected: &str) -> Result<()> {
    ensure!(said == expected, "{said:?} instead of {expected:?}");
    Ok(())
}

/// No helper and no namespace of the client's node.
fn nothing_is_left(network: &Network) -> Result<()> {
    let folder = network.nodes[CLIENT].data_dir.to_str().context("path")?;
    eventually(|| {
        let all = processes()?;
        let parents: Vec<_> = all.iter().map(|process| process.pid).collect();
        let lost = |p: &&phantom_tests::Process| p.words.iter().any(|word| word == "__netns") && p.parent == 1;
        let left: Vec<_> =
            all.iter().filter(lost).chain(all.iter().filter(|p| p.words.iter().any(|w| w.contains(folder)))).collect();
        ensure!(left.is_empty() && !parents.is_empty(), "{left:?}");
        Ok(())
    })
}

/// Starts the client's node again as it was started.
fn restart(network: &Network) -> Result<Killed> {
    let node = &network.nodes[CLIENT];
    let mut daemon = Command::new(binary("phantomd"));
    daemon.arg("--hurry").arg("--data-dir").arg(&node.data_dir);
    let daemon = Killed(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    eventually(|| network.phantom(CLIENT, &["status"]).map(drop))?;
    Ok(daemon)
}

/// Keeps many connections busy in both directions until they break; says when all are up, and how many broke.
const BUSY: &str = "
import socket, sys, threading
broke = []
def busy(c):
    try:
        while True: c.sendall(bytes(65536))
    except OSError: broke.append(1)
cs = [socket.create_connection((sys.argv[1], 7002)) for _ in range(20)]
for c in cs: assert c.recv(1) == b'x'
ts = [threading.Thread(target=busy, args=(c,)) for c in cs]
for t in ts: t.start()
print('busy', flush=True)
for t in ts: t.join()
print(len(broke))
";

#[test]
fn a_busy_daemon_ends_in_time_and_its_programs_with_it() -> Result<()> {
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Namespace, "hold", &["python3", "-c", HOLD], "listening")?;
    let mut program = network.program(CLIENT, Way::Namespace, None, &["python3", "-c", BUSY, &name]);
    let mut program = program.stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(program.stdout.take().context("no pipe")?).lines();
    ensure!(said.next().context("it never connected")?? == "busy");
    let daemon = network.pid(CLIENT)?;
    signal(daemon, libc::SIGTERM);
    let start = Instant::now();
    while processes()?.iter().any(|process| process.pid == daemon) {
        ensure!(start.elapsed() < STOP, "phantomd did not end in {STOP:?}");
        std::thread::yield_now();
    }
    println!("ended under load after {:?}", start.elapsed());
    ensure!(said.next().context("it said nothing")?? == "20");
    ensure!(program.wait()?.success());
    nothing_is_left(&network)
}

/// Descriptors beside links, threads, helpers and memory (KiB) of a daemon.
fn size_of(daemon: libc::pid_t) -> Result<[usize; 4]> {
    let count = |what: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{daemon}/{what}"))?.count());
    let helpers = processes()?.iter().filter(|process| process.parent == daemon).count();
    let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    Ok([descriptors_beside_links(daemon)?, count("task")?, helpers, memory.context("no VmRSS")?])
}

/// Runs of a program that does no networking.
const RUNS: usize = 200;

/// What a daemon may grow by over that: paths and their tasks come and go meanwhile, and memory is kept for reuse.
/// Whatever one run leaves behind is there two hundred times.
const SLACK: [usize; 4] = [32, 8, 0, 40 * 1024];

#[test]
fn many_short_programs_leave_nothing_behind_and_build_no_paths() -> Result<()> {
    let network = Network::shared()?;
    let node = SERVER + 2;
    let paths =
        || -> Result<u64> { network.phantom(node, &["status"])?["exit_paths"].as_u64().context("no exit_paths") };
    let daemon = network.pid(node)?;
    ensure!(network.program(node, Way::Namespace, None, &["true"]).status()?.success());
    let before = settled(daemon, [usize::MAX, usize::MAX, 0, usize::MAX])?;
    let (paths_before, start) = (paths()?, Instant::now());
    for n in 0..RUNS {
        let status = network.program(node, Way::Namespace, None, &["true"]).status()?;
        ensure!(status.success(), "run {n}: {status}");
    }
    println!("{RUNS} runs took {:?}", start.elapsed());
    let bound: Vec<usize> = before.iter().zip(SLACK).map(|(now, slack)| now + slack).collect();
    let after = settled(daemon, bound.try_into().ok().context("four")?)?;
    println!("descriptors, threads, helpers, KiB: {before:?}, then {after:?}");
    // Nothing was built for them. Spares come at the ticks of clocks that no program moves (K4), and one may have come by now.
    let (paths, few) = (paths()?, paths_before.max(2) + RUNS as u64 / 50);
    ensure!(paths <= few, "{paths} paths, {paths_before} before");
    Ok(())
}

/// Waits until a daemon is no larger than that; how large it is.
fn settled(daemon: libc::pid_t, most: [usize; 4]) -> Result<[usize; 4]> {
    eventually(|| {
        let now = size_of(daemon)?;
        ensure!(
            now.iter().zip(most).all(|(now, most)| *now <= most),
            "descriptors, threads, helpers, KiB: {now:?} of {most:?}"
        );
        Ok(now)
    })
}
