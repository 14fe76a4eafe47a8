//! The daemon's wall clock. In a simulation it follows tokio's paused clock instead.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant as Awake, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::os;

thread_local! {
    /// Set by a simulation, which has one thread: when virtual time began, and what it was then.
    static VIRTUAL: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    /// Set by a test, which has one thread: how long the computer has slept.
    static SLEPT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// When this was first asked, by the clock that stands still while the computer sleeps and by the one that does not.
static FIRST: OnceLock<(Awake, Duration)> = OnceLock::new();

/// Since then, in which the computer may have slept: timers of the process stand still meanwhile, and who waits at the other end of the
/// world does not.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    at: Instant,
    slept: Duration,
}

impl Since {
    /// From now on.
    pub fn now() -> Self {
        Self { at: Instant::now(), slept: slept() }
    }

    /// How long that is, to the second where the computer has slept.
    pub fn elapsed(self) -> Duration {
        self.at.elapsed() + slept().saturating_sub(self.slept)
    }
}

/// How long the computer has slept since this was first asked.
fn slept() -> Duration {
    if let Some(slept) = SLEPT.get() {
        return slept;
    }
    let Some(up) = os::uptime() else { return Duration::ZERO };
    let (first, first_up) = FIRST.get_or_init(|| (Awake::now(), up));
    slept_of(up.saturating_sub(*first_up), first.elapsed())
}

/// Of a time that is known to the second only.
fn slept_of(all: Duration, awake: Duration) -> Duration {
    Some(all.saturating_sub(awake)).filter(|slept| slept.as_secs() > 1).unwrap_or_default()
}

/// In a test: the computer sleeps for so long, in which no other clock moves.
pub fn sleep_for(time: Duration) {
    SLEPT.set(Some(SLEPT.get().unwrap_or_default() + time));
}

/// Milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let time = match VIRTUAL.get() {
        Some((start, base)) => base + start.elapsed(),
        None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
    };
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    unix_millis() / 1000
}

/// From now on, on this thread, time is tokio's (which a test can pause), beginning at `base` after 1970.
pub fn follow_tokio(base: Duration) {
    VIRTUAL.set(Some((Instant::now(), base)));
}

/// In a simulation: the wall clock leaps by so many seconds, while no other clock moves, as when the computer slept or its clock was
/// set.
pub fn leap(seconds: i64) {
    if let Some((start, base)) = VIRTUAL.get() {
        let base = base.as_secs().saturating_add_signed(seconds);
        VIRTUAL.set(Some((start, Duration::from_secs(base))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full seconds of one clock beside another's fractions are no sleep, and a night is.
    #[test]
    fn what_the_clocks_are_apart_is_sleep_when_it_is_more_than_they_err() {
        for (all, awake, slept) in
            [(0, 900, 0), (1_000, 100, 0), (10_000, 9_001, 0), (9_000, 9_900, 0), (30_000_000, 5_500, 29_994_500)]
        {
            let [all, awake, slept] = [all, awake, slept].map(Duration::from_millis);
            assert_eq!(slept_of(all, awake), slept);
        }
        assert_eq!(slept(), Duration::ZERO, "this computer is awake");
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_counts_as_time_that_passes() {
        let since = Since::now();
        tokio::time::sleep(Duration::from_secs(7)).await;
        sleep_for(Duration::from_secs(3600));
        assert_eq!(since.elapsed(), Duration::from_secs(3607));
        assert_eq!(Since::now().elapsed(), Duration::ZERO);
    }
}
