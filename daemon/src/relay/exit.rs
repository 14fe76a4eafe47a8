//! What a terminating node does for the owner of a path over one tunnel: joins an entry node, or asks the database.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::wire::NodeContact;
use phantom_proto::wire::cells::Open;
use phantom_proto::wire::frame::{Reason, kind};
use tokio::time::timeout;

use super::RelayError;
use super::cells::Tunnel;
use super::join::{Joined, carry};
use crate::link::LinkPool;
use crate::netdb::Database;

/// How long a database look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

/// How long the owner may take to take the few bytes of an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What a terminating node needs of the rest of the daemon.
#[derive(Clone)]
pub struct ExitServices {
    /// Finds nodes.
    pub database: Arc<dyn Database>,
    /// Opens links to entry nodes.
    pub links: Arc<LinkPool>,
}

/// OPEN: joins the handle at the entry node and carries the session. Whom the handle leads to is not said here.
pub async fn connect(mut tunnel: Tunnel, open: Open, services: ExitServices) -> Result<(), RelayError> {
    match join(&open, &services).await {
        Ok(joined) => carry(tunnel, joined).await,
        Err(error) => {
            tunnel.outgoing.abort(error.reason()).await;
            Err(error)
        }
    }
}

async fn join(open: &Open, services: &ExitServices) -> Result<Joined, RelayError> {
    let unreachable = RelayError::Aborted(Reason::Unreachable);
    let Some(entry) = contact(&*services.database, open.node).await else { return Err(unreachable) };
    let link = services.links.take(&entry).await.map_err(|_| unreachable)?;
    let (reader, mut writer) = link.into_frames();
    writer.write(kind::JOIN, &open.handle).await?;
    if !open.first.is_empty() {
        writer.write(kind::BYTES, &open.first).await?;
    }
    writer.flush().await?;
    Ok(Joined { reader, writer, asked: true })
}

/// Where the node itself says that it is: an owner cannot make us dial anything but nodes.
async fn contact(database: &dyn Database, node: NodeId) -> Option<NodeContact> {
    timeout(LOOKUP_LIMIT, database.contact(node)).await.ok()?.ok()?
}

/// LOOKUP: answers with the AP record of an address, or says that there is none.
pub async fn look_up(mut tunnel: Tunnel, address: ApAddress, database: Arc<dyn Database>) -> Result<(), RelayError> {
    let reason = match timeout(LOOKUP_LIMIT, database.lookup(address)).await {
        Ok(Ok(Some((_, record)))) => {
            let found = async {
                tunnel.outgoing.write(CellKind::Found, &record).await?;
                tunnel.outgoing.close().await
            };
            return timeout(WRITE_LIMIT, found).await.map_err(|_| RelayError::TimedOut)?;
        }
        Ok(Ok(None)) => Reason::NoSuchAddress,
        Ok(Err(_)) | Err(_) => Reason::Unreachable,
    };
    tunnel.outgoing.abort(reason).await;
    Ok(())
}
