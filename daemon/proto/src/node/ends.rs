//! Where the paths over which an identity asks end: at two operators, so that who asks again asks somebody else; and not where a record was
//! denied that is there (docs/protocol.md, section 4.7).

use std::collections::BTreeSet;

use super::paths::{Owned, Path};
use super::{Node, Note, PathNo, Work};
use crate::ident::Operator;
use crate::path::{Class, Persona};
use crate::wire::NodeContact;

/// For how long an identity asks nobody of an operator one of whose nodes has denied a record, in milliseconds. Not for ever: a record may
/// have appeared between two questions.
// protocol: K32
const MISTRUST: u64 = 6 * 3_600_000;

/// Operators that are mistrusted at once: as many as terminate paths of an identity.
const MISTRUSTED: usize = 8;

/// Circles that are drawn for one build, if each ends where no further path is to end: where few may terminate, all would.
// protocol: K31
pub(super) const DRAWS: usize = 8;

/// Operators of which an identity asks nobody, and until when.
#[derive(Debug, Default)]
pub(super) struct Mistrusted(Vec<(u64, Operator)>);

impl Mistrusted {
    // protocol: K32
    fn add(&mut self, now: u64, operator: Operator) {
        // A clock may have been set back.
        self.0.retain(|(until, other)| (now..=now + MISTRUST).contains(until) && *other != operator);
        let beyond = (self.0.len() + 1).saturating_sub(MISTRUSTED);
        self.0.drain(..beyond);
        self.0.push((now + MISTRUST, operator));
    }

    fn at(&self, now: u64) -> impl Iterator<Item = Operator> {
        self.0.iter().filter(move |(until, _)| now < *until).map(|(_, operator)| *operator)
    }
}

impl Node {
    pub(super) fn operator(&self, contact: &NodeContact) -> Operator {
        Operator::of(self.settings.spread, contact.node_id(), contact.addr.ip())
    }

    /// The end of this path has denied what another has found. It asks as long as no other path does, as when its time is over.
    // protocol: K32
    pub(super) fn denied(&mut self, now: u64, no: PathNo) {
        let Some(owned) = self.paths.get_mut(&no).and_then(Path::owned_mut) else { return };
        owned.retires = owned.retires.min(now);
        let (persona, end) = (owned.persona, owned.end.clone());
        let operator = self.operator(&end);
        if let Some(own) = self.personas.get_mut(&persona) {
            own.mistrusted.add(now, operator);
        }
        self.note(now, Note::Denied);
        self.put_to_work(now, persona);
        self.look_at = 0;
    }

    /// Spares that may do this work, the best first: the newest, which lives longest.
    // protocol: K30, K32
    pub(super) fn spares_for(&self, now: u64, persona: Persona, class: Class, work: Work) -> Vec<PathNo> {
        let spares = self.spares(persona, class).into_iter().rev();
        let mistrusted: BTreeSet<_> = self.mistrusted(now, persona).collect();
        let twins = match work {
            Work::Ask => self.ends(persona, |owned| owned.work == Work::AskAgain),
            Work::AskAgain => self.ends(persona, |owned| owned.work == Work::Ask && now < owned.retires),
            Work::Spare | Work::Connect | Work::Serve | Work::Leaving => return spares.collect(),
        };
        let unfit = |no: &PathNo| {
            let end = self.paths.get(no).and_then(Path::owned).map(|owned| self.operator(&owned.end));
            end.is_none_or(|end| twins.contains(&end) || mistrusted.contains(&end))
        };
        let mut spares: Vec<_> = spares.collect();
        match work {
            // Better asked there than nowhere.
            Work::Ask => spares.sort_by_key(unfit),
            _ => spares.retain(|no| !unfit(no)),
        }
        spares
    }

    /// Where the next path of a class had better not end. Not where any other does: the paths of whoever ends them stand least, so that
    /// the next one would end there more often than chance has it.
    // protocol: K31
    pub(super) fn taken_ends(&self, now: u64, persona: Persona, class: Class) -> BTreeSet<Operator> {
        let asks = |owned: &Owned| matches!(owned.work, Work::Ask | Work::AskAgain) && now < owned.retires;
        match class {
            Class::Out => self.ends(persona, asks).into_iter().chain(self.mistrusted(now, persona)).collect(),
            Class::In => BTreeSet::new(),
        }
    }

    fn ends(&self, persona: Persona, which: impl Fn(&Owned) -> bool) -> BTreeSet<Operator> {
        let own = self.paths.values().filter_map(Path::owned).filter(|owned| owned.persona == persona);
        own.filter(|owned| which(owned)).map(|owned| self.operator(&owned.end)).collect()
    }

    fn mistrusted(&self, now: u64, persona: Persona) -> impl Iterator<Item = Operator> {
        self.personas.get(&persona).into_iter().flat_map(move |own| own.mistrusted.at(now))
    }
}
