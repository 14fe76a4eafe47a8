//! The simulator of the choice of nodes in seconds: few owners, few days, fixed seeds. `scripts/choice` is the long form.

#[path = "../examples/choice/owner.rs"]
#[allow(dead_code, reason = "the tables of the example need more")]
mod owner;
#[path = "../examples/choice/world.rs"]
#[allow(dead_code, reason = "the tables of the example need more")]
mod world;

use owner::{Owner, Report, Setting};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use world::{Attack, Net};

const OWNERS: u64 = 6;

fn run(attack: Attack) -> Vec<Report> {
    let setting = Setting { seed: 1, size: 400, hostile: 20, attack, days: 6, builds_per_day: 60, hops: 3 };
    println!("{setting:?}");
    let net = Net::new(&mut ChaCha8Rng::seed_from_u64(setting.seed), setting.size, setting.hostile);
    (0..OWNERS).map(|number| Owner::new(setting, &net, number).run()).collect()
}

fn sum(reports: &[Report], of: impl Fn(&Report) -> u64) -> f64 {
    reports.iter().map(of).sum::<u64>() as f64
}

/// A fifth of all nodes fail every build but those that are theirs at both ends. Without conviction of guards nearly all that stands
/// is theirs; chance gives 4 of 100.
#[test]
fn selective_killers_get_no_more_than_half_as_much_again_as_chance_gives() {
    let reports = run(Attack::Select);
    assert!(reports.iter().all(|one| one.adjacent <= 5));
    let share = sum(&reports, |one| one.both) / sum(&reports, |one| one.time);
    println!("{share}");
    assert!(share <= 1.5 * 0.04, "{share}");
    assert!(sum(&reports, |one| one.paths) > 0.4 * (OWNERS * 6 * 60) as f64, "and paths there are");
}

#[test]
fn few_nodes_ever_stand_next_to_an_owner() {
    let reports = run(Attack::Drop);
    assert!(reports.iter().all(|one| one.adjacent <= 5));
    assert_eq!(sum(&reports, |one| one.both), 0.0);
    assert!(sum(&reports, |one| one.paths) > 0.4 * (OWNERS * 6 * 60) as f64);
}
