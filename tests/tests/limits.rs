//! `[limits]` of phantomd.toml holds: a node carries as much for others as its operator allows, and not more.

use anyhow::{Context, Result, ensure};
use phantom_tests::{NODES, Network, Way, eventually, stdout};

/// Some end at the node, and carry no tunnel.
const PATHS: u64 = 4;
const TUNNELS: u64 = 3;

#[test]
fn a_node_carries_for_others_what_its_operator_allows() -> Result<()> {
    let network = Network::up(NODES)?;
    let python = ["python3", "-u", "-m", "http.server", "8000"];
    let (_server, name) = network.serve(Way::Inject, "limits", &python, "Serving")?;
    // Not before: in so small a network the service's own paths may all lead through a node that carries nothing more.
    let limits = format!("[limits]\nrelayed_paths = {PATHS}\nrelayed_tunnels = {TUNNELS}\n");
    let joined = network.join("limited", &limits)?;
    let url = format!("http://{name}:8000/");
    let (mut most, mut from) = ((0, 0), (0..NODES).cycle());
    eventually(|| {
        // Each program is a new identity and takes a path, which is built anew through other nodes; ready tunnels follow. From one
        // node after the other: each has its own choice of who stands in the middle.
        let node = from.next().context("for ever")?;
        let visit = network.program(node, Way::Inject, None, &["curl", "-sS", "-o", "/dev/null", &url]).output()?;
        stdout(&visit)?;
        let status = joined.phantom(&["status"])?;
        let count = |name: &str| status[name].as_u64().with_context(|| format!("no {name}"));
        let now = (count("relayed_paths")?, count("relayed_tunnels")?);
        most = (most.0.max(now.0), most.1.max(now.1));
        ensure!(most.0 >= PATHS && most.1 >= TUNNELS, "so far {most:?}");
        Ok(())
    })?;
    ensure!(most == (PATHS, TUNNELS), "{most:?} instead of {PATHS} paths and {TUNNELS} tunnels");
    Ok(())
}
