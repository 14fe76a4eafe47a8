//! A daemon that is killed at any moment has afterwards all that it said it had.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use phantom_tests::{Joined, Network, SERVER, binary, ended, eventually, signal, stdout};
use serde_json::Value;

const KILLS: u32 = 12;

/// From one kill to the next they come so much later: some of what is asked for meanwhile is done, some begun, some not.
const LATER: Duration = Duration::from_millis(13);

/// What the daemon has said that it has: names with their addresses, and ports that are offered for good.
#[derive(Default)]
struct Said {
    addresses: BTreeMap<String, Value>,
    ports: Vec<u64>,
    /// Asked for and not answered: there or not.
    open: Vec<String>,
}

impl Said {
    /// Asks for a name and for a port that is offered at it for good.
    fn ask(&mut self, joined: &Joined) -> Result<()> {
        let number = self.addresses.len() + self.open.len();
        let (name, port) = (format!("n{number}"), 1000 + number as u64);
        self.open.push(name.clone());
        let made = joined.phantom(&["identity", "new", &name])?;
        self.open.retain(|open| *open != name);
        self.addresses.insert(name.clone(), made["address"].clone());
        let what = format!("{port}=127.0.0.1:9");
        joined.phantom(&["forward", &what, "--keep", "--identity", &name])?;
        self.ports.push(port);
        Ok(())
    }

    fn is_there(&self, joined: &Joined) -> Result<()> {
        let list = joined.phantom(&["identity", "list"])?;
        let list = list.as_array().context("no list")?;
        let mut there = BTreeMap::new();
        for one in list {
            there.insert(one["name"].as_str().context("no name")?.to_owned(), one["address"].clone());
        }
        for (name, address) in &self.addresses {
            ensure!(there.get(name) == Some(address), "{name} was {address}, and is {:?}", there.get(name));
        }
        let strange = there.keys().find(|name| !self.addresses.contains_key(*name) && !self.open.contains(name));
        ensure!(strange.is_none(), "nobody asked for {strange:?}");
        let offered = joined.phantom(&["forward"])?.to_string();
        let lost = self.ports.iter().find(|port| !offered.contains(&format!("\"port\":{port},")));
        ensure!(lost.is_none(), "port {lost:?} is not offered any more: {offered}");
        Ok(())
    }
}

fn kill(joined: &Joined) -> Result<()> {
    let pid = i32::try_from(joined.daemon.id())?;
    signal(pid, libc::SIGKILL);
    ended(pid)
}

#[test]
fn whenever_a_daemon_is_killed_it_keeps_what_it_has_said() -> Result<()> {
    let network = Network::shared()?;
    let bundle = network.folder("killed-bundle")?.join("nodes");
    let bundle = bundle.to_str().context("a path in UTF-8")?;
    let maker = &network.nodes[SERVER];
    let mut export = Command::new(binary("phantom"));
    stdout(&export.arg("--daemon").arg(&maker.socket).args(["peer", "export", bundle]).output()?)?;
    let mut joined = network.start_alone("killed", "[paths]\nhurry = true\n")?;
    let node = joined.phantom(&["status"])?["node_id"].clone();
    joined.phantom(&["peer", "import", bundle, "--signed-by", &maker.node_id])?;
    let mut said = Said::default();
    for round in 0..KILLS {
        said.ask(&joined)?;
        std::thread::scope(|scope| {
            // Until it is gone.
            scope.spawn(|| while said.ask(&joined).is_ok() {});
            std::thread::sleep(LATER * round);
            kill(&joined)
        })?;
        drop(joined);
        // By the bundle alone: it knew nobody else.
        joined = network.rejoin("killed").with_context(|| format!("after {} kills", round + 1))?;
        ensure!(joined.phantom(&["status"])?["node_id"] == node, "it is another node");
        eventually(|| said.is_there(&joined)).with_context(|| format!("after {} kills", round + 1))?;
    }
    Ok(())
}
