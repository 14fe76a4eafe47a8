//! `phantom restart`: the daemon becomes the next process, and programs do not notice.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, Way, stdout};

const KEEPS_ONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/victims/keeps_one.py");

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
        let mut command = network.program(CLIENT, way, None, &["python3", "-u", KEEPS_ONE, name]);
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
        let mut command = std::process::Command::new(phantom_tests::binary("phantom"));
        command.arg("--daemon").arg(&network.nodes[SERVER].socket);
        command
    };
    let refused = phantom().arg("restart").output()?;
    std::fs::write(&config, before)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("nonsense") && said.contains("goes on as it is"), "{said}");
    stdout(&phantom().arg("status").output()?)?;
    let said = stdout(&phantom().arg("restart").output()?)?;
    ensure!(said.starts_with("started anew: version "), "{said}");
    Ok(())
}
