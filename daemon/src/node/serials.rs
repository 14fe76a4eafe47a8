//! Serials of the AP records of named identities, in the store: after a restart a record must count as newer than the last one.

use std::sync::Arc;

use phantom_proto::ident::ApAddress;
use phantom_proto::node::Serials;

use crate::driver::KeptSerials;
use crate::identity::Identities;
use crate::store::{Store, Table};

/// Where they are.
pub(super) struct StoredSerials {
    store: Arc<Store>,
    identities: Arc<Identities>,
}

fn key(identity: ApAddress) -> Vec<u8> {
    [b"serials/", &identity.octets()[..]].concat()
}

impl StoredSerials {
    pub(super) fn new(store: Arc<Store>, identities: Arc<Identities>) -> Self {
        Self { store, identities }
    }

    /// Fresh identities die with their run, and nothing of them goes to disk.
    fn lasts(&self, identity: ApAddress) -> bool {
        self.identities.list().iter().any(|one| one.name.is_some() && one.address() == identity)
    }
}

impl KeptSerials for StoredSerials {
    fn load(&self, identity: ApAddress) -> Serials {
        let kept = self.store.load(Table::Meta, &key(identity)).ok().flatten();
        let kept: Option<[u8; 16]> = kept.and_then(|bytes| bytes.try_into().ok());
        kept.map(Serials::from_bytes).unwrap_or_default()
    }

    fn save(&self, identity: ApAddress, serials: Serials) {
        if self.lasts(identity)
            && let Err(error) = self.store.save(Table::Meta, &key(identity), &serials.to_bytes())
        {
            tracing::warn!("the serial of a record could not be saved: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use phantom_proto::crypto::SigningKey;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn only_those_of_named_identities_reach_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("store")).unwrap());
        let identities = Arc::new(Identities::load(store.clone()).unwrap());
        let named = identities.create("web", &mut StdRng::seed_from_u64(1)).unwrap().address();
        let fresh = ApAddress::of(&SigningKey::from_seed(&[1; 32]).verifying_key());
        let before = StoredSerials::new(store.clone(), identities.clone());
        let serials = Serials([3 << 16, 4 << 16 | 7]);
        before.save(named, serials);
        before.save(fresh, serials);
        let after = StoredSerials::new(store, identities);
        assert_eq!((after.load(named), after.load(fresh)), (serials, Serials::default()));
    }
}
