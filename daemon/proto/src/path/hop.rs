//! A node's side of all builds that pass through it: finds its slot, obeys, transforms, passes on, forgets.
//!
//! ```text
//! ARRAY ─▶ known (peer, build id)? ─ no ─▶ round 1: tag of each slot ─▶ budget ─▶ one KEM, one handshake ─▶ checks
//!               │ yes                                                                                        │
//!               └─▶ round 2: tag, AEAD, MAC ─▶ Done { send, path }          Done { send } and a pending entry ◀┘
//! ```
//!
//! Whatever does not fit is dropped without an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::array::{ArrayKey, Shared, Tag, first_tag, prologue, slot_key};
use super::budget::{Budget, OPENS_MAX, WINDOW};
use super::{EXPIRES_MAX, PATH_LIFE, Send, UNTIL_SPREAD};
use crate::crypto::dh::DhSecret;
use crate::crypto::hash::same;
use crate::crypto::kem::{self, KemSecret};
use crate::crypto::noise::Responder;
use crate::crypto::{CryptoError, Hash32, PathSecret, VerifyingKey, aead, derive};
use crate::ident::NodeId;
use crate::record::PublicPathKeys;
use crate::wire::array::{
    ArrayFrame, BuildId, FIRST_REPLY_LEN, FirstPackage, KEM_CT_LEN, Orders, REPLY_LEN, Reply, SECOND_REPLY_LEN,
    SLOT_LEN, SLOTS, SecondPackage, Segment, Slot, TAG_LEN, read_padded,
};
use crate::wire::{NodeContact, WireError};

/// Builds between their rounds that one peer may have here: an owner that restarts has some ten under way.
pub const PENDING_PER_PEER: usize = 64;

/// Builds between their rounds in total: about 2 MB.
pub const PENDING_MAX: usize = 4096;

/// Of these, for nodes that this one does not know.
pub const PENDING_OF_UNKNOWN: usize = PENDING_MAX / 4 * 3;

/// Packages remembered against replay. Never full: `OPENS_MAX` in each of the windows that [`EXPIRES_MAX`] touches.
pub const REPLAYS_MAX: usize = OPENS_MAX as usize * (EXPIRES_MAX / WINDOW + 1) as usize;

/// By how much clocks may differ, in seconds, when a path's life is checked.
const SKEW: u64 = 300;

/// A node's path-building keys of one epoch; the public halves are in its node record.
pub struct PathKeys {
    /// X25519.
    pub dh: DhSecret,
    /// ML-KEM-768.
    pub kem: KemSecret,
}

impl PathKeys {
    /// New ones. The ML-KEM key is made of the library's own randomness.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self { dh: DhSecret::generate(rng), kem: KemSecret::generate() }
    }

    /// The public halves.
    pub fn public(&self) -> PublicPathKeys {
        PublicPathKeys { dh: self.dh.public(), kem: Arc::new(*self.kem.public()) }
    }

    /// All of it, to be stored.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&self.dh.to_bytes()[..], &self.kem.to_bytes()].concat())
    }

    /// Reads what [`PathKeys::to_bytes`] wrote.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        let (dh, kem) = bytes.split_first_chunk().ok_or(CryptoError)?;
        Ok(Self { dh: DhSecret::from_bytes(dh), kem: KemSecret::from_bytes(kem)? })
    }
}

impl fmt::Debug for PathKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathKeys(…)")
    }
}

/// Why a frame was dropped. Nobody is told; for tests and counters.
// protocol: Y1
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// No slot is for this node.
    #[error("no slot is for this node")]
    NoSlot,
    /// The peer, or all together, have used up what they may.
    #[error("too many builds")]
    Busy,
    /// The slot does not open.
    #[error("the package does not open")]
    Sealed,
    /// The package is not what the protocol defines.
    #[error("malformed package: {0}")]
    Malformed(#[from] WireError),
    /// The package or its path has expired, or would live too long.
    #[error("expired, or too far ahead")]
    Expired,
    /// The package was here before.
    #[error("replayed package")]
    Replay,
    /// The array came from another node than the package says.
    #[error("array from the wrong peer")]
    WrongPeer,
    /// The array came with another id than the package says.
    #[error("array with the wrong build id")]
    WrongBuild,
    /// The setup array was changed on its way.
    #[error("array was changed")]
    WrongMac,
}

impl From<CryptoError> for HopError {
    fn from(_: CryptoError) -> Self {
        Self::Sealed
    }
}

/// What an accepted frame led to.
#[derive(Debug)]
pub struct Done {
    /// The frame to pass on.
    pub send: Send,
    /// After round 2, at an X-node.
    pub path: Option<HopPath>,
}

/// All that a node knows of a path that it is on.
#[derive(Debug)]
pub struct HopPath {
    /// Shared with the path's owner, whoever that is.
    pub secret: PathSecret,
    /// Its neighbours.
    pub sides: Sides,
    /// When to forget the path (Unix seconds).
    pub until: u64,
}

/// A node's neighbours on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sides {
    /// Between two nodes; in random order, so that the order tells nothing about where the owner is.
    Middle(Box<[Segment; 2]>),
    /// The terminating node.
    End(Segment),
}

/// A package that was opened; it is refused when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Hash of its ciphertext.
    pub package: Hash32,
    /// When it expires (Unix seconds).
    pub expires: u64,
}

/// A build between its rounds.
struct Pending {
    expires: u64,
    reply_index: usize,
    build_out: BuildId,
    next: NodeContact,
    shared: Shared,
}

/// A pair of path keys with what the search for slots needs of it.
struct Keyed {
    keys: PathKeys,
    slot_key: Hash32,
}

impl Keyed {
    fn new(identity: &VerifyingKey, keys: PathKeys) -> Self {
        Self { slot_key: slot_key(identity, &keys.dh.public()), keys }
    }
}

/// One node's part in other nodes' builds.
pub struct Hop {
    identity: VerifyingKey,
    /// Of the epochs that are served: the previous one, this, and the next.
    keys: Vec<Keyed>,
    pending: BTreeMap<(NodeId, BuildId), Pending>,
    /// Hashes of ciphertexts seen, until their packages expire.
    replays: BTreeMap<Hash32, u64>,
    /// Of these, what the shell has not been told yet.
    noted: Vec<Seen>,
    /// Packages that expire until then may have been opened before the node was started.
    unsure_until: u64,
    budget: Budget,
    /// For whom a part of all is left.
    known: BTreeSet<NodeId>,
    swept: u64,
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Hop {
    /// The node with this identity key and these path keys.
    pub fn new(identity: VerifyingKey, keys: impl IntoIterator<Item = PathKeys>) -> Self {
        Self {
            identity,
            keys: keys.into_iter().map(|keys| Keyed::new(&identity, keys)).collect(),
            noted: Vec::new(),
            unsure_until: 0,
            pending: BTreeMap::new(),
            replays: BTreeMap::new(),
            budget: Budget::default(),
            known: BTreeSet::new(),
            swept: 0,
        }
    }

    /// From now on these are the path keys; those until now are wiped.
    pub fn rotate(&mut self, keys: impl IntoIterator<Item = PathKeys>) {
        self.keys = keys.into_iter().map(|keys| Keyed::new(&self.identity, keys)).collect();
    }

    /// From now on these are the nodes that this one knows: whoever fills what there is for all leaves a quarter to them.
    // protocol: P20
    pub fn knows(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.known = nodes.into_iter().collect();
    }

    /// Packages that were opened with these keys before the node was started: they are refused as replays.
    pub fn opened_before(&mut self, seen: impl IntoIterator<Item = Seen>) {
        let seen = seen.into_iter().take(REPLAYS_MAX);
        self.replays.extend(seen.map(|Seen { package, expires }| (package, expires)));
    }

    /// What was opened before the node was started is not all known: packages that expire until `expires` may have been.
    // protocol: P7
    pub fn refuse_until(&mut self, expires: u64) {
        self.unsure_until = expires;
    }

    /// What was opened since the last call: to be kept where a restart finds it, before anything else is done.
    pub fn take_noted(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.noted)
    }

    /// Builds between their rounds.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Packages opened so far: each cost one set of asymmetric operations, and nothing else here costs any.
    pub fn opened(&self) -> u64 {
        self.budget.spent()
    }

    /// When [`Self::expire`] has something to do next (Unix seconds).
    pub fn deadline(&self) -> Option<u64> {
        let pending = self.pending.values().map(|pending| pending.expires);
        pending.chain(self.replays.values().copied()).min()
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: u64) {
        self.pending.retain(|_, pending| pending.expires > now);
        self.replays.retain(|_, expires| *expires > now);
        self.swept = now;
    }

    /// Takes an ARRAY frame that came over a link authenticated as `from`.
    ///
    /// # Errors
    /// Says why the frame was dropped; the peer must not notice.
    pub fn handle(
        &mut self,
        rng: &mut dyn CryptoRng,
        now: u64,
        from: NodeId,
        frame: ArrayFrame,
    ) -> Result<Done, HopError> {
        if now != self.swept {
            self.expire(now);
        }
        // protocol: P2, Q8
        match self.pending.remove(&(from, frame.build)) {
            Some(pending) => second_round(now, pending, frame),
            None => self.first_round(rng, now, from, frame),
        }
    }

    // protocol: P4, P8, P18, P20
    fn first_round(
        &mut self,
        rng: &mut dyn CryptoRng,
        now: u64,
        from: NodeId,
        mut frame: ArrayFrame,
    ) -> Result<Done, HopError> {
        let (own, keyed) = find_first(&self.keys, &frame).ok_or(HopError::NoSlot)?;
        let pending = self.pending.range((from, BuildId([0; 16]))..=(from, BuildId([0xff; 16]))).count();
        let is_known = self.known.contains(&from);
        let most = if is_known { PENDING_MAX } else { PENDING_OF_UNKNOWN };
        if self.pending.len() >= most || pending >= PENDING_PER_PEER {
            return Err(HopError::Busy);
        }
        self.budget.spend(now, from, is_known).ok_or(HopError::Busy)?;
        let opened = open_first(&self.identity, &keyed.keys, &frame.setup[own])?;
        let Opened { package, handshake, ct_hash } = opened;
        self.admit(now, &package, ct_hash)?;
        if package.previous != from {
            return Err(HopError::WrongPeer);
        }
        if package.build_in != frame.build {
            return Err(HopError::WrongBuild);
        }
        let array_key = ArrayKey::new(&package.array_key);
        frame.setup[own] = [0; SLOT_LEN];
        if !same(&array_key.mac(&frame.setup), &package.array_mac) {
            return Err(HopError::WrongMac);
        }
        let (reply, shared) = answer(rng, handshake, &package)?;
        let (build_out, reply_index) = (package.build_out, usize::from(package.reply_index));
        let send = pass_on(&array_key, own, reply_index, &reply, frame, build_out, package.next.clone());
        let pending = Pending { expires: package.expires, reply_index, build_out, next: package.next, shared };
        self.pending.insert((from, package.build_in), pending);
        Ok(Done { send, path: None })
    }

    /// Refuses what is expired or was here before, and remembers the rest.
    // protocol: P5, P6
    fn admit(&mut self, now: u64, package: &FirstPackage, ct_hash: Hash32) -> Result<(), HopError> {
        if package.expires <= now || package.expires > now + EXPIRES_MAX {
            return Err(HopError::Expired);
        }
        if self.replays.contains_key(&ct_hash) || package.expires <= self.unsure_until {
            return Err(HopError::Replay);
        }
        if self.replays.len() >= REPLAYS_MAX {
            return Err(HopError::Busy);
        }
        self.replays.insert(ct_hash, package.expires);
        self.noted.push(Seen { package: ct_hash, expires: package.expires });
        Ok(())
    }
}

/// The first slot tagged for one of these keys, and that key.
// protocol: P3
fn find_first<'a>(keys: &'a [Keyed], frame: &ArrayFrame) -> Option<(usize, &'a Keyed)> {
    let fits = |keyed: &Keyed, slot: &Slot| {
        let (tag, rest) = slot.split_at(TAG_LEN);
        rest.first_chunk().is_some_and(|ct| same(tag, &first_tag(&keyed.slot_key, ct)))
    };
    let find = |(own, slot)| keys.iter().find(|keyed| fits(keyed, slot)).map(|keyed| (own, keyed));
    frame.setup.iter().enumerate().find_map(find)
}

struct Opened {
    package: FirstPackage,
    handshake: Responder,
    ct_hash: Hash32,
}

fn open_first(identity: &VerifyingKey, keys: &PathKeys, slot: &Slot) -> Result<Opened, HopError> {
    let (ct, message) = slot[TAG_LEN..].split_first_chunk::<KEM_CT_LEN>().ok_or(HopError::NoSlot)?;
    let secret = keys.kem.decapsulate(ct)?;
    let prologue = prologue(&NodeId::of(identity));
    let (handshake, payload) = Responder::read(&keys.dh, &prologue, &secret, message)?;
    let package = read_padded::<FirstPackage>(&Zeroizing::new(payload))?;
    Ok(Opened { package, handshake, ct_hash: derive("phantom v1 replay", &[ct]) })
}

/// The reply of round 1, and what is shared from then on.
// protocol: P10
fn answer(rng: &mut dyn CryptoRng, handshake: Responder, package: &FirstPackage) -> Result<(Reply, Shared), HopError> {
    let (ct, secret) = kem::encapsulate(&package.ephemeral)?;
    let (keys, message) = handshake.reply(rng, &secret, &[0; FIRST_REPLY_LEN])?;
    let mut reply = [0; REPLY_LEN];
    reply[..KEM_CT_LEN].copy_from_slice(&ct[..]);
    reply[KEM_CT_LEN..].copy_from_slice(&message);
    Ok((reply, Shared::new(&keys)))
}

// protocol: P11
fn pass_on(
    key: &ArrayKey,
    own: usize,
    reply_index: usize,
    reply: &Reply,
    mut frame: ArrayFrame,
    build: BuildId,
    to: NodeContact,
) -> Send {
    key.pass_replies(reply_index, reply, &mut frame.replies);
    let setup = key.pass_setup(own, &mut frame.setup);
    Send { to, frame: ArrayFrame { build, setup, replies: frame.replies } }
}

/// Round 2. The pending entry is gone whatever comes out: peer and id were those of the one frame it waited for.
// protocol: Q2, Q5, Q6
fn second_round(now: u64, pending: Pending, mut frame: ArrayFrame) -> Result<Done, HopError> {
    let Pending { shared, reply_index, build_out, next, .. } = pending;
    let own = find_second(&shared.tag, &frame).ok_or(HopError::NoSlot)?;
    let payload = Zeroizing::new(aead::open(&shared.to_node, 0, &[], &frame.setup[own][TAG_LEN..])?);
    let package = read_padded::<SecondPackage>(&payload)?;
    frame.setup[own] = [0; SLOT_LEN];
    let array_key = ArrayKey::new(&shared.array_key);
    if !same(&array_key.mac(&frame.setup), &package.array_mac) {
        return Err(HopError::WrongMac);
    }
    let path = take_orders(now, package.orders, &shared.path_secret)?;
    let mut answer = [0; SECOND_REPLY_LEN];
    answer[0] = 1;
    let mut reply = [0; REPLY_LEN];
    reply.copy_from_slice(&aead::seal(&shared.to_owner, 0, &[], &answer[..]));
    let send = pass_on(&array_key, own, reply_index, &reply, frame, build_out, next);
    Ok(Done { send, path })
}

fn find_second(tag: &Tag, frame: &ArrayFrame) -> Option<usize> {
    (0..SLOTS).find(|slot| same(&frame.setup[*slot][..TAG_LEN], tag))
}

// protocol: Q7, Q11
fn take_orders(now: u64, orders: Orders, secret: &PathSecret) -> Result<Option<HopPath>, HopError> {
    let (until, sides) = match orders {
        Orders::Forget => return Ok(None),
        Orders::Relay { until, sides } => (until, Sides::Middle(sides)),
        Orders::Terminate { until, side } => (until, Sides::End(side)),
    };
    if until <= now || until > now + PATH_LIFE.end() + UNTIL_SPREAD + SKEW {
        return Err(HopError::Expired);
    }
    Ok(Some(HopPath { secret: secret.clone(), sides, until }))
}

#[cfg(test)]
mod tests;
