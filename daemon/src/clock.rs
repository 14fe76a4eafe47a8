//! The daemon's wall clock. In a simulation it follows tokio's paused clock instead.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

thread_local! {
    /// Set by a simulation, which has one thread: when virtual time began, and what it was then.
    static VIRTUAL: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
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
