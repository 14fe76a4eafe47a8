//! The owner's side of a build: both rounds, each a frame that leaves for the first node and comes home from the last.
//!
//! ```text
//! start ──▶ first round out ──handle──▶ second round out ──handle──▶ BuiltPath
//! ```
//!
//! What nobody on the circle may see from its place: the owner begins with a made-up reply, as every other sender's
//! array holds the true reply of that sender; and the array closes with a package to the owner itself, as every other
//! receiver's array holds a package to that receiver.

use std::array::from_fn;
use std::fmt;

use rand::seq::SliceRandom;
use rand::{CryptoRng, RngExt};
use zeroize::Zeroizing;

use super::array::{ArrayKey, Shared, first_tag, prologue, slot_key};
use super::plan::{Candidate, Plan};
use super::way::Way;
use super::weave::{Expected, Weave};
use super::{BUILD_LIFE, EXPIRES_AHEAD, EXPIRES_GRID, PATH_LIFE, Send};
use crate::crypto::dh::DhSecret;
use crate::crypto::hash::same;
use crate::crypto::kem::{self, KemSecret};
use crate::crypto::noise::Initiator;
use crate::crypto::{CryptoError, Hash32, PathSecret, aead};
use crate::ident::{NodeId, PathId};
use crate::wire::array::{
    ArrayFrame, BuildId, FIRST_LEN, FIRST_REPLY_LEN, FirstPackage, KEM_CT_LEN, REPLY_LEN, Reply, SECOND_LEN,
    SECOND_REPLY_LEN, SLOT_LEN, SLOTS, SecondPackage, Segment, Slot, TAG_LEN, empty, write_padded,
};
use crate::wire::{NodeContact, WireError};

/// Why a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The plan or the terms are out of range.
    #[error("the path's terms are out of range")]
    Terms,
    /// A candidate's keys are unusable.
    #[error("a node's path keys are unusable")]
    Keys,
    /// The owner gave up before the array came home.
    #[error("the array came home too late")]
    Late,
    /// The array came from another node than the last one, or with another id.
    #[error("the array came home on another way than it should")]
    WrongWay,
    /// A node changed the arrays.
    #[error("the array came home changed")]
    Changed,
    /// A node's reply does not open.
    #[error("a node's reply does not open")]
    Reply,
}

impl From<CryptoError> for BuildError {
    fn from(_: CryptoError) -> Self {
        Self::Keys
    }
}

impl From<WireError> for BuildError {
    fn from(_: WireError) -> Self {
        Self::Terms
    }
}

/// A path, as its owner knows it.
#[derive(Debug)]
pub struct BuiltPath {
    /// The X-nodes, nearest first.
    pub hops: Vec<BuiltHop>,
    /// The owner's side of the segment to the nearest X-node.
    pub segment: Segment,
    /// End of its life (Unix seconds).
    pub until: u64,
}

/// An X-node of a built path.
#[derive(Debug)]
pub struct BuiltHop {
    /// The node.
    pub contact: NodeContact,
    /// Shared with it.
    pub secret: PathSecret,
    /// The segment between it and whoever is nearer to the owner.
    pub inner: PathId,
}

/// What a frame that came home led to.
#[derive(Debug)]
pub enum Step {
    /// The second round begins.
    Send(Box<Build>, Send),
    /// The path stands.
    Built(BuiltPath),
}

/// A build under way.
pub struct Build {
    circle: Circle,
    deadline: u64,
    expected: Expected,
    round: Round,
}

/// What both rounds need to know.
struct Circle {
    plan: Plan,
    own: NodeContact,
    /// `build_ids[j]` is the id with which the array comes to node j; the last one brings it home.
    build_ids: Vec<BuildId>,
    /// End of the path's life (Unix seconds).
    until: u64,
    /// Nobody can dial the owner, so it dials.
    dials: bool,
}

enum Round {
    First(Vec<Asked>),
    Second(Way, Vec<Shared>),
}

/// A node that has been sent a package of round 1.
struct Asked {
    handshake: Initiator,
    ephemeral: KemSecret,
}

impl fmt::Debug for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Build").field("id", &self.build_id()).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Build {
    /// Makes the first round's frame. `own` is what the owner's own node record says; `now` is in Unix seconds, `until`, the end of
    /// the path's life, too; it lies within [`PATH_LIFE`] from now.
    ///
    /// # Errors
    /// [`BuildError::Terms`] or [`BuildError::Keys`]; nothing has been sent then.
    pub fn start(
        rng: &mut dyn CryptoRng,
        now: u64,
        plan: Plan,
        own: &Candidate,
        until: u64,
    ) -> Result<(Self, Send), BuildError> {
        check_terms(now, &plan, until)?;
        // protocol: P16
        let build_ids = (0..=plan.circle.len()).map(|_| BuildId::random(rng)).collect();
        let circle = Circle { plan, own: own.contact.clone(), build_ids, until, dials: false };
        let (weave, asked) = circle.first_round(rng, now, own)?;
        let (send, expected) = circle.depart(weave);
        Ok((Self { circle, deadline: now + BUILD_LIFE, expected, round: Round::First(asked) }, send))
    }

    /// Of an owner that nobody can dial: it dials the nearest X-node.
    pub fn dialing(mut self) -> Self {
        self.circle.dials = true;
        self
    }

    /// The id with which the array comes home, in both rounds.
    pub fn build_id(&self) -> BuildId {
        self.circle.build_ids[self.circle.plan.circle.len()]
    }

    /// When to give up (Unix seconds).
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// The nodes of the circle, for the accounts.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.circle.plan.nodes()
    }

    #[cfg(test)]
    pub(super) fn reply_index(&self, node: usize) -> usize {
        self.expected.reply_index()[node]
    }

    /// Takes the frame that came home with [`Self::build_id`]. The build is over on any error.
    ///
    /// # Errors
    /// Says what was wrong, for logs and tests. Nobody is answered.
    pub fn handle(
        self,
        rng: &mut dyn CryptoRng,
        now: u64,
        from: NodeId,
        frame: ArrayFrame,
    ) -> Result<Step, BuildError> {
        let last = self.circle.plan.circle.len() - 1;
        if from != self.circle.contact(Some(last)).node_id() || frame.build != self.build_id() {
            return Err(BuildError::WrongWay);
        }
        if now >= self.deadline {
            return Err(BuildError::Late);
        }
        if !self.expected.fits(&frame.setup, &frame.replies) {
            return Err(BuildError::Changed);
        }
        let Self { circle, deadline, expected, round } = self;
        match round {
            Round::First(asked) => {
                let shared = open_first(asked, &expected, &frame.replies)?;
                let (weave, way) = circle.second_round(rng, &shared, expected.reply_index())?;
                let (send, expected) = circle.depart(weave);
                let round = Round::Second(way, shared);
                Ok(Step::Send(Box::new(Self { circle, deadline, expected, round }), send))
            }
            Round::Second(way, shared) => {
                open_second(&shared, &expected, &frame.replies)?;
                Ok(Step::Built(circle.built(&way, &shared)))
            }
        }
    }
}

impl Circle {
    /// The node at a place of the circle; the owner before the first and behind the last.
    // protocol: P15
    fn contact(&self, stage: Option<usize>) -> &NodeContact {
        stage.and_then(|stage| self.plan.circle.get(stage)).map_or(&self.own, |placed| &placed.candidate.contact)
    }

    fn first_round(
        &self,
        rng: &mut dyn CryptoRng,
        now: u64,
        own: &Candidate,
    ) -> Result<(Weave, Vec<Asked>), BuildError> {
        let nodes = self.plan.circle.len();
        let raw: Vec<Zeroizing<Hash32>> = (0..nodes).map(|_| Zeroizing::new(rng.random())).collect();
        let mut reply_index = from_fn(|index| index);
        reply_index.shuffle(rng);
        let mut replies = noise_replies(rng);
        // The first node sees, as all others do, one reply that is not enciphered: this one.
        replies[reply_index[nodes]] = made_up_reply(rng)?;
        let keys = raw.iter().map(|key| ArrayKey::new(key)).collect();
        let mut weave = Weave::new(rng, keys, reply_index, replies);
        // protocol: P14
        let (closing, _) = seal_first(rng, own, &[0; FIRST_LEN], KemSecret::generate())?;
        weave.put(weave.home(), &closing);
        let mut asked = Vec::with_capacity(nodes);
        for (stage, array_key) in raw.iter().enumerate().rev() {
            let ephemeral = KemSecret::generate();
            let package = FirstPackage {
                expires: (now + EXPIRES_AHEAD).next_multiple_of(EXPIRES_GRID),
                ephemeral: Box::new(*ephemeral.public()),
                array_key: array_key.clone(),
                array_mac: weave.mac(stage),
                reply_index: weave.reply_index(stage) as u8,
                previous: self.contact(stage.checked_sub(1)).node_id(),
                build_in: self.build_ids[stage],
                build_out: self.build_ids[stage + 1],
                next: self.contact(Some(stage + 1)).clone(),
            };
            let payload = write_padded(&package, FIRST_LEN)?;
            let (slot, node) = seal_first(rng, &self.plan.circle[stage].candidate, &payload, ephemeral)?;
            weave.put(stage, &slot);
            asked.push(node);
        }
        asked.reverse();
        Ok((weave, asked))
    }

    fn second_round(
        &self,
        rng: &mut dyn CryptoRng,
        shared: &[Shared],
        reply_index: [usize; SLOTS],
    ) -> Result<(Weave, Way), BuildError> {
        let mut way = Way::new(rng, &self.plan, &self.own);
        if self.dials {
            way.owner_dials();
        }
        let keys = shared.iter().map(|node| ArrayKey::new(&node.array_key)).collect();
        let replies = noise_replies(rng);
        let mut weave = Weave::new(rng, keys, reply_index, replies);
        // protocol: Q9
        let mut closing = [0; SLOT_LEN];
        rng.fill_bytes(&mut closing);
        weave.put(weave.home(), &closing);
        for (stage, node) in shared.iter().enumerate().rev() {
            let orders = way.orders(rng, self.plan.circle[stage].role, self.until);
            let package = SecondPackage { array_mac: weave.mac(stage), orders };
            weave.put(stage, &seal_second(node, &package)?);
        }
        Ok((weave, way))
    }

    /// The frame for the first node, and what must come home.
    fn depart(&self, weave: Weave) -> (Send, Expected) {
        let (setup, replies, expected) = weave.finish();
        let frame = ArrayFrame { build: self.build_ids[0], setup, replies };
        (Send { to: self.contact(Some(0)).clone(), frame }, expected)
    }

    fn built(&self, way: &Way, shared: &[Shared]) -> BuiltPath {
        let hop = |(contact, stage, inner): (&NodeContact, usize, PathId)| BuiltHop {
            contact: contact.clone(),
            secret: shared[stage].path_secret.clone(),
            inner,
        };
        BuiltPath { hops: way.hops().map(hop).collect(), segment: way.outward(0), until: self.until }
    }
}

fn check_terms(now: u64, plan: &Plan, until: u64) -> Result<(), BuildError> {
    let life = until.saturating_sub(now);
    // One slot of each array is the owner's.
    let circle_fits = !plan.circle.is_empty() && plan.circle.len() < SLOTS;
    (PATH_LIFE.contains(&life) && circle_fits).then_some(()).ok_or(BuildError::Terms)
}

fn noise_replies(rng: &mut dyn CryptoRng) -> Box<[Reply; SLOTS]> {
    let mut replies = empty::<REPLY_LEN>();
    rng.fill_bytes(replies.as_flattened_mut());
    replies
}

/// What a reply of round 1 looks like to a node that cannot open it: ML-KEM ciphertexts and X25519 keys differ from
/// random bytes, so a true one of each.
// protocol: P13
fn made_up_reply(rng: &mut dyn CryptoRng) -> Result<Reply, BuildError> {
    let mut reply = [0; REPLY_LEN];
    rng.fill_bytes(&mut reply);
    let (ct, _) = kem::encapsulate(KemSecret::generate().public())?;
    reply[..KEM_CT_LEN].copy_from_slice(&ct[..]);
    reply[KEM_CT_LEN..KEM_CT_LEN + 32].copy_from_slice(&DhSecret::generate(rng).public());
    Ok(reply)
}

// protocol: P1, P12
fn seal_first(
    rng: &mut dyn CryptoRng,
    node: &Candidate,
    payload: &[u8],
    ephemeral: KemSecret,
) -> Result<(Slot, Asked), BuildError> {
    let (ct, secret) = kem::encapsulate(&node.path_kem)?;
    let prologue = prologue(&node.contact.node_id());
    let (handshake, message) = Initiator::start(rng, &node.path_dh, &prologue, &secret, payload)?;
    let mut slot = [0; SLOT_LEN];
    let (tag, rest) = slot.split_at_mut(TAG_LEN);
    tag.copy_from_slice(&first_tag(&slot_key(&node.contact.identity, &node.path_dh), &ct));
    rest[..KEM_CT_LEN].copy_from_slice(&ct[..]);
    rest[KEM_CT_LEN..].copy_from_slice(&message);
    Ok((slot, Asked { handshake, ephemeral }))
}

fn seal_second(node: &Shared, package: &SecondPackage) -> Result<Slot, BuildError> {
    let payload = write_padded(package, SECOND_LEN)?;
    let mut slot = [0; SLOT_LEN];
    slot[..TAG_LEN].copy_from_slice(&node.tag);
    slot[TAG_LEN..].copy_from_slice(&aead::seal(&node.to_node, 0, &[], &payload));
    Ok(slot)
}

/// Finishes the handshake with every node.
// protocol: Z4
fn open_first(asked: Vec<Asked>, expected: &Expected, replies: &[Reply; SLOTS]) -> Result<Vec<Shared>, BuildError> {
    let open = |(stage, node): (usize, Asked)| {
        let reply = expected.reply(stage, replies);
        let (ct, message) = reply.split_first_chunk::<KEM_CT_LEN>().ok_or(CryptoError)?;
        let secret = node.ephemeral.decapsulate(ct)?;
        let (keys, payload) = node.handshake.finish(&secret, message)?;
        same(&payload, &[0; FIRST_REPLY_LEN]).then(|| Shared::new(&keys)).ok_or(CryptoError)
    };
    asked.into_iter().enumerate().map(open).collect::<Result<_, _>>().map_err(|CryptoError| BuildError::Reply)
}

/// Checks that every node has answered.
fn open_second(shared: &[Shared], expected: &Expected, replies: &[Reply; SLOTS]) -> Result<(), BuildError> {
    let mut answer = [0; SECOND_REPLY_LEN];
    answer[0] = 1;
    for (stage, node) in shared.iter().enumerate() {
        let reply = expected.reply(stage, replies);
        let opened = aead::open(&node.to_owner, 0, &[], &reply).map_err(|CryptoError| BuildError::Reply)?;
        if !same(&opened, &answer) {
            return Err(BuildError::Reply);
        }
    }
    Ok(())
}
