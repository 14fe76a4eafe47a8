//! A computer behind a router that lets nobody in: it visits and serves like any other, says how it is, and relays for nobody. And one that
//! is carried into another network.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, NODES, Network, Server, Way, binary, eventually, phantom_run, stdout};

/// Where the computer is, and the rest of the world from there.
const HOME: &str = "198.51.100.2";
const ROUTER: &str = "198.51.100.1";

/// Where it is known while it is carried about: addresses of the kind that the other nodes have, or they would not go there.
const PLACES: [&str; 2] = ["127.249.0.1", "127.248.0.1"];

/// What others are told. Nobody is there, as nobody is at an address that a router does not let through.
const TOLD: &str = "127.250.251.1:8443";

/// Both computers of this file have the same addresses.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A network of its own: it reaches the nodes on this computer's loopback addresses, and none of them reaches it.
struct Behind {
    holder: Child,
    link: String,
    _alone: MutexGuard<'static, ()>,
}

impl Behind {
    fn new() -> Result<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn()?;
        let behind = Self { link: format!("ph{}", std::process::id()), holder, _alone: alone };
        let (pid, link) = (behind.holder.id(), &behind.link);
        // Until it is in there, both are one.
        let own = std::fs::read_link("/proc/self/ns/net")?;
        eventually(|| {
            ensure!(std::fs::read_link(format!("/proc/{pid}/ns/net"))? != own, "not yet");
            Ok(())
        })?;
        let script = format!(
            "set -e
             ip link add {link} type veth peer name home netns {pid}
             ip addr add {ROUTER}/30 dev {link}
             ip link set {link} up
             echo 1 >/proc/sys/net/ipv4/conf/{link}/route_localnet
             nsenter --net=/proc/{pid}/ns/net sh -ec '
                 ip link set lo up
                 ip addr add {HOME}/30 dev home
                 ip link set home up
                 echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
                 ip route del local 127.0.0.0/8 dev lo table local
                 ip route add 127.0.0.0/8 via {ROUTER} dev home'"
        );
        stdout(&Command::new("sh").args(["-c", &script]).output()?).context("making its network")?;
        Ok(behind)
    }

    /// The computer is there now, where others reach it, and nowhere else.
    fn is_at(&self, place: &str, before: Option<&str>) -> Result<()> {
        let (pid, link, before) = (self.holder.id(), &self.link, before.unwrap_or_default());
        let script = format!(
            "set -e
             ip route add {place}/32 via {HOME} dev {link} table local
             nsenter --net=/proc/{pid}/ns/net sh -ec '
                 ip addr add {place}/32 dev home
                 ip route replace 127.0.0.0/8 via {ROUTER} dev home src {place}
                 ip route replace default via {ROUTER} dev home src {place}
                 [ -z \"{before}\" ] || ip addr del {before}/32 dev home'
             [ -z \"{before}\" ] || ip route del {before}/32 table local"
        );
        stdout(&Command::new("sh").args(["-c", &script]).output()?).context("moving it")?;
        Ok(())
    }

    fn entered_by(&self) -> [String; 2] {
        ["nsenter".into(), format!("--net=/proc/{}/ns/net", self.holder.id())]
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        // Its network goes with the last process in it, and the link with that.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("ip").args(["link", "del", &self.link]).stderr(Stdio::null()).status();
    }
}

/// Says to whoever comes what it hears, once.
const ECHO: &str = "
import socket
server = socket.create_server(('::', 7777), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    client, _ = server.accept()
    with client: client.sendall(client.recv(100))
";

const VISIT: &str = "
import socket, sys
client = socket.create_connection((sys.argv[1], 7777), 120)
client.sendall(b'through'); print(client.recv(100).decode())
";

// protocol: J20, J23, Q22
#[test]
fn who_cannot_be_reached_visits_and_serves_and_says_so() -> Result<()> {
    let network = Network::up(NODES)?;
    let behind = Behind::new()?;
    let words = behind.entered_by();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let config = format!("listen = \"{HOME}:8443\"\nadvertise = \"{TOLD}\"\n[paths]\nhurry = true\n");
    let hidden = network.join_under(&words, "hidden", &config)?;
    // It says how it is, and what helps.
    eventually(|| {
        // Its status says that not all is as it could be.
        let mut doctor = Command::new(binary("phantom"));
        let said = doctor.arg("--daemon").arg(&hidden.socket).args(["--json", "doctor"]).output()?.stdout;
        let doctor: serde_json::Value = serde_json::from_slice(&said)?;
        let port = doctor["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "port");
        let said = port.map(ToString::to_string).unwrap_or_default();
        ensure!(said.contains("cannot open links to this one") && said.contains("forward the port"), "{doctor}");
        Ok(())
    })?;
    let status = hidden.phantom(&["status"])?.to_string();
    ensure!(status.contains("visit and serve all the same") && status.contains("8443"), "{status}");
    // It visits.
    let (_server, name) = network.serve(Way::Inject, "echo", &["python3", "-c", ECHO], "listening")?;
    let mut visit = phantom_run(&hidden.socket, Way::Inject);
    let said = stdout(&visit.args(["--quiet", "--", "python3", "-c", VISIT, &name]).output()?)?;
    ensure!(said == "through\n", "{said}");
    // And is visited.
    let made = hidden.phantom(&["address", "new", "home"])?;
    let own = made["phantom_name"].as_str().context("no name")?;
    let mut serve = phantom_run(&hidden.socket, Way::Inject);
    serve.args(["--quiet", "--identity", "home", "--publish", "7777", "--", "python3", "-c", ECHO]);
    let _home = Server::start_until(serve, "listening")?;
    network.published(own)?;
    let said = network.run(Way::Inject, &["python3", "-c", VISIT, own])?;
    ensure!(said == "through\n", "{said}");
    // Whoever is to join through others is not sent there.
    let (bundle, mut export) = (network.folder("hidden-bundle")?.join("peers"), Command::new(binary("phantom")));
    stdout(&export.arg("--daemon").arg(&hidden.socket).args(["peer", "export"]).arg(&bundle).output()?)?;
    let (bundle, status) = (std::fs::read_to_string(&bundle)?, hidden.phantom(&["status"])?);
    let peer = status["peer"].as_str().context("no peer string")?;
    ensure!(bundle.contains("phantom-peer:") && !bundle.contains(peer), "{bundle}");
    // Nobody builds over it, and nobody knows where it is.
    ensure!(hidden.phantom(&["status"])?["relayed_paths"] == 0, "{status}");
    let id = hidden.phantom(&["status"])?["node_id"].as_str().context("no id")?.to_owned();
    let peers = network.phantom(CLIENT, &["peer", "list"])?.to_string();
    ensure!(!peers.contains(&id), "it is known: {peers}");
    Ok(())
}

/// Keeps one connection, over which it asks once for each line that it reads.
const KEEP: &str = "
import socket, sys
client = socket.create_connection((sys.argv[1], 7777), 120)
client.settimeout(None)
for line in sys.stdin:
    client.sendall(line.encode()); print(client.recv(100).decode().strip(), flush=True)
";

/// Says whatever it hears, to one after the other.
const ECHOES: &str = "
import socket
server = socket.create_server(('::', 7777), family=socket.AF_INET6, dualstack_ipv6=True)
print('listening', flush=True)
while True:
    client, _ = server.accept()
    while data := client.recv(100): client.sendall(data)
";

// protocol: J26, K26
#[test]
fn who_is_carried_into_another_network_is_known_there_and_its_connections_go_on() -> Result<()> {
    let network = Network::up(NODES)?;
    let computer = Behind::new()?;
    computer.is_at(PLACES[0], None)?;
    let words = computer.entered_by();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let carried = network.join_under(&words, "carried", "listen = \"0.0.0.0:8443\"\n[paths]\nhurry = true\n")?;
    let id = carried.phantom(&["status"])?["node_id"].as_str().context("no id")?.to_owned();
    let known_at = |ip: &str| {
        let (expected, status) = (format!("{ip}:8443"), carried.phantom(&["status"])?);
        ensure!(status["listen"][0] == *expected, "it says {status}");
        let peers = network.phantom(CLIENT, &["peer", "list"])?;
        let known = peers.as_array().into_iter().flatten().find(|peer| peer["node_id"] == *id);
        ensure!(known.is_some_and(|peer| peer["addr"] == *expected), "others know {known:?}");
        Ok(())
    };
    eventually(|| known_at(PLACES[0]))?;
    let (_server, name) = network.serve(Way::Inject, "echo", &["python3", "-c", ECHOES], "listening")?;
    let mut keep = phantom_run(&carried.socket, Way::Inject);
    keep.args(["--quiet", "--", "python3", "-c", KEEP, &name]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut keep = keep.spawn()?;
    let (mut asks, says) = (keep.stdin.take().context("no pipe")?, keep.stdout.take().context("no pipe")?);
    let mut says = BufReader::new(says);
    let mut ask = |word: &str| -> Result<String> {
        writeln!(asks, "{word}")?;
        let mut said = String::new();
        says.read_line(&mut said)?;
        Ok(said)
    };
    let said = ask("before")?;
    ensure!(said == "before\n", "{said}");
    computer.is_at(PLACES[1], Some(PLACES[0]))?;
    let said = ask("after")?;
    ensure!(said == "after\n", "{said}");
    eventually(|| known_at(PLACES[1])).context("where it is now")?;
    drop(asks);
    let status = keep.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
