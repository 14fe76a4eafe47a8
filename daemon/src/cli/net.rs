//! `phantom testnet`: private networks, with progress for people and JSON for scripts.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

use super::args::{Nodes, Testnet};
use super::table::{counted, table};
use super::{Interrupted, tell};
use crate::os::interrupted;
use crate::random::system_rng;
use crate::testnet::{self, Ended, Network, Plan, TestnetError};

/// How often `run` looks whether all nodes live: nobody tells it, they are watched by process id.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(command: Testnet, as_json: bool) -> anyhow::Result<()> {
    match command {
        Testnet::Up { dir, nodes } => {
            let network = up(dir.clone(), nodes).await?;
            tell(as_json, &network, describe)?;
            if !as_json {
                eprintln!("end it with: `phantom testnet down --dir {}`", dir.display());
            }
            Ok(())
        }
        Testnet::Down { dir } => down(&dir),
        Testnet::Run { dir, nodes } => foreground(dir.unwrap_or_else(temporary), nodes, as_json).await,
    }
}

async fn foreground(dir: PathBuf, nodes: Nodes, as_json: bool) -> anyhow::Result<()> {
    let network = up(dir.clone(), nodes).await?;
    let shown = tell(as_json, &network, describe);
    let dead = match shown {
        Ok(()) => {
            eprintln!("Ctrl-C ends it");
            until_interrupted(&dir).await
        }
        Err(_) => None,
    };
    let tail = dead.map(|index| testnet::log_tail(&network.nodes[index]));
    down(&dir)?;
    shown?;
    match (dead, tail) {
        (Some(index), Some(tail)) => anyhow::bail!("node {index} ended by itself. The end of its log:\n{tail}"),
        _ => Ok(()),
    }
}

/// Waits for Ctrl-C or SIGTERM, or for a node to die: its index.
async fn until_interrupted(dir: &Path) -> Option<usize> {
    let mut looks = interval(WATCH_PAUSE);
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => return None,
            _ = looks.tick() => {
                if let Some(index) = testnet::first_dead(dir) {
                    return Some(index);
                }
            }
        }
    }
}

async fn up(dir: PathBuf, nodes: Nodes) -> anyhow::Result<Network> {
    crate::logging::parse(&nodes.log)?;
    let phantomd = match nodes.phantomd {
        Some(path) => path,
        None => super::beside("phantomd")?,
    };
    let plan = Plan { nodes: nodes.nodes, dir, phantomd, log: nodes.log };
    eprintln!("whoever runs nodes agrees to EULA.txt: a node is not responsible for what it relays and cannot read");
    let mut progress = Progress::new(plan.nodes);
    let network = testnet::up(&plan, &mut system_rng()?, &mut |ready, reason| progress.show(ready, reason)).await;
    progress.end();
    network.map_err(|error| match error {
        TestnetError::Interrupted(status) => Interrupted { what: "all nodes were stopped", status }.into(),
        other => other.into(),
    })
}

fn down(dir: &Path) -> anyhow::Result<()> {
    eprint!("{}", told(&testnet::down(dir)?));
    Ok(())
}

/// What was stopped, and what of it nobody may have expected.
fn told(ended: &Ended) -> String {
    let mut lines = vec![format!("stopped: {}", counted(ended.stopped.len(), "node"))];
    let by_hand = ended.by_hand.iter();
    lines.extend(by_hand.map(|(node, pid)| format!("node {node} had been started anew by hand (process {pid})")));
    lines.extend(ended.gone.iter().map(|node| format!("node {node} did not run any more")));
    if ended.killed > 0 {
        lines.push(format!("did not end when asked, and killed: {}", counted(ended.killed, "node")));
    }
    lines.join("\n") + "\n"
}

fn temporary() -> PathBuf {
    std::env::temp_dir().join(format!("phantom-testnet-{}", std::process::id()))
}

fn describe(network: &Network) -> String {
    let row = |node: &testnet::Node| {
        let id = node.node_id.get(..12).unwrap_or(&node.node_id).to_owned();
        [node.index.to_string(), id, node.listen.to_string(), node.socket.display().to_string()]
    };
    table(["node", "id", "listens on", "socket (for --daemon)"], &network.nodes.iter().map(row).collect::<Vec<_>>())
}

/// A bar on a terminal; a line per change elsewhere. On standard error: standard output is for the answer.
struct Progress {
    bar: Option<ProgressBar>,
    nodes: usize,
    shown: Option<usize>,
}

impl Progress {
    fn new(nodes: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{bar:24} {pos}/{len} nodes ready, {elapsed}; one waits for:\n{wide_msg}");
            let bar = ProgressBar::new(u64::try_from(nodes).unwrap_or(u64::MAX));
            // The template is ours; a wrong one falls back to the default look.
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, nodes, shown: None }
    }

    fn show(&mut self, ready: usize, reason: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(u64::try_from(ready).unwrap_or(u64::MAX));
            bar.set_message(reason.to_owned());
        } else if self.shown != Some(ready) {
            eprintln!("{ready} of {} nodes ready; one waits for: {reason}", self.nodes);
            self.shown = Some(ready);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_said_and_what_was_odd() {
        let usual = Ended { stopped: vec![(0, 7), (1, 8)], ..Ended::default() };
        assert_eq!(told(&usual), "stopped: 2 nodes\n");
        let odd = Ended { stopped: vec![(1, 9)], by_hand: vec![(1, 9)], gone: vec![0], killed: 1 };
        let expected = "stopped: 1 node\nnode 1 had been started anew by hand (process 9)\nnode 0 did not run any more\n\
                        did not end when asked, and killed: 1 node\n";
        assert_eq!(told(&odd), expected);
    }
}
