//! How many nodes that were not known enter the sample in an hour: whoever adds a flood of nodes to the network needs days for what it
//! could else do in minutes, and tries to keep up with those who leave for as long.

/// In seconds.
const HOUR: u64 = 3600;

/// A sample that had fewer when the hour began takes as many as come: so does that of a new node in its first hour, which must begin
/// somewhere.
const FEW: usize = 64;

/// Of more, one in so many may be new within the hour; but some may in any case.
const ONE_IN: usize = 20;
const SOME: usize = 8;

/// Who has entered in this hour.
// protocol: J14
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// When it began, in seconds since 1970, and how many were known then.
    began: Option<(u64, usize)>,
    entered: usize,
}

impl Newcomers {
    /// Whether one more enters a sample of so many.
    pub(super) fn enters(&mut self, now: u64, known: usize) -> bool {
        // A clock that was set back begins another hour.
        let standing = self.began.filter(|(began, _)| (*began..began + HOUR).contains(&now));
        if standing.is_none() {
            (self.began, self.entered) = (Some((now, known)), 0);
        }
        let known = standing.map_or(known, |(_, known)| known);
        let most = if known < FEW { usize::MAX } else { SOME.max(known / ONE_IN) };
        let enters = self.entered < most;
        self.entered += usize::from(enters);
        enters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn enter(newcomers: &mut Newcomers, now: u64, known: usize, come: usize) -> usize {
        (0..come).filter(|_| newcomers.enters(now, known)).count()
    }

    // protocol: J14
    #[test]
    fn a_twentieth_may_be_new_in_an_hour_and_eight_in_any_case() {
        for (known, most) in [(64, 8), (200, 10), (512, 25)] {
            let mut newcomers = Newcomers::default();
            assert_eq!(enter(&mut newcomers, NOW, known, 1000), most);
            assert_eq!(enter(&mut newcomers, NOW + HOUR - 1, known, 1000), 0);
            assert_eq!(enter(&mut newcomers, NOW + HOUR, known, 1000), most);
            assert_eq!(enter(&mut newcomers, NOW, known, 1000), most, "the clock was set back");
        }
    }

    /// What counts is what was known before: in the first hour of a new node all come.
    // protocol: J14
    #[test]
    fn a_node_that_knows_few_takes_whom_it_can_get_within_the_hour() {
        let mut newcomers = Newcomers::default();
        assert_eq!((0..500).filter(|known| newcomers.enters(NOW + 5, *known)).count(), 500);
        assert_eq!(enter(&mut newcomers, NOW + 5 + HOUR, 500, 1000), 25);
        assert_eq!(enter(&mut newcomers, NOW + 5 + 2 * HOUR, FEW - 1, 1000), 1000);
    }
}
