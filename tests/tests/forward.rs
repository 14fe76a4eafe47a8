//! Services that run on this computer outside Phantom, offered at an identity.
#![allow(missing_docs)]

use std::io::{Read, Write};
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Network, SERVER, Way, eventually};

/// Answers with who calls, and with what was said, the other way round: half-closes matter.
fn service() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = connection.and_then(|mut connection| {
                let mut said = String::new();
                connection.read_to_string(&mut said)?;
                let peer = connection.peer_addr()?.ip();
                connection.write_all(format!("{peer} {}", said.chars().rev().collect::<String>()).as_bytes())
            });
            drop(answer);
        }
    });
    Ok(address)
}

fn call(network: &Network, name: &str, port: &str) -> Result<String> {
    let line = format!("printf abc | nc -N -w 60 {name} {port}");
    network.run(Way::Namespace, &["sh", "-c", &line])
}

#[test]
fn a_service_of_this_computer_is_reached_until_it_is_taken_back() -> Result<()> {
    let network = Network::shared()?;
    let to = service()?;
    let fresh = network.phantom(SERVER, &["forward", &format!("80={to}")])?;
    let named = network.phantom(SERVER, &["forward", &format!("8000={to}"), "--identity", "forwarded"])?;
    let [fresh, named] = [&fresh, &named].map(|one| one["phantom_name"].as_str().map(str::to_owned).context("no name"));
    let (fresh, named) = (fresh?, named?);
    let again = network.phantom(SERVER, &["forward", &format!("8001={to}"), "--identity", "forwarded"])?;
    ensure!(again["new_identity"] == false, "{again}");
    network.phantom(SERVER, &["forward", "remove", "8001"])?;
    let twice = network.phantom(SERVER, &["forward", "remove", "8001"]);
    ensure!(twice.err().is_some_and(|why| why.to_string().contains("port 8001 is not offered")), "there is none");
    ensure!(named == network.address(SERVER, "forwarded")? && fresh != named);
    for (name, port) in [(&fresh, "80"), (&named, "8000")] {
        network.published(name)?;
        let said = call(&network, name, port)?;
        ensure!(said == "127.0.0.1 cba", "{said}");
    }
    ensure!(call(&network, &named, "80").is_err(), "a port that is not offered there");
    let shown = network.phantom(SERVER, &["status"])?;
    let published = shown["published"].as_array().context("no list")?;
    ensure!([&fresh, &named].iter().all(|name| published.iter().any(|one| one["phantom_name"] == ***name)), "{shown}");
    network.phantom(SERVER, &["forward", "remove", "8000"])?;
    ensure!(call(&network, &named, "8000").is_err(), "it was taken back");
    ensure!(network.phantom(SERVER, &["forward"])?.as_array().is_some_and(|list| list.len() == 1));
    let far = ["forward", "80=192.0.2.1:80", "--identity", "mistyped"];
    ensure!(network.phantom(SERVER, &far).is_err(), "that is not this computer");
    ensure!(network.phantom(SERVER, &["identity", "show", "mistyped"]).is_err(), "made for nothing");
    let odd = network.phantom(SERVER, &["forward", &format!("80={to}"), "--identity", "Ödd"]);
    let said = odd.err().context("that is no name")?.to_string();
    ensure!(said.contains("choose another name") && !said.contains("program"), "{said}");
    ensure!(call(&network, &fresh, "80")? == "127.0.0.1 cba");
    Ok(())
}

#[test]
fn what_is_kept_is_offered_after_a_restart() -> Result<()> {
    let network = Network::shared()?;
    let to = service()?;
    let node = network.join("keeps", "[paths]\nhurry = true\n")?;
    let kept = node.phantom(&["forward", &format!("80={to}"), "--identity", "kept", "--keep"])?;
    let name = kept["phantom_name"].as_str().context("no name")?.to_owned();
    node.phantom(&["stop"])?;
    drop(node);
    let again = network.rejoin("keeps")?;
    let list = again.phantom(&["forward"])?;
    ensure!(list[0]["phantom_name"] == *name && list[0]["keep"] == true, "{list}");
    let said = eventually(|| call(&network, &name, "80"))?;
    ensure!(said == "127.0.0.1 cba", "{said}");
    Ok(())
}
