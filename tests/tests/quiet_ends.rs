//! Programs that end, in whatever manner, are no errors in a daemon's log.

use std::fs;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Alone, Kind, NODES, Network, Way, eventually, stdout};

/// Each leaves a listener and both ends of a connection open, and two end without a word.
const ENDS: [&str; 3] = ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.kill(os.getppid(), 9); time.sleep(1000)"];

fn program(end: &str) -> String {
    format!(
        "import os, socket, time
server = socket.create_server(('::', 0), family=socket.AF_INET6)
client = socket.create_connection(('::1', server.getsockname()[1]))
accepted = server.accept()[0]
for address in ('::1', 'fd70::1'):
    away = socket.socket(socket.AF_INET6)
    away.setblocking(False)
    away.connect_ex((address, 9))
print('up', flush=True)
{end}"
    )
}

#[test]
fn whoever_ends_is_no_error() -> Result<()> {
    let network = Network::up(NODES)?;
    for way in Way::ALL {
        for end in ENDS {
            // Whose number is that of the program's parent is the keeper; the front ends with it.
            let output = network.offering(1, way, None, &["python3", "-c", &program(end)]).output()?;
            ensure!(String::from_utf8_lossy(&output.stdout) == "up\n", "{end} by {way:?}: {output:?}");
        }
    }
    eventually(|| {
        let status = network.phantom(1, &["status"])?;
        let published = status["published"].as_array().context("published")?;
        ensure!(published.is_empty(), "somebody is left: {status}");
        Ok(())
    })?;
    for node in &network.nodes {
        let log = fs::read_to_string(node.data_dir.join("log"))?;
        // Warnings tell how it is around the daemon, such as a disk that is almost full: no end of a program makes that.
        let is_fault = |line: &&str| line.contains(" ERROR ") && !line.contains(" ERROR phantom_daemon::health: ");
        let errors: Vec<_> = log.lines().filter(is_fault).collect();
        ensure!(errors.is_empty(), "{errors:?}");
    }
    Ok(())
}

/// `phantom testnet up` leaves nothing open that was its caller's: a pipe, a lock.
#[test]
fn a_lock_around_a_private_network_is_free_while_it_runs() -> Result<()> {
    let alone = Alone::shared()?;
    let lock = alone.folder.write("lock", "")?;
    let network = alone.folder.at("locked");
    let phantom = phantom_tests::binary("phantom");
    let mut up = alone.command(Kind::Root, "flock");
    up.args(["--shared", &lock]).arg(&phantom).args(["testnet", "up", "--nodes", "12", "--dir", &network]);
    let up = up.output().map_err(Into::into).and_then(|output| stdout(&output));
    let free = alone.command(Kind::Root, "flock").args(["--nonblock", &lock, "true"]).status();
    let down =
        alone.command(Kind::Root, &phantom.to_string_lossy()).args(["testnet", "down", "--dir", &network]).output();
    up?;
    stdout(&down?)?;
    ensure!(free?.success(), "somebody holds it");
    Ok(())
}
