//! How the rest of the daemon speaks to the control task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use phantom_proto::command::Bans;
use phantom_proto::crypto::{SigningKey, derive};
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Input, Of, PathNo, Serials, Vitals, Work};
use phantom_proto::path::{Candidate, PathKeys};
use phantom_proto::record::{NodeRecord, Signed};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::order::beside;
use super::ready::Given;
use super::{Event, Kept, OwnPath, ReadyError, want};
use crate::link::Link;
use crate::relay::cells::Tunnel;

/// What the node says of itself.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Own paths that work for what goes out, or will.
    pub exit_paths: usize,
    /// Own entry paths that work.
    pub entry_paths: usize,
    /// All own paths with the number of their ready tunnels.
    pub paths: Vec<(OwnPath, usize)>,
    /// Paths carried for others.
    pub relayed_paths: usize,
    /// What a first own path waits for, in words.
    pub waiting_for: Option<String>,
    /// What went wrong of late, in words.
    pub notes: Vec<String>,
    /// How the node is, as a value.
    pub vitals: Vitals,
    /// How own services are seen from outside, in words.
    pub seen: BTreeMap<ApAddress, String>,
    /// Sizes of the node's tables: links, dials, paths, segments, tunnels under way, seeds, joined links.
    pub load: [usize; 7],
}

/// Speaks to the control task; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) event_tx: mpsc::Sender<Event>,
    pub(super) kept: Arc<dyn Kept>,
}

impl Handle {
    /// Gives the node the local sample of the node table.
    pub async fn sample(&self, sample: Vec<Candidate>) {
        self.input(Input::Sample(sample)).await;
    }

    /// Tells which nodes the database has just connected with.
    pub async fn back(&self, nodes: BTreeSet<NodeId>) {
        self.input(Input::Back(nodes)).await;
    }

    /// Tells which nodes of the sample do not answer.
    pub async fn silent(&self, silent: BTreeSet<NodeId>) {
        self.input(Input::Silent(silent)).await;
    }

    /// Tells what maintainers' commands come to.
    pub async fn bans(&self, bans: Arc<Bans>) {
        self.input(Input::Bans(bans)).await;
    }

    /// Asks for paths over which this identity connects.
    pub async fn want_exit(&self, key: &SigningKey) {
        let identity = ApAddress::of(&key.verifying_key());
        self.settle(key, identity).await;
        self.input(Input::WantExit(identity)).await;
    }

    /// Asks for entry paths of this identity, to be published.
    pub async fn want_entry(&self, key: Arc<SigningKey>) {
        let identity = ApAddress::of(&key.verifying_key());
        self.settle(&key, identity).await;
        let serials = self.serials(identity).await;
        self.input(Input::WantEntry(key, serials)).await;
    }

    /// The serials of an identity's AP records.
    pub async fn serials(&self, identity: ApAddress) -> Serials {
        let kept = self.kept.clone();
        beside(move || kept.serials(identity)).await.unwrap_or_default()
    }

    /// Those of a process before, of an identity that does not begin to listen before this returns.
    pub async fn follow_serials(&self, identity: ApAddress, serials: Serials) {
        let kept = self.kept.clone();
        let _ = beside(move || kept.save_serials(identity, serials)).await;
    }

    /// Keeps spares for an identity that outlives the daemon and was last used at this time, in seconds since 1970.
    pub async fn expect(&self, key: &SigningKey, used: u64) {
        let (kept, identity) = (self.kept.clone(), ApAddress::of(&key.verifying_key()));
        self.restore(key, identity, move || kept.sets(identity)).await;
        self.input(Input::Expect { identity, used: used * 1000 }).await;
    }

    /// An identity begins to be used.
    async fn settle(&self, key: &SigningKey, identity: ApAddress) {
        let kept = self.kept.clone();
        let sets = move || {
            kept.used(identity);
            kept.sets(identity)
        };
        self.restore(key, identity, sets).await;
    }

    /// Gives an identity that outlives the daemon the nodes that it had in earlier runs.
    async fn restore(
        &self,
        key: &SigningKey,
        identity: ApAddress,
        sets: impl FnOnce() -> Option<Vec<u8>> + Send + 'static,
    ) {
        let kept = self.kept.clone();
        if let Ok(Some(sets)) = beside(move || kept.lasts(identity).then(sets)).await {
            let secret = derive("phantom v1 identity secret", &[key.seed()]);
            self.input(Input::Lasting { identity, secret: Zeroizing::new(secret), sets }).await;
        }
    }

    /// Tells by how many milliseconds the clocks of others are ahead of ours, as far as that is known.
    pub async fn clock(&self, ahead: Option<i64>) {
        self.input(Input::Clock(ahead)).await;
    }

    /// Tells that this computer has come into another network.
    pub async fn moved(&self) {
        self.input(Input::Moved).await;
    }

    /// All keys with which others build paths from now on, what this node's record says, and the record.
    pub async fn rotate(&self, keys: Vec<PathKeys>, own: Candidate, record: &Signed<NodeRecord>) {
        self.input(Input::Rotate { keys, own: Box::new(own), record: record.bytes().to_vec() }).await;
    }

    /// Drops all paths of this identity.
    pub async fn forget(&self, identity: ApAddress) {
        self.input(Input::Forget(identity)).await;
    }

    /// Drops all paths of this identity, and keeps none for it.
    pub async fn removed(&self, identity: ApAddress) {
        self.input(Input::Removed(identity)).await;
    }

    /// Gives the node a link that was accepted.
    pub async fn accepted(&self, link: Link) {
        // The control task is gone only when the daemon stops.
        let _ = self.event_tx.send(Event::Accepted(link)).await;
    }

    /// What the node says of itself; `None` when the daemon is stopping.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.event_tx.send(Event::Query(answer_tx)).await.ok()?;
        answer_rx.await.ok()
    }

    /// A ready tunnel of an own path that does this work for the identity, taken for use.
    pub async fn tunnel(
        &self,
        identity: ApAddress,
        work: Work,
        limit: Duration,
    ) -> Result<(OwnPath, Tunnel), ReadyError> {
        let Given { path, tunnel } =
            want(&self.event_tx, Of::Work(identity, work), limit).await.ok_or(ReadyError::TimedOut)?;
        // Only of own paths is a work.
        Ok((path.ok_or(ReadyError::TimedOut)?, tunnel))
    }

    /// A ready tunnel of one own path.
    pub async fn tunnel_of(&self, path: PathNo, limit: Duration) -> Option<Tunnel> {
        want(&self.event_tx, Of::Path(path), limit).await.map(|given| given.tunnel)
    }

    /// How a [`super::Visit`] ended: whether it came in along the entry, and was answered.
    pub async fn visited(&self, path: PathNo, reached: bool) {
        self.input(Input::Visited { path, reached }).await;
    }

    /// What was found by a [`super::LookUp`]: the serial of a record that holds, or none.
    pub async fn looked_up(&self, path: PathNo, serial: Option<u64>) {
        self.input(Input::LookedUp { path, serial }).await;
    }

    /// Whether others can open links to this node.
    pub async fn reachable(&self, reachable: bool) {
        self.input(Input::Reachable(reachable)).await;
    }

    /// Tells that an own service was reached from outside otherwise.
    pub async fn seen(&self, identity: ApAddress) {
        self.input(Input::Seen(identity)).await;
    }

    /// Tells what an [`phantom_proto::node::Inquiry`] wants the node to know.
    pub async fn tell(&self, found: Input) {
        self.input(found).await;
    }

    /// Tells that noise came over a tunnel of an own path: a node of it makes noise of cells.
    pub async fn noise(&self, path: PathNo) {
        self.input(Input::Misused(path)).await;
    }

    /// Tells that a tunnel of an own path broke off before a word had come.
    pub async fn broke(&self, path: PathNo) {
        self.input(Input::Broke(path)).await;
    }

    async fn input(&self, input: Input) {
        let _ = self.event_tx.send(Event::Input(input)).await;
    }
}
