//! Who this daemon is: the node's own key, and the AP identities that it holds for programs.

pub mod sealed;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use phantom_ipc::name::NameError;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::{ApAddress, ApName, NodeId};
use phantom_proto::wire::{Reader, WireError};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::datadir::{DataError, read_private, write_private};
use crate::names::Alias;
use crate::store::{Store, StoreError, Table};

/// File of the node's identity key: the seed in hex.
const NODE_KEY: &str = "node.key";

/// Named identities of one daemon at most: each may keep paths of its own.
pub const MAX_NAMED: usize = 1024;

/// Of these, one user's other than the daemon's own and root.
pub const MAX_NAMED_OF_USER: usize = 16;

/// Of these, all such users' together: one person may have many numbers (subordinate ids), and the rest is root's.
pub const MAX_NAMED_OF_USERS: usize = MAX_NAMED / 4 * 3;

/// The user who is nobody: whatever has no number of its own here is shown as this one, so it is no one person.
const NOBODY: u32 = 65_534;

/// Whose a name is. What two of them call the same are two identities, and neither learns that the other has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Whose {
    /// The daemon's own user's, and root's.
    Operator,
    /// Another user's, by number.
    User(u32),
}

impl Whose {
    /// An ordinary user's, unless they are nobody in particular.
    pub fn of_user(uid: u32) -> Option<Self> {
        (uid != NOBODY).then_some(Self::User(uid))
    }

    /// A name of theirs in the store: no name of an identity has a slash.
    fn stored(self, name: &Alias) -> String {
        match self {
            Self::Operator => name.to_string(),
            Self::User(uid) => format!("{uid}/{name}"),
        }
    }

    fn from_stored(stored: &str) -> Option<(Self, Alias)> {
        let Some((uid, name)) = stored.split_once('/') else { return Some((Self::Operator, stored.parse().ok()?)) };
        let (whose, name) = (Self::User(uid.parse().ok()?), name.parse().ok()?);
        (whose.stored(&name) == stored).then_some((whose, name))
    }
}

/// Form of a stored identity: this byte, then the seed.
const STORED_V1: u8 = 1;

/// File of the secret that keys the membership token: in hex.
const LINK_SECRET: &str = "link.secret";

/// The node's identity key and link secret.
pub struct NodeIdentity {
    /// Signs the node's records and answers link handshakes.
    pub key: SigningKey,
    /// Published in the node's record, unknown to strangers.
    pub link_secret: [u8; 32],
}

impl NodeIdentity {
    /// Reads the identity from `dir`; `None` when there is none yet.
    ///
    /// # Errors
    /// When a file is damaged, unreadable, or readable by others; when only one of the two is there.
    pub fn load(dir: &Path) -> Result<Option<Self>, DataError> {
        let (seed, secret) = (read_secret(dir, NODE_KEY)?, read_secret(dir, LINK_SECRET)?);
        match (seed, secret) {
            (Some(seed), Some(secret)) => Ok(Some(Self { key: SigningKey::from_seed(&seed), link_secret: *secret })),
            (Some(_), None) => Err(DataError::Damaged { path: dir.join(LINK_SECRET), what: "it is missing" }),
            // The key is written last: a secret alone is a first start that was interrupted.
            (None, _) => Ok(None),
        }
    }

    /// Makes a new identity and writes it to `dir`, over nothing that is complete.
    ///
    /// # Errors
    /// When a file cannot be written.
    // protocol: N7
    pub fn create(dir: &Path, rng: &mut dyn CryptoRng) -> Result<Self, DataError> {
        let key = SigningKey::generate(rng);
        let mut link_secret = [0; 32];
        rng.fill_bytes(&mut link_secret);
        write_secret(dir, LINK_SECRET, &link_secret)?;
        write_secret(dir, NODE_KEY, key.seed())?;
        Ok(Self { key, link_secret })
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.key.verifying_key())
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeIdentity").field(&self.node_id()).finish()
    }
}

fn read_secret(dir: &Path, name: &str) -> Result<Option<Zeroizing<[u8; 32]>>, DataError> {
    let path = dir.join(name);
    let Some(text) = read_private(&path)?.map(Zeroizing::new) else { return Ok(None) };
    let bytes = HEXLOWER.decode(text.trim_ascii()).map(Zeroizing::new).ok();
    let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).map(Zeroizing::new);
    secret.map(Some).ok_or(DataError::Damaged { path, what: "it does not hold 64 hexadecimal digits" })
}

fn write_secret(dir: &Path, name: &str, secret: &[u8; 32]) -> Result<(), DataError> {
    let text = Zeroizing::new(format!("{}\n", HEXLOWER.encode(secret)));
    let path = dir.join(name);
    write_private(&path, text.as_bytes()).map_err(|source| DataError::Io { doing: "write", path, source })
}

/// An anonymized node that this daemon is for some program: an AP key, with a name when it is persistent.
pub struct ApIdentity {
    /// The name on this computer; `None` for a fresh identity that lives as long as its program.
    pub name: Option<Alias>,
    /// Whose name that is.
    pub whose: Whose,
    /// The AP key.
    pub key: SigningKey,
}

impl ApIdentity {
    /// A fresh one, unlinkable to any other.
    pub fn fresh(rng: &mut dyn CryptoRng) -> Self {
        Self { name: None, whose: Whose::Operator, key: SigningKey::generate(rng) }
    }

    /// A fresh one of the process before.
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        Self { name: None, whose: Whose::Operator, key: SigningKey::from_seed(seed) }
    }

    /// What the operator reads: the name, and whose it is unless it is the operator's.
    pub fn label(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(match self.whose {
            Whose::Operator => name.to_string(),
            Whose::User(uid) => format!("{name} of user {uid}"),
        })
    }

    /// Its AP address.
    pub fn address(&self) -> ApAddress {
        ApAddress::of(&self.key.verifying_key())
    }

    /// Its full name, from which the key can be read.
    pub fn phantom_name(&self) -> ApName {
        ApName(self.key.verifying_key())
    }
}

/// Redacted: neither key nor address nor name.
impl fmt::Debug for ApIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.name.is_some() { "ApIdentity(named)" } else { "ApIdentity(fresh)" })
    }
}

/// Why an identity is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such name can be given.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is taken.
    #[error("there is an identity of that name already")]
    Exists,
    /// The key is there.
    #[error("this identity is here already, under the name {0}")]
    Present(Alias),
    /// The key is there, and not theirs who asks.
    #[error("somebody else on this computer has this identity already")]
    Elsewhere,
    /// There is none.
    #[error("there is no identity of that name")]
    Unknown,
    /// Too many.
    #[error("{0} named identities are there, and no more can be had")]
    Full(usize),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// An entry of the store is no identity.
    #[error(
        "the list of identities in store.redb is damaged\n  restore the file from a copy, or move it away to begin anew"
    )]
    Damaged,
}

/// The named identities, in memory and in the store.
#[derive(Debug)]
pub struct Identities {
    store: Arc<Store>,
    named: Mutex<Named>,
}

type Named = BTreeMap<(Whose, Alias), Arc<ApIdentity>>;

impl Identities {
    /// Reads them from the store.
    ///
    /// # Errors
    /// When the store fails or holds something else.
    pub fn load(store: Arc<Store>) -> Result<Self, IdentityError> {
        let mut named = BTreeMap::new();
        for (name, value) in store.scan(Table::Identities)? {
            let value = Zeroizing::new(value);
            let stored = String::from_utf8(name).ok();
            let (whose, name) = stored.as_deref().and_then(Whose::from_stored).ok_or(IdentityError::Damaged)?;
            let key = read_key(&value).map_err(|_| IdentityError::Damaged)?;
            named.insert((whose, name.clone()), Arc::new(ApIdentity { name: Some(name), whose, key }));
        }
        Ok(Self { store, named: Mutex::new(named) })
    }

    fn lock(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a persistent identity; it is on disk when this returns.
    ///
    /// # Errors
    /// When the name is wrong or taken, when there are too many, when the store fails.
    pub fn create(&self, whose: Whose, name: &str, rng: &mut dyn CryptoRng) -> Result<Arc<ApIdentity>, IdentityError> {
        self.import(whose, name, SigningKey::generate(rng))
    }

    /// Keeps an identity that was made elsewhere; it is on disk when this returns.
    ///
    /// # Errors
    /// As of [`Identities::create`], and when the key is there under any name.
    pub fn import(&self, whose: Whose, name: &str, key: SigningKey) -> Result<Arc<ApIdentity>, IdentityError> {
        let name: Alias = name.parse()?;
        let mut named = self.lock();
        if named.contains_key(&(whose, name.clone())) {
            return Err(IdentityError::Exists);
        }
        if let Some(most) = too_many(&named, whose) {
            return Err(IdentityError::Full(most));
        }
        if let Some(((owner, present), _)) =
            named.iter().find(|(_, one)| one.key.verifying_key() == key.verifying_key())
        {
            let theirs = *owner == whose;
            return Err(if theirs { IdentityError::Present(present.clone()) } else { IdentityError::Elsewhere });
        }
        let value = Zeroizing::new([&[STORED_V1], &key.seed()[..]].concat());
        self.store.save(Table::Identities, whose.stored(&name).as_bytes(), &value)?;
        if named.is_empty() {
            tracing::info!(
                "the first named identity is kept in this daemon's data folder alone: `phantom identity export NAME FILE` \
                 makes a copy"
            );
        }
        let identity = Arc::new(ApIdentity { name: Some(name.clone()), whose, key });
        named.insert((whose, name), Arc::clone(&identity));
        Ok(identity)
    }

    /// Gives one another name; either the old or the new one is on disk, whatever happens.
    ///
    /// # Errors
    /// When there is none of that name, when the new one is wrong or taken, when the store fails.
    pub fn rename(&self, whose: Whose, name: &str, to: &str) -> Result<Arc<ApIdentity>, IdentityError> {
        let to: Alias = to.parse()?;
        let mut named = self.lock();
        let from = (whose, name.parse::<Alias>().map_err(|_| IdentityError::Unknown)?);
        let old = named.get(&from).map(Arc::clone).ok_or(IdentityError::Unknown)?;
        if named.contains_key(&(whose, to.clone())) {
            return Err(IdentityError::Exists);
        }
        let (before, after) = (whose.stored(&from.1), whose.stored(&to));
        self.store.rename(Table::Identities, before.as_bytes(), after.as_bytes())?;
        named.remove(&from);
        let key = SigningKey::from_seed(old.key.seed());
        let identity = Arc::new(ApIdentity { name: Some(to.clone()), whose, key });
        named.insert((whose, to), Arc::clone(&identity));
        Ok(identity)
    }

    /// Forgets one, on disk first, where its key can be found no more.
    ///
    /// # Errors
    /// When there is none of that name, when the store fails.
    pub fn remove(&self, whose: Whose, name: &str) -> Result<Arc<ApIdentity>, IdentityError> {
        let mut named = self.lock();
        let key = (whose, name.parse::<Alias>().map_err(|_| IdentityError::Unknown)?);
        if !named.contains_key(&key) {
            return Err(IdentityError::Unknown);
        }
        self.store.erase(Table::Identities, &[whose.stored(&key.1).as_bytes()])?;
        named.remove(&key).ok_or(IdentityError::Unknown)
    }

    /// Everybody's.
    pub fn all(&self) -> Vec<Arc<ApIdentity>> {
        self.lock().values().cloned().collect()
    }

    /// One user's, by name.
    pub fn list(&self, whose: Whose) -> Vec<Arc<ApIdentity>> {
        self.lock().values().filter(|one| one.whose == whose).cloned().collect()
    }

    /// The one that they call so.
    pub fn find(&self, whose: Whose, name: &str) -> Option<Arc<ApIdentity>> {
        let name: Alias = name.parse().ok()?;
        self.lock().get(&(whose, name)).cloned()
    }
}

/// How many are there, if these may not have one more.
fn too_many(named: &Named, whose: Whose) -> Option<usize> {
    let count = |counts: &dyn Fn(Whose) -> bool| named.keys().filter(|(other, _)| counts(*other)).count();
    let own = (count(&|other| other == whose), MAX_NAMED_OF_USER);
    let users = (count(&|other| other != Whose::Operator), MAX_NAMED_OF_USERS);
    let theirs = [own, users].into_iter().filter(|_| whose != Whose::Operator);
    theirs.chain([(named.len(), MAX_NAMED)]).find(|(there, most)| there >= most).map(|(there, _)| there)
}

fn read_key(value: &[u8]) -> Result<SigningKey, WireError> {
    let mut reader = Reader::new(value);
    if reader.u8()? != STORED_V1 {
        return Err(WireError::Value);
    }
    let seed = Zeroizing::new(reader.array::<32>()?);
    reader.finish()?;
    Ok(SigningKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn store() -> (Arc<Store>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Arc::new(Store::open(&dir.path().join("store")).unwrap()), dir)
    }

    #[test]
    fn named_identities_survive_a_restart() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let first = Identities::load(Arc::clone(&store)).unwrap();
        let made = first.create(Whose::Operator, "web", &mut rng).unwrap();
        assert_eq!(made.phantom_name().address(), made.address());
        let again = Identities::load(store).unwrap();
        assert_eq!(again.find(Whose::Operator, "web").unwrap().address(), made.address());
        assert_eq!(again.list(Whose::Operator).len(), 1);
        assert!(again.find(Whose::Operator, "other").is_none() && again.find(Whose::Operator, "../x").is_none());
    }

    #[test]
    fn a_name_is_given_once_and_must_be_one() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identities = Identities::load(store).unwrap();
        let address = identities.create(Whose::Operator, "web", &mut rng).unwrap().address();
        assert!(matches!(identities.create(Whose::Operator, "web", &mut rng), Err(IdentityError::Exists)));
        assert!(matches!(identities.create(Whose::Operator, "a b", &mut rng), Err(IdentityError::Name(_))));
        assert_eq!(identities.find(Whose::Operator, "web").unwrap().address(), address, "the first one stays");
    }

    #[test]
    fn what_is_renamed_removed_or_brought_back_is_so_after_a_restart() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identities = Identities::load(Arc::clone(&store)).unwrap();
        let web = identities.create(Whose::Operator, "web", &mut rng).unwrap();
        identities.create(Whose::Operator, "mail", &mut rng).unwrap();
        assert!(matches!(identities.rename(Whose::Operator, "web", "mail"), Err(IdentityError::Exists)));
        assert!(matches!(identities.rename(Whose::Operator, "none", "shop"), Err(IdentityError::Unknown)));
        assert!(matches!(identities.rename(Whose::Operator, "web", "a b"), Err(IdentityError::Name(_))));
        let shop = identities.rename(Whose::Operator, "web", "shop").unwrap();
        assert_eq!((shop.address(), shop.name.as_ref().unwrap().as_str()), (web.address(), "shop"));
        let key = || SigningKey::from_seed(web.key.seed());
        assert!(
            matches!(identities.import(Whose::Operator, "again", key()), Err(IdentityError::Present(name)) if name.as_str() == "shop")
        );
        let names = |identities: &Identities| -> Vec<String> {
            identities.list(Whose::Operator).iter().map(|one| one.name.as_ref().unwrap().to_string()).collect()
        };
        assert_eq!(names(&Identities::load(Arc::clone(&store)).unwrap()), ["mail", "shop"]);
        assert_eq!(identities.remove(Whose::Operator, "shop").unwrap().address(), web.address());
        assert!(matches!(identities.remove(Whose::Operator, "shop"), Err(IdentityError::Unknown)));
        assert_eq!(names(&Identities::load(Arc::clone(&store)).unwrap()), ["mail"]);
        assert!(matches!(identities.import(Whose::Operator, "mail", key()), Err(IdentityError::Exists)));
        assert_eq!(identities.import(Whose::Operator, "back", key()).unwrap().address(), web.address());
        assert_eq!(names(&Identities::load(store).unwrap()), ["back", "mail"]);
    }

    #[test]
    fn what_two_users_call_the_same_are_two_identities_and_neither_hears_of_the_other() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identities = Identities::load(Arc::clone(&store)).unwrap();
        let all = [Whose::Operator, Whose::User(1000), Whose::User(1001)];
        let made = all.map(|whose| identities.create(whose, "web", &mut rng).unwrap().address());
        let found = |identities: &Identities| all.map(|whose| identities.find(whose, "web").unwrap().address());
        assert_eq!(found(&identities), made);
        assert_eq!(found(&Identities::load(Arc::clone(&store)).unwrap()), made, "after a restart");
        assert!(made[0] != made[1] && made[1] != made[2]);
        let [_, alice, bob] = all;
        let shop = identities.rename(alice, "web", "shop").unwrap();
        assert_eq!((shop.address(), shop.label().as_deref()), (made[1], Some("shop of user 1000")));
        assert!(identities.find(bob, "shop").is_none() && identities.find(Whose::Operator, "shop").is_none());
        assert!(matches!(identities.remove(bob, "shop"), Err(IdentityError::Unknown)));
        let again = identities.import(bob, "taken", SigningKey::from_seed(shop.key.seed()));
        let said = again.unwrap_err();
        assert!(matches!(said, IdentityError::Elsewhere) && !said.to_string().contains("shop"), "{said}");
        identities.remove(alice, "shop").unwrap();
        assert_eq!(identities.list(alice).len(), 0);
        assert_eq!((identities.list(bob).len(), identities.all().len()), (1, 2));
        assert_eq!(Identities::load(store).unwrap().all().len(), 2, "on disk too");
        assert_eq!(Whose::of_user(NOBODY), None, "who is nobody is no one person");
    }

    #[test]
    fn no_user_has_all_the_room_for_names() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identities = Identities::load(store).unwrap();
        let mut one = |whose, n: usize| identities.create(whose, &format!("n{n}"), &mut rng).map(drop);
        let few = MAX_NAMED_OF_USER;
        let users = u32::try_from(MAX_NAMED_OF_USERS / few).unwrap();
        (0..users).for_each(|uid| (0..few).for_each(|n| one(Whose::User(uid), n).unwrap()));
        for (whose, most) in [(Whose::User(0), few), (Whose::User(users), MAX_NAMED_OF_USERS)] {
            let refused = one(whose, few);
            assert!(matches!(refused, Err(IdentityError::Full(there)) if there == most), "{whose:?}: {refused:?}");
        }
        let rest = MAX_NAMED - MAX_NAMED_OF_USERS;
        (0..rest).for_each(|n| one(Whose::Operator, n).unwrap());
        assert!(matches!(one(Whose::Operator, rest), Err(IdentityError::Full(MAX_NAMED))));
    }

    #[test]
    fn fresh_identities_differ_and_leave_no_trace() {
        let (store, _dir) = store();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (one, other) = (ApIdentity::fresh(&mut rng), ApIdentity::fresh(&mut rng));
        assert_ne!(one.address(), other.address());
        assert!(store.scan(Table::Identities).unwrap().is_empty());
        assert!(!format!("{one:?}").contains(&one.address().to_string()));
    }

    #[test]
    fn a_damaged_entry_is_refused_without_panic() {
        for (name, value) in [
            ("web", &[1u8; 32][..]),
            ("web", &[2; 33]),
            ("web", &[]),
            ("a b", &[1; 33]),
            ("/web", &[1; 33]),
            ("x/web", &[1; 33]),
            ("01/web", &[1; 33]),
            ("1/2/web", &[1; 33]),
        ] {
            let (store, _dir) = store();
            store.save(Table::Identities, name.as_bytes(), value).unwrap();
            assert!(matches!(Identities::load(store), Err(IdentityError::Damaged)), "{name} {value:?}");
        }
    }

    // protocol: N7
    #[test]
    fn the_node_keeps_its_id_and_its_files_are_private() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        assert!(NodeIdentity::load(dir.path()).unwrap().is_none());
        let made = NodeIdentity::create(dir.path(), &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
        let read = NodeIdentity::load(dir.path()).unwrap().unwrap();
        assert_eq!((read.node_id(), read.link_secret), (made.node_id(), made.link_secret));
        for name in [NODE_KEY, LINK_SECRET] {
            assert_eq!(dir.path().join(name).metadata().unwrap().mode() & 0o777, 0o600, "{name}");
        }
    }
}
