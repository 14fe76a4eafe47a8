//! Plays a life of a network, and writes down what happened.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phantom_daemon::clock;
use phantom_daemon::far::Stream;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::model::{Attempt, History, Player, Talk, Told, Trouble};
use super::steps::{ABSENT, Life, Step};
use super::world::{Echo, World};

/// How often the network database tells nodes of each other.
const FEED_EVERY: Duration = Duration::from_secs(30);

/// How long an echo may take before it counts as lost.
const ECHO_LIMIT: Duration = Duration::from_secs(60);

/// Longer than any link, set-up, build or attempt to connect lives.
const ALL_OVER: Duration = Duration::from_secs(1200);

/// Paths that a cramped node carries for others.
const CRAMPED: usize = 2;

/// What is due at some time.
enum Due {
    Start { node: usize, cramped: bool, moved: bool },
    Wake(usize),
    Heal(usize, usize),
}

pub(crate) struct Stage {
    world: World,
    began: Instant,
    history: Arc<Mutex<History>>,
    keys: Vec<Arc<SigningKey>>,
    connections: Arc<Mutex<Vec<mpsc::Sender<usize>>>>,
    due: BTreeMap<(Instant, u64), Due>,
    fed: Instant,
    number: u64,
}

impl Stage {
    pub(crate) async fn play(life: &Life) -> History {
        let settings = if life.hurried { Settings { unborn: 0, ..Settings::hurried() } } else { Settings::default() };
        let world = World::hiding(life.seed, life.nodes, life.hidden, settings).await;
        let history = History { hostile: life.hostile.clone(), ..History::default() };
        let mut stage = Self {
            world,
            began: Instant::now(),
            history: Arc::new(Mutex::new(history)),
            keys: Vec::new(),
            connections: Arc::default(),
            due: BTreeMap::new(),
            fed: Instant::now(),
            number: 0,
        };
        for (back, conduct) in life.hostile.iter().enumerate() {
            stage.world.wires.behave(life.nodes - 1 - back, *conduct);
        }
        for step in &life.steps {
            stage.step(step).await;
            stage.pass(Duration::from_millis(500)).await;
        }
        stage.finish(life).await
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn note<T>(&self, write: impl FnOnce(&mut History) -> T) -> T {
        write(&mut self.history.lock().unwrap())
    }

    /// Time goes by; what is due happens.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let next = self.due.keys().next().map_or(until, |(at, _)| *at);
            let next = next.min(self.fed + FEED_EVERY).min(until);
            sleep_until(next).await;
            if Instant::now() >= self.fed + FEED_EVERY {
                self.feed().await;
            }
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= Instant::now()) {
                let due = entry.remove();
                self.happens(due).await;
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    async fn feed(&mut self) {
        self.fed = Instant::now();
        self.world.feed().await;
    }

    fn later(&mut self, seconds: u64, due: Due) {
        self.number += 1;
        self.due.insert((Instant::now() + Duration::from_secs(seconds), self.number), due);
    }

    async fn happens(&mut self, due: Due) {
        match due {
            Due::Wake(node) => self.world.wires.sleep(node, false),
            Due::Heal(a, b) => self.world.wires.cut(a, b, false),
            Due::Start { node, cramped, moved } => {
                let mut settings = self.world.settings.clone();
                if cramped {
                    settings.relayed_paths = CRAMPED;
                }
                self.world.start_again(node, settings, moved);
                self.feed().await;
                self.reopen(node).await;
            }
        }
    }

    /// Something that may end paths and connections, from now on for so many seconds.
    fn trouble(&self, seconds: u64) {
        let from = self.now();
        self.note(|history| history.troubles.push(Trouble { from, to: from + 1000 * seconds }));
    }

    /// Whether a node is there, and may be taken away for a while.
    fn takes(&self, node: usize) -> bool {
        let gone = |node: &usize| !self.world.nodes[*node].running || !self.world.wires.hear(*node, *node);
        !gone(&node) && (0..self.world.nodes.len()).filter(gone).count() < ABSENT
    }

    async fn step(&mut self, step: &Step) {
        let count = self.world.nodes.len();
        match *step {
            Step::Wait(seconds) => self.pass(Duration::from_secs(seconds)).await,
            Step::Restart { node, away, cramped } => self.end_node(node % count, Some(away), cramped, false).await,
            Step::Move { node, away } => self.end_node(node % count, Some(away), false, true).await,
            Step::Vanish { node } => self.end_node(node % count, None, false, false).await,
            Step::Sleep { node, seconds } if self.takes(node % count) => {
                self.trouble(seconds);
                self.world.wires.sleep(node % count, true);
                self.later(seconds, Due::Wake(node % count));
            }
            Step::LoseLinks { node } => {
                self.trouble(0);
                self.world.wires.lose_links(node % count);
            }
            Step::Cut { a, b, seconds } if a % count != b % count => {
                self.trouble(seconds);
                self.world.wires.cut(a % count, b % count, true);
                self.later(seconds, Due::Heal(a % count, b % count));
            }
            Step::Leap(seconds) => {
                self.trouble(0);
                clock::leap(seconds);
            }
            Step::Open { node, lasting, listens } => self.open(node % count, lasting, listens).await,
            Step::Close { identity } => self.close(identity).await,
            Step::Connect { from, to, listened } => self.connect(from, to, listened),
            Step::Talk { connection, bytes } => self.talk(connection, bytes),
            Step::Sleep { .. } | Step::Cut { .. } => {}
        }
    }

    async fn end_node(&mut self, node: usize, away: Option<u64>, cramped: bool, moved: bool) {
        if !self.takes(node) {
            return;
        }
        self.trouble(away.unwrap_or(0));
        let now = self.now();
        self.note(|history| history.ended(node, now));
        self.world.kill(node).await;
        if let Some(away) = away {
            self.later(away, Due::Start { node, cramped, moved });
        }
    }

    async fn open(&mut self, node: usize, lasting: bool, listens: bool) {
        if !self.world.nodes[node].running {
            return;
        }
        let key = Arc::new(SigningKey::generate(&mut self.world.rng));
        let address = ApAddress::of(&key.verifying_key());
        if lasting {
            self.world.nodes[node].disk.name(address);
        }
        self.keys.push(key);
        let player = Player { node, address, lasting, listens, closed: false, spans: Vec::new() };
        let number = self.note(|history| {
            history.players.push(player);
            history.players.len() - 1
        });
        self.begin(number).await;
    }

    async fn begin(&mut self, number: usize) {
        let now = self.now();
        let (node, address, listens) = self.note(|history| {
            let player = &mut history.players[number];
            player.spans.push((now, None));
            (player.node, player.address, player.listens)
        });
        let network = &self.world.nodes[node].network;
        network.open(self.keys[number].clone(), Arc::new(Echo)).await;
        if listens {
            network.publish(address).await;
        }
    }

    /// Programs of identities that outlive a node's process are started with it.
    async fn reopen(&mut self, node: usize) {
        let again: Vec<usize> = self.note(|history| {
            let players = history.players.iter().enumerate();
            let again = players.filter(|(_, player)| player.node == node && player.lasting && !player.closed);
            again.map(|(number, _)| number).collect()
        });
        for number in again {
            self.begin(number).await;
        }
    }

    async fn close(&mut self, number: usize) {
        let now = self.now();
        let closed = self.note(|history| history.close(number, now));
        if let Some((node, address)) = closed {
            self.world.nodes[node].network.close(address).await;
        }
    }

    fn connect(&mut self, from: usize, to: usize, listened: bool) {
        let (now, history) = (self.now(), self.history.clone());
        let Some((number, node, own, far)) = self.note(|history| history.attempt(from, to, listened, now)) else {
            return;
        };
        let network = self.world.nodes[node].network.clone();
        let (began, connections) = (self.began, self.connections.clone());
        let port = if listened { 80 } else { 81 };
        tokio::spawn(async move {
            let answer = network.connect(own, 40_000, far, port).await;
            let ended = began.elapsed().as_millis() as u64;
            let note = |outcome| {
                let attempt: &mut Attempt = &mut history.lock().unwrap().attempts[number];
                (attempt.ended, attempt.outcome) = (Some(ended), Some(outcome));
            };
            match answer {
                Ok(stream) => {
                    note(Ok(()));
                    let (said_tx, said_rx) = mpsc::channel(8);
                    connections.lock().unwrap().push(said_tx);
                    converse(stream, said_rx, number, began, history).await;
                }
                Err(error) => note(Err(error)),
            }
        });
    }

    fn talk(&self, connection: usize, bytes: usize) {
        let connections = self.connections.lock().unwrap();
        if !connections.is_empty() {
            let _ = connections[connection % connections.len()].try_send(bytes);
        }
    }

    /// Everything ends; what is left then is written down.
    async fn finish(mut self, life: &Life) -> History {
        let waking: Vec<Due> = std::mem::take(&mut self.due).into_values().collect();
        for due in waking {
            self.happens(due).await;
        }
        self.pass(Duration::from_secs(1)).await;
        self.connections.lock().unwrap().clear();
        let count = self.note(|history| history.players.len());
        for number in 0..count {
            self.close(number).await;
            // One that lasts would have its spare paths for a week.
            let (node, address) = self.note(|history| (history.players[number].node, history.players[number].address));
            self.world.nodes[node].handle.removed(address).await;
        }
        sleep(ALL_OVER).await;
        let honest = life.nodes - life.hostile.len();
        for (index, node) in self.world.nodes.iter().enumerate().take(honest).filter(|(_, node)| node.running) {
            let load = node.handle.snapshot().await.map(|snapshot| snapshot.load);
            // Who keeps paths ready for the next identity is never without.
            let left = load.is_none_or(|load| self.world.settings.unborn == 0 && load.iter().sum::<usize>() > 0);
            if left || self.world.settings.unborn == 0 && node.counters.open_relays() > 0 {
                let relays = node.counters.open_relays();
                self.note(|history| history.left.push(format!("node {index}: {load:?}, {relays} relays")));
            }
        }
        self.note(|history| history.publications = self.world.reader.publications());
        std::mem::take(&mut self.history.lock().unwrap())
    }
}

/// Says what is wanted on a connection, and looks whether it comes back.
async fn converse(
    mut stream: Box<dyn Stream>,
    mut said_rx: mpsc::Receiver<usize>,
    attempt: usize,
    began: Instant,
    history: Arc<Mutex<History>>,
) {
    let mut at: u64 = 0;
    while let Some(bytes) = said_rx.recv().await {
        let begun = began.elapsed().as_millis() as u64;
        // Different everywhere in a connection's bytes, so that none may come twice, or from elsewhere.
        let sent: Vec<u8> = (at..at + bytes as u64).map(|n| (n ^ n >> 7 ^ n >> 15 ^ attempt as u64) as u8).collect();
        at += bytes as u64;
        let (mut got, mut have) = (vec![0; bytes], 0);
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let echo = async {
            let receive = async {
                while have < got.len() {
                    match read.read(&mut got[have..]).await? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        more => have += more,
                    }
                }
                Ok(())
            };
            tokio::try_join!(write.write_all(&sent), receive)
        };
        let came = timeout(ECHO_LIMIT, echo).await;
        let told = match came {
            _ if got[..have] != sent[..have] => Told::Wrong,
            Ok(Ok(_)) => Told::Echoed,
            Ok(Err(_)) => Told::Broken,
            Err(_) => Told::Silent,
        };
        let ended = began.elapsed().as_millis() as u64;
        history.lock().unwrap().talks.push(Talk { attempt, begun, ended, told });
        if told != Told::Echoed {
            return;
        }
    }
}
