//! Network time: what an owner stamps is the time that other nodes have, and not the error of its own clock, by which all that it makes
//! could be known for one owner's (docs/protocol.md, section 2.2).

use super::Node;

/// By how much a clock is corrected at most, in milliseconds: as far as clocks may differ at all. Whoever could lie to us could
/// else lead us anywhere.
const MOST: i64 = 120_000;

impl Node {
    /// The time by which owners stamp, in milliseconds since 1970. All else goes by our own clock.
    // protocol: E6
    pub(super) fn network_time(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.ahead.unwrap_or_default().clamp(-MOST, MOST))
    }

    /// When it is so by our own clock.
    pub(super) fn own_time(&self, network: u64) -> u64 {
        network.saturating_add_signed(-self.ahead.unwrap_or_default().clamp(-MOST, MOST))
    }

    /// By how much others are ahead of a clock that is too far off to be corrected.
    // protocol: E7
    pub(super) fn clock_off(&self) -> Option<i64> {
        self.ahead.filter(|ahead| ahead.unsigned_abs() > MOST.unsigned_abs())
    }
}
