//! A relay hop: reads cells from one link, applies its layer, writes them to the next.

use std::sync::Arc;

use phantom_proto::cell::Layer;
use phantom_proto::wire::frame::kind;

use super::{Counters, RelayError};
use crate::driver::Taken;
use crate::link::frame::{Frame, LinkReader, LinkWriter};

/// Carries cells both ways until one side ends; then the whole tunnel is over. TCP itself gives the back-pressure.
pub async fn relay(a: Taken, b: Taken, ab: Layer, ba: Layer, counters: Arc<Counters>) {
    let _open = counters.relay();
    let there = one_way(a.reader, a.pending, b.writer, ab, &counters);
    let back = one_way(b.reader, b.pending, a.writer, ba, &counters);
    // Either way of ending is the end of the tunnel; the far ends notice by their missing END cells.
    tokio::select! {
        biased;
        _ = there => {}
        _ = back => {}
    }
}

async fn one_way(
    mut reader: LinkReader,
    pending: Option<Frame>,
    mut writer: LinkWriter,
    mut layer: Layer,
    counters: &Counters,
) -> Result<(), RelayError> {
    let mut next = pending;
    loop {
        let frame = match next.take() {
            Some(frame) => frame,
            None => {
                // Cells that have arrived together leave together.
                if !reader.has_frame() {
                    writer.flush().await?;
                }
                match reader.read().await? {
                    Some(frame) => frame,
                    None => break,
                }
            }
        };
        let mut cell = frame.payload;
        if frame.kind != kind::CELL || !layer.encipher(&mut cell) {
            return Err(RelayError::Misbehaved("not a cell"));
        }
        counters.relayed(cell.len());
        writer.write(kind::CELL, &cell).await?;
    }
    writer.flush().await?;
    Ok(writer.shutdown().await?)
}
