//! docs/install.md's one-liners for ssh and what speaks through it, as they stand there.
#![allow(missing_docs)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::programs::{Folder, Ssh, prepare, words};
use phantom_tests::{CLIENT, Network, Way, binary, pattern, stdout};

const SIZE: usize = 200_000;

/// The commands of the block, without what is said about them.
fn lines() -> Result<Vec<&'static str>> {
    let (_, below) = include_str!("../../docs/install.md").split_once("## One-liners\n").context("no one-liners")?;
    let block = below.split("```").nth(1).context("no block")?;
    let lines = block.lines().filter_map(|line| line.strip_prefix("$ "));
    Ok(lines.map(|line| line.split("  #").next().unwrap_or(line).trim_end()).collect())
}

#[test]
fn each_does_what_it_says() -> Result<()> {
    let network = Network::shared()?;
    let folder = Folder::new()?;
    let ssh = Ssh::new(&folder.path())?;
    let (_sshd, name) = network.serve(Way::Namespace, "one-liners", &words(&ssh.server()), "listening")?;
    let [here, there] = ["here", "there"].map(|name| folder.make(name));
    let (here, there) = (here?, there?);
    // What a user has in ~/.ssh.
    let tools = folder.make("bin")?;
    let ours = folder.write("bin/ssh", format!("#!/bin/sh\nexec /usr/bin/ssh {} \"$@\"\n", ssh.options.join(" ")))?;
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    folder.make("here/folder")?;
    folder.write("here/folder/file", pattern(SIZE))?;
    let project = format!("{there}/project");
    prepare(Command::new("git").args(["init", "-q", &project]))?;
    fs::write(format!("{project}/file"), pattern(SIZE))?;
    for step in [&["add", "file"][..], &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a file"]] {
        prepare(Command::new("git").args(["-C", &project]).args(step))?;
    }
    let binaries = binary("phantom-run").parent().context("no folder")?.display().to_string();
    let path = format!("{tools}:{binaries}:{}", std::env::var("PATH")?);
    let run = |line: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", line]).current_dir(&here).env("PATH", &path).stdin(Stdio::null());
        bash.env("PHANTOM_SOCKET", &network.nodes[CLIENT].socket).env("GIT_CONFIG_GLOBAL", "/dev/null");
        stdout(&bash.output()?).with_context(|| line.to_owned())
    };
    let mut tried = 0;
    for line in lines()? {
        // Tests run where the kernel has no FUSE.
        if line.starts_with("sshfs") {
            continue;
        }
        let line = line.replace("USER@NAME.phantom", &format!("{}@{name}", ssh.user));
        let line = line.replace(":folder/", &format!(":{there}/folder/")).replace("/~/project", &project);
        if line.contains("ssh ") && line.ends_with(&name) {
            ensure!(run(&format!("{line} 'echo over there'"))? == "over there\n", "{line}");
        } else {
            run(&line)?;
        }
        tried += 1;
    }
    ensure!(tried == 4, "{tried} lines were tried");
    folder.expect_pattern("there/folder/file", SIZE)?;
    folder.expect_pattern("here/project/file", SIZE)
}
