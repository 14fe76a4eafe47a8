//! Programs that try both families at once: the attempt over IPv4 waits for the one over IPv6, as the reflector has it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use phantom_proto::ident::ApAddress;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::gate::RACE;

/// When a kernel would send its SYN again: whoever lost the race has been closed by then, and is not sent at all.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// The newest attempt over IPv6 to each end; never more than there are sockets that connect.
#[derive(Default)]
pub(super) struct Attempts(HashMap<(ApAddress, u16), (watch::Receiver<()>, Instant)>);

/// When an attempt may go on its way.
pub(super) enum Turn {
    /// At once; others may wait until this value is dropped.
    First { _waited_for: watch::Sender<()> },
    /// After that one.
    Second(watch::Receiver<()>),
    /// At once.
    Alone,
}

impl Attempts {
    /// An attempt begins.
    pub(super) fn begin(&mut self, now: Instant, to: ApAddress, port: u16, v6: bool) -> Turn {
        self.0.retain(|_, (first, _)| first.has_changed().is_ok());
        if v6 {
            let (_waited_for, first) = watch::channel(());
            self.0.insert((to, port), (first, now));
            return Turn::First { _waited_for };
        }
        match self.0.get(&(to, port)) {
            Some((first, since)) if now.saturating_duration_since(*since) <= RACE => Turn::Second(first.clone()),
            _ => Turn::Alone,
        }
    }
}

impl Turn {
    /// Waits for it.
    pub(super) async fn come(&mut self) {
        if let Self::Second(first) = self {
            // An error: it is over. Nothing is ever sent.
            let _ = first.changed().await;
            sleep(AFTERWARDS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_waits_for_the_newest_of_its_race() {
        let ap = |number: u16| ApAddress::from_ipv6([0xfd70, 0, 0, 0, 0, 0, 0, number].into()).unwrap();
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert!(matches!(attempts.begin(now, ap(1), 80, false), Turn::Alone));
        let first = attempts.begin(now, ap(1), 80, true);
        for (to, port) in [(2, 80), (1, 81)] {
            assert!(matches!(attempts.begin(now, ap(to), port, false), Turn::Alone));
        }
        let late = now + RACE + Duration::from_millis(1);
        assert!(matches!(attempts.begin(late, ap(1), 80, false), Turn::Alone));
        let Turn::Second(second) = attempts.begin(now + RACE, ap(1), 80, false) else { panic!("it does not wait") };
        assert!(second.has_changed().is_ok());
        drop(first);
        assert!(second.has_changed().is_err());
        assert!(matches!(attempts.begin(now, ap(1), 80, false), Turn::Alone));
        assert!(attempts.0.is_empty());
    }
}
