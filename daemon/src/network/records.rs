//! AP records that one identity has looked up, over a path that does nothing else, and keeps as long as they hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Work;
use phantom_proto::record::{ApRecord, RoutingEntry, Signed};
use phantom_proto::wire::Wire;
use phantom_proto::wire::cells::Lookup;
use phantom_proto::wire::frame::Reason;
use rand::seq::SliceRandom;
use tokio::sync::Mutex as Turns;
use tokio::time::{Instant, timeout_at};

use crate::clock::unix_seconds;
use crate::driver::Handle;
use crate::gate::ConnectError;

/// Addresses remembered per identity: a browser's day. Each costs some 600 bytes.
const REMEMBERED: usize = 1024;

/// How long one look-up may take: the terminating node gives up after 15 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// What is known of one address; whoever wants to know it while it is looked up waits for the same answer.
type Slot = Arc<Turns<Option<ApRecord>>>;

/// The records of one identity.
#[derive(Default)]
pub(super) struct Records(Mutex<BTreeMap<ApAddress, Slot>>);

/// Entries that have not ended, in random order.
pub(super) fn usable(record: &ApRecord) -> Vec<RoutingEntry> {
    let now = unix_seconds();
    let mut entries: Vec<_> = record.entries.iter().filter(|entry| entry.until > now).cloned().collect();
    entries.shuffle(&mut crate::random());
    entries
}

fn holds(record: &ApRecord) -> bool {
    let now = unix_seconds();
    record.expires > now && record.entries.iter().any(|entry| entry.until > now)
}

impl Records {
    /// The record of an address, known or looked up.
    pub(super) async fn find(
        &self,
        handle: &Handle,
        from: ApAddress,
        to: ApAddress,
        deadline: Instant,
    ) -> Result<ApRecord, ConnectError> {
        let slot = self.slot(to);
        let mut known = timeout_at(deadline, slot.lock()).await.map_err(|_| ConnectError::TimedOut)?;
        if let Some(record) = known.as_ref().filter(|record| holds(record)) {
            return Ok(record.clone());
        }
        let record = look_up(handle, from, to, deadline).await?;
        *known = Some(record.clone());
        Ok(record)
    }

    /// The record of an address after `old` led nowhere: what another has found meanwhile, or a new look-up finds.
    pub(super) async fn renew(
        &self,
        handle: &Handle,
        from: ApAddress,
        old: &ApRecord,
        deadline: Instant,
    ) -> Result<ApRecord, ConnectError> {
        let slot = self.slot(old.address());
        let mut known = timeout_at(deadline, slot.lock()).await.map_err(|_| ConnectError::TimedOut)?;
        if let Some(record) = known.as_ref().filter(|record| record.serial > old.serial && holds(record)) {
            return Ok(record.clone());
        }
        let found = look_up(handle, from, old.address(), deadline).await?;
        // A node that answers with an older one proves nothing.
        let newest = if found.serial > old.serial { found } else { old.clone() };
        *known = Some(newest.clone());
        Ok(newest)
    }

    fn slot(&self, address: ApAddress) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= REMEMBERED && !slots.contains_key(&address) {
            // Any that nobody holds: all of them can be found again.
            let idle = slots.iter().find(|(_, slot)| Arc::strong_count(slot) == 1).map(|(address, _)| *address);
            idle.map(|address| slots.remove(&address));
        }
        slots.entry(address).or_default().clone()
    }
}

/// Asks the database over a path of the identity's own that asks and does nothing else.
async fn look_up(handle: &Handle, from: ApAddress, to: ApAddress, deadline: Instant) -> Result<ApRecord, ConnectError> {
    let patience = deadline.saturating_duration_since(Instant::now());
    let (_, mut tunnel) = handle.tunnel(from, Work::Ask, patience).await.map_err(|_| ConnectError::TimedOut)?;
    let answer = async {
        tunnel.outgoing.write(CellKind::Lookup, &Lookup(to).to_bytes()).await?;
        tunnel.outgoing.flush().await?;
        loop {
            match tunnel.incoming.read().await? {
                Some((CellKind::Padding, _)) => {}
                Some((kind, data)) => return Ok::<_, crate::relay::RelayError>(Some((kind, data.to_vec()))),
                None => return Ok(None),
            }
        }
    };
    let limit = deadline.min(Instant::now() + ANSWER_LIMIT);
    match timeout_at(limit, answer).await {
        Ok(Ok(Some((CellKind::Found, bytes)))) => checked(to, &bytes).ok_or(ConnectError::Unreachable),
        Ok(Ok(Some((CellKind::Abort, reason)))) if reason == [Reason::Busy as u8] => Err(ConnectError::TimedOut),
        Ok(_) => Err(ConnectError::Unreachable),
        Err(_) => Err(ConnectError::TimedOut),
    }
}

/// A record like any: it must hold, and be of the address that was asked for.
fn checked(address: ApAddress, bytes: &[u8]) -> Option<ApRecord> {
    let record = Signed::<ApRecord>::from_bytes(bytes).ok()?.check(unix_seconds()).ok()?;
    (record.address() == address).then_some(record)
}
