//! A relay hop: reads cells from one link, applies its layer, writes them to the next.

use phantom_proto::cell::Layer;
use phantom_proto::wire::frame::kind;

use super::{RelayError, Relayed, Taken};
use crate::link::frame::{LinkReader, LinkWriter};

/// Carries cells both ways until one side ends; then the whole tunnel is over. TCP itself gives the back-pressure.
// protocol: V2, B2, B5
pub async fn relay(mut a: Taken, mut b: Taken, ab: Layer, ba: Layer, relayed: Relayed) {
    // Either way of ending is the end of the tunnel; the far ends notice by their missing END cells.
    let heard = tokio::select! {
        biased;
        there = one_way(&mut a.reader, &mut b.writer, ab, &relayed) => there.map(|()| [true, false]),
        back = one_way(&mut b.reader, &mut a.writer, ba, &relayed) => back.map(|()| [false, true]),
    };
    drop(relayed);
    // Without CLOSE from one side both links end, and with them what waits to be sent is lost to nobody who could use it.
    if let Ok([from_a, from_b]) = heard {
        tokio::join!(a.close(from_a), b.close(from_b));
    }
}

/// Until CLOSE; `Ended`: the link ended without it, and what had come before was passed on.
// protocol: V1
async fn one_way(
    reader: &mut LinkReader,
    writer: &mut LinkWriter,
    mut layer: Layer,
    relayed: &Relayed,
) -> Result<(), RelayError> {
    loop {
        // Cells that have arrived together leave together.
        if !reader.has_frame() {
            writer.flush().await?;
        }
        let Some(frame) = reader.read().await? else { break };
        if frame.kind == kind::CLOSE && frame.payload.is_empty() {
            return Ok(());
        }
        let mut cell = frame.payload;
        if frame.kind != kind::CELL || !layer.encipher(&mut cell) {
            return Err(RelayError::Misbehaved("not a cell"));
        }
        relayed.bytes(cell.len());
        writer.write(kind::CELL, &cell).await?;
    }
    writer.shutdown().await?;
    Err(RelayError::Ended)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use phantom_proto::cell::{CELL_LEN, Direction, TunnelKey};
    use phantom_proto::crypto::SigningKey;
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use zeroize::Zeroizing;

    use super::*;

    use crate::link::{Link, LinkPool, MemoryNetwork, Purpose};
    use crate::relay::Counters;
    use crate::relay::taken::{Back, Fresh};

    type Halves = (LinkReader, LinkWriter);

    /// A hop between two neighbours, both of which dialed it: their ends of the links, and where the links go afterwards.
    fn hop() -> (Halves, Halves, mpsc::Receiver<Fresh>, Arc<Counters>) {
        let identity = SigningKey::from_seed(&[1; 32]).verifying_key();
        let addr = ([10, 1, 0, 1], 443).into();
        let contact = phantom_proto::wire::NodeContact { identity, addr, link_secret: [0; 32] };
        let pool = Arc::new(LinkPool::new(Arc::new(MemoryNetwork::default().join(contact))));
        let (fresh_tx, fresh_rx) = mpsc::channel(8);
        let back = Back::new(pool, fresh_tx);
        let link = |stream| {
            Link { peer: identity, remote: addr, purpose: Purpose::Frames, retires: None, stream }.into_frames()
        };
        let neighbour = || {
            let (near, far) = tokio::io::duplex(1 << 20);
            let (reader, writer) = link(Box::new(near));
            (Taken { reader, writer, back: Some(back.clone()) }, link(Box::new(far)))
        };
        let ((a, left), (b, right)) = (neighbour(), neighbour());
        let key = TunnelKey(Zeroizing::new([1; 32]));
        let counters = Arc::new(Counters::default());
        let relayed = counters.relay(1).unwrap();
        tokio::spawn(relay(a, b, Layer::new(&key, Direction::Onward), Layer::new(&key, Direction::Backward), relayed));
        (left, right, fresh_rx, counters)
    }

    async fn say(writer: &mut LinkWriter, kind: u8, payload: &[u8]) {
        writer.write(kind, payload).await.unwrap();
        writer.flush().await.unwrap();
    }

    async fn hear(reader: &mut LinkReader) -> Option<u8> {
        let frame = timeout(Duration::from_secs(60), reader.read()).await.expect("nothing comes");
        frame.unwrap().map(|frame| frame.kind)
    }

    // protocol: B2, V2
    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_tunnel_passes_behind_its_cells_and_both_links_are_fresh() {
        for backward in [false, true] {
            let (left, right, mut fresh_rx, counters) = hop();
            let ((mut heard, mut says), (mut hears, mut answers)) =
                if backward { (right, left) } else { (left, right) };
            for kind in [kind::CELL, kind::CELL, kind::CLOSE] {
                say(&mut says, kind, if kind == kind::CELL { &[0; CELL_LEN] } else { &[] }).await;
            }
            for kind in [kind::CELL, kind::CELL, kind::CLOSE] {
                assert_eq!(hear(&mut hears).await, Some(kind));
            }
            say(&mut answers, kind::CLOSE, &[]).await;
            assert_eq!(hear(&mut heard).await, Some(kind::CLOSE));
            for _ in 0..2 {
                assert!(matches!(fresh_rx.recv().await, Some(Fresh { .. })));
            }
            assert_eq!(counters.open_relays(), 0);
        }
    }

    // protocol: B5, V2
    #[tokio::test(start_paused = true)]
    async fn a_link_that_ends_without_close_takes_the_other_with_it() {
        let (left, (mut hears, _answers), mut fresh_rx, _) = hop();
        let (_heard, mut says) = left;
        say(&mut says, kind::CELL, &[0; CELL_LEN]).await;
        says.shutdown().await.unwrap();
        assert_eq!(hear(&mut hears).await, Some(kind::CELL), "what had come is passed on");
        assert_eq!(hear(&mut hears).await, None);
        assert!(fresh_rx.recv().await.is_none(), "a link is used again");
    }
}
