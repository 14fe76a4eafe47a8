//! `phantom setup`: finds out what it can, lets `phantomd init` make configuration and identity, sees whether others reach the node,
//! and says what comes next.
//!
//! For whom depends on what is installed: root, where the package's service is, sets that up; an ordinary user is told when the
//! computer's daemon serves them already; everybody else gets a daemon of their own.

mod reach;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use phantom_ipc::SYSTEM_SOCKET;
use phantom_ipc::absent::Installed;
use tokio::runtime::Runtime;

use super::args::Setup;
use super::ask::write_over;
use super::print;
use crate::advice::{cannot_read, cannot_write};
use crate::config::{self, Config, Folders, Overrides};
use crate::gate;
use crate::names::Peer;
use crate::os::{Owner, interrupted};
use crate::startup::StartError;

/// What the package's unit says.
const SYSTEM_CONFIG: &str = "/etc/phantom/phantomd.toml";
const SYSTEM_DATA: &str = "/var/lib/phantom";

/// What it came to, as the exit status.
pub(super) fn run(options: &Setup, runtime: &Runtime) -> Result<u8> {
    let whose = Whose::of(options)?;
    if let Whose::Others = whose {
        print(&format!(
            "this computer's daemon at {SYSTEM_SOCKET} serves you: phantom-run PROGRAM needs nothing more\n\
             names of yours that last: phantom identity new NAME; for a daemon of your own: phantom setup --own\n"
        ))?;
        return Ok(0);
    }
    let overrides = whose.overrides(options);
    let folders = Folders::here();
    let config = Config::load(&overrides, &folders)?;
    let phantomd = super::beside("phantomd")?;
    if UnixStream::connect(&config.socket).is_ok() {
        if !options.peers.is_empty() || options.listen.is_some() {
            bail!("a daemon answers at {}: nothing was changed\n  {}", config.socket.display(), whose.while_it_runs());
        }
        print(&format!("a daemon answers at {}: it is set up\nnext: phantom status\n", config.socket.display()))?;
        return Ok(0);
    }
    whose.listens_as_the_file_says(options, &folders)?;
    print(&(checks(&config, &phantomd)?.join("\n") + "\n"))?;
    let made = runtime.block_on(through(whose.init(&phantomd, options)?));
    let status = made.with_context(|| format!("starting {}", phantomd.display()))?;
    if status != 0 {
        return Ok(status);
    }
    if let Some(file) = config::file_to_write(&overrides, &folders).filter(|_| !options.peers.is_empty()) {
        add_peers(&file, &options.peers)?;
    }
    let knows_nobody = Config::load(&overrides, &folders)?.peers.is_empty();
    let looked = match (knows_nobody, options.offline) {
        (true, _) => {
            Ok("not known: there is nobody yet who could try; once there is, `phantom doctor` says it".to_owned())
        }
        (false, true) => Ok("not looked at; once it runs, `phantom doctor` says it, under `port`".to_owned()),
        (false, false) => runtime.block_on(reach::tried(whose, &phantomd, &super::beside("phantom")?))?,
    };
    if let Ok(looked) = &looked {
        print(&format!("reached        {looked}\n"))?;
    }
    if knows_nobody {
        print("it knows no other node yet: `phantom setup --peer phantom-peer:…` joins a network\n")?;
    }
    print(&format!("next: {}\n", whose.next()))?;
    Ok(looked.err().unwrap_or(0))
}

/// Runs a command to its end, which is also ours, however that comes: its exit status.
async fn through(command: Command) -> io::Result<u8> {
    let interrupted = interrupted();
    let mut running = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let status = tokio::select! {
        status = running.wait() => status?,
        status = interrupted => {
            running.kill().await?;
            return Ok(status);
        }
    };
    let ended = status.signal().map(|signal| 128 + signal);
    Ok(status.code().or(ended).and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
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
        Overrides { listen: options.listen, ..self.place() }
    }

    /// Where all of it lies, when that is not where everybody's does.
    fn place(self) -> Overrides {
        match self {
            Self::System(_) => Overrides {
                config: Some(SYSTEM_CONFIG.into()),
                data_dir: Some(SYSTEM_DATA.into()),
                socket: Some(SYSTEM_SOCKET.into()),
                ..Overrides::default()
            },
            Self::Own | Self::Others => Overrides::default(),
        }
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
        let overrides = self.overrides(options);
        if let Some(socket) = &overrides.socket {
            command.arg("--socket").arg(socket);
        }
        self.places(&mut command, &overrides);
        if let Some(listen) = overrides.listen {
            command.arg("--listen").arg(listen.to_string());
        }
        if options.accept_eula {
            command.arg("--accept-eula");
        }
        command.arg("--elsewhere").arg(self.elsewhere());
        Ok(command)
    }

    /// What helps where keys or configuration cannot be.
    fn elsewhere(self) -> &'static str {
        match self {
            Self::System(_) => "let that folder lead to another disk (a mount, or a link)",
            Self::Own | Self::Others => {
                "set XDG_STATE_HOME and XDG_CONFIG_HOME to folders elsewhere, for phantomd and phantom as well"
            }
        }
    }

    /// The daemon itself, as it was set up, but for its socket.
    fn daemon(self, phantomd: &Path, socket: &Path) -> Command {
        let mut command = Command::new(phantomd);
        command.arg("--socket").arg(socket);
        self.places(&mut command, &self.place());
        command
    }

    fn places(self, command: &mut Command, Overrides { config, data_dir, .. }: &Overrides) {
        for (option, path) in [("--config", config), ("--data-dir", data_dir)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        self.becomes(command);
    }

    /// Lets a command be that user's.
    fn becomes(self, command: &mut Command) {
        if let Self::System(Owner { uid, gid }) = self {
            command.uid(uid).gid(gid);
        }
    }

    /// What starts it.
    fn next(self) -> String {
        let installed = Installed::here();
        match self {
            Self::System(_) if installed.is_managed() => {
                "systemctl enable --now phantomd, then phantom status".to_owned()
            }
            Self::System(_) => {
                let unit = installed.unit().unwrap_or(SYSTEM_CONFIG);
                format!("phantomd as the user phantom, in the way of this computer's service manager: {unit} says how")
            }
            Self::Own | Self::Others if installed.manages_own() => {
                "systemctl --user enable --now phantomd, then phantom status".to_owned()
            }
            Self::Own | Self::Others => "phantomd, and in another terminal phantom status".to_owned(),
        }
    }
}

/// The same address with a port that is not the one which is taken.
fn another(listen: SocketAddr) -> SocketAddr {
    SocketAddr::new(listen.ip(), if listen.port() == 9443 { 10_443 } else { 9443 })
}

/// What was looked at, one line each.
///
/// # Errors
/// What no daemon could start with.
fn checks(config: &Config, phantomd: &Path) -> Result<Vec<String>> {
    let listen = config.listen;
    TcpListener::bind(listen).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use by another program\n  stop that, or choose another: phantom setup --listen {} \
             (the computer's daemon: listen in {SYSTEM_CONFIG})",
            listen.port(),
            another(listen)
        ),
        _ => StartError::Listen { addr: listen, source: error }.into(),
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
    let text = fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
    let lines: String =
        peers.iter().filter(|peer| !text.contains(&peer.to_string())).map(|p| format!("    \"{p}\",\n")).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let Some(text) = with_peers(&text, &lines) else {
        bail!("{} has peers in a form of its own: add yours there\npeers = [\n{lines}]", file.display());
    };
    write_over(file, &text).map_err(|error| cannot_write(file, &error))
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
    fn the_port_that_is_taken_is_not_what_is_proposed() {
        for taken in ["0.0.0.0:8443", "127.0.0.1:9443", "[::]:9443"] {
            let taken: SocketAddr = taken.parse().expect("an address");
            let proposed = another(taken);
            assert!(
                proposed.ip() == taken.ip() && proposed.port() != taken.port() && proposed.port() >= 1024,
                "{proposed}"
            );
        }
    }

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
            let options = Setup { peers: Vec::new(), listen, own: true, accept_eula: true, offline: true };
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
