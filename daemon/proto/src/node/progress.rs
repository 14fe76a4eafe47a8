//! What stands between this node and a path of its own that works, in words for people: which step, since when, what comes next.

use super::paths::Path;
use super::{Node, Work};
use crate::path::Class;

impl Node {
    /// Own paths that have had a tunnel: (spare or at work for what goes out, at work for what comes in).
    pub fn path_counts(&self) -> (usize, usize) {
        let own = || {
            let own = self.paths.values().filter(|path| path.proven).filter_map(Path::owned);
            own.filter(|owned| owned.work != Work::Leaving)
        };
        let out = own().filter(|owned| owned.class == Class::Out).count();
        (out, own().filter(|owned| owned.work == Work::Serve).count())
    }

    /// The step that the nearest own path is at, while none that works has a tunnel to spare for what goes out, or an identity lacks
    /// one. `None`: there is nothing to wait for.
    pub fn progress(&self, now: u64) -> Option<String> {
        let own = || self.paths.values().filter(|path| path.owned().is_some());
        let out = |path: &&Path| path.proven && path.owned().is_some_and(|owned| owned.class == Class::Out);
        let ready = self.paths.iter().any(|(no, path)| path.owned().is_some() && self.ready.count(*no) > 0);
        if own().any(|path| out(&path)) && ready && !self.someone_lacks(now) {
            return None;
        }
        let unproven = || own().filter(|path| !path.proven);
        if let Some(since) = unproven().map(Path::since).min() {
            let step = if unproven().any(Path::stands) { "the first tunnel" } else { "the standing connections" };
            let left = (since + super::paths::STAND_LIMIT).saturating_sub(now) / 1000;
            return Some(format!(
                "{step} of a path that was built {}; if none stands in {left} s, another path is built",
                ago(now, since)
            ));
        }
        if let Some(path) = own().find(out)
            && !ready
        {
            let under_way = match path.vain {
                0 => "tunnels are being set up".to_owned(),
                vain => format!(
                    "tunnels are being set up, {vain} in a row in vain; after {} it is given up",
                    super::tunnels::MUTE
                ),
            };
            return Some(format!("a tunnel of a path that has stood for {}: {under_way}", since(now, path.since())));
        }
        let failed = match self.failures {
            0 => String::new(),
            1 => "; one build has failed".to_owned(),
            failures => format!("; {failures} builds have failed"),
        };
        if let Some(since) = self.oldest_build() {
            let left = (since + super::build::BUILD_PATIENCE).saturating_sub(now) / 1000;
            return Some(format!(
                "a build that began {} to come home, which is given up in {left} s{failed}",
                ago(now, since)
            ));
        }
        if self.sampled.is_none() {
            return Some("records of other nodes, to choose a path from; it is built when enough have come".to_owned());
        }
        let next = self.next_build().map_or(String::new(), |at| match at.saturating_sub(now).div_ceil(1000) {
            0 => ", which begins now".to_owned(),
            1 => ", which begins within a second".to_owned(),
            seconds => format!(", which begins in {seconds} s"),
        });
        let why = self.problem.as_ref().map_or(String::new(), |problem| format!("; {problem}"));
        Some(format!("the next build of a path{next}{failed}{why}"))
    }
}

/// How long ago a moment was, both in milliseconds.
pub(super) fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) / 1000 {
        0 => "just now".to_owned(),
        seconds => format!("{} ago", age(seconds)),
    }
}

/// The time from one moment to another, both in milliseconds.
pub(super) fn since(now: u64, then: u64) -> String {
    age(now.saturating_sub(then) / 1000)
}

/// Seconds in the two largest units that say something.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let (whole, rest) = match seconds {
        0..60 => (format!("{seconds} s"), (0, "s")),
        60..3600 => (format!("{minutes} min"), (seconds % 60, "s")),
        3600..86_400 => (format!("{hours} h"), (minutes % 60, "min")),
        _ => (format!("{days} d"), (hours % 24, "h")),
    };
    if rest.0 == 0 { whole } else { format!("{whole} {} {}", rest.0, rest.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_what_people_count_by() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (100, "1 min 40 s"),
            (3600, "1 h"),
            (3720, "1 h 2 min"),
            (86_400, "1 d"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(age(seconds), said);
        }
        assert_eq!((ago(5_999, 5_000), ago(70_000, 10_000)), ("just now".to_owned(), "1 min ago".to_owned()));
        // A clock that was set back.
        assert_eq!(ago(1, 2), "just now");
    }
}
