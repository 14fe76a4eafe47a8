//! Many owners, one line.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::owner::{Owner, Report, Setting};
use super::world::{Attack, DAY, Net};

/// Owners that share one drawing of who is hostile.
const OWNERS_PER_NET: u64 = 20;

/// Reports of many owners.
pub(crate) struct Line {
    pub(crate) setting: Setting,
    pub(crate) reports: Vec<Report>,
}

impl Line {
    pub(crate) fn run(setting: Setting, owners: u64) -> Self {
        let mut reports = Vec::new();
        for net in 0..owners.div_ceil(OWNERS_PER_NET) {
            let seed = setting.seed.wrapping_add(net);
            let net = Net::new(&mut ChaCha8Rng::seed_from_u64(seed), setting.size, setting.hostile);
            let setting = Setting { seed, ..setting };
            let count = OWNERS_PER_NET.min(owners - reports.len() as u64);
            reports.extend((0..count).map(|number| Owner::new(setting, &net, number).run()));
        }
        Self { setting, reports }
    }

    fn sum(&self, of: impl Fn(&Report) -> u64) -> f64 {
        self.reports.iter().map(of).sum::<u64>() as f64
    }

    fn chance(&self, nodes: i32) -> f64 {
        (self.setting.hostile as f64 / 100.0).powi(nodes)
    }

    /// Share of path-time with a hostile nearest X-node, by chance's.
    pub(crate) fn nearest(&self) -> f64 {
        self.sum(|one| one.nearest) / self.sum(|one| one.time) / self.chance(1)
    }

    /// Share of path-time that is hostile at both ends, by chance's.
    pub(crate) fn both(&self) -> f64 {
        self.sum(|one| one.both) / self.sum(|one| one.time) / self.chance(2)
    }

    /// Share of path-time that is wholly hostile, by chance's.
    pub(crate) fn whole(&self) -> f64 {
        self.sum(|one| one.whole) / self.sum(|one| one.time) / self.chance(3)
    }

    /// Paths that came of those that were wanted.
    pub(crate) fn built(&self) -> f64 {
        self.sum(|one| one.paths) / (self.setting.days * self.setting.builds_per_day) as f64 / self.reports.len() as f64
    }

    pub(crate) fn failed(&self) -> f64 {
        self.sum(|one| one.failed) / self.sum(|one| one.builds)
    }

    /// Distinct nodes that stood next to an owner: mean and largest.
    pub(crate) fn adjacent(&self) -> (f64, usize) {
        let largest = self.reports.iter().map(|one| one.adjacent).max().unwrap_or_default();
        (self.sum(|one| one.adjacent as u64) / self.reports.len() as f64, largest)
    }

    /// Share of owners of whom something was found within so many days.
    pub(crate) fn found(&self, days: u64, when: impl Fn(&Report) -> Option<u64>) -> f64 {
        self.sum(|one| u64::from(when(one).is_some_and(|at| at <= days * DAY))) / self.reports.len() as f64
    }
}

fn print(line: &Line) {
    let Setting { size, hostile, attack, hops, .. } = line.setting;
    let (mean, largest) = line.adjacent();
    let exposed = line.sum(|one| one.notes.iter().filter(|note| note.starts_with("no further")).count() as u64);
    println!(
        "{size:>6} {hostile:>3}% {:<8} {hops} | {:>5.2} {:>5.2} {:>6.2} | {:>5.1}% {:>5.1}% | {mean:>4.1} {largest:>2} {:>4.0}% | L2 {:>3.0}% {:>3.0}% {:>3.0}%  L1 {:>3.0}% {:>3.0}% {:>3.0}%  owner {:>3.0}% {:>3.0}% {:>3.0}%",
        format!("{attack:?}"),
        line.nearest(),
        line.both(),
        line.whole(),
        100.0 * line.built(),
        100.0 * line.failed(),
        100.0 * exposed / line.reports.len() as f64,
        100.0 * line.found(1, |one| one.second),
        100.0 * line.found(7, |one| one.second),
        100.0 * line.found(30, |one| one.second),
        100.0 * line.found(1, |one| one.first),
        100.0 * line.found(7, |one| one.first),
        100.0 * line.found(30, |one| one.first),
        100.0 * line.found(1, |one| one.owner),
        100.0 * line.found(7, |one| one.owner),
        100.0 * line.found(30, |one| one.owner),
    );
}

fn head() {
    println!();
    println!(
        " nodes  f  attack   x | path-time hostile by chance's: nearest, both ends, whole | paths had of those wanted, builds failed | nodes next to the owner in 30 days: mean, most, at the bound | found by a hostile entry after 1, 7, 30 days: layer 2, layer 1, the owner"
    );
}

fn month(builds_per_day: u64, seed: u64, size: usize, hostile: usize, attack: Attack) -> Setting {
    Setting { seed, size, hostile, attack, days: 30, builds_per_day, hops: 3 }
}

/// Each attack by each share of hostile operators.
pub(crate) fn attacks(owners: u64, builds: u64, seed: u64) {
    head();
    for hostile in [20, 10, 30, 5] {
        for attack in Attack::ALL {
            print(&Line::run(month(builds, seed, 1000, hostile, attack), owners));
        }
    }
}

/// Networks of each size, and four X-nodes.
pub(crate) fn sizes(owners: u64, builds: u64, seed: u64) {
    head();
    for size in [50, 1000, 5000, 100_000] {
        for attack in [Attack::Watch, Attack::Select] {
            print(&Line::run(month(builds, seed, size, 20, attack), owners));
        }
    }
    print(&Line::run(Setting { hops: 4, ..month(builds, seed, 1000, 20, Attack::Watch) }, owners));
}
