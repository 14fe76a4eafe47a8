//! `phantom setup`, alone on a computer: what it makes, what it says, and when it makes nothing.
#![allow(missing_docs)]

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use phantom_tests::programs::Folder;
use phantom_tests::{binary, eventually, stdout};

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
    for part in ["is free", "can be made", "node id", "knows no other node", "next: phantomd"] {
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
        let said = stdout(&other.setup("true", &["--listen", "127.0.0.1:0", "--accept-eula", "--peer", &peer])?)?;
        ensure!(!said.contains("knows no other node"), "{said}");
    }
    let config = fs::read_to_string(other.0.at(".config/phantom/phantomd.toml"))?;
    ensure!(config.matches(&peer).count() == 1, "{config}");
    Ok(())
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
