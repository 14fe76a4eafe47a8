//! Asks the router of this network to forward this node's port to it, so that others can open links to a computer in a home: by PCP,
//! NAT-PMP or UPnP, whichever it speaks. What it says is one hint where this node is; whether others reach it there they are asked as ever
//! (docs/protocol.md, section 7.7).
//!
//! ```text
//!  whereabouts ── Here ──▶ keep ── Step ──▶ Asks (ways: the libraries) ── packets ──▶ router
//!       ▲                  │  ▲                      │
//!       └─── Forwarding ───┘  └── Granted, Refused ──┘        lease: when to do what, with time as an argument
//! ```

mod lease;
mod ways;

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{Config, Reachable};
use crate::netdb::Known;
use lease::{Granted, Lease, Step};

pub(crate) use lease::Refused;

/// How long all that one router is asked may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// How long a stop waits for a router to forget the port; it forgets it within the hour by itself.
const FORGETS_WITHIN: Duration = Duration::from_millis(1500);

/// Who asks routers: the libraries, and what tests have in their place.
#[async_trait]
trait Asks: Send + 'static {
    /// Has it forward a port outside to `to`, for [`lease::LEASE`]; `outside` if it can, or another.
    async fn ask(&mut self, to: SocketAddrV4, outside: u16) -> Result<Granted, Refused>;

    /// Has it forward none any more, if it does since it was asked.
    async fn give_up(&mut self);
}

/// Where this node is, for a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Here {
    /// What a router could forward a port to.
    pub(crate) at: Option<SocketAddrV4>,
    /// How often this computer has come into another network.
    pub(crate) moves: u32,
}

/// What a router could forward a port to, if this node has that address: who is in the open network already needs none, and on loopback is
/// no router.
pub(crate) fn behind(addr: SocketAddr) -> Option<SocketAddrV4> {
    let SocketAddr::V4(addr) = SocketAddr::new(addr.ip().to_canonical(), addr.port()) else { return None };
    // 100.64.0.0/10, where a provider's own router may do it (RFC 6598).
    let [a, b, ..] = addr.ip().octets();
    (addr.ip().is_private() || (a == 100 && b & 0xc0 == 64)).then_some(addr)
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Forwarding {
    /// Nobody is asked: why.
    Left(&'static str),
    /// Nobody was asked yet.
    #[default]
    Waits,
    /// Others come to `here` by that address.
    Forwards { outside: SocketAddrV4, here: Here },
    /// No router does it.
    Refused(Refused),
}

impl Forwarding {
    /// Where others come to a node that is here, as far as a router says.
    pub(crate) fn outside(self, to: Here) -> Option<SocketAddrV4> {
        match self {
            Self::Forwards { outside, here } => Some(outside).filter(|_| here == to),
            _ => None,
        }
    }

    /// For people.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Left(why) => format!("no router is asked to forward the port: {why}"),
            Self::Waits => "no router was asked yet to forward the port".to_owned(),
            Self::Forwards { outside, .. } => format!("the router forwards port {} to this computer", outside.port()),
            Self::Refused(Refused::NoRouter) => format!("no router here forwards ports: {}", Refused::NoRouter),
            Self::Refused(why) => format!("the router here does not forward the port: {why}"),
        }
    }
}

/// Why no router is to be asked, whatever the network: the operator has said what makes it needless.
fn left(config: &Config) -> Option<&'static str> {
    match config {
        Config { ask_router: false, .. } => Some("the configuration says so (`ask_router`)"),
        Config { reachable: Reachable::Yes | Reachable::No, .. } => Some("the configuration says `reachable`"),
        Config { advertise: Some(_), .. } => Some("the configuration says the address outside (`advertise`)"),
        Config { listen, .. } if listen.ip().is_loopback() => Some("this node listens on loopback"),
        _ => None,
    }
}

/// Whether others are connected to whom it would matter: not in a network of one's own, which has no outside.
fn is_in_the_open(known: &Known) -> bool {
    let connected = known.nodes.iter().filter(|record| known.connected_to.contains(&record.contact.node_id()));
    connected.into_iter().any(|record| lease::is_open(record.contact.addr.ip()))
}

/// The router of this node's network, as far as this node asks it for something.
pub(crate) struct Router {
    forwarding_rx: watch::Receiver<Forwarding>,
    stop_tx: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Router {
    /// Asks, as soon as that helps and for as long as this node runs; `here_rx` says where it is.
    pub(crate) fn start(config: &Config, here_rx: watch::Receiver<Here>, known_rx: watch::Receiver<Known>) -> Self {
        let left = left(config);
        let (forwarding_tx, forwarding_rx) = watch::channel(left.map_or(Forwarding::Waits, Forwarding::Left));
        let (stop_tx, stop_rx) = watch::channel(false);
        let task = left.is_none().then(|| {
            let keeper = Keeper { asks: ways::Ways::default(), here_rx, forwarding_tx, stop_rx };
            tokio::spawn(keeper.run(known_rx))
        });
        Self { forwarding_rx, stop_tx, task: Mutex::new(task) }
    }

    /// How it stands.
    pub(crate) fn forwarding(&self) -> Forwarding {
        *self.forwarding_rx.borrow()
    }

    /// The same, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Forwarding> {
        self.forwarding_rx.clone()
    }

    /// The port is wanted no more. Comes back when the router knows, or does not answer.
    pub(crate) async fn stop(&self) {
        self.stop_tx.send_replace(true);
        if let Some(task) = self.task.lock().await.take() {
            let _ = timeout(FORGETS_WITHIN, task).await;
        }
    }
}

/// The task: does what [`Lease`] says.
struct Keeper<A> {
    asks: A,
    here_rx: watch::Receiver<Here>,
    forwarding_tx: watch::Sender<Forwarding>,
    stop_rx: watch::Receiver<bool>,
}

impl<A: Asks> Keeper<A> {
    async fn run(self, mut known_rx: watch::Receiver<Known>) {
        let mut stop_rx = self.stop_rx.clone();
        tokio::select! {
            known = known_rx.wait_for(is_in_the_open) => drop(known),
            _ = stop_rx.changed() => return,
        }
        self.keep().await;
    }

    async fn keep(mut self) {
        let (mut lease, mut here) = (Lease::default(), Here::default());
        loop {
            here = self.look(&mut lease, here);
            let step = lease.poll(Instant::now());
            self.tell(&lease, here);
            match step {
                Some(Step::Ask { to, outside }) => {
                    let mut stop_rx = self.stop_rx.clone();
                    let answer = tokio::select! {
                        answer = timeout(ANSWERS_WITHIN, self.asks.ask(to, outside)) => answer,
                        _ = stop_rx.wait_for(|stops| *stops) => continue,
                    };
                    // What has changed meanwhile comes first: the answer may be one from elsewhere.
                    here = self.look(&mut lease, here);
                    lease.answered(Instant::now(), answer.unwrap_or(Err(Refused::Silent)));
                }
                Some(Step::GiveUp) => {
                    let _ = timeout(FORGETS_WITHIN, self.asks.give_up()).await;
                }
                None if *self.stop_rx.borrow() => return,
                None => {
                    if !self.wait(lease.deadline()).await {
                        return;
                    }
                }
            }
        }
    }

    /// What has changed.
    fn look(&mut self, lease: &mut Lease, before: Here) -> Here {
        let (now, here) = (Instant::now(), *self.here_rx.borrow_and_update());
        if here.moves != before.moves {
            lease.moved(now);
        }
        lease.at(now, here.at);
        if *self.stop_rx.borrow_and_update() {
            lease.stop();
        }
        here
    }

    /// For something to do; false when there will be nothing any more.
    async fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => true,
            changed = self.here_rx.changed() => changed.is_ok(),
            changed = self.stop_rx.changed() => changed.is_ok(),
        }
    }

    /// Others, and the log once for each change: no address, and no word of what is tried again and again.
    fn tell(&self, lease: &Lease, here: Here) {
        let forwarding = match (lease.outside(), lease.refused(), here.at) {
            (Some(outside), ..) => Forwarding::Forwards { outside, here },
            (None, Some(refused), _) => Forwarding::Refused(refused),
            (None, None, Some(_)) => Forwarding::Waits,
            (None, None, None) => Forwarding::Left("this computer is in no network that a router would lead into"),
        };
        let before = self.forwarding_tx.send_replace(forwarding);
        let is_forwarded = |one: Forwarding| matches!(one, Forwarding::Forwards { .. });
        match (is_forwarded(before), is_forwarded(forwarding)) {
            (false, true) => tracing::info!("the router of this network forwards a port to this node"),
            (true, false) => tracing::info!("the router of this network forwards no port to this node any more"),
            _ if before != forwarding => tracing::debug!(?forwarding, "the router of this network"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
