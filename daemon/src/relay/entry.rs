//! The entry node's work: keeps an owner's ready tunnels, and joins one to each exit node that asks for it.

use std::time::Duration;

use bytes::BytesMut;
use phantom_proto::cell::{CELL_DATA_MAX, CellKind};
use phantom_proto::wire::frame::{Frame, Reason};
use tokio::time::timeout;

use super::cells::Tunnel;
use super::join::{Joined, carry};
use super::{RelayError, Taken};

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
// protocol: U10
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

/// Tells an exit node that no tunnel can be had. What it has sent meanwhile is thrown away.
pub async fn refuse(exit: Joined, reason: Reason) {
    let (mut link, refused) = (exit.link, Frame::Refused(reason));
    // The exit node has a time limit of its own: nothing is lost when this does not arrive.
    if let Ok(Ok(())) = timeout(WRITE_LIMIT, link.writer.write(refused.kind(), &refused.payload())).await {
        link.close(false).await;
    }
}
