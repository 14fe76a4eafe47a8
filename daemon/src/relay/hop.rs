//! A relay hop: reads cells from one link, applies its layer, writes them to the next.

use phantom_proto::cell::Layer;
use phantom_proto::wire::frame::kind;

use super::{RelayError, Relayed};
use crate::driver::Taken;
use crate::link::frame::{LinkReader, LinkWriter};

/// Carries cells both ways until one side ends; then the whole tunnel is over. TCP itself gives the back-pressure.
// protocol: V2
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
