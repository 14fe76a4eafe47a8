//! Who may come in while unproven: bounds on connections in total, per source, and on visitors of the web face (I7).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Bounds on what strangers can make a node spend.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for any one step: TCP, TLS, the request, the proof.
    pub step: Duration,
    /// Connections that have not proven anything yet, in total.
    pub strangers: usize,
    /// The same per source address (/64 for IPv6), visitors included.
    pub strangers_per_source: usize,
    /// Connections that turned out to be web visitors, and are kept open for more requests.
    pub visitors: usize,
    /// Longest stay of such a visitor.
    pub visit: Duration,
    /// Links that other nodes opened, in total.
    pub links: usize,
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
        }
    }
}

/// The doorkeeper.
///
/// A connection holds one of `strangers` until it is a link, or until its first request shows a web visitor. Visitors have a
/// number of their own, so that a crowd of them (or a thousand slow readers) keeps no node out.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    strangers: Arc<Semaphore>,
    visitors: Arc<Semaphore>,
    links: Arc<Semaphore>,
    sources: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_source: usize,
}

impl Doorkeeper {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            visitors: Arc::new(Semaphore::new(limits.visitors)),
            links: Arc::new(Semaphore::new(limits.links)),
            sources: Arc::default(),
            per_source: limits.strangers_per_source,
        }
    }

    /// Lets a connection in. `None`: too many.
    // protocol: L27
    pub(super) fn enter(&self, ip: IpAddr) -> Option<Admission> {
        let source = Source::enter(&self.sources, ip, self.per_source)?;
        let permit = self.strangers.clone().try_acquire_owned().ok()?;
        Some(Admission { permit, visitor: false, visitors: self.visitors.clone(), _source: source })
    }

    /// A place for one more link, free again when it is dropped. `None`: too many.
    // protocol: L28
    pub(super) fn link(&self) -> Option<OwnedSemaphorePermit> {
        self.links.clone().try_acquire_owned().ok()
    }
}

/// A connection's right to be there; ends when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    permit: OwnedSemaphorePermit,
    visitor: bool,
    visitors: Arc<Semaphore>,
    _source: Source,
}

impl Admission {
    /// The connection turned out to be a web visitor. False: there are too many to keep it open after its answer.
    // protocol: L29
    pub(super) fn visit(&mut self) -> bool {
        if let (false, Ok(permit)) = (self.visitor, self.visitors.clone().try_acquire_owned()) {
            (self.permit, self.visitor) = (permit, true);
        }
        self.visitor
    }

    /// Whether it counts as a visitor.
    pub(super) fn is_visitor(&self) -> bool {
        self.visitor
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
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
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

    #[test]
    fn refusal_leaves_no_trace() {
        let doorkeeper = doorkeeper(1, 5, 1);
        let one = doorkeeper.enter(ip("192.0.2.1")).unwrap();
        for n in 0..100 {
            assert!(doorkeeper.enter(IpAddr::from([192, 0, 2, n])).is_none());
        }
        drop(one);
        assert!(doorkeeper.sources.lock().unwrap().is_empty());
        assert!(doorkeeper.enter(ip("192.0.2.9")).is_some());
    }

    /// Web visitors make room for handshakes; those beyond the limit keep their place and are to be sent away.
    #[test]
    fn visitors_keep_no_node_out() {
        let doorkeeper = doorkeeper(1, 5, 1);
        let mut visitor = doorkeeper.enter(ip("192.0.2.1")).unwrap();
        assert!(doorkeeper.enter(ip("192.0.2.2")).is_none());
        assert!(visitor.visit() && visitor.visit() && visitor.is_visitor());
        let mut second = doorkeeper.enter(ip("192.0.2.2")).unwrap();
        assert!(!second.visit() && !second.is_visitor());
        assert!(doorkeeper.enter(ip("192.0.2.3")).is_none());
        drop(visitor);
        assert!(second.visit());
        assert!(doorkeeper.enter(ip("192.0.2.3")).is_some());
    }
}
