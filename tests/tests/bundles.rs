//! A computer that knows no node joins through a signed file, and stays in the network after a restart.
#![allow(missing_docs)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, SERVER, binary, stdout};

fn peer(socket: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("phantom"));
    command.arg("--daemon").arg(socket).arg("peer").args(words);
    Ok(command.stdin(Stdio::null()).output()?)
}

fn refused(output: &Output, says: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && text.contains(says), "{}: {text}", output.status);
    Ok(())
}

#[test]
fn who_knows_nobody_joins_through_a_bundle() -> Result<()> {
    let network = Network::shared()?;
    let (maker, folder) = (&network.nodes[SERVER], network.folder("bundles")?);
    let files = ["bundle", "cut"].map(|name| folder.join(name));
    let [bundle, cut] = [&files[0], &files[1]].map(|file| file.to_str().expect("a path in UTF-8"));
    let id = stdout(&peer(&maker.socket, &["export", bundle])?)?;
    let id = id.trim();
    ensure!(id == maker.node_id, "it is said to be of {id}");
    refused(&peer(&maker.socket, &["export", bundle])?, "is there already")?;
    let text = std::fs::read_to_string(bundle)?;
    let named = text.lines().filter(|line| line.starts_with("phantom-peer:")).count();
    ensure!((2..=32).contains(&named), "{text}");
    std::fs::write(cut, &text[..text.len() / 2])?;

    let alone = network.start_alone("knows-nobody", "[paths]\nhurry = true\n")?;
    let import = |words: &[&str]| peer(&alone.socket, &[&["import"], words].concat());
    refused(&import(&[cut, "--yes"])?, "the bundle")?;
    refused(&import(&[bundle])?, "nobody can be asked")?;
    refused(&import(&[bundle, "--signed-by", &network.nodes[0].node_id])?, "nothing was imported")?;
    ensure!(alone.phantom(&["peer", "list"])?.as_array().is_some_and(Vec::is_empty), "somebody is known");
    let told = alone.phantom(&["peer", "import", bundle, "--signed-by", id])?;
    ensure!(told["signer"] == *id && told["nodes"].as_u64() == Some(named as u64), "{told}");
    alone.ready().context("it has not joined")?;

    drop(alone);
    network.rejoin("knows-nobody").context("after a restart")?;
    Ok(())
}
