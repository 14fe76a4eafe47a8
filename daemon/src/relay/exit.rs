//! The exit node's work: waits in a ready tunnel for OPEN, finds an entry node of the address, joins the two.

use std::sync::Arc;
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::record::{ApRecord, RoutingEntry};
use phantom_proto::wire::frame::{Reason, kind};
use rand::seq::SliceRandom;
use tokio::time::timeout;

use super::RelayError;
use super::cells::{CellReader, Tunnel};
use super::join::{Joined, carry};
use crate::link::LinkPool;
use crate::link::frame::{LinkReader, LinkWriter};
use crate::netdb::Database;

/// How long a database look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);

/// How long an entry node may take to answer JOIN.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the session that are kept for the next entry node, should the first refuse: its first flight, not more.
const EARLY_LIMIT: usize = 64 * 1024;

/// What an exit node needs of the rest of the daemon.
#[derive(Clone)]
pub struct ExitServices {
    /// Finds AP records.
    pub database: Arc<dyn Database>,
    /// Opens links to entry nodes.
    pub links: Arc<LinkPool>,
}

/// Serves one tunnel from its READY state to its end. `opened` runs when OPEN arrives: the tunnel is not ready any more.
pub async fn serve(mut tunnel: Tunnel, services: ExitServices, opened: impl FnOnce()) -> Result<(), RelayError> {
    let address = wait_for_open(&mut tunnel.incoming).await;
    opened();
    let Some(address) = address? else { return Ok(()) };
    match join(&mut tunnel.incoming, &services, address).await {
        Ok((opened, joined)) => {
            tunnel.outgoing.write(CellKind::Opened, &opened).await?;
            tunnel.outgoing.flush().await?;
            carry(tunnel, joined).await
        }
        Err(RelayError::Aborted(reason)) => {
            tunnel.outgoing.abort(reason).await;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn wait_for_open(incoming: &mut CellReader) -> Result<Option<ApAddress>, RelayError> {
    match incoming.read().await? {
        Some((CellKind::Open, data)) => {
            let address = data.try_into().ok().and_then(ApAddress::from_bytes);
            address.map(Some).ok_or(RelayError::Misbehaved("OPEN without an AP address"))
        }
        Some(_) => Err(RelayError::Misbehaved("a cell before OPEN")),
        None => Ok(None),
    }
}

/// Looks the address up while the session's first flight arrives, then tries its entry nodes in random order.
async fn join(
    incoming: &mut CellReader,
    services: &ExitServices,
    address: ApAddress,
) -> Result<(Vec<u8>, Joined), RelayError> {
    let mut early = Early::default();
    let found = early.gather_during(incoming, timeout(LOOKUP_LIMIT, services.database.lookup(address))).await?;
    let (record, bytes) = match found {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return Err(RelayError::Aborted(Reason::NoSuchAddress)),
        Ok(Err(_)) | Err(_) => return Err(RelayError::Aborted(Reason::Unreachable)),
    };
    let mut reason = Reason::Unreachable;
    for (chosen, entry) in shuffled(record) {
        match join_entry(services, address, &entry, &early).await {
            Ok(joined) => return Ok(([&[chosen], &bytes[..]].concat(), joined)),
            Err(RelayError::Aborted(refused)) => reason = refused,
            Err(_) => {}
        }
    }
    Err(RelayError::Aborted(reason))
}

fn shuffled(record: ApRecord) -> Vec<(u8, RoutingEntry)> {
    let now = crate::clock::unix_seconds();
    // A record outlives its paths a little.
    let mut entries: Vec<_> = (0..).zip(record.entries).filter(|(_, entry)| entry.until > now).collect();
    entries.shuffle(&mut crate::random());
    entries
}

async fn join_entry(
    services: &ExitServices,
    address: ApAddress,
    entry: &RoutingEntry,
    early: &Early,
) -> Result<Joined, RelayError> {
    let link = services.links.take(&entry.entry_node).await.map_err(|_| RelayError::Aborted(Reason::Unreachable))?;
    let (reader, mut writer) = link.into_frames();
    writer.write(kind::JOIN, &[address.octets(), entry.handle].concat()).await?;
    early.send(&mut writer).await?;
    writer.flush().await?;
    let mut joined = Joined { reader, writer, pending: None };
    timeout(JOIN_LIMIT, wait_for_joined(&mut joined.reader)).await.map_err(|_| RelayError::TimedOut)??;
    Ok(joined)
}

async fn wait_for_joined(reader: &mut LinkReader) -> Result<(), RelayError> {
    let Some(frame) = reader.read().await? else { return Err(RelayError::Ended) };
    match (frame.kind, &frame.payload[..]) {
        (kind::JOINED, []) => Ok(()),
        (kind::REFUSED, [reason]) => Err(RelayError::Aborted(Reason::from_byte(*reason))),
        _ => Err(RelayError::Misbehaved("no answer to JOIN")),
    }
}

/// What the owner sent right behind OPEN.
#[derive(Default)]
struct Early {
    bytes: Vec<u8>,
}

impl Early {
    /// Runs `work` and meanwhile keeps what arrives, up to [`EARLY_LIMIT`]; the rest waits in the link.
    async fn gather_during<T>(
        &mut self,
        incoming: &mut CellReader,
        work: impl Future<Output = T>,
    ) -> Result<T, RelayError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                // What has come already goes with JOIN, not a round trip later.
                cell = incoming.read(), if self.bytes.len() < EARLY_LIMIT => match cell? {
                    Some((CellKind::Data, data)) => self.bytes.extend_from_slice(data),
                    Some((CellKind::Padding, _)) => {}
                    Some(_) => return Err(RelayError::Misbehaved("a cell that does not follow OPEN")),
                    None => return Err(RelayError::Ended),
                },
                done = &mut work => return Ok(done),
            }
        }
    }

    async fn send(&self, writer: &mut LinkWriter) -> Result<(), RelayError> {
        for part in self.bytes.chunks(EARLY_LIMIT) {
            writer.write(kind::BYTES, part).await?;
        }
        Ok(())
    }
}
