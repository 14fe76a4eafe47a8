//! Daemons without a network, one for each kind of user: enough for what concerns a program and its computer alone.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;

use crate::programs::Folder;
use crate::{Server, User, Way, binary, eventually, signal, stdout};

/// Whose daemon serves whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Root's serves root.
    Root,
    /// Root's serves an ordinary user.
    OfRoots,
    /// An ordinary user's own.
    Own,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Root, Self::OfRoots, Self::Own];
}

/// What a program can do without anybody in sight: ask for a name, and reach itself.
pub const SELF: &str = "
import socket
try: socket.getaddrinfo('nobody.phantom', 80)
except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)
server = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)
client = socket.create_connection(('127.0.0.1', server.getsockname()[1])); server.accept()[0].sendall(b'self')
print(client.recv(4).decode())
";

/// A command under mounts of its own, which a script changes before.
#[must_use]
pub fn with_mounts(script: &str, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "--propagation", "private", "sh", "-c", &format!("set -e; {script}; exec \"$@\""), "sh"]);
    unshare.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare
}

/// A command as in a container without capabilities.
#[must_use]
pub fn confined(command: &Command) -> Command {
    let mut confined = Command::new("setpriv");
    confined.args(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--"]);
    confined.arg(command.get_program()).args(command.get_args());
    confined
}

/// Enters a user namespace in which every user is who they are outside; a copy that stays outside says who is who.
const EVERYBODY: &str = "
import ctypes, os, sys
entered, enter = os.pipe(); known, know = os.pipe()
own = os.getpid(); copy = os.fork()
if copy == 0:
    os.read(entered, 1)
    for of in ('uid', 'gid'): open(f'/proc/{own}/{of}_map', 'w').write('0 0 65536')
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(enter, b'x')
assert os.waitpid(copy, 0)[1] == 0
os.execvp(sys.argv[1], sys.argv[1:])
";

/// Ubuntu's rule of AppArmor, containers: nobody may make namespaces. All ways but the first can do without.
const UNABLE: &str =
    "for kind in user mnt net uts; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; exec \"$@\"";

/// A command in a user namespace of its own, in which root and all users are there: who becomes an ordinary one in it has no
/// capability, and a bounding set that nobody has cut, as after every login.
#[must_use]
pub fn among_all_users(command: &Command) -> Command {
    let mut among = Command::new("python3");
    among.args(["-c", EVERYBODY]).arg(command.get_program()).args(command.get_args());
    among
}

/// A command as where nobody may make namespaces.
#[must_use]
pub fn unable(command: &Command) -> Command {
    let mut unable = Command::new("sh");
    unable.args(["-c", UNABLE, "sh"]).arg(command.get_program()).args(command.get_args());
    among_all_users(&unable)
}

/// Two daemons that know nobody: root's, and an ordinary user's.
pub struct Alone {
    user: User,
    /// Where the tests of one file may put things that every user reads.
    pub folder: Folder,
    daemons: [Option<Server>; 2],
}

impl Alone {
    /// Those that the tests of one file share; the last of them stops them.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Alone>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alone) = shared.upgrade() {
            return Ok(alone);
        }
        let alone = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&alone);
        Ok(alone)
    }

    /// An ordinary user's own alone, where none may open `/dev/net/tun`.
    pub fn without_tun() -> Result<Self> {
        let (user, folder) = (User::new()?, Folder::new()?);
        let mut alone = Self { user, folder, daemons: [None, None] };
        let command = alone.user.with_tun_of("600", "phantomd");
        alone.start_by(Kind::Own, command)?;
        Ok(alone)
    }

    /// Root's alone, in a container without capabilities.
    pub fn without_capabilities() -> Result<Self> {
        let (user, folder) = (User::new()?, Folder::new()?);
        let mut alone = Self { user, folder, daemons: [None, None] };
        let command = confined(&Command::new(binary("phantomd")));
        alone.start_by(Kind::Root, command)?;
        Ok(alone)
    }

    /// Started, and answering.
    pub fn start() -> Result<Self> {
        let (user, folder) = (User::new()?, Folder::new()?);
        let mut alone = Self { user, folder, daemons: [None, None] };
        alone.start_daemon(Kind::Root)?;
        alone.start_daemon(Kind::Own)?;
        Ok(alone)
    }

    /// Starts the daemon of these users, which does not run.
    pub fn start_daemon(&mut self, kind: Kind) -> Result<()> {
        let command = match kind {
            Kind::Own => self.user.with_tun("phantomd"),
            _ => Command::new(binary("phantomd")),
        };
        self.start_by(kind, command)
    }

    fn start_by(&mut self, kind: Kind, mut command: Command) -> Result<()> {
        let home = self.home(kind);
        if !home.exists() {
            std::fs::create_dir(&home)?;
            let mode = if kind == Kind::Own { 0o700 } else { 0o711 };
            std::fs::set_permissions(&home, std::fs::Permissions::from_mode(mode))?;
            if kind == Kind::Own {
                self.user.owns(&home)?;
            }
        }
        command.arg("--data-dir").arg(home.join("data")).arg("--socket").arg(self.socket(kind));
        command.args(["--listen", "127.0.0.1:0", "--accept-eula"]).env("HOME", &home).env_remove("XDG_CONFIG_HOME");
        let daemon = Server::from(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        self.daemons[usize::from(kind == Kind::Own)] = Some(daemon);
        eventually(|| stdout(&self.tool(kind, "phantom").arg("status").output()?))?;
        Ok(())
    }

    /// The process of the daemon of these users, if one was started.
    pub fn daemon(&self, kind: Kind) -> Option<u32> {
        self.daemons[usize::from(kind == Kind::Own)].as_ref().map(|one| one.id())
    }

    /// Ends the daemon of these users.
    pub fn stop_daemon(&mut self, kind: Kind) {
        self.daemons[usize::from(kind == Kind::Own)] = None;
    }

    /// Kills the daemon of these users, which leaves its socket lying there.
    pub fn kill_daemon(&mut self, kind: Kind) {
        if let Some(pid) =
            self.daemons[usize::from(kind == Kind::Own)].as_ref().and_then(|one| one.id().try_into().ok())
        {
            signal(pid, libc::SIGKILL);
        }
        self.stop_daemon(kind);
    }

    fn home(&self, kind: Kind) -> PathBuf {
        self.folder.at(if kind == Kind::Own { "own" } else { "root" }).into()
    }

    /// The local socket of their daemon.
    pub fn socket(&self, kind: Kind) -> PathBuf {
        self.home(kind).join("daemon.sock")
    }

    /// Any program as such a user, outside Phantom.
    pub fn command(&self, kind: Kind, program: &str) -> Command {
        match kind {
            Kind::Root => Command::new(program),
            Kind::OfRoots | Kind::Own => self.user.command(program),
        }
    }

    /// One of our own, as such a user, speaking to their daemon.
    pub fn tool(&self, kind: Kind, name: &str) -> Command {
        let mut command = match kind {
            Kind::Root => Command::new(binary(name)),
            Kind::OfRoots | Kind::Own => self.user.tool(name),
        };
        command.arg("--daemon").arg(self.socket(kind)).stdin(Stdio::null());
        command
    }

    /// A program under `phantom-run` as such a user; quiet.
    pub fn run(&self, kind: Kind, way: Way, program: &[&str]) -> Command {
        let mut command = self.tool(kind, "phantom-run");
        command.args(["--quiet", "--isolation", way.flag(), "--"]).args(program);
        command
    }

    /// One of our own, as [`Self::tool`] has it, as in a container without capabilities. The user's own words go before: who is
    /// confined cannot become somebody else.
    pub fn confined(&self, kind: Kind, run: &Command) -> Command {
        if kind == Kind::Root {
            return confined(run);
        }
        let words: Vec<_> = run.get_args().collect();
        let from = words.iter().position(|word| *word == "--").map_or(0, |at| at + 1);
        let mut inner = Command::new(words[from]);
        inner.args(&words[from + 1..]);
        let confined = confined(&inner);
        let mut command = self.command(kind, "setpriv");
        command.args(confined.get_args());
        command
    }

    /// Does something for every kind of user and every way; the error says for which.
    pub fn everywhere(&self, test: impl Fn(Kind, Way) -> Result<()>) -> Result<()> {
        for kind in Kind::ALL {
            for way in Way::ALL {
                if let Err(error) = test(kind, way) {
                    return Err(error.context(format!("{kind:?} by {way:?}")));
                }
            }
        }
        Ok(())
    }
}
