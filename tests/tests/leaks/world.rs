//! The world that hostile programs live in: a network with a way to everywhere, services to abuse, processes to rob.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Server, stdout};

/// Somewhere for leaks to go, so that they are seen on `wan`; services where programs look for them; settings that ask
/// the world for names.
const WORLD: &str = "
set -e
ip link set lo up
ip link add wan type veth peer name far
ip link set wan addrgenmode none
ip link set far addrgenmode none
ip link set wan up
ip link set far up
ip addr add 203.0.113.5/24 dev wan
ip -6 addr add 2001:db8::5/64 dev wan nodad
ip neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev wan
ip -6 neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev wan
ip -6 neigh add fe80::1 lladdr 02:00:00:00:00:01 dev wan
ip route add default via 203.0.113.1
ip -6 route add default via 2001:db8::1
mount --make-rprivate /
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/nscd /run/systemd/resolve /run/dbus /run/avahi-daemon /run/user/0 /run/phantom
mkdir -p /run/user/4242/systemd /run/user/4242/phantom /run/user/4242/gnupg /run/screen/S-root
touch /run/owned-user /run/owned-net
mount --bind /run /srv
chown -R 4242:4242 /run/user/4242
mknod /run/tun c 10 200
chmod 666 /run/tun
mount --bind /run/tun /dev/net/tun
printf 'nameserver 203.0.113.1\\nsearch leak.test\\n' >/run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
";

/// Services that would send packets for whoever asks, at the places where they are known to be; one abstract, one that
/// passes a socket, one that nobody has heard of.
const SERVICES: [&str; 18] = [
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/avahi-daemon/socket",
    "/run/docker.sock",
    "/run/user/0/bus",
    "/run/user/4242/bus",
    "/run/user/4242/systemd/private",
    "/run/user/4242/phantom/daemon.sock",
    "/run/phantom/daemon.sock",
    "/run/user/4242/gnupg/S.dirmngr",
    "/run/screen/S-root/1.tty",
    "/run/odd-bus.sock",
    "/run/unheard-of.sock",
    "@phantom-leaks",
    "+/run/giver.sock",
    "/run/never-asked.sock",
];

/// The one that passes a socket, in the file system. Nobody who listens is within reach but by its user's word.
pub(crate) const GIVER: &str = "/run/giver.sock";

/// Where a program's environment says that its bus is.
pub(crate) const BUS: (&str, &str) = ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/odd-bus.sock,guid=0");

/// The user that nobody is.
const NOBODY: &str = "65534";

/// An ordinary user; the directories for it are those above.
pub(crate) const ORDINARY: &str = "4242";

/// Moves this thread, and whatever it starts, into networks and mounts of its own.
fn enter() -> Result<()> {
    // SAFETY: unshare(2) takes flags only; it concerns this thread's network and mounts, and nothing else.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    ensure!(entered == 0, "no namespaces (these tests want root): {}", std::io::Error::last_os_error());
    stdout(&Command::new("sh").args(["-c", WORLD]).output()?)?;
    Ok(())
}

/// A process that others may try to rob.
pub(crate) struct Victim {
    child: Child,
    /// Its first line: where its number lies.
    pub(crate) said: String,
}

impl Victim {
    /// Starts one and waits for its first line.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut said)?;
        let said = said.trim().to_owned();
        ensure!(!said.is_empty(), "a victim did not start: {command:?}");
        Ok(Self { child, said })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Its input ends with the pipe.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// How the hostile program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    /// With the C library of the system, as most are.
    Dynamic,
    /// With it, statically.
    Static,
    /// With musl, statically.
    Musl,
}

/// Words before a command that make it that user's.
pub(crate) fn as_user(user: &str) -> [&str; 6] {
    ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
}

/// The world, with this thread in it.
pub(crate) struct World {
    /// Where its programs lie; everybody may read there.
    pub(crate) programs: tempfile::TempDir,
    /// Who runs them.
    user: &'static str,
    victim: Victim,
    poor: Victim,
    _owner: Victim,
    _services: Server,
}

impl World {
    /// Makes it, for programs of a user.
    pub(crate) fn make(user: &'static str) -> Result<Self> {
        enter()?;
        let programs = tempfile::tempdir()?;
        // The victim of another user lies there too.
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755))?;
        for linked in [Linked::Dynamic, Linked::Static, Linked::Musl] {
            compile(programs.path(), linked)?;
        }
        cc("cc", &["-shared", "-fPIC"], &["plug"], &programs.path().join("hostile.plug"))?;
        let outside = programs.path().join("outside");
        cc("cc", &["-no-pie"], &["outside"], &outside)?;
        let victim = |user| {
            let mut command = Command::new("setpriv");
            command.args(&as_user(user)[1..]).arg(&outside).arg("victim");
            Victim::start(command)
        };
        let (poor, victim) = (victim(NOBODY)?, victim(user)?);
        let owner = owner_of_namespaces(user, &outside)?;
        let mut services = Command::new(&outside);
        services.arg("serve").args(SERVICES);
        let services = Server::start_until(services, "ready")?;
        Ok(Self { programs, user, victim, poor, _owner: owner, _services: services })
    }

    /// The hostile program and its arguments; `control` is the socket of the daemon that is to be robbed.
    pub(crate) fn hostile(&self, linked: Linked, control: &Path, other: &Path) -> Vec<String> {
        let program = |linked| self.programs.path().join(file(linked)).display().to_string();
        vec![
            program(linked),
            format!("victim={}", self.victim.child.id()),
            format!("poor={}", self.poor.child.id()),
            format!("flag={}", self.victim.said),
            format!("twin={}", program(Linked::Static)),
            format!("control={}", control.display()),
            format!("other={}", other.display()),
            "abstract=phantom-leaks".into(),
            format!("giver={GIVER}"),
        ]
    }

    /// The same program with descriptors of all kinds open that it did not ask for.
    pub(crate) fn holding(&self, program: &Command) -> Command {
        let mut command = Command::new(self.programs.path().join("outside"));
        command.args(["hold", self.user]).arg(self.victim.child.id().to_string());
        command.arg(program.get_program()).args(program.get_args());
        command.env(BUS.0, BUS.1);
        // Nobody answers in this world: one short question each.
        command.env("RES_OPTIONS", "timeout:1 attempts:1").envs(program.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command
    }
}

/// A process of the user's in namespaces of its own, as those of containers are, which lie in the file system too.
fn owner_of_namespaces(user: &str, outside: &Path) -> Result<Victim> {
    let mut command = Command::new("setpriv");
    command.args(&as_user(user)[1..]).args(["unshare", "--user", "--net", "--map-root-user"]);
    let owner = Victim::start({
        command.arg(outside).arg("victim");
        command
    })?;
    for kind in ["user", "net"] {
        let from = format!("/proc/{}/ns/{kind}", owner.child.id());
        stdout(&Command::new("mount").args(["--bind", &from, &format!("/run/owned-{kind}")]).output()?)?;
    }
    Ok(owner)
}

fn file(linked: Linked) -> &'static str {
    match linked {
        Linked::Dynamic => "hostile",
        Linked::Static => "hostile-static",
        Linked::Musl => "hostile-musl",
    }
}

fn compile(folder: &Path, linked: Linked) -> Result<()> {
    let sources = ["main", "wire", "sends", "names", "calls", "children", "doors", "asked"];
    let program = folder.join(file(linked));
    match linked {
        Linked::Dynamic => cc("cc", &["-no-pie", "-lresolv", "-ldl", "-lanl"], &sources, &program),
        Linked::Static => cc("cc", &["-DSTATIC", "-static", "-lresolv"], &sources, &program),
        // The kernel's headers, which musl leaves to others.
        Linked::Musl => {
            let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
            let headers = ["-DSTATIC", "-static", "-idirafter", "/usr/include", "-idirafter", &multiarch];
            cc("musl-gcc", &headers, &sources, &program)
        }
    }
}

fn cc(compiler: &str, flags: &[&str], sources: &[&str], program: &Path) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile");
    let sources: Vec<PathBuf> = sources.iter().map(|name| folder.join(name).with_extension("c")).collect();
    let mut command = Command::new(compiler);
    // It speaks as the daemon does, so that nothing but the daemon's rules refuses it.
    let dialect = format!("-DDIALECT={}", phantom_ipc::VERSION);
    command.args(["-std=gnu11", "-O1", "-w", &dialect, "-o"]).arg(program).args(sources).args(flags);
    stdout(&command.output().with_context(|| format!("{compiler} is missing: run scripts/setup"))?)?;
    Ok(())
}
