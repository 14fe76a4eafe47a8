//! README.md's first steps, as somebody takes them who reads no further.
#![allow(missing_docs)]

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{binary, stdout};

/// Waits for what the server's launcher says, and keeps the address that is in it.
const REACHED: &str = "
for i in $(seq 450); do grep -q 'reachable at' log && break; sleep 0.2; done
NAME=$(sed -n 's/.*reachable at \\([a-z2-7]*\\)\\.phantom, port 80.*/\\1/p' log)
[ -n \"$NAME\" ] || { cat log >&2; exit 1; }
";

/// The commands of the block that holds this word.
fn commands(word: &str) -> Result<Vec<&'static str>> {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```").skip(1).step_by(2).filter(|block| block.starts_with("console\n"));
    let block = blocks.find(|block| block.contains(word)).with_context(|| format!("no block with {word:?}"))?;
    ensure!(blocks.all(|block| !block.contains(word)), "two blocks with {word:?}");
    Ok(block.lines().filter_map(|line| line.strip_prefix("$ ")).collect())
}

#[test]
fn a_private_network_with_a_server_and_a_visitor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut script =
        "set -eu\ntrap 'phantom testnet down --dir net >&2 || true; kill $(jobs -p) 2>/dev/null || true' EXIT\n"
            .to_owned();
    for command in commands("testnet up")? {
        let command = command.replace("/tmp/net", "net").replace("NAME", "$NAME");
        match command.strip_suffix(" &") {
            // Who reads sees it on the terminal.
            Some(server) => script += &format!("{server} >log 2>&1 &\n{REACHED}"),
            None => script += &format!("{command}\n"),
        }
    }
    let page = folder.path().join("a-file-that-is-listed");
    std::fs::write(&page, "")?;
    let binaries = binary("phantom").parent().context("no folder")?.display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH")?);
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(&folder).env("PATH", path).env_remove("PHANTOM_SOCKET").stdin(Stdio::null());
    let said = stdout(&bash.output()?)?;
    ensure!(said.contains("a-file-that-is-listed"), "{said}");
    Ok(())
}

/// What the other blocks start is there.
#[test]
fn scripts_that_are_named_exist() -> Result<()> {
    for word in ["scripts/demo", "scripts/setup", "scripts/test"] {
        for command in commands(word)?.iter().filter(|command| command.contains('/') && !command.contains('=')) {
            let script = command.split(' ').next().context("empty")?;
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
            ensure!(path.is_file(), "{command}: no {script}");
        }
    }
    Ok(())
}
