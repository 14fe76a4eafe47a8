//! What a reader of every public record, who also knows the times of all links of every node, finds out about who owns a service.
//!
//! The reader tries several ways of looking at a node's uplink: each is a kind of event that may come shortly before a record appears,
//! and how shortly. Per way it adds up for each node how much better the records of a service are explained by that node's events
//! than by chance, and guesses the best. What is true of its guesses when it knows nothing is arithmetic; more than that is a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use phantom_proto::ident::{ApAddress, NodeId};
use phantom_proto::node::{Settings, Work};
use rand::RngExt;
use tokio::time::sleep;

use super::wires::{Seen, What};
use super::world::{World, simulate};

/// Sends at least as long as this are arrays: nothing else that is sent at once here is.
const ARRAY: usize = 40_000;

/// An array that leaves within so many milliseconds of one that came may have been passed on.
const PASSED_ON: u64 = 2_000;

/// How sure the reader is that an owner shows itself by the event that it looks for.
const SURE: f64 = 0.9;

/// How soon before the record, in milliseconds.
const WINDOWS: [u64; 5] = [1_000, 5_000, 10_000, 30_000, 300_000];

/// When services begin, in seconds: once nodes have the spare paths that they keep, and not all at once.
const BEGIN: std::ops::Range<u64> = 1800..5400;

/// A false alarm of any of the reader's ways may happen once in so many runs.
const FALSE_ALARMS: f64 = 1000.0;

/// What the reader looks for on a node's uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Eye {
    /// Links that the node opened.
    Dials,
    /// Links that it opened or that were opened to it.
    Links,
    /// Setup arrays that left and had not come.
    Builds,
    /// Whatever it sent.
    Sends,
}

const EYES: [Eye; 4] = [Eye::Dials, Eye::Links, Eye::Builds, Eye::Sends];

/// A record that appeared in the database.
#[derive(Debug, Clone, Copy)]
struct Appearance {
    at: u64,
    service: usize,
    /// The node that published it.
    entry: usize,
}

/// All that there is to see, and the truth.
#[derive(Clone)]
struct Observed {
    owners: Vec<usize>,
    nodes: usize,
    seen: Vec<Seen>,
    appearances: Vec<Appearance>,
    /// When the path of a service that ends at this node was built.
    built: BTreeMap<(usize, usize), u64>,
    begun: u64,
}

/// How a way of guessing did.
#[derive(Debug)]
struct Result {
    eye: Eye,
    window: u64,
    right: usize,
    /// Mean place of the true owner in the reader's order, from 0 (first) to 1; what knows nothing has a half.
    rank: f64,
}

impl Observed {
    /// A network in which each node has a service, begun at a time of its own; looked at for so many hours after the last began.
    fn of(seed: u64, nodes: usize, hours: u64) -> Self {
        simulate(seed, async {
            let mut world = World::with(seed, nodes, Settings::default()).await;
            let mut begins: Vec<(u64, usize)> = (0..nodes).map(|node| (world.rng.random_range(BEGIN), node)).collect();
            begins.sort_unstable();
            let (mut owners, mut services, mut built) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
            let mut minute = 0;
            world.wires.watch();
            let begun = phantom_daemon::clock::unix_millis();
            let mut pending = begins.into_iter().peekable();
            while minute < BEGIN.end / 60 + 60 * hours {
                while let Some((_, node)) = pending.next_if(|(at, _)| at / 60 <= minute) {
                    let address = world.server(node).await;
                    services.insert(address, owners.len());
                    owners.push(node);
                }
                note_builds(&world, &owners, &services, &mut built).await;
                if minute % 5 == 0 {
                    world.feed().await;
                }
                sleep(Duration::from_secs(60)).await;
                minute += 1;
            }
            let publications = world.reader.publications();
            let appearances = publications.iter().map(|one| Appearance {
                at: one.at,
                service: services[&one.record.address()],
                entry: one.node,
            });
            let appearances = appearances.collect();
            Self { owners, nodes, seen: world.wires.seen(), appearances, built, begun }
        })
    }

    /// When a service first appeared.
    fn first(&self, service: usize) -> u64 {
        self.appearances.iter().filter(|one| one.service == service).map(|one| one.at).min().unwrap_or_default()
    }

    /// The first tree's leak: a record appears when its path was built.
    fn with_the_old_leak(mut self) -> Self {
        let built = &self.built;
        let moment = |one: &Appearance| built.get(&(one.service, one.entry)).map(|at| Appearance { at: *at, ..*one });
        self.appearances = self.appearances.iter().filter_map(moment).collect();
        self
    }

    /// Without the first records of services, which appear when their owners begin.
    fn of_services_that_run(mut self) -> Self {
        let firsts: Vec<u64> = (0..self.owners.len()).map(|service| self.first(service)).collect();
        self.appearances.retain(|one| one.at > firsts[one.service] + 120_000);
        self
    }

    fn only_first_records(mut self) -> Self {
        let firsts: Vec<u64> = (0..self.owners.len()).map(|service| self.first(service)).collect();
        self.appearances.retain(|one| one.at <= firsts[one.service] + 120_000);
        self
    }

    /// Times of what an eye sees, for each node.
    fn events(&self, eye: Eye) -> Vec<Vec<u64>> {
        let mut events = vec![Vec::new(); self.nodes];
        let mut came = vec![0; self.nodes];
        for Seen { at, node, what } in &self.seen {
            let counts = match (eye, what) {
                (Eye::Dials, What::Dialed) | (Eye::Links, What::Dialed | What::Accepted) => true,
                (Eye::Sends, What::Sent(_)) => true,
                (Eye::Builds, What::Got(len)) if *len >= ARRAY => {
                    came[*node] = *at;
                    false
                }
                (Eye::Builds, What::Sent(len)) => *len >= ARRAY && *at > came[*node] + PASSED_ON,
                _ => false,
            };
            if counts {
                events[*node].push(*at);
            }
        }
        events
    }

    /// The reader's guesses by one way of looking.
    fn guess(&self, eye: Eye, window: u64, events: &[Vec<u64>]) -> Result {
        let long = (self.seen.last().map_or(self.begun, |seen| seen.at) - self.begun).max(1) as f64;
        // What an appearance adds when there was an event shortly before, and when there was none.
        let gains = events.iter().map(|events| {
            let by_chance = (1.0 - (-(events.len() as f64) * window as f64 / long).exp()).clamp(1e-6, 1.0 - 1e-6);
            ((SURE / by_chance).ln(), ((1.0 - SURE) / (1.0 - by_chance)).ln())
        });
        let gains: Vec<(f64, f64)> = gains.collect();
        let (mut right, mut ranks) = (0, 0.0);
        for (service, owner) in self.owners.iter().enumerate() {
            let of = || self.appearances.iter().filter(|one| one.service == service);
            let entries: BTreeSet<usize> = of().map(|one| one.entry).collect();
            // Nobody is an entry node of its own.
            let candidates = (0..self.nodes).filter(|node| !entries.contains(node));
            let score = |node: usize| {
                let near = |at: u64| {
                    let next = events[node].partition_point(|event| *event <= at);
                    next > 0 && events[node][next - 1] + window > at
                };
                of().map(|one| if near(one.at) { gains[node].0 } else { gains[node].1 }).sum::<f64>()
            };
            let own = score(*owner);
            let (mut better, mut equal, mut others) = (0, 0, 0);
            for node in candidates.filter(|node| node != owner) {
                let score = score(node);
                better += usize::from(score > own);
                equal += usize::from(score == own);
                others += 1;
            }
            // Of equal ones it takes any.
            right += usize::from(better == 0 && equal == 0);
            ranks += (better as f64 + equal as f64 / 2.0) / others as f64;
        }
        Result { eye, window, right, rank: ranks / self.owners.len() as f64 }
    }

    /// All ways of looking.
    fn guesses(&self) -> Vec<Result> {
        let mut all = Vec::new();
        for eye in EYES {
            let events = self.events(eye);
            all.extend(WINDOWS.map(|window| self.guess(eye, window, &events)));
        }
        all
    }

    /// Ways of looking that know more than nothing: more right than chance gives, or owners too far in front.
    fn wins(&self, title: &str) -> usize {
        let (services, ways) = (self.owners.len(), EYES.len() * WINDOWS.len());
        let chance = 1.0 / (self.nodes as f64 - 4.0);
        let most = most_by_chance(services, chance, 1.0 / (FALSE_ALARMS * ways as f64));
        // The place of what knows nothing is uniform; its mean over many is normal. 4.0 sigma: once in 20 ways x 1000 runs, and some.
        let margin = 4.0 * (1.0 / 12.0 / services as f64).sqrt();
        let all = self.guesses();
        let wins = |one: &&Result| one.right > most || one.rank < 0.5 - margin;
        let (wins, records) = (all.iter().filter(wins).count(), self.appearances.len());
        println!(
            "{title}: {services} services, {records} appearances, {} nodes; chance: at most {most} right, place 0.5 ± {margin:.3}",
            self.nodes
        );
        for Result { eye, window, right, rank } in &all {
            println!(
                "  {:<8} within {:>3} s: {right:>3} right, mean place {rank:.3}",
                format!("{eye:?}"),
                window / 1000
            );
        }
        wins
    }
}

/// When the paths by which services are reached now were built, by service and entry node.
async fn note_builds(
    world: &World,
    owners: &[usize],
    services: &BTreeMap<ApAddress, usize>,
    built: &mut BTreeMap<(usize, usize), u64>,
) {
    let index: BTreeMap<NodeId, usize> =
        world.nodes.iter().enumerate().map(|(index, node)| (node.candidate.contact.node_id(), index)).collect();
    let now = phantom_daemon::clock::unix_millis();
    for (address, service) in services {
        for (path, _) in world.nodes[owners[*service]].handle.snapshot().await.expect("it runs").paths {
            if path.work == Work::Serve
                && path.identity == Some(*address)
                && let Some(end) = path.hops.last()
            {
                let at = now - path.since.elapsed().as_millis() as u64;
                built.insert((*service, index[&end.node_id()]), at);
            }
        }
    }
}

/// The most of `count` guesses, each right by `chance`, that are right with at least this probability.
fn most_by_chance(count: usize, chance: f64, probability: f64) -> usize {
    let (mut exactly, mut more, mut right) = ((1.0 - chance).powi(count as i32), 1.0, 0);
    loop {
        more -= exactly;
        if more < probability {
            return right;
        }
        exactly *= (count - right) as f64 / (right + 1) as f64 * chance / (1.0 - chance);
        right += 1;
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `PHANTOM_GUESS_NODES`, `PHANTOM_GUESS_HOURS`: how large; scripts/guess has 200 nodes and 1000 records.
#[test]
fn who_reads_all_records_and_times_of_links_does_not_find_owners() {
    let (nodes, hours) = (number("PHANTOM_GUESS_NODES", 20), number("PHANTOM_GUESS_HOURS", 1));
    let observed = Observed::of(number("PHANTOM_GUESS_SEED", 1), nodes as usize, hours);
    let starting = observed.clone().only_first_records().wins("first records");
    println!("ways that know more than nothing of services that begin: {starting}");
    let running = observed.of_services_that_run();
    assert_eq!(running.wins("services that run"), 0, "a reader knows more than nothing");
    let leaking = running.with_the_old_leak();
    assert!(leaking.wins("with the old leak") > 0, "a reader that sees nothing anywhere is no reader");
}

#[test]
fn chance_is_counted_right() {
    // Of 200 guesses among 200, one is right on average; by the binomial distribution more than 5 with p = 0.0005.
    assert_eq!(most_by_chance(200, 1.0 / 200.0, 0.001), 5);
    assert_eq!(most_by_chance(10, 0.5, 0.5), 5);
}
