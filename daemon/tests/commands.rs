//! What `phantomd` and `phantom` say on a first start and when something is wrong: exit status, and what to do.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(program: &str, home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
    command.stdin(Stdio::null()).output().expect("the program starts")
}

fn phantomd(home: &Path, arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_phantomd"), home, arguments)
}

fn phantom(home: &Path, arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_phantom"), home, arguments)
}

/// Checks the exit status, and that standard error holds each of `says`.
fn refused(output: &Output, code: i32, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    let first = text.lines().next().unwrap_or_default();
    assert_eq!(text.matches(first).count(), 1, "said twice: {text}");
}

#[test]
fn init_prints_what_others_need_and_writes_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let output = phantomd(home.path(), &["init", "--accept-eula", "--listen", "127.0.0.1:4433"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let peer = text.lines().find_map(|line| line.strip_prefix("peer string    ")).expect("a peer string");
    let config = home.path().join(".config/phantom/phantomd.toml");
    assert!(fs::read_to_string(&config).unwrap().contains("127.0.0.1:4433"));

    // Another node takes the string; the first one stays who it is.
    let other = tempfile::tempdir().unwrap();
    let output = phantomd(other.path(), &["init", "--accept-eula", "--peer", peer]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = String::from_utf8(phantomd(home.path(), &["init"]).stdout).unwrap();
    assert!(again.contains(peer), "{again}");

    // Options may also stand before the word.
    let data = home.path().join("second");
    let output = phantomd(home.path(), &["--data-dir", data.to_str().unwrap(), "init", "--accept-eula"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(data.to_str().unwrap()), "{text}");
    assert!(data.join("phantomd.toml").exists());
}

#[test]
fn without_a_terminal_the_agreement_must_be_accepted_by_flag() {
    let home = tempfile::tempdir().unwrap();
    refused(&phantomd(home.path(), &[]), 3, &["--accept-eula", "EULA.txt"]);
    refused(&phantomd(home.path(), &["init"]), 3, &["--accept-eula"]);
}

#[test]
fn wrong_flags_and_configurations_are_refused() {
    let home = tempfile::tempdir().unwrap();
    refused(&phantomd(home.path(), &["--lisen", "x"]), 2, &["--listen"]);
    refused(&phantomd(home.path(), &["--peer", "example.com:1"]), 2, &["phantom-peer:"]);
    refused(&phantomd(home.path(), &["--log", "loud"]), 2, &["off, error, warn"]);
    refused(&phantomd(home.path(), &["--config", "none.toml"]), 2, &["none.toml", "phantomd init"]);
    let config = home.path().join("bad.toml");
    fs::write(&config, "listen = '127.0.0.1:1'\nhops = 3\n").unwrap();
    refused(&phantomd(home.path(), &["--config", config.to_str().unwrap()]), 2, &["bad.toml", "line 2", "hops"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    refused(&phantomd(home.path(), &["--accept-eula", "--listen", &addr]), 4, &["in use", "--listen"]);
}

#[test]
fn a_node_that_knows_no_other_says_what_to_do_and_where_it_listens() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_phantomd"));
    command.args(["--accept-eula", "--listen", "127.0.0.1:0", "--data-dir"]).arg(home.path().join("data"));
    command.arg("--socket").arg(home.path().join("own.sock")).env_clear().stdin(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines {
        said.push(line);
        if said.last().is_some_and(|line| line.contains("knows no other")) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let [.., starting, alone] = &said[..] else { panic!("{said:?}") };
    assert!(starting.contains("own.sock") && starting.contains("listen=127.0.0.1:"), "{starting}");
    assert!(!starting.contains("127.0.0.1:0"), "the port that was chosen: {starting}");
    assert!(["--peer", "phantom status", "phantom testnet up"].iter().all(|says| alone.contains(says)), "{alone}");
}

#[test]
fn a_corrupt_store_is_refused_and_kept() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let options = ["--accept-eula", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    assert!(phantomd(home.path(), &[&["init"][..], &options].concat()).status.success());
    let store = data.join("store.redb");
    fs::write(&store, [0x55; 5000]).unwrap();
    refused(&phantomd(home.path(), &options), 1, &["store.redb", "nothing was changed"]);
    assert_eq!(fs::read(&store).unwrap(), [0x55; 5000]);
}

#[test]
fn without_a_daemon_the_command_line_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    // Root's daemon has another default; the named one is absent for everybody.
    let socket = home.path().join("none.sock");
    let output = phantom(home.path(), &["--daemon", socket.to_str().unwrap(), "status"]);
    refused(&output, 1, &["no daemon", "phantomd", "PHANTOM_SOCKET"]);
    // An empty variable counts as unset.
    let by_variable = |value: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phantom"));
        command
            .arg("status")
            .env_clear()
            .env("XDG_RUNTIME_DIR", home.path())
            .envs(value.map(|v| ("PHANTOM_SOCKET", v)));
        String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stderr).unwrap()
    };
    assert_eq!(by_variable(Some("")), by_variable(None));
    assert!(by_variable(socket.to_str()).contains("none.sock"), "the variable names another");
    refused(&phantom(home.path(), &["testnet", "down", "--dir", "none"]), 1, &["no test network"]);
    refused(&phantom(home.path(), &["testnet", "up", "--dir", "net", "--nodes", "0"]), 2, &["9 to 200"]);
    refused(&phantom(home.path(), &["addres", "list"]), 2, &["address"]);
}

#[test]
fn help_teaches_with_examples() {
    let home = tempfile::tempdir().unwrap();
    for (output, says) in [
        (phantomd(home.path(), &["--help"]), "phantomd init"),
        (phantom(home.path(), &["--help"]), "phantom identity new web"),
    ] {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(says) && text.contains("Exit status"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "fits a terminal: {text}");
    }
}
