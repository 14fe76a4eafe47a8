//! Tunnels that stand and wait for their use, at either end of a path: their links, each in a task that notices at once when the other
//! end uses or loses its tunnel. How many there are, and whose turn it is, is the node's to say.
//!
//! ```text
//!   keep ──▶ waits ──claim──▶ given to the claimant
//!              ╰──first cell, loss, noise──▶ Waited, with the claim that came too late, if one did
//! ```
//!
//! The tasks are owned here, so that the end of none goes unnoticed, however it ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::{Of, PathNo, TunnelNo, WantNo, Work};
use phantom_proto::wire::NodeContact;
use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::control::Whose;
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

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
    /// What it does.
    pub work: Work,
    /// For whom; none while it is a spare.
    pub identity: Option<ApAddress>,
    /// Its X-nodes, nearest first.
    pub hops: Vec<NodeContact>,
    /// When it came up.
    pub since: Instant,
}

/// A tunnel that somebody has got, and the own path that it is of; none: the path ends here.
pub(crate) struct Given {
    pub(super) path: Option<OwnPath>,
    pub(super) tunnel: Tunnel,
}

/// Somebody who waits for a tunnel.
pub(super) struct Claimant {
    pub(super) of: Of,
    pub(super) deadline: Instant,
    pub(super) tunnel_tx: oneshot::Sender<Given>,
}

/// A grant on its way to the task that has the tunnel.
pub(super) struct Claim {
    pub(super) want: WantNo,
    pub(super) claimant: Claimant,
    path: Option<OwnPath>,
    held: Option<Arc<()>>,
}

impl Claim {
    fn give(self, mut tunnel: Tunnel) {
        tunnel.held = self.held;
        // Whoever went away in this very moment has no use for it; nor has the next, who cannot know what it said.
        let _ = self.claimant.tunnel_tx.send(Given { path: self.path, tunnel });
    }
}

/// How the wait of a ready tunnel ended.
pub(super) enum Waited {
    /// Somebody at this end has it.
    Claimed,
    /// The other end used it first, with this cell.
    Used { tunnel: Box<Tunnel>, kind: CellKind, data: Vec<u8>, late: Option<Claim> },
    /// It broke, or is not wanted any more.
    Lost { late: Option<Claim> },
    /// What came was noise: a node of its path makes noise of cells.
    Noise { late: Option<Claim> },
}

/// Which tunnel it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitsFor {
    pub(super) tunnel: TunnelNo,
    pub(super) path: PathNo,
    pub(super) whose: Whose,
}

/// What became of a grant.
pub(super) enum Granted {
    /// It is on its way.
    Given,
    /// The tunnel is not there any more: who wants one still does.
    Missed(WantNo, Claimant),
    /// Nobody wants the tunnel any more.
    Declined,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    tasks: JoinSet<Waited>,
    kept: HashMap<Id, WaitsFor>,
    /// Of tunnels that nobody was granted: the path, and the way to their tasks.
    claims: BTreeMap<TunnelNo, (PathNo, oneshot::Sender<Claim>)>,
    claimants: BTreeMap<WantNo, Claimant>,
    next: u64,
}

impl Waiting {
    /// Lets a tunnel wait.
    pub(super) fn keep(&mut self, kept: WaitsFor, tunnel: impl Future<Output = Option<Tunnel>> + Send + 'static) {
        let (claim_tx, claim_rx) = oneshot::channel();
        let id = self.tasks.spawn(wait(tunnel, claim_rx)).id();
        self.kept.insert(id, kept);
        self.claims.insert(kept.tunnel, (kept.path, claim_tx));
    }

    /// The next tunnel whose wait is over; `None`: none waits.
    pub(super) async fn next(&mut self) -> Option<(WaitsFor, Waited)> {
        loop {
            let (id, waited) = match self.tasks.join_next_with_id().await? {
                Ok(done) => done,
                // It panicked: whoever was granted it hears so by the end of the channel.
                Err(error) => (error.id(), Waited::Lost { late: None }),
            };
            if let Some(kept) = self.kept.remove(&id) {
                self.claims.remove(&kept.tunnel);
                return Some((kept, waited));
            }
        }
    }

    /// Somebody waits from now on.
    pub(super) fn enter(&mut self, claimant: Claimant) -> WantNo {
        self.next += 1;
        self.wait_again(WantNo(self.next), claimant);
        WantNo(self.next)
    }

    /// Somebody whose grant came to nothing waits on.
    pub(super) fn wait_again(&mut self, want: WantNo, claimant: Claimant) {
        self.claimants.insert(want, claimant);
    }

    /// Somebody waits no more.
    pub(super) fn leave(&mut self, want: WantNo) {
        self.claimants.remove(&want);
    }

    /// Gives a tunnel to somebody. `held`: what counts its use.
    pub(super) fn grant(
        &mut self,
        want: WantNo,
        tunnel: TunnelNo,
        path: Option<OwnPath>,
        held: Option<Arc<()>>,
    ) -> Granted {
        let Some(claimant) = self.claimants.remove(&want).filter(|claimant| !claimant.tunnel_tx.is_closed()) else {
            return Granted::Declined;
        };
        let Some((_, claim_tx)) = self.claims.remove(&tunnel) else { return Granted::Missed(want, claimant) };
        // The control tunnel is none: it stands as long as the path does.
        let held = held.filter(|_| matches!(claimant.of, Of::Work(..)));
        match claim_tx.send(Claim { want, claimant, path, held }) {
            Ok(()) => Granted::Given,
            Err(claim) => Granted::Missed(claim.want, claim.claimant),
        }
    }

    /// A tunnel is not wanted any more.
    pub(super) fn drop_tunnel(&mut self, tunnel: TunnelNo) {
        self.claims.remove(&tunnel);
    }

    /// The tunnels of a path are not wanted any more.
    pub(super) fn drop_path(&mut self, path: PathNo) {
        self.claims.retain(|_, (of, _)| *of != path);
    }
}

// protocol: T18
async fn wait(tunnel: impl Future<Output = Option<Tunnel>> + Send, mut claim_rx: oneshot::Receiver<Claim>) -> Waited {
    let Some(mut tunnel) = tunnel.await else { return Waited::Lost { late: late(&mut claim_rx) } };
    let came = tokio::select! {
        biased;
        claim = &mut claim_rx => {
            let Ok(claim) = claim else {
                // Nobody waits for its end.
                tokio::spawn(tunnel.close());
                return Waited::Lost { late: None };
            };
            claim.give(tunnel);
            return Waited::Claimed;
        }
        cell = tunnel.incoming.read() => cell.map(|cell| cell.map(|(kind, data)| (kind, data.to_vec()))),
    };
    match came {
        Ok(Some((kind, data))) => Waited::Used { tunnel: Box::new(tunnel), kind, data, late: late(&mut claim_rx) },
        Ok(None) => {
            tokio::spawn(tunnel.close());
            Waited::Lost { late: late(&mut claim_rx) }
        }
        // Noise: somebody on the way changed it.
        Err(error) => {
            let late = late(&mut claim_rx);
            let noise = matches!(error, RelayError::Noise);
            tunnel.abort(error.reason()).await;
            if noise { Waited::Noise { late } } else { Waited::Lost { late } }
        }
    }
}

/// A grant that came when its tunnel was gone already; none comes after this.
fn late(claim_rx: &mut oneshot::Receiver<Claim>) -> Option<Claim> {
    claim_rx.close();
    claim_rx.try_recv().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use phantom_proto::cell::{CELL_LEN, Direction, Layer, OwnerCrypt, TunnelKey};
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::cells::Word;
    use phantom_proto::wire::frame::{Reason, kind};
    use zeroize::Zeroizing;

    use super::*;
    use crate::link::{Link, Purpose, Stream};
    use crate::relay::Taken;
    use crate::relay::cells::Crypt;

    const PATH: PathNo = PathNo(1);
    const TUNNEL: TunnelNo = TunnelNo(7);

    fn taken(stream: impl Stream + 'static) -> Taken {
        let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
        let remote = ([127, 0, 0, 1], 443).into();
        let (reader, writer) =
            Link { peer, remote, purpose: Purpose::Frames, retires: None, stream: Box::new(stream) }.into_frames();
        Taken { reader, writer, back: None }
    }

    /// A tunnel at its terminating node, and its owner's end of the link.
    fn tunnel() -> (Tunnel, Taken) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let layer = |direction| Crypt::End(Box::new(Layer::new(&TunnelKey(Zeroizing::new([1; 32])), direction)));
        (Tunnel::new(taken(near), layer(Direction::Onward), layer(Direction::Backward)), taken(far))
    }

    /// As its owner, who has one hop: what the end enciphered is peeled off.
    fn owner(taken: Taken) -> Tunnel {
        let key = || TunnelKey(Zeroizing::new([1; 32]));
        let crypt = |direction| Crypt::Owner(OwnerCrypt::new(&[key()], direction));
        Tunnel::new(taken, crypt(Direction::Backward), crypt(Direction::Onward))
    }

    /// With one tunnel that waits; what it returns is its other end.
    async fn waiting() -> (Waiting, Taken) {
        let (mut waiting, (tunnel, far)) = (Waiting::default(), tunnel());
        waiting.keep(WaitsFor { tunnel: TUNNEL, path: PATH, whose: Whose::End }, async { Some(tunnel) });
        tokio::task::yield_now().await;
        (waiting, far)
    }

    fn claimant() -> (Claimant, oneshot::Receiver<Given>) {
        let (tunnel_tx, tunnel_rx) = oneshot::channel();
        (Claimant { of: Of::Path(PATH), deadline: Instant::now() + Duration::from_secs(60), tunnel_tx }, tunnel_rx)
    }

    #[tokio::test]
    async fn a_tunnel_goes_to_whom_it_was_granted() {
        let ((mut waiting, far), (claimant, tunnel_rx)) = (waiting().await, claimant());
        let want = waiting.enter(claimant);
        assert!(matches!(waiting.grant(want, TUNNEL, None, None), Granted::Given));
        assert!(matches!(waiting.next().await, Some((WaitsFor { tunnel: TUNNEL, .. }, Waited::Claimed))));
        let mut given = tunnel_rx.await.unwrap().tunnel;
        owner(far).outgoing.say(&Word::Padding).await.unwrap();
        drop(given.outgoing.flush().await);
        assert!(waiting.next().await.is_none() && waiting.claims.is_empty() && waiting.kept.is_empty());
    }

    /// Between the other end's first cell and the end of the task a grant may come: nobody gets this tunnel, and who was granted it
    /// waits on.
    #[tokio::test]
    async fn who_is_granted_what_the_other_end_uses_waits_on() {
        let ((mut waiting, far), (claimant, mut tunnel_rx)) = (waiting().await, claimant());
        let mut owner = owner(far);
        owner.outgoing.say(&Word::Padding).await.unwrap();
        owner.outgoing.flush().await.unwrap();
        // Its task has ended, and that was not noticed yet.
        while !waiting.claims[&TUNNEL].1.is_closed() {
            tokio::task::yield_now().await;
        }
        let want = waiting.enter(claimant);
        let Granted::Missed(missed, claimant) = waiting.grant(want, TUNNEL, None, None) else { panic!("it was given") };
        assert!(missed == want && !claimant.tunnel_tx.is_closed() && tunnel_rx.try_recv().is_err());
        let ended = waiting.next().await;
        assert!(matches!(ended, Some((_, Waited::Used { kind: CellKind::Padding, late: None, .. }))));
    }

    /// The same when the grant is there before the task has run again.
    #[tokio::test]
    async fn a_grant_that_comes_too_late_comes_back() {
        let (claim_tx, claim_rx) = oneshot::channel();
        let (claimant, _tunnel_rx) = claimant();
        assert!(claim_tx.send(Claim { want: WantNo(3), claimant, path: None, held: None }).is_ok());
        let Waited::Lost { late: Some(Claim { want: WantNo(3), .. }) } = wait(async { None }, claim_rx).await else {
            panic!("the claim is lost");
        };
    }

    #[tokio::test]
    async fn a_tunnel_that_nobody_wants_any_more_is_the_next_ones() {
        let ((mut waiting, _far), (gone, _)) = (waiting().await, claimant());
        let gone = waiting.enter(gone);
        assert!(matches!(waiting.grant(gone, TUNNEL, None, None), Granted::Declined));
        let (claimant, tunnel_rx) = claimant();
        let want = waiting.enter(claimant);
        assert!(matches!(waiting.grant(want, TUNNEL, None, None), Granted::Given));
        assert!(tunnel_rx.await.is_ok());
    }

    // protocol: T18
    #[tokio::test]
    async fn no_end_goes_unnoticed() {
        // It breaks; its path goes; it is given up; its task panics.
        let (mut waiting, far) = waiting().await;
        drop(far);
        assert!(matches!(waiting.next().await, Some((WaitsFor { tunnel: TUNNEL, .. }, Waited::Lost { late: None }))));
        for end in
            [|waiting: &mut Waiting| waiting.drop_path(PATH), |waiting: &mut Waiting| waiting.drop_tunnel(TUNNEL)]
        {
            let (mut waiting, _far) = self::waiting().await;
            end(&mut waiting);
            assert!(matches!(waiting.next().await, Some((_, Waited::Lost { .. }))));
        }
        let mut waiting = Waiting::default();
        waiting.keep(WaitsFor { tunnel: TUNNEL, path: PATH, whose: Whose::Own }, async { panic!("as a fault would") });
        assert!(matches!(waiting.next().await, Some((WaitsFor { tunnel: TUNNEL, .. }, Waited::Lost { .. }))));
        assert!(waiting.claims.is_empty() && waiting.kept.is_empty());
    }

    /// What comes first may be noise: the other end hears that it was, and nobody here gets the tunnel.
    // protocol: X6
    #[tokio::test]
    async fn noise_on_a_tunnel_that_waits_is_answered_by_abort() {
        let (mut waiting, mut far) = waiting().await;
        far.writer.write(kind::CELL, &[7; CELL_LEN]).await.unwrap();
        far.writer.flush().await.unwrap();
        let mut owner = owner(far);
        let ended =
            tokio::spawn(async move { waiting.next().await.map(|(_, waited)| matches!(waited, Waited::Noise { .. })) });
        let heard = owner.incoming.read().await.unwrap().map(|(kind, data)| (kind, data.to_vec()));
        assert_eq!(heard, Some((CellKind::Abort, vec![Reason::Protocol as u8])));
        assert_eq!(ended.await.unwrap(), Some(true));
    }
}
