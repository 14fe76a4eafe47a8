//! The entry node's work: keeps an owner's ready tunnels, and joins one to each exit node that asks for it.

use phantom_proto::cell::CellKind;
use phantom_proto::wire::frame::{Reason, kind};

use super::RelayError;
use super::cells::Tunnel;
use super::join::{Joined, carry};
use crate::driver::Taken;

/// Joins a ready tunnel to the link of an exit node.
pub async fn serve(mut tunnel: Tunnel, exit: Taken) -> Result<(), RelayError> {
    let mut joined = Joined { reader: exit.reader, writer: exit.writer, pending: exit.pending };
    tunnel.outgoing.write(CellKind::Incoming, &[]).await?;
    tunnel.outgoing.flush().await?;
    joined.writer.write(kind::JOINED, &[]).await?;
    joined.writer.flush().await?;
    carry(tunnel, joined).await
}

/// Tells an exit node that no tunnel can be had.
pub async fn refuse(mut exit: Taken, reason: Reason) {
    // The exit node has a time limit of its own: nothing is lost when this does not arrive.
    if exit.writer.write(kind::REFUSED, &[reason as u8]).await.is_ok() {
        let _ = exit.writer.flush().await;
    }
}
