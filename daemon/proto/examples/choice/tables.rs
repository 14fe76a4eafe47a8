//! Many owners, one line of a table.

use std::io::Write as _;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::owner::{Owner, Report, Setting};
use super::world::{Attack, DAY, Net};

/// Owners that share one drawing of who is hostile. Few, since what one drawing gives is no independent sample; more than one, since
/// a network of 100 000 nodes takes its time to make.
const OWNERS_PER_NET: usize = 2;

/// Reports of many owners.
pub(crate) struct Line {
    pub(crate) setting: Setting,
    pub(crate) reports: Vec<Report>,
    /// The share of operators that an owner may meet which is hostile, mean over the networks: not quite what was asked for where
    /// there are few.
    share: f64,
}

impl Line {
    pub(crate) fn run(setting: Setting, owners: u64) -> Self {
        let (mut reports, mut shares) = (Vec::new(), Vec::new());
        for net in 0..owners.div_ceil(OWNERS_PER_NET as u64) {
            let seed = setting.seed.wrapping_add(net);
            let net = Net::new(&mut ChaCha8Rng::seed_from_u64(seed), setting.size, setting.hostile);
            shares.push(net.share());
            let setting = Setting { seed, ..setting };
            let count = (OWNERS_PER_NET as u64).min(owners - reports.len() as u64);
            reports.extend((0..count).map(|number| Owner::new(setting, &net, number).run()));
        }
        Self { setting, share: shares.iter().sum::<f64>() / shares.len().max(1) as f64, reports }
    }

    /// Share of path-time of which `of` tells the seconds, by chance's, and its standard error: that of the mean over networks, by
    /// leaving out one after the other.
    pub(crate) fn ratio(&self, of: impl Fn(&Report) -> u64, nodes: i32) -> (f64, f64) {
        let blocks: Vec<(f64, f64)> = self
            .reports
            .chunks(OWNERS_PER_NET)
            .map(|block| (sum(block, &of), sum(block, &|one: &Report| one.time)))
            .collect();
        let (hostile, time) = blocks.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let chance = self.share.powi(nodes);
        let without: Vec<f64> = blocks.iter().map(|one| (hostile - one.0) / (time - one.1) / chance).collect();
        let (count, mean) = (without.len() as f64, without.iter().sum::<f64>() / without.len() as f64);
        let spread: f64 = without.iter().map(|one| (one - mean).powi(2)).sum();
        (hostile / time / chance, (spread * (count - 1.0) / count).sqrt())
    }

    pub(crate) fn nearest(&self) -> (f64, f64) {
        self.ratio(|one| one.nearest, 1)
    }

    pub(crate) fn both(&self) -> (f64, f64) {
        self.ratio(|one| one.both, 2)
    }

    pub(crate) fn whole(&self) -> (f64, f64) {
        self.ratio(|one| one.whole, self.setting.hops as i32)
    }

    /// Paths that came of those that were wanted.
    pub(crate) fn built(&self) -> f64 {
        let wanted = self.setting.days * self.setting.builds_per_day;
        sum(&self.reports, &|one: &Report| one.paths) / wanted as f64 / self.reports.len() as f64
    }

    /// Distinct nodes that stood next to an owner: mean and largest.
    pub(crate) fn adjacent(&self) -> (f64, usize) {
        let largest = self.reports.iter().map(|one| one.adjacent).max().unwrap_or_default();
        (sum(&self.reports, &|one: &Report| one.adjacent as u64) / self.reports.len() as f64, largest)
    }

    /// Days until something was found of half of the owners. `None`: not within the time that was simulated.
    pub(crate) fn half(&self, when: impl Fn(&Report) -> Option<u64>) -> Option<f64> {
        let mut all: Vec<u64> = self.reports.iter().map(|one| when(one).unwrap_or(u64::MAX)).collect();
        all.sort_unstable();
        Some(all[all.len() / 2]).filter(|at| *at < u64::MAX).map(|at| at as f64 / DAY as f64)
    }

    /// Share of owners of whom something was found within so many days.
    pub(crate) fn found(&self, days: u64, when: impl Fn(&Report) -> Option<u64>) -> f64 {
        let found = |one: &Report| u64::from(when(one).is_some_and(|at| at <= days * DAY));
        sum(&self.reports, &found) / self.reports.len() as f64
    }
}

fn sum(reports: &[Report], of: &impl Fn(&Report) -> u64) -> f64 {
    reports.iter().map(of).sum::<u64>() as f64
}

fn print(line: &Line) {
    let Setting { size, hostile, attack, hops, .. } = line.setting;
    let (mean, largest) = line.adjacent();
    let ratio = |(value, error): (f64, f64)| format!("{value:.2} ± {error:.2}");
    let found = |when: fn(&Report) -> Option<u64>| {
        let half = line.half(when).map_or_else(|| "—".into(), |days| format!("{days:.1}"));
        let at = |days| 100.0 * line.found(days, when);
        format!("{half}; {:.0}, {:.0}, {:.0} %", at(1), at(7), at(line.setting.days))
    };
    println!(
        "| {size} | {hostile} % | {} | {hops} | {} | {} | {} | {:.0} % | {mean:.1}, {largest} | {} | {} | {} |",
        attack.name(),
        ratio(line.nearest()),
        ratio(line.both()),
        ratio(line.whole()),
        100.0 * line.built(),
        found(|one| one.second),
        found(|one| one.first),
        found(|one| one.owner),
    );
    // Who makes a file of it wants to see how far it is.
    let _ = std::io::stdout().flush();
}

fn head(owners: u64, builds: u64) {
    println!();
    println!(
        "{owners} owners for each line, each {DAYS} days with {builds} paths a day. Path-time: by what chance gives, with its standard error. \
         Found: days until half of the owners; share after 1, 7, {DAYS} days."
    );
    println!();
    println!(
        "| nodes | hostile | attack | x | nearest hostile | both ends | whole path | paths had of those wanted | next to the owner: mean, most | layer 2 found | a guard found | the owner found |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
}

/// How long each owner is watched.
const DAYS: u64 = 30;

fn month(builds_per_day: u64, seed: u64, size: usize, hostile: usize, attack: Attack) -> Setting {
    Setting { seed, size, hostile, attack, days: DAYS, builds_per_day, hops: 3 }
}

/// Each attack by each share of hostile operators, in a network of one size.
pub(crate) fn attacks(owners: u64, builds: u64, seed: u64, size: usize, shares: &[usize]) {
    head(owners, builds);
    for hostile in shares {
        for attack in Attack::ALL {
            print(&Line::run(month(builds, seed, size, *hostile, attack), owners));
        }
    }
}

/// Networks of each size, and four X-nodes.
pub(crate) fn sizes(owners: u64, builds: u64, seed: u64) {
    head(owners, builds);
    for size in [50, 1000, 5000, 100_000] {
        for hostile in [5, 10, 20, 30] {
            for attack in [Attack::Watch, Attack::Select, Attack::Late] {
                print(&Line::run(month(builds, seed, size, hostile, attack), owners));
            }
        }
    }
    print(&Line::run(Setting { hops: 4, ..month(builds, seed, 1000, 20, Attack::Watch) }, owners));
}
