//! What a node has earned: the time that paths with it lived, by the time that was planned for them.
//!
//! Accounts are compared within one set only, beside the median of its members. Who stands in a circle with whom is drawn anew for
//! each build, so all members of a set have had the same companions on average, and what a bad network or a bad member of
//! another set costs, it costs them all alike.

use crate::wire::{Reader, Wire, WireError, Writer};

/// Credit of a case that went as planned.
pub(super) const FULL: u32 = 1000;

/// Cases after which an account is halved, so that the past fades.
const FADE_AFTER: u32 = 64;

/// Cases below which nobody is judged. With the median's credit for two more, four failures in a row are the least that makes an
/// account poor: an honest node beside builds of which a third fails has that in one of eighty times.
const CASES_MIN: u32 = 4;

/// Cases of the median's credit that everybody is given beforehand.
const PRIOR: u32 = 2;

/// See above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    cases: u32,
    /// In thousandths.
    credit: u32,
}

impl Account {
    pub(super) fn add(&mut self, credit: u32) {
        self.cases += 1;
        self.credit += credit.min(FULL);
        if self.cases >= FADE_AFTER {
            self.cases /= 2;
            self.credit /= 2;
        }
    }

    fn share(&self) -> u32 {
        self.credit / self.cases.max(1)
    }

    /// Whether it is so far below the median that chance does not explain it: below half, its prior included.
    // protocol: O16
    pub(super) fn poor(&self, median: u32) -> bool {
        self.cases >= CASES_MIN && 2 * (self.credit + PRIOR * median) < median * (self.cases + PRIOR)
    }
}

/// The median share among accounts that have seen enough; of two in the middle the better one.
pub(super) fn median<'a>(accounts: impl Iterator<Item = &'a Account>) -> u32 {
    let mut shares: Vec<u32> = accounts.filter(|one| one.cases >= CASES_MIN).map(Account::share).collect();
    shares.sort_unstable();
    shares.get(shares.len() / 2).copied().unwrap_or_default()
}

/// Credit of a path that died: time lived by time planned.
pub(super) fn credit(lived: u64, planned: u64) -> u32 {
    if lived >= planned { FULL } else { (u64::from(FULL) * lived / planned) as u32 }
}

/// Cases(4), credit(4).
impl Wire for Account {
    fn write(&self, out: &mut Writer) {
        out.u32(self.cases);
        out.u32(self.credit);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (cases, credit) = (reader.u32()?, reader.u32()?);
        if cases >= FADE_AFTER || credit > FULL * cases {
            return Err(WireError::Value);
        }
        Ok(Self { cases, credit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(cases: u32, full: u32) -> Account {
        let mut account = Account::default();
        (0..cases).for_each(|n| account.add(if n < full { FULL } else { 0 }));
        account
    }

    #[test]
    fn only_who_stands_out_is_poor() {
        assert!(account(4, 0).poor(700));
        assert!(!account(3, 0).poor(700), "too little is known");
        assert!(!account(4, 1).poor(700));
        assert!(account(20, 5).poor(700));
        assert!(!account(20, 10).poor(700));
        assert!(!account(20, 0).poor(0), "where everything fails nobody stands out");
    }

    #[test]
    fn the_median_knows_only_who_was_tried() {
        let accounts = [account(10, 9), account(10, 0), account(10, 8), account(1, 0), account(0, 0)];
        assert_eq!(median(accounts.iter()), 800);
        assert_eq!(median([].iter()), 0);
    }

    #[test]
    fn a_life_cut_short_is_worth_its_share() {
        assert_eq!(credit(900, 3600), 250);
        assert_eq!(credit(4000, 3600), FULL);
        assert_eq!(credit(1, 0), FULL);
    }

    #[test]
    fn the_past_fades() {
        let mut changed = account(63, 63);
        (0..40).for_each(|_| changed.add(0));
        assert!(changed.poor(900));
    }
}
