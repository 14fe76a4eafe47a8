//! AP records that one identity has looked up, over a path that does nothing else, and keeps as long as they hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phantom_proto::cell::CellKind;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::{Heard, Inquiry, Verdict, Work};
use phantom_proto::record::{ApRecord, RoutingEntry, Signed};
use phantom_proto::wire::cells::{Lookup, Word};
use phantom_proto::wire::frame::Reason;
use rand::seq::SliceRandom;
use tokio::sync::{Mutex as Turns, Notify};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::unix_seconds;
use crate::driver::Handle;
use crate::far::ConnectError;
use crate::relay::RelayError;
use crate::relay::cells::Tunnel;

/// Addresses remembered per identity: a browser's day. Each costs some 600 bytes.
const REMEMBERED: usize = 1024;

/// How long one answer may take: the terminating node gives up after 15 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// How long the tunnel may take over which another end is asked: its path stands, or a program is not to wait for one to be built.
const AGAIN_PATIENCE: Duration = Duration::from_secs(3);

/// How long no second end is asked for what two have not had: a program that tries in a loop costs one question each time.
// protocol: U32
const IN_VAIN: Duration = Duration::from_secs(10);

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
    /// When two ends had not what was asked for.
    in_vain: Option<Instant>,
}

impl Known {
    /// Looks for a newer record than the one that is known to lead nowhere.
    async fn look_up<F>(
        &mut self,
        look_up: &mut impl FnMut(Inquiry) -> F,
        old: Option<u64>,
    ) -> Result<ApRecord, ConnectError>
    where
        F: Future<Output = Inquiry>,
    {
        let again = self.in_vain.is_none_or(|since| since.elapsed() >= IN_VAIN);
        let inquiry = look_up(Inquiry::new(old, again)).await;
        if inquiry.is_in_vain() {
            self.in_vain = Some(Instant::now());
        }
        match inquiry.verdict() {
            Verdict::Record(record) => Ok(record),
            Verdict::Nothing => Err(ConnectError::Unreachable),
            Verdict::Unsure => Err(ConnectError::Unsure),
            Verdict::Silence => Err(ConnectError::TimedOut),
        }
    }
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
        self.find_by(to, deadline, |inquiry| look_up(handle, from, to, deadline, inquiry)).await
    }

    async fn find_by<F>(
        &self,
        to: ApAddress,
        deadline: Instant,
        mut look_up: impl FnMut(Inquiry) -> F,
    ) -> Result<ApRecord, ConnectError>
    where
        F: Future<Output = Inquiry>,
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
            match known.look_up(&mut look_up, None).await {
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
        let mut look_up = |inquiry| look_up(handle, from, old.address(), deadline, inquiry);
        let found = known.look_up(&mut look_up, Some(old.serial)).await?;
        // A node that answers with an older one proves nothing.
        let newest = if found.serial > old.serial { found } else { old.clone() };
        known.record = Some(newest.clone());
        Ok(newest)
    }

    /// As if it had been found.
    #[cfg(test)]
    pub(super) async fn know(&self, record: ApRecord) {
        let slot = self.slot(record.address());
        slot.lock().await.record = Some(record);
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

/// Asks the database over paths of the identity's own that ask and do nothing else.
async fn look_up(handle: &Handle, from: ApAddress, to: ApAddress, deadline: Instant, mut inquiry: Inquiry) -> Inquiry {
    while let Some(work) = inquiry.next() {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = if work == Work::AskAgain { left.min(AGAIN_PATIENCE) } else { left };
        let Ok((path, tunnel)) = handle.tunnel(from, work, patience).await else { break };
        let Some(heard) = ask(tunnel, to, deadline).await else { break };
        if let Some(told) = inquiry.heard(path.no, heard) {
            handle.tell(told).await;
        }
    }
    inquiry
}

/// Asks the end of this path. `None`: the deadline came before the answer had its time.
pub(super) async fn ask(mut tunnel: Tunnel, to: ApAddress, deadline: Instant) -> Option<Heard> {
    let answer = async {
        tunnel.outgoing.say(&Word::Lookup(Lookup(to))).await?;
        tunnel.outgoing.flush().await?;
        loop {
            match tunnel.incoming.read().await? {
                Some((CellKind::Padding, _)) => {}
                Some((kind, data)) => return Ok(heard(to, kind, data)),
                None => return Ok(Heard::Silence),
            }
        }
    };
    let limit = Instant::now() + ANSWER_LIMIT;
    let answer = timeout_at(limit.min(deadline), answer).await;
    // Its link may serve again, which is nothing to wait for.
    tokio::spawn(tunnel.close());
    match answer {
        Ok(Ok(heard)) => Some(heard),
        Ok(Err(RelayError::Noise)) => Some(Heard::Noise),
        Ok(Err(_)) => Some(Heard::Silence),
        Err(_) => (limit <= deadline).then_some(Heard::Silence),
    }
}

/// What the end of a path says to a question.
// protocol: O20
fn heard(to: ApAddress, kind: CellKind, data: &[u8]) -> Heard {
    match Word::read(kind, data) {
        Ok(Word::Found(record)) => checked(to, record).map_or(Heard::Nothing, Heard::Record),
        Ok(Word::Abort(Reason::NoSuchAddress)) => Heard::Nothing,
        Ok(Word::Abort(Reason::Unreachable)) => Heard::Unsure,
        Ok(Word::Abort(Reason::Busy | Reason::GoingAway | Reason::Expired)) => Heard::Refused,
        // That is what an end says which has heard noise; and nothing else is an answer.
        Ok(Word::Abort(Reason::Protocol)) | Ok(_) | Err(_) => Heard::Noise,
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
    use crate::relay::cells::pair;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::node::PathNo;
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

    /// A database in which the record appears after so many questions, each of which takes a while.
    async fn look(looks: &AtomicUsize, appears: usize, mut inquiry: Inquiry) -> Inquiry {
        while inquiry.next().is_some() {
            sleep(Duration::from_millis(50)).await;
            let count = looks.fetch_add(1, Ordering::SeqCst) + 1;
            inquiry.heard(PathNo(1), if count < appears { Heard::Nothing } else { Heard::Record(record()) });
        }
        inquiry
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
        let find = || records.find_by(record().address(), deadline, |inquiry| look(&looks, 5, inquiry));
        assert_eq!(find().await, Ok(record()));
        assert!(begun.elapsed() < APPEARANCE);
        assert_eq!((find().await, looks.load(Ordering::SeqCst)), (Ok(record()), 5), "it is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_nobody_has_is_looked_for_once_for_all_who_want_it() {
        let (records, looks, begun) = (Records::default(), AtomicUsize::new(0), Instant::now());
        let deadline = begun + Duration::from_secs(60);
        let find = || records.find_by(record().address(), deadline, |inquiry| look(&looks, usize::MAX, inquiry));
        let all = futures::future::join_all((0..50).map(|_| find())).await;
        assert!(all.into_iter().all(|found| found == Err(ConnectError::Unreachable)));
        let (took, asked) = (begun.elapsed(), looks.load(Ordering::SeqCst));
        assert!(took >= SHARED_AFTER && took <= APPEARANCE, "{took:?}");
        assert!(asked <= PAUSES_MS.len() + 2, "{asked}");
        // Whoever comes later looks anew.
        assert_eq!(find().await, Err(ConnectError::Unreachable));
        assert!(looks.load(Ordering::SeqCst) > asked);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_database_that_does_not_answer() {
        let (records, looks) = (Records::default(), AtomicUsize::new(0));
        let silent = |mut inquiry: Inquiry| async {
            while inquiry.next().is_some() {
                looks.fetch_add(1, Ordering::SeqCst);
                inquiry.heard(PathNo(1), Heard::Silence);
            }
            inquiry
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(records.find_by(record().address(), deadline, silent).await, Err(ConnectError::TimedOut));
        assert_eq!(looks.load(Ordering::SeqCst), 2);
    }

    /// A program that tries without end what is not there must not have twice as many questions asked without end.
    // protocol: U32
    #[tokio::test(start_paused = true)]
    async fn what_two_ends_have_not_is_asked_of_one_for_a_while() {
        let (mut known, begun) = (Known::default(), Instant::now());
        let (mut firsts, mut seconds) = (0, Vec::new());
        while begun.elapsed() < Duration::from_secs(60) {
            let mut asked = |mut inquiry: Inquiry| {
                while let Some(work) = inquiry.next() {
                    match work {
                        Work::Ask => firsts += 1,
                        _ => seconds.push(begun.elapsed()),
                    }
                    inquiry.heard(PathNo(1), Heard::Nothing);
                }
                std::future::ready(inquiry)
            };
            assert_eq!(known.look_up(&mut asked, None).await, Err(ConnectError::Unreachable));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((firsts, seconds.len()), (60, 6), "{seconds:?}");
        assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] >= IN_VAIN));
    }

    fn abort(reason: Reason) -> Heard {
        heard(record().address(), CellKind::Abort, &[reason as u8])
    }

    // protocol: U13, U30, O20
    #[test]
    fn what_is_no_answer_is_noise_and_what_is_no_record_is_none() {
        assert_eq!(abort(Reason::NoSuchAddress), Heard::Nothing);
        assert_eq!(abort(Reason::Unreachable), Heard::Unsure);
        assert_eq!(abort(Reason::Busy), Heard::Refused);
        assert_eq!(abort(Reason::Protocol), Heard::Noise, "it has not heard what was said");
        let found = Signed::sign(&record(), &key()).bytes().to_vec();
        let forged = Signed::sign(&record(), &SigningKey::from_seed(&[77; 32])).bytes().to_vec();
        let said = |kind, data: &[u8]| heard(record().address(), kind, data);
        assert_eq!(said(CellKind::Found, &found), Heard::Record(record()));
        assert_eq!(said(CellKind::Found, &forged), Heard::Nothing);
        assert_eq!(said(CellKind::Data, b"data"), Heard::Noise);
        assert_eq!(said(CellKind::Abort, &[]), Heard::Noise);
    }

    /// Two ends of a tunnel over the owner's own path, of which one is asked.
    async fn asked(answer: impl AsyncFnOnce(Tunnel)) -> Option<Heard> {
        let [mut end, owner] = pair(1 << 20);
        let asks = ask(owner, record().address(), Instant::now() + Duration::from_secs(60));
        let answers = async {
            let asked = end.incoming.read().await.unwrap().map(|(kind, data)| (kind, data.to_vec()));
            assert_eq!(asked, Some((CellKind::Lookup, record().address().octets().to_vec())));
            answer(end).await;
        };
        tokio::join!(asks, answers).0
    }

    /// What a look-up said of its path was heard by nobody: one over which noise came asked for as long as it stood.
    // protocol: O17
    #[tokio::test(start_paused = true)]
    async fn noise_and_silence_are_told_apart() {
        let begun = Instant::now();
        let noise = asked(async |mut end: Tunnel| end.outgoing.say_noise().await);
        assert_eq!(noise.await, Some(Heard::Noise));
        assert_eq!(asked(async |end: Tunnel| drop(end)).await, Some(Heard::Silence));
        assert_eq!(asked(async |end: Tunnel| end.abort(Reason::Unreachable).await).await, Some(Heard::Unsure));
        assert!(begun.elapsed() < ANSWER_LIMIT);
        let silent = asked(async |end: Tunnel| {
            sleep(ANSWER_LIMIT * 2).await;
            drop(end);
        });
        assert_eq!(silent.await, Some(Heard::Silence));
        let [_end, owner] = pair(1 << 20);
        assert_eq!(ask(owner, record().address(), Instant::now() + ANSWER_LIMIT / 2).await, None, "it had no time");
    }
}
