//! What the operator decides: the configuration file, its defaults, and every check on it, before anything starts.
//!
//! [`File`] is what was written, [`Config`] is what it means: command line over file over defaults, paths made whole,
//! peers gathered. Nothing else in the daemon looks at files or variables of configuration.

mod commands;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::advice::to_read;
use crate::local::LocalAddress;
use crate::logging;
use crate::names::{Alias, Peer, Resolver, Target};

pub use commands::CommandPlan;

/// Where a node listens unless told otherwise: 443 needs privilege, and web servers on 8443 are common.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 8443));

/// Name of the configuration file in its folder.
pub const FILE_NAME: &str = "phantomd.toml";

/// Name of the socket in its folder.
pub const SOCKET_NAME: &str = "daemon.sock";

/// Longest configuration or peers file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Most peers taken from all sources together: one is enough to join.
const MAX_PEERS: usize = 1024;

/// MiB that one key of a link may seal.
const LINK_MIB: u32 = 1 << 18;

/// Longest path of a Unix socket, in bytes (sun_path without its end).
const MAX_SOCKET_PATH: usize = 107;

/// Why a configuration cannot be used. Each says where and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}{hint}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A file is not what it should be.
    #[error("{path}: {text}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, and what is allowed there.
        text: String,
    },
    /// A value cannot be used.
    #[error("{0}")]
    Value(String),
}

/// A whole number between two bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Within<const LO: u32, const HI: u32>(u32);

impl<'de, const LO: u32, const HI: u32> Deserialize<'de> for Within<LO, HI> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = i64::deserialize(deserializer)?;
        let fits = u32::try_from(value).ok().filter(|value| (LO..=HI).contains(value));
        fits.map(Self).ok_or_else(|| D::Error::custom(format!("{value} is not between {LO} and {HI}")))
    }
}

/// What strangers see who connect to the listening port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    /// A built-in page.
    #[default]
    Builtin,
    /// The files of a folder.
    Folder(PathBuf),
    /// Another web server (HTTP, no TLS), asked on behalf of the stranger.
    Proxy(SocketAddr),
}

/// Whether other computers can open links to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachable {
    /// Other nodes are asked to try, again and again.
    #[default]
    Auto,
    /// They can.
    Yes,
    /// They cannot, or are not to.
    No,
}

impl Reachable {
    /// What the operator says. `None`: it is to be found out.
    pub fn said(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Yes => Some(true),
            Self::No => Some(false),
        }
    }
}

/// An address by number, since a name would be looked up in the ordinary DNS, with its port.
pub(crate) fn address_and_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "this takes an address by number and a port, as 0.0.0.0:8443 or [::]:8443")
}

fn written_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    address_and_port(&text).map(Some).map_err(D::Error::custom)
}

/// The file as written; everything is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    #[serde(deserialize_with = "written_address")]
    listen: Option<SocketAddr>,
    #[serde(deserialize_with = "written_address")]
    advertise: Option<SocketAddr>,
    reachable: Reachable,
    ask_router: Option<bool>,
    data_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    peers: Vec<Peer>,
    peers_file: Option<PathBuf>,
    face: Option<Face>,
    log: Option<String>,
    aliases: BTreeMap<Alias, Target>,
    resolver: FileResolver,
    paths: FilePaths,
    limits: FileLimits,
    commands: commands::FileCommands,
    metrics: FileMetrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileMetrics {
    listen: Option<LocalAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileResolver {
    address: Option<Resolver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilePaths {
    hops: Option<Within<2, 4>>,
    ahead: Option<Within<0, 16>>,
    entry: Option<Within<1, 4>>,
    ready_tunnels: Option<Within<1, 64>>,
    hurry: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLimits {
    links: Option<Within<16, 65_536>>,
    relayed_paths: Option<Within<0, 65_536>>,
    relayed_tunnels: Option<Within<0, 65_536>>,
    link_mib: Option<Within<1, LINK_MIB>>,
}

/// The paths that this node keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPlan {
    /// X-nodes of each path (x of the protocol).
    pub hops: u32,
    /// Sets of paths that are kept ready for identities to come.
    pub ahead: u32,
    /// Entry paths kept per identity that offers something.
    pub entry: u32,
    /// Tunnels kept ready per path that is used.
    pub ready_tunnels: u32,
    /// Whether paths are built and records published at once. Random times hide from observers what starts here and when.
    pub hurry: bool,
}

impl Default for PathPlan {
    fn default() -> Self {
        // Three entries outlive two losses in an hour; one set ahead is the next program's. Four ready tunnels cover a web
        // page's burst of connections.
        Self { hops: 3, ahead: 1, entry: 3, ready_tunnels: 4, hurry: false }
    }
}

/// What this node gives to others at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Links that other nodes opened, in total.
    pub links: u32,
    /// Paths of others that lead through here.
    pub relayed_paths: u32,
    /// Tunnels of others that lead through here, or by which they connect or ask from here.
    pub relayed_tunnels: u32,
    /// MiB that this node sends on a link before it ends it, and what is under way goes on over others.
    pub link_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // What the levels themselves take; ten thousand tunnels are to fit into 1 GiB.
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            links: count(crate::link::Limits::default().links),
            relayed_paths: count(phantom_proto::node::Settings::default().relayed_paths),
            relayed_tunnels: 10_000,
            link_mib: LINK_MIB,
        }
    }
}

/// What the daemon runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to accept links; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What other nodes are told, when it differs from `listen`.
    pub advertise: Option<SocketAddr>,
    /// Whether other nodes can open links to this one.
    pub reachable: Reachable,
    /// Whether the router of this network may be asked to forward the port.
    pub ask_router: bool,
    /// Keys and store.
    pub data_dir: PathBuf,
    /// The local socket for hook, launcher and command line.
    pub socket: PathBuf,
    /// Known nodes to join through.
    pub peers: Vec<Peer>,
    /// The answer to strangers.
    pub face: Face,
    /// Log level as [`logging::parse`] reads it.
    pub log: String,
    /// Local names.
    pub aliases: BTreeMap<Alias, Target>,
    /// Who is asked for names of the ordinary DNS, over Phantom; nobody unless it is said.
    pub resolver: Option<Resolver>,
    /// Own paths.
    pub paths: PathPlan,
    /// Service to others.
    pub limits: Limits,
    /// Maintainers' commands.
    pub commands: CommandPlan,
    /// Where numbers for Prometheus are; nowhere unless it is said.
    pub metrics: Option<LocalAddress>,
}

/// What the command line says; each overrides the file, peers are added.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--peer`.
    pub peers: Vec<Peer>,
    /// `--resolver`.
    pub resolver: Option<Resolver>,
    /// `--command-keys`.
    pub command_keys: Option<PathBuf>,
    /// `--log`.
    pub log: Option<String>,
    /// `--hurry`.
    pub hurry: bool,
    /// `--leave-router`.
    pub leave_router: bool,
}

/// The XDG folders, taken from the environment once.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, or `~/.local/state`.
    pub state: Option<PathBuf>,
    /// The socket where hook, launcher and command line look for the daemon of this user.
    pub socket: Option<PathBuf>,
}

impl Folders {
    /// From a look-up of environment variables, for the user `uid`; `is_own` says whether a folder is there and that
    /// user's. Relative paths are ignored, as the XDG specification asks.
    pub fn from_env(var: impl Fn(&str) -> Option<OsString>, uid: u32, is_own: impl Fn(&Path) -> bool) -> Self {
        let folder = |name| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = folder("HOME");
        let below_home = |rest| home.as_ref().map(|home: &PathBuf| home.join(rest));
        Self {
            config: folder("XDG_CONFIG_HOME").or_else(|| below_home(".config")),
            state: folder("XDG_STATE_HOME").or_else(|| below_home(".local/state")),
            // Not where PHANTOM_SOCKET says: that names the daemon to ask, and must not make every daemon offer the same.
            socket: Some(phantom_ipc::own_socket(&var, uid, is_own)),
        }
    }

    /// Those of this process.
    #[cfg(windows)]
    pub fn here() -> Self {
        let var = |name: &str| std::env::var_os(name);
        let local = var("LOCALAPPDATA").map(PathBuf::from).filter(|path| path.is_absolute());
        Self { config: local.clone(), state: local, socket: Some(phantom_ipc::own_file(var)) }
    }

    /// Those of this process.
    #[cfg(unix)]
    pub fn here() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self::from_env(|name| std::env::var_os(name), uid, phantom_ipc::is_folder_of(uid))
    }

    /// The data directory when nothing is said.
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|state| state.join("phantom"))
    }

    /// The configuration file when nothing is said.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.config.as_ref().map(|config| config.join("phantom").join(FILE_NAME))
    }
}

impl Config {
    /// Reads and joins everything: command line over file over defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(overrides: &Overrides, folders: &Folders) -> Result<Self, ConfigError> {
        let (file, base) = match config_path(overrides, folders)? {
            Some(path) => (read_file(&path)?, path.parent().map(Path::to_owned).unwrap_or_default()),
            None => (File::default(), PathBuf::new()),
        };
        Self::resolve(file, &base, overrides, folders)
    }

    /// `base` is the folder that relative paths in the file start from.
    fn resolve(file: File, base: &Path, overrides: &Overrides, folders: &Folders) -> Result<Self, ConfigError> {
        let said_dir = overrides.data_dir.clone().or_else(|| file.data_dir.map(|dir| base.join(dir)));
        let data_dir = said_dir.clone().or_else(|| folders.data_dir()).ok_or_else(no_home)?;
        let said_socket = overrides.socket.clone().or_else(|| file.socket.map(|path| base.join(path)));
        let beside_data = || said_dir.map(|dir| dir.join(SOCKET_NAME));
        let socket = said_socket.or_else(beside_data).or_else(|| folders.socket.clone()).ok_or_else(no_home)?;
        let mut peers = file.peers;
        if let Some(path) = file.peers_file {
            peers.extend(read_peers(&base.join(path))?);
        }
        peers.extend(overrides.peers.iter().cloned());
        let face = match file.face.unwrap_or_default() {
            Face::Folder(path) => Face::Folder(base.join(path)),
            face => face,
        };
        let config = Self {
            listen: overrides.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            advertise: file.advertise,
            reachable: file.reachable,
            ask_router: !overrides.leave_router && file.ask_router.unwrap_or(true),
            data_dir,
            socket,
            peers,
            face,
            log: overrides.log.clone().or(file.log).unwrap_or_else(|| logging::DEFAULT_LEVEL.to_owned()),
            aliases: file.aliases,
            resolver: overrides.resolver.or(file.resolver.address),
            paths: file.paths.resolve(overrides.hurry),
            limits: file.limits.resolve(),
            commands: file.commands.resolve(overrides.command_keys.as_deref(), base)?,
            metrics: file.metrics.listen,
        };
        config.check().map(|()| config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |text: String| Err(ConfigError::Value(text));
        let length = self.socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return value(format!(
                "the socket path {} is {length} bytes long, the system allows {MAX_SOCKET_PATH}: give a shorter one \
                 with --socket",
                self.socket.display()
            ));
        }
        if self.peers.len() > MAX_PEERS {
            return value(format!("{} peers are too many: at most {MAX_PEERS}, one is enough", self.peers.len()));
        }
        if let Some(advertise) = self.advertise
            && (advertise.ip().is_unspecified() || advertise.port() == 0)
        {
            return value(format!("advertise = {advertise}: other nodes need a real address and port"));
        }
        if let Face::Folder(path) = &self.face
            && !path.is_dir()
        {
            return value(format!("face: {} is not a folder", path.display()));
        }
        logging::parse(&self.log).map(drop).map_err(|error| ConfigError::Value(error.to_string()))
    }
}

impl FilePaths {
    fn resolve(self, hurry: bool) -> PathPlan {
        let default = PathPlan::default();
        PathPlan {
            hops: self.hops.map_or(default.hops, |value| value.0),
            ahead: self.ahead.map_or(default.ahead, |value| value.0),
            entry: self.entry.map_or(default.entry, |value| value.0),
            ready_tunnels: self.ready_tunnels.map_or(default.ready_tunnels, |value| value.0),
            hurry: hurry || self.hurry.unwrap_or(default.hurry),
        }
    }
}

impl FileLimits {
    fn resolve(self) -> Limits {
        let default = Limits::default();
        Limits {
            links: self.links.map_or(default.links, |value| value.0),
            relayed_paths: self.relayed_paths.map_or(default.relayed_paths, |value| value.0),
            relayed_tunnels: self.relayed_tunnels.map_or(default.relayed_tunnels, |value| value.0),
            link_mib: self.link_mib.map_or(default.link_mib, |value| value.0),
        }
    }
}

fn no_home() -> ConfigError {
    ConfigError::Value(
        "neither $HOME nor $XDG_STATE_HOME is set, so nobody knows where keys are to lie\n  set HOME to your home folder, or say \
         `phantomd --data-dir DIR`"
            .to_owned(),
    )
}

/// The file to read: a named one must exist, the usual ones may be missing.
fn config_path(overrides: &Overrides, folders: &Folders) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = &overrides.config {
        return Ok(Some(path.clone()));
    }
    let usual = file_to_write(overrides, folders);
    match usual.as_ref().map(fs::metadata) {
        None => Ok(None),
        Some(Ok(_)) => Ok(usual),
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        Some(Err(source)) => {
            let hint = to_read(&source);
            Err(ConfigError::Unreadable { path: usual.unwrap_or_default(), source, hint })
        }
    }
}

/// Where `phantomd init` puts the configuration: the named file, else beside the data when its folder was named, else
/// the user's configuration folder.
pub fn file_to_write(overrides: &Overrides, folders: &Folders) -> Option<PathBuf> {
    let beside_data = overrides.data_dir.as_ref().map(|dir| dir.join(FILE_NAME));
    overrides.config.clone().or(beside_data).or_else(|| folders.config_file())
}

fn read_text(path: &Path, hint: &'static str) -> Result<String, ConfigError> {
    let unreadable = |source: std::io::Error| {
        let hint = match source.kind() {
            ErrorKind::NotFound => hint,
            ErrorKind::PermissionDenied => {
                "\n  it must be readable for whoever runs phantomd: look at owner and rights (`ls -l`)"
            }
            _ => to_read(&source),
        };
        ConfigError::Unreadable { path: path.to_owned(), source, hint }
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        let text = format!("{length} bytes are too many for this file (at most {MAX_FILE})");
        return Err(ConfigError::Wrong { path: path.to_owned(), text });
    }
    fs::read_to_string(path).map_err(unreadable)
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = read_text(path, "\n  `phantomd init` writes one")?;
    toml::from_str(&text).map_err(|error| ConfigError::Wrong { path: path.to_owned(), text: error.to_string() })
}

/// One peer string per line; blank lines and lines that begin with `#` are skipped.
pub(crate) fn read_peers(path: &Path) -> Result<Vec<Peer>, ConfigError> {
    let text = read_text(path, "\n  it is the peers_file of the configuration: one peer string per line")?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            line.parse::<Peer>()
                .map_err(|error| ConfigError::Wrong { path: path.to_owned(), text: format!("line {number}: {error}") })
        })
        .collect()
}

/// The configuration that `phantomd init` writes: the defaults, each explained, and where to listen and whom to join as they were said.
pub fn template(listen: SocketAddr, peers: &[Peer]) -> String {
    let peers: String = peers.iter().map(|peer| format!("    \"{peer}\",\n")).collect();
    let peers = if peers.is_empty() { "[]".to_owned() } else { format!("[\n{peers}]") };
    format!(
        "# Configuration of phantomd. Every line may be left out; commented lines show the default.\n\n\
         # Where this node accepts links. Port 443 looks best from outside, where you may use it.\n\
         listen = \"{listen}\"\n\
         # What other nodes are told, if they reach this one under another address:\n\
         # advertise = \"203.0.113.7:443\"\n\
         # Whether they can open links to it: \"auto\" (some of them are asked to try), \"yes\" or \"no\". Programs visit and serve in any case;\n\
         # a node that cannot be reached relays for nobody.\n\
         # reachable = \"auto\"\n\
         # Whether the router of a home may be asked to forward the port to this node (PCP, NAT-PMP, UPnP), so that they can. It is not where\n\
         # `advertise` or `reachable` say how it is.\n\
         # ask_router = true\n\n\
         # Nodes to join through: what `phantom status` on them calls peer string. One is enough.\n\
         peers = {peers}\n\
         # peers_file = \"peers.txt\"\n\n\
         # What strangers see on the port: \"builtin\", {{ folder = \"/var/www\" }} or {{ proxy = \"127.0.0.1:8080\" }}\n\
         # face = \"builtin\"\n\n\
         # off, error, warn, info, debug or trace. Debug and trace write addresses and names into the log.\n\
         # log = \"info\"\n\n\
         # [paths]\n# hops = 3\n# ahead = 1\n# entry = 3\n# ready_tunnels = 4\n# hurry = false\n\n\
         # [limits]\n# links = 24000\n# relayed_paths = 4096\n# relayed_tunnels = 10000\n# link_mib = 262144\n\n\
         # Kinds of maintainers' commands (docs/commands.md) that have no effect here: \"ranges\", \"nodes\", \"remove\", \"insert\".\n\
         # It makes your paths differ from those of others. `keys` names the file of other maintainers than this release's.\n\
         # [commands]\n# ignore = []\n\n\
         # Numbers for Prometheus, at /metrics there: a port of the loopback device, or \"unix:/PATH\". Off by default.\n\
         # [metrics]\n# listen = \"127.0.0.1:9464\"\n\n\
         # Names for addresses, on this computer only:\n\
         # [aliases]\n# web = \"fd70:…\"\n\n\
         # Who resolves names of the ordinary DNS that have an address of the phantom network; asked over Phantom, by\n\
         # each identity for itself. Nobody by default: then such names are not found.\n\
         # [resolver]\n# address = \"….phantom:53\"\n"
    )
}

#[cfg(test)]
mod tests;
