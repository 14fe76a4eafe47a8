//! The entry node's work: keeps an owner's ready tunnels, and joins one to each exit node that asks for it.

use std::time::Duration;

use bytes::BytesMut;
use phantom_proto::cell::{CELL_DATA_MAX, CellKind};
use phantom_proto::wire::frame::{Reason, kind};
use tokio::time::timeout;

use super::RelayError;
use super::cells::Tunnel;
use super::join::{Joined, carry};
use crate::driver::Taken;

/// How long a neighbour may take to take the few bytes of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How long the session's first bytes may take: they leave with JOIN.
const FIRST_LIMIT: Duration = Duration::from_secs(10);

/// Waits for the session's first bytes: who only sends JOIN costs nobody a tunnel.
pub async fn greet(exit: Taken) -> Result<(Joined, BytesMut), RelayError> {
    let mut joined = Joined::from(exit);
    let first = timeout(FIRST_LIMIT, joined.bytes()).await.map_err(|_| RelayError::TimedOut)??;
    Ok((joined, first))
}

/// Joins a ready tunnel to the link of an exit node.
pub async fn serve(mut tunnel: Tunnel, joined: Joined, first: BytesMut) -> Result<(), RelayError> {
    let (head, rest) = first.split_at(first.len().min(CELL_DATA_MAX));
    let join = async {
        tunnel.outgoing.write(CellKind::Incoming, head).await?;
        tunnel.outgoing.write_data(rest).await?;
        tunnel.outgoing.flush().await
    };
    timeout(WRITE_LIMIT, join).await.map_err(|_| RelayError::TimedOut)??;
    carry(tunnel, joined).await
}

/// Tells an exit node, before its session's first bytes have come, that no tunnel can be had.
pub async fn refuse(mut exit: Joined, reason: Reason) {
    say_refused(&mut exit, reason).await;
    // A link that is closed while bytes arrive is reset, and the answer with it: those that left with JOIN are let in.
    let _ = timeout(FIRST_LIMIT, exit.bytes()).await;
}

/// As [`refuse`], when they have come.
pub async fn refuse_late(mut exit: Joined, reason: Reason) {
    say_refused(&mut exit, reason).await;
}

async fn say_refused(exit: &mut Joined, reason: Reason) {
    // The exit node has a time limit of its own: nothing is lost when this does not arrive.
    let say = async {
        if exit.writer.write(kind::REFUSED, &[reason as u8]).await.is_ok() {
            let _ = exit.writer.flush().await;
        }
    };
    let _ = timeout(WRITE_LIMIT, say).await;
}
