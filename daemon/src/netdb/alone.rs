//! A node that is connected to nobody tries for ever to be, ever more rarely, and says so.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// Wait after the first try in vain; it doubles with each.
const FIRST: Duration = Duration::from_secs(2);

/// The longest: a network that comes back after a night is joined within minutes.
const LONGEST: Duration = Duration::from_secs(300);

/// How it stands with a node that nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alone {
    /// Tries so far.
    pub tries: u32,
    /// How many nodes were called by the last one: none where nobody was ever named to it.
    pub called: usize,
    /// When the next one is due.
    pub next: Instant,
}

impl Alone {
    /// One more try is made at `now`, by which so many nodes are called. Waits differ by chance, or all that were cut off together would come back together.
    // protocol: J9
    pub(super) fn after(before: Option<Self>, called: usize, rng: &mut impl Rng, now: Instant) -> Self {
        let tries = before.map_or(0, |alone| alone.tries);
        let wait = LONGEST.min(FIRST * 2u32.pow(tries.min(16)));
        Self { tries: tries.saturating_add(1), called, next: now + wait.mul_f64(rng.random_range(0.5..1.0)) }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    // protocol: J9
    #[test]
    fn tries_grow_rare_and_never_end() {
        let (mut rng, mut now, mut alone) = (StdRng::seed_from_u64(1), Instant::now(), None);
        let mut waits = Vec::new();
        for tries in 1..=1000 {
            let after = Alone::after(alone, 1, &mut rng, now);
            assert_eq!(after.tries, tries);
            waits.push(after.next - now);
            (now, alone) = (after.next, Some(after));
        }
        assert!(waits[0] < FIRST && waits[999] > LONGEST / 3 && waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[900..].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
