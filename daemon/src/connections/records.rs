//! AP records that one identity has looked up, over a path that does nothing else, and keeps as long as they hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Work;
use phantom_proto::record::{ApRecord, RoutingEntry, Signed};
use phantom_proto::wire::cells::{Lookup, Word};
use phantom_proto::wire::frame::Reason;
use rand::seq::SliceRandom;
use tokio::sync::{Mutex as Turns, Notify};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::unix_seconds;
use crate::driver::Handle;
use crate::gate::ConnectError;

/// Addresses remembered per identity: a browser's day. Each costs some 600 bytes.
const REMEMBERED: usize = 1024;

/// How long one look-up may take: the terminating node gives up after 15 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long a record, or a newer one, is looked for that is not there: who listens is found a moment later, since its record has to be made,
/// stored and spread first. A kernel whose first SYN is lost would wait as long for its second and third.
pub(super) const APPEARANCE: Duration = Duration::from_secs(3);

/// The answer "there is none" serves all who have waited for at least so long.
const SHARED_AFTER: Duration = Duration::from_secs(2);

/// Pauses between look-ups of what is not there: short at first, since most who call back do it at once.
const PAUSES_MS: [u64; 5] = [200, 400, 600, 800, 800];

/// What is known of one address; whoever wants to know it while it is looked up waits for the same answer.
type Slot = Arc<Turns<Known>>;

#[derive(Default)]
struct Known {
    record: Option<ApRecord>,
    /// When there was none the last time.
    missed: Option<Instant>,
}

/// The records of one identity.
#[derive(Default)]
pub(super) struct Records {
    slots: Mutex<BTreeMap<ApAddress, Slot>>,
    /// Told when what led nowhere may lead on again, since this computer is in another network.
    again: Arc<Notify>,
}

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
    /// What is told when it is worth trying again.
    pub(super) fn again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// The record of an address, known or looked up. One that is not there yet is waited for, a little.
    pub(super) async fn find(
        &self,
        handle: &Handle,
        from: ApAddress,
        to: ApAddress,
        deadline: Instant,
    ) -> Result<ApRecord, ConnectError> {
        self.find_by(to, deadline, || look_up(handle, from, to, deadline)).await
    }

    async fn find_by<F>(
        &self,
        to: ApAddress,
        deadline: Instant,
        mut look_up: impl FnMut() -> F,
    ) -> Result<ApRecord, ConnectError>
    where
        F: Future<Output = Result<ApRecord, ConnectError>>,
    {
        let begun = Instant::now();
        let slot = self.slot(to);
        let mut known = timeout_at(deadline, slot.lock()).await.map_err(|_| ConnectError::TimedOut)?;
        if let Some(record) = known.record.as_ref().filter(|record| holds(record)) {
            return Ok(record.clone());
        }
        let mut last = ConnectError::Unreachable;
        let mut pauses = PAUSES_MS.into_iter().map(Duration::from_millis);
        while known.missed.is_none_or(|missed| missed < begun + SHARED_AFTER) {
            match look_up().await {
                Err(error @ (ConnectError::Unreachable | ConnectError::Unsure)) => last = error,
                found => {
                    let record = found?;
                    known.record = Some(record.clone());
                    return Ok(record);
                }
            }
            known.missed = Some(Instant::now());
            let pause = pauses.next().unwrap_or(APPEARANCE);
            if Instant::now() + pause > deadline.min(begun + APPEARANCE) {
                break;
            }
            sleep(pause).await;
        }
        Err(last)
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
        if let Some(record) = known.record.as_ref().filter(|record| record.serial > old.serial && holds(record)) {
            return Ok(record.clone());
        }
        let found = look_up(handle, from, old.address(), deadline).await?;
        // A node that answers with an older one proves nothing.
        let newest = if found.serial > old.serial { found } else { old.clone() };
        known.record = Some(newest.clone());
        Ok(newest)
    }

    fn slot(&self, address: ApAddress) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
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
        tunnel.outgoing.say(&Word::Lookup(Lookup(to))).await?;
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
    let answer = timeout_at(limit, answer).await;
    // Its link may serve again, which is nothing to wait for.
    tokio::spawn(tunnel.close());
    let (kind, data) = match answer {
        Ok(Ok(Some(answer))) => answer,
        Ok(_) => return Err(ConnectError::Unreachable),
        Err(_) => return Err(ConnectError::TimedOut),
    };
    match Word::read(kind, &data) {
        Ok(Word::Found(record)) => checked(to, record).ok_or(ConnectError::Unreachable),
        Ok(Word::Abort(Reason::Busy)) => Err(ConnectError::TimedOut),
        Ok(Word::Abort(Reason::Unreachable)) => Err(ConnectError::Unsure),
        _ => Err(ConnectError::Unreachable),
    }
}

/// A record like any: it must hold, and be of the address that was asked for.
// protocol: U20
fn checked(address: ApAddress, bytes: &[u8]) -> Option<ApRecord> {
    let record = Signed::<ApRecord>::from_bytes(bytes).ok()?.check(unix_seconds()).ok()?;
    (record.address() == address).then_some(record)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::record::STEP;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn record() -> ApRecord {
        let contact = phantom_proto::wire::NodeContact {
            identity: key().verifying_key(),
            addr: "127.0.0.1:1".parse().unwrap(),
            link_secret: [0; 32],
        };
        let entry = RoutingEntry { entry_node: contact, handle: [1; 16], until: unix_seconds() + 7200 };
        ApRecord::on_grid(key().verifying_key(), unix_seconds() / STEP, 1, vec![entry])
    }

    /// A database in which the record appears after so many look-ups, each of which takes a while.
    async fn look(looks: &AtomicUsize, appears: usize) -> Result<ApRecord, ConnectError> {
        sleep(Duration::from_millis(50)).await;
        let count = looks.fetch_add(1, Ordering::SeqCst) + 1;
        if count < appears { Err(ConnectError::Unreachable) } else { Ok(record()) }
    }

    /// Whoever answers a LOOKUP may answer with a record that holds, of somebody else.
    // protocol: U20
    #[test]
    fn a_record_of_another_address_is_no_answer() {
        let (record, bytes) = (record(), Signed::sign(&record(), &key()).bytes().to_vec());
        let other = ApAddress::of(&SigningKey::from_seed(&[77; 32]).verifying_key());
        assert!(checked(record.address(), &bytes).is_some() && checked(other, &bytes).is_none());
        let forged = Signed::sign(&record, &SigningKey::from_seed(&[77; 32]));
        assert!(checked(record.address(), forged.bytes()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_appears_within_seconds_is_waited_for() {
        let (records, looks, begun) = (Records::default(), AtomicUsize::new(0), Instant::now());
        let deadline = begun + Duration::from_secs(60);
        let find = || records.find_by(record().address(), deadline, || look(&looks, 5));
        assert_eq!(find().await, Ok(record()));
        assert!(begun.elapsed() < APPEARANCE);
        assert_eq!((find().await, looks.load(Ordering::SeqCst)), (Ok(record()), 5), "it is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_nobody_has_is_looked_for_once_for_all_who_want_it() {
        let (records, looks, begun) = (Records::default(), AtomicUsize::new(0), Instant::now());
        let deadline = begun + Duration::from_secs(60);
        let find = || records.find_by(record().address(), deadline, || look(&looks, usize::MAX));
        let all = futures::future::join_all((0..50).map(|_| find())).await;
        assert!(all.into_iter().all(|found| found == Err(ConnectError::Unreachable)));
        let (took, asked) = (begun.elapsed(), looks.load(Ordering::SeqCst));
        assert!(took >= SHARED_AFTER && took <= APPEARANCE, "{took:?}");
        assert!(asked <= PAUSES_MS.len() + 1, "{asked}");
        // Whoever comes later looks anew.
        assert_eq!(find().await, Err(ConnectError::Unreachable));
        assert!(looks.load(Ordering::SeqCst) > asked);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_database_that_does_not_answer() {
        let (records, looks) = (Records::default(), AtomicUsize::new(0));
        let silent = || async {
            looks.fetch_add(1, Ordering::SeqCst);
            Err(ConnectError::TimedOut)
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(records.find_by(record().address(), deadline, silent).await, Err(ConnectError::TimedOut));
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    }
}
