//! Whether a published identity is reached: visits from outside, told to whoever started the run.
//!
//! ```text
//!  published ── entry path stands? ── pause at random ── visit ── reached
//!                     ^                                    │
//!                     └────────────── pause ───────────────┘ not: what failed is said after a while, given up later
//! ```
//! The visitor is as anybody: a fresh identity each time, over paths of its own, by the record that others find. It asks for a
//! port on which nothing listens, so no program hears of it. "Refused" is the proof, since only who holds the key can say it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use phantom_ipc::hook::{About, Note};
use phantom_ipc::publish::Ports;
use phantom_proto::chance::exponential;
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::node::Work;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::arrivals::Arrivals;
use super::published::Published;
use crate::connections::Programs;
use crate::far::{ConnectError, Stream};
use crate::identity::ApIdentity;

/// How often it is seen whether the entry path stands: nothing leaves for that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The pause before the first visit, on average: one that always came right after the record would tell the entry node who it is.
const PAUSE: Duration = Duration::from_secs(10);

/// The pause after a visit that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// When somebody who waits deserves a word: services are found within half a minute, as a rule.
const LONG: Duration = Duration::from_secs(60);

/// When it is given up: a node that has just been started builds its first paths in less.
const TOO_LONG: Duration = Duration::from_secs(300);

/// How long a program that has been reached may take to listen before that is worth a word.
const STARTS: Duration = Duration::from_secs(5);

/// Where ports are taken from that nobody listens on, mostly: the dynamic ones.
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// What is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    NoPath,
    NotFound,
    NoAnswer,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Reached(Duration),
    NotYet(Why),
    Never(Why),
    /// The identity is reached, and nobody listens there on ports that were named.
    Idle(BTreeSet<u16>),
}

/// How an identity is visited.
#[async_trait]
trait Way: Send + Sync {
    /// Whether anybody could come: an entry path stands.
    async fn stands(&self) -> bool;
    /// One visit.
    async fn visit(&self) -> Result<(), ConnectError>;
    /// The ports that were named, and on which nothing listens for others.
    async fn idle(&self) -> BTreeSet<u16>;
    /// Tells whoever follows.
    async fn tell(&self, news: News);
}

/// Visits until it is reached or given up; `pause` goes before the first.
async fn look(way: &dyn Way, pause: Duration) {
    let begun = Instant::now();
    let (mut paused, mut said) = (false, false);
    loop {
        let why = if !way.stands().await {
            sleep(LOOK_EVERY).await;
            Why::NoPath
        } else if !paused {
            sleep(pause).await;
            paused = true;
            continue;
        } else {
            let why = match way.visit().await {
                Ok(()) => {
                    way.tell(News::Reached(begun.elapsed())).await;
                    return listened(way, begun + TOO_LONG).await;
                }
                Err(ConnectError::TimedOut) => Why::NoAnswer,
                Err(_) => Why::NotFound,
            };
            sleep(AGAIN).await;
            why
        };
        if begun.elapsed() >= TOO_LONG {
            return way.tell(News::Never(why)).await;
        }
        if begun.elapsed() >= LONG && !said {
            way.tell(News::NotYet(why)).await;
            said = true;
        }
    }
}

/// Sees whether somebody has listened on each port that was named, at one time or another. A visit to the port itself would say more, but
/// then the program would hear of it.
async fn listened(way: &dyn Way, until: Instant) {
    let mut idle = way.idle().await;
    while !idle.is_empty() && Instant::now() < until {
        sleep(LOOK_EVERY).await;
        let now = way.idle().await;
        idle.retain(|port| now.contains(port));
    }
    if !idle.is_empty() {
        way.tell(News::Idle(idle)).await;
    }
}

/// The visits to identities at which programs of one identity have published something.
pub(super) struct Visits {
    arrivals: Arc<Arrivals>,
    inside: Arc<dyn Programs>,
    published: Arc<Published>,
    notes: broadcast::Sender<Note>,
    /// On average.
    pause: Duration,
    running: Mutex<BTreeMap<ApAddress, JoinHandle<()>>>,
    /// Identities, and their names, of which nobody has wanted to know yet.
    held: Mutex<BTreeMap<ApAddress, String>>,
}

impl Visits {
    /// None yet. In a hurry nothing pauses.
    pub(super) fn new(
        arrivals: Arc<Arrivals>,
        inside: Arc<dyn Programs>,
        published: Arc<Published>,
        notes: broadcast::Sender<Note>,
        hurry: bool,
    ) -> Self {
        let pause = if hurry { Duration::ZERO } else { PAUSE };
        Self { arrivals, inside, published, notes, pause, running: Mutex::default(), held: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ApAddress, JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ApAddress, String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins as soon as anybody wants to know.
    pub(super) fn begin(&self, at: &ApIdentity) {
        self.held().insert(at.address(), at.phantom_name().to_string());
        self.look_for_those_who_listen();
    }

    /// Begins what nobody wanted to know before.
    pub(super) fn look_for_those_who_listen(&self) {
        if self.notes.receiver_count() > 0 {
            std::mem::take(&mut *self.held()).into_iter().for_each(|(at, name)| self.start(at, name));
        }
    }

    fn start(&self, at: ApAddress, name: String) {
        let mut running = self.running();
        if running.get(&at).is_some_and(|task| !task.is_finished()) {
            return;
        }
        let visit = Visit {
            at,
            name,
            arrivals: self.arrivals.clone(),
            inside: self.inside.clone(),
            published: self.published.clone(),
            notes: self.notes.clone(),
        };
        let pause = at_random(self.pause);
        running.insert(at, tokio::spawn(async move { look(&visit, pause).await }));
    }

    /// Ends those to an identity, or all.
    pub(super) fn end(&self, at: Option<ApAddress>) {
        self.held().retain(|address, _| at.is_some_and(|at| at != *address));
        self.running().retain(|address, task| {
            let stays = at.is_some_and(|at| at != *address);
            if !stays {
                task.abort();
            }
            stays
        });
    }
}

/// A pause as between events that know nothing of each other, at most five times the mean: somebody waits.
fn at_random(mean: Duration) -> Duration {
    let drawn = exponential(&mut crate::random(), mean.as_millis() as u64);
    Duration::from_millis(drawn).min(5 * mean)
}

/// As it is done.
struct Visit {
    at: ApAddress,
    name: String,
    arrivals: Arc<Arrivals>,
    inside: Arc<dyn Programs>,
    published: Arc<Published>,
    notes: broadcast::Sender<Note>,
}

/// What the visitor itself offers.
struct Nothing;

#[async_trait]
impl Programs for Nothing {
    async fn listens(&self, _: u16) -> bool {
        false
    }

    async fn serve(&self, _: ApAddress, _: u16, _: u16, _: Box<dyn Stream>) {}
}

/// Takes the visitor out of use, also when nobody waits for it any more.
struct Leaves(Arc<Arrivals>, ApAddress);

impl Drop for Leaves {
    fn drop(&mut self) {
        let (arrivals, visitor) = (self.0.clone(), self.1);
        tokio::spawn(async move { arrivals.network().close(visitor).await });
    }
}

#[async_trait]
impl Way for Visit {
    async fn stands(&self) -> bool {
        let Some(now) = self.arrivals.network().handle().snapshot().await else { return false };
        now.paths.iter().any(|(path, _)| path.work == Work::Serve && path.identity == Some(self.at))
    }

    async fn visit(&self) -> Result<(), ConnectError> {
        let network = self.arrivals.network();
        let key = Arc::new(SigningKey::generate(&mut crate::random()));
        let visitor = ApAddress::of(&key.verifying_key());
        let _leaves = Leaves(self.arrivals.clone(), visitor);
        network.open(key, Arc::new(Nothing)).await;
        match network.connect(visitor, rand::random_range(PORTS), self.at, self.quiet_port().await).await {
            // A program that has just begun to listen there.
            Ok(_) | Err(ConnectError::Refused) => {
                network.handle().seen(self.at).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn idle(&self) -> BTreeSet<u16> {
        let mut idle = BTreeSet::new();
        for (_, ports) in self.published.all().into_iter().filter(|(at, _)| *at == self.at) {
            match ports {
                Ports::One(port) if !self.inside.listens(port).await => drop(idle.insert(port)),
                _ => {}
            }
        }
        idle
    }

    async fn tell(&self, news: News) {
        // Whoever followed may be gone.
        let _ = self.notes.send(self.note(news).await);
    }
}

impl Visit {
    /// A port on which nothing listens.
    async fn quiet_port(&self) -> u16 {
        loop {
            let port = rand::random_range(PORTS);
            if !self.inside.listens(port).await {
                return port;
            }
        }
    }

    async fn note(&self, news: News) -> Note {
        let name = &self.name;
        let (about, text) = match news {
            News::Reached(after) => {
                let ports = self.ports().await;
                (
                    About::Reached,
                    format!("reachable at {name}, {ports} (visited from outside after {} s)", after.as_secs()),
                )
            }
            News::NotYet(why) => {
                (About::Hint, format!("not reachable yet at {name}: {}; it is tried again", self.cause(why).await))
            }
            News::Never(why) => (About::Unreached, format!("not reachable at {name}: {}", self.cause(why).await)),
            News::Idle(ports) => (About::Unreached, nobody_listens(name, &ports)),
        };
        Note::new(about, &text)
    }

    async fn listens(&self, port: u16, until: Instant) -> bool {
        while !self.inside.listens(port).await {
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
        true
    }

    /// What is published there, and what of it nobody listens on: also not after a program's start, which may take longer
    /// than a visit.
    async fn ports(&self) -> String {
        let (mut said, until) = (Vec::new(), Instant::now() + STARTS);
        for (_, ports) in self.published.all().into_iter().filter(|(at, _)| *at == self.at) {
            let idle = match ports {
                Ports::One(port) => !self.listens(port, until).await,
                Ports::All => false,
            };
            said.push(format!("{ports}{}", if idle { ", on which nothing listens for others yet" } else { "" }));
        }
        said.join("; ")
    }

    async fn cause(&self, why: Why) -> String {
        match why {
            Why::NoPath => {
                let snapshot = self.arrivals.network().handle().snapshot().await.unwrap_or_default();
                let waits = snapshot.waiting_for.map(|what| format!(", the daemon waits for {what}"));
                format!("no path for incoming connections stands{}; see `phantom status`", waits.unwrap_or_default())
            }
            Why::NotFound => "a visitor does not find it, or its entry nodes do not lead here".to_owned(),
            Why::NoAnswer => "a visitor had no answer in time".to_owned(),
        }
    }
}

/// Which ports nobody is answered on, and what helps.
fn nobody_listens(name: &str, ports: &BTreeSet<u16>) -> String {
    let listed: Vec<_> = ports.iter().map(u16::to_string).collect();
    let (word, them) = if listed.len() == 1 { ("port", "it") } else { ("ports", "them") };
    format!(
        "not reachable at {name}, {word} {}: nothing has listened on {them} for others in {} minutes; publish the port that the program \
         listens on, on 0.0.0.0 or [::]",
        listed.join(", "),
        TOO_LONG.as_secs() / 60
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Stands after a while, and answers visits as told, the last one for ever.
    struct Told {
        stands_at: Instant,
        answers: Mutex<VecDeque<Result<(), ConnectError>>>,
        visits: Mutex<Vec<Duration>>,
        /// What is idle at each look, the last one for ever.
        idle: Mutex<VecDeque<&'static [u16]>>,
        news: Mutex<Vec<News>>,
    }

    #[async_trait]
    impl Way for Told {
        async fn stands(&self) -> bool {
            Instant::now() >= self.stands_at
        }

        async fn visit(&self) -> Result<(), ConnectError> {
            self.visits.lock().unwrap().push(self.stands_at.elapsed());
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] }
        }

        async fn idle(&self) -> BTreeSet<u16> {
            let mut idle = self.idle.lock().unwrap();
            let now = if idle.len() > 1 { idle.pop_front() } else { idle.front().copied() };
            now.unwrap_or_default().iter().copied().collect()
        }

        async fn tell(&self, news: News) {
            self.news.lock().unwrap().push(news);
        }
    }

    async fn told(stands_after: u64, answers: &[Result<(), ConnectError>]) -> (Vec<News>, Vec<Duration>) {
        let stands_at = Instant::now() + Duration::from_secs(stands_after);
        let answers = Mutex::new(answers.iter().copied().collect());
        let (visits, idle, news) = Default::default();
        let way = Told { stands_at, answers, visits, idle, news };
        look(&way, Duration::from_secs(7)).await;
        (way.news.into_inner().unwrap(), way.visits.into_inner().unwrap())
    }

    /// It said "reachable" of a name whose port nobody listened on, and a program that was to end then went on for ever.
    #[tokio::test(start_paused = true)]
    async fn a_named_port_that_nobody_ever_listens_on_is_said() {
        let way = |looks: &[&'static [u16]]| Told {
            stands_at: Instant::now(),
            answers: Mutex::new([Ok(())].into()),
            visits: Mutex::default(),
            idle: Mutex::new(looks.iter().copied().collect()),
            news: Mutex::default(),
        };
        let idle = |way: Told| way.news.into_inner().unwrap().into_iter().nth(1);
        let begun = Instant::now();
        for looks in [&[&[][..]][..], &[&[80, 443], &[443], &[80]], &[&[80], &[]]] {
            let way = way(looks);
            look(&way, Duration::ZERO).await;
            assert_eq!(idle(way), None, "{looks:?}: each had its listener");
        }
        assert!(begun.elapsed() < LONG, "it is not looked at any longer");
        let way = way(&[&[80, 443, 8443], &[80, 443]]);
        look(&way, Duration::ZERO).await;
        assert!(begun.elapsed() >= TOO_LONG, "a program may take its time");
        assert_eq!(idle(way), Some(News::Idle([80, 443].into())));
        let said = nobody_listens("x.phantom", &[80].into());
        assert!(said.starts_with("not reachable at x.phantom, port 80: nothing has listened on it"), "{said}");
        assert!(nobody_listens("x.phantom", &[80, 443].into()).contains("ports 80, 443: nothing has listened on them"));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_comes_before_the_path_stands_and_the_pause_is_over() {
        let (news, visits) = told(20, &[Ok(())]).await;
        assert_eq!(visits.len(), 1);
        assert!(visits[0] >= Duration::from_secs(7) && visits[0] < Duration::from_secs(8), "{visits:?}");
        assert!(matches!(news[..], [News::Reached(after)] if after >= Duration::from_secs(27)), "{news:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_visit_that_fails_is_repeated_and_said_only_when_it_takes_long() {
        let unreachable = Err(ConnectError::Unreachable);
        let (news, visits) = told(0, &[unreachable, Err(ConnectError::TimedOut), Ok(())]).await;
        assert!(matches!(news[..], [News::Reached(_)]) && visits.len() == 3, "{news:?}");
        let (news, _) = told(70, &[unreachable, Ok(())]).await;
        assert!(matches!(news[..], [News::NotYet(Why::NoPath), News::Reached(_)]), "{news:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_with_the_last_reason() {
        let begun = Instant::now();
        let (news, visits) = told(0, &[Err(ConnectError::TimedOut), Err(ConnectError::Unreachable)]).await;
        assert_eq!(news, [News::NotYet(Why::NotFound), News::Never(Why::NotFound)]);
        assert!(begun.elapsed() < TOO_LONG + Duration::from_secs(60) && visits.len() < 40, "{}", visits.len());
        let (news, visits) = told(100_000, &[Ok(())]).await;
        assert_eq!(news, [News::NotYet(Why::NoPath), News::Never(Why::NoPath)]);
        assert!(visits.is_empty(), "{visits:?}");
    }

    #[test]
    fn pauses_are_at_random_and_bounded() {
        let all: Vec<Duration> = (0..1000).map(|_| at_random(PAUSE)).collect();
        assert!(all.iter().all(|pause| *pause <= 5 * PAUSE));
        let mean = all.iter().sum::<Duration>() / 1000;
        assert!(mean > PAUSE / 2 && mean < PAUSE * 2, "{mean:?}");
        assert_eq!(at_random(Duration::ZERO), Duration::ZERO);
    }
}
