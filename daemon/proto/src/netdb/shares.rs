//! Who makes room where a node does something for the owners of paths that end at it, and more is wanted at once than it does: shares
//! within shares, a path's in that of its neighbour's operator, so that neither many requests nor many paths keep others' away.

use std::collections::BTreeMap;

use crate::ident::Operator;

/// Whose a request is, as far as the node that answers it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Of the node that is nearest along the path.
    pub operator: Operator,
    /// Which of the paths that end here.
    pub path: u64,
}

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// For one path.
    pub path: usize,
    /// For all paths over neighbours of one operator.
    pub operator: usize,
    /// In total.
    pub all: usize,
}

/// Whether one more may be begun.
#[derive(Debug, PartialEq, Eq)]
pub enum Room<T> {
    /// It may.
    Free,
    /// It may in the place of one of these.
    Instead(Vec<T>),
    /// Its path has its share.
    Full,
}

impl Shares {
    /// What is to become of one more request, beside those that are held. Where too much is held, one goes of the path that has most,
    /// the new one counted, of those over the operator that has most: whoever fills the places makes room, and who has few keeps them.
    // protocol: D42
    pub fn room<T>(&self, held: impl Iterator<Item = (T, Claim)>, one_more: Claim) -> Room<T> {
        let held: Vec<_> = held.collect();
        let of_operator = held.iter().filter(|(_, claim)| claim.operator == one_more.operator).count();
        if held.iter().filter(|(_, claim)| *claim == one_more).count() >= self.path {
            return Room::Full;
        }
        if of_operator < self.operator && held.len() < self.all {
            return Room::Free;
        }
        let (mut operators, mut paths) = (BTreeMap::<_, usize>::new(), BTreeMap::<_, usize>::new());
        for claim in held.iter().map(|(_, claim)| *claim).chain([one_more]) {
            *operators.entry(claim.operator).or_default() += 1;
            *paths.entry(claim).or_default() += 1;
        }
        // An operator that has its share makes room for itself, and for nobody else.
        let crowd = |operator: &Operator| match of_operator < self.operator {
            true => operators.get(operator) == operators.values().max(),
            false => *operator == one_more.operator,
        };
        let most = paths.iter().filter(|(claim, _)| crowd(&claim.operator)).map(|(_, count)| *count).max();
        let goes = |claim: &Claim| *claim != one_more && crowd(&claim.operator) && paths.get(claim).copied() == most;
        let instead: Vec<_> = held.into_iter().filter(|(_, claim)| goes(claim)).map(|(one, _)| one).collect();
        if instead.is_empty() { Room::Full } else { Room::Instead(instead) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARES: Shares = Shares { path: 16, operator: 64, all: 384 };

    fn claim(operator: u8, path: u64) -> Claim {
        Claim { operator: Operator::V4([10, operator]), path }
    }

    /// What is held after these have come, one after the other, and how many were sent away at once.
    fn after(come: impl IntoIterator<Item = Claim>) -> (Vec<Claim>, usize) {
        let (mut held, mut refused) = (Vec::new(), 0);
        for claim in come {
            match SHARES.room(held.iter().copied().enumerate(), claim) {
                Room::Free => held.push(claim),
                // Any may go: the worst for others is the one that waits longest.
                Room::Instead(some) => held[some[0]] = claim,
                Room::Full => refused += 1,
            }
        }
        (held, refused)
    }

    fn of(held: &[Claim], operator: u8) -> usize {
        held.iter().filter(|claim| claim.operator == Operator::V4([10, operator])).count()
    }

    // protocol: D42
    #[test]
    fn one_path_has_its_share_and_then_waits() {
        assert_eq!((after((0..1000).map(|_| claim(1, 1)))).0.len(), SHARES.path);
    }

    /// Forty paths over one operator: all of them together have its share, and each the same; who comes over it late has a place, too.
    // protocol: D42
    #[test]
    fn many_paths_over_one_operator_have_one_share_and_an_equal_part_of_it() {
        let (mut held, _) = after((0..40 * 16).map(|number| claim(1, number / 16)));
        assert_eq!(held.len(), SHARES.operator);
        held = after(held.into_iter().chain([claim(1, 99), claim(2, 1)])).0;
        assert!(held.contains(&claim(1, 99)) && held.contains(&claim(2, 1)));
        assert_eq!(of(&held, 1), SHARES.operator);
    }

    /// Six operators fill all places; others come in, and stay while these go on.
    // protocol: D42
    #[test]
    fn who_fills_all_places_makes_room_for_who_has_few() {
        let flood = |rounds: u64| (0..rounds * 600).map(|number| claim((number % 6) as u8, number / 6));
        let (held, _) = after(flood(2).chain((0..8).map(|path| claim(77, path))).chain(flood(2)));
        assert_eq!((held.len(), of(&held, 77)), (SHARES.all, 8));
    }

    proptest! {
        /// Whoever holds no more than an equal part, of all places and of its operator's, loses none of it.
        // protocol: D42
        #[test]
        fn nobody_loses_an_equal_part_to_others(
            come in prop::collection::vec((0..8_u8, 0..6_u64), 1..1500),
            shares in (1..6_usize, 1..12_usize, 1..40_usize),
        ) {
            let shares = Shares { path: shares.0, operator: shares.1, all: shares.2 };
            let mut held: Vec<Claim> = Vec::new();
            for (operator, path) in come {
                let one = claim(operator, path);
                let count = |which: &dyn Fn(&Claim) -> bool| held.iter().filter(|held| which(held)).count();
                let in_path = |claim: Claim| count(&|held| *held == claim);
                let over = |claim: Claim| count(&|held| held.operator == claim.operator);
                match shares.room(held.iter().copied().enumerate(), one) {
                    Room::Free => held.push(one),
                    Room::Full => prop_assert!(in_path(one) > 0, "it has nothing, and is sent away"),
                    Room::Instead(some) => {
                        for gone in some.iter().map(|index| held[*index]) {
                            prop_assert_ne!(gone, one);
                            let has_more = match gone.operator == one.operator {
                                true => in_path(gone) > in_path(one),
                                false => over(gone) > over(one),
                            };
                            prop_assert!(has_more, "{:?} makes room for {:?}", gone, one);
                        }
                        held[some[0]] = one;
                    }
                }
                let count = |which: &dyn Fn(&Claim) -> bool| held.iter().filter(|held| which(held)).count();
                prop_assert!(held.len() <= shares.all);
                prop_assert!(count(&|held| *held == one) <= shares.path);
                prop_assert!(count(&|held| held.operator == one.operator) <= shares.operator);
            }
        }
    }
}
