//! Which identities are open, and until when: as long as a program holds one, and a while after its last use.
//!
//! ```text
//!  Enter ──> Hold (one per connection) ──drop──┬─> named: last use ─┬─ GRACE ─┬─ no socket left ──> closed
//!                                              └─> fresh: over ─────│─────────┤
//!  Socket, Resolve … ─────────────────────────────> last use ───────┘─────────┘
//! ```
//! A fresh identity that was held is over with its last hold: phantom-run lets go when the last process of the run has
//! ended, and nobody else knows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phantom_ipc::{errno, name};
use phantom_proto::ident::ApAddress;
use rand::CryptoRng;
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, timeout};

use super::kept::KeptSpace;
use super::{Daemon, Owner, Refusal, Space};
use crate::identity::{ApIdentity, Identities, Whose};

/// How long an identity stays open that nobody holds: programs under `LD_PRELOAD` alone hold nothing and ask at every
/// socket(), with pauses that a person makes. Sockets that still exist prolong it (see [`Space::in_use`]).
pub const GRACE: Duration = Duration::from_secs(60);

/// How often the last connections of a run that has ended are looked at: what a program wrote before it ended is still on
/// its way.
const LINGER: Duration = Duration::from_secs(1);

/// Open identities at one time: each is a process, a thread and two network devices.
pub const MAX_OPEN: usize = 256;

/// Of these, identities of one user other than the daemon's own and root: nobody can use them all up.
pub const MAX_OPEN_BY_OTHERS: usize = MAX_OPEN / 4;

/// Of these, identities of all such users together: one person may have many numbers (subordinate ids), and the rest is
/// root's.
pub const MAX_OPEN_BY_ALL_OTHERS: usize = MAX_OPEN / 4 * 3;

/// Which identity: a name is its user's, a token anybody's who knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Which {
    /// The one that they call so.
    Named(Whose, String),
    /// The fresh one of a run.
    Session([u8; 16]),
}

/// An identity that programs are using.
pub struct Open {
    /// The identity.
    pub identity: Arc<ApIdentity>,
    /// Whose programs may enter its namespace.
    pub owner: Owner,
    /// Its phantom namespace.
    pub space: Arc<dyn Space>,
}

/// Empty until the namespace is made; several programs may wait for it at once.
type SpaceCell = Arc<OnceCell<Arc<dyn Space>>>;

#[derive(Clone)]
struct Entry {
    identity: Arc<ApIdentity>,
    owner: Owner,
    space: SpaceCell,
    /// What was there before and broke; closed before another is opened.
    broken: Option<Arc<dyn Space>>,
    holders: usize,
    /// Its run has ended: nobody will come for it.
    over: bool,
    last_use: Instant,
}

/// The open identities.
pub struct Spaces {
    daemon: Arc<dyn Daemon>,
    identities: Arc<Identities>,
    entries: Mutex<HashMap<Which, Entry>>,
    /// Rings when a run has ended.
    ended: Notify,
}

/// Keeps an identity open until it is dropped.
pub struct Hold {
    spaces: Arc<Spaces>,
    which: Which,
    /// What is held: another one may have taken its place after it broke.
    space: SpaceCell,
}

impl Hold {
    /// Returns once what is held breaks.
    pub(super) async fn breaks(&self) {
        match self.space.get() {
            Some(space) => space.breaks().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut entries = self.spaces.lock();
        if let Some(entry) = entries.get_mut(&self.which).filter(|entry| Arc::ptr_eq(&entry.space, &self.space)) {
            entry.holders = entry.holders.saturating_sub(1);
            entry.last_use = Instant::now();
            if entry.holders == 0 && matches!(self.which, Which::Session(_)) {
                entry.over = true;
                self.spaces.ended.notify_one();
            }
        }
    }
}

impl Spaces {
    /// None open yet.
    pub fn new(daemon: Arc<dyn Daemon>, identities: Arc<Identities>) -> Arc<Self> {
        Arc::new(Self { daemon, identities, entries: Mutex::default(), ended: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Which, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity and its phantom namespace, opened for `owner` when it is not; counts as a use.
    ///
    /// # Errors
    /// When there is no identity of that name, too many are open, or the namespace cannot be made.
    pub async fn open(&self, which: &Which, owner: Owner, rng: &mut (dyn CryptoRng + Send)) -> Result<Open, Refusal> {
        let Entry { identity, owner, space: cell, .. } = self.entry(which, owner, rng)?;
        let opened = cell.get_or_try_init(async || {
            let broken = self.lock().get_mut(which).and_then(|entry| entry.broken.take());
            if let Some(broken) = broken {
                broken.close().await;
            }
            self.daemon.open(Arc::clone(&identity), owner).await
        });
        match opened.await {
            Ok(space) => Ok(Open { identity, owner, space: Arc::clone(space) }),
            Err(refusal) => {
                self.lock().retain(|at, entry| at != which || entry.space.initialized() || entry.holders > 0);
                Err(refusal)
            }
        }
    }

    /// The entry, made or renewed where there is none or a broken one.
    fn entry(&self, which: &Which, owner: Owner, rng: &mut (dyn CryptoRng + Send)) -> Result<Entry, Refusal> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(which) {
            entry.last_use = Instant::now();
            if entry.space.get().is_some_and(|space| space.is_broken()) {
                // Whoever holds it holds a dead one.
                entry.broken = std::mem::take(&mut entry.space).get().cloned();
                entry.holders = 0;
            }
            return Ok(entry.clone());
        }
        if let Some(open) = too_many(&entries, owner) {
            return Err(Refusal {
                errno: errno::EAGAIN,
                message: format!("{open} identities are open already"),
                hint: "end some of the programs that run under phantom-run".to_owned(),
            });
        }
        let identity = self.find(which, rng)?;
        let entry = Entry {
            identity,
            owner,
            space: Arc::default(),
            broken: None,
            holders: 0,
            over: false,
            last_use: Instant::now(),
        };
        entries.insert(which.clone(), entry.clone());
        Ok(entry)
    }

    fn find(&self, which: &Which, rng: &mut (dyn CryptoRng + Send)) -> Result<Arc<ApIdentity>, Refusal> {
        match which {
            Which::Session(_) => Ok(Arc::new(ApIdentity::fresh(rng))),
            Which::Named(whose, name) => self.identities.find(*whose, name).ok_or_else(|| Refusal {
                errno: errno::ENETDOWN,
                message: match name::check(name) {
                    Ok(()) => "there is no identity of that name".to_owned(),
                    Err(odd) => format!("this cannot be the name of an identity: {odd}"),
                },
                hint: "`phantom identity list` shows them, `phantom identity new NAME` makes one".to_owned(),
            }),
        }
    }

    /// Keeps an open identity open. `None` when it is not open any more.
    pub fn hold(self: &Arc<Self>, which: &Which) -> Option<Hold> {
        let mut entries = self.lock();
        let entry = entries.get_mut(which)?;
        entry.holders += 1;
        entry.over = false;
        Some(Hold { spaces: Arc::clone(self), which: which.clone(), space: Arc::clone(&entry.space) })
    }

    /// Whether programs run as the identity that they call so, or did a moment ago.
    pub fn is_open(&self, whose: Whose, name: &str) -> bool {
        self.lock().contains_key(&Which::Named(whose, name.to_owned()))
    }

    /// The open identities of one user, with what runs as them.
    pub fn of(&self, owner: Owner) -> Vec<Open> {
        let entries = self.lock();
        let theirs = entries.values().filter(|entry| entry.owner == owner);
        let open = |entry: &Entry| {
            let space = Arc::clone(entry.space.get()?);
            Some(Open { identity: Arc::clone(&entry.identity), owner, space })
        };
        theirs.filter_map(open).collect()
    }

    /// Addresses of the open identities.
    pub fn addresses(&self) -> Vec<ApAddress> {
        self.lock().values().map(|entry| entry.identity.address()).collect()
    }

    /// Closes what nobody needs any more, for ever.
    pub async fn keep_tidy(&self) {
        loop {
            self.close_unused().await;
            let lingers = self.lock().values().any(|entry| entry.over);
            // Late is late: no need to know.
            let _ = timeout(if lingers { LINGER } else { GRACE / 4 }, self.ended.notified()).await;
        }
    }

    /// Closes what nobody has held or used for [`GRACE`], or whose run is over, and what has no socket left.
    async fn close_unused(&self) {
        for (which, space) in self.idle() {
            let used = match space.get() {
                Some(space) => space.in_use().await,
                None => false,
            };
            if let Some(space) = self.settle(&which, used) {
                space.close().await;
            }
        }
    }

    fn idle(&self) -> Vec<(Which, SpaceCell)> {
        let now = Instant::now();
        let entries = self.lock();
        let idle = entries.iter().filter(|(_, entry)| entry.idle(now));
        idle.map(|(which, entry)| (which.clone(), Arc::clone(&entry.space))).collect()
    }

    /// Takes an idle entry out, unless it is `used` or somebody came in the meantime.
    fn settle(&self, which: &Which, used: bool) -> Option<Arc<dyn Space>> {
        let now = Instant::now();
        let mut entries = self.lock();
        let entry = entries.get_mut(which).filter(|entry| entry.idle(now))?;
        if used {
            entry.last_use = now;
            return None;
        }
        entries.remove(which)?.space.get().cloned()
    }

    /// Leaves all that can outlive the process. Nobody may be served any more.
    pub(super) async fn leave(&self) -> Vec<KeptSpace> {
        let entries: Vec<_> = self.lock().iter().map(|(which, entry)| (which.clone(), entry.clone())).collect();
        // All at once: a helper may be busy with what its programs want.
        let leaving = entries.iter().map(|(_, entry)| async { entry.space.get()?.leave().await });
        let all = futures::future::join_all(leaving).await;
        let mut kept = Vec::new();
        for ((which, entry), left) in entries.into_iter().zip(all) {
            let Some(left) = left else { continue };
            self.lock().remove(&which);
            let identity = &entry.identity;
            let name = identity.name.as_ref().map(|name| (identity.whose, name.to_string()));
            let seed = zeroize::Zeroizing::new(*identity.key.seed());
            kept.push(KeptSpace { which, seed, name, owner: entry.owner, left });
        }
        kept
    }

    /// Goes on with an identity of the process before, unless it has been removed meanwhile.
    pub(super) async fn go_on(&self, kept: KeptSpace) {
        let KeptSpace { which, seed, name, owner, left } = kept;
        let identity = match name {
            Some((whose, name)) => self.identities.find(whose, &name),
            None => Some(Arc::new(ApIdentity::of_seed(&seed))),
        };
        let Some(identity) = identity else { return };
        match self.daemon.go_on(identity.clone(), owner, left).await {
            Ok(space) => {
                let (cell, last_use) = (Arc::new(OnceCell::new_with(Some(space))), Instant::now());
                let entry = Entry { identity, owner, space: cell, broken: None, holders: 0, over: false, last_use };
                self.lock().insert(which, entry);
            }
            Err(refusal) => tracing::warn!("programs of the process before have lost their network: {refusal}"),
        }
    }

    /// Closes all: the daemon ends.
    pub async fn close_all(&self) {
        let entries: Vec<Entry> = self.lock().drain().map(|(_, entry)| entry).collect();
        // All at once: time is short.
        let spaces = entries.iter().flat_map(|entry| entry.space.get().into_iter().chain(&entry.broken));
        futures::future::join_all(spaces.map(|space| space.close())).await;
    }
}

/// How many are open, if `owner` may not open one more. A user is one whatever the group, which anybody may change to
/// another of their own.
fn too_many(entries: &HashMap<Which, Entry>, owner: Owner) -> Option<usize> {
    let is_other = |owner: Owner| owner.uid != Owner::own().uid;
    let (all, others) = (entries.len(), entries.values().filter(|entry| is_other(entry.owner)).count());
    let own = entries.values().filter(|entry| entry.owner.uid == owner.uid).count();
    let bounds = [(own, MAX_OPEN_BY_OTHERS), (others, MAX_OPEN_BY_ALL_OTHERS)];
    let shared = bounds.into_iter().filter(|_| is_other(owner)).chain([(all, MAX_OPEN)]);
    shared.into_iter().find(|(open, most)| open >= most).map(|(open, _)| open)
}

impl Entry {
    fn idle(&self, now: Instant) -> bool {
        self.holders == 0 && (self.over || now.duration_since(self.last_use) >= GRACE)
    }
}
