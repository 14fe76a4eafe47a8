//! Numbers of a real daemon for Prometheus: what programs do shows in them, and not whose it is.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, Way, eventually, phantom_run, stdout};

/// One process, which ends with its run.
const TWELVE_BYTES: &str = "
import socket
listener = socket.create_server(('::', 7000), family=socket.AF_INET6)
print('listening', flush=True)
while True:
    visitor, _ = listener.accept()
    visitor.sendall(b'twelve bytes')
    visitor.close()
";

fn fetch(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

fn value(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in {text}"))?.parse()?)
}

#[test]
fn a_connection_shows_in_numbers_and_not_whose_it_is() -> Result<()> {
    let network = Network::shared()?;
    let (_server, name) = network.serve(Way::Namespace, "counted", &["python3", "-c", TWELVE_BYTES], "listening")?;
    let socket = network.folder("numbers")?.join("metrics");
    let config = format!("[paths]\nhurry = true\n[metrics]\nlisten = \"unix:{}\"\n", socket.display());
    let node = network.join("measured", &config)?;
    let named = node.phantom(&["address", "new", "mine"])?;
    let before = fetch(&socket)?;
    ensure!(value(&before, "phantom_ready")? == 1 && value(&before, "phantom_peers")? > 0, "{before}");
    ensure!(value(&before, "phantom_connections_begun_total")? == 0, "{before}");
    ensure!(value(&before, "phantom_builds_total{outcome=\"stood\"}")? > 0, "{before}");
    let said = eventually(|| {
        let mut run = phantom_run(&node.socket, Way::Namespace);
        stdout(&run.args(["--identity", "mine", "--", "nc", "-d", "-w", "60", &name, "7000"]).output()?)
    })?;
    ensure!(said == "twelve bytes", "{said}");
    let after = eventually(|| {
        let text = fetch(&socket)?;
        ensure!(value(&text, "phantom_connection_bytes_total{direction=\"received\"}")? >= 12, "{text}");
        Ok(text)
    })?;
    ensure!(value(&after, "phantom_connections_begun_total")? >= 1, "{after}");
    let status = node.phantom(&["status"])?;
    let id = status["node_id"].as_str().context("no id")?;
    let own = [&named["phantom_name"], &named["address"], &status["listen"][0]];
    for secret in own.iter().filter_map(|value| value.as_str()).chain([&id[..8], "mine", "127.", "fd70:", &name]) {
        ensure!(!after.contains(secret), "{secret} is in {after}");
    }
    node.phantom(&["stop"])?;
    eventually(|| {
        ensure!(!socket.exists(), "it is left behind");
        Ok(())
    })
}
