//! Whatever breaks: a clear message that says what to do, a way on, and nothing left behind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, NODES, Network, SERVER, Server, Way, binary, eventually, phantom_run, processes, signal};
use serde_json::Value;

/// SIGTERM is promised to end a daemon within two seconds; the rest is for a machine that has other things to do.
const STOP: Duration = Duration::from_secs(5);

/// Exit statuses of phantomd, as its help lists them.
const GENERAL: i32 = 1;
const CONFIG: i32 = 2;
const EULA: i32 = 3;
const IN_USE: i32 = 4;

/// A place for a daemon that is no part of a network.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// phantomd on this place, on any free port unless `more` says otherwise.
    fn phantomd(&self, more: &[&str]) -> Command {
        let mut command = Command::new(binary("phantomd"));
        command.arg("--data-dir").arg(self.path("data")).arg("--socket").arg(self.path("socket"));
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(more).stdin(Stdio::null());
        // Nothing of whoever runs the tests.
        command.env("HOME", self.0.path()).env_remove("XDG_CONFIG_HOME").env_remove("PHANTOM_SOCKET");
        command
    }

    fn start(&self, more: &[&str]) -> Result<Running> {
        let mut command = self.phantomd(more);
        let running = Running(command.arg("--accept-eula").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        eventually(|| self.status())?;
        Ok(running)
    }

    fn status(&self) -> Result<Value> {
        let mut status = Command::new(binary("phantom"));
        let output = status.arg("--daemon").arg(self.path("socket")).args(["status", "--json"]).output()?;
        Ok(serde_json::from_str(&phantom_tests::stdout(&output)?)?)
    }
}

/// A daemon of a test; killed when dropped.
struct Running(Child);

impl Running {
    /// SIGTERM, and its exit status.
    fn stop(mut self) -> Result<Option<i32>> {
        signal(self.0.id().try_into()?, libc::SIGTERM);
        let end = Instant::now() + STOP;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code());
            }
            std::thread::yield_now();
        }
        anyhow::bail!("phantomd did not end in {STOP:?}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It ended with this status and said all of that on standard error, and nothing of a panic.
fn refused(output: &Output, status: i32, says: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "{} instead of {status}: {text}", output.status);
    ensure!(says.iter().all(|word| text.contains(word)) && !text.contains("panicked"), "not {says:?}: {text}");
    Ok(())
}

#[test]
fn wrong_flags_are_named() -> Result<()> {
    for (program, status) in [("phantomd", CONFIG), ("phantom", CONFIG), ("phantom-run", 125)] {
        let output = Command::new(binary(program)).arg("--nonsense").output()?;
        refused(&output, status, &["--nonsense", "Usage"])?;
    }
    Ok(())
}

#[test]
fn configurations_that_cannot_be_used_are_refused_with_place_and_reason() -> Result<()> {
    let home = Home::new()?;
    let run = |file: &Path| -> Result<Output> {
        Ok(home.phantomd(&["--accept-eula", "--config", file.to_str().context("path")?]).output()?)
    };
    let check = |file: &Path| -> Result<Output> {
        Ok(home.phantomd(&["--check-config", "--config", file.to_str().context("path")?]).output()?)
    };
    refused(&run(&home.path("missing"))?, CONFIG, &["missing", "cannot read", "phantomd init"])?;
    refused(&run(home.0.path())?, CONFIG, &["cannot read"])?;
    let file = home.path("phantomd.toml");
    for (text, reason) in [
        ("lisen = \"127.0.0.1:1\"", "unknown field `lisen`"),
        ("listen = ", "line 1"),
        ("listen = \"somewhere\"", "as 0.0.0.0:8443"),
        ("advertise = \"8443\"", "as 0.0.0.0:8443"),
        ("peers = [\"phantom-peer:AAAA\"]", "peer"),
        ("[paths]\nhops = 0", "hops"),
    ] {
        fs::write(&file, text)?;
        refused(&run(&file)?, CONFIG, &["phantomd.toml", reason]).with_context(|| text.to_owned())?;
        refused(&check(&file)?, CONFIG, &["phantomd.toml", reason]).with_context(|| text.to_owned())?;
    }
    fs::write(&file, "log = \"warn\"\n[metrics]\nlisten = \"127.0.0.1:9464\"\n[commands]\nignore = [\"ranges\"]\n")?;
    let said = phantom_tests::stdout(&check(&file)?)?;
    for line in ["log            warn", "metrics        127.0.0.1:9464", "ignored        ranges", "is right"] {
        ensure!(said.contains(line), "{line}: {said}");
    }
    fs::write(&file, b"\xff\xfe\x00")?;
    refused(&run(&file)?, CONFIG, &["phantomd.toml"])?;
    ensure!(!home.path("data").join("node.key").exists(), "an identity was made all the same");
    Ok(())
}

#[test]
fn a_port_in_use_and_an_agreement_not_given_are_said() -> Result<()> {
    let home = Home::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    refused(&home.phantomd(&["--listen", &addr]).output()?, EULA, &["--accept-eula"])?;
    let output = home.phantomd(&["--accept-eula", "--listen", &addr]).output()?;
    refused(&output, IN_USE, &[&addr, "in use", "--listen"])
}

#[test]
fn one_daemon_per_directory_and_it_ends_in_order() -> Result<()> {
    let home = Home::new()?;
    let first = home.start(&[])?;
    refused(&home.phantomd(&["--accept-eula"]).output()?, IN_USE, &["already runs", "phantom stop", "--data-dir"])?;
    home.status().context("the first one was disturbed")?;
    ensure!(first.stop()? == Some(0));
    ensure!(!home.path("socket").exists(), "its socket was left behind");
    Ok(())
}

#[test]
fn a_node_without_peers_says_what_it_waits_for() -> Result<()> {
    let home = Home::new()?;
    let gone = home.start(&[])?;
    let peer = home.status()?["peer"].as_str().context("no peer string")?.to_owned();
    gone.stop()?;
    let lonely = Home::new()?;
    let daemon = lonely.start(&["--peer", &peer])?;
    let status = lonely.status()?;
    let waiting = status["waiting_for"].as_str().context("nothing is waited for")?;
    ensure!(status["ready"] == false && waiting.contains("none of the known ones answers"), "{status}");
    ensure!(daemon.stop()? == Some(0));
    // Whom nobody was ever named to is not told that others do not answer.
    let first = Home::new()?;
    let daemon = first.start(&[])?;
    eventually(|| {
        let waiting = first.status()?["waiting_for"].as_str().context("nothing is waited for")?.to_owned();
        ensure!(waiting.contains("this one knows none") && waiting.contains("phantom peer import"), "{waiting}");
        Ok(())
    })?;
    ensure!(daemon.stop()? == Some(0));
    Ok(())
}

#[test]
fn a_corrupt_store_is_left_as_it_is() -> Result<()> {
    let home = Home::new()?;
    home.start(&[])?.stop()?;
    let store = home.path("data").join("store.redb");
    let whole = fs::read(&store)?;
    for damaged in [b"no store at all".repeat(100), whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]] {
        fs::write(&store, &damaged)?;
        let output = home.phantomd(&["--accept-eula"]).output()?;
        refused(&output, GENERAL, &["cannot open", "store.redb", "nothing was changed"])?;
        ensure!(fs::read(&store)? == damaged, "the store was changed");
    }
    fs::write(&store, whole)?;
    ensure!(home.start(&[])?.stop()? == Some(0));
    Ok(())
}

#[test]
fn a_full_disk_is_said() -> Result<()> {
    let home = Home::new()?;
    let data = home.path("data");
    fs::create_dir(&data)?;
    let small = format!("mount -t tmpfs -o size=16k,mode=700 none {} && exec \"$@\"", data.display());
    let phantomd = home.phantomd(&["--accept-eula"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &small, "sh"]).arg(phantomd.get_program()).args(phantomd.get_args());
    refused(&command.env("HOME", home.0.path()).output()?, GENERAL, &["is full", "--data-dir"])
}

#[test]
fn phantom_run_says_what_is_missing() -> Result<()> {
    let home = Home::new()?;
    let output = Command::new(binary("phantom-run")).arg("--daemon").arg(home.path("none")).arg("true").output()?;
    refused(&output, 125, &["no daemon answers", "phantomd", "--daemon"])?;
    let network = Network::shared()?;
    for way in Way::ALL {
        let status = |program: &[&str]| -> Result<Output> { Ok(network.program(CLIENT, way, None, program).output()?) };
        refused(&status(&["no-such-program"])?, 127, &["no-such-program", "not found"])?;
        refused(&status(&["/etc/passwd"])?, 126, &["/etc/passwd", "chmod +x"])?;
        ensure!(status(&["sh", "-c", "exit 7"])?.status.code() == Some(7));
        let killed = status(&["sh", "-c", "kill -9 $$"])?.status;
        ensure!(std::os::unix::process::ExitStatusExt::signal(&killed) == Some(libc::SIGKILL), "{killed}");
    }
    // Whoever has mistyped it would look for the reason in the program.
    let _listens = UnixListener::bind(home.path("there"))?;
    for (path, is_said) in [(home.path("none"), true), (home.path("there"), false)] {
        let mut run = phantom_run(&network.nodes[CLIENT].socket, Way::Namespace);
        let output = run.arg("--allow-socket").arg(&path).args(["--", "true"]).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && text.contains("is no socket now") == is_said, "{path:?}: {text}");
    }
    let stranger = network.program(CLIENT, Way::Namespace, Some("nobody"), &["true"]).output()?;
    refused(&stranger, 125, &["refused"])
}

/// Sends something and then holds the connection for as long as the other side does.
const HOLD: &str = "
import socket, threading
def hold(client):
    with client:
        try:
            client.sendall(b'x' * 100000)
            client.recv(1)
        except OSError:
            pass
with socket.create_server(('', 7000)) as server:
    print('listening', flush=True)
    while True:
        threading.Thread(target=hold, args=(server.accept()[0],), daemon=True).start()
";

/// Reads until the connection ends, says when it is in the middle, and how it ended.
const READ: &str = "
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=20) as c:
    left = 100000
    while left:
        part = c.recv(left)
        assert part
        left -= len(part)
    c.settimeout(90)
    print('reading', flush=True)
    try:
        print('ended' if c.recv(1) == b'' else 'more')
    except ConnectionError:
        print('ended')
";

/// A network with a server that holds connections, and a client in the middle of one.
struct Scene {
    // Ends before the network does.
    _server: Server,
    network: Network,
    name: String,
}

impl Scene {
    fn new() -> Result<Self> {
        let network = Network::up(NODES)?;
        let (server, name) = network.serve(Way::Namespace, "hold", &["python3", "-c", HOLD], "listening")?;
        Ok(Self { _server: server, network, name })
    }

    /// A client that reads; its output goes on after "reading".
    fn client(&self) -> Result<Running> {
        let program = ["python3", "-c", READ, &self.name];
        let mut client = self.network.program(CLIENT, Way::Namespace, None, &program);
        let mut client = Running(client.stdout(Stdio::piped()).spawn()?);
        let mut said = [0; "reading\n".len()];
        client.0.stdout.as_mut().context("no pipe")?.read_exact(&mut said).context("the client never read")?;
        ensure!(&said == b"reading\n", "{said:?}");
        Ok(client)
    }

    /// The client's connection that is open.
    fn connection(&self) -> Result<Value> {
        open_connection(&self.network)
    }

    fn none_is_open(&self, node: usize) -> Result<()> {
        eventually(|| {
            let open = self.network.phantom(node, &["status"])?["open_connections"].as_u64();
            ensure!(open == Some(0), "node {node} has {open:?} open connections");
            Ok(())
        })
    }
}

/// What the client said about the end of its connection.
fn end_of(mut client: Running) -> Result<String> {
    let mut said = String::new();
    client.0.stdout.as_mut().context("no pipe")?.read_to_string(&mut said)?;
    ensure!(client.0.wait()?.success(), "the client failed");
    Ok(said)
}

/// To each that comes: many bytes, while as many are read; then what they hash to, in both directions.
const SEND: &str = "
import hashlib, os, socket, threading
def serve(client):
    sent, got = hashlib.sha256(), hashlib.sha256()
    def receive():
        left = 6_000_000
        while left:
            part = client.recv(min(left, 1 << 16))
            assert part
            got.update(part)
            left -= len(part)
    receiver = threading.Thread(target=receive)
    receiver.start()
    for _ in range(12):
        part = os.urandom(1_000_000)
        sent.update(part)
        client.sendall(part)
    receiver.join()
    client.sendall(sent.digest() + got.digest())
    client.close()
with socket.create_server(('', 7000)) as server:
    print('listening', flush=True)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

/// Reads a part, says so, and goes on when it is told to; writes meanwhile.
const CHECK: &str = "
import hashlib, os, socket, sys, threading
with socket.create_connection((sys.argv[1], 7000), timeout=60) as c:
    c.settimeout(None)
    sent, got = hashlib.sha256(), hashlib.sha256()
    def send():
        for _ in range(6):
            part = os.urandom(1_000_000)
            sent.update(part)
            c.sendall(part)
    def receive(left, into):
        whole = b''
        while left:
            part = c.recv(min(left, 1 << 16))
            assert part, 'the connection ended'
            into.update(part)
            whole = (whole + part)[-64:]
            left -= len(part)
        return whole
    receive(1_000_000, got)
    sender = threading.Thread(target=send)
    sender.start()
    print('reading', flush=True)
    sys.stdin.readline()
    receive(11_000_000, got)
    sender.join()
    sums = receive(64, hashlib.sha256())
    assert sums == got.digest() + sent.digest(), 'bytes differ'
    assert c.recv(1) == b''
    print('whole')
";

/// Every byte of a transfer in both directions arrives once, though a node on its way is gone without a word.
// protocol: S15, S37
#[test]
fn a_transfer_outlives_a_relay_that_is_killed() -> Result<()> {
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Namespace, "send", &["python3", "-c", SEND], "listening")?;
    let mut program = network.program(CLIENT, Way::Namespace, None, &["python3", "-c", CHECK, &name]);
    let mut client = Running(program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut said = [0; "reading\n".len()];
    client.0.stdout.as_mut().context("no pipe")?.read_exact(&mut said).context("the client never read")?;
    let connection = open_connection(&network)?;
    let hop = relay_of(&network, &connection)?;
    signal(network.pid(hop)?, libc::SIGKILL);
    client.0.stdin.take().context("no pipe")?.write_all(b"\n")?;
    ensure!(end_of(client)? == "whole\n");
    Ok(())
}

/// To each that comes: a number in 10 000 bytes every tenth of a second, for 40 s.
const TICK: &str = "
import socket, threading, time
def serve(client):
    with client:
        for tick in range(400):
            client.sendall(tick.to_bytes(4, 'big') * 2500)
            time.sleep(0.1)
with socket.create_server(('', 7000)) as server:
    print('listening', flush=True)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

/// Reads all of it and says nothing to the server; says how long it waited at most.
const TAKE: &str = "
import socket, sys, time
with socket.create_connection((sys.argv[1], 7000), timeout=60) as c:
    c.settimeout(None)
    longest, last = 0, time.monotonic()
    for tick in range(400):
        got = b''
        while len(got) < 10_000:
            part = c.recv(10_000 - len(got))
            assert part, 'the connection ended'
            got += part
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert got == tick.to_bytes(4, 'big') * 2500, 'bytes differ'
        if tick == 20:
            print('reading', flush=True)
            longest = 0
    assert c.recv(1) == b''
    print(f'whole, waited {longest:.1f}')
";

/// A relay that is stopped, of which neither TCP sees anything nor a client that only reads: the transfer ends while it stands still, and it is of use
/// again when it goes on.
// protocol: A3, A5, S50
#[test]
fn a_transfer_outlives_a_relay_that_is_stopped() -> Result<()> {
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Namespace, "tick", &["python3", "-c", TICK], "listening")?;
    let mut program = network.program(CLIENT, Way::Namespace, None, &["python3", "-c", TAKE, &name]);
    let mut client = Running(program.stdout(Stdio::piped()).spawn()?);
    let mut said = [0; "reading\n".len()];
    client.0.stdout.as_mut().context("no pipe")?.read_exact(&mut said).context("the client never read")?;
    let connection = open_connection(&network)?;
    let hop = relay_of(&network, &connection)?;
    let stopped = Stopped::new(network.pid(hop)?);
    let said = end_of(client)?;
    drop(stopped);
    print!("with a relay that stood still: {said}");
    ensure!(said.starts_with("whole, waited "), "{said}");
    // It knows others, and has paths of its own.
    let visit = network.program(hop, Way::Namespace, None, &["python3", "-c", TAKE, &name]).output()?;
    ensure!(phantom_tests::stdout(&visit)?.contains("whole"));
    Ok(())
}

/// A process that stands still while this lives.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(pid: libc::pid_t) -> Self {
        signal(pid, libc::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

/// The client's connection that is open.
fn open_connection(network: &Network) -> Result<Value> {
    let list = network.phantom(CLIENT, &["connection", "list"])?;
    let open = list.as_array().context("no list")?.iter().find(|connection| connection["state"] == "open");
    open.cloned().with_context(|| format!("none is open: {list}"))
}

/// A node of the client's own path that is neither end.
fn relay_of(network: &Network, connection: &Value) -> Result<usize> {
    let ends = [SERVER, CLIENT].map(|node| network.nodes[node].node_id.clone());
    let hops = connection["own_hops"].as_array().context("no hops")?;
    let is_free = |id: &&str| ends.iter().all(|end| end != id);
    let hop = hops.iter().filter_map(|hop| hop["node_id"].as_str()).find(is_free);
    network.nodes.iter().position(|node| hop == Some(&node.node_id)).context("no hop to take away")
}

/// A connection goes on by itself, and a new one keeps away from the dead node.
#[test]
fn a_relay_that_is_killed_is_noticed_and_gone_around() -> Result<()> {
    let scene = Scene::new()?;
    let client = scene.client()?;
    let hop = relay_of(&scene.network, &scene.connection()?)?;
    let dead = &scene.network.nodes[hop].node_id;
    signal(scene.network.pid(hop)?, libc::SIGKILL);
    eventually(|| {
        let hops = scene.connection()?["own_hops"].to_string();
        ensure!(!hops.contains(dead), "the dead node is in the way: {hops}");
        Ok(())
    })?;
    drop(client);
    Ok(())
}

#[test]
fn sigterm_ends_a_daemon_in_use_and_its_programs_hear_of_it() -> Result<()> {
    let scene = Scene::new()?;
    let client = scene.client()?;
    let pid = scene.network.pid(CLIENT)?;
    ensure!(!children(pid)?.is_empty(), "no helper to look after");
    let node = &scene.network.nodes[CLIENT];
    let log = || fs::read_to_string(node.data_dir.join("log"));
    let ready = format!("ready: `phantom-run --daemon {} PROGRAM`", node.socket.display());
    eventually(|| {
        let log = log()?;
        ensure!(log.matches(&ready).count() == 1, "{log}");
        Ok(())
    })?;
    signal(pid, libc::SIGTERM);
    let start = Instant::now();
    while processes()?.iter().any(|process| process.pid == pid) {
        ensure!(start.elapsed() < STOP, "phantomd did not end in {STOP:?}");
        std::thread::yield_now();
    }
    let log = log()?;
    ensure!(!log.contains("fd70:") && !log.contains(".phantom "), "addresses or names are in the log: {log}");
    ensure!(log.contains("stopped by SIGTERM"), "{log}");
    // Also where the far end was slow and the connection was cut.
    ensure!(end_of(client)? == "ended\n");
    scene.none_is_open(SERVER)?;
    no_helper_without_daemon()
}

#[test]
fn a_program_killed_in_the_middle_leaves_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let mut front = scene.client()?;
    let program = processes()?
        .into_iter()
        .find(|process| process.is("python3") && process.words.last() == Some(&scene.name))
        .or_else(|| processes().ok()?.into_iter().find(|p| p.words.contains(&READ.to_owned()) && !p.is("phantom-run")))
        .context("the program does not run")?;
    signal(program.pid, libc::SIGKILL);
    let status = front.0.wait()?;
    ensure!(std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL), "{status}");
    scene.none_is_open(CLIENT)?;
    scene.none_is_open(SERVER)?;
    // The keeper of the session goes with its last program, the helper with the identity that nobody holds any more.
    eventually(|| {
        let left = processes()?.into_iter().filter(|process| process.words.contains(&scene.name)).count();
        ensure!(left == 0, "{left} processes are left");
        Ok(())
    })?;
    let daemon = scene.network.pid(CLIENT)?;
    eventually(|| {
        let helpers = children(daemon)?;
        ensure!(helpers.is_empty(), "helpers are left: {helpers:?}");
        Ok(())
    })
}

#[test]
fn a_daemon_that_is_killed_takes_its_helpers_along() -> Result<()> {
    let scene = Scene::new()?;
    let client = scene.client()?;
    let daemon = scene.network.pid(CLIENT)?;
    let helpers = children(daemon)?;
    ensure!(!helpers.is_empty(), "no helper to look after");
    signal(daemon, libc::SIGKILL);
    eventually(|| {
        let left = processes()?.into_iter().filter(|process| helpers.contains(&process.pid)).count();
        ensure!(left == 0, "{left} helpers live on");
        Ok(())
    })?;
    // The server's end cannot know that nobody comes again: it waits, as for a computer that sleeps.
    ensure!(end_of(client)? == "ended\n", "the program waits for a daemon that is gone");
    Ok(())
}

/// Processes that a daemon started.
fn children(daemon: libc::pid_t) -> Result<Vec<libc::pid_t>> {
    Ok(processes()?.into_iter().filter(|process| process.parent == daemon).map(|process| process.pid).collect())
}

/// Helpers whose daemon is gone have another parent.
fn no_helper_without_daemon() -> Result<()> {
    eventually(|| {
        let all = processes()?;
        let is_daemon = |pid| all.iter().any(|process| process.pid == pid && process.words.len() > 1);
        let lost: Vec<_> = all
            .iter()
            .filter(|process| process.words.iter().any(|word| word == "__netns") && !is_daemon(process.parent))
            .collect();
        ensure!(lost.is_empty(), "{lost:?}");
        Ok(())
    })
}
