//! Layers 2 and 3: small sets of nodes, each identity's own and each class's own, from which circles are drawn
//! (docs/protocol.md, section 4.6).
//!
//! A node beside a guard, drawn anew for each build, would soon be an attacker's, and a terminating node of the same attacker
//! would then find the guard. From a small set it is an attacker's at once or not for long.

use std::ops::RangeInclusive;

use rand::seq::SliceRandom;
use rand::{CryptoRng, RngExt};
use zeroize::Zeroizing;

use super::account::{Account, median};
use super::guards::{Guards, read_some};
use super::known::Known;
use super::pool::{Pool, View};
use crate::crypto::derive;
use crate::ident::NodeId;
use crate::path::Class;
use crate::path::plan::{Candidate, Operators};
use crate::wire::{NodeContact, Reader, Wire, WireError, Writer};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// What a set is like.
#[derive(Debug)]
pub struct Shape {
    /// Members.
    pub size: usize,
    /// A member stays for the longer of two draws from this, in seconds: so most stay long, and nobody knows how long.
    pub life: RangeInclusive<u64>,
    /// Below so many members that serve, one that does not is replaced before its time.
    pub serving: usize,
    /// At most so many early replacements …
    pub early: usize,
    /// … in so many seconds.
    pub window: u64,
    /// How long a member may be unknown to the sample and its record stale before it counts as one that does not serve, in seconds.
    pub patience: u64,
}

/// Who stands beside guards: three in a circle and two more. With three alone nobody's account could be told from the others', and
/// the first that is off would stop the identity.
// protocol: O12
pub const SECOND: Shape =
    Shape { size: 5, life: 7 * DAY..=45 * DAY, serving: 4, early: 2, window: 20 * DAY, patience: DAY };

/// Terminating nodes, and who stands beside layer 2.
// protocol: O13
pub const THIRD: Shape =
    Shape { size: 8, life: HOUR..=48 * HOUR, serving: 6, early: 4, window: 2 * DAY, patience: HOUR };

/// As [`Shape::patience`], while so many are off that no circle can be drawn, in seconds: longer than computers take to start anew.
const STUCK: u64 = 600;

/// Operators that layers need: guards, and the two classes' sets of one identity. Below, one identity's sets would be the network.
pub const LAYERS_MIN: usize = super::guards::GUARDS + 2 * (SECOND.size + THIRD.size);

#[derive(Debug, Clone, PartialEq)]
struct Member {
    known: Known,
    until: u64,
    /// Since when it cannot be used.
    missed: Option<u64>,
    account: Account,
}

/// One set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Set {
    members: Vec<Member>,
    /// When members were replaced early.
    early: Vec<u64>,
}

impl Set {
    /// How many members are to be drawn, after those whose time is over have gone. A circle takes `need`.
    // protocol: O14
    fn make_room(&mut self, View { now, pool, away }: View<'_>, shape: &Shape, need: usize) -> usize {
        self.members.retain(|member| now < member.until);
        self.early.retain(|at| now < at.saturating_add(shape.window));
        for member in &mut self.members {
            let there = member.known.current(now) && !away(&member.known.id);
            member.missed = if there { None } else { member.missed.or(Some(now)) };
        }
        let there = self.members.iter().filter(|member| member.missed.is_none()).count();
        let patience = if there < need { shape.patience.min(STUCK) } else { shape.patience };
        let median = self.median();
        let idle = |member: &Member| {
            member.account.poor(median) || member.missed.is_some_and(|since| now > since.saturating_add(patience))
        };
        while self.members.iter().filter(|member| !idle(member)).count() < shape.serving.min(self.members.len())
            && (!pool.bounded || self.early.len() < shape.early)
        {
            let Some(worst) = self.members.iter().position(idle) else { break };
            self.members.remove(worst);
            self.early.push(now);
        }
        shape.size.saturating_sub(self.members.len())
    }

    /// Somebody goes, whoever it is, if one more may before the time.
    fn replace_one(&mut self, rng: &mut dyn CryptoRng, View { now, pool, .. }: View<'_>, shape: &Shape) {
        self.early.retain(|at| now < at.saturating_add(shape.window));
        if !self.members.is_empty() && (!pool.bounded || self.early.len() < shape.early) {
            self.members.remove(rng.random_range(..self.members.len()));
            self.early.push(now);
        }
    }

    fn add(&mut self, rng: &mut dyn CryptoRng, now: u64, shape: &Shape, drawn: Vec<(NodeId, Candidate)>) {
        for (id, node) in drawn {
            let mut life = || rng.random_range(shape.life.clone());
            let until = now + life().max(life());
            let known = Known::new(now, id, &node);
            self.members.push(Member { known, until, missed: None, account: Account::default() });
        }
    }

    /// Draws members for a circle; the poor ones only when there are not enough others.
    fn pick(
        &self,
        rng: &mut dyn CryptoRng,
        View { now, away, .. }: View<'_>,
        count: usize,
        operators: &mut Operators,
    ) -> Vec<Candidate> {
        let median = self.median();
        let mut there: Vec<&Member> =
            self.members.iter().filter(|member| member.known.current(now) && !away(&member.known.id)).collect();
        there.shuffle(rng);
        there.sort_by_key(|member| member.account.poor(median));
        let free = there.into_iter().filter(|member| operators.take(&member.known.candidate.contact)).take(count);
        free.map(|member| member.known.candidate.clone()).collect()
    }

    fn median(&self) -> u32 {
        median(self.members.iter().map(|member| &member.account))
    }

    fn credit(&mut self, id: &NodeId, credit: u32) {
        self.members.iter_mut().filter(|member| member.known.id == *id).for_each(|member| member.account.add(credit));
    }

    fn contacts(&self) -> impl Iterator<Item = &NodeContact> {
        self.members.iter().map(|member| &member.known.candidate.contact)
    }
}

/// Builds of a class in a row of which none stood, while others of this node stood, after which a member of layer 2 is replaced: where three of
/// its five kill all builds every circle has one of them, and no account tells who they are, since nobody has earned anything.
// protocol: O23
const VAIN: u32 = 20;

/// Both sets of one class.
#[derive(Debug, Clone, Default, PartialEq)]
struct Layers {
    second: Set,
    third: Set,
    /// Builds that failed since the last one that stood.
    vain: u32,
}

/// The sets of one identity.
// protocol: O11, O15
#[derive(Debug, Clone, Default)]
pub struct Sets {
    /// Of a persistent identity: decides which half of the network may terminate its paths.
    secret: Option<Zeroizing<[u8; 32]>>,
    out: Layers,
    inward: Layers,
    changed: bool,
}

/// Who is drawn for a circle beside the guards: of layer 2, of layer 3.
pub(super) type Drawn = (Vec<Candidate>, Vec<Candidate>);

impl Sets {
    /// Of a fresh identity: they die with it.
    pub fn fresh() -> Self {
        Self::default()
    }

    /// Of a persistent identity that has none yet. The secret stays the same for its life and is derived from its key.
    pub fn persistent(secret: [u8; 32]) -> Self {
        Self { secret: Some(Zeroizing::new(secret)), ..Self::default() }
    }

    /// As [`Self::persistent`], with what [`Self::to_bytes`] gave in an earlier run.
    pub fn restored(secret: [u8; 32], bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (out, inward) = (Layers::read(&mut reader)?, Layers::read(&mut reader)?);
        reader.finish()?;
        Ok(Self { out, inward, ..Self::persistent(secret) })
    }

    /// For the disk, if the identity is persistent.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        self.secret.as_ref()?;
        let mut out = Writer::default();
        self.out.write(&mut out);
        self.inward.write(&mut out);
        Some(out.0)
    }

    /// Whether members changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether there are members from which circles can be drawn.
    pub(super) fn is_empty(&self, class: Class) -> bool {
        self.of(class).third.members.is_empty()
    }

    pub(super) fn update(&mut self, now: u64, pool: &Pool) {
        for member in self.members_mut() {
            pool.nodes.get(&member.known.id).into_iter().for_each(|node| member.known.update(now, node));
        }
    }

    /// Lets go whose time is over or who does not serve, and draws others. A circle takes `need` of layer 2 and of layer 3; `guards`
    /// keep their operators.
    pub(super) fn refill(
        &mut self,
        rng: &mut dyn CryptoRng,
        view: View<'_>,
        class: Class,
        need: (usize, usize),
        guards: &Guards,
    ) {
        let layers = self.of_mut(class);
        if layers.vain >= VAIN {
            layers.vain = 0;
            layers.second.replace_one(rng, view, &SECOND);
        }
        let second = layers.second.make_room(view, &SECOND, need.0);
        let third = layers.third.make_room(view, &THIRD, need.1);
        if second + third == 0 {
            return;
        }
        let View { now, pool, away } = view;
        let mut operators = pool.circle();
        operators.take_all(guards.contacts());
        operators.take_all(self.sets().flat_map(Set::contacts));
        let secret = self.secret.clone();
        let fits = |terminating| {
            let secret = secret.as_ref();
            move |id: &NodeId, node: &Candidate| {
                let in_half = |secret: &Zeroizing<[u8; 32]>| {
                    may_terminate(secret, &Operators::name(pool.spread, &node.contact)) == terminating
                };
                !away(id) && secret.is_none_or(in_half)
            }
        };
        let new_second = pool.draw(rng, second, &mut operators, fits(false));
        let new_third = pool.draw(rng, third, &mut operators, fits(true));
        self.changed |= !(new_second.is_empty() && new_third.is_empty());
        let layers = self.of_mut(class);
        layers.second.add(rng, now, &SECOND, new_second);
        layers.third.add(rng, now, &THIRD, new_third);
    }

    pub(super) fn pick(
        &self,
        rng: &mut dyn CryptoRng,
        view: View<'_>,
        class: Class,
        (second, third): (usize, usize),
        operators: &mut Operators,
    ) -> Drawn {
        let layers = self.of(class);
        let second = layers.second.pick(rng, view, second, operators);
        (second, layers.third.pick(rng, view, third, operators))
    }

    pub(super) fn credit(&mut self, class: Class, id: &NodeId, credit: u32) {
        let layers = self.of_mut(class);
        layers.second.credit(id, credit);
        layers.third.credit(id, credit);
    }

    /// How a build of a class went.
    pub(super) fn built(&mut self, class: Class, stands: bool) {
        let layers = self.of_mut(class);
        layers.vain = if stands { 0 } else { layers.vain + 1 };
    }

    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.sets().any(|set| set.members.iter().any(|member| member.known.id == *id))
    }

    /// All members.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.sets().flat_map(|set| set.members.iter().map(|member| member.known.id))
    }

    /// Contacts of all members.
    pub(super) fn contacts(&self) -> impl Iterator<Item = &NodeContact> {
        self.sets().flat_map(|set| set.members.iter().map(|member| &member.known.candidate.contact))
    }

    fn sets(&self) -> impl Iterator<Item = &Set> {
        [&self.out, &self.inward].into_iter().flat_map(|layers| [&layers.second, &layers.third])
    }

    fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        let sets =
            [&mut self.out, &mut self.inward].into_iter().flat_map(|layers| [&mut layers.second, &mut layers.third]);
        sets.flat_map(|set| &mut set.members)
    }

    fn of(&self, class: Class) -> &Layers {
        match class {
            Class::Out => &self.out,
            Class::In => &self.inward,
        }
    }

    fn of_mut(&mut self, class: Class) -> &mut Layers {
        match class {
            Class::Out => &mut self.out,
            Class::In => &mut self.inward,
        }
    }
}

/// Whether nodes of an operator may terminate paths of an identity: one bit, so that over the years half of the network never
/// does, the owner's operator, its guards and layer 2 among them. By operator and not by node: a large operator whose nodes never
/// appear would stand out.
fn may_terminate(secret: &[u8; 32], operator: &[u8]) -> bool {
    derive("phantom v1 choice half", &[secret, operator])[0] & 1 == 1
}

impl Wire for Layers {
    fn write(&self, out: &mut Writer) {
        self.second.write(out);
        self.third.write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { second: Set::read_of(reader, &SECOND)?, third: Set::read_of(reader, &THIRD)?, vain: 0 })
    }
}

impl Set {
    fn write(&self, out: &mut Writer) {
        out.u8(self.members.len() as u8);
        for member in &self.members {
            member.known.write(out);
            out.u64(member.until);
            out.u64(member.missed.unwrap_or_default());
            member.account.write(out);
        }
        out.u8(self.early.len() as u8);
        self.early.iter().for_each(|at| out.u64(*at));
    }

    fn read_of(reader: &mut Reader<'_>, shape: &Shape) -> Result<Self, WireError> {
        let members = read_some(reader, shape.size, |reader| {
            let (known, until) = (Known::read(reader)?, reader.u64()?);
            let missed = Some(reader.u64()?).filter(|since| *since > 0);
            Ok(Member { known, until, missed, account: Account::read(reader)? })
        })?;
        Ok(Self { members, early: read_some(reader, shape.early, |reader| reader.u64())? })
    }
}
