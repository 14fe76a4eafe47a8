//! What commands say on terminals of any width, and of words that nobody should give them.
#![allow(missing_docs)]

use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use phantom_tests::binary;
use phantom_tests::programs::Folder;
use phantom_tests::scripted::{ANSWERS, Scripted, hostile};
use serde_json::json;

/// What a program says on a terminal of that width.
fn shown(columns: usize, program: &str, words: &[&str]) -> Result<String> {
    let line = format!("stty cols {columns}; exec {} {}", binary(program).display(), words.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    Ok(String::from_utf8(terminal.output()?.stdout)?.replace('\r', ""))
}

/// The same in a pipe.
fn piped(program: &str, words: &[&str]) -> Result<Output> {
    Ok(Command::new(binary(program)).args(words).stdin(Stdio::null()).output()?)
}

/// No line is longer than the terminal, but for a word that takes most of it, or a command: a terminal would break it in the middle of a
/// word.
fn fits(text: &str, columns: usize) -> Result<()> {
    let is_command = |line: &str| line.trim_start_matches([' ', '(']).starts_with('`');
    for line in text.lines().filter(|line| line.chars().count() > columns && !is_command(line)) {
        let longest = line.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
        ensure!(longest > columns * 2 / 3 - 2, "{columns}: {line:?} in\n{text}");
    }
    Ok(())
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn on_a_terminal_no_word_is_broken_and_in_a_pipe_a_fact_is_a_line() -> Result<()> {
    let daemon = Scripted::start(hostile())?;
    for answer in ANSWERS.into_iter().filter(|words| words[0] != "unit") {
        let asked = [&["--daemon", &daemon.socket], answer].concat();
        let plain = String::from_utf8(piped("phantom", &asked)?.stdout)?;
        ensure!(words(&plain).len() > 3, "{answer:?}: {plain}");
        for columns in [80, 40] {
            let text = shown(columns, "phantom", &asked)?;
            fits(&text, columns)?;
            ensure!(words(&text) == words(&plain), "{answer:?}: {text}");
        }
        // What scripts read is the same everywhere.
        let asked = [&asked, &["--json"][..]].concat();
        let plain = String::from_utf8(piped("phantom", &asked)?.stdout)?;
        ensure!(plain.lines().count() == 1 && shown(40, "phantom", &asked)? == plain, "{answer:?}: {plain}");
    }
    // Below where the value begins.
    let status = shown(80, "phantom", &["--daemon", &daemon.socket, "status"])?;
    ensure!(status.contains("\n                  "), "{status}");
    Ok(())
}

#[test]
fn what_went_wrong_is_said_without_broken_words_by_each_program() -> Result<()> {
    let missing = "/nonexistent/daemon.sock";
    for (program, said) in [
        ("phantom", &["--daemon", missing, "status"][..]),
        ("phantom-run", &["--daemon", missing, "true"]),
        ("phantomd", &["--check-config", "--config", missing]),
        ("phantom", &["unit", "add", "nosuch"]),
        ("phantom", &["desktop", "add", "nosuch"]),
        ("phantom", &["forward", "8080"]),
        ("phantom-run", &["--identity", "A", "true"]),
        ("phantomd", &["--resolver", "192.0.2.1"]),
    ] {
        let plain = String::from_utf8(piped(program, said)?.stderr)?;
        ensure!(!plain.is_empty(), "{program} {said:?} says nothing");
        for columns in [80, 40, 20] {
            let text = shown(columns, program, said)?;
            fits(&text, columns)?;
            ensure!(words(&text) == words(&plain), "{program} {said:?}: {text}");
        }
    }
    Ok(())
}

/// The agreement is long, and whoever agrees is to read it.
#[test]
fn what_phantomd_shows_fits_a_narrow_terminal() -> Result<()> {
    let folder = Folder::new()?;
    let data = folder.at("data");
    let text = shown(40, "phantomd", &["init", "--data-dir", &data])?;
    fits(&text, 40)?;
    ensure!(words(&text).join(" ").contains("Type yes to accept: phantomd: the agreement was not accepted"), "{text}");
    let text = shown(40, "phantomd", &["init", "--listen", "127.0.0.1:0", "--accept-eula", "--data-dir", &data])?;
    ensure!(text.contains("node id") && text.contains("`phantom status`"), "{text}");
    fits(&text, 40)?;
    fits(&shown(40, "phantomd", &["--check-config", "--data-dir", &data])?, 40)
}

/// "unit" is spelt like "run", and nothing that whoever says it looks for.
#[test]
fn who_says_what_is_no_command_is_told_what_does_it() -> Result<()> {
    for (word, says) in [
        ("run", "tip: `phantom-run PROGRAM`"),
        ("start", "`phantomd` is the daemon"),
        ("publish", "`phantom-run --publish 80:web PROGRAM`"),
        ("statsu", "'status'"),
    ] {
        let said = String::from_utf8(piped("phantom", &[word])?.stderr)?;
        ensure!(said.contains(says) && !said.contains("'unit'"), "{word}: {said}");
    }
    Ok(())
}

/// In the place of `ODD` stands what would begin a line of its own.
const TAKES: [&[&str]; 41] = [
    &["phantom", "ODD"],
    &["phantom", "--ODD"],
    &["phantom", "status", "ODD"],
    &["phantom", "desktop", "add", "ODD"],
    &["phantom", "desktop", "remove", "ODD"],
    &["phantom", "desktop", "add", "x", "--identity", "ODD"],
    &["phantom", "unit", "add", "ODD"],
    &["phantom", "unit", "add", "ODD.service"],
    &["phantom", "unit", "add", "ODD.socket"],
    &["phantom", "unit", "add", "x@ODD"],
    &["phantom", "unit", "remove", "ODD"],
    &["phantom", "unit", "add", "x", "--publish=ODD"],
    &["phantom", "forward", "ODD"],
    &["phantom", "forward", "remove", "80", "--identity=ODD"],
    &["phantom", "identity", "show", "ODD"],
    &["phantom", "identity", "remove", "ODD", "--yes"],
    &["phantom", "identity", "rename", "x", "ODD"],
    &["phantom", "identity", "import", "ODD"],
    &["phantom", "identity", "export", "x", "ODD/y"],
    &["phantom", "netdb", "lookup", "ODD"],
    &["phantom", "peer", "import", "ODD"],
    &["phantom", "serve", "ODD"],
    &["phantom", "console", "--listen", "ODD"],
    &["phantom", "console", "--listen", "unix:/nonexistent/ODD"],
    &["phantom", "setup", "--listen", "ODD"],
    &["phantom", "setup", "--peer", "ODD"],
    &["phantom", "command", "show", "ODD"],
    &["phantom", "command", "key", "ODD/y"],
    &["phantom", "command", "make", "x", "--ban", "ODD"],
    &["phantom", "testnet", "up", "--dir", "/proc/ODD"],
    &["phantom", "testnet", "down", "--dir", "ODD"],
    &["phantom", "testnet", "up", "--dir", "x", "--nodes", "ODD"],
    &["phantomd", "--config", "ODD"],
    &["phantomd", "--data-dir", "/proc/ODD", "--accept-eula"],
    &["phantomd", "--log", "ODD"],
    &["phantomd", "--peer", "ODD"],
    &["phantom-run", "--daemon", "ODD", "true"],
    &["phantom-run", "--publish", "80:ODD", "true"],
    &["phantom-run", "--identity", "ODD", "true"],
    &["phantom-run", "--isolation", "ODD", "true"],
    &["phantom-run", "--allow-local", "ODD", "true"],
];

/// A file that was named so could say anything, as one of our programs, to whoever reads a log of `phantom serve "$FOLDER"`.
#[test]
fn no_word_of_a_command_line_begins_a_line_of_what_is_said() -> Result<()> {
    let (folder, odd) = (Folder::new()?, "a\nphantom: all is well\u{1b}[2J\r");
    // Daemons say what they were asked for.
    let daemon =
        Scripted::start_saying(&json!({"error": {"message": format!("there is no {odd} here"), "hint": null}}))?;
    for taken in TAKES {
        let words = taken[1..].iter().map(|word| word.replace("ODD", odd));
        let mut command = Command::new(binary(taken[0]));
        if taken[0] == "phantom" {
            command.args(["--daemon", &daemon.socket]);
        }
        let output = command.args(words).current_dir(folder.path()).stdin(Stdio::null()).output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(matches!(output.status.code(), Some(1 | 2 | 125)), "{taken:?}: {}: {text}", output.status);
        ensure!(!text.is_empty() && !text.contains("\nphantom: all is well"), "{taken:?}: {text}");
        ensure!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{taken:?}: {text:?}");
    }
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "something was made");
    Ok(())
}
