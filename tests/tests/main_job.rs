//! The main promise: an unmodified web client reaches an unmodified web server, both anonymous, over 3 + 3 hops.

use std::fs;

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, Way, eventually, pattern};
use serde_json::Value;

const SIZE: usize = 20_000_000;
const HOPS: usize = 3;

/// An http.server of a folder on port 80, as programs start it.
const fn http_server(folder: &str) -> [&str; 7] {
    ["python3", "-u", "-m", "http.server", "80", "--directory", folder]
}

#[test]
fn curl_fetches_a_file_from_http_server_in_both_ways() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("www")?;
    let www = folder.to_str().context("path")?;
    fs::write(folder.join("file"), pattern(SIZE))?;
    for (server_way, client_way) in [(Way::Namespace, Way::Preload), (Way::Preload, Way::Namespace)] {
        let (_server, name) = network.serve(server_way, "shop", &http_server(www), "Serving")?;
        let url = format!("http://{name}/file");
        let got = folder.join("got");
        let got_text = got.to_str().context("path")?;
        network.run(client_way, &["curl", "-sS", "--fail", "--max-time", "80", "-o", got_text, &url])?;
        ensure!(fs::read(&got)? == pattern(SIZE), "the file differs");
        fs::remove_file(&got)?;
    }
    the_way_is_shown(&network)
}

/// Both ends know their own three hops and no more; the client knows the entry node besides.
fn the_way_is_shown(network: &Network) -> Result<()> {
    let large = |node: usize, direction: &str, field: &str| -> Result<Value> {
        let list = network.phantom(node, &["connection", "list"])?;
        let list = list.as_array().context("no list")?;
        let found = list.iter().find(|c| c["direction"] == direction && c[field].as_u64() >= Some(SIZE as u64));
        found.cloned().with_context(|| format!("no {direction} connection with so many bytes in {list:?}"))
    };
    let client = large(CLIENT, "outgoing", "received_bytes")?;
    let server = large(SERVER, "incoming", "sent_bytes")?;
    let hops = |connection: &Value| -> Result<Vec<String>> {
        let hops = connection["own_hops"].as_array().context("no hops")?;
        Ok(hops.iter().filter_map(|hop| hop["node_id"].as_str()).map(str::to_owned).collect())
    };
    for (connection, own) in [(&client, CLIENT), (&server, SERVER)] {
        let mut hops = hops(connection)?;
        ensure!(!hops.contains(&network.nodes[own].node_id), "a node routes for itself: {connection}");
        hops.sort();
        hops.dedup();
        ensure!(hops.len() == HOPS, "not {HOPS} different hops: {connection}");
        ensure!(connection["far_hops"].is_null(), "{connection}");
        let paths = network.phantom(own, &["path", "list"])?;
        ensure!(connection["own_path"].is_string(), "{connection}");
        let same = paths.as_array().context("no list")?.iter().find(|path| path["id"] == connection["own_path"]);
        ensure!(same.is_none_or(|path| path["hops"] == connection["own_hops"]), "{connection} is not over {paths}");
    }
    ensure!(client["far_node"]["node_id"].is_string(), "no entry node: {client}");
    ensure!(server["far_node"].is_null(), "the server's side knows where the client's path ends: {server}");
    Ok(())
}

#[test]
fn the_entry_node_that_the_client_sees_is_the_servers_last_hop() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("entry")?;
    let (_server, name) =
        network.serve(Way::Namespace, "entry", &http_server(folder.to_str().context("path")?), "Serving")?;
    network.run(Way::Namespace, &["curl", "-sS", "--fail", &format!("http://{name}/")])?;
    let address = network.phantom(SERVER, &["address", "show", "entry"])?;
    let of_server = network.phantom(SERVER, &["connection", "list"])?;
    let served = of_server.as_array().context("list")?.iter().find(|c| c["identity"] == "entry").context("served")?;
    let of_client = network.phantom(CLIENT, &["connection", "list"])?;
    let asked = of_client
        .as_array()
        .context("list")?
        .iter()
        .find(|c| c["peer_address"] == address["address"])
        .context("no outgoing connection")?;
    ensure!(asked["far_node"] == served["own_hops"][HOPS - 1], "{asked}\n{served}");
    Ok(())
}

// protocol: S23
#[test]
fn nothing_listens_is_refused_and_strange_names_are_not_found() -> Result<()> {
    let network = Network::shared()?;
    let folder = network.folder("quiet")?;
    let (_server, name) =
        network.serve(Way::Namespace, "quiet", &http_server(folder.to_str().context("path")?), "Serving")?;
    let never = format!("http://{}.phantom/", "a".repeat(56));
    let port = format!("http://{name}:81/");
    // curl: 7 = could not connect, 6 = could not resolve.
    let cases = [
        (port.as_str(), 7),
        ("http://example.com/", 6),
        ("http://localhost.phantom/", 6),
        (&never, 6),
        ("http://192.0.2.1/", 7),
        ("http://[2001:db8::1]/", 7),
    ];
    for way in Way::ALL {
        for (url, status) in cases {
            let output = network.program(CLIENT, way, None, &["curl", "-sS", "--max-time", "60", url]).output()?;
            ensure!(output.status.code() == Some(status), "{url} by {way:?}: {output:?}");
        }
    }
    Ok(())
}

#[test]
fn two_runs_are_two_people_and_a_name_is_one() -> Result<()> {
    let network = Network::shared()?;
    let whoami = [
        "python3",
        "-c",
        "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('fd70::1', 9)); print(s.getsockname()[0])",
    ];
    let who = |identity: Option<&str>| -> Result<String> {
        let output = network.program(CLIENT, Way::Namespace, identity, &whoami).output()?;
        Ok(phantom_tests::stdout(&output)?.trim().to_owned())
    };
    network.address(CLIENT, "me")?;
    let (first, second) = (who(None)?, who(None)?);
    ensure!(first.starts_with("fd") && first != second, "{first} {second}");
    let me = who(Some("me"))?;
    ensure!(me == who(Some("me"))? && me != first, "{me}");
    let known = network.phantom(CLIENT, &["address", "show", "me"])?;
    ensure!(known["address"] == me.as_str(), "{known} is not {me}");
    eventually(|| {
        let open = network.phantom(CLIENT, &["status"])?["open_connections"].as_u64();
        ensure!(open == Some(0), "{open:?} connections are open");
        Ok(())
    })
}
