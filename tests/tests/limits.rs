//! `[limits]` of phantomd.toml holds: a node carries as much for others as its operator allows, and not more.

use anyhow::{Context, Result, ensure};
use phantom_tests::{NODES, Network, Way, eventually, phantom_run, stdout};

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

/// Several times what a link of the node may carry.
const MIB: usize = 12;

/// Says what arrives: how much, and its hash.
const TAKES: &str = "
import hashlib, socket
server = socket.create_server(('::', 8001), family=socket.AF_INET6)
print('listening', flush=True)
while True:
    far, hashed, count = server.accept()[0], hashlib.sha256(), 0
    while data := far.recv(65536):
        hashed.update(data)
        count += len(data)
    far.sendall(f'{count} {hashed.hexdigest()}'.encode())
    far.close()
";

/// Whether what was said is what was sent.
const SENDS: &str = "
import hashlib, random, socket, sys
data = random.Random(7).randbytes(int(sys.argv[2]) << 20)
far = socket.create_connection((sys.argv[1], 8001), 90)
far.sendall(data)
far.shutdown(socket.SHUT_WR)
said = b''
while part := far.recv(4096): said += part
print(said.decode() == f'{len(data)} {hashlib.sha256(data).hexdigest()}')
";

/// The key of a link seals no more than so much, and a transfer does not notice.
// protocol: L42
#[test]
fn what_is_under_way_goes_on_over_other_links_when_one_has_carried_all_that_it_may() -> Result<()> {
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Inject, "takes", &["python3", "-c", TAKES], "listening")?;
    let joined = network.join("brief", "[paths]\nhurry = true\n[limits]\nlink_mib = 2\n")?;
    let mut sends = phantom_run(&joined.socket, Way::Inject);
    let said = stdout(&sends.args(["--", "python3", "-c", SENDS, &name, &MIB.to_string()]).output()?)?;
    ensure!(said.trim() == "True", "what arrived is something else: {said}");
    let list = joined.phantom(&["connection", "list"])?;
    // A connect that is tried again while paths are built is in the list, too.
    let moves = list.as_array().into_iter().flatten().filter_map(|one| one["moves"].as_u64()).max();
    let moves = moves.with_context(|| format!("no moves in {list}"))?;
    ensure!(moves >= 4, "it moved {moves} times: links carry more than they may: {list}");
    Ok(())
}
