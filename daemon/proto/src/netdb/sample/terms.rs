//! Since when nodes are where they say: of those that were reached for days a flood of others must not take the places.

use std::collections::{BTreeMap, BTreeSet};

use crate::ident::NodeId;
use rand::Rng;
use rand::seq::IteratorRandom;

const HOUR: u64 = 3600;

/// A node that was first reached so long ago, in seconds, has settled: a flood that comes and goes within a night settles nobody.
const SETTLES: u64 = 24 * HOUR;

/// A term ends after so many seconds of absence: holidays.
const ABSENCE: u64 = 30 * 24 * HOUR;

/// So many terms at most; of too many the shortest end. Twice those of a sample, for those that are absent.
const MOST: usize = 1024;

/// From when to when a node was reached, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    since: u64,
    last: u64,
}

impl Term {
    /// As the disk keeps it.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.since, self.last].map(u64::to_be_bytes).concat()
    }

    /// What [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (since, last) = bytes.split_first_chunk()?;
        Some(Self { since: u64::from_be_bytes(*since), last: u64::from_be_bytes(last.try_into().ok()?) })
    }
}

/// The terms of nodes that were once reached where their own record says.
// protocol: J17
#[derive(Debug, Default)]
pub(super) struct Terms(BTreeMap<NodeId, Term>);

impl Terms {
    /// One of an earlier run; what a clock that was wrong has left is none.
    pub(super) fn restore(&mut self, now: u64, id: NodeId, term: Term) {
        if term.since <= term.last && term.last <= now {
            self.0.insert(id, term);
        }
    }

    /// This node's own link to where it says that it is came about: its term begins, or goes on.
    pub(super) fn reached(&mut self, now: u64, id: NodeId) {
        let term = self.0.entry(id).or_insert(Term { since: now, last: now });
        // A clock that was set back begins it anew: nobody becomes older by it.
        *term = Term { since: term.since.min(now), last: now };
    }

    /// It is connected, whoever dialed.
    pub(super) fn connected(&mut self, now: u64, id: &NodeId) {
        if let Some(term) = self.0.get_mut(id) {
            term.last = now;
        }
    }

    /// Ends those that are over.
    pub(super) fn sweep(&mut self, now: u64) {
        self.0.retain(|_, term| term.last + ABSENCE > now);
        if self.0.len() > MOST {
            let mut all: Vec<_> = self.0.iter().map(|(id, term)| (term.since, *id)).collect();
            all.sort_unstable();
            let kept: BTreeSet<_> = all.into_iter().take(MOST).map(|(_, id)| id).collect();
            self.0.retain(|id, _| kept.contains(id));
        }
    }

    pub(super) fn forget(&mut self, which: impl Fn(&NodeId) -> bool) {
        self.0.retain(|id, _| !which(id));
    }

    /// Whether it was first reached a day ago or earlier.
    pub(super) fn has_settled(&self, now: u64, id: &NodeId) -> bool {
        self.0.get(id).is_some_and(|term| term.since + SETTLES <= now)
    }

    /// Of these the `most` that were reached first, of those that have settled; chance says which of equals.
    pub(super) fn eldest<'a>(
        &self,
        rng: &mut impl Rng,
        now: u64,
        of: impl Iterator<Item = &'a NodeId>,
        most: usize,
    ) -> BTreeSet<NodeId> {
        let settled = of.filter(|id| self.has_settled(now, id)).copied();
        let mut settled = settled.sample(rng, usize::MAX);
        settled.sort_by_key(|id| self.0.get(id).map(|term| term.since));
        settled.into_iter().take(most).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (NodeId, Term)> {
        self.0.iter().map(|(id, term)| (*id, *term))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(number: u16) -> NodeId {
        let mut id = [3; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    // protocol: J17
    #[test]
    fn a_term_lasts_through_thirty_days_of_absence_and_no_longer() {
        let mut terms = Terms::default();
        terms.reached(NOW, id(1));
        assert!(!terms.has_settled(NOW + SETTLES - 1, &id(1)) && terms.has_settled(NOW + SETTLES, &id(1)));
        terms.connected(NOW + SETTLES, &id(1));
        terms.connected(NOW + SETTLES, &id(2));
        terms.sweep(NOW + SETTLES + ABSENCE - 1);
        assert_eq!(terms.all().map(|(id, _)| id).collect::<Vec<_>>(), [id(1)], "who only called has none");
        terms.sweep(NOW + SETTLES + ABSENCE);
        assert_eq!(terms.all().count(), 0);
    }

    #[test]
    fn a_wrong_clock_makes_nobody_older() {
        let mut terms = Terms::default();
        let term = Term { since: NOW + 9, last: NOW + 10 };
        assert_eq!(Term::from_bytes(&term.to_bytes()), Some(term));
        assert_eq!((Term::from_bytes(&[0; 15]), Term::from_bytes(&[0; 17])), (None, None));
        terms.restore(NOW, id(1), term);
        terms.restore(NOW, id(1), Term { since: NOW, last: NOW - 1 });
        assert_eq!(terms.all().count(), 0);
        terms.reached(NOW, id(1));
        terms.reached(NOW - SETTLES, id(1));
        assert!(!terms.has_settled(NOW - 1, &id(1)));
    }

    proptest! {
        /// Whatever comes, who was reached first is among the eldest, and nobody who came within the day.
        // protocol: J17
        #[test]
        fn the_eldest_are_those_that_were_reached_first(
            events in prop::collection::vec((0..3000_u16, 0..4 * HOUR), 1..2500),
            most in 0..400_usize,
        ) {
            let (mut terms, mut now) = (Terms::default(), NOW);
            let mut first = BTreeMap::new();
            for (number, passes) in events {
                now += passes / 100;
                terms.reached(now, id(number));
                first.entry(id(number)).or_insert(now);
            }
            terms.sweep(now);
            prop_assert!(terms.all().count() <= MOST);
            let all: Vec<_> = first.keys().copied().collect();
            let eldest = terms.eldest(&mut StdRng::seed_from_u64(1), now, all.iter(), most);
            let settled = first.values().filter(|since| **since + SETTLES <= now).count();
            prop_assert_eq!(eldest.len(), settled.min(most).min(MOST));
            let youngest = eldest.iter().filter_map(|id| first.get(id)).max();
            for (other, since) in &first {
                prop_assert!(eldest.contains(other) || youngest.is_none_or(|youngest| since >= youngest));
            }
            prop_assert!(youngest.is_none_or(|youngest| youngest + SETTLES <= now));
        }
    }
}
