//! The main promise: an unmodified web client reaches an unmodified web server, both anonymous, over 3 + 3 hops.

use std::fs;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, Server, Way, eventually, pattern, stdout};

const SIZE: usize = 20_000_000;

#[test]
fn curl_fetches_a_file_from_http_server_in_both_ways() -> Result<()> {
    let network = Network::up(12)?;
    let name = network.address(1, "shop")?;
    let folder = network.scratch().join("www");
    fs::create_dir(&folder)?;
    fs::write(folder.join("file"), pattern(SIZE))?;
    let www = folder.to_str().context("path")?;
    for (server_way, client_way) in [(Way::Namespace, Way::Namespace), (Way::Preload, Way::Preload)] {
        let _server = Server::start_until(
            network.program(
                1,
                server_way,
                Some("shop"),
                &["python3", "-u", "-m", "http.server", "80", "--directory", www],
            ),
            "Serving",
        )?;
        let url = format!("http://{name}/file");
        let got = network.scratch().join("got");
        let got_text = got.to_str().context("path")?;
        eventually(|| {
            let curl = ["curl", "-sS", "--fail", "--max-time", "60", "-o", got_text, &url];
            stdout(&network.program(2, client_way, None, &curl).output()?)
        })?;
        ensure!(fs::read(&got)? == pattern(SIZE), "the file differs");
    }
    Ok(())
}

#[test]
fn nothing_listens_is_refused_and_strange_names_are_not_found() -> Result<()> {
    let network = Network::up(8)?;
    let name = network.address(1, "quiet")?;
    let _server = Server::start_until(
        network.program(1, Way::Namespace, Some("quiet"), &["python3", "-u", "-m", "http.server", "80"]),
        "Serving",
    )?;
    eventually(|| {
        stdout(
            &network
                .program(2, Way::Namespace, None, &["curl", "-sS", "--fail", &format!("http://{name}/")])
                .output()?,
        )
    })?;
    for way in Way::ALL {
        // curl: 7 = could not connect, 6 = could not resolve.
        let refused = network.program(2, way, None, &["curl", "-sS", &format!("http://{name}:81/")]).output()?;
        ensure!(refused.status.code() == Some(7), "{refused:?}");
        let unknown = network.program(2, way, None, &["curl", "-sS", "http://example.com/"]).output()?;
        ensure!(unknown.status.code() == Some(6), "{unknown:?}");
        let clearnet =
            network.program(2, way, None, &["curl", "-sS", "--max-time", "20", "http://192.0.2.1/"]).output()?;
        ensure!(clearnet.status.code() == Some(7), "{clearnet:?}");
    }
    Ok(())
}
