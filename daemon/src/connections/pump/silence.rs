//! When a tunnel of which no link has ended is left all the same: what was said there is not acknowledged, as the other end does within
//! a second (docs/protocol.md, section 6.1).

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// How long what has come waits for something to say that goes with its acknowledgement; drawn for each: a hop that sees when data passes
/// and when the answer does would measure how far the end is.
// protocol: S47
pub(super) const ACK_WITHIN: Range<Duration> = Duration::from_millis(250)..Duration::from_secs(1);

/// How often an end that reads nothing for the time being says that it is there; drawn for each.
// protocol: S47
pub(super) const STILL_THERE: Range<Duration> = Duration::from_secs(2)..Duration::from_secs(5);

/// How long a tunnel may say nothing while an answer is owed there, at a client and, longer since only a client can dial, at a server.
// protocol: S48
pub(super) const SILENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

/// How many times as long it may when it goes on taking what is written.
// protocol: S48
pub(super) const TAKES: u32 = 3;

/// How often that is doubled, since it may be the tunnel that is slow.
// protocol: S48
pub(super) const DOUBLED_MOST: u32 = 4;

/// How long a tunnel must have carried before silence counts as the first again.
// protocol: S48
pub(super) const CARRIED: Duration = Duration::from_secs(60);

/// A time within these.
pub(super) fn drawn(range: Range<Duration>) -> Duration {
    range.start + (range.end - range.start).mul_f64(crate::random().random_range(0.0..1.0))
}

/// Of one tunnel.
#[derive(Default)]
pub(super) struct Silence {
    /// Since when something is owed and nothing was said, and when the tunnel last took something. `None`: nothing is owed.
    since: Option<[Instant; 2]>,
}

impl Silence {
    /// Whether something was sent that the other end has not acknowledged.
    pub(super) fn owes(&mut self, owed: bool) {
        self.since = owed.then(|| self.since.unwrap_or_else(|| [Instant::now(); 2]));
    }

    /// The other end has said something, or could not be heard.
    pub(super) fn broke(&mut self) {
        self.since = self.since.map(|_| [Instant::now(); 2]);
    }

    /// The tunnel has taken what was written.
    pub(super) fn took(&mut self) {
        self.since = self.since.map(|[said, _]| [said, Instant::now()]);
    }

    /// When it has lasted for so long, and `TAKES` times as long where the tunnel takes what is written: that may be a node that passes
    /// nothing on.
    // protocol: S48
    pub(super) fn is_too_long_at(&self, limit: Duration) -> Option<Instant> {
        self.since.map(|[said, taken]| (taken + limit).min(said + limit * TAKES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol: S47
    #[test]
    fn no_two_answers_wait_for_the_same_time() {
        let times: Vec<_> = (0..64).map(|_| drawn(ACK_WITHIN)).collect();
        assert!(times.iter().all(|time| ACK_WITHIN.contains(time)));
        assert!(times.iter().any(|time| *time != times[0]));
    }
}
