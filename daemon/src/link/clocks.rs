//! What time it is elsewhere: every web server says so in its answers, nodes too, to whoever opens a link to them. Nobody is asked for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock::unix_millis;

/// Networks of which one clock each is remembered: more make the median no better.
const VOICES: usize = 256;

/// Networks that must have been heard before the median counts: of fewer, two liars would be the most.
const ENOUGH: usize = 5;

/// How long one counts: clocks drift by less than a second in a day.
const COUNTS_FOR: Duration = Duration::from_secs(24 * 3600);

/// By how much our own clock may leave the time that has passed before what was heard is worth nothing, in milliseconds: the computer
/// slept, or somebody set the clock.
const LEAP: i64 = 2_000;

/// Half of the second that a Date header leaves open, in milliseconds.
const HALF_SECOND: i64 = 500;

/// The clocks of nodes that we have opened links to; the last of each network.
#[derive(Default)]
pub struct Clocks(Mutex<BTreeMap<Vec<u8>, Heard>>);

struct Heard {
    /// By how much that clock is ahead of ours, in milliseconds.
    ahead: i64,
    at: Instant,
    /// Our clock then, in milliseconds.
    ours: i64,
}

/// A network whose nodes have one voice together: they may be one person's.
fn network(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[..2].to_vec(),
        IpAddr::V6(ip) => ip.octets()[..4].to_vec(),
    }
}

fn ours() -> i64 {
    i64::try_from(unix_millis()).unwrap_or(i64::MAX)
}

impl Heard {
    fn holds(&self) -> bool {
        let passed = self.at.elapsed();
        let by_clock = ours() - self.ours;
        let by_time = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        passed < COUNTS_FOR && (by_clock - by_time).abs() <= LEAP
    }
}

impl Clocks {
    /// A node at this address answered with this Date just now.
    pub(super) fn heard(&self, from: IpAddr, date: &[u8]) {
        let date = std::str::from_utf8(date).ok().and_then(|date| httpdate::parse_http_date(date).ok());
        let theirs = date.and_then(|date| i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
        let Some(theirs) = theirs else { return };
        let ours = ours();
        let heard = Heard { ahead: theirs + HALF_SECOND - ours, at: Instant::now(), ours };
        let mut all = self.lock();
        all.insert(network(from), heard);
        if all.len() > VOICES {
            let oldest = all.iter().min_by_key(|(_, heard)| heard.at).map(|(network, _)| network.clone());
            oldest.map(|network| all.remove(&network));
        }
    }

    /// By how many milliseconds others are ahead of us: the median. `None`: too few have been heard.
    // protocol: E8
    pub fn ahead(&self) -> Option<i64> {
        let mut all = self.lock();
        all.retain(|_, heard| heard.holds());
        let mut ahead: Vec<i64> = all.values().map(|heard| heard.ahead).collect();
        ahead.sort_unstable();
        if ahead.len() < ENOUGH { None } else { ahead.get(ahead.len() / 2).copied() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Heard>> {
        // No code panics while it holds the lock; the map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Date so many seconds from ours.
    fn date(ahead: i64) -> Vec<u8> {
        let seconds = unix_millis().div_euclid(1000).saturating_add_signed(ahead);
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)).into_bytes()
    }

    fn ip(network: u8, host: u8) -> IpAddr {
        [10, network, 0, host].into()
    }

    // protocol: E8
    #[tokio::test(start_paused = true)]
    async fn the_median_counts_and_one_network_has_one_voice() {
        crate::clock::follow_tokio(Duration::from_secs(1_800_000_000));
        let clocks = Clocks::default();
        (1..=4).for_each(|network| clocks.heard(ip(network, 1), &date(30)));
        assert_eq!(clocks.ahead(), None, "four are too few");
        // A liar with many nodes in one place, and one that says nothing that could be read.
        (1..=200).for_each(|host| clocks.heard(ip(9, host), &date(100_000)));
        clocks.heard(ip(10, 1), b"yesterday");
        assert_eq!(clocks.ahead(), Some(30_500));
        // Nor is a network of IPv6 more than one, and one of IPv4 the same by its mapped addresses.
        (0..200).for_each(|host| clocks.heard([0x2001, 0xdb8, host, 0, 0, 0, 0, 1].into(), &date(100_000)));
        (1..=4).for_each(|network| {
            clocks.heard(std::net::Ipv4Addr::from([10, network, 0, 7]).to_ipv6_mapped().into(), &date(30))
        });
        assert_eq!((clocks.ahead(), clocks.lock().len()), (Some(30_500), 6));
        // What is no day old counts; after that, nothing is known.
        tokio::time::advance(COUNTS_FOR - Duration::from_secs(1)).await;
        assert_eq!(clocks.ahead(), Some(30_500));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clocks.ahead(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_heard_before_our_clock_was_set_is_worth_nothing() {
        crate::clock::follow_tokio(Duration::from_secs(1_800_000_000));
        let clocks = Clocks::default();
        (1..=9).for_each(|network| clocks.heard(ip(network, 1), &date(-700)));
        assert_eq!(clocks.ahead(), Some(-699_500));
        crate::clock::follow_tokio(Duration::from_secs(1_800_000_000 - 700));
        assert_eq!(clocks.ahead(), None);
        (1..=9).for_each(|network| clocks.heard(ip(network, 1), &date(0)));
        assert_eq!(clocks.ahead(), Some(500));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_remembered() {
        let clocks = Clocks::default();
        for network in 0..1000_u16 {
            let [a, b] = network.to_be_bytes();
            clocks.heard([a, b, 0, 1].into(), &date(0));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let kept: Vec<_> = clocks.lock().keys().cloned().collect();
        let last: Vec<_> = (744..1000_u16).map(|network| network.to_be_bytes().to_vec()).collect();
        assert_eq!((kept.len(), kept), (VOICES, last), "the oldest go");
    }
}
