//! How a client's session comes to another tunnel when its own is gone: which entry node, over which path, after which pause.

use std::sync::{Arc, Weak};
use std::time::Duration;

use phantom_proto::ident::ApAddress;
use phantom_proto::node::{PathNo, Work};
use phantom_proto::record::{ApRecord, RoutingEntry};
use phantom_proto::wire::frame::Handle as EntryHandle;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::pump::Over;
use super::records::{Records, usable};
use crate::driver::{Handle, OwnPath};
use crate::far::ConnectError;
use crate::relay::cells::Tunnel;

/// Tries that follow each other at once: as many as there are entries, and one for an entry node that was busy.
// protocol: S42
const BURST: u32 = 4;

/// The most that is waited within a burst: whole networks lose their tunnels at once, with a node.
const BURST_PAUSE: Duration = Duration::from_secs(1);

/// The first pause after a burst, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(1800)];

/// The most that an identity's sessions wait once this computer is in another network: those of two begin at times of their own.
// protocol: S49
pub(super) const AGAIN: Duration = Duration::from_secs(5);

/// How long a tunnel must have carried before its loss is the first of others: a server that answers each attempt and breaks it off at once
/// had its client dial again without a pause, for ever.
// protocol: S42
const STOOD: Duration = Duration::from_secs(10);

/// How long the answer to the first try may take, and how much longer that to each of the next two.
// protocol: S50
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a newer record may take.
const RENEWAL_LIMIT: Duration = Duration::from_secs(30);

/// Where no entry leads on: how often a newer record is looked for between tries, and how long. A server that was started anew has one within
/// seconds, and pauses between tries grow.
// protocol: S52
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOKS_FOR: Duration = Duration::from_secs(120);

/// How long one wait for a tunnel is; then whether the identity is still there is looked at.
const TUNNEL_LIMIT: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Redial {
    handle: Handle,
    /// Of the identity: gone with it.
    records: Weak<Records>,
    again: Arc<Notify>,
    from: ApAddress,
    record: ApRecord,
    /// Entries that did not lead on, the present one last.
    tried: Vec<EntryHandle>,
    /// One that is not to blame for the loss of what led over it.
    sound: Option<EntryHandle>,
    tries: u32,
    /// Since when no entry of the newest record has led on, where each was tried and no newer one was there.
    vain: Option<Instant>,
    /// Since when the other end has been heard of on the present tunnel, if it has.
    answered: Option<Instant>,
    /// No try leaves earlier.
    begin: Instant,
}

/// A tunnel that nothing was said on, and to whom it is to lead.
pub(super) struct Found {
    pub(super) tunnel: Tunnel,
    pub(super) path: OwnPath,
    pub(super) entry: RoutingEntry,
}

impl Redial {
    pub(super) fn new(
        handle: Handle,
        records: &Arc<Records>,
        from: ApAddress,
        record: ApRecord,
        entry: EntryHandle,
    ) -> Self {
        let (again, records) = (records.again(), Arc::downgrade(records));
        let (tried, begin) = (vec![entry], Instant::now());
        // The session's secret came by it.
        let answered = Some(begin);
        Self { handle, records, again, from, record, tried, sound: None, tries: 0, vain: None, answered, begin }
    }

    /// The same, whose first try waits until then.
    // protocol: S51
    pub(super) fn not_before(self, begin: Instant) -> Self {
        Self { begin, ..self }
    }

    /// By which entry node the other end was reached last.
    pub(super) fn present(&self) -> Option<EntryHandle> {
        self.tried.last().copied()
    }

    /// Whom a path of these belongs to.
    pub(super) fn over(&self, path: PathNo) -> Over {
        Over { handle: self.handle.clone(), path }
    }

    /// The other end has answered.
    pub(super) fn answered(&mut self) {
        let present = self.tried.pop();
        (self.answered, self.tried) = (Some(Instant::now()), present.into_iter().collect());
        self.vain = None;
    }

    /// The tunnel is lost; when it has carried for a while, that is nothing that goes on. Without a word of the exit node it broke before
    /// it: an entry node that the other end has been heard of by is as good as before, and the others may be dead.
    // protocol: S42, S50
    pub(super) fn lost(&mut self, without_word: bool) {
        self.sound = None;
        let Some(since) = self.answered.take() else { return };
        if without_word {
            self.sound = self.tried.pop();
        }
        if since.elapsed() >= STOOD {
            self.tries = 0;
        }
    }

    /// How long the answer over the present tunnel may take: one that comes, comes within a round trip, and another try tells more than
    /// waiting, until all of them seem slow.
    // protocol: S50
    pub(super) fn patience(&self) -> Duration {
        ANSWER_PATIENCE * self.tries.clamp(1, 3)
    }

    /// The next way, when its time has come. `None`: the identity is gone.
    // protocol: S42, S49
    pub(super) async fn next(mut self: Box<Self>) -> (Box<Self>, Option<Found>) {
        loop {
            self.wait().await;
            self.tries += 1;
            match self.find().await {
                // Nobody knows yet where the other end is.
                Some(None) => {}
                found => return (self, found.flatten()),
            }
        }
    }

    async fn wait(&mut self) {
        let due = self.begin.max(Instant::now() + self.pause());
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due) => return,
                // As if it had just been lost: what failed until now failed without a network.
                () = self.again.notified() => {
                    self.tries = 1;
                    return sleep(self.pause()).await;
                }
                () = sleep_until(self.next_look()) => {}
            }
            tokio::select! {
                biased;
                () = sleep_until(due) => return,
                newer = self.has_newer() => if newer { return },
            }
        }
    }

    fn next_look(&self) -> Instant {
        let every = LOOK_EVERY.mul_f64(crate::random().random_range(1.0..1.5));
        let looks = self.vain.is_some_and(|since| since.elapsed() < LOOKS_FOR);
        Instant::now() + if looks { every } else { PAUSES[1] * 2 }
    }

    /// Whether there is a newer record than the one of which no entry leads on.
    async fn has_newer(&mut self) -> bool {
        let Some(records) = self.records.upgrade() else { return true };
        let deadline = Instant::now() + RENEWAL_LIMIT;
        let newer = timeout_at(deadline, records.renew(&self.handle, self.from, &self.record, deadline)).await;
        self.learn(newer.unwrap_or(Err(ConnectError::TimedOut)));
        self.vain.is_none()
    }

    fn pause(&self) -> Duration {
        let share = crate::random().random_range(0.0..1.0);
        match self.tries {
            0 => Duration::ZERO,
            tries if tries < BURST => BURST_PAUSE.mul_f64(share),
            tries => {
                let [first, longest] = PAUSES;
                let doubled = first.saturating_mul(1 << (tries - BURST).min(16)).min(longest);
                doubled + doubled.mul_f64(share / 4.0)
            }
        }
    }

    /// A tunnel, and to whom: none while no entry is known. `None`: the identity is gone.
    async fn find(&mut self) -> Option<Option<Found>> {
        loop {
            let Some(entry) = self.entry().await? else { return Some(None) };
            if let Ok((path, tunnel)) = self.handle.tunnel(self.from, Work::Connect, TUNNEL_LIMIT).await {
                self.tried.push(entry.handle);
                return Some(Some(Found { tunnel, path, entry }));
            }
        }
    }

    /// One that was not tried, if there is any; by a newer record, when there is none. `None`: the identity is gone.
    async fn entry(&mut self) -> Option<Option<RoutingEntry>> {
        let deadline = Instant::now() + RENEWAL_LIMIT;
        let to = self.record.address();
        let records = self.records.upgrade()?;
        // An old connection's record may have ended long ago.
        let known = records.find(&self.handle, self.from, to, deadline).await;
        self.learn(known);
        if let Some(entry) = self.untried().filter(|_| self.vain.is_none()) {
            return Some(Some(entry));
        }
        let newer = records.renew(&self.handle, self.from, &self.record, deadline).await;
        self.learn(newer);
        Some(self.untried().or_else(|| {
            self.vain.get_or_insert_with(Instant::now);
            // Once more, the one that failed last behind the others.
            let last = self.tried.pop();
            self.tried.clear();
            let all = usable(&self.record);
            let other = all.iter().find(|entry| Some(entry.handle) != last);
            other.or_else(|| all.first()).or_else(|| self.record.entries.first()).cloned()
        }))
    }

    fn learn<E>(&mut self, record: Result<ApRecord, E>) {
        if let Some(newer) = record.ok().filter(|record| record.serial > self.record.serial) {
            (self.record, self.vain) = (newer, None);
        }
    }

    fn untried(&self) -> Option<RoutingEntry> {
        let mut left = usable(&self.record);
        left.retain(|entry| !self.tried.contains(&entry.handle));
        let first = left.iter().position(|entry| Some(entry.handle) == self.sound).unwrap_or(0);
        (!left.is_empty()).then(|| left.swap_remove(first))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use phantom_proto::crypto::SigningKey;
    use phantom_proto::wire::NodeContact;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::assembly::lone;
    use crate::connections::{Network, Programs};
    use crate::far::Stream;

    // protocol: S42
    #[tokio::test(start_paused = true)]
    async fn pauses_are_none_and_then_never_longer_than_what_has_passed() {
        let lone = lone::driver();
        let records = Arc::default();
        let key = SigningKey::from_seed(&[1; 32]);
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: 0, entries: Vec::new() };
        let from = ApAddress::of(&key.verifying_key());
        let mut redial = Redial::new(lone.handle.clone(), &records, from, record, [0; 16]);
        let mut passed = Duration::ZERO;
        for tries in 0..64 {
            redial.tries = tries;
            let pause = redial.pause();
            if tries < BURST {
                assert!(pause <= BURST_PAUSE && (tries > 0 || pause.is_zero()));
            } else {
                assert!(pause >= PAUSES[0] && pause <= (passed * 2).max(PAUSES[0] * 2).min(PAUSES[1] * 5 / 4));
            }
            passed += pause;
        }
        assert!(passed > Duration::from_secs(24 * 3600), "the attempts last for a day: {passed:?}");
        drop(records);
        assert!(redial.find().await.is_none(), "the identity is gone");
    }

    // protocol: S42
    #[tokio::test(start_paused = true)]
    async fn whose_answers_are_broken_off_at_once_pauses_as_without_any() {
        let lone = lone::driver();
        let key = SigningKey::from_seed(&[1; 32]);
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: 0, entries: Vec::new() };
        let from = ApAddress::of(&key.verifying_key());
        let mut redial = Redial::new(lone.handle.clone(), &Arc::default(), from, record, [0; 16]);
        for tries in 0..8 {
            redial.lost(false);
            assert_eq!(redial.pause() >= PAUSES[0], tries >= BURST, "{tries}");
            redial.tries += 1;
            redial.answered();
        }
        tokio::time::advance(STOOD).await;
        redial.lost(false);
        assert!(redial.pause().is_zero(), "that one carried");
    }

    fn entry(number: u8) -> RoutingEntry {
        let identity = SigningKey::from_seed(&[number; 32]).verifying_key();
        let entry_node = NodeContact { identity, addr: ([10, number, 0, 1], 443).into(), link_secret: [0; 32] };
        RoutingEntry { entry_node, handle: [number; 16], until: u64::MAX }
    }

    /// When a node of the own path was lost, the other two entries were asked before the one that had led on, and dead ones among them cost 10 s each.
    // protocol: S50
    #[tokio::test(start_paused = true)]
    async fn an_entry_is_not_left_for_what_broke_before_it() {
        let lone = lone::driver();
        let key = SigningKey::from_seed(&[1; 32]);
        let entries = (1..4).map(entry).collect();
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: u64::MAX, entries };
        let from = ApAddress::of(&key.verifying_key());
        for _ in 0..32 {
            let redial = || Redial::new(lone.handle.clone(), &Arc::default(), from, record.clone(), [1; 16]);
            let next = |redial: &Redial| redial.untried().map(|entry| entry.handle[0]);
            let mut broke = redial();
            broke.lost(true);
            assert_eq!(next(&broke), Some(1), "its secret came by it");
            // As when it is dialed again, over it.
            broke.tried.push([1; 16]);
            broke.lost(true);
            assert_ne!(next(&broke), Some(1), "nothing says that it still leads on");
            broke.answered();
            broke.lost(true);
            assert_eq!(next(&broke), Some(1));
            let mut given_up = redial();
            given_up.answered();
            given_up.lost(false);
            assert_ne!(next(&given_up), Some(1), "the exit node says that it does not");
        }
    }

    // protocol: S50
    #[tokio::test(start_paused = true)]
    async fn each_try_waits_longer_for_its_answer() {
        let lone = lone::driver();
        let key = SigningKey::from_seed(&[1; 32]);
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: 0, entries: Vec::new() };
        let from = ApAddress::of(&key.verifying_key());
        let mut redial = Redial::new(lone.handle.clone(), &Arc::default(), from, record, [0; 16]);
        let waits = [1, 2, 3, 4, 60].map(|tries| {
            redial.tries = tries;
            redial.patience().as_secs()
        });
        assert_eq!(waits, [5, 10, 15, 15, 15]);
    }

    /// When a server's daemon was started anew, its clients waited for up to 100 s: the newer record was looked for at every third try alone.
    // protocol: S52
    #[tokio::test(start_paused = true)]
    async fn a_newer_record_ends_the_pause_where_no_entry_leads_on() {
        let lone = lone::driver();
        let key = SigningKey::from_seed(&[1; 32]);
        let entries = (1..4).map(entry).collect();
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: u64::MAX, entries };
        let from = ApAddress::of(&key.verifying_key());
        let records = Arc::<Records>::default();
        records.know(record.clone()).await;
        let mut redial = Redial::new(lone.handle.clone(), &records, from, record.clone(), [1; 16]);
        (redial.tries, redial.tried) = (12, vec![[2; 16], [3; 16], [1; 16]]);
        assert!(redial.entry().await.flatten().is_some() && redial.vain.is_some(), "once more, though none has led on");
        let begun = Instant::now();
        let mut redial = {
            let waiting = tokio::spawn(async move {
                redial.wait().await;
                redial
            });
            sleep(LOOKS_FOR / 2).await;
            assert!(!waiting.is_finished(), "the pause is longer");
            records.know(ApRecord { serial: 2, ..record.clone() }).await;
            waiting.await.unwrap()
        };
        // A look-up of this driver's, which is alone, takes all the time that it has.
        assert!(begun.elapsed() < LOOKS_FOR / 2 + RENEWAL_LIMIT + LOOK_EVERY * 2, "{:?}", begun.elapsed());
        assert!(redial.vain.is_none());
        // Nobody asks for hours.
        redial.vain = Some(Instant::now());
        tokio::time::advance(LOOKS_FOR).await;
        assert!(redial.next_look() > Instant::now() + PAUSES[1]);
    }

    /// Without a network for hours, a session would have waited for half an hour more.
    // protocol: S49
    #[tokio::test(start_paused = true)]
    async fn in_another_network_the_next_try_is_at_once() {
        let lone = lone::driver();
        let key = SigningKey::from_seed(&[1; 32]);
        let record = ApRecord { key: key.verifying_key(), serial: 1, issued: 0, expires: 0, entries: Vec::new() };
        let from = ApAddress::of(&key.verifying_key());
        // The identity is gone, so that a try ends at once.
        let redial = |again: Arc<Notify>| {
            let redial = Redial::new(lone.handle.clone(), &Arc::default(), from, record.clone(), [0; 16]);
            Box::new(Redial { tries: 64, again, ..redial })
        };
        let (again, begun) = (Arc::new(Notify::new()), Instant::now());
        redial(again.clone()).next().await;
        assert!(begun.elapsed() >= PAUSES[1], "nothing has changed");
        let begun = Instant::now();
        let next = tokio::spawn(redial(again.clone()).next());
        sleep(Duration::from_secs(60)).await;
        again.notify_waiters();
        let (redial, _) = next.await.unwrap();
        assert!(begun.elapsed() <= Duration::from_secs(60) + BURST_PAUSE);
        assert_eq!(redial.tries, 2, "the pauses begin anew");
    }

    struct Nobody;

    #[async_trait]
    impl Programs for Nobody {
        async fn listens(&self, _: u16) -> bool {
            false
        }

        async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
    }

    /// What two identities do in one moment shows that they are one owner's.
    // protocol: S49
    #[tokio::test(start_paused = true)]
    async fn in_another_network_each_identity_begins_at_a_time_of_its_own() {
        let lone = lone::driver();
        let network = Network::start(lone.handle.clone(), mpsc::channel(1).1);
        let waiting: Vec<_> = (0..8)
            .map(|seed| {
                let key = Arc::new(SigningKey::from_seed(&[seed; 32]));
                network.receive(key.clone(), Arc::new(Nobody));
                let again = network.identity(ApAddress::of(&key.verifying_key())).unwrap().records.again();
                tokio::spawn(async move {
                    again.notified().await;
                    Instant::now()
                })
            })
            .collect();
        sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        network.try_again();
        let mut times = Vec::new();
        for one in waiting {
            times.push(timeout(AGAIN * 2, one).await.expect("it is told").unwrap() - begun);
        }
        assert!(times.iter().all(|time| *time <= AGAIN + Duration::from_millis(1)), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]), "{times:?}");
    }
}
