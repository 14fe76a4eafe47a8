//! What of named identities is in the store beside their keys: the serials of their AP records, since after a restart a record must
//! count as newer than the last one, the nodes of their layers, since drawing them anew is what an attacker waits for, and the day on
//! which they were last used, since those of the last days are expected to be used again. The serials of others are in memory: they may end
//! and begin to listen, and go over to the next process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use phantom_proto::ident::ApAddress;
use phantom_proto::node::{EXPECTED, EXPECTED_FOR, Serials};
use phantom_proto::record::STEPS_HELD;

use crate::clock::unix_seconds;
use crate::driver::Kept;
use crate::identity::{ApIdentity, Identities};
use crate::store::{Store, StoreError, Table};

/// Where they are.
pub(super) struct Stored {
    store: Arc<Store>,
    identities: Arc<Identities>,
    /// Of identities that die with their runs.
    fresh: Mutex<BTreeMap<ApAddress, Serials>>,
}

fn key(what: &[u8], identity: ApAddress) -> Vec<u8> {
    [what, b"/", &identity.octets()].concat()
}

impl Stored {
    pub(super) fn new(store: Arc<Store>, identities: Arc<Identities>) -> Self {
        Self { store, identities, fresh: Mutex::default() }
    }

    fn load(&self, what: &[u8], identity: ApAddress) -> Option<Vec<u8>> {
        self.store.load(Table::Meta, &key(what, identity)).ok().flatten()
    }

    /// Nothing of an identity that dies with its run goes to disk.
    fn save(&self, what: &[u8], identity: ApAddress, bytes: &[u8]) {
        if self.lasts(identity)
            && let Err(error) = self.store.save(Table::Meta, &key(what, identity), bytes)
        {
            tracing::warn!("what belongs to a named identity could not be saved: {error}");
        }
    }

    fn last_used(&self, identity: ApAddress) -> Option<u64> {
        let kept: [u8; 8] = self.load(USED, identity)?.try_into().ok()?;
        Some(u64::from_be_bytes(kept))
    }

    /// Nothing counts of a record whose step is long over.
    fn remember(&self, identity: ApAddress, serials: Serials) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let step = |serials: &Serials| serials.0.into_iter().max().unwrap_or_default() >> 16;
        let now = step(&serials);
        fresh.retain(|_, other| step(other).saturating_add(STEPS_HELD) > now);
        fresh.insert(identity, serials);
    }

    fn used_at(&self, now: u64, identity: ApAddress) {
        let day = now - now % DAY;
        if self.lasts(identity) && self.last_used(identity) != Some(day) {
            self.save(USED, identity, &day.to_be_bytes());
        }
    }

    /// The identities that are expected to be used again, and when they were used last, in seconds since 1970.
    pub(super) fn expected(&self, now: u64) -> Vec<(Arc<ApIdentity>, u64)> {
        let named = self.identities.all().into_iter().filter(|one| one.name.is_some());
        let used = named.filter_map(|one| Some((self.last_used(one.address())?, one)));
        let lately = used.filter(|(used, _)| now < used.saturating_add(EXPECTED_FOR / 1000));
        let mut lately: Vec<_> = lately.map(|(used, one)| (one, used)).collect();
        lately.sort_by_key(|(_, used)| std::cmp::Reverse(*used));
        lately.truncate(EXPECTED);
        lately
    }
}

/// Seconds. Nothing finer is kept: who takes the disk need not learn when somebody was here.
const DAY: u64 = 86_400;

const USED: &[u8] = b"used";

const SERIALS: &[u8] = b"serials";

const SETS: &[u8] = b"sets";

/// Nothing of a named identity that is gone stays on disk.
pub(super) fn forget(store: &Store, identity: ApAddress) -> Result<(), StoreError> {
    let keys = [USED, SERIALS, SETS].map(|what| key(what, identity));
    store.erase(Table::Meta, &keys.each_ref().map(Vec::as_slice))
}

impl Kept for Stored {
    fn lasts(&self, identity: ApAddress) -> bool {
        self.identities.all().iter().any(|one| one.name.is_some() && one.address() == identity)
    }

    fn used(&self, identity: ApAddress) {
        self.used_at(unix_seconds(), identity);
    }

    fn serials(&self, identity: ApAddress) -> Serials {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(&identity).copied();
        if let Some(serials) = fresh {
            return serials;
        }
        let kept: Option<[u8; 16]> = self.load(SERIALS, identity).and_then(|bytes| bytes.try_into().ok());
        kept.map(Serials::from_bytes).unwrap_or_default()
    }

    fn save_serials(&self, identity: ApAddress, serials: Serials) {
        // A service may run for weeks.
        self.used(identity);
        if self.lasts(identity) {
            self.save(SERIALS, identity, &serials.to_bytes());
        } else {
            self.remember(identity, serials);
        }
    }

    fn sets(&self, identity: ApAddress) -> Option<Vec<u8>> {
        self.load(SETS, identity)
    }

    fn save_sets(&self, identity: ApAddress, sets: Vec<u8>) {
        self.save(SETS, identity, &sets);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use async_trait::async_trait;
    use phantom_proto::crypto::SigningKey;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::connections::{Network, Programs};
    use crate::far::Stream;
    use crate::identity::Whose;

    #[test]
    fn only_those_of_named_identities_reach_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let identities = Arc::new(Identities::load(store.clone()).unwrap());
        let named = identities.create(Whose::Operator, "web", &mut StdRng::seed_from_u64(1)).unwrap().address();
        let fresh = ApAddress::of(&SigningKey::from_seed(&[1; 32]).verifying_key());
        let before = Stored::new(store.clone(), identities.clone());
        let serials = Serials([3 << 16, 4 << 16 | 7]);
        for identity in [named, fresh] {
            before.save_serials(identity, serials);
            before.save_sets(identity, vec![7]);
        }
        assert_eq!(before.serials(fresh), serials, "it may begin to listen again");
        let other = ApAddress::of(&SigningKey::from_seed(&[2; 32]).verifying_key());
        before.save_serials(other, Serials([3 << 16, 99 << 16]));
        assert_eq!(before.serials(fresh), Serials::default(), "long over");
        let after = Stored::new(store.clone(), identities);
        assert_eq!((after.serials(named), after.serials(fresh)), (serials, Serials::default()));
        assert_eq!((after.sets(named), after.sets(fresh)), (Some(vec![7]), None));
        forget(&store, named).unwrap();
        assert_eq!((after.serials(named), after.sets(named)), (Serials::default(), None));
    }

    // protocol: K23
    #[test]
    fn those_that_were_used_lately_are_expected_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let identities = Arc::new(Identities::load(store.clone()).unwrap());
        let mut rng = StdRng::seed_from_u64(1);
        let count = EXPECTED + 4;
        let named: Vec<_> = (0..count)
            .map(|n| identities.create(Whose::Operator, &format!("web{n}"), &mut rng).unwrap().address())
            .collect();
        let kept = Stored::new(store.clone(), identities.clone());
        let now = 20_000 * DAY + 7_000;
        // One each day, the last yesterday; one never, one that dies with its run.
        for (number, identity) in named[1..].iter().enumerate() {
            kept.used_at(now - number as u64 * DAY, *identity);
        }
        kept.used_at(now, ApAddress::of(&SigningKey::from_seed(&[1; 32]).verifying_key()));
        let kept = Stored::new(store, identities);
        let expected =
            |now| -> Vec<_> { kept.expected(now).into_iter().map(|(one, used)| (one.address(), used)).collect() };
        let day = |number: usize| (20_000 - number as u64) * DAY;
        // Of the whole day only the day is kept.
        let week: Vec<_> = (0..7).map(|number| (named[1 + number], day(number))).collect();
        assert_eq!(expected(now), week);
        assert_eq!(expected(now + 8 * DAY), []);
        named.iter().for_each(|identity| kept.used_at(now, *identity));
        assert_eq!(expected(now).len(), EXPECTED);
    }

    /// A disk that takes its time, and says when it is asked.
    struct Slow(mpsc::SyncSender<()>, Mutex<mpsc::Receiver<()>>);

    impl Kept for Slow {
        fn lasts(&self, _: ApAddress) -> bool {
            false
        }
        fn used(&self, _: ApAddress) {}
        fn serials(&self, _: ApAddress) -> Serials {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
            Serials::default()
        }
        fn save_serials(&self, _: ApAddress, _: Serials) {}
        fn sets(&self, _: ApAddress) -> Option<Vec<u8>> {
            None
        }
        fn save_sets(&self, _: ApAddress, _: Vec<u8>) {}
    }

    struct Nobody;

    #[async_trait]
    impl Programs for Nobody {
        async fn listens(&self, _: u16) -> bool {
            false
        }
        async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
    }

    /// An identity that went while its serials were read was served for ever, with nobody behind it.
    #[tokio::test]
    async fn who_is_gone_before_the_disk_has_answered_is_not_served() {
        for stays in [true, false] {
            let ((asked_tx, asked_rx), (go_tx, go_rx)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
            let lone = super::super::lone::driver_with(Arc::new(Slow(asked_tx, Mutex::new(go_rx))));
            let network = Network::start(lone.handle.clone(), tokio::sync::mpsc::channel(1).1);
            let key = Arc::new(SigningKey::from_seed(&[1; 32]));
            let address = ApAddress::of(&key.verifying_key());
            network.receive(key, Arc::new(Nobody));
            let publishing = network.clone();
            let publishing = tokio::spawn(async move { publishing.publish(address).await });
            tokio::task::spawn_blocking(move || asked_rx.recv()).await.unwrap().unwrap();
            if !stays {
                network.close(address).await;
            }
            go_tx.send(()).unwrap();
            publishing.await.unwrap();
            assert_eq!(lone.handle.snapshot().await.unwrap().seen.contains_key(&address), stays);
        }
    }
}
