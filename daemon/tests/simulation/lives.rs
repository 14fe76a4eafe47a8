//! Plays random lives of a network and those that failed once. One that fails is made smaller, and printed as a line for
//! `regressions.jsonl`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::model::History;
use super::stage::Stage;
use super::steps::{Life, Step};
use super::world::simulate;

/// Lives that are played where nobody says for how long.
const LIVES: u64 = 6;

/// How often a life that fails is played anew to make it smaller.
const SMALLER: usize = 40;

thread_local! {
    /// What panicked on this thread: in a task, tokio would only drop the task.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
            before(info);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
}

/// Plays a life; what happened.
fn play(life: &Life) -> History {
    note_panics();
    let played = catch_unwind(AssertUnwindSafe(|| simulate(life.seed, Stage::play(life))));
    let panics = PANICS.with_borrow_mut(std::mem::take);
    History { panics, ..played.unwrap_or_default() }
}

/// The fewest steps, as far as a bounded search finds them, with which a life still fails.
fn smaller(life: &Life, fails: impl Fn(&Life) -> bool) -> Life {
    let (mut life, mut tries) = (life.clone(), SMALLER);
    let mut chunk = life.steps.len().div_ceil(2);
    while chunk > 0 && tries > 0 {
        let mut at = 0;
        while at < life.steps.len() && tries > 0 {
            let mut without = life.clone();
            without.steps.drain(at..(at + chunk).min(life.steps.len()));
            tries -= 1;
            if fails(&without) { life = without } else { at += chunk }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    life
}

/// Fails with all that is needed to see it again.
fn must_hold(life: &Life) -> [usize; 4] {
    let history = play(life);
    let broken = history.broken();
    if !broken.is_empty() {
        // At once: what follows takes its time.
        println!("seed {}: {broken:#?}\nas it is:\n{}", life.seed, serde_json::to_string(life).unwrap());
        let smallest = smaller(life, |life| !play(life).broken().is_empty());
        let line = serde_json::to_string(&smallest).unwrap();
        let still = play(&smallest).broken();
        panic!("seed {}, made smaller: {still:#?}\nfor regressions.jsonl:\n{line}", life.seed);
    }
    history.counts()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `PHANTOM_SIMULATE_SECONDS`: for so long, from `PHANTOM_SIMULATE_SEED` on; else some.
#[test]
fn whatever_happens_in_a_network_its_promises_hold() {
    let first = number("PHANTOM_SIMULATE_SEED").unwrap_or(1);
    let limit = number("PHANTOM_SIMULATE_SECONDS").map(Duration::from_secs);
    let (begun, mut seed, mut counts) = (Instant::now(), first, [0; 4]);
    while limit.map_or(seed < first + LIVES, |limit| begun.elapsed() < limit) {
        let came = must_hold(&Life::drawn(seed));
        println!("seed {seed}: {came:?} attempts, of them came, echoes, of them came");
        counts = std::array::from_fn(|n| counts[n] + came[n]);
        seed += 1;
    }
    println!("{} lives: {counts:?}", seed - first);
    let [attempts, came, talks, echoed] = counts;
    assert!(came * 3 > attempts && echoed * 3 > talks && echoed > 0, "too little happened: {counts:?}");
}

#[test]
fn what_failed_once_holds() {
    for line in include_str!("regressions.jsonl").lines() {
        must_hold(&serde_json::from_str(line).unwrap());
    }
}

#[test]
fn a_life_that_fails_is_made_small() {
    let life = Life::drawn(7);
    assert_eq!(life, serde_json::from_str(&serde_json::to_string(&life).unwrap()).unwrap());
    let needed = |life: &Life| {
        let leap = life.steps.iter().position(|step| matches!(step, Step::Leap(_)));
        leap.is_some_and(|at| life.steps[at..].iter().any(|step| matches!(step, Step::Talk { .. })))
    };
    let mut long = life;
    long.steps.insert(1, Step::Leap(5));
    assert_eq!(smaller(&long, needed).steps.len(), 2);
}
