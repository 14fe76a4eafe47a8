//! A link that left the node's control: one use of it, and what becomes of it when that use has ended.
//!
//! ```text
//!   side that has ended ──what is left, CLOSE──▶ other side      what this one still sends is thrown away
//!                       ◀──what is left, CLOSE──                 then the link is fresh again, at both
//! ```
//!
//! Nothing of a use is left on the link after it, and only its dialer begins the next one (docs/protocol.md, section 3.3).

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::wire::frame::kind;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::RelayError;
use crate::link::LinkPool;
use crate::link::frame::{LinkReader, LinkWriter};

/// How long the other side may take to end its side, too. A neighbour does it at once, so this is a slow round trip.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How much of what the other side had on its way is thrown away. Behind more than that a new connection is cheaper.
const DISCARD_LIMIT: usize = 256 * 1024;

/// Bytes of a frame that are not payload, as far as they count here: frames without payload are not free.
const FRAME_COST: usize = 16;

/// A link that left the node's control.
pub struct Taken {
    /// Frames that arrive.
    pub reader: LinkReader,
    /// Frames to send.
    pub writer: LinkWriter,
    /// Where it goes after its use. `None`: nowhere, it is closed.
    pub back: Option<Back>,
}

/// Where links go after their use; cheap to clone.
#[derive(Clone)]
pub struct Back {
    links: Arc<LinkPool>,
    fresh_tx: mpsc::Sender<Fresh>,
}

/// A link that another node dialed, and that has ended a use.
pub struct Fresh {
    /// Frames that arrive.
    pub reader: LinkReader,
    /// Frames to send.
    pub writer: LinkWriter,
}

impl Back {
    /// Links that were dialed go to `links`, others to the node.
    pub fn new(links: Arc<LinkPool>, fresh_tx: mpsc::Sender<Fresh>) -> Self {
        Self { links, fresh_tx }
    }

    /// A link that is fresh again: its dialer keeps it for the next use, the other side waits for that.
    // protocol: B4
    async fn fresh(self, mut reader: LinkReader, writer: LinkWriter) {
        // The next use is of another path.
        reader.cut_by(None);
        if reader.is_dialed() {
            self.links.give_back(reader, writer);
        } else {
            // The control task is gone only when the daemon stops.
            let _ = self.fresh_tx.send(Fresh { reader, writer }).await;
        }
    }
}

impl Taken {
    /// Ends this use in order, so that the link may serve again; `heard` says whether the other side's CLOSE has come. A link
    /// whose other side does not follow soon is closed.
    // protocol: B1, B2, B3
    pub async fn close(self, heard: bool) {
        let Self { mut reader, mut writer, back } = self;
        let Some(back) = back else { return };
        let close = async {
            writer.write(kind::CLOSE, &[]).await?;
            writer.flush().await?;
            if heard { Ok(()) } else { closed(&mut reader).await }
        };
        if matches!(timeout(CLOSE_LIMIT, close).await, Ok(Ok(()))) {
            back.fresh(reader, writer).await;
        }
    }
}

/// Throws away what comes before the other side's CLOSE.
async fn closed(reader: &mut LinkReader) -> Result<(), RelayError> {
    let mut left = DISCARD_LIMIT;
    loop {
        let frame = reader.read().await?.ok_or(RelayError::Ended)?;
        if frame.kind == kind::CLOSE {
            return if frame.payload.is_empty() { Ok(()) } else { Err(RelayError::Misbehaved("CLOSE with a payload")) };
        }
        let cost = frame.payload.len() + FRAME_COST;
        left = left.checked_sub(cost).ok_or(RelayError::Misbehaved("too much after the end of a use"))?;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::NodeContact;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::link::{MemoryNetwork, Purpose, Transport};

    fn contact(seed: u8) -> NodeContact {
        let identity = SigningKey::from_seed(&[seed; 32]).verifying_key();
        NodeContact { identity, addr: ([10, seed, 0, 1], 443).into(), link_secret: [0; 32] }
    }

    /// One use of a link, seen by its dialer and by the other side, and where it goes afterwards.
    struct World {
        pool: Arc<LinkPool>,
        dialed: Taken,
        accepted: Taken,
        fresh_rx: mpsc::Receiver<Fresh>,
    }

    impl World {
        async fn new() -> Self {
            let network = MemoryNetwork::default();
            let (near, far) = (network.join(contact(1)), network.join(contact(2)));
            let pool = Arc::new(LinkPool::new(Arc::new(near)));
            let (fresh_tx, fresh_rx) = mpsc::channel(8);
            let back = || Some(Back::new(pool.clone(), fresh_tx.clone()));
            let to = contact(2);
            let (dialed, accepted) = tokio::join!(pool.take(&to), far.accept());
            assert_eq!(accepted.as_ref().unwrap().purpose, Purpose::Frames);
            let [dialed, accepted] = [dialed.unwrap(), accepted.unwrap()].map(|link| {
                let (reader, writer) = link.into_frames();
                Taken { reader, writer, back: back() }
            });
            Self { pool, dialed, accepted, fresh_rx }
        }
    }

    async fn say(link: &mut Taken, kind: u8, payload: &[u8]) {
        link.writer.write(kind, payload).await.unwrap();
        link.writer.flush().await.unwrap();
    }

    // protocol: B1, B2, B4
    #[tokio::test(start_paused = true)]
    async fn a_link_whose_use_has_ended_in_order_is_fresh_at_both_sides() {
        let World { pool, mut dialed, accepted, mut fresh_rx } = World::new().await;
        // What was on its way when the other side ended.
        say(&mut dialed, kind::CELL, &[7; 4092]).await;
        tokio::join!(dialed.close(false), accepted.close(false));
        let Some(Fresh { mut reader, .. }) = fresh_rx.recv().await else { panic!("it is lost") };
        let again = pool.take_warm(&contact(2)).expect("its dialer keeps it");
        let (_reader, mut writer) = again.into_frames();
        writer.write(kind::TUNNEL, b"next").await.unwrap();
        writer.flush().await.unwrap();
        let frame = reader.read().await.unwrap().unwrap();
        assert_eq!(
            (frame.kind, &frame.payload[..]),
            (kind::TUNNEL, &b"next"[..]),
            "something of the first use is left"
        );
    }

    /// A path whose neighbour falls silent ends the tunnels that it has then, and not what their links carried or will carry of others.
    // protocol: A5, B4
    #[tokio::test(start_paused = true)]
    async fn what_cuts_a_link_cuts_this_use_alone() {
        let cut = CancellationToken::new();
        let World { pool, mut dialed, mut accepted, mut fresh_rx } = World::new().await;
        dialed.reader.cut_by(Some(cut.clone()));
        accepted.reader.cut_by(Some(cut.clone()));
        tokio::join!(dialed.close(false), accepted.close(false));
        cut.cancel();
        let Some(Fresh { mut reader, .. }) = fresh_rx.recv().await else { panic!("it is lost") };
        let (again, mut writer) = pool.take_warm(&contact(2)).expect("its dialer keeps it").into_frames();
        writer.write(kind::TUNNEL, b"next").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(reader.read().await.unwrap().unwrap().kind, kind::TUNNEL);
        // Of this use it breaks, however long it waits already.
        let cut = CancellationToken::new();
        let mut taken = Taken { reader: again, writer, back: None };
        taken.reader.cut_by(Some(cut.clone()));
        let reads = tokio::spawn(async move { taken.reader.read().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!reads.is_finished());
        cut.cancel();
        assert!(reads.await.unwrap().is_err());
    }

    /// Who began the next use at once, and the first frame of it comes with CLOSE.
    // protocol: B4
    #[tokio::test(start_paused = true)]
    async fn the_next_use_may_follow_at_once() {
        let World { mut dialed, accepted, mut fresh_rx, .. } = World::new().await;
        dialed.writer.write(kind::CLOSE, &[]).await.unwrap();
        say(&mut dialed, kind::JOIN, &[1; 16]).await;
        accepted.close(false).await;
        let Some(Fresh { mut reader, .. }) = fresh_rx.recv().await else { panic!("it is lost") };
        assert_eq!(reader.read().await.unwrap().unwrap().kind, kind::JOIN);
    }

    // protocol: B3
    #[tokio::test(start_paused = true)]
    async fn who_does_not_follow_or_goes_on_loses_the_link() {
        // Says nothing.
        let world = World::new().await;
        let begun = Instant::now();
        let _silent = world.accepted;
        world.dialed.close(false).await;
        assert_eq!(begun.elapsed(), CLOSE_LIMIT);
        // Sends what it likes, in large frames and in empty ones.
        for payload in [vec![0; 4092], Vec::new()] {
            let mut world = World::new().await;
            let pours =
                tokio::spawn(async move { while world.accepted.writer.write(kind::BYTES, &payload).await.is_ok() {} });
            let begun = Instant::now();
            world.dialed.close(false).await;
            assert_eq!(begun.elapsed(), Duration::ZERO, "it was heard to the end");
            assert_eq!(world.pool.ready(&contact(2)), 0);
            timeout(CLOSE_LIMIT, pours).await.expect("the connection is closed").unwrap();
        }
        // Says CLOSE with something in it, or goes.
        let mut world = World::new().await;
        say(&mut world.accepted, kind::CLOSE, b"x").await;
        world.dialed.close(false).await;
        assert_eq!(world.pool.ready(&contact(2)), 0);
        let world = World::new().await;
        drop(world.accepted);
        world.dialed.close(false).await;
        assert_eq!(world.pool.ready(&contact(2)), 0);
    }

    // protocol: B4, L31
    #[tokio::test(start_paused = true)]
    async fn an_acceptor_that_begins_the_next_use_loses_the_link() {
        let mut world = World::new().await;
        say(&mut world.accepted, kind::CLOSE, &[]).await;
        say(&mut world.accepted, kind::TUNNEL, b"out of turn").await;
        let World { pool, dialed, accepted, mut fresh_rx } = world;
        dialed.close(false).await;
        assert!(pool.take_warm(&contact(2)).is_none());
        assert!(fresh_rx.recv().now_or_never().is_none());
        drop(accepted);
    }
}
