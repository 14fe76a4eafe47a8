//! Nodes restart again and again, and connections keep being made.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use phantom_tests::{CLIENT, Network, SERVER, Server, Way, ended, processes, signal};

const NODES: usize = 13;

/// How many of them restart; `scripts/restarts` says a third. Of so few nodes each path has most: where a third restarts, paths live for seconds,
/// and whether any two meet in a minute is a matter of luck.
const RESTARTING: u64 = 1;

/// How long, in seconds; `scripts/restarts` says an hour.
const SECONDS: u64 = 60;

/// Accepts on port 7000 and closes what it accepted.
const SERVE: &str = "import socket
s = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print('Serving', flush=True)
while True: s.accept()[0].close()";

/// xorshift64*: which nodes and when need not be unpredictable, but repeatable.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

fn number(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// Ends a node, half of the times without a word, and starts it again as it was started.
struct Restarts<'a> {
    network: &'a Network,
    node: usize,
    chance: Chance,
    running: Option<Server>,
}

impl Restarts<'_> {
    /// Goes on until `stop_rx` is hung up; how often it was restarted.
    fn run(mut self, stop_rx: &Receiver<()>, count: &AtomicUsize) -> Result<Option<Server>> {
        loop {
            let up = Duration::from_millis(5000 + self.chance.below(25_000));
            if stop_rx.recv_timeout(up) != Err(RecvTimeoutError::Timeout) {
                return Ok(self.running);
            }
            let pid = self.network.pid(self.node)?;
            let process = processes()?.into_iter().find(|process| process.pid == pid).context("it ended by itself")?;
            let [program, arguments @ ..] = &process.words[..] else { anyhow::bail!("no command line") };
            signal(pid, if self.chance.below(2) == 0 { libc::SIGKILL } else { libc::SIGTERM });
            // A child of ours is waited for here, one of the network's ends by itself.
            if let Some(mut running) = self.running.take() {
                running.wait()?;
            }
            ended(pid)?;
            let _ = stop_rx.recv_timeout(Duration::from_millis(self.chance.below(2000)));
            let mut again = Command::new(program);
            again.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            self.running = Some(Server::from(again.spawn()?));
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// design: at least 99 of 100 attempts succeed, where an attempt may take as long as a program's connect may.
#[test]
fn nodes_restart_and_connections_are_made() -> Result<()> {
    let restarting = usize::try_from(number("PHANTOM_RESTARTS_NODES", RESTARTING)?)?;
    let seconds = number("PHANTOM_RESTARTS_SECONDS", SECONDS)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("PHANTOM_RESTARTS_SEED", now)?;
    let mut chance = Chance(seed | 1 << 40);
    let network = Network::up(NODES)?;
    let (_server, name) = network.serve(Way::Inject, "restarts", &["python3", "-c", SERVE], "Serving")?;
    let mut others: Vec<_> = (0..NODES).filter(|node| ![SERVER, CLIENT].contains(node)).collect();
    let nodes: Vec<_> =
        (0..restarting).map(|_| others.swap_remove(chance.below(others.len() as u64) as usize)).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/victims/connects.py");
    let restarts = AtomicUsize::new(0);
    let output = std::thread::scope(|scope| {
        let mut stops = Vec::new();
        let mut threads = Vec::new();
        for node in &nodes {
            let (stop_tx, stop_rx) = channel::<()>();
            let restart = Restarts {
                network: &network,
                node: *node,
                chance: Chance(seed ^ (*node as u64 + 1) << 32),
                running: None,
            };
            stops.push(stop_tx);
            let count = &restarts;
            threads.push(scope.spawn(move || restart.run(&stop_rx, count)));
        }
        let seconds = seconds.to_string();
        let output = network.run(Way::Inject, &["python3", script, &name, "7000", &seconds]);
        drop(stops);
        let running: Result<Vec<_>> =
            threads.into_iter().map(|thread| thread.join().expect("no panic in a restart")).collect();
        running.and(output)
    })?;
    let (good, bad): (Vec<_>, Vec<_>) = output.lines().partition(|line| line.starts_with("ok"));
    let mut why: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &bad {
        *why.entry(line.splitn(3, ' ').nth(2).unwrap_or_default()).or_default() += 1;
    }
    let mut times: Vec<f64> = good.iter().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).or_else(|| times.last()).copied().unwrap_or_default();
    let told = format!(
        "seed {seed}: nodes {nodes:?} restarted {} times; {} of {} attempts failed: {why:?}; \
         connect took {:.1} s at the median, {:.1} s at 95 %, {:.1} s at most",
        restarts.load(Ordering::Relaxed),
        bad.len(),
        good.len() + bad.len(),
        at(50),
        at(95),
        at(100)
    );
    println!("{told}");
    ensure!(good.len() >= 50 && restarts.load(Ordering::Relaxed) > restarting, "too little happened; {told}");
    ensure!(bad.len() * 100 <= good.len() + bad.len(), "{told}");
    Ok(())
}
