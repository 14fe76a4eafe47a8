//! A relay hop: reads cells from one link, applies its layer, writes them to the next.

use phantom_proto::cell::Layer;
use phantom_proto::wire::frame::kind;

use super::{RelayError, Relayed};
use crate::driver::Taken;
use crate::link::frame::{LinkReader, LinkWriter};

/// Carries cells both ways until one side ends; then the whole tunnel is over. TCP itself gives the back-pressure.
pub async fn relay(a: Taken, b: Taken, ab: Layer, ba: Layer, relayed: Relayed) {
    let there = one_way(a.reader, b.writer, ab, &relayed);
    let back = one_way(b.reader, a.writer, ba, &relayed);
    // Either way of ending is the end of the tunnel; the far ends notice by their missing END cells.
    tokio::select! {
        biased;
        _ = there => {}
        _ = back => {}
    }
}

async fn one_way(
    mut reader: LinkReader,
    mut writer: LinkWriter,
    mut layer: Layer,
    relayed: &Relayed,
) -> Result<(), RelayError> {
    loop {
        // Cells that have arrived together leave together.
        if !reader.has_frame() {
            writer.flush().await?;
        }
        let Some(frame) = reader.read().await? else { break };
        let mut cell = frame.payload;
        if frame.kind != kind::CELL || !layer.encipher(&mut cell) {
            return Err(RelayError::Misbehaved("not a cell"));
        }
        relayed.bytes(cell.len());
        writer.write(kind::CELL, &cell).await?;
    }
    writer.flush().await?;
    Ok(writer.shutdown().await?)
}
