//! Tunnels that stand and wait to be used, at either end of a path. Each waits in a task of its own, which notices at once when the
//! other end uses or loses it; who wants one at this end claims it from there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::{PathNo, Work};
use phantom_proto::wire::NodeContact;
use tokio::sync::{Mutex as Turns, Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::relay::cells::Tunnel;

/// Ready tunnels kept per path; both ends refill, so twice a node's own target can come together.
// protocol: T17
const PER_PATH: usize = 64;

/// Why no ready tunnel could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadyError {
    /// None became ready in time.
    #[error("no routing tunnel became ready in time")]
    TimedOut,
}

/// How the wait of a ready tunnel ended.
pub(super) enum Waited {
    /// Somebody at this end claimed it, and has it.
    Claimed,
    /// The other end used it first, with this cell.
    Used(Box<Tunnel>, CellKind, Vec<u8>),
    /// It broke, or its path is gone.
    Lost,
}

/// Where a claimed tunnel is sent.
type Claim = oneshot::Sender<Tunnel>;

/// Ready tunnels of one path at this end.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<oneshot::Sender<Claim>>>,
    more: Notify,
    /// Who waits, in the order of their coming.
    turns: Turns<()>,
}

impl Queue {
    /// Lets a tunnel wait; `put` runs as soon as it can be claimed. The tunnel is dropped when the queue is full or dropped.
    // protocol: T18
    pub(super) async fn wait(queue: Weak<Self>, mut tunnel: Tunnel, put: impl FnOnce()) -> Waited {
        let (claim_tx, claim_rx) = oneshot::channel();
        if !queue.upgrade().is_some_and(|queue| queue.put(claim_tx)) {
            return Waited::Lost;
        }
        put();
        let came = tokio::select! {
            biased;
            claim = claim_rx => match claim {
                // Whoever claimed it and went away meanwhile has no use for it; nor has the next, who cannot know what it said.
                Ok(claim) => return claim.send(tunnel).map_or(Waited::Lost, |()| Waited::Claimed),
                Err(_) => return Waited::Lost,
            },
            cell = tunnel.incoming.read() => match cell {
                Ok(Some((kind, data))) => Some((kind, data.to_vec())),
                Ok(None) => None,
                // Noise: somebody on the way changed it.
                Err(error) => {
                    tunnel.abort(error.reason()).await;
                    return Waited::Lost;
                }
            },
        };
        came.map_or(Waited::Lost, |(kind, data)| Waited::Used(Box::new(tunnel), kind, data))
    }

    /// False: the queue is full.
    fn put(&self, claim_tx: oneshot::Sender<Claim>) -> bool {
        let mut waiting = self.lock();
        // Those that the other end has used meanwhile.
        waiting.retain(|waiting| !waiting.is_closed());
        if waiting.len() >= PER_PATH {
            return false;
        }
        waiting.push_back(claim_tx);
        self.more.notify_one();
        true
    }

    /// A tunnel that waits just now, if there is one.
    async fn claim(&self) -> Option<Tunnel> {
        loop {
            let waiting = self.lock().pop_front()?;
            let (tunnel_tx, tunnel_rx) = oneshot::channel();
            // One that was used or lost meanwhile is not there any more.
            if waiting.send(tunnel_tx).is_ok()
                && let Ok(tunnel) = tunnel_rx.await
            {
                return Some(tunnel);
            }
        }
    }

    /// Takes a tunnel; waits up to `limit` for one, behind whoever came before.
    pub(super) async fn take(&self, limit: Duration) -> Option<Tunnel> {
        let deadline = Instant::now() + limit;
        let _turn = timeout_at(deadline, self.turns.lock()).await.ok()?;
        loop {
            if let Some(tunnel) = self.claim().await {
                return Some(tunnel);
            }
            timeout_at(deadline, self.more.notified()).await.ok()?;
        }
    }

    fn count(&self) -> usize {
        self.lock().iter().filter(|waiting| !waiting.is_closed()).count()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Claim>>> {
        // No code panics while it holds the lock; a poisoned queue would still be whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of an own path.
#[derive(Debug, Clone)]
pub struct OwnPath {
    /// The path.
    pub no: PathNo,
    /// What it does.
    pub work: Work,
    /// For whom; none while it is a spare.
    pub identity: Option<ApAddress>,
    /// Its X-nodes, nearest first.
    pub hops: Vec<NodeContact>,
    /// When it came up.
    pub since: Instant,
}

type Paths = BTreeMap<PathNo, (OwnPath, Arc<Queue>)>;

type WaitingFor = BTreeMap<(ApAddress, Work), Weak<Turns<()>>>;

/// Own paths and their ready tunnels.
#[derive(Default)]
pub struct Ready {
    paths: Mutex<Paths>,
    changed: Notify,
    /// Who waits for a tunnel, per identity and work and in the order of their coming: otherwise those who come just when there
    /// is one would take it from those who wait. As many as there are connections to come about, which the gates bound.
    turns: Mutex<WaitingFor>,
}

impl Ready {
    /// All own paths with the number of their ready tunnels.
    pub fn paths(&self) -> Vec<(OwnPath, usize)> {
        self.lock().values().map(|(path, queue)| (path.clone(), queue.count())).collect()
    }

    /// One own path.
    pub fn path(&self, no: PathNo) -> Option<OwnPath> {
        self.lock().get(&no).map(|(path, _)| path.clone())
    }

    /// Ready tunnels of all own paths.
    pub fn tunnels(&self) -> usize {
        self.lock().values().map(|(_, queue)| queue.count()).sum()
    }

    pub(super) fn path_up(&self, no: PathNo, hops: Vec<NodeContact>) -> Arc<Queue> {
        let path = OwnPath { no, work: Work::Spare, identity: None, hops, since: Instant::now() };
        let queue = Arc::<Queue>::default();
        self.lock().insert(no, (path, queue.clone()));
        queue
    }

    pub(super) fn works(&self, no: PathNo, identity: ApAddress, work: Work) {
        if let Some((path, _)) = self.lock().get_mut(&no) {
            (path.work, path.identity) = (work, Some(identity));
        }
        self.changed.notify_waiters();
    }

    pub(super) fn path_down(&self, no: PathNo) {
        self.lock().remove(&no);
        self.changed.notify_waiters();
    }

    pub(super) fn queue(&self, no: PathNo) -> Option<Arc<Queue>> {
        self.lock().get(&no).map(|(_, queue)| queue.clone())
    }

    /// A tunnel can be claimed.
    pub(super) fn put(&self) {
        self.changed.notify_waiters();
    }

    /// Takes a ready tunnel of a path that does this work for the identity; waits up to `limit` for one, behind whoever came
    /// before.
    pub(super) async fn take(
        &self,
        identity: ApAddress,
        work: Work,
        limit: Duration,
    ) -> Result<(OwnPath, Tunnel), ReadyError> {
        let deadline = Instant::now() + limit;
        let turns = self.turns(identity, work);
        let _turn = timeout_at(deadline, turns.lock()).await.map_err(|_| ReadyError::TimedOut)?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a tunnel put in between is not missed.
            changed.as_mut().enable();
            for (path, queue) in self.at_work(identity, work) {
                if let Some(tunnel) = queue.claim().await {
                    return Ok((path, tunnel));
                }
            }
            timeout_at(deadline, changed).await.map_err(|_| ReadyError::TimedOut)?;
        }
    }

    fn turns(&self, identity: ApAddress, work: Work) -> Arc<Turns<()>> {
        let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(&(identity, work)).and_then(Weak::upgrade) {
            return turns;
        }
        // Those for which nobody waits any more.
        all.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::default();
        all.insert((identity, work), Arc::downgrade(&turns));
        turns
    }

    /// The newest path first: an older one of the same identity is about to end.
    fn at_work(&self, identity: ApAddress, work: Work) -> Vec<(OwnPath, Arc<Queue>)> {
        let works = |path: &OwnPath| path.identity == Some(identity) && path.work == work;
        self.lock().values().rev().filter(|(path, _)| works(path)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Paths> {
        // No code panics while it holds the lock; a poisoned map would still be whole.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use phantom_proto::cell::{CELL_LEN, Direction, Layer, OwnerCrypt, TunnelKey};
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::frame::{Reason, kind};
    use zeroize::Zeroizing;

    use super::*;
    use crate::link::{Link, Purpose as LinkPurpose, Stream};
    use crate::relay::Taken;
    use crate::relay::cells::Crypt;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A tunnel that stands as long as its other end does.
    fn tunnel() -> (Tunnel, impl Stream) {
        let (stream, far) = tokio::io::duplex(1024);
        let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
        let remote = ([127, 0, 0, 1], 443).into();
        let (reader, writer) =
            Link { peer, remote, purpose: LinkPurpose::Frames, retires: None, stream: Box::new(stream) }.into_frames();
        let layer = |direction| Crypt::End(Box::new(Layer::new(&TunnelKey(Zeroizing::new([1; 32])), direction)));
        let taken = Taken { reader, writer, back: None };
        (Tunnel::new(taken, layer(Direction::Onward), layer(Direction::Backward)), far)
    }

    fn identity(number: u8) -> ApAddress {
        ApAddress::of(&SigningKey::from_seed(&[number; 32]).verifying_key())
    }

    /// With one path that connects per identity.
    fn ready(identities: &[u8]) -> Arc<Ready> {
        let ready = Arc::new(Ready::default());
        for number in identities {
            ready.path_up(PathNo(u64::from(*number)), Vec::new());
            ready.works(PathNo(u64::from(*number)), identity(*number), Work::Connect);
        }
        ready
    }

    /// Lets a tunnel wait in the background; what it returns keeps it standing.
    async fn put(ready: &Arc<Ready>, no: u64) -> impl Stream + use<> {
        let (tunnel, far) = tunnel();
        let queue = Arc::downgrade(&ready.queue(PathNo(no)).unwrap());
        let ready = ready.clone();
        tokio::spawn(async move { Queue::wait(queue, tunnel, || ready.put()).await });
        tokio::task::yield_now().await;
        far
    }

    #[tokio::test]
    async fn who_comes_when_a_tunnel_does_leaves_it_to_those_who_wait() {
        let ready = ready(&[1, 2]);
        let take = |number| Box::pin(ready.take(identity(number), Work::Connect, PATIENCE));
        let (mut first, mut second) = (take(1), take(1));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let _far_one = put(&ready, 1).await;
        let mut third = take(1);
        assert!(third.as_mut().now_or_never().is_none(), "it has overtaken two");
        assert!(second.as_mut().now_or_never().is_none(), "it has overtaken one");
        assert!(first.await.is_ok(), "it is its turn");
        // Who gives up holds up nobody, nor does another identity, nor another work.
        drop(second);
        let _far_two = put(&ready, 1).await;
        assert!(take(2).now_or_never().is_none());
        assert!(Box::pin(ready.take(identity(1), Work::Ask, PATIENCE)).now_or_never().is_none());
        assert!(third.await.is_ok(), "it is its turn");
        drop(ready.turns(identity(3), Work::Ask));
        assert_eq!(ready.turns.lock().unwrap().len(), 1, "nothing is kept of identities for which nobody waits");
    }

    #[tokio::test]
    async fn so_it_is_at_the_entry_node() {
        let queue = Arc::new(Queue::default());
        let take = || {
            let queue = queue.clone();
            Box::pin(async move { queue.take(PATIENCE).await })
        };
        let put = || {
            let (tunnel, far) = tunnel();
            tokio::spawn(Queue::wait(Arc::downgrade(&queue), tunnel, || ()));
            far
        };
        let mut first = take();
        assert!(first.as_mut().now_or_never().is_none());
        let _far_one = put();
        let mut second = take();
        assert!(second.as_mut().now_or_never().is_none(), "it has overtaken one");
        assert!(first.await.is_some(), "it is its turn");
        let _far_two = put();
        assert!(second.await.is_some(), "it is its turn");
    }

    // protocol: T17
    #[tokio::test]
    async fn tunnels_that_the_other_end_used_take_no_place() {
        let queue = Arc::new(Queue::default());
        for _ in 0..2 * PER_PATH {
            let (tunnel, far) = tunnel();
            let waits = tokio::spawn(Queue::wait(Arc::downgrade(&queue), tunnel, || ()));
            tokio::task::yield_now().await;
            assert_eq!(queue.count(), 1);
            drop(far);
            assert!(matches!(waits.await.unwrap(), Waited::Lost));
        }
        assert!(queue.lock().len() <= 1);
    }

    /// What comes first may be noise: the other end hears that it was, and nobody here gets the tunnel.
    // protocol: X6
    #[tokio::test]
    async fn noise_on_a_tunnel_that_waits_is_answered_by_abort() {
        let queue = Arc::new(Queue::default());
        let (tunnel, far) = tunnel();
        let peer = SigningKey::from_seed(&[2; 32]).verifying_key();
        let remote = ([127, 0, 0, 1], 443).into();
        let link = Link { peer, remote, purpose: LinkPurpose::Frames, retires: None, stream: Box::new(far) };
        let (reader, mut writer) = link.into_frames();
        let waits = tokio::spawn(Queue::wait(Arc::downgrade(&queue), tunnel, || ()));
        writer.write(kind::CELL, &[7; CELL_LEN]).await.unwrap();
        writer.flush().await.unwrap();
        // As its owner, who has one hop: what the end enciphered is peeled off.
        let key = || TunnelKey(Zeroizing::new([1; 32]));
        let crypt = |direction| Crypt::Owner(OwnerCrypt::new(&[key()], direction));
        let taken = Taken { reader, writer, back: None };
        let mut owner = Tunnel::new(taken, crypt(Direction::Backward), crypt(Direction::Onward));
        let heard = owner.incoming.read().await.unwrap().map(|(kind, data)| (kind, data.to_vec()));
        assert_eq!(heard, Some((CellKind::Abort, vec![Reason::Protocol as u8])));
        assert!(matches!(waits.await.unwrap(), Waited::Lost));
    }

    // protocol: T18
    #[tokio::test]
    async fn a_tunnel_that_broke_is_not_given_to_anybody() {
        let ready = ready(&[1]);
        let far = put(&ready, 1).await;
        assert_eq!(ready.tunnels(), 1);
        drop(far);
        while ready.tunnels() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(Box::pin(ready.take(identity(1), Work::Connect, PATIENCE)).now_or_never().is_none());
        // When its path goes, a tunnel that waits goes too.
        let (tunnel, _far) = tunnel();
        let queue = Arc::downgrade(&ready.queue(PathNo(1)).unwrap());
        let waits = tokio::spawn(Queue::wait(queue, tunnel, || ()));
        tokio::task::yield_now().await;
        ready.path_down(PathNo(1));
        assert!(matches!(waits.await.unwrap(), Waited::Lost));
    }
}
