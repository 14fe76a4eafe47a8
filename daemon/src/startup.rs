//! From options to everything a node needs before it says its first byte, with a clear refusal for each thing wrong.

use std::io::{self, ErrorKind, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use phantom_proto::wire::NodeContact;
use rand::CryptoRng;

use crate::advice::{is_full, to_write};
use crate::args::Options;
use crate::commands::date;
use crate::config::{self, Config, ConfigError, Folders};
use crate::datadir::{self, ANOTHER, DataDir, DataError, write_private};
use crate::eula::{self, Consent, EulaError};
use crate::identity::{Identities, IdentityError, NodeIdentity};
use crate::listening::{For, Listening, Sockets};
use crate::names::{Names, Peer};
use crate::os;
use crate::store::{Store, StoreError};

/// 2026-01-01 and 2126-01-01, in seconds since 1970: a clock outside is wrong, and a wrong clock would make every
/// record and every path look expired.
const PLAUSIBLE: std::ops::Range<u64> = 1_767_225_600..4_922_899_200;

/// File of the store in the data directory.
const STORE: &str = "store.redb";

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Command line or configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The configuration file cannot be written.
    #[error("cannot write {path}: {source}{}", to_write(source))]
    ConfigFile {
        /// Where it was to be.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The agreement.
    #[error(transparent)]
    Eula(#[from] EulaError),
    /// The store cannot be opened.
    #[error("cannot open {path}: {source}\n  nothing was changed: {}", source.hint())]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store says.
        source: StoreError,
    },
    /// The identities in the store cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Somebody else has the port.
    #[error("{0} is in use by another program\n  stop that, or say --listen ADDRESS:PORT (port 0 takes any free one)")]
    PortInUse(SocketAddr),
    /// The system does not let us listen.
    #[error("cannot listen on {addr}: {source}{}", listen_hint(source))]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The clock is wrong.
    #[error(
        "the clock of this computer is wrong: it shows {}\n  set it (records and paths carry times of expiry), then start again",
        date(*.0)
    )]
    Clock(u64),
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "\n  ports below 1024 need privilege: say --listen 0.0.0.0:8443",
        ErrorKind::AddrNotAvailable => "\n  no network device of this computer has that address",
        _ => "",
    }
}

impl StartError {
    /// The same for whoever did not start phantomd, and cannot give it options: `elsewhere` says what takes their place.
    pub fn told(&self, elsewhere: &str) -> String {
        let said = self.to_string();
        match (self, said.split_once('\n')) {
            (Self::ConfigFile { source, .. }, Some((what, _))) if is_full(source) => {
                format!("{what}\n  free some space, or {elsewhere}")
            }
            (Self::ConfigFile { .. }, Some((what, _))) => format!("{what}\n  {elsewhere}"),
            _ => said.replace(ANOTHER, elsewhere),
        }
    }

    /// The exit status; the list is in the help of `phantomd`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Eula(_) => 3,
            Self::PortInUse(_) | Self::Data(DataError::InUse { .. }) => 4,
            _ => 1,
        }
    }
}

/// Everything checked, locked, opened and bound.
#[derive(Debug)]
pub struct Setup {
    /// What the operator decided.
    pub config: Config,
    /// The data directory, locked.
    pub data: DataDir,
    /// The node's keys.
    pub node: NodeIdentity,
    /// What other nodes need to reach this one.
    pub contact: NodeContact,
    /// Bound to [`Config::listen`], non-blocking.
    pub listener: TcpListener,
    /// All sockets on which the process listens.
    pub listening: Arc<Listening>,
    /// The store in the data directory.
    pub store: Arc<Store>,
    /// AP identities held for programs.
    pub identities: Arc<Identities>,
    /// Names and aliases.
    pub names: Arc<Names>,
}

/// What [`init`] made or found.
#[derive(Debug)]
pub struct Initialized {
    /// What the operator decided.
    pub config: Config,
    /// The data directory, locked.
    pub data: DataDir,
    /// The node's keys.
    pub node: NodeIdentity,
    /// The configuration file, when one was written.
    pub written: Option<PathBuf>,
}

/// Makes what is missing: data directory, acceptance of the agreement, identity, configuration file. What is there
/// stays as it is.
///
/// # Errors
/// See [`StartError`].
pub fn init(
    options: &Options,
    folders: &Folders,
    consent: Consent<'_>,
    rng: &mut dyn CryptoRng,
) -> Result<Initialized, StartError> {
    let mut overrides = options.overrides();
    // `init --config FILE` makes the file; running with a file that is missing is a mistake.
    let target = config::file_to_write(&overrides, folders);
    if overrides.config.as_ref().is_some_and(|path| !path.exists()) {
        overrides.config = None;
    }
    let config = Config::load(&overrides, folders)?;
    let agreed = eula::ensure(&config.data_dir, consent)?;
    let data = DataDir::open(&config.data_dir)?;
    agreed.record()?;
    let node = match NodeIdentity::load(data.path())? {
        Some(node) => node,
        None => NodeIdentity::create(data.path(), rng)?,
    };
    let written = target.filter(|path| !path.exists());
    if let Some(path) = &written {
        write_config(path, &config)?;
    }
    Ok(Initialized { config, data, node, written })
}

fn write_config(path: &Path, config: &Config) -> Result<(), StartError> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    let text = config::template(config.listen, &config.peers);
    let made = folder.map_or(Ok(()), os::make_folder).and_then(|()| write_private(path, text.as_bytes()));
    made.map_err(|source| StartError::ConfigFile { path: path.to_owned(), source })
}

/// Opens and binds everything that the node runs with, or goes on with what the process before has left of it.
///
/// # Errors
/// See [`StartError`]; nothing stays open or bound then.
pub fn prepare(ready: Initialized, left: Sockets) -> Result<Setup, StartError> {
    check_clock(SystemTime::now())?;
    let Initialized { config, data, node, .. } = ready;
    let path = data.file(STORE);
    let store = Store::open(&path).map(Arc::new).map_err(|source| StartError::Store { path, source })?;
    let identities = Arc::new(Identities::load(Arc::clone(&store))?);
    let listening = Arc::new(Listening::after(left));
    let listener = bind(&listening, config.listen)?;
    let bound = listener.local_addr().map_err(|source| StartError::Listen { addr: config.listen, source })?;
    let contact = NodeContact {
        identity: node.key.verifying_key(),
        addr: config.advertise.unwrap_or_else(|| reachable(bound, &config.peers)),
        link_secret: node.link_secret,
    };
    let names = Arc::new(Names::new(&config.aliases));
    Ok(Setup { config, data, node, contact, listener, listening, store, identities, names })
}

/// How the agreement is asked for, given the options and what standard input and output are.
pub fn consent<'a>(options: &Options, input: &'a mut dyn io::BufRead, output: &'a mut dyn io::Write) -> Consent<'a> {
    if options.accept_eula {
        Consent::Given
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        Consent::Ask(input, output)
    } else {
        Consent::Nobody
    }
}

/// Whether a daemon could start so, as far as that can be seen while another one runs with the same.
///
/// # Errors
/// Whatever is wrong with what is there, and this user's.
pub fn check(config: &Config) -> Result<(), StartError> {
    check_clock(SystemTime::now())?;
    let dir = &config.data_dir;
    if datadir::check(dir)? && NodeIdentity::load(dir)?.is_some() && !eula::accepted(dir) {
        return Err(EulaError::NobodyToAsk.into());
    }
    Ok(())
}

fn check_clock(now: SystemTime) -> Result<(), StartError> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    if PLAUSIBLE.contains(&seconds) { Ok(()) } else { Err(StartError::Clock(seconds)) }
}

fn bind(listening: &Listening, addr: SocketAddr) -> Result<TcpListener, StartError> {
    listening.at(For::Nodes, addr).map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => StartError::PortInUse(addr),
        _ => StartError::Listen { addr, source },
    })
}

/// The address to tell others when the operator says none; that of this computer alone while it is in no network.
fn reachable(bound: SocketAddr, peers: &[Peer]) -> SocketAddr {
    address_of(bound, peers).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, bound.port()).into())
}

/// The address of this node, as this computer knows it: the bound one, or, bound to all, the one from which it would reach its first
/// peer. `None`: there is no way there.
pub(crate) fn address_of(bound: SocketAddr, peers: &[Peer]) -> Option<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Some(bound);
    }
    // An address of documentation (RFC 5737): choosing the route sends no packet.
    let outside = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let towards = peers.first().map_or(outside, |peer| peer.0.addr);
    Some(SocketAddr::new(source_address(towards)?, bound.port()))
}

/// The address from which this computer would send there, if it can.
pub(crate) fn source_address(towards: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if towards.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests;
