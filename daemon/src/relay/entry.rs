//! The entry node's work: keeps an owner's ready tunnels, and joins one to each exit node that asks for it.

use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::wire::frame::{Reason, kind};
use tokio::time::timeout;

use super::RelayError;
use super::cells::Tunnel;
use super::join::{Joined, carry};
use crate::driver::Taken;

/// How long a neighbour may take to take the few bytes of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Joins a ready tunnel to the link of an exit node.
pub async fn serve(mut tunnel: Tunnel, exit: Taken) -> Result<(), RelayError> {
    let mut joined = Joined { reader: exit.reader, writer: exit.writer, pending: exit.pending };
    let join = async {
        tunnel.outgoing.write(CellKind::Incoming, &[]).await?;
        tunnel.outgoing.flush().await?;
        joined.writer.write(kind::JOINED, &[]).await?;
        Ok::<_, RelayError>(joined.writer.flush().await?)
    };
    timeout(WRITE_LIMIT, join).await.map_err(|_| RelayError::TimedOut)??;
    carry(tunnel, joined).await
}

/// Tells an exit node that no tunnel can be had.
pub async fn refuse(mut exit: Taken, reason: Reason) {
    // The exit node has a time limit of its own: nothing is lost when this does not arrive.
    let say = async {
        if exit.writer.write(kind::REFUSED, &[reason as u8]).await.is_ok() {
            let _ = exit.writer.flush().await;
        }
    };
    let _ = timeout(WRITE_LIMIT, say).await;
}
