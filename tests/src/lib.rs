//! Harness of the end-to-end tests: a private network of real daemons, and real programs under `phantom-run`.

pub mod alone;
pub mod browsers;
pub mod programs;
pub mod scripted;
mod user;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use alone::{Alone, Kind};
use anyhow::{Context, Result, bail, ensure};
pub use user::User;

/// How long anything may take that a test waits for: two loaded cores, debug builds.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A binary of this workspace, built beside the test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first, or scripts/test", path.display());
    path
}

/// Nodes of a private network: a circle takes the owner and eight others, and the rest may break.
pub const NODES: usize = 12;

/// The node that tests put servers on.
pub const SERVER: usize = 1;

/// The node that tests put clients on.
pub const CLIENT: usize = 2;

/// One node of a private network.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its control socket.
    pub socket: PathBuf,
    /// Its directory.
    pub data_dir: PathBuf,
    /// Where it accepts links.
    pub listen: String,
    /// Its node id in hex.
    pub node_id: String,
}

/// A private network on loopback: one `phantomd` per node. Stopped when dropped.
pub struct Network {
    dir: tempfile::TempDir,
    /// Whose daemons and programs they are, when not those of whoever tests.
    user: Option<User>,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Network {
    /// The network that the tests of one file share, so that it is started once; the last of them stops it.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Network>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = shared.upgrade() {
            return Ok(network);
        }
        let network = Arc::new(Self::up(NODES)?);
        *shared = Arc::downgrade(&network);
        Ok(network)
    }

    /// Starts `nodes` daemons and waits until each can build paths.
    pub fn up(nodes: usize) -> Result<Self> {
        Self::up_as(nodes, None)
    }

    /// As [`Self::up`], but all of it belongs to another user.
    pub fn up_as(nodes: usize, user: Option<User>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut start = Command::new(binary("phantom"));
        if let Some(user) = &user {
            user.owns(dir.path())?;
            start = user.with_tun("phantom");
        }
        let output =
            start.args(["testnet", "up", "--json", "--nodes", &nodes.to_string(), "--dir"]).arg(dir.path()).output()?;
        let text = stdout(&output).context("phantom testnet up")?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let field = |node: &serde_json::Value, name: &str| {
            node[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {node}"))
        };
        let list = value["nodes"].as_array().context("no nodes")?;
        let nodes: Result<Vec<_>> = list
            .iter()
            .map(|node| {
                Ok(Node {
                    socket: field(node, "socket")?.into(),
                    data_dir: field(node, "data_dir")?.into(),
                    listen: field(node, "listen")?,
                    node_id: field(node, "node_id")?,
                })
            })
            .collect();
        Ok(Self { dir, user, nodes: nodes? })
    }

    /// Whose network it is, when not that of whoever tests.
    pub fn user(&self) -> Result<&User> {
        self.user.as_ref().context("the network belongs to whoever tests")
    }

    /// One of our programs, as the network's user.
    fn tool(&self, name: &str) -> Command {
        self.user.as_ref().map_or_else(|| Command::new(binary(name)), |user| user.tool(name))
    }

    /// `phantom --daemon SOCKET ARGS… --json` on one node.
    pub fn phantom(&self, node: usize, args: &[&str]) -> Result<serde_json::Value> {
        let output =
            self.tool("phantom").arg("--daemon").arg(&self.nodes[node].socket).args(args).arg("--json").output()?;
        Ok(serde_json::from_str(&stdout(&output)?)?)
    }

    /// The `.phantom` name of a persistent address on a node, made if it is not there yet.
    pub fn address(&self, node: usize, name: &str) -> Result<String> {
        let show = self.phantom(node, &["address", "show", name]);
        let address = show.or_else(|_| self.phantom(node, &["address", "new", name]))?;
        Ok(address["phantom_name"].as_str().context("no phantom_name")?.to_owned())
    }

    /// Waits until a server's address can be found from the client's node: its entry nodes are published.
    pub fn published(&self, name: &str) -> Result<()> {
        eventually(|| {
            let found = self.phantom(CLIENT, &["netdb", "lookup", name])?;
            ensure!(found["entry_nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "not published: {found}");
            Ok(())
        })
    }

    /// A program in the background as `identity` on the server's node, as soon as its address can be found. All that it
    /// listens on is published.
    pub fn serve(&self, way: Way, identity: &str, program: &[&str], says: &str) -> Result<(Server, String)> {
        let name = self.address(SERVER, identity)?;
        let server = Server::start_until(self.offering(SERVER, way, Some(identity), program), says)?;
        self.published(&name)?;
        Ok((server, name))
    }

    /// As [`Self::serve`], and keeps listening to what the program says.
    pub fn serve_heard(&self, way: Way, identity: &str, program: &[&str], says: &str) -> Result<(Heard, String)> {
        let name = self.address(SERVER, identity)?;
        let server = Server::start_heard(&mut self.offering(SERVER, way, Some(identity), program), says)?;
        self.published(&name)?;
        Ok((server, name))
    }

    /// Runs a program on the client's node to its end, as nobody in particular; what it printed.
    pub fn run(&self, way: Way, program: &[&str]) -> Result<String> {
        let output = self.program(CLIENT, way, None, program).output()?;
        stdout(&output).with_context(|| format!("{program:?} by {way:?}"))
    }

    /// A folder of its own for a test.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// The process of a node.
    pub fn pid(&self, node: usize) -> Result<libc::pid_t> {
        let own = self.nodes[node].data_dir.to_str().context("path")?;
        processes()?
            .into_iter()
            .find(|process| process.words.iter().any(|word| word.contains(own)) && process.is("phantomd"))
            .map(|process| process.pid)
            .with_context(|| format!("node {node} does not run"))
    }

    /// Ends a node by a signal, and starts it again as it was started.
    pub fn restart(&self, node: usize, number: libc::c_int) -> Result<Server> {
        let pid = self.pid(node)?;
        let process = processes()?.into_iter().find(|process| process.pid == pid).context("it ended by itself")?;
        let (program, arguments) = process.words.split_first().context("no command line")?;
        signal(pid, number);
        ended(pid)?;
        let mut again = self.user.as_ref().map_or_else(|| Command::new(program), |user| user.with_tun("phantomd"));
        again.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Server(again.spawn()?))
    }

    /// A program under `phantom-run` on a node; nobody reaches it.
    pub fn program(&self, node: usize, way: Way, identity: Option<&str>, program: &[&str]) -> Command {
        self.run_with(node, way, identity, &[], program)
    }

    /// A program under `phantom-run` on a node, which may use a socket of this computer; nobody reaches it.
    pub fn allowing(&self, node: usize, way: Way, socket: &str, program: &[&str]) -> Command {
        self.run_with(node, way, None, &["--allow-socket", socket], program)
    }

    /// A program under `phantom-run` on a node; others reach all that it listens on.
    pub fn offering(&self, node: usize, way: Way, identity: Option<&str>, program: &[&str]) -> Command {
        self.run_with(node, way, identity, &["--publish", "all"], program)
    }

    fn run_with(&self, node: usize, way: Way, identity: Option<&str>, options: &[&str], program: &[&str]) -> Command {
        let mut command = self.tool("phantom-run");
        command.arg("--daemon").arg(&self.nodes[node].socket).args(["--quiet", "--isolation", way.flag()]);
        if let Some(identity) = identity {
            command.args(["--identity", identity]);
        }
        command.args(options).arg("--").args(program);
        command
    }

    /// Lets every user reach a node's socket, as that of a service is.
    pub fn open_to_all(&self, node: usize) -> Result<()> {
        for folder in self.nodes[node].socket.ancestors().skip(1) {
            let mode = std::fs::metadata(folder)?.permissions().mode();
            if mode & 0o011 != 0o011 {
                std::fs::set_permissions(folder, Permissions::from_mode(mode | 0o011))?;
            }
        }
        Ok(())
    }

    /// One more node, with a configuration of its own: lines of phantomd.toml.
    pub fn join(&self, name: &str, config: &str) -> Result<Joined> {
        self.join_under(&[], name, config)
    }

    /// As [`Self::join`]; the words go before the daemon's own and start it.
    pub fn join_under(&self, words: &[&str], name: &str, config: &str) -> Result<Joined> {
        let status = self.phantom(0, &["status"])?;
        let peer = status["peer"].as_str().context("no peer string")?;
        let folder = self.folder_of_one(name, &format!("peers = [\"{peer}\"]\n{config}"))?;
        Self::start_joined(words, &folder)
    }

    /// One more node that knows no other one, as soon as it answers.
    pub fn start_alone(&self, name: &str, config: &str) -> Result<Joined> {
        let alone = Self::start(&[], &self.folder_of_one(name, config)?)?;
        eventually(|| alone.phantom(&["status"]).map(drop))?;
        Ok(alone)
    }

    fn folder_of_one(&self, name: &str, config: &str) -> Result<PathBuf> {
        let folder = self.folder(name)?;
        // A prefix of its own, beside those of the others.
        let listen = SocketAddr::new(Ipv4Addr::new(127, 250, 250, 1).into(), 0);
        let listen = if config.contains("listen = ") { String::new() } else { format!("listen = \"{listen}\"\n") };
        std::fs::write(folder.join("phantomd.toml"), format!("{listen}{config}"))?;
        Ok(folder)
    }

    /// A node that has joined before and was stopped, with what it has kept.
    pub fn rejoin(&self, name: &str) -> Result<Joined> {
        Self::start_joined(&[], &self.dir.path().join(name))
    }

    fn start(words: &[&str], folder: &Path) -> Result<Joined> {
        let mut command = under(words, &binary("phantomd"));
        command.arg("--data-dir").arg(folder).arg("--accept-eula").stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Joined { daemon: Server(command.spawn()?), socket: folder.join("daemon.sock") })
    }

    fn start_joined(words: &[&str], folder: &Path) -> Result<Joined> {
        let joined = Self::start(words, folder)?;
        joined.ready()?;
        Ok(joined)
    }
}

/// A node that has joined a private network later; stopped when dropped.
pub struct Joined {
    /// Its process.
    pub daemon: Server,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Joined {
    /// Waits until programs can be served.
    pub fn ready(&self) -> Result<()> {
        eventually(|| {
            let status = self.phantom(&["status"])?;
            ensure!(status["ready"] == serde_json::Value::Bool(true), "not ready: {status}");
            Ok(())
        })
    }

    /// `phantom ARGS… --json` on it.
    pub fn phantom(&self, args: &[&str]) -> Result<serde_json::Value> {
        phantom(&self.socket, args)
    }
}

fn phantom(socket: &Path, args: &[&str]) -> Result<serde_json::Value> {
    let output = Command::new(binary("phantom")).arg("--daemon").arg(socket).args(args).arg("--json").output()?;
    Ok(serde_json::from_str(&stdout(&output)?)?)
}

/// A program, started by what the words say.
#[must_use]
pub fn under(words: &[&str], program: &Path) -> Command {
    let Some((first, others)) = words.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(others).arg(program);
    command
}

/// `phantom-run` in one way, for a daemon; other options and the program are to follow.
pub fn phantom_run(socket: &Path, way: Way) -> Command {
    let mut command = Command::new(binary("phantom-run"));
    command.arg("--daemon").arg(socket).args(["--isolation", way.flag()]);
    command
}

impl Drop for Network {
    fn drop(&mut self) {
        let down = self.tool("phantom").args(["testnet", "down", "--dir"]).arg(self.dir.path()).output();
        if let Err(error) = down.map_err(anyhow::Error::from).and_then(|output| stdout(&output)) {
            eprintln!("the network did not stop cleanly: {error:#}");
        }
    }
}

/// How `phantom-run` hands a program over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// T1: inside the phantom namespace.
    Namespace,
    /// T2: a supervisor answers `socket()`.
    Inject,
    /// T3: `libphantom.so`.
    Preload,
    /// No phantom namespace at all.
    Emulate,
}

impl Way {
    /// Those that stand.
    pub const ALL: [Self; 4] = [Self::Namespace, Self::Inject, Self::Preload, Self::Emulate];

    /// Those in which sockets are the kernel's own; docs/emulation.md says how emulated ones differ.
    pub const KERNEL: [Self; 3] = [Self::Namespace, Self::Inject, Self::Preload];

    /// What `--isolation` calls it.
    #[must_use]
    pub fn flag(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Inject => "inject",
            Self::Preload => "preload",
            Self::Emulate => "emulate",
        }
    }
}

/// What a program printed; an error with all its output when it failed.
pub fn stdout(output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// A server in the background; killed when dropped.
pub struct Server(Child);

impl From<Child> for Server {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Server {
    /// Starts it with its output thrown away.
    pub fn start(mut command: Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    /// Starts it and waits for a line of its standard output that contains `word`.
    pub fn start_until(mut command: Command, word: &str) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        for line in lines.by_ref() {
            if line?.contains(word) {
                // Whoever writes on must not meet a closed pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self(child));
            }
        }
        let status = child.wait()?;
        bail!("the server ended with {status} before it said {word:?}")
    }

    /// Starts it and gives the first line that it says.
    pub fn start_first_line(command: &mut Command) -> Result<(Self, String)> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let line = lines.next().context("it said nothing")??;
        std::thread::spawn(move || lines.for_each(drop));
        Ok((Self(child), line))
    }

    /// Starts it as [`Self::start_until`] does, and keeps listening to what it says.
    pub fn start_heard(command: &mut Command, word: &str) -> Result<Heard> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let (line_tx, lines_heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.map_while(|line| line.ok()).try_for_each(|line| line_tx.send(line)));
        let heard = Heard { _server: Self(child), lines: lines_heard };
        heard.hears(word)?;
        Ok(heard)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.0.wait()?)
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, which phantom-run passes on to the program. It has not been waited for, so the pid is still its own.
        if let (Ok(None), Ok(pid)) = (self.0.try_wait(), i32::try_from(self.0.id())) {
            signal(pid, libc::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// A program in the background that is listened to.
pub struct Heard {
    _server: Server,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Heard {
    /// Waits for a line that contains `word`.
    pub fn hears(&self, word: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("never said {word:?}"))?;
            if line.contains(word) {
                return Ok(());
            }
        }
    }
}

/// Sends a signal to one process; nobody there is fine too.
pub fn signal(pid: libc::pid_t, number: libc::c_int) {
    // SAFETY: kill(2) takes any two numbers.
    unsafe { libc::kill(pid, number) };
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: libc::pid_t,
    /// Its parent's.
    pub parent: libc::pid_t,
    /// Its command line.
    pub words: Vec<String>,
}

impl Process {
    /// Whether the program's file has this name.
    pub fn is(&self, program: &str) -> bool {
        self.words.first().is_some_and(|word| Path::new(word).file_name().is_some_and(|name| name == program))
    }
}

/// All processes that have a command line: neither the kernel's nor the dead.
pub fn processes() -> Result<Vec<Process>> {
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let process = |pid: libc::pid_t| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty())?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the program's name in brackets: state, then parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some(Process { pid, parent, words: line.split_terminator('\0').map(str::to_owned).collect() })
    };
    Ok(pids.filter_map(process).collect())
}

/// Waits until a process has closed all that it had open, its locks too: its command line is gone before that.
pub fn ended(pid: libc::pid_t) -> Result<()> {
    eventually(|| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // The first thread may be a zombie while others hold what all had open.
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        let over = stat.map_or(true, |stat| stat.contains(") Z ")) && threads <= 1;
        ensure!(over, "process {pid} does not end");
        Ok(())
    })
}

/// Tries until it works or [`PATIENCE`] is over; returns the last error then.
pub fn eventually<T>(attempt: impl FnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, attempt)
}

/// The same with another patience.
pub fn within<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => return Err(error.context("gave up after waiting")),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Descriptors of a daemon, without links to other nodes: those outlive their uses, by up to an hour.
pub fn descriptors_beside_links(pid: libc::pid_t) -> Result<usize> {
    let mut links = BTreeSet::new();
    // The daemon's own network is the computer's; sockets of programs are elsewhere.
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        links.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(9))
                .map(|inode| format!("socket:[{inode}]")),
        );
    }
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    // One that is closed meanwhile is none.
    let is_link = |name: PathBuf| name.to_str().is_some_and(|name| links.contains(name));
    Ok(open
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|name| !is_link(name.clone()))
        .count())
}

/// Bytes that a file is made of, different at every place.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Reads everything that a child prints, as text.
pub fn drain(mut from: impl Read) -> Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text)
}
