//! When the router of this network is asked to forward the port, asked again, told that it need not any more, or left alone: a value, with
//! time as an argument. Whatever a router says is a stranger's word: what others could not use is not taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a router is asked: what is forgotten at a crash must not be forwarded for ever to whoever has the address then.
pub(super) const LEASE: Duration = Duration::from_secs(3600);

/// What is shorter counts as this: no router has this node ask without end.
const SHORTEST: Duration = Duration::from_secs(120);

/// The pause after a first failure, and the longest: each is twice the last. A router that does not do it today will hardly do it in an hour.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// What a router says that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    /// Where others come to it.
    pub(super) outside: SocketAddrV4,
    /// `None`: until it is told otherwise. Some routers know nothing else.
    pub(super) lasts: Option<Duration>,
}

/// Why no router forwards the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The computer has no way out by a router.
    #[error("this computer knows none")]
    NoRouter,
    /// Nothing came.
    #[error("it does not answer to UPnP, NAT-PMP or PCP, which may be switched off there")]
    Silent,
    /// It said no.
    #[error("it says no")]
    No,
    /// It said something else.
    #[error("what it says makes no sense")]
    Nonsense,
    /// Others have the ports.
    #[error("it gives others the ports that were asked for")]
    Taken,
    /// Nobody outside could come to it.
    #[error("it has no address of the open network itself: another router, or the provider, stands before it")]
    Behind,
}

/// What is to be done; the next is said when the answer to this one is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for a port outside that leads here; another may be given.
    Ask {
        /// Here.
        to: SocketAddrV4,
        /// There.
        outside: u16,
    },
    /// Tell the router that it need not any more, if it does.
    GiveUp,
}

#[derive(Debug, Clone, Copy)]
struct Stands {
    outside: SocketAddrV4,
    until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Where the port is to lead. `None`: nobody is to be asked.
    here: Option<SocketAddrV4>,
    stands: Option<Stands>,
    /// The answer is awaited.
    asked: bool,
    /// When it is time to ask.
    due: Option<Instant>,
    /// In a row.
    failures: u32,
    refused: Option<Refused>,
    gives_up: bool,
    stops: bool,
}

impl Lease {
    /// Where this computer is, as often as one likes.
    pub(super) fn at(&mut self, now: Instant, here: Option<SocketAddrV4>) {
        if here != self.here {
            self.here = here;
            self.begin_anew(now);
        }
    }

    /// This computer is in another network, whatever its address there. What stood is not given up: the router that would hear of it is
    /// another one.
    pub(super) fn moved(&mut self, now: Instant) {
        self.begin_anew(now);
    }

    fn begin_anew(&mut self, now: Instant) {
        let due = self.here.map(|_| now);
        *self = Self { here: self.here, due, stops: self.stops, ..Self::default() };
    }

    /// Nothing is asked for any more.
    pub(super) fn stop(&mut self) {
        self.stops = true;
        // What was under way may have come about.
        self.gives_up |= self.stands.take().is_some() || self.asked;
        self.asked = false;
    }

    /// The next step, if it is time for one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Step> {
        self.stands = self.stands.filter(|stands| now < stands.until);
        if self.asked {
            return None;
        }
        if std::mem::take(&mut self.gives_up) {
            return Some(Step::GiveUp);
        }
        let to = self.here.filter(|_| !self.stops)?;
        self.due.take_if(|due| *due <= now)?;
        self.asked = true;
        // The port that others know.
        Some(Step::Ask { to, outside: self.outside().unwrap_or(to).port() })
    }

    /// When [`Self::poll`] has something to say or something has ended, if nothing else happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let until = self.stands.map(|stands| stands.until);
        let due = self.due.filter(|_| !self.stops && !self.asked);
        due.into_iter().chain(until).min()
    }

    /// What became of [`Step::Ask`]. Of one that was asked elsewhere it says nothing.
    pub(super) fn answered(&mut self, now: Instant, answer: Result<Granted, Refused>) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        match answer.and_then(usable) {
            Ok(Granted { outside, lasts }) => {
                let lasts = lasts.unwrap_or(LEASE).clamp(SHORTEST, LEASE);
                self.stands = Some(Stands { outside, until: now + lasts });
                (self.due, self.failures, self.refused) = (Some(now + lasts / 2), 0, None);
            }
            Err(refused) => {
                // It forwards, and nobody can come that way.
                let leads_nowhere = answer.is_ok();
                self.stands = self.stands.filter(|_| !leads_nowhere);
                self.gives_up |= leads_nowhere;
                let (first, longest) = PAUSES;
                let pause = first.saturating_mul(1 << self.failures.min(16)).min(longest);
                (self.due, self.refused) = (Some(now + pause), Some(refused));
                self.failures += 1;
            }
        }
    }

    /// Where others come to this node, if a router says so.
    pub(super) fn outside(&self) -> Option<SocketAddrV4> {
        self.stands.map(|stands| stands.outside)
    }

    /// Why they do not.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

/// Only what others can use. That they can is found out by asking some of them, as ever.
fn usable(granted: Granted) -> Result<Granted, Refused> {
    match granted.outside {
        outside if outside.port() == 0 => Err(Refused::Nonsense),
        outside if is_open(IpAddr::V4(*outside.ip())) => Ok(granted),
        _ => Err(Refused::Behind),
    }
}

/// Whether an address is one of the open network.
pub(super) fn is_open(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_open_v4(ip),
        // All that has been given out.
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// What the register of special addresses (RFC 6890) does not name.
fn is_open_v4(ip: Ipv4Addr) -> bool {
    let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation();
    let [a, b, c, _] = ip.octets();
    let shared = (a == 100 && b & 0xc0 == 64) || (a == 198 && b & 0xfe == 18) || (a, b, c) == (192, 0, 0);
    // From 224 on: multicast, and what nobody has.
    !special && !shared && a != 0 && a < 224
}

#[cfg(test)]
mod tests;
