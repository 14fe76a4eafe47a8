//! The system's daemon as a service has it: a user of its own with four capabilities, at the place where all look; beside it
//! the daemon of one user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use phantom_tests::programs::Folder;
use phantom_tests::{Server, Way, binary, eventually, stdout};

/// Whose the service is, and two ordinary users: numbers that no account has.
const SERVICE: &str = "64201";
const ALICE: &str = "64202";
const BOB: &str = "64203";

/// What the unit gives.
const CAPABILITIES: &str = "+sys_admin,+net_admin,+setuid,+setgid";

/// A connection to itself by the identity's network, and who says so.
const TALKS: &str = "
import os, socket
s = socket.create_server(('127.0.0.1', 0))
c = socket.create_connection(s.getsockname(), timeout=60)
a, _ = s.accept()
c.sendall(b'heard')
print(os.getuid(), a.recv(5).decode())
";

/// A computer's /run of our own, with folders as the service manager makes them, and the device as udev does.
struct Computer {
    folder: Folder,
    holder: Server,
    _daemons: Vec<Server>,
}

impl Computer {
    fn start() -> Result<Self> {
        let folder = Folder::new()?;
        for name in ["phantom", "phantomd", "phantom-run", "libphantom.so"] {
            fs::copy(binary(name), folder.at(name))?;
        }
        let mut holder = Command::new("unshare");
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run && mknod -m 666 /run/tun c 10 200 && mount --bind /run/tun /dev/net/tun && \
             install -d -m 755 -o {SERVICE} -g {SERVICE} /run/phantom && \
             install -d -m 755 /run/user && install -d -m 700 -o {ALICE} -g {ALICE} /run/user/{ALICE} && \
             install -d -m 700 -o {BOB} -g {BOB} /run/user/{BOB} && echo made && exec sleep infinity"
        );
        holder.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let (holder, line) = Server::start_first_line(&mut holder)?;
        ensure!(line == "made", "no /run: {line}");
        Ok(Self { folder, holder, _daemons: Vec::new() })
    }

    /// A program as that user, among the mounts of this computer, with nothing of our environment that names a daemon.
    fn program(&self, user: &str, capabilities: &str, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.args(["--", "setpriv", "--reuid", user, "--regid", user, "--clear-groups"]);
        if user != "0" {
            command.args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")]);
        }
        command.args(words).env_remove("PHANTOM_SOCKET").env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null());
        command
    }

    fn tool(&self, user: &str, name: &str, words: &[&str]) -> Command {
        let name = self.folder.at(name);
        self.program(user, "-all", &[&[name.as_str()], words].concat())
    }

    fn daemon(&mut self, user: &str, capabilities: &str, more: &[&str]) -> Result<()> {
        let home = self.folder.at(&format!("home-{user}"));
        fs::create_dir(&home)?;
        std::os::unix::fs::chown(&home, Some(user.parse()?), Some(user.parse()?))?;
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        let daemon = self.folder.at("phantomd");
        let mut command =
            self.program(user, capabilities, &[&[&*daemon, "--listen", "127.0.0.1:0", "--accept-eula"], more].concat());
        command.env("HOME", &home).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        let child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self._daemons.push(Server::from(child));
        Ok(())
    }

    fn service(&mut self) -> Result<()> {
        self.daemon(SERVICE, CAPABILITIES, &["--socket", "/run/phantom/daemon.sock"])?;
        eventually(|| stdout(&self.tool("0", "phantom", &["status"]).output()?))?;
        Ok(())
    }

    /// Which socket the daemon says that it has, whom the user's `phantom` finds without an option.
    fn finds(&self, user: &str) -> Result<String> {
        let said = stdout(&self.tool(user, "phantom", &["--json", "address", "list"]).output()?)?;
        Ok(said.trim().to_owned())
    }

    fn runs(&self, user: &str, way: Way, options: &[&str]) -> Result<String> {
        let words = [&["--quiet", "--isolation", way.flag()], options, &["--", "python3", "-c", TALKS]].concat();
        stdout(&self.tool(user, "phantom-run", &words).output()?)
    }
}

#[test]
fn a_service_that_is_not_root_serves_root_and_every_user() -> Result<()> {
    let mut computer = Computer::start()?;
    computer.service()?;
    stdout(&computer.tool("0", "phantom", &["address", "new", "web"]).output()?)?;
    for way in Way::ALL {
        for user in [ALICE, BOB] {
            let said = computer.runs(user, way, &[])?;
            ensure!(said == format!("{user} heard\n"), "{way:?}: {said}");
        }
        let said = computer.runs("0", way, &["--identity", "web"])?;
        ensure!(said == "0 heard\n", "root by {way:?}: {said}");
    }
    // Names, and commands, are the service's own and root's.
    for words in [&["address", "list"][..], &["stop"]] {
        let refused = computer.tool(ALICE, "phantom", words).output()?;
        ensure!(!refused.status.success(), "{words:?}: {refused:?}");
    }
    let refused = computer.tool(ALICE, "phantom-run", &["--identity", "web", "true"]).output()?;
    ensure!(!refused.status.success(), "{refused:?}");
    Ok(())
}

#[test]
fn a_user_with_a_daemon_of_their_own_finds_that_and_all_others_the_systems() -> Result<()> {
    let mut computer = Computer::start()?;
    computer.service()?;
    computer.daemon(ALICE, "-all", &[])?;
    eventually(|| computer.finds(ALICE))?;
    stdout(&computer.tool(ALICE, "phantom", &["address", "new", "hers"]).output()?)?;
    ensure!(computer.finds(ALICE)?.contains("hers"), "alice does not find her own");
    ensure!(!computer.finds("0")?.contains("hers"), "root finds alice's");
    // Hers knows that name; the system's, which Bob finds, serves him without one.
    let run = |user, options: &[&str]| computer.runs(user, Way::Emulate, options);
    ensure!(run(ALICE, &["--identity", "hers"])? == format!("{ALICE} heard\n"));
    ensure!(run(BOB, &[])? == format!("{BOB} heard\n"));
    ensure!(run(BOB, &["--identity", "hers"]).is_err(), "bob is somebody else's identity");
    Ok(())
}
