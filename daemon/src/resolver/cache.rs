//! What one identity has asked, is asking, and was told. Never shared: who knows an answer has shown that somebody asked.

use std::collections::HashMap;
use std::time::Duration;

use hickory_proto::rr::Name;
use phantom_proto::ident::ApAddress;
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::Heard;
use crate::far::{Found, Unanswered};

/// Names kept at most: about a quarter of a kilobyte each. A browser's pages name some hundred hosts.
pub(super) const MAX_NAMES: usize = 1_024;

/// Questions under way at one time; each holds a tunnel. More fail at once, and are asked again by the program.
pub(super) const MAX_ASKED: usize = 32;

/// Bounds of how long an answer is kept. Shorter would ask again for every connection of one page; longer would keep an
/// address that its owner has left.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(3600);

/// How long "there is none" is kept.
const NONE: Duration = Duration::from_secs(30);

/// What came of a question.
pub(super) type Outcome = Result<Option<Found>, Unanswered>;

enum Entry {
    Asked(watch::Receiver<Option<Outcome>>),
    Known(Option<ApAddress>, Instant),
}

/// See the module.
#[derive(Default)]
pub(super) struct Cache {
    names: HashMap<Name, Entry>,
}

/// What a look into the cache says.
pub(super) enum Look {
    /// The answer is here.
    Known(Option<Found>),
    /// Somebody is asking already.
    Asked(watch::Receiver<Option<Outcome>>),
    /// To be asked now, and the outcome to be said to [`Cache::put`] and here.
    Ask(watch::Sender<Option<Outcome>>, watch::Receiver<Option<Outcome>>),
    /// Too many questions are under way.
    Full,
}

impl Cache {
    /// What is known about a name.
    pub(super) fn look(&mut self, name: &Name, now: Instant) -> Look {
        match self.names.get(name) {
            Some(Entry::Known(address, until)) if *until > now => {
                let lifetime = seconds(*until - now);
                return Look::Known(address.map(|address| Found { address, lifetime }));
            }
            // Who asked and went away without an outcome is nobody to wait for.
            Some(Entry::Asked(outcome)) if outcome.has_changed().is_ok() => return Look::Asked(outcome.clone()),
            _ => {}
        }
        self.names.remove(name);
        let asked = self.names.values().filter(|entry| matches!(entry, Entry::Asked(_))).count();
        if asked >= MAX_ASKED {
            return Look::Full;
        }
        let (tell, hear) = watch::channel(None);
        self.make_room(now);
        self.names.insert(name.clone(), Entry::Asked(hear.clone()));
        Look::Ask(tell, hear)
    }

    /// Keeps an answer; a failure is forgotten. Returns what it means.
    pub(super) fn put(&mut self, name: &Name, heard: Result<Heard, Unanswered>, now: Instant) -> Outcome {
        let Ok(Heard { address, lifetime }) = heard else {
            self.names.remove(name);
            return Err(Unanswered);
        };
        let said = |seconds| Duration::from_secs(u64::from(seconds)).clamp(SHORTEST, LONGEST);
        let kept = lifetime.map_or(NONE, said);
        self.names.insert(name.clone(), Entry::Known(address, now + kept));
        Ok(address.map(|address| Found { address, lifetime: seconds(kept) }))
    }

    /// Room for one more: what is over goes, else the answer that is over soonest.
    fn make_room(&mut self, now: Instant) {
        if self.names.len() < MAX_NAMES {
            return;
        }
        self.names.retain(|_, entry| !matches!(entry, Entry::Known(_, until) if *until <= now));
        if self.names.len() < MAX_NAMES {
            return;
        }
        let until = |entry: &Entry| if let Entry::Known(_, until) = entry { Some(*until) } else { None };
        let soonest =
            self.names.iter().filter_map(|(name, entry)| Some((until(entry)?, name))).min_by_key(|(at, _)| *at);
        if let Some(name) = soonest.map(|(_, name)| name.clone()) {
            self.names.remove(&name);
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Name {
        Name::from_ascii(format!("n{number}.example.")).unwrap()
    }

    fn heard(lifetime: u32) -> Result<Heard, Unanswered> {
        let address = ApAddress::from_ipv6("fd70::1".parse().unwrap());
        Ok(Heard { address, lifetime: Some(lifetime) })
    }

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn answers_are_kept_as_long_as_they_say_within_bounds() {
        let now = Instant::now();
        for (said, kept) in [(0, 10), (60, 60), (u32::MAX, 3600)] {
            let mut cache = Cache::default();
            let _ = cache.put(&name(1), heard(said), now);
            assert!(
                matches!(cache.look(&name(1), after(now, kept - 1)), Look::Known(Some(found)) if found.lifetime == 1)
            );
            assert!(matches!(cache.look(&name(1), after(now, kept)), Look::Ask(..)));
        }
        let mut cache = Cache::default();
        let _ = cache.put(&name(1), Ok(Heard { address: None, lifetime: None }), now);
        assert!(matches!(cache.look(&name(1), after(now, 29)), Look::Known(None)));
        assert!(matches!(cache.look(&name(1), after(now, 30)), Look::Ask(..)));
    }

    #[test]
    fn a_name_is_asked_once_at_a_time_and_again_after_a_failure() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let Look::Ask(tell, _) = cache.look(&name(1), now) else { panic!("nobody asks yet") };
        assert!(matches!(cache.look(&name(1), now), Look::Asked(_)));
        let _ = cache.put(&name(1), Err(Unanswered), now);
        drop(tell);
        let Look::Ask(tell, _) = cache.look(&name(1), now) else { panic!("the first question is over") };
        drop(tell);
        assert!(matches!(cache.look(&name(1), now), Look::Ask(..)), "who asked has gone");
    }

    #[test]
    fn names_and_questions_are_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let asked: Vec<_> = (0..MAX_ASKED).map(|number| cache.look(&name(number), now)).collect();
        assert!(asked.iter().all(|look| matches!(look, Look::Ask(..))));
        assert!(matches!(cache.look(&name(MAX_ASKED), now), Look::Full));
        for number in 0..2 * MAX_NAMES {
            let number = number + 1_000_000;
            let _ = cache.put(&name(0), Err(Unanswered), now);
            let Look::Ask(..) = cache.look(&name(number), now) else { panic!("room for one question") };
            let _ = cache.put(&name(number), heard(60 + u32::try_from(number % 7).unwrap()), now);
            cache.look(&name(0), now);
            assert!(cache.names.len() <= MAX_NAMES);
        }
        assert!(matches!(cache.look(&name(1), now), Look::Asked(_)), "questions are not pushed out");
    }
}
