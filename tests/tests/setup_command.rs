//! `phantom setup`, alone on a computer: what it makes, what it says, and when it makes nothing.
#![allow(missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::Folder;
use phantom_tests::{NODES, Network, Server, binary, eventually, signal, stdout};

/// Somebody's home; /etc and /run are those of a computer without the package.
struct Home(Folder);

impl Home {
    fn new() -> Result<Self> {
        Ok(Self(Folder::new()?))
    }

    /// A command among mounts of its own: `before` is done to them first.
    fn tool(&self, before: &str, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs tmpfs /run && {before} && exec \"$@\"");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.arg(binary(name)).args(words).stdin(Stdio::null());
        for variable in ["PHANTOM_SOCKET", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.0.at(""));
        command
    }

    fn setup(&self, before: &str, words: &[&str]) -> Result<Output> {
        Ok(self.tool(before, "phantom", &[&["setup", "--own"], words].concat()).output()?)
    }

    fn has_keys(&self) -> bool {
        fs::exists(self.0.at(".local/state/phantom/node.key")).unwrap_or(false)
    }
}

/// One that answers nowhere.
const PEER: &str = "phantom-peer:";

#[test]
fn setup_makes_what_a_first_start_needs_and_says_how_to_start() -> Result<()> {
    let home = Home::new()?;
    let said = stdout(&home.setup("true", &["--listen", "127.0.0.1:0", "--accept-eula"])?)?;
    for part in [
        "is free",
        "can be made",
        "node id",
        "there is nobody yet who could try",
        "knows no other node",
        "next: phantomd",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    ensure!(home.has_keys(), "no keys");
    // Again it changes nothing, and asks nobody.
    let key = fs::read(home.0.at(".local/state/phantom/node.key"))?;
    stdout(&home.setup("true", &[])?)?;
    ensure!(key == fs::read(home.0.at(".local/state/phantom/node.key"))?, "another key");
    // What it says to be next works.
    let mut daemon = home.tool("true", "phantomd", &[]).spawn()?;
    let pid = daemon.id();
    let inside = |words: &str| {
        let script = format!("nsenter --mount=/proc/{pid}/ns/mnt {} {words}", binary("phantom").display());
        Command::new("sh").args(["-c", &script]).env_remove("PHANTOM_SOCKET").env("HOME", home.0.at("")).output()
    };
    let answered = eventually(|| stdout(&inside("status")?));
    // While it runs, nothing is taken in without a word.
    let again = inside("setup --own --listen 127.0.0.1:9");
    daemon.kill()?;
    daemon.wait()?;
    answered?;
    let again = again?;
    ensure!(!again.status.success(), "{again:?}");
    ensure!(String::from_utf8_lossy(&again.stderr).contains("nothing was changed"), "{again:?}");
    Ok(())
}

#[test]
fn a_peer_is_kept_in_the_configuration() -> Result<()> {
    let (one, other) = (Home::new()?, Home::new()?);
    let made = stdout(&one.tool("true", "phantomd", &["init", "--listen", "127.0.0.1:9", "--accept-eula"]).output()?)?;
    let peer = made.split_whitespace().find(|word| word.starts_with(PEER)).unwrap_or_default().to_owned();
    for _ in 0..2 {
        let words = ["--listen", "127.0.0.1:0", "--accept-eula", "--offline", "--peer", &peer];
        let said = stdout(&other.setup("true", &words)?)?;
        ensure!(!said.contains("knows no other node") && said.contains("not looked at"), "{said}");
    }
    let config = fs::read_to_string(other.0.at(".config/phantom/phantomd.toml"))?;
    ensure!(config.matches(&peer).count() == 1, "{config}");
    Ok(())
}

/// Whether a daemon uses what was set up.
fn is_in_use(home: &Home) -> Result<bool> {
    let lock = fs::File::open(home.0.at(".local/state/phantom/lock"))?;
    Ok(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

#[test]
fn in_a_network_it_sees_that_others_reach_it_and_is_gone_afterwards() -> Result<()> {
    let network = Network::up(NODES)?;
    let peer = network.phantom(0, &["status"])?["peer"].as_str().context("no peer string")?.to_owned();
    let home = Home::new()?;
    let words = ["--listen", "127.241.1.1:0", "--accept-eula", "--peer", &peer];
    let said = stdout(&home.setup("true", &words)?)?;
    ensure!(said.contains("reached        other nodes have opened links to 127.241.1.1"), "{said}");
    ensure!(said.contains("next: phantomd") && !is_in_use(&home)?, "{said}");
    Ok(())
}

#[test]
fn where_nobody_answers_it_says_so_and_who_says_it_later() -> Result<()> {
    let (one, other) = (Home::new()?, Home::new()?);
    let made = stdout(&one.tool("true", "phantomd", &["init", "--listen", "127.0.0.1:9", "--accept-eula"]).output()?)?;
    let peer = made.split_whitespace().find(|word| word.starts_with(PEER)).unwrap_or_default().to_owned();
    let words = ["setup", "--own", "--listen", "127.242.1.1:0", "--accept-eula", "--peer", &peer];
    let said = stdout(&other.tool("true", "phantom", &words).output()?)?;
    for part in ["not known yet: nodes connected: 0", "is online", "`phantom doctor` says it", "next: phantomd"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    // Whoever does not want to wait does not: what was made stays, and nothing runs on.
    let again = other.tool("true", "phantom", &words);
    let (mut waiting, heard) = heard_until(again, "trying ")?;
    signal(i32::try_from(waiting.id())?, libc::SIGINT);
    let status = waiting.wait()?;
    let rest = heard.join().map_err(|_| anyhow::anyhow!("no reader"))?;
    ensure!(status.code() == Some(130) && rest.contains("next: phantomd"), "{status}: {rest}");
    ensure!(!is_in_use(&other)?, "a daemon was left");
    Ok(())
}

/// A command that has said a line which begins so, and whoever reads the rest.
fn heard_until(mut command: Command, line: &str) -> Result<(Server, JoinHandle<String>)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    let found = lines.by_ref().any(|said| said.is_ok_and(|said| said.starts_with(line)));
    let rest = std::thread::spawn(move || lines.map_while(std::result::Result::ok).collect::<Vec<_>>().join("\n"));
    let server = Server::from(child);
    ensure!(found, "{line} was not said");
    Ok((server, rest))
}

#[test]
fn without_agreement_or_port_nothing_is_made() -> Result<()> {
    let home = Home::new()?;
    let refused = home.setup("true", &["--listen", "127.0.0.1:0"])?;
    ensure!(refused.status.code() == Some(3), "{refused:?}");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("phantom setup --accept-eula"), "{refused:?}");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let refused = home.setup("true", &["--listen", &taken.local_addr()?.to_string(), "--accept-eula"])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("in use by another program"), "{refused:?}");
    let refused = home.setup("true", &["--listen", "192.0.2.7:8443", "--accept-eula"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(1) && said.contains("no network device of this computer has that"), "{said}");
    ensure!(!home.has_keys(), "keys were made");
    Ok(())
}

#[test]
fn a_computer_without_namespaces_is_told_what_it_gets() -> Result<()> {
    let home = Home::new()?;
    let no_tun = "mount --bind /dev/null /dev/net/tun";
    let said = stdout(&home.setup(no_tun, &["--listen", "127.0.0.1:0", "--accept-eula"])?)?;
    ensure!(said.contains("programs get emulated sockets"), "{said}");
    Ok(())
}

/// phantomd's own hint names an option that `phantom setup` has not.
#[test]
fn where_nothing_can_be_made_it_says_what_helps_and_that_does() -> Result<()> {
    let home = Home::new()?;
    let (at, words) = (home.0.at(""), ["--listen", "127.0.0.1:0", "--accept-eula", "--offline"]);
    let elsewhere = "mkdir /run/elsewhere && export XDG_STATE_HOME=/run/elsewhere/state";
    for (before, says) in [
        (format!("mount -t tmpfs -o ro tmpfs '{at}'"), "Read-only file system"),
        (format!("mount -t tmpfs -o size=1m tmpfs '{at}'"), "is full"),
        ("export HOME=/proc/home".to_owned(), "No such file or directory"),
        (format!("{elsewhere} && mount -t tmpfs -o ro tmpfs '{at}'"), "phantomd.toml: Read-only file system"),
    ] {
        let output = home.setup(&before, &words)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1) && said.contains(says), "{before}: {}: {said}", output.status);
        ensure!(said.contains("set XDG_STATE_HOME and XDG_CONFIG_HOME") && !said.contains("--data-dir"), "{said}");
    }
    let both = format!("{elsewhere} XDG_CONFIG_HOME=/run/elsewhere/config && mount -t tmpfs -o ro tmpfs '{at}'");
    ensure!(stdout(&home.setup(&both, &words)?)?.contains("/run/elsewhere/state/phantom"), "it is made elsewhere");
    ensure!(!home.has_keys(), "keys were made");
    Ok(())
}
