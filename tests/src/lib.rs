//! Harness of the end-to-end tests: a private network of real daemons, and real programs under `phantom-run`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long anything may take that a test waits for: two loaded cores, debug builds.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A binary of this workspace, built beside the test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first, or scripts/test", path.display());
    path
}

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
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Network {
    /// Starts `nodes` daemons and waits until each can build paths.
    pub fn up(nodes: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let output = Command::new(binary("phantom"))
            .args(["testnet", "up", "--json", "--nodes", &nodes.to_string(), "--dir"])
            .arg(dir.path())
            .output()?;
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
        Ok(Self { dir, nodes: nodes? })
    }

    /// `phantom --daemon SOCKET ARGS… --json` on one node.
    pub fn phantom(&self, node: usize, args: &[&str]) -> Result<serde_json::Value> {
        let output = Command::new(binary("phantom"))
            .arg("--daemon")
            .arg(&self.nodes[node].socket)
            .args(args)
            .arg("--json")
            .output()?;
        Ok(serde_json::from_str(&stdout(&output)?)?)
    }

    /// Makes a persistent address on a node and returns its `.phantom` name.
    pub fn address(&self, node: usize, name: &str) -> Result<String> {
        let address = self.phantom(node, &["address", "new", name])?;
        Ok(address["phantom_name"].as_str().context("no phantom_name")?.to_owned())
    }

    /// A program under `phantom-run` on a node.
    pub fn program(&self, node: usize, way: Way, identity: Option<&str>, program: &[&str]) -> Command {
        let mut command = Command::new(binary("phantom-run"));
        command.arg("--daemon").arg(&self.nodes[node].socket).args(["--isolation", way.flag()]);
        if let Some(identity) = identity {
            command.args(["--identity", identity]);
        }
        command.arg("--").args(program);
        command
    }

    /// Where a test may keep files while the network stands.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let down = Command::new(binary("phantom")).args(["testnet", "down", "--dir"]).arg(self.dir.path()).output();
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
    /// T3: `libphantom.so`.
    Preload,
}

impl Way {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Namespace, Self::Preload];

    fn flag(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Preload => "preload",
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

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, which phantom-run passes on to the program.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // SAFETY: kill(2) takes any pid; this child has not been waited for, so the pid is still its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let _ = self.0.wait();
    }
}

/// Tries until it works or [`PATIENCE`] is over; returns the last error then.
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => return Err(error.context("gave up after waiting")),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
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
