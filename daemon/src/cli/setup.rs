//! `phantom setup`: finds out what it can, lets `phantomd init` make configuration and identity, and says what comes next.
//!
//! For whom depends on what is installed: root, where the package's service is, sets that up; an ordinary user is told when the
//! computer's daemon serves them already; everybody else gets a daemon of their own.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use phantom_ipc::SYSTEM_SOCKET;

use super::args::Setup;
use crate::config::{self, Config, Folders, Overrides};
use crate::gate::{self, Owner};
use crate::names::Peer;

/// What the package's unit says.
const SYSTEM_CONFIG: &str = "/etc/phantom/phantomd.toml";
const SYSTEM_DATA: &str = "/var/lib/phantom";

/// Where units of the package lie, or of `install`.
const USER_UNITS: [&str; 2] =
    ["/usr/lib/systemd/user/phantomd.service", "/usr/local/share/systemd/user/phantomd.service"];

/// What it came to, as the exit status.
pub(super) fn run(options: &Setup) -> Result<u8> {
    let whose = Whose::of(options)?;
    let mut out = std::io::stdout().lock();
    if let Whose::Others = whose {
        writeln!(out, "this computer's daemon at {SYSTEM_SOCKET} serves you: phantom-run PROGRAM needs nothing more")?;
        return Ok(writeln!(out, "for a daemon of your own, with lasting names: phantom setup --own").map(|()| 0)?);
    }
    let overrides = whose.overrides(options);
    let folders = Folders::here();
    let config = Config::load(&overrides, &folders)?;
    let phantomd = super::beside("phantomd")?;
    if UnixStream::connect(&config.socket).is_ok() {
        if !options.peers.is_empty() || options.listen.is_some() {
            bail!("a daemon answers at {}: nothing was changed\n  {}", config.socket.display(), whose.while_it_runs());
        }
        writeln!(out, "a daemon answers at {}: it is set up", config.socket.display())?;
        return Ok(writeln!(out, "next: phantom status").map(|()| 0)?);
    }
    whose.listens_as_the_file_says(options, &folders)?;
    for line in checks(&config, &phantomd)? {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    let status =
        whose.init(&phantomd, options)?.status().with_context(|| format!("starting {}", phantomd.display()))?;
    if !status.success() {
        return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    }
    if let Some(file) = config::file_to_write(&overrides, &folders).filter(|_| !options.peers.is_empty()) {
        add_peers(&file, &options.peers)?;
    }
    let knows_nobody = Config::load(&overrides, &folders)?.peers.is_empty();
    if knows_nobody {
        writeln!(out, "it knows no other node yet: phantom setup --peer phantom-peer:… joins a network")?;
    }
    Ok(writeln!(out, "next: {}", whose.next()).map(|()| 0)?)
}

/// Whose daemon is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The computer's, which runs as this user.
    System(Owner),
    /// One's own.
    Own,
    /// Nobody's: the computer's runs, and is there for this user too.
    Others,
}

impl Whose {
    fn of(options: &Setup) -> Result<Self> {
        let is_root = rustix::process::geteuid().is_root();
        if options.own {
            return Ok(Self::Own);
        }
        if is_root && Path::new(SYSTEM_CONFIG).exists() {
            let about = fs::metadata(SYSTEM_DATA).with_context(|| format!("looking at {SYSTEM_DATA}"))?;
            return Ok(Self::System(Owner { uid: about.uid(), gid: about.gid() }));
        }
        let asked = options.peers.is_empty() && options.listen.is_none();
        Ok(if !is_root && asked && UnixStream::connect(SYSTEM_SOCKET).is_ok() { Self::Others } else { Self::Own })
    }

    fn overrides(self, options: &Setup) -> Overrides {
        let place = match self {
            Self::System(_) => Overrides {
                config: Some(SYSTEM_CONFIG.into()),
                data_dir: Some(SYSTEM_DATA.into()),
                socket: Some(SYSTEM_SOCKET.into()),
                ..Overrides::default()
            },
            Self::Own | Self::Others => Overrides::default(),
        };
        Overrides { listen: options.listen, ..place }
    }

    /// Configuration that is there stays as it is: another port than its own would be checked and told to others, and not used.
    fn listens_as_the_file_says(self, options: &Setup, folders: &Folders) -> Result<()> {
        let overrides = Overrides { listen: None, ..self.overrides(options) };
        let file = config::file_to_write(&overrides, folders).filter(|file| file.exists());
        let (Some(file), Some(listen)) = (file, options.listen) else { return Ok(()) };
        if Config::load(&overrides, folders)?.listen != listen {
            bail!("{} is there and says where to listen: write listen = \"{listen}\" there", file.display());
        }
        Ok(())
    }

    /// What to do first.
    fn while_it_runs(self) -> &'static str {
        match self {
            Self::System(_) => "end it (systemctl stop phantomd), then say this again",
            Self::Own | Self::Others => "end it (phantom stop), then say this again",
        }
    }

    /// What makes configuration and identity, and shows the agreement.
    fn init(self, phantomd: &Path, options: &Setup) -> Result<Command> {
        let mut command = Command::new(phantomd);
        command.arg("init");
        let Overrides { config, data_dir, socket, listen, .. } = self.overrides(options);
        let paths = [("--config", config), ("--data-dir", data_dir), ("--socket", socket)];
        for (option, path) in paths.into_iter().filter_map(|(option, path)| Some((option, path?))) {
            command.arg(option).arg(path);
        }
        if let Some(listen) = listen {
            command.arg("--listen").arg(listen.to_string());
        }
        if options.accept_eula {
            command.arg("--accept-eula");
        }
        if let Self::System(Owner { uid, gid }) = self {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    /// What starts it.
    fn next(self) -> &'static str {
        let has_manager = Path::new("/run/systemd/system").exists();
        match self {
            Self::System(_) if has_manager => "systemctl enable --now phantomd, then phantom status",
            Self::System(_) => {
                "phantomd as the user phantom, in the way of this computer's service manager: \
                 /usr/lib/systemd/system/phantomd.service says how"
            }
            Self::Own | Self::Others if has_manager && USER_UNITS.iter().any(|unit| Path::new(unit).exists()) => {
                "systemctl --user enable --now phantomd, then phantom status"
            }
            Self::Own | Self::Others => "phantomd, and in another terminal phantom status",
        }
    }
}

/// What was looked at, one line each.
///
/// # Errors
/// What no daemon could start with.
fn checks(config: &Config, phantomd: &Path) -> Result<Vec<String>> {
    let listen = config.listen;
    TcpListener::bind(listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use by another program\n  stop that, or choose another: phantom setup --listen 0.0.0.0:9443 \
             (the computer's daemon: listen in {SYSTEM_CONFIG})",
            listen.port()
        ),
        _ => anyhow::Error::new(error).context(format!("listening on {listen}")),
    })?;
    let namespaces = match gate::probe(phantomd) {
        Ok(()) => "can be made: every program is kept in, whatever it does".to_owned(),
        Err(error) => format!("cannot be made: programs get emulated sockets (docs/emulation.md)\n  {error}"),
    };
    Ok(vec![
        format!("port           {listen} is free; for others it must be open in firewalls and routers"),
        format!("namespaces     {namespaces}"),
    ])
}

/// Adds nodes to join through to a configuration file that names none yet.
fn add_peers(file: &PathBuf, peers: &[Peer]) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines: String =
        peers.iter().filter(|peer| !text.contains(&peer.to_string())).map(|p| format!("    \"{p}\",\n")).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let Some(text) = with_peers(&text, &lines) else {
        bail!("{} has peers in a form of its own: add yours there\npeers = [\n{lines}]", file.display());
    };
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// The text with lines added to its list of peers, if it is written as `phantomd init` does.
fn with_peers(text: &str, lines: &str) -> Option<String> {
    let at = text.find("\npeers = [")? + "\npeers = [".len();
    let (before, after) = text.split_at(at);
    match after.strip_prefix('\n') {
        Some(others) => Some(format!("{before}\n{lines}{others}")),
        None => Some(format!("{before}\n{lines}{}", after.strip_prefix(']').map(|rest| format!("]{rest}"))?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_file_does_not_say_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = Folders {
            config: Some(root.path().join("config")),
            state: Some(root.path().join("state")),
            socket: Some(root.path().join("socket")),
        };
        let asked = |listen: &str| {
            let listen = Some(listen.parse().expect("an address"));
            let options = Setup { peers: Vec::new(), listen, own: true, accept_eula: true };
            Whose::Own.listens_as_the_file_says(&options, &folders).map_err(|error| error.to_string())
        };
        asked("127.0.0.1:1").expect("no file, no other port");
        let file = config::file_to_write(&Overrides::default(), &folders).expect("a place");
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, config::template("127.0.0.1:1".parse().expect("an address"), &[])).expect("written");
        asked("127.0.0.1:1").expect("the same port");
        let error = asked("127.0.0.1:2").expect_err("another port");
        assert!(error.contains("write listen = \"127.0.0.1:2\" there"), "{error}");
    }

    #[test]
    fn peers_are_added_to_a_file_as_init_writes_it() {
        let listen = "0.0.0.0:8443".parse().expect("an address");
        let none = config::template(listen, &[]);
        let one = with_peers(&none, "    \"a\",\n").expect("a list");
        assert!(one.contains("\npeers = [\n    \"a\",\n]\n"), "{one}");
        let two = with_peers(&one, "    \"b\",\n").expect("a list");
        assert!(two.contains("\npeers = [\n    \"b\",\n    \"a\",\n]\n"), "{two}");
        assert_eq!(with_peers("peers = [] # mine", "x"), None);
        assert_eq!(with_peers("listen = 1\npeers = [\"a\"]\n", "x"), None);
    }
}
