//! The system's daemon as a service has it: a user of its own with four capabilities, at the place where all look; beside it
//! the daemon of one user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
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
    // Commands about the node are the service's own and root's, and so is root's name.
    for words in [&["status"][..], &["path", "list"], &["forward"], &["stop"]] {
        let refused = computer.tool(ALICE, "phantom", words).output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && said.contains("only root"), "{words:?}: {refused:?}");
    }
    // What she can do instead is said.
    for (words, says) in [
        (
            &["forward", "80=127.0.0.1:8080", "--identity", "web"][..],
            "--publish 80:web --allow-local 8080 socat TCP6-LISTEN:80",
        ),
        (&["serve", "/etc"], "--publish 80 python3 -m http.server 80"),
        (&["status"], "`phantom-run` and `phantom identity` work without"),
    ] {
        let refused = computer.tool(ALICE, "phantom", words).output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(said.contains("only root") && said.contains(says), "{words:?}: {said}");
    }
    // It serves her all the same, and what she lacks herself is nothing that it needs.
    let doctor = computer.tool(ALICE, "phantom", &["doctor"]).output()?;
    let said = stdout(&doctor)?;
    ensure!(said.contains("it answers at") && said.contains("only root may ask") && !said.contains("BAD"), "{said}");
    ensure!(!said.contains("emulated"), "{said}");
    let refused = computer.tool(ALICE, "phantom-run", &["--identity", "web", "true"]).output()?;
    ensure!(!refused.status.success(), "{refused:?}");
    Ok(())
}

/// Where it is reached: an identity knows itself by its name.
const WHO: &str = "
import socket
print(socket.getaddrinfo('web', 1, socket.AF_INET6)[0][4][0])
";

#[test]
fn each_user_of_the_service_has_lasting_names_of_their_own() -> Result<()> {
    let mut computer = Computer::start()?;
    computer.service()?;
    let address = |user: &str, words: &[&str]| -> Result<String> {
        let shown = stdout(&computer.tool(user, "phantom", &[&["--json"], words].concat()).output()?)?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        Ok(shown["address"].as_str().context("no address")?.to_owned())
    };
    let users = ["0", ALICE, BOB];
    let made = users.iter().map(|user| address(user, &["address", "new", "web"])).collect::<Result<Vec<_>>>()?;
    ensure!(made[0] != made[1] && made[1] != made[2] && made[0] != made[2], "{made:?}");
    for (user, made) in users.iter().zip(&made) {
        let listed = computer.finds(user)?;
        ensure!(listed.contains(made) && listed.matches("\"address\"").count() == 1, "{user} sees {listed}");
        for way in Way::ALL {
            let words = ["--quiet", "--isolation", way.flag(), "--identity", "web", "--", "python3", "-c", WHO];
            let said = stdout(&computer.tool(user, "phantom-run", &words).output()?)?;
            ensure!(said.trim() == made, "{user} by {way:?}: {said}, not {made}");
        }
    }
    // A name that is published at is made, hers alone; her copy is of no use to Bob while she has it.
    let words = ["--quiet", "--publish", "80:shop", "--", "true"];
    stdout(&computer.tool(ALICE, "phantom-run", &words).output()?)?;
    let shop = address(ALICE, &["address", "show", "shop"])?;
    for other in ["0", BOB] {
        ensure!(address(other, &["address", "show", "shop"]).is_err(), "{other} has alice's name");
    }
    let passphrase = computer.folder.write("passphrase", "correct horse battery\n")?;
    let copy = format!("{}/shop", computer.folder.make("copies")?);
    let export = ["identity", "export", "shop", &copy, "--passphrase-file", &passphrase];
    stdout(&computer.tool(ALICE, "phantom", &export).output()?)?;
    std::os::unix::fs::chown(&copy, Some(BOB.parse()?), None)?;
    let import = ["identity", "import", &copy, "--passphrase-file", &passphrase];
    let refused = computer.tool(BOB, "phantom", &import).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("somebody else on this computer") && !said.contains("shop"), "{said}");
    eventually(|| stdout(&computer.tool(ALICE, "phantom", &["identity", "remove", "shop", "--yes"]).output()?))?;
    ensure!(address(BOB, &import)? == shop, "it is Bob's now");
    Ok(())
}

/// Every program says the same of a service that is stopped, and what starts it is not what starts one's own.
#[test]
fn where_the_service_is_stopped_its_manager_is_named() -> Result<()> {
    let computer = Computer::start()?;
    let has_service = "mkdir -p /run/systemd/system && mount -t tmpfs tmpfs /etc/systemd && mkdir /etc/systemd/system && \
                       : >/etc/systemd/system/phantomd.service";
    stdout(&computer.program("0", "-all", &["sh", "-c", has_service]).output()?)?;
    let home = computer.folder.make("home-of-nobody")?;
    for (user, starts) in
        [("0", "start the computer's: `systemctl start phantomd`"), (ALICE, "`sudo systemctl start phantomd`")]
    {
        for (name, words) in [
            ("phantom", &["status"][..]),
            ("phantom", &["forward"]),
            ("phantom", &["doctor"]),
            ("phantom-run", &["true"]),
        ] {
            let output = computer.tool(user, name, words).env("HOME", &home).output()?;
            let said = [&output.stdout[..], &output.stderr].concat();
            let said = String::from_utf8(said)?;
            ensure!(
                !output.status.success() && said.contains("no daemon answers at /run/"),
                "{user} {name} {words:?}: {said}"
            );
            ensure!(said.contains(starts), "{user} {name} {words:?}: {said}");
            ensure!(!said.contains("emulated"), "what she lacks herself is nothing that it needs: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_user_with_a_daemon_of_their_own_finds_that_and_all_others_the_systems() -> Result<()> {
    let mut computer = Computer::start()?;
    computer.service()?;
    computer.daemon(ALICE, "-all", &[])?;
    // The system's answers about names too, and not this.
    eventually(|| stdout(&computer.tool(ALICE, "phantom", &["status"]).output()?))?;
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
