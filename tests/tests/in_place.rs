//! `phantom restart`: the daemon becomes the next process, and programs do not notice.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, binary, eventually, phantom_run, signal, stdout};

const KEEPS_ONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/victims/keeps_one.py");

const MANAGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/victims/manager.py");

/// Those whose sockets are the kernel's.
const WAYS: [Way; 3] = [Way::Namespace, Way::Inject, Way::Preload];

/// A client that keeps its connection.
struct Visitor {
    launcher: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Visitor {
    fn start(network: &Network, way: Way, name: &str) -> Result<Self> {
        Self::by(network.program(CLIENT, way, None, &["python3", "-u", KEEPS_ONE, name]))
    }

    fn by(mut command: Command) -> Result<Self> {
        let mut launcher = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asks = launcher.stdin.take().context("no pipe")?;
        let says = BufReader::new(launcher.stdout.take().context("no pipe")?);
        let mut visitor = Self { launcher, asks, says };
        visitor.says("connected")?;
        Ok(visitor)
    }

    fn ask(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.asks, "{what}")?)
    }

    fn says(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        ensure!(line.trim() == expected, "{line:?} instead of {expected:?}");
        Ok(())
    }

    fn ends(self) -> Result<()> {
        let Self { mut launcher, asks, .. } = self;
        drop(asks);
        let status = launcher.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// All ask this, and each is answered well.
fn all(visitors: &mut [(Way, Visitor)], what: &str, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    for (_, visitor) in &mut *visitors {
        visitor.ask(what)?;
    }
    meanwhile()?;
    for (way, visitor) in visitors {
        visitor.says("well").with_context(|| format!("{what} by {way:?}"))?;
    }
    Ok(())
}

fn restart(network: &Network, nodes: &[usize]) -> Result<()> {
    nodes.iter().try_for_each(|node| network.phantom(*node, &["restart"]).map(drop))
}

/// M8: with bytes under way in both directions, at either end, and at both.
// protocol: S51
#[test]
fn connections_go_on_when_either_daemon_is_started_anew() -> Result<()> {
    let network = Network::up(13)?;
    let (_server, name) = network.serve(Way::Namespace, "kept", &["python3", "-u", KEEPS_ONE], "Serving")?;
    let mut visitors = Vec::new();
    for way in WAYS {
        visitors.push((way, Visitor::start(&network, way, &name).with_context(|| format!("{way:?}"))?));
    }
    all(&mut visitors, "1", || Ok(()))?;
    // At an address that the run's own identity is not: it is in use once the program's launcher has what it had.
    let name = network.address(SERVER, "elsewhere")?;
    let mut elsewhere = phantom_run(&network.nodes[SERVER].socket, Way::Namespace);
    elsewhere.args(["--quiet", "--publish", "7000:elsewhere", "python3", "-u", KEEPS_ONE]);
    let _elsewhere = Server::start_until(elsewhere, "Serving")?;
    network.published(&name)?;
    visitors.push((Way::Namespace, Visitor::start(&network, Way::Namespace, &name).context("elsewhere")?));
    let pid = network.pid(CLIENT)?;
    for nodes in [&[CLIENT][..], &[SERVER], &[CLIENT, SERVER]] {
        let under_way = || restart(&network, nodes).with_context(|| format!("{nodes:?}"));
        all(&mut visitors, "4", under_way).with_context(|| format!("while {nodes:?} started anew"))?;
        all(&mut visitors, "1", || Ok(())).with_context(|| format!("after {nodes:?}"))?;
        all(&mut visitors, "new", || Ok(())).with_context(|| format!("anew after {nodes:?}"))?;
    }
    ensure!(network.pid(CLIENT)? == pid, "another process than the one that whoever started it knows");
    let lines = network.phantom(CLIENT, &["connection", "list"])?;
    let kept = lines.as_array().context("a list")?.iter().filter(|line| line["moves"].as_u64() >= Some(2));
    ensure!(kept.count() >= WAYS.len(), "connections that have moved with each start: {lines}");
    all(&mut visitors, "end", || Ok(()))?;
    visitors.into_iter().try_for_each(|(_, visitor)| visitor.ends())
}

/// `systemctl restart` is as good, and `systemctl stop` leaves nothing.
// protocol: S51
#[test]
fn connections_go_on_when_a_service_manager_starts_the_daemon_anew() -> Result<()> {
    let network = Network::shared()?;
    let (_server, name) = network.serve(Way::Namespace, "managed", &["python3", "-u", KEEPS_ONE], "Serving")?;
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_str().context("no UTF-8")?;
    let mut managed = network.join_under(&["python3", MANAGER, at], "managed", "")?;
    let mut visitors = Vec::new();
    for way in WAYS {
        let mut command = phantom_run(&managed.socket, way);
        command.args(["--quiet", "python3", "-u", KEEPS_ONE, &name]);
        visitors.push((way, Visitor::by(command).with_context(|| format!("{way:?}"))?));
    }
    all(&mut visitors, "1", || Ok(()))?;
    let manager = i32::try_from(managed.daemon.id())?;
    let moved = |least: u64| -> Result<()> {
        let lines = managed.phantom(&["connection", "list"])?;
        let moved = lines.as_array().context("a list")?.iter().filter(|line| line["moves"].as_u64() >= Some(least));
        ensure!(moved.count() >= WAYS.len(), "{lines}");
        Ok(())
    };
    for time in 1..=2 {
        all(&mut visitors, "4", || {
            signal(manager, libc::SIGUSR1);
            Ok(())
        })
        .with_context(|| format!("during start {time}"))?;
        all(&mut visitors, "1", || Ok(())).with_context(|| format!("after start {time}"))?;
        all(&mut visitors, "new", || Ok(())).with_context(|| format!("anew after start {time}"))?;
        eventually(|| moved(time))?;
    }
    all(&mut visitors, "end", || Ok(()))?;
    visitors.into_iter().try_for_each(|(_, visitor)| visitor.ends())?;
    signal(manager, libc::SIGTERM);
    let status = managed.daemon.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A program that reads slowly has not lost what had come when the other end was over.
// protocol: S51
#[test]
fn what_a_program_has_not_read_is_not_lost_with_the_daemon() -> Result<()> {
    let network = Network::shared()?;
    let says_much = "import socket
server = socket.create_server(('::', 7001), family=socket.AF_INET6, backlog=8)
print('Serving', flush=True)
while True:
    with server.accept()[0] as connection: connection.sendall(bytes(range(256)) * 4096)";
    let reads_late = "import socket, sys
connection = socket.create_connection((sys.argv[1], 7001))
connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
print('connected', flush=True)
sys.stdin.readline()
data = b''.join(iter(lambda: connection.recv(65536), b''))
print('well' if data == bytes(range(256)) * 4096 else len(data), flush=True)";
    let (_server, name) = network.serve(Way::Inject, "much", &["python3", "-uc", says_much], "Serving")?;
    let mut command = network.program(CLIENT, Way::Namespace, None, &["python3", "-uc", reads_late, &name]);
    let mut launcher = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let asks = launcher.stdin.take().context("no pipe")?;
    let says = BufReader::new(launcher.stdout.take().context("no pipe")?);
    let mut reader = Visitor { launcher, asks, says };
    reader.says("connected")?;
    restart(&network, &[CLIENT])?;
    reader.ask("")?;
    reader.says("well")?;
    reader.ends()
}

/// A daemon that runs is worth more than one that would not start.
#[test]
fn nothing_ends_when_the_next_process_would_not_start() -> Result<()> {
    let network = Network::shared()?;
    let config = network.nodes[SERVER].data_dir.join("phantomd.toml");
    let before = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{before}\nnonsense = 1\n"))?;
    let phantom = || {
        let mut command = Command::new(binary("phantom"));
        command.arg("--daemon").arg(&network.nodes[SERVER].socket);
        command
    };
    let refused = phantom().arg("restart").output()?;
    std::fs::write(&config, before)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("nonsense") && said.contains("goes on as it is"), "{said}");
    // Nor for what is no matter of the configuration.
    let data = &network.nodes[SERVER].data_dir;
    for (path, mode, why) in [
        (data.clone(), 0o770, "can be written by other users"),
        (data.join("node.key"), 0o644, "can be read by others"),
    ] {
        let before = std::fs::metadata(&path)?.permissions();
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        let refused = phantom().arg("restart").output()?;
        std::fs::set_permissions(&path, before)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            !refused.status.success()
                && said.contains("goes on as it is")
                && said.contains(path.to_str().context("path")?),
            "{why}: {said}"
        );
    }
    stdout(&phantom().arg("status").output()?)?;
    let said = stdout(&phantom().arg("restart").output()?)?;
    ensure!(said.starts_with("started anew: version "), "{said}");
    Ok(())
}

/// A daemon alone, with a configuration of its own.
struct Alone {
    folder: tempfile::TempDir,
    daemon: Server,
    log: BufReader<ChildStderr>,
}

impl Alone {
    fn start(config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("data"))?;
        std::fs::write(folder.path().join("data/phantomd.toml"), config)?;
        let mut daemon = Command::new(binary("phantomd"));
        daemon.arg("--data-dir").arg(folder.path().join("data")).arg("--accept-eula");
        daemon.arg("--socket").arg(folder.path().join("socket"));
        let mut daemon = daemon.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = BufReader::new(daemon.stderr.take().context("no pipe")?);
        let started = Self { folder, daemon: Server::from(daemon), log };
        eventually(|| started.phantom("status").map(drop))?;
        Ok(started)
    }

    fn command(&self, asks: &str) -> Command {
        let mut command = Command::new(binary("phantom"));
        command.arg("--daemon").arg(self.folder.path().join("socket")).arg(asks);
        command
    }

    fn phantom(&self, asks: &str) -> Result<String> {
        stdout(&self.command(asks).output()?)
    }

    fn configure(&self, config: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join("data/phantomd.toml"), config)?)
    }
}

/// Its sockets go over: who comes meanwhile waits, and several who have it start anew have what they asked for.
#[test]
fn nobody_finds_the_door_shut_meanwhile() -> Result<()> {
    let metrics = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let alone = Alone::start(&format!("listen = '127.0.0.1:0'\n[metrics]\nlisten = '{metrics}'\n"))?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<usize> {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Whoever is in the middle of an answer is told; nobody is refused.
                let socket = UnixStream::connect(alone.folder.path().join("socket")).context("the local socket")?;
                std::net::TcpStream::connect(metrics).context("the port of metrics")?;
                drop(socket);
                asked += 1;
            }
            Ok(asked)
        });
        let restarts = [(); 5].map(|()| alone.command("restart").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn());
        let restarted: Vec<Result<String>> =
            restarts.into_iter().map(|restart| stdout(&restart?.wait_with_output()?)).collect();
        is_over.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("no panic")?;
        ensure!(asked > 10, "{asked} asked");
        restarted.into_iter().try_for_each(|said| {
            let said = said?;
            ensure!(said.starts_with("started anew: version "), "{said}");
            Ok(())
        })
    })
}

/// An address that is given in the configuration and cannot be had costs nobody what is open.
#[test]
fn an_address_that_somebody_has_ends_nothing() -> Result<()> {
    let alone = Alone::start("listen = '127.0.0.1:0'\n")?;
    let somebody = std::net::TcpListener::bind("127.0.0.1:0")?;
    alone.configure(&format!("listen = '{}'\n", somebody.local_addr()?))?;
    let before = alone.phantom("status")?;
    alone.phantom("restart")?;
    let listens = |status: &str| status.lines().find(|line| line.contains("127.0.0.1:")).map(str::to_owned);
    let now = alone.phantom("status")?;
    ensure!(listens(&before).is_some() && listens(&now) == listens(&before), "{before}\n{now}");
    drop(somebody);
    alone.phantom("restart")?;
    let then = alone.phantom("status")?;
    ensure!(listens(&then) != listens(&before), "it has what it was given once that is free: {then}");
    Ok(())
}

/// Whoever stops it in the middle has it stopped.
#[test]
fn a_daemon_that_starts_anew_can_be_stopped() -> Result<()> {
    let mut alone = Alone::start("listen = '127.0.0.1:0'\n")?;
    let mut restart = alone.command("restart").stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    while !line.contains("starts anew") {
        line.clear();
        ensure!(alone.log.read_line(&mut line)? > 0, "it ended before");
    }
    signal(i32::try_from(alone.daemon.id())?, libc::SIGTERM);
    // Until nobody has the log any more.
    let rest = std::io::read_to_string(&mut alone.log)?;
    ensure!(rest.contains("stopped by SIGTERM"), "{rest}");
    restart.kill()?;
    restart.wait()?;
    Ok(())
}
