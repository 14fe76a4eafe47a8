//! When the database looks around: often while it hears of nodes that it did not know, more and more rarely when nothing is new.

use rand::{Rng, RngExt};

/// Below so many nodes in the sample they are looked for every second.
const SPARSE: usize = 24;

/// And above every so many, in seconds.
const CALM: u64 = 30;

/// Longest wait between two rounds, in seconds: a round of a small network asks all of it, which is some 40 kB.
const MOST: u64 = 600;

/// Each wait without news is twice the one before it, and each is drawn from the half to the whole of that: nodes that have
/// heard of each other at the same moment must not ask each other at the same moments for ever.
// protocol: J12
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Until the next one, in seconds.
    left: u64,
    /// The longest that the wait after the next one may be, in seconds.
    wait: u64,
    news: bool,
}

impl Rounds {
    /// Something is there that was not known: more of it may be.
    pub(super) fn news(&mut self) {
        self.news = true;
    }

    /// A second has passed, and so many nodes are known. True: it is time for a round.
    pub(super) fn second(&mut self, rng: &mut impl Rng, known: usize) -> bool {
        let shortest = if known < SPARSE { 1 } else { CALM };
        if std::mem::take(&mut self.news) {
            (self.left, self.wait) = (self.left.min(shortest), shortest);
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return false;
        }
        let wait = self.wait.clamp(shortest, MOST);
        (self.left, self.wait) = (rng.random_range(wait.div_ceil(2)..=wait), wait * 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// Seconds in which rounds were, of so many.
    fn played(
        rounds: &mut Rounds,
        rng: &mut StdRng,
        seconds: u64,
        known: usize,
        news: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let due = |second: &u64| {
            if news(*second) {
                rounds.news();
            }
            rounds.second(rng, known)
        };
        (0..seconds).filter(due).collect()
    }

    // protocol: J12
    #[test]
    fn a_network_of_which_nothing_new_is_heard_is_asked_ever_more_rarely_and_never_not_at_all() {
        let (mut rounds, mut rng) = (Rounds::default(), StdRng::seed_from_u64(1));
        for known in [0, SPARSE - 1, SPARSE, 512] {
            rounds.news();
            let day = played(&mut rounds, &mut rng, 24 * 3600, known, |_| false);
            assert!((24 * 6..24 * 14).contains(&day.len()), "{} rounds of {known} nodes in a day", day.len());
            assert!(day.windows(2).all(|pair| pair[1] - pair[0] <= MOST));
        }
    }

    // protocol: J12
    #[test]
    fn while_there_is_news_rounds_come_at_once_in_small_networks_and_calmly_in_large_ones() {
        for (known, shortest) in [(SPARSE - 1, 1), (SPARSE, CALM)] {
            let (mut rounds, mut rng) = (Rounds::default(), StdRng::seed_from_u64(2));
            played(&mut rounds, &mut rng, 24 * 3600, known, |_| false);
            let first = played(&mut rounds, &mut rng, 3600, known, |second| second == 0);
            assert!(first[0] <= shortest, "the first one {} s after the news", first[0]);
            let minute = played(&mut rounds, &mut rng, 600, known, |_| true);
            assert!(minute.windows(2).all(|pair| pair[1] - pair[0] <= shortest));
            assert!(minute.len() as u64 <= 1200 / shortest, "no more often than that, or hardly");
        }
    }

    /// Two that begin at the same moment.
    #[test]
    fn nodes_do_not_keep_step() {
        let day = |seed| {
            let (mut rounds, mut rng) = (Rounds::default(), StdRng::seed_from_u64(seed));
            played(&mut rounds, &mut rng, 24 * 3600, 12, |_| false)
        };
        let (one, other) = (day(3), day(4));
        let same = one.iter().filter(|second| other.contains(second)).count();
        assert!(same < one.len() / 10, "{same} of {} at the same moment", one.len());
    }
}
