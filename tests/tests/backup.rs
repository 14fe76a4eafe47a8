//! Named identities out of one daemon and into another, sealed with a passphrase.
#![allow(missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, binary, stdout};

fn identity(network: &Network, node: usize, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("phantom"));
    command.arg("--daemon").arg(&network.nodes[node].socket).arg("identity").args(args);
    Ok(command.stdin(std::process::Stdio::null()).output()?)
}

fn refused(output: &Output, says: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && text.contains(says), "{}: {text}", output.status);
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

#[test]
fn an_identity_moves_with_its_address_and_nothing_on_the_way_is_lost() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("backup")?;
    let name = network.address(SERVER, "moves")?;
    let (file, words, wrong) = (folder.join("moves.identity"), folder.join("words"), folder.join("wrong"));
    fs::write(&words, "correct horse\n")?;
    fs::write(&wrong, "wrong horse\n")?;
    let (file, words, wrong) = (text(&file)?, text(&words)?, text(&wrong)?);
    stdout(&identity(&network, SERVER, &["export", "moves", file, "--passphrase-file", words])?)?;
    let sealed = fs::read_to_string(file)?;
    ensure!(fs::metadata(file)?.permissions().mode() & 0o777 == 0o600, "others may read it");
    refused(&identity(&network, SERVER, &["export", "moves", file, "--passphrase-file", words])?, "is there already")?;
    ensure!(fs::read_to_string(file)? == sealed, "what was there was written over");
    refused(&identity(&network, SERVER, &["export", "moves", &format!("{file}.2")])?, "--passphrase-file")?;
    refused(&identity(&network, CLIENT, &["import", file, "--passphrase-file", wrong])?, "passphrase is wrong")?;
    refused(&identity(&network, CLIENT, &["import", words, "--passphrase-file", words])?, "no exported identity")?;
    // What is none is said before anybody is asked for a passphrase.
    for none in [words, "/dev/null", "/dev/zero"] {
        refused(&identity(&network, CLIENT, &["import", none])?, "no exported identity")?;
    }
    refused(&identity(&network, CLIENT, &["import", "/"])?, "cannot read /")?;
    refused(
        &identity(&network, SERVER, &["import", file, "other", "--passphrase-file", words])?,
        "under the name moves",
    )?;
    stdout(&identity(&network, CLIENT, &["import", file, "moved", "--passphrase-file", words])?)?;
    ensure!(network.address(CLIENT, "moved")? == name);
    // Where something is offered at it, it stays as it is.
    network.phantom(SERVER, &["forward", "80=127.0.0.1:9", "--identity", "moves"])?;
    refused(&identity(&network, SERVER, &["remove", "moves", "--yes"])?, "in use")?;
    refused(&identity(&network, SERVER, &["rename", "moves", "stays"])?, "in use")?;
    network.phantom(SERVER, &["forward", "remove", "80", "--identity", "moves"])?;
    stdout(&identity(&network, SERVER, &["rename", "moves", "stays"])?)?;
    refused(&identity(&network, SERVER, &["remove", "stays"])?, "--yes")?;
    stdout(&identity(&network, SERVER, &["remove", "stays", "--yes"])?)?;
    ensure!(network.phantom(SERVER, &["address", "show", "stays"]).is_err(), "it is gone");
    stdout(&identity(&network, SERVER, &["import", file, "--passphrase-file", words])?)?;
    ensure!(network.address(SERVER, "moves")? == name, "and it is back");
    Ok(())
}

/// Types each line when it is asked for, and prints what the terminal showed.
const TYPIST: &str = "
import os, pty, sys
lines = sys.argv[1].split('|')
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
seen = b''
while True:
    try:
        part = os.read(terminal, 1000)
    except OSError:
        break
    seen += part
    if part.endswith(b': ') and lines:
        os.write(terminal, lines.pop(0).encode() + b'\\r')
sys.stdout.write(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn what_is_typed_is_not_shown_and_is_asked_for_twice() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("typed")?;
    network.address(SERVER, "typed")?;
    let file = folder.join("typed.identity");
    let typed = |lines: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", TYPIST, lines]).arg(binary("phantom")).arg("--daemon").arg(&network.nodes[SERVER].socket);
        command.args(["identity", "export", "typed"]).arg(&file).output()
    };
    let output = typed("correct horse|correct house")?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1) && shown.contains("differ") && !file.exists(), "{shown}");
    let shown = stdout(&typed("correct horse|correct horse")?)?;
    ensure!(!shown.contains("horse") && shown.contains("passphrase: "), "{shown}");
    let words = folder.join("words");
    fs::write(&words, "correct horse")?;
    stdout(&identity(&network, CLIENT, &["import", text(&file)?, "--passphrase-file", text(&words)?])?)?;
    Ok(())
}
