//! Does what an entry says: hears an exit node that has sent JOIN, takes a ready tunnel, and carries between the two.

use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::terminating::{Entry, EntryInput as Input, EntryOutput as Output};
use phantom_proto::wire::frame::{Frame, Reason};
use tokio::time::timeout;

use super::cells::Tunnel;
use super::join::{Joined, carry};
use super::{RelayError, Steps, Taken};
use crate::link::frame::LinkReader;

/// How long a neighbour may take to take the few bytes of a refusal.
const REFUSE_LIMIT: Duration = Duration::from_secs(10);

/// Serves the exit node at the other end of a link. `want` gives a ready tunnel of the path, if there is one in time.
///
/// # Errors
/// How what was carried ended, or why nothing was.
pub async fn serve<F>(mut exit: Taken, mut want: impl FnMut(Duration) -> F) -> Result<(), RelayError>
where
    F: Future<Output = Option<Tunnel>>,
{
    let steps = Steps::default();
    let (mut entry, mut tunnel) = (Entry::new(steps.now()), None);
    while let Some(output) = entry.poll() {
        let due = entry.deadline();
        let done = match output {
            Output::Hear => steps.by(due, hear(&mut exit.reader)).await,
            Output::Want { limit } => {
                tunnel = steps.by(due, want(Duration::from_millis(limit))).await.flatten();
                Some(Input::Tunnel(tunnel.is_some()))
            }
            Output::Say(cells) => steps.by(due, say(tunnel.as_mut(), &cells)).await.map(Input::Said),
            Output::Carry => {
                let Some(tunnel) = tunnel else { return Err(RelayError::Ended) };
                return carry(tunnel, Joined::from(exit)).await;
            }
            Output::Refuse(reason) => {
                refuse(exit, reason).await;
                return Err(RelayError::Aborted(reason));
            }
            Output::Drop => return Err(RelayError::Ended),
        };
        match done {
            Some(input) => entry.handle(steps.now(), input),
            None => entry.tick(due.unwrap_or(u64::MAX)),
        }
    }
    Ok(())
}

async fn hear(reader: &mut LinkReader) -> Input {
    match reader.read().await {
        Ok(Some(frame)) => Input::Frame { kind: frame.kind, payload: frame.payload.to_vec() },
        Ok(None) | Err(_) => Input::Ended,
    }
}

async fn say(tunnel: Option<&mut Tunnel>, cells: &[(CellKind, Vec<u8>)]) -> bool {
    let Some(Tunnel { outgoing, .. }) = tunnel else { return false };
    for (kind, data) in cells {
        if outgoing.write(*kind, data).await.is_err() {
            return false;
        }
    }
    outgoing.flush().await.is_ok()
}

/// Tells an exit node that no tunnel can be had. What it has sent meanwhile is thrown away.
pub async fn refuse(mut exit: Taken, reason: Reason) {
    let refused = Frame::Refused(reason);
    // The exit node has a time limit of its own: nothing is lost when this does not arrive.
    if let Ok(Ok(())) = timeout(REFUSE_LIMIT, exit.writer.write(refused.kind(), &refused.payload())).await {
        exit.close(false).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::NodeContact;
    use phantom_proto::wire::frame::kind;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::link::{Link, LinkPool, MemoryNetwork, Purpose};
    use crate::relay::Back;
    use crate::relay::cells::pair as tunnel;

    /// The link between exit node and entry node: both ends.
    fn link() -> [Taken; 2] {
        let (near, far) = tokio::io::duplex(1 << 20);
        [near, far].map(|stream| {
            let peer = SigningKey::from_seed(&[1; 32]).verifying_key();
            let remote = ([127, 0, 0, 1], 443).into();
            let link = Link { peer, remote, purpose: Purpose::Frames, retires: None, stream: Box::new(stream) };
            let (reader, writer) = link.into_frames();
            Taken { reader, writer, back: None }
        })
    }

    /// Where a link goes that has ended its use in order.
    fn back() -> Back {
        let contact = NodeContact {
            identity: SigningKey::from_seed(&[2; 32]).verifying_key(),
            addr: ([10, 0, 0, 2], 443).into(),
            link_secret: [0; 32],
        };
        let links = LinkPool::new(Arc::new(MemoryNetwork::default().join(contact)));
        Back::new(Arc::new(links), mpsc::channel(1).0)
    }

    async fn sends(exit: &mut Taken, kind: u8, payload: &[u8]) {
        exit.writer.write(kind, payload).await.unwrap();
        exit.writer.flush().await.unwrap();
    }

    /// All that an exit node and the owner of the path see of one JOIN.
    // protocol: U8, U10
    #[tokio::test(start_paused = true)]
    async fn an_exit_node_that_joins_gets_a_tunnel_and_both_are_carried() {
        let ([mut exit, near], [end, mut owner]) = (link(), tunnel(1 << 20));
        let mut ready = Some(end);
        let serving = tokio::spawn(serve(near, move |limit| {
            assert_eq!(limit, Duration::from_secs(8));
            std::future::ready(ready.take())
        }));
        let first = vec![7; 5_000];
        sends(&mut exit, kind::BYTES, &first).await;
        let mut came = Vec::new();
        for expected in [CellKind::Incoming, CellKind::Data] {
            let (kind, data) = owner.incoming.read().await.unwrap().unwrap();
            assert_eq!(kind, expected);
            came.extend_from_slice(data);
        }
        assert_eq!(came, first);
        owner.outgoing.write(CellKind::Data, b"answer").await.unwrap();
        owner.outgoing.flush().await.unwrap();
        let answer = exit.reader.read().await.unwrap().unwrap();
        assert_eq!((answer.kind, &answer.payload[..]), (kind::BYTES, &b"answer"[..]));
        drop((exit, owner));
        assert!(serving.await.unwrap().is_err());
    }

    // protocol: U10
    #[tokio::test(start_paused = true)]
    async fn an_exit_node_for_which_no_tunnel_is_ready_hears_busy() {
        let [mut exit, mut near] = link();
        near.back = Some(back());
        let serving = tokio::spawn(serve(near, |_| std::future::pending()));
        sends(&mut exit, kind::BYTES, b"first").await;
        let refused = exit.reader.read().await.unwrap().unwrap();
        assert_eq!((refused.kind, &refused.payload[..]), (kind::REFUSED, &[Reason::Busy as u8][..]));
        assert_eq!(exit.reader.read().await.unwrap().unwrap().kind, kind::CLOSE);
        assert!(matches!(serving.await.unwrap(), Err(RelayError::Aborted(Reason::Busy))));
    }

    // protocol: U10
    #[tokio::test(start_paused = true)]
    async fn an_exit_node_that_says_nothing_or_something_else_costs_no_tunnel() {
        let nobody = |_| -> std::future::Ready<Option<Tunnel>> { panic!("a tunnel is taken") };
        let begun = Instant::now();
        let [_silent, near] = link();
        assert!(serve(near, nobody).await.is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        let [mut exit, near] = link();
        sends(&mut exit, kind::END, &[]).await;
        assert!(serve(near, nobody).await.is_err());
    }
}
