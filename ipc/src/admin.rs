//! The admin dialect: what people and scripts ask of the daemon, one JSON object per line.
//!
//! ```text
//!  {"version":5,"request":"status"}                          -> {"ok":{"node_id":"…","ready":true,…}}
//!  {"version":5,"request":{"address-new":{"name":"web"}}}    -> {"ok":{"name":"web","address":"fd70:…","phantom_name":"….phantom"}}
//!  {"version":5,"request":{"address-show":{"name":"no"}}}    -> {"error":{"message":"…","hint":"…"}}
//! ```
//!
//! One reply per request, in order, any number of requests per connection. What `--json` prints is the value after `ok`.

mod health;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::VERSION;

pub use health::{Check, CheckState, Doctor, LogLine, Severity, StartStep, Warning};

/// Longest line of a request, bytes without the line feed: a maintainers' command, signed by all.
pub const MAX_REQUEST: usize = 20 * 1024;

/// Longest line of a reply, bytes without the line feed: lists of a few thousand entries fit.
pub const MAX_REPLY: usize = 4 << 20;

/// A request with the version of its sender: one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// [`VERSION`] of the sender. Any other is refused.
    pub version: u8,
    /// What is asked.
    pub request: Request,
}

/// What is asked. Each variant says the type of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is: [`Status`].
    Status,
    /// What is as it should be and what is not: [`Doctor`].
    Doctor,
    /// What the daemon has said of late, the newest last: `Vec<LogLine>`.
    Log {
        /// Only what came after the line of this number.
        after: u64,
    },
    /// Make an identity: [`Address`].
    AddressNew {
        /// Name for it, unique on this daemon.
        name: String,
    },
    /// All identities that have a name: `Vec<Address>`.
    AddressList,
    /// One identity: [`Address`].
    AddressShow {
        /// Its name.
        name: String,
    },
    /// An identity, sealed with a passphrase: `String`, the text of a file.
    IdentityExport {
        /// Its name.
        name: String,
        /// For whoever is to be it again.
        passphrase: Passphrase,
    },
    /// An identity that was sealed: [`Address`].
    IdentityImport {
        /// The text of the file.
        sealed: String,
        /// With which it was sealed.
        passphrase: Passphrase,
        /// Name for it; none for the one that it had.
        name: Option<String>,
    },
    /// Another name for an identity that nobody uses: [`Address`].
    IdentityRename {
        /// The old one.
        name: String,
        /// The new one.
        to: String,
    },
    /// Forget an identity that nobody uses, for good: [`Address`], as it was.
    IdentityRemove {
        /// Its name.
        name: String,
    },
    /// The daemon's own routing paths: `Vec<Path>`.
    PathList,
    /// Nodes that this one has links with or has heard of: `Vec<Peer>`.
    PeerList,
    /// Some of the nodes that this one would name to anybody who asks, signed by it: `String`, the text of a file.
    PeerExport,
    /// Join through the nodes of such a file, now and whenever there are no others: [`Bundle`].
    PeerImport {
        /// The text of the file.
        bundle: String,
    },
    /// What the network database holds about an address: [`Lookup`].
    NetdbLookup {
        /// AP address, name ending in `.phantom`, or local alias.
        address: String,
    },
    /// Open and recent connections and the way that their bytes take: `Vec<Connection>`.
    Connections,
    /// Offer a service of this computer's loopback device at an identity: [`Forward`].
    ForwardNew {
        /// On which port others reach it.
        port: u16,
        /// Where it listens.
        to: SocketAddr,
        /// At which identity, made if there is none of that name; none for a fresh one.
        identity: Option<String>,
        /// Whether it is there after a restart of the daemon.
        keep: bool,
    },
    /// Offer what listens on a Unix socket, until this connection ends: [`Forward`].
    Offer {
        /// On which port others reach it.
        port: u16,
        /// Where it listens.
        socket: PathBuf,
        /// At which identity, made if there is none of that name; none for a fresh one.
        identity: Option<String>,
    },
    /// What is offered so: `Vec<Forward>`.
    ForwardList,
    /// Take it back: [`Forward`], as it was.
    ForwardRemove {
        /// Which port.
        port: u16,
        /// Of which identity, by name or address; none: of the one that offers the port, if no other does.
        identity: Option<String>,
    },
    /// Take a maintainers' command and hand it on: `null`.
    CommandSend {
        /// The text of its file.
        command: String,
    },
    /// Maintainers' commands, and what they do here: [`Commands`].
    CommandList,
    /// Let a command act that waits for the operator's word: `null`.
    CommandAllow {
        /// Its serial.
        serial: u64,
    },
    /// End the daemon: `null`, said before it ends.
    Stop,
    /// Start the daemon anew in place, by the executable and the configuration that are there now; programs and their connections go
    /// on: `null`, said before.
    Restart,
}

/// A passphrase on its way: wiped when it has been used, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Passphrase(String);

impl Passphrase {
    /// Of this text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What the daemon answers: one line. `T` is the type that the [`Request`] names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Reply<T> {
    /// The answer.
    Ok(T),
    /// It did not work.
    Error(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong, as one sentence without a full stop.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl<T> From<Result<T, Failure>> for Reply<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(failure) => Self::Error(failure),
        }
    }
}

impl<T> From<Reply<T>> for Result<T, Failure> {
    fn from(reply: Reply<T>) -> Self {
        match reply {
            Reply::Ok(value) => Ok(value),
            Reply::Error(failure) => Err(failure),
        }
    }
}

/// An identity of this daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Local name.
    pub name: String,
    /// AP address.
    pub address: Ipv6Addr,
    /// Name that holds the whole key, ending in `.phantom`; others reach the identity by it.
    pub phantom_name: String,
}

/// An identity at which programs can be reached now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Name of the identity; none for the fresh one of a run.
    pub identity: Option<String>,
    /// AP address.
    pub address: Ipv6Addr,
    /// Name that holds the whole key; others reach the programs by it.
    pub phantom_name: String,
    /// On which ports, ascending.
    pub ports: Vec<u16>,
    /// When the daemon last reached it from outside, and which entry nodes fail, in words; empty while it has no paths.
    pub seen: String,
}

/// A service of this computer that is offered at an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// On which port others reach it.
    pub port: u16,
    /// Where it listens: `address:port`, or the path of a Unix socket.
    pub to: String,
    /// Name of the identity; none for a fresh one.
    pub identity: Option<String>,
    /// AP address.
    pub address: Ipv6Addr,
    /// Name that holds the whole key; others reach the service by it.
    pub phantom_name: String,
    /// Whether it is there after a restart of the daemon.
    pub keep: bool,
    /// Whether something listens there at this moment; else visitors are refused.
    pub listens: bool,
    /// Whether the identity, which lasts, was made by the request that this answers.
    pub new_identity: bool,
}

/// Maintainers' commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// How many of how many must sign, in words; none: the network has no maintainers.
    pub maintainers: Option<String>,
    /// The highest serial that is here; 0 for none.
    pub highest: u64,
    /// What the next command names as its predecessor, hexadecimal.
    pub tip: String,
    /// How many are missing below the highest.
    pub missing: u64,
    /// Kinds that the operator opted out of.
    pub ignored: Vec<String>,
    /// Who is banned here now, and until when, in words.
    pub banned: Vec<String>,
    /// Those that are here, by serial.
    pub commands: Vec<CommandEntry>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEntry {
    /// Its number.
    pub serial: u64,
    /// When it was made, in words.
    pub issued: String,
    /// When it ends, in words.
    pub expires: String,
    /// What it says, in words.
    pub actions: Vec<String>,
    /// What it does here, in words.
    pub did: String,
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Own node id, hexadecimal.
    pub node_id: String,
    /// Where other nodes reach this one: `host:port`, none when it does not listen.
    pub listen: Vec<String>,
    /// What to give to somebody who wants to join through this node: `phantom-peer:…`.
    pub peer: String,
    /// Whether programs can be served now.
    pub ready: bool,
    /// What is missing for that, in words; empty when ready.
    pub waiting_for: String,
    /// Nodes that there is a link with.
    pub peers: u64,
    /// Own exit paths that are ready.
    pub exit_paths: u64,
    /// Own entry paths that are ready.
    pub entry_paths: u64,
    /// Tunnels built ahead, over all own paths.
    pub ready_tunnels: u64,
    /// Open connections of programs.
    pub open_connections: u64,
    /// What went wrong of late, in words.
    pub notes: Vec<String>,
    /// What is wrong now, causes before effects.
    pub warnings: Vec<Warning>,
    /// The steps of the start; all done, or as far as it is.
    pub start: Vec<StartStep>,
    /// Where others reach programs of the user that asks: what these listen on, or have published.
    pub published: Vec<Published>,
    /// Who keeps this node's own record; none before it was published for the first time.
    pub own_record: Option<OwnRecord>,
    /// Whether the router of this network forwards the port to this node, in words.
    pub router: String,
    /// Paths of others that lead through here.
    pub relayed_paths: u64,
    /// Tunnels of others that lead through here.
    pub relayed_tunnels: u64,
    /// Bytes relayed for others since the start.
    pub relayed_bytes: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// How it stands with this node's record in the network database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRecord {
    /// How many of those who were asked to keep it said that they do; nodes of one operator count as one.
    pub kept_by: u64,
    /// How many were asked.
    pub asked: u64,
    /// For how long more than half of them have; none: fewer do.
    pub for_seconds: Option<u64>,
}

/// A node on a way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hop {
    /// Its id, hexadecimal.
    pub node_id: String,
    /// Its `host:port`.
    pub addr: String,
}

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// For nothing yet.
    Spare,
    /// For outgoing connections.
    Exit,
    /// For look-ups in the network database.
    Lookup,
    /// For incoming connections.
    Entry,
}

/// How far a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Being built.
    Building,
    /// In use.
    Ready,
    /// Lost a node; about to be replaced.
    Broken,
}

/// One of the daemon's own routing paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// Short local id.
    pub id: String,
    /// What it is for.
    pub kind: PathKind,
    /// How far it is.
    pub state: PathState,
    /// Name of the identity that it serves; none for paths of unnamed identities and of the daemon itself.
    pub identity: Option<String>,
    /// X-nodes from the owner outwards; the last is the exit or entry node.
    pub hops: Vec<Hop>,
    /// Seconds since it was begun.
    pub age_seconds: u64,
    /// Tunnels built ahead.
    pub ready_tunnels: u64,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its id, hexadecimal.
    pub node_id: String,
    /// Its `host:port`.
    pub addr: String,
    /// Whether there is a link with it now.
    pub connected: bool,
    /// Seconds since it was last heard of; none if never.
    pub last_seen_seconds: Option<u64>,
}

/// A bundle of peers that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Id of the node that signed it, hexadecimal.
    pub signer: String,
    /// When it was made, in words.
    pub made: String,
    /// How many nodes it names.
    pub nodes: u64,
}

/// What the network database holds about an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// AP address.
    pub address: Ipv6Addr,
    /// Name that holds the whole key.
    pub phantom_name: String,
    /// Nodes through which the address is reached.
    pub entry_nodes: Vec<Hop>,
    /// Seconds until the entry expires.
    pub expires_in_seconds: u64,
}

/// Which side began a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// A program here.
    Outgoing,
    /// The peer.
    Incoming,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionState {
    /// Being made.
    Opening,
    /// Open.
    Open,
    /// Ended a while ago.
    Closed,
}

/// A program's connection and the way that its bytes take: own path, link between the two outermost nodes, peer's path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Local number.
    pub id: u64,
    /// Who began it.
    pub direction: Direction,
    /// How it is.
    pub state: ConnectionState,
    /// Name of the local identity; none when it has no name.
    pub identity: Option<String>,
    /// The peer's AP address.
    pub peer_address: Ipv6Addr,
    /// The peer's port when outgoing, the local one when incoming: the service's.
    pub port: u16,
    /// Seconds since it was begun.
    pub age_seconds: u64,
    /// Bytes from the local program.
    pub sent_bytes: u64,
    /// Bytes to the local program.
    pub received_bytes: u64,
    /// How often it went on another way, because the last was lost.
    pub moves: u32,
    /// Why it did so last, in words.
    pub last_move: Option<String>,
    /// [`Path::id`] of the own path; none while there is none. Two paths may well lead over the same nodes.
    pub own_path: Option<String>,
    /// X-nodes of the own path, from here outwards.
    pub own_hops: Vec<Hop>,
    /// Outermost node on the peer's side, as far as known.
    pub far_node: Option<Hop>,
    /// X-nodes of the peer's path from outside inwards: known only where both ends are this daemon's.
    pub far_hops: Option<Vec<Hop>>,
}

/// Why a line is no request, or no reply.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is not JSON, or not of the form that it should have.
    #[error("it has not the form that it should have: {0}")]
    Form(#[from] serde_json::Error),
    /// Another version's.
    #[error("the sender speaks version {0}, this program version {VERSION}: both must be of one release")]
    Version(u8),
    /// Too long.
    #[error("the line is longer than {0} bytes")]
    Long(usize),
}

impl Request {
    /// The line that asks it, line feed included.
    ///
    /// # Errors
    /// None that is known: all requests have a JSON form.
    pub fn to_line(&self) -> serde_json::Result<String> {
        line(&Call { version: VERSION, request: self.clone() })
    }

    /// Reads a line; a line feed at its end is accepted.
    ///
    /// # Errors
    /// When it is too long, not a request, or of another version.
    pub fn from_line(line: &[u8]) -> Result<Self, BadLine> {
        let line = bounded(line, MAX_REQUEST)?;
        // The version first: what another version's request looks like is unknown.
        let Version { version } = serde_json::from_slice(line)?;
        if version != VERSION {
            return Err(BadLine::Version(version));
        }
        Ok(serde_json::from_slice::<Call>(line)?.request)
    }
}

impl<T: Serialize> Reply<T> {
    /// The line that answers, line feed included.
    ///
    /// # Errors
    /// When `T` has no JSON form.
    pub fn to_line(&self) -> serde_json::Result<String> {
        line(self)
    }
}

impl<T: DeserializeOwned> Reply<T> {
    /// Reads a line; a line feed at its end is accepted.
    ///
    /// # Errors
    /// When it is too long or no reply of that type.
    pub fn from_line(line: &[u8]) -> Result<Self, BadLine> {
        Ok(serde_json::from_slice(bounded(line, MAX_REPLY)?)?)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u8,
}

fn line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    Ok(line)
}

fn bounded(line: &[u8], limit: usize) -> Result<&[u8], BadLine> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() > limit { Err(BadLine::Long(limit)) } else { Ok(line) }
}
