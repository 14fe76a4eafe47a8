//! `phantom serve`: a folder as a read-only site, for as long as the command runs.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, SERVER, Server, Way, binary, eventually, pattern, signal};

#[test]
fn a_folder_is_shown_until_the_command_ends() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("shown")?;
    fs::write(folder.join("large.bin"), pattern(300_000))?;
    fs::create_dir(folder.join("sub"))?;
    fs::write(folder.join(".hidden"), "hidden")?;
    std::os::unix::fs::symlink("/etc/hostname", folder.join("out"))?;
    let mut command = Command::new(binary("phantom"));
    command.arg("--daemon").arg(&network.nodes[SERVER].socket).arg("serve").arg(&folder);
    let (mut serving, line) = Server::start_first_line(&mut command)?;
    let address = line.trim().to_owned();
    let name = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    network.published(&name)?;
    let fetched = network.folder("fetched")?.join("large.bin");
    let fetched = fetched.to_str().context("path")?;
    let curl = |path: &str, more: &[&str]| {
        let url = format!("{address}{path}");
        let words = [&["curl", "-sS", "--path-as-is", "--max-time", "120"], more, &[&url]].concat();
        network.run(Way::Namespace, &words)
    };
    eventually(|| curl("large.bin", &["-o", fetched]))?;
    ensure!(fs::read(fetched)? == pattern(300_000), "not what was shown");
    let listing = curl("", &["-D", "-"])?;
    ensure!(listing.contains("large.bin") && listing.contains("sub/") && !listing.contains("hidden"), "{listing}");
    ensure!(!listing.to_lowercase().contains("\ndate:"), "this computer's clock: {listing}");
    for path in [".hidden", "out", "../fetched/large.bin", "%2e%2e/fetched/large.bin"] {
        let code = curl(path, &["-o", "/dev/null", "-w", "%{http_code}"])?;
        ensure!(code == "404", "{path}: {code}");
    }
    ensure!(curl("large.bin", &["-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}"])? == "405");
    let offered = || network.phantom(SERVER, &["forward"]);
    ensure!(offered()?.as_array().is_some_and(|list| list.iter().any(|one| one["phantom_name"] == *name)));
    signal(i32::try_from(serving.id())?, libc::SIGINT);
    ensure!(serving.wait()?.success(), "Ctrl-C is how it ends");
    eventually(|| {
        let list = offered()?;
        let gone = list.as_array().is_some_and(|list| list.iter().all(|one| one["phantom_name"] != *name));
        ensure!(gone, "still offered: {list}");
        Ok(())
    })?;
    ensure!(curl("", &["-o", "/dev/null"]).is_err(), "it is gone");
    Ok(())
}

/// Killed, it takes nothing back itself: the daemon does.
#[test]
fn what_is_shown_at_a_name_ends_with_the_command_however_it_ends() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("killed")?;
    let mut command = Command::new(binary("phantom"));
    command.arg("--daemon").arg(&network.nodes[SERVER].socket).arg("serve").arg(&folder);
    command.args(["--identity", "shown", "--port", "8080"]);
    let (mut serving, line) = Server::start_first_line(&mut command)?;
    ensure!(line.contains(&network.address(SERVER, "shown")?) && line.ends_with(":8080/"), "{line}");
    let list = network.phantom(SERVER, &["forward"])?;
    let own = list.as_array().and_then(|list| list.iter().find(|one| one["identity"] == "shown"));
    let socket = own.and_then(|own| own["to"].as_str()).context("not offered")?;
    signal(i32::try_from(serving.id())?, libc::SIGKILL);
    serving.wait()?;
    // Nobody else tidies up after it.
    fs::remove_dir_all(Path::new(socket).parent().context("no folder")?)?;
    eventually(|| {
        let list = network.phantom(SERVER, &["forward"])?;
        let gone = list.as_array().is_some_and(|list| list.iter().all(|one| one["identity"] != "shown"));
        ensure!(gone, "still offered: {list}");
        Ok(())
    })
}
