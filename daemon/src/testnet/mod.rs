//! Private networks on loopback: one process, one folder and one 127.x.y.z address per node.
//!
//! ```text
//! DIR/testnet.json        which processes and folders belong to the network: `down` needs no more
//! DIR/commands.keys       whose commands the nodes take: two of the three maintainers
//! DIR/maintainer-1.key …  their secret keys, to try `phantom command`
//! DIR/node-00/            data directory of the first node, the seed of all others
//!   phantomd.toml  daemon.sock  log  …
//! ```
//! Node i listens on 127.(10+i).0.1, so that rules about address ranges see twelve different ones.

mod commands;
mod process;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf, absolute};
use std::process::Child;
use std::time::Duration;

use phantom_proto::wire::NodeContact;
use rand::{CryptoRng, RngExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::advice::{to_read, to_write};
use crate::args::Options;
use crate::client::Client;
use crate::config::{Folders, SOCKET_NAME};
use crate::datadir::{DataError, make_private_dir, write_private};
use crate::eula::Consent;
use crate::names::Peer;
use crate::os::interrupted;
use crate::startup::{self, StartError};
use process::Process;

/// Most nodes of one network: their addresses differ in the second byte.
pub const MAX_NODES: usize = 200;

/// Fewest nodes of one with which its nodes build paths: an owner, and the eight of a circle.
pub const FEWEST_NODES: usize = 9;

/// How long all nodes together get until they can build paths. A cold start of 12 takes seconds; a loaded machine with
/// 200 takes minutes.
pub const READY_TIME: Duration = Duration::from_secs(180);

/// Between two questions to nodes that are not ready.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// How often a port is tried that may be taken on one of the addresses.
const PORT_ATTEMPTS: usize = 32;

/// Where the nodes' port is drawn from: below what Linux (from 32768) and Windows (from 49152) give to whoever names none, so
/// that nobody gets it by chance before a node has it, or while one is started anew.
const PORTS: Range<u16> = 10_240..32_768;

/// File that says what belongs to the network.
const STATE: &str = "testnet.json";

/// What network is wanted.
#[derive(Debug)]
pub struct Plan {
    /// Number of nodes.
    pub nodes: usize,
    /// Folder of the network.
    pub dir: PathBuf,
    /// The daemon's executable.
    pub phantomd: PathBuf,
    /// Log level of the nodes.
    pub log: String,
}

/// One node, as scripts see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// From 0.
    pub index: usize,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its local socket.
    pub socket: PathBuf,
    /// Where it accepts links.
    pub listen: SocketAddr,
    /// Its id, in hex.
    pub node_id: String,
}

/// What `testnet up --json` prints.
#[derive(Debug, Serialize)]
pub struct Network {
    /// By index.
    pub nodes: Vec<Node>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Folders that `up` made itself: its own, and those in which that lies, from within.
    #[serde(default)]
    made: Vec<PathBuf>,
    nodes: Vec<Node>,
    processes: Vec<Process>,
}

/// Why there is no network. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TestnetError {
    /// A wrong number.
    #[error("a network has 1 to {MAX_NODES} nodes, not {0}")]
    Count(usize),
    /// The folder has one already.
    #[error("{0} holds a test network already\n  end it with `phantom testnet down --dir {0}`, or give another folder")]
    Exists(PathBuf),
    /// The folder has none.
    #[error(
        "{0} holds no test network (there is no {STATE} in it)\n  name the folder that `phantom testnet up --dir` was given"
    )]
    None(PathBuf),
    /// Its state is unreadable.
    #[error("{0} is damaged: {1}\n  end the processes by hand and remove the folder")]
    Damaged(PathBuf, serde_json::Error),
    /// The daemon is not there.
    #[error("cannot start {0}: {1}\n  it should lie beside `phantom`; say --phantomd PATH otherwise")]
    Program(PathBuf, io::Error),
    /// No port is free on all addresses.
    #[error("found no port that is free on the addresses of all {0} nodes (127.10.0.1 and so on): {1}")]
    Port(usize, io::Error),
    /// A node could not be made.
    #[error("node {}: {}", .0, here(.1))]
    Init(usize, StartError),
    /// A node ended while starting.
    #[error("node {index} ended while starting ({status}); all were stopped. The end of its log:\n{tail}")]
    Died {
        /// Which.
        index: usize,
        /// How.
        status: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// Time is up.
    #[error("node {index} is not ready after {} s; all were stopped. It says: {waiting_for}. The end of its log:\n{tail}", READY_TIME.as_secs())]
    NotReady {
        /// The first that is not.
        index: usize,
        /// Its own words.
        waiting_for: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// Ctrl-C, or another signal that ends a command: with what shells say of whom it has ended.
    #[error("interrupted; all nodes were stopped")]
    Interrupted(u8),
    /// Folder trouble.
    #[error("{0}")]
    Data(String),
    /// What says what belongs to the network cannot be read.
    #[error("cannot read {}: {}{}", .0.display(), .1, to_read(.1))]
    Unreadable(PathBuf, io::Error),
    /// A file cannot be made.
    #[error("cannot write {}: {}{}", .0.display(), .1, to_write(.1))]
    Io(PathBuf, io::Error),
}

impl From<DataError> for TestnetError {
    fn from(error: DataError) -> Self {
        Self::Data(here(&error))
    }
}

/// What a daemon says, where it is another option that helps.
fn here(error: &impl std::fmt::Display) -> String {
    error.to_string().replace("--data-dir", "--dir")
}

/// Starts a network and returns when every node is ready. `report` hears how many are, and what the next one waits for.
///
/// # Errors
/// See [`TestnetError`]; nothing runs and nothing is left on disk then.
pub async fn up(
    plan: &Plan,
    rng: &mut dyn CryptoRng,
    report: &mut dyn FnMut(usize, &str),
) -> Result<Network, TestnetError> {
    if !(1..=MAX_NODES).contains(&plan.nodes) {
        return Err(TestnetError::Count(plan.nodes));
    }
    if plan.dir.join(STATE).exists() {
        return Err(TestnetError::Exists(plan.dir.clone()));
    }
    // Before anything is made: whoever ends it while that goes on leaves nothing.
    let interrupted = interrupted();
    let made = missing(&plan.dir).map_err(|error| TestnetError::Io(plan.dir.clone(), error))?;
    make_private_dir(&plan.dir)?;
    // Whole paths: the nodes and `down` may run elsewhere.
    let dir = plan.dir.canonicalize().map_err(|error| TestnetError::Io(plan.dir.clone(), error))?;
    let mut state = State { made, ..State::default() };
    let mut children = Vec::new();
    let result = async {
        commands::create(&dir, rng)?;
        create_nodes(plan.nodes, &dir, rng, &mut state.nodes)?;
        start(plan, &dir, &mut state, &mut children)?;
        tokio::select! {
            result = all_ready(&state.nodes, &mut children, report) => result,
            status = interrupted => Err(TestnetError::Interrupted(status)),
        }
    }
    .await;
    if let Err(error) = result {
        end(&dir, &state);
        for child in &mut children {
            // One that did not get as far as to be found by its folder.
            let _ = child.kill();
            let _ = child.wait();
        }
        return Err(error);
    }
    Ok(Network { nodes: state.nodes })
}

/// What [`down`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Which nodes ran, and as which processes.
    pub stopped: Vec<(usize, i32)>,
    /// Those of them that [`up`] had not started: somebody started them anew by hand.
    pub by_hand: Vec<(usize, i32)>,
    /// Those that did not run any more.
    pub gone: Vec<usize>,
    /// How many did not end when asked, and were killed.
    pub killed: usize,
}

/// Stops a network, also those of its nodes that somebody started anew in their folders, and removes what [`up`] made.
///
/// # Errors
/// When there is no network in `dir`.
pub fn down(dir: &Path) -> Result<Ended, TestnetError> {
    let path = dir.join(STATE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Err(TestnetError::None(dir.to_owned()));
        }
        Err(error) => return Err(TestnetError::Unreadable(path, error)),
    };
    let state: State = serde_json::from_slice(&text).map_err(|error| TestnetError::Damaged(path, error))?;
    let dir = dir.canonicalize().map_err(|error| TestnetError::Io(dir.to_owned(), error))?;
    Ok(end(&dir, &state))
}

/// Whether all processes of the network in `dir` run; the index of the first that does not.
pub fn first_dead(dir: &Path) -> Option<usize> {
    let state: State = serde_json::from_slice(&fs::read(dir.join(STATE)).ok()?).ok()?;
    state.processes.iter().position(|process| !process.lives())
}

/// The last lines that a node wrote.
pub fn log_tail(node: &Node) -> String {
    process::tail(&node.data_dir.join("log"))
}

fn end(dir: &Path, state: &State) -> Ended {
    let (mut ended, mut running) = (Ended::default(), Vec::new());
    for index in 0..state.nodes.len() {
        let started = state.processes.get(index).filter(|process| process.lives()).cloned();
        let by_hand = Process::holding(&node_dir(dir, index)).filter(|holding| Some(holding) != started.as_ref());
        ended.stopped.extend(started.iter().chain(&by_hand).map(|process| (index, process.pid())));
        ended.by_hand.extend(by_hand.iter().map(|process| (index, process.pid())));
        ended.gone.extend((started.is_none() && by_hand.is_none()).then_some(index));
        running.extend(started.into_iter().chain(by_hand));
    }
    ended.killed = process::stop(&running);
    for index in 0..state.nodes.len() {
        let _ = fs::remove_dir_all(node_dir(dir, index));
    }
    let _ = fs::remove_file(dir.join(STATE));
    commands::remove(dir);
    // Only what is empty: what others put there stays, and where it lies.
    let _ = state.made.iter().try_for_each(fs::remove_dir);
    ended
}

/// A folder and those in which it lies, from within, as far as they are not there.
fn missing(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let whole = absolute(folder)?;
    Ok(whole.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect())
}

fn node_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("node-{index:02}"))
}

fn address(index: usize) -> Ipv4Addr {
    // Below 210 by MAX_NODES.
    Ipv4Addr::new(127, u8::try_from(10 + index).unwrap_or(u8::MAX), 0, 1)
}

/// A port that is free on the addresses of all nodes at this moment.
fn free_port(nodes: usize, rng: &mut dyn CryptoRng) -> Result<u16, TestnetError> {
    let mut last = io::Error::other("no attempt");
    for _ in 0..PORT_ATTEMPTS {
        let port = rng.random_range(PORTS);
        let all: io::Result<Vec<_>> = (0..nodes).map(|i| TcpListener::bind((address(i), port))).collect();
        match all {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(TestnetError::Port(nodes, last))
}

/// Makes identity and configuration of every node; the first one's peer string goes to all others.
fn create_nodes(count: usize, dir: &Path, rng: &mut dyn CryptoRng, nodes: &mut Vec<Node>) -> Result<(), TestnetError> {
    let port = free_port(count, rng)?;
    let mut seed = Vec::new();
    for index in 0..count {
        let data_dir = node_dir(dir, index);
        let listen = SocketAddr::from((address(index), port));
        let socket = data_dir.join(SOCKET_NAME);
        // Listed before it is made: what is made in part is removed too.
        nodes.push(Node { index, data_dir: data_dir.clone(), socket, listen, node_id: String::new() });
        let options = Options {
            data_dir: Some(data_dir),
            listen: Some(listen),
            peers: seed.clone(),
            accept_eula: true,
            config: None,
            resolver: None,
            hurry: true,
            leave_router: false,
            socket: None,
            command_keys: Some(commands::public(dir)),
            log: None,
        };
        let made = startup::init(&options, &Folders::default(), Consent::Given, rng)
            .map_err(|error| TestnetError::Init(index, error))?;
        if seed.is_empty() {
            let (identity, link_secret) = (made.node.key.verifying_key(), made.node.link_secret);
            seed = vec![Peer(NodeContact { identity, addr: listen, link_secret })];
        }
        nodes[index].node_id = made.node.node_id().to_string();
    }
    Ok(())
}

fn start(plan: &Plan, dir: &Path, state: &mut State, children: &mut Vec<Child>) -> Result<(), TestnetError> {
    for index in 0..state.nodes.len() {
        let data_dir = &state.nodes[index].data_dir;
        let keys = commands::public(dir);
        let arguments = [
            "--hurry".as_ref(),
            "--data-dir".as_ref(),
            data_dir.as_os_str(),
            "--command-keys".as_ref(),
            keys.as_os_str(),
            "--log".as_ref(),
            plan.log.as_ref(),
        ];
        let (process, child) = Process::start(&plan.phantomd, &arguments, &data_dir.join("log"))
            .map_err(|error| TestnetError::Program(plan.phantomd.clone(), error))?;
        children.push(child);
        state.processes.push(process);
        // After each one: whatever happens to us, `down` finds all.
        save(dir, state)?;
    }
    Ok(())
}

fn save(dir: &Path, state: &State) -> Result<(), TestnetError> {
    let path = dir.join(STATE);
    let text = serde_json::to_vec_pretty(state).map_err(|error| TestnetError::Damaged(path.clone(), error))?;
    write_private(&path, &text).map_err(|error| TestnetError::Io(path, error))
}

async fn all_ready(
    nodes: &[Node],
    children: &mut [Child],
    report: &mut dyn FnMut(usize, &str),
) -> Result<(), TestnetError> {
    let deadline = Instant::now() + READY_TIME;
    let mut waiting: Vec<(usize, String)> = nodes.iter().map(|node| (node.index, "its start".to_owned())).collect();
    loop {
        let mut still = Vec::new();
        for (index, before) in waiting {
            check_alive(index, &nodes[index], &mut children[index])?;
            if let Some(reason) = waits_for(&nodes[index], before).await {
                still.push((index, reason));
            }
        }
        let Some((index, reason)) = still.first() else { return Ok(()) };
        report(nodes.len() - still.len(), reason);
        if Instant::now() > deadline {
            let tail = log_tail(&nodes[*index]);
            return Err(TestnetError::NotReady { index: *index, waiting_for: reason.clone(), tail });
        }
        waiting = still;
        sleep(ASK_PAUSE).await;
    }
}

fn check_alive(index: usize, node: &Node, child: &mut Child) -> Result<(), TestnetError> {
    match child.try_wait() {
        Ok(Some(status)) => {
            let tail = log_tail(node);
            Err(TestnetError::Died { index, status: status.to_string(), tail })
        }
        _ => Ok(()),
    }
}

/// What a node waits for, in its own words; `None` when it is ready.
async fn waits_for(node: &Node, before: String) -> Option<String> {
    match Client::connect(&node.socket).await {
        Ok(mut client) => match client.status().await {
            Ok(status) if status.ready => None,
            Ok(status) if status.waiting_for.is_empty() => Some(before),
            Ok(status) => Some(status.waiting_for),
            Err(error) => Some(error.to_string()),
        },
        // Not listening yet.
        Err(_) => Some(before),
    }
}

#[cfg(test)]
mod tests;
