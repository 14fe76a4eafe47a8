//! Gathers the numbers of `metrics`: from the same places as the status, without whose they are.

use async_trait::async_trait;
use phantom_proto::node::{Times, Work};

use super::Running;
use super::answers::{ready_tunnels, waiting_for};
use crate::driver::Snapshot;
use crate::metrics::{Numbers, Source};
use crate::router::Forwarding;

#[async_trait]
impl Source for Running {
    async fn metrics(&self) -> String {
        let known = self.database.known().borrow().clone();
        let snapshot = self.handle.snapshot().await.unwrap_or_default();
        let (warnings, _) = self.watch(&self.facts(&known, &snapshot).await);
        let ready_tunnels = ready_tunnels(&snapshot);
        let open = self.network.connections();
        let open = |incoming| open.iter().filter(|(_, one)| one.open && one.incoming == incoming).count() as u64;
        let (connections_begun, bytes) = self.network.totals();
        let roots = warnings.into_iter().filter(|warning| warning.caused_by.is_none());
        let numbers = Numbers {
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: waiting_for(&known, snapshot.exit_paths, snapshot.waiting_for.clone(), ready_tunnels).is_empty(),
            paths: paths(&snapshot),
            ready_tunnels: ready_tunnels as u64,
            connections: [open(false), open(true)],
            connections_begun,
            bytes,
            relayed: [snapshot.relayed_paths as u64, self.counters.open_relays()],
            relayed_bytes: self.counters.relayed_bytes(),
            builds: builds(snapshot.vitals.times),
            warnings: roots.map(|warning| (warning.code, warning.affects_connections)).collect(),
            nodes: [known.connected as u64, known.nodes.len() as u64],
            silent_nodes: known.silent.len() as u64,
            published: known.stands.is_some_and(|stands| stands.since.is_some()),
            forwarded: matches!(self.router.forwarding(), Forwarding::Forwards { .. }),
        };
        numbers.text().unwrap_or_default()
    }
}

fn paths(snapshot: &Snapshot) -> Vec<(&'static str, u64)> {
    let count = |works: &[Work]| snapshot.paths.iter().filter(|(path, _)| works.contains(&path.work)).count() as u64;
    vec![
        ("spare", count(&[Work::Spare, Work::Leaving])),
        ("exit", count(&[Work::Connect])),
        ("lookup", count(&[Work::Ask, Work::AskAgain])),
        ("entry", count(&[Work::Serve])),
    ]
}

fn builds(times: Times) -> Vec<(&'static str, u64)> {
    let Times { stood, failed, first_away, no_plan, lost } = times;
    vec![("stood", stood), ("failed", failed), ("first-away", first_away), ("no-plan", no_plan), ("lost", lost)]
}
