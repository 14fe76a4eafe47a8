//! Tunnels that stand and wait to be used: those of own exit paths, and at an entry node those of the paths that end there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phantom_proto::ident::ApAddress;
use phantom_proto::node::{PathNo, Purpose};
use phantom_proto::wire::NodeContact;
use tokio::sync::{Mutex as Turns, Notify};
use tokio::time::{Instant, timeout_at};

use crate::relay::cells::Tunnel;

/// Ready tunnels kept per path; both ends refill, so twice a node's own target can come together.
const PER_PATH: usize = 64;

/// Why no ready tunnel could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadyError {
    /// None became ready in time.
    #[error("no routing tunnel became ready in time")]
    TimedOut,
}

/// What is known of an own path.
#[derive(Debug, Clone)]
pub struct OwnPath {
    /// The path.
    pub no: PathNo,
    /// What it is for.
    pub purpose: Purpose,
    /// Its X-nodes, nearest first.
    pub hops: Vec<NodeContact>,
    /// When it came up.
    pub since: Instant,
}

/// Own paths and the ready tunnels of those that are exit paths.
#[derive(Default)]
pub struct Ready {
    paths: Mutex<BTreeMap<PathNo, (OwnPath, VecDeque<Tunnel>)>>,
    changed: Notify,
    /// Who waits for a tunnel, per identity and in the order of their coming: otherwise those who come just when there is
    /// one would take it from those who wait. As many as there are connections to come about, which the gates bound.
    turns: Mutex<BTreeMap<ApAddress, Weak<Turns<()>>>>,
}

impl Ready {
    /// All own paths with the number of their ready tunnels.
    pub fn paths(&self) -> Vec<(OwnPath, usize)> {
        self.lock().values().map(|(path, tunnels)| (path.clone(), tunnels.len())).collect()
    }

    /// One own path.
    pub fn path(&self, no: PathNo) -> Option<OwnPath> {
        self.lock().get(&no).map(|(path, _)| path.clone())
    }

    /// Whether this identity has an exit path of its own.
    pub fn has_exit(&self, identity: ApAddress) -> bool {
        self.lock().values().any(|(path, _)| path.purpose == Purpose::Exit(identity))
    }

    /// Ready tunnels of all own exit paths.
    pub fn tunnels(&self) -> usize {
        self.lock().values().map(|(_, tunnels)| tunnels.len()).sum()
    }

    pub(super) fn path_up(&self, no: PathNo, purpose: Purpose, hops: Vec<NodeContact>) {
        let path = OwnPath { no, purpose, hops, since: Instant::now() };
        self.lock().insert(no, (path, VecDeque::new()));
    }

    pub(super) fn assign(&self, no: PathNo, purpose: Purpose) {
        if let Some((path, _)) = self.lock().get_mut(&no) {
            path.purpose = purpose;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn path_down(&self, no: PathNo) {
        self.lock().remove(&no);
        self.changed.notify_waiters();
    }

    /// Resolves when an own path is gone.
    pub(super) async fn gone(&self, no: PathNo) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.path(no).is_none() {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn purpose(&self, no: PathNo) -> Option<Purpose> {
        self.path(no).map(|path| path.purpose)
    }

    pub(super) fn is_entry(&self, no: PathNo) -> bool {
        matches!(self.purpose(no), Some(Purpose::Entry(_)))
    }

    pub(super) fn put(&self, no: PathNo, tunnel: Tunnel) {
        if let Some((_, tunnels)) = self.lock().get_mut(&no)
            && tunnels.len() < PER_PATH
        {
            tunnels.push_back(tunnel);
        }
        self.changed.notify_waiters();
    }

    /// Takes a ready tunnel of the identity's own exit path; waits up to `limit` for one, behind whoever came before. `lost`
    /// hears of each that broke while it waited.
    pub(super) async fn exit_tunnel(
        &self,
        identity: ApAddress,
        limit: Duration,
        lost: impl Fn(PathNo),
    ) -> Result<(OwnPath, Tunnel), ReadyError> {
        let deadline = Instant::now() + limit;
        let turns = self.turns(identity);
        let _turn = timeout_at(deadline, turns.lock()).await.map_err(|_| ReadyError::TimedOut)?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a tunnel put in between is not missed.
            changed.as_mut().enable();
            if let Some(found) = self.take(identity, &lost) {
                return Ok(found);
            }
            timeout_at(deadline, changed).await.map_err(|_| ReadyError::TimedOut)?;
        }
    }

    fn turns(&self, identity: ApAddress) -> Arc<Turns<()>> {
        let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(&identity).and_then(Weak::upgrade) {
            return turns;
        }
        // Those for which nobody waits any more.
        all.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::default();
        all.insert(identity, Arc::downgrade(&turns));
        turns
    }

    fn take(&self, identity: ApAddress, lost: &impl Fn(PathNo)) -> Option<(OwnPath, Tunnel)> {
        let mut paths = self.lock();
        // The newest path first: an older one of the same identity is about to end.
        let own = paths.values_mut().rev().filter(|(path, _)| path.purpose == Purpose::Exit(identity));
        for (path, tunnels) in own {
            while let Some(mut tunnel) = tunnels.pop_front() {
                if tunnel.is_quiet() {
                    return Some((path.clone(), tunnel));
                }
                lost(path.no);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathNo, (OwnPath, VecDeque<Tunnel>)>> {
        // No code panics while it holds the lock; a poisoned map would still be whole.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready tunnels of one entry path, at its entry node.
#[derive(Default)]
pub(super) struct Queue {
    tunnels: Mutex<VecDeque<Tunnel>>,
    more: Notify,
    /// Who waits, in the order of their coming.
    turns: Turns<()>,
}

impl Queue {
    pub(super) fn put(&self, tunnel: Tunnel) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if tunnels.len() < PER_PATH {
            tunnels.push_back(tunnel);
            self.more.notify_one();
        }
    }

    /// Takes a tunnel whose link still stands; waits up to `limit` for one, behind whoever came before. `lost` hears of each
    /// that broke while it waited.
    pub(super) async fn take(&self, limit: Duration, lost: impl Fn()) -> Option<Tunnel> {
        let deadline = Instant::now() + limit;
        let _turn = timeout_at(deadline, self.turns.lock()).await.ok()?;
        loop {
            if let Some(tunnel) = self.pop(&lost) {
                return Some(tunnel);
            }
            timeout_at(deadline, self.more.notified()).await.ok()?;
        }
    }

    fn pop(&self, lost: &impl Fn()) -> Option<Tunnel> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut tunnel) = tunnels.pop_front() {
            if tunnel.is_quiet() {
                return Some(tunnel);
            }
            lost();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use phantom_proto::cell::{Direction, Layer, TunnelKey};
    use phantom_proto::crypto::SigningKey;
    use zeroize::Zeroizing;

    use super::*;
    use crate::driver::Taken;
    use crate::link::{Link, Purpose as LinkPurpose, Stream};
    use crate::relay::cells::Crypt;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A tunnel that stands as long as its other end does.
    fn tunnel() -> (Tunnel, impl Stream) {
        let (stream, far) = tokio::io::duplex(1024);
        let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
        let remote = ([127, 0, 0, 1], 443).into();
        let (reader, writer) =
            Link { peer, remote, purpose: LinkPurpose::Frames, stream: Box::new(stream) }.into_frames();
        let layer = |direction| Crypt::End(Box::new(Layer::new(&TunnelKey(Zeroizing::new([1; 32])), direction)));
        let taken = Taken { reader, writer, pending: None };
        (Tunnel::new(taken, layer(Direction::Onward), layer(Direction::Backward)), far)
    }

    fn identity(number: u8) -> ApAddress {
        ApAddress::of(&SigningKey::from_seed(&[number; 32]).verifying_key())
    }

    /// With one exit path per identity.
    fn ready(identities: &[u8]) -> Ready {
        let ready = Ready::default();
        for number in identities {
            ready.path_up(PathNo(u64::from(*number)), Purpose::Exit(identity(*number)), Vec::new());
        }
        ready
    }

    #[tokio::test]
    async fn who_comes_when_a_tunnel_does_leaves_it_to_those_who_wait() {
        let ready = ready(&[1, 2]);
        let take = |number| Box::pin(ready.exit_tunnel(identity(number), PATIENCE, |_| {}));
        let (mut first, mut second) = (take(1), take(1));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let (one, _far_one) = tunnel();
        ready.put(PathNo(1), one);
        let mut third = take(1);
        assert!(third.as_mut().now_or_never().is_none(), "it has overtaken two");
        assert!(second.as_mut().now_or_never().is_none(), "it has overtaken one");
        assert!(first.now_or_never().expect("it is its turn").is_ok());
        // Who gives up holds up nobody, nor does another identity.
        drop(second);
        let (two, _far_two) = tunnel();
        ready.put(PathNo(1), two);
        assert!(take(2).now_or_never().is_none());
        assert!(third.now_or_never().expect("it is its turn").is_ok());
        drop(ready.turns(identity(3)));
        assert_eq!(waited_for(&ready), 1, "nothing is kept of identities for which nobody waits");
    }

    fn waited_for(ready: &Ready) -> usize {
        ready.turns.lock().unwrap().len()
    }

    #[tokio::test]
    async fn so_it_is_at_the_entry_node() {
        let queue = Queue::default();
        let take = || Box::pin(queue.take(PATIENCE, || {}));
        let mut first = take();
        assert!(first.as_mut().now_or_never().is_none());
        let (one, _far_one) = tunnel();
        queue.put(one);
        let mut second = take();
        assert!(second.as_mut().now_or_never().is_none(), "it has overtaken one");
        assert!(first.now_or_never().expect("it is its turn").is_some());
        let (two, _far_two) = tunnel();
        queue.put(two);
        assert!(second.now_or_never().expect("it is its turn").is_some());
    }
}
