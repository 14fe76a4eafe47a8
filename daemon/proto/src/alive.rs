//! Whether whoever is at the other end of a link still is: each side says ALIVE now and again, whatever else it says, and takes one of whom nothing
//! comes for gone (docs/protocol.md, section 3.5).
//!
//! ```text
//!   stands ──3 to 4 s, drawn──▶ Say ──3 to 4 s, drawn──▶ Say ──▶ …      whatever comes
//!      ╰────────── nothing comes for 10 s, in which this side was awake and listened ──▶ Gone
//! ```
//!
//! Nobody is asked, and nothing is answered: what this side says has times of its own, which tell nothing of what it does meanwhile.

use rand::{CryptoRng, RngExt};

/// From one ALIVE of a side to its next, in milliseconds: a connection of which nothing else is heard says it twice before its silence counts.
// protocol: A2
const EVERY: std::ops::Range<u64> = 3_000..4_000;

/// How long silence lasts that counts, in milliseconds. Long, so that a computer that swaps, a queue of some seconds or a lost packet sent again costs
/// no path; short against what connections wait by themselves before they look for another way.
// protocol: A3
pub const SILENCE: u64 = 10_000;

/// How late this side may come to look, in milliseconds; beyond it was stopped, slept, or had too much to do, and what came meanwhile is unread.
// protocol: A4
const LATE: u64 = 1_000;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Say ALIVE.
    Say,
    /// The other side is gone: close the link.
    Gone,
}

/// One side of a link on which both say ALIVE.
#[derive(Debug, Clone)]
pub struct Alive {
    say_at: u64,
    /// When something last came, or could first have come that would have been heard.
    heard: u64,
}

impl Alive {
    /// The link stands.
    pub fn new(now: u64, rng: &mut dyn CryptoRng) -> Self {
        Self { say_at: now + rng.random_range(EVERY), heard: now }
    }

    /// Something came, or this side could not listen until now.
    pub fn heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// When to call [`Alive::tick`].
    pub fn deadline(&self) -> u64 {
        self.say_at.min(self.heard.saturating_add(SILENCE))
    }

    /// Lets time pass; what has come was heard before.
    // protocol: A2, A3, A4
    pub fn tick(&mut self, now: u64, rng: &mut dyn CryptoRng) -> Option<Sign> {
        if now > self.deadline().saturating_add(LATE) {
            self.heard = now;
        }
        if now >= self.heard.saturating_add(SILENCE) {
            return Some(Sign::Gone);
        }
        if now < self.say_at {
            return None;
        }
        // From now, not from when it was due: after a pause it is said once.
        self.say_at = now + rng.random_range(EVERY);
        Some(Sign::Say)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    /// Lets time pass, always in time, until `until` or something but ALIVE: when ALIVE was said, and when the other was gone.
    fn run(alive: &mut Alive, until: u64, rng: &mut ChaCha20Rng) -> (Vec<u64>, Option<u64>) {
        let mut said = Vec::new();
        while alive.deadline() <= until {
            let at = alive.deadline();
            match alive.tick(at, rng) {
                Some(Sign::Say) => said.push(at),
                Some(Sign::Gone) => return (said, Some(at)),
                None => {}
            }
        }
        (said, None)
    }

    // protocol: A3
    #[test]
    fn who_says_nothing_for_ten_seconds_is_gone() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut alive = Alive::new(1_000, &mut rng);
        alive.heard(5_000);
        assert_eq!(run(&mut alive, 14_999, &mut rng).1, None);
        assert_eq!(run(&mut alive, 60_000, &mut rng).1, Some(15_000));
    }

    /// So nobody sees in it when something came, and what.
    // protocol: A2
    #[test]
    fn what_comes_changes_no_time_at_which_alive_is_said() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let alive = Alive::new(0, &mut rng);
        let said = |every: u64| {
            let (mut rng, mut alive, mut said) = (rng.clone(), alive.clone(), Vec::new());
            for at in (0..600_000).step_by(every as usize) {
                alive.heard(at);
                let (more, gone) = run(&mut alive, at + every - 1, &mut rng);
                assert_eq!(gone, None);
                said.extend(more);
            }
            said
        };
        let often = said(50);
        assert!(often.windows(2).all(|pair| EVERY.contains(&(pair[1] - pair[0]))), "{often:?}");
        assert_eq!(said(5_000), often);
        assert!((150..200).contains(&often.len()), "{}", often.len());
    }

    /// A process that was stopped, or a computer that swaps, would take all whom it knows for gone in one moment.
    // protocol: A4
    #[test]
    fn who_was_away_itself_judges_nobody_before_it_has_listened() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for pause in [SILENCE, 30_000, 86_400_000] {
            let mut alive = Alive::new(0, &mut rng);
            assert_eq!(run(&mut alive, 9_000, &mut rng).1, None);
            let back = 9_000 + pause;
            assert_eq!(alive.tick(back, &mut rng), Some(Sign::Say));
            let (said, gone) = run(&mut alive, back + 60_000, &mut rng);
            assert_eq!((gone, said.len() >= 2), (Some(back + SILENCE), true));
        }
        // One that is always late never knows.
        let (mut alive, mut now) = (Alive::new(0, &mut rng), 0);
        for _ in 0..100 {
            now = alive.deadline() + LATE + 1;
            assert_eq!(alive.tick(now, &mut rng), Some(Sign::Say));
        }
        assert!(now > 10 * SILENCE);
    }

    proptest! {
        /// Whatever pauses either side makes and however long what they say is on its way: while it is no longer than six seconds in all, neither
        /// is taken for gone; and once one says nothing more the other knows in time.
        // protocol: A2, A3
        #[test]
        fn two_sides_that_live_stay_together_and_the_last_one_knows(
            seed: u64,
            delays in prop::collection::vec(0_u64..3_000, 1..20),
            pauses in prop::collection::vec(0_u64..3_000, 1..20),
        ) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let mut sides = [Alive::new(0, &mut rng), Alive::new(0, &mut rng)];
            let mut coming: [std::collections::VecDeque<u64>; 2] = Default::default();
            let (mut arrived, mut now) = ([0; 2], 0);
            for turn in 0..200 {
                let who = usize::from(sides[0].deadline() > sides[1].deadline());
                now = now.max(sides[who].deadline() + pauses[turn % pauses.len()] * u64::from(turn % 5 == 0));
                // TCP keeps the order.
                while coming[who].front().is_some_and(|at| *at <= now) {
                    coming[who].pop_front();
                    sides[who].heard(now);
                }
                match sides[who].tick(now, &mut rng) {
                    Some(Sign::Say) => {
                        let other = 1 - who;
                        arrived[other] = arrived[other].max(now + delays[turn % delays.len()]);
                        coming[other].push_back(arrived[other]);
                    }
                    Some(Sign::Gone) => prop_assert!(false, "side {} at {} ms", who, now),
                    None => {}
                }
            }
            let heard = sides[0].heard;
            let (_, gone) = run(&mut sides[0], now + 60_000, &mut rng);
            prop_assert!(gone.is_some_and(|gone| gone <= heard.max(now) + SILENCE + LATE));
        }
    }
}
