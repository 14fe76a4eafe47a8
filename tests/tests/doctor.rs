//! What a daemon says of itself: warnings in status, log and doctor are the same ones, and come and go with what they are about.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::scripted::Scripted;
use phantom_tests::{Network, SERVER, Server, Way, binary, eventually, phantom_run, signal};
use serde_json::{Value, json};

/// What `phantom doctor --json` says, and its exit status.
fn doctor(socket: &Path) -> Result<(Value, i32)> {
    let output = Command::new(binary("phantom")).arg("--daemon").arg(socket).args(["doctor", "--json"]).output()?;
    Ok((serde_json::from_slice(&output.stdout)?, output.status.code().context("no exit status")?))
}

fn state<'a>(doctor: &'a Value, check: &str) -> Option<&'a str> {
    let checks = doctor["checks"].as_array()?;
    checks.iter().find(|one| one["name"] == check)?["state"].as_str()
}

/// A daemon in a folder of its own that writes its log beside it.
fn daemon(folder: &Path, host: &str, peer: Option<&str>) -> Result<Server> {
    fs::create_dir(folder)?;
    let log = fs::File::create(folder.join("log"))?;
    let mut command = Command::new(binary("phantomd"));
    command.args(["--accept-eula", "--listen", &format!("{host}:0"), "--data-dir"]).arg(folder);
    command.args(peer.map(|peer| ["--peer", peer]).into_iter().flatten());
    Ok(Server::from(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?))
}

fn status(folder: &Path) -> Result<Value> {
    let socket = folder.join("daemon.sock");
    let output = Command::new(binary("phantom")).arg("--daemon").arg(socket).args(["status", "--json"]).output()?;
    Ok(serde_json::from_str(&phantom_tests::stdout(&output)?)?)
}

/// Codes of the warnings that are no other's effect.
fn roots(said: &Value) -> Vec<String> {
    let warnings = said["warnings"].as_array().into_iter().flatten();
    let roots = warnings.filter(|one| one["caused_by"].is_null());
    roots.filter_map(|one| one["code"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_node_of_a_network_is_well_and_without_a_daemon_it_is_said() -> Result<()> {
    let network = Network::shared()?;
    let (said, _) = doctor(&network.nodes[SERVER].socket)?;
    for check in ["daemon", "state-folder", "port", "peers", "sample", "guards", "paths"] {
        ensure!(state(&said, check) == Some("good"), "{check}: {said}");
    }
    eventually(|| {
        let (said, _) = doctor(&network.nodes[SERVER].socket)?;
        ensure!(state(&said, "own-record") == Some("good"), "{said}");
        Ok(())
    })?;
    // How a machine keeps programs in is its own; whatever else is not well has no part in the exit status here.
    let weaker = state(&said, "user-namespaces") == Some("warning");
    let (said, code) = doctor(&network.nodes[SERVER].socket)?;
    ensure!(code == i32::from(weaker), "{code}: {said}");
    let status = network.phantom(SERVER, &["status"])?;
    ensure!(status["start"].as_array().is_some_and(|steps| steps.iter().all(|step| step["done"] == true)), "{status}");
    let (said, code) = doctor(Path::new("/nonexistent/daemon.sock"))?;
    ensure!(code == 2 && state(&said, "daemon") == Some("bad"), "{code}: {said}");
    Ok(())
}

/// Whoever tries to ask from a shell under phantom-run would else start a second daemon, or look for a fault.
#[test]
fn under_phantom_run_commands_say_that_no_daemon_can_be_asked_there() -> Result<()> {
    let network = Network::shared()?;
    let (socket, phantom) = (&network.nodes[SERVER].socket, binary("phantom"));
    let named = format!("PHANTOM_SOCKET={}", socket.display());
    for way in Way::ALL {
        for set in [&["env", "-u", "PHANTOM_SOCKET"][..], &["env", &named]] {
            for (command, status) in [("status", 1), ("forward", 1), ("doctor", 2)] {
                let mut run = phantom_run(socket, way);
                run.args(["--quiet", "--"]).args(set).arg(&phantom).arg(command);
                let output = run.stdin(Stdio::null()).output()?;
                let said = [&output.stdout[..], &output.stderr].concat();
                let said = String::from_utf8(said)?;
                let case = format!("{way:?} {set:?} {command}");
                ensure!(said.contains("under phantom-run no daemon can be asked"), "{case}: {said}");
                ensure!(said.contains("outside of it") && !said.contains("start one"), "{case}: {said}");
                ensure!(output.status.code() == Some(status), "{case}: {:?}", output.status);
            }
        }
    }
    Ok(())
}

#[test]
fn a_warning_comes_and_goes_in_status_doctor_and_log() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (alone, other) = (dir.path().join("alone"), dir.path().join("other"));
    let _running = daemon(&alone, "127.251.1.1", None)?;
    let said = eventually(|| {
        let said = status(&alone)?;
        ensure!(roots(&said).iter().any(|code| code == "no-peers"), "{said}");
        Ok(said)
    })?;
    let effects = said["warnings"].as_array().context("no warnings")?;
    ensure!(
        effects
            .iter()
            .all(|one| one["code"] == "no-peers" || one["caused_by"] == "no-peers" || one["code"] == "no-tun"),
        "{said}"
    );
    let (told, code) = doctor(&alone.join("daemon.sock"))?;
    ensure!(code == 2 && roots(&told) == roots(&said), "{code}: {told}");
    let logs = |line: &str| {
        eventually(|| {
            let log = fs::read_to_string(alone.join("log"))?;
            ensure!(log.matches(line).count() == 1, "{line:?} not once in: {log}");
            Ok(())
        })
    };
    logs("ERROR phantom_daemon::health: no other node answers (no-peers)")?;
    let peer = said["peer"].as_str().context("no peer string")?;
    let joined = daemon(&other, "127.252.1.1", Some(peer))?;
    logs("over: no-peers")?;
    logs("start: a first peer after")?;
    ensure!(!roots(&status(&alone)?).iter().any(|code| code == "no-peers"));
    let mut follow = Command::new(binary("phantom"));
    follow.arg("--daemon").arg(alone.join("daemon.sock")).args(["log", "--follow"]);
    let follows = Server::start_heard(&mut follow, "starting node=")?;
    for line in ["no other node answers (no-peers)", "over: no-peers"] {
        follows.hears(line)?;
    }
    // What comes after it began to follow.
    drop(joined);
    follows.hears("no other node answers (no-peers)")
}

/// A terminal of 120 by 40, which ends with its server.
struct Terminal(tempfile::TempDir);

impl Terminal {
    fn tmux(&self, words: &[&str]) -> Result<String> {
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-S"]).arg(self.0.path().join("tmux")).args(words);
        phantom_tests::stdout(&tmux.stdin(Stdio::null()).output()?)
    }

    /// Waits until all of that is on the screen.
    fn shows(&self, parts: &[&str]) -> Result<()> {
        eventually(|| {
            let screen = self.tmux(&["capture-pane", "-p"])?;
            ensure!(parts.iter().all(|part| screen.contains(part)), "{parts:?} in\n{screen}");
            Ok(())
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_shows_a_daemon_as_it_lives_and_gives_the_terminal_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("node");
    let server = daemon(&folder, "127.0.0.1", None)?;
    eventually(|| status(&folder))?;
    let top = format!("{} --daemon {}/daemon.sock top", binary("phantom").display(), folder.display());
    let terminal = Terminal(tempfile::tempdir()?);
    let line = format!("echo before; {top}; echo ended $?; exec sleep 1000");
    terminal.tmux(&["new-session", "-d", "-x", "120", "-y", "40", &line])?;
    terminal.shows(&["waiting for", "0 peers", "connections: 0", "paths: 0", "no-peers"])?;
    terminal.tmux(&["send-keys", "?"])?;
    terminal.shows(&["the other way round"])?;
    terminal.tmux(&["send-keys", "?"])?;
    drop(server);
    terminal.shows(&["LOST: no daemon answers"])?;
    let again = Command::new(binary("phantomd")).arg("--data-dir").arg(&folder).stderr(Stdio::null()).spawn()?;
    let _again = Server::from(again);
    terminal.shows(&["waiting for another node"])?;
    terminal.tmux(&["send-keys", "q"])?;
    // What was there before is there again.
    terminal.shows(&["before", "ended 0"])?;
    let piped = Command::new("sh").args(["-c", &format!("{top} | cat")]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(piped.stderr)?;
    ensure!(said.contains("needs a terminal") && said.contains("--json"), "{said}");
    Ok(())
}

/// As an editor does it: the shell has its terminal as it was, and the screen is drawn anew.
#[test]
fn top_is_suspended_by_ctrl_z_and_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path().join("node");
    let _server = daemon(&folder, "127.0.0.1", None)?;
    eventually(|| status(&folder))?;
    let terminal = Terminal(tempfile::tempdir()?);
    let shell = "env PS1=shell: bash --noprofile --norc -i";
    terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", shell])?;
    let typed = |line: &str| terminal.tmux(&["send-keys", "-l", &format!("{line}\n")]).map(drop);
    terminal.shows(&["shell:"])?;
    // In a shell of its own that knows nothing of jobs: what is stopped must be all that was started with it.
    typed(&format!("sh -c '{} --daemon {}/daemon.sock top; true'", binary("phantom").display(), folder.display()))?;
    for again in ["one", "two"] {
        terminal.shows(&["waiting for", "paths: 0", "q quit"])?;
        terminal.tmux(&["send-keys", "C-z"])?;
        terminal.shows(&["Stopped", "shell:"])?;
        // It is echoed, and a line at a time: the terminal is the shell's again.
        typed(&format!("echo said $((40 + 2)) {again}; stty -a | grep -o -w icanon"))?;
        terminal.shows(&[&format!("said 42 {again}"), "icanon"])?;
        typed("clear; fg")?;
    }
    terminal.shows(&["waiting for", "paths: 0", "q quit"])?;
    // Stopped by somebody else, who told nobody: it is drawn anew when it goes on.
    let line = format!("{} --daemon {}/daemon.sock top", binary("phantom").display(), folder.display());
    let found = phantom_tests::stdout(&Command::new("pgrep").args(["-f", "-x", &line]).output()?)?;
    let top = found.trim().parse()?;
    signal(top, libc::SIGSTOP);
    terminal.tmux(&["send-keys", "-R"])?;
    ensure!(!terminal.tmux(&["capture-pane", "-p"])?.contains("paths: 0"), "it is not wiped");
    signal(top, libc::SIGCONT);
    terminal.shows(&["waiting for", "paths: 0", "q quit"])?;
    terminal.tmux(&["send-keys", "q"])?;
    terminal.shows(&["shell:"])
}

/// Before the screen is its own.
#[test]
fn top_says_that_it_waits_for_a_silent_daemon() -> Result<()> {
    let daemon = Scripted::start(json!({"silent": true}))?;
    let top = format!("{} --daemon {} top", binary("phantom").display(), daemon.socket);
    let terminal = Terminal(tempfile::tempdir()?);
    terminal.tmux(&["new-session", "-d", "-x", "40", "-y", "10", &top])?;
    terminal.shows(&["waiting for the daemon"])
}
