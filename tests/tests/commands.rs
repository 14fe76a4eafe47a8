//! Override commands over real daemons: two of three maintainers ban a node, every node keeps it out, and takes it in again.
#![allow(missing_docs)]

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{
    CLIENT, Joined, Network, SERVER, Server, Way, binary, ended, eventually, processes, signal, stdout,
};
use serde_json::Value;

const NODES: usize = 12;

/// Neither the seed of the others nor one that programs use.
const BANNED: usize = 11;

/// Its commands are sent and its restart is looked at.
const SENDER: usize = 3;
const RESTARTED: usize = 5;

/// Maintainers at work in a folder.
struct Maintainers {
    folder: PathBuf,
    keys: PathBuf,
    secrets: PathBuf,
}

impl Maintainers {
    fn of(network: &Network) -> Result<Self> {
        let folder = network.folder("maintainers")?;
        let secrets = folder.parent().context("the network's folder")?.to_owned();
        Ok(Self { keys: secrets.join("commands.keys"), secrets, folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&self, socket: &Path, args: &[&str], files: &[&Path]) -> Result<Output> {
        let mut command = Command::new(binary("phantom"));
        command.arg("--daemon").arg(socket).arg("command").args(args).args(files);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Made at a node, signed by these, and put together.
    fn signed(&self, socket: &Path, name: &str, what: &[&str], signers: &[usize]) -> Result<PathBuf> {
        let made = self.file(name);
        stdout(&self.run(socket, &[&["make"], what].concat(), &[&made])?)?;
        let nobody = Path::new("/nonexistent");
        let copies: Vec<_> = signers.iter().map(|signer| self.file(&format!("{name}-{signer}"))).collect();
        for (signer, copy) in signers.iter().zip(&copies) {
            std::fs::copy(&made, copy)?;
            let key = self.secrets.join(format!("maintainer-{signer}.key"));
            let (key, keys) = (text(&key)?, text(&self.keys)?);
            stdout(&self.run(nobody, &["sign", "--yes", "--key", key, "--keys", keys], &[copy])?)?;
        }
        let out = self.file(&format!("{name}-signed"));
        let copies: Vec<_> = copies.iter().map(PathBuf::as_path).collect();
        stdout(&self.run(nobody, &["combine", "--out", text(&out)?, "--keys", text(&self.keys)?], &copies)?)?;
        Ok(out)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn refused(output: &Output, says: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && text.contains(says), "{}: {text}", output.status);
    Ok(())
}

fn knows(peers: &Value, id: &str) -> bool {
    peers.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["node_id"] == id))
}

/// Whether a node keeps the banned one out, by what it shows.
fn keeps_out(list: &Value, peers: &Value, id: &str) -> Result<()> {
    ensure!(list["highest"] == 1, "no command: {list}");
    ensure!(list["banned"].as_array().is_some_and(|banned| banned.len() == 1), "no ban: {list}");
    ensure!(!knows(peers, id), "it is still known: {peers}");
    Ok(())
}

/// Connections to where a node listens. (Those that it dials others take until it has said who it is.)
fn links_to(listen: &str) -> Result<usize> {
    let at: SocketAddrV4 = listen.parse()?;
    // As the kernel's table has it: the address as it lies in memory, the port, and 01 for connections that stand.
    let end = format!("{:08X}:{:04X}", u32::from_le_bytes(at.ip().octets()), at.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let stands = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().take(4).collect();
        fields.len() == 4 && fields[2] == end && fields[3] == "01"
    };
    Ok(table.lines().filter(stands).count())
}

fn restart(network: &Network, node: usize) -> Result<Server> {
    let pid = network.pid(node)?;
    let process = processes()?.into_iter().find(|process| process.pid == pid).context("it runs")?;
    signal(pid, libc::SIGKILL);
    ended(pid)?;
    let (program, arguments) = process.words.split_first().context("no command line")?;
    let mut again = Command::new(program);
    again.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Server::from(again.spawn()?))
}

fn late(network: &Network, name: &str, maintainers: &Maintainers, more: &str) -> Result<Joined> {
    let config = format!("[paths]\nhurry = true\n[commands]\nkeys = {:?}\n{more}\n", maintainers.keys);
    network.join(name, &config)
}

#[test]
fn two_of_three_maintainers_ban_a_node_everywhere_and_take_it_back() -> Result<()> {
    let network = Network::up(NODES)?;
    let maintainers = Maintainers::of(&network)?;
    let id = network.nodes[BANNED].node_id.clone();
    let sender = &network.nodes[SENDER].socket;
    // What too few or others have signed is taken by nobody.
    let one = maintainers.signed(sender, "one", &["--ban", &id], &[1])?;
    refused(&maintainers.run(sender, &["send"], &[&one])?, "1 have signed it, 2 must")?;
    let ban = maintainers.signed(sender, "ban", &["--ban", &id, "--days", "7"], &[1, 2])?;
    let forged = maintainers.file("forged");
    std::fs::write(&forged, std::fs::read_to_string(&ban)?.replace("signature 1", "signature 2"))?;
    refused(&maintainers.run(sender, &["send"], &[&forged])?, "not signed by as many")?;
    ensure!(network.phantom(SENDER, &["command", "list"])?["highest"] == 0, "something was taken");

    stdout(&maintainers.run(sender, &["send"], &[&ban])?)?;
    for node in (0..NODES).filter(|node| *node != BANNED) {
        let look = |args: &[&str]| network.phantom(node, args);
        eventually(|| keeps_out(&look(&["command", "list"])?, &look(&["peer", "list"])?, &id))
            .with_context(|| format!("node {node}"))?;
    }
    eventually(|| {
        let links = links_to(&network.nodes[BANNED].listen)?;
        ensure!(links == 0, "others have {links} links to it still");
        Ok(())
    })?;
    refused(&maintainers.run(sender, &["send"], &[&ban])?, "known already")?;

    // Who comes later has it from others; who opted out keeps nobody out; who was killed has it from its disk.
    let joined = late(&network, "late", &maintainers, "")?;
    eventually(|| keeps_out(&joined.phantom(&["command", "list"])?, &joined.phantom(&["peer", "list"])?, &id))?;
    let free = late(&network, "free", &maintainers, "ignore = [\"nodes\"]")?;
    eventually(|| {
        let list = free.phantom(&["command", "list"])?;
        ensure!(list["highest"] == 1 && list["banned"] == Value::Array(Vec::new()), "{list}");
        let did = list["commands"][0]["did"].as_str().context("nothing is said of it")?;
        ensure!(did.contains("in force but for nodes"), "{did}");
        Ok(())
    })?;
    let restarted = restart(&network, RESTARTED)?;
    eventually(|| network.phantom(RESTARTED, &["status"]).map(drop))?;
    let list = network.phantom(RESTARTED, &["command", "list"])?;
    ensure!(list["highest"] == 1 && list["banned"].as_array().is_some_and(|banned| banned.len() == 1), "{list}");

    // The others go on without it.
    let (_server, name) =
        network.serve(Way::Inject, "goes-on", &["python3", "-m", "http.server", "--bind", "::", "7000"], "Serving")?;
    let fetch = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)";
    let page = format!("http://{name}:7000/");
    ensure!(network.run(Way::Inject, &["python3", "-c", fetch, &page])?.contains("200"), "no answer");
    ensure!(network.pid(SERVER).is_ok() && network.pid(CLIENT).is_ok());

    let unban = maintainers.signed(sender, "unban", &["--unban", &id], &[1, 3])?;
    stdout(&maintainers.run(sender, &["send"], &[&unban])?)?;
    eventually(|| {
        let status = network.phantom(BANNED, &["status"])?;
        ensure!(status["peers"].as_u64().is_some_and(|peers| peers > 0), "nobody takes it in: {status}");
        ensure!(knows(&network.phantom(SENDER, &["peer", "list"])?, &id), "it is not known again");
        let list = network.phantom(BANNED, &["command", "list"])?;
        ensure!(list["highest"] == 2 && list["banned"] == Value::Array(Vec::new()), "{list}");
        Ok(())
    })?;
    drop(restarted);
    Ok(())
}
