//! Who may come in while unproven: bounds on connections in total, per source, and on visitors of the web face (I7).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phantom_proto::ident::{NodeId, Operator, Spread};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::records::KEY_LIMIT;

/// Longest wait for any one step of a handshake: TCP, TLS, the request, the proof. A slow line needs about one second.
const STEP: Duration = Duration::from_secs(10);

/// Handshakes at once. Each costs about 40 KiB and a millisecond: a thousand is 40 MB and one second of one core.
const STRANGERS: usize = 1024;

/// Of those, from one source: enough for a household behind one address, an eighth of the whole for one attacker.
const STRANGERS_PER_SOURCE: usize = 128;

/// Visitors of the web face who stay on: a small web server's number of connections.
const VISITORS: usize = 512;

/// Longest stay of a visitor, for a large file on a slow line.
const VISIT: Duration = Duration::from_secs(600);

/// Links that others may have open to a node: two for each of ten thousand tunnels, and room for standing connections and the
/// database.
const LINKS: usize = 24_000;

/// Bounds on what strangers can make a node spend, and on a link's life.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for any one step: TCP, TLS, the request, the proof.
    pub step: Duration,
    /// Connections that have not proven anything yet, in total: one more takes the place of another.
    pub strangers: usize,
    /// The same per source address (/64 for IPv6), visitors included.
    pub strangers_per_source: usize,
    /// Connections that turned out to be web visitors, and are kept open for more requests.
    pub visitors: usize,
    /// Longest stay of such a visitor.
    pub visit: Duration,
    /// Links that other nodes opened, in total.
    pub links: usize,
    /// Bytes that this side sends on a link before it ends; not more than its key may seal.
    pub key_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step: STEP,
            strangers: STRANGERS,
            strangers_per_source: STRANGERS_PER_SOURCE,
            visitors: VISITORS,
            visit: VISIT,
            links: LINKS,
            key_bytes: KEY_LIMIT,
        }
    }
}

/// The doorkeeper.
///
/// A connection holds one of `strangers` until it is a link, or until its first request shows a web visitor. Visitors have a
/// number of their own, so that a crowd of them (or a thousand slow readers) keeps no node out. When all places of strangers are taken, the
/// oldest goes of the source that has most, in the network that has most: silent ones of some addresses keep nobody out either.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    strangers: Arc<Mutex<Strangers>>,
    visitors: Arc<Semaphore>,
    links: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_source: usize,
}

impl Doorkeeper {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            strangers: Arc::new(Mutex::new(Strangers { most: limits.strangers, ..Strangers::default() })),
            visitors: Arc::new(Semaphore::new(limits.visitors)),
            links: Arc::new(Semaphore::new(limits.links)),
            sources: Arc::default(),
            per_source: limits.strangers_per_source,
        }
    }

    /// Lets a connection in. `None`: too many of its source.
    // protocol: L27
    pub(super) fn enter(&self, ip: IpAddr) -> Option<Admission> {
        let source = Source::enter(&self.sources, ip, self.per_source)?;
        let (number, out) = lock(&self.strangers).enter(ip);
        let (strangers, visitors) = (self.strangers.clone(), self.visitors.clone());
        Some(Admission { number, out, strangers, visitor: None, visitors, _source: source })
    }

    /// A place for one more link, free again when it is dropped. `None`: too many.
    // protocol: L28
    pub(super) fn link(&self) -> Option<OwnedSemaphorePermit> {
        self.links.clone().try_acquire_owned().ok()
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that have proven nothing yet, by number in the order in which they came.
#[derive(Debug, Default)]
struct Strangers {
    most: usize,
    last: u64,
    standing: BTreeMap<u64, Standing>,
}

#[derive(Debug)]
struct Standing {
    network: Operator,
    site: IpAddr,
    out: CancellationToken,
}

impl Strangers {
    /// One more. Of too many one goes.
    fn enter(&mut self, ip: IpAddr) -> (u64, CancellationToken) {
        // No node is known yet: of such each is of its network.
        let network = Operator::of(Spread::Prefixes, NodeId([0; 32]), ip.to_canonical());
        let (site, out) = (site(ip), CancellationToken::new());
        self.last += 1;
        self.standing.insert(self.last, Standing { network, site, out: out.clone() });
        if self.standing.len() > self.most
            && let Some(gone) = self.goes()
            && let Some(standing) = self.standing.remove(&gone)
        {
            standing.out.cancel();
        }
        (self.last, out)
    }

    /// The oldest of the source that has most, of those in the network that has most.
    fn goes(&self) -> Option<u64> {
        let (mut networks, mut sites) = (HashMap::<_, usize>::new(), HashMap::<_, usize>::new());
        for standing in self.standing.values() {
            *networks.entry(standing.network).or_default() += 1;
            *sites.entry(standing.site).or_default() += 1;
        }
        let size = |standing: &Standing| Some((networks.get(&standing.network)?, sites.get(&standing.site)?));
        let by_age = self.standing.iter().rev();
        by_age.max_by_key(|(_, standing)| size(standing)).map(|(number, _)| *number)
    }
}

/// A connection's right to be there; ends when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    number: u64,
    out: CancellationToken,
    strangers: Arc<Mutex<Strangers>>,
    visitor: Option<OwnedSemaphorePermit>,
    visitors: Arc<Semaphore>,
    _source: Source,
}

impl Admission {
    /// Ends when the connection must make room for another.
    pub(super) fn out(&self) -> CancellationToken {
        self.out.clone()
    }

    /// The connection turned out to be a web visitor. False: there are too many to keep it open after its answer.
    // protocol: L29
    pub(super) fn visit(&mut self) -> bool {
        if let (None, Ok(permit)) = (&self.visitor, self.visitors.clone().try_acquire_owned()) {
            self.visitor = Some(permit);
            lock(&self.strangers).standing.remove(&self.number);
        }
        self.is_visitor()
    }

    /// Whether it counts as a visitor.
    pub(super) fn is_visitor(&self) -> bool {
        self.visitor.is_some()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.strangers).standing.remove(&self.number);
    }
}

/// One of the connections from a source address.
#[derive(Debug)]
struct Source {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    site: IpAddr,
}

impl Source {
    fn enter(counts: &Arc<Mutex<HashMap<IpAddr, usize>>>, ip: IpAddr, limit: usize) -> Option<Self> {
        let site = site(ip);
        {
            // No more entries than connections, of which there is a limit.
            let mut counts = lock(counts);
            let count = counts.get(&site).copied().unwrap_or_default();
            if count >= limit {
                return None;
            }
            counts.insert(site, count + 1);
        }
        Some(Self { counts: counts.clone(), site })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        match counts.get_mut(&self.site) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.site)),
        }
    }
}

/// What one customer of an Internet provider has: an IPv4 address or a whole /64.
fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorkeeper(strangers: usize, per_source: usize, visitors: usize) -> Doorkeeper {
        Doorkeeper::new(&Limits { strangers, strangers_per_source: per_source, visitors, ..Limits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let doorkeeper = doorkeeper(10, 2, 10);
        let _one = doorkeeper.enter(ip("192.0.2.1")).unwrap();
        let two = doorkeeper.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(doorkeeper.enter(ip("192.0.2.1")).is_none());
        let _other = doorkeeper.enter(ip("192.0.2.2")).unwrap();
        drop(two);
        assert!(doorkeeper.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn a_source_of_ipv6_is_a_64() {
        let doorkeeper = doorkeeper(10, 1, 10);
        let _one = doorkeeper.enter(ip("2001:db8::1")).unwrap();
        assert!(doorkeeper.enter(ip("2001:db8::ffff:1")).is_none());
        assert!(doorkeeper.enter(ip("2001:db8:0:1::1")).is_some());
    }

    /// Whether one that was let in must go.
    fn is_out(admission: &Admission) -> bool {
        admission.out().is_cancelled()
    }

    #[test]
    fn refusal_leaves_no_trace() {
        let doorkeeper = doorkeeper(10, 1, 1);
        let one = doorkeeper.enter(ip("192.0.2.1")).unwrap();
        assert!((0..100).all(|_| doorkeeper.enter(ip("192.0.2.1")).is_none()));
        drop(one);
        assert!(lock(&doorkeeper.sources).is_empty() && lock(&doorkeeper.strangers).standing.is_empty());
    }

    /// Eight addresses with an eighth of all places each shut everybody out before, members among them.
    // protocol: L27
    #[test]
    fn silent_ones_of_few_sources_keep_nobody_out() {
        let doorkeeper = doorkeeper(1024, 128, 1);
        let crowd: Vec<_> =
            (0..1024).map(|n| doorkeeper.enter(IpAddr::from([192, 0, 2, (n % 8) as u8])).unwrap()).collect();
        assert!(!crowd.iter().any(is_out));
        let others: Vec<_> = (0..200).map(|n| doorkeeper.enter(IpAddr::from([10, n, 0, 1])).unwrap()).collect();
        assert_eq!(crowd.iter().take_while(|one| is_out(one)).count(), 200, "the oldest of the crowd");
        assert_eq!(crowd.iter().filter(|one| is_out(one)).count(), 200);
        // The crowd goes on, from new addresses of its network too, and takes places of its own.
        let again: Vec<_> = (0..250).map(|n| doorkeeper.enter(IpAddr::from([192, 0, 3, n])).unwrap()).collect();
        assert!(!others.iter().any(is_out) && !again.iter().any(is_out));
        assert_eq!(lock(&doorkeeper.strangers).standing.len(), 1024);
        drop((crowd, others, again));
        assert!(lock(&doorkeeper.strangers).standing.is_empty());
    }

    /// Web visitors make room for handshakes; those beyond the limit keep their place and are to be sent away.
    #[test]
    fn visitors_keep_no_node_out() {
        let doorkeeper = doorkeeper(1, 5, 1);
        let mut visitor = doorkeeper.enter(ip("192.0.2.1")).unwrap();
        assert!(visitor.visit() && visitor.visit() && visitor.is_visitor());
        let mut second = doorkeeper.enter(ip("192.0.2.2")).unwrap();
        assert!(!second.visit() && !second.is_visitor());
        assert!(!is_out(&visitor) && !is_out(&second));
        let third = doorkeeper.enter(ip("192.0.2.3")).unwrap();
        assert!(is_out(&second) && !is_out(&visitor) && !is_out(&third));
        drop(visitor);
        let mut fourth = doorkeeper.enter(ip("192.0.2.4")).unwrap();
        assert!(fourth.visit());
    }
}
