//! The reflector: decides about every packet of a phantom namespace, as a value. Packet and time in, action out.
//!
//! ```text
//!   program's kernel TCP             reflector             gate's kernel TCP
//!   own:near  ->  far     ---- P ----  ==  ---- G ----   flow:near  ->  home
//! ```
//! Only addresses and ports differ between the two sides; sequence numbers, options and payload are the kernels' own.
//! The address `flow` on side G carries the flow's number, so that accept() there tells whose connection it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use phantom_proto::ident::ApAddress;
use serde::{Deserialize, Serialize};

use super::aliases::{self, Aliases, OWN_IPV4, RESOLVER};
use super::packet::{self, Obstacle, Segment, View};

/// Flows at one time; each costs about 300 bytes, so the table stays below 20 MB.
pub(super) const MAX_FLOWS: usize = 65_536;

/// SYNs that wait for the far end at one time; each may keep a packet and a task of the daemon.
pub(super) const MAX_HELD: usize = 4_096;

/// A SYN held is worth a kilobyte at most: header, options, and what fast open sends.
const MAX_SYN: usize = 2_048;

/// Programs that try both families begin the second attempt at most this long after the first (RFC 8305).
pub(crate) const RACE: Duration = Duration::from_secs(2);

/// Kernels retransmit a SYN at least every 64 s and give up after 127 s.
const HELD_IDLE: Duration = Duration::from_secs(150);

/// Open connections show life every few minutes by keep-alives of the gate's socket (see `splice`).
const OPEN_IDLE: Duration = Duration::from_secs(2 * 3600);

/// A connection that is closed on both sides has this long for retransmissions.
const CLOSED_IDLE: Duration = Duration::from_secs(10);

/// An inbound connection whose first packet does not come.
const EXPECTED_IDLE: Duration = Duration::from_secs(30);

/// Where DNS is asked.
pub(super) const DNS_PORT: u16 = 53;

/// A DNS question over UDP is smaller; longer ones are dropped.
const MAX_QUESTION: usize = 1_232;

/// The two wires of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The phantom namespace, where programs are.
    Program,
    /// The gate's own namespace.
    Gate,
}

/// Number of a flow; 24 bits, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowId(u32);

const FLOW_ID_MAX: u32 = 0xff_fffe;

/// The gate's own addresses in its namespace.
pub(super) const HOME_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(super) const HOME_V4: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const FLOW_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xf, 0, 0, 0, 0, 0, 0);
const FLOW_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

impl FlowId {
    /// The address that stands for the flow in the gate's namespace.
    pub(super) fn address(self, v4: bool) -> IpAddr {
        if v4 {
            Ipv4Addr::from(u32::from(FLOW_V4) | self.0).into()
        } else {
            Ipv6Addr::from(u128::from(FLOW_V6) | u128::from(self.0)).into()
        }
    }

    /// Reads the number back, also from an IPv4 address mapped into IPv6.
    pub(super) fn from_address(address: IpAddr) -> Option<Self> {
        let number = match address.to_canonical() {
            IpAddr::V4(address) => u32::from(address) ^ u32::from(FLOW_V4),
            IpAddr::V6(address) => u32::try_from(u128::from(address) ^ u128::from(FLOW_V6)).ok()?,
        };
        (1..=FLOW_ID_MAX).contains(&number).then_some(Self(number))
    }
}

/// A program wants a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) flow: FlowId,
    /// None for the gate's own resolver.
    pub(super) destination: Option<ApAddress>,
    pub(super) port: u16,
    pub(super) source_port: u16,
}

/// A program asks a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) message: Vec<u8>,
}

/// What to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Drop,
    /// The frame, rewritten in place, goes out here.
    Forward(Side),
    /// This frame goes back to where the packet came from.
    Answer(Vec<u8>),
    /// The same, and once more a moment later: a kernel whose socket is busy takes an ICMP error for a hint only.
    AnswerTwice(Vec<u8>),
    /// The same, when the daemon has heard of it: a program tried this address, which is none of the network.
    Outside(IpAddr, Vec<u8>),
    /// The daemon has to find out what the far end says.
    Connect(Connect),
    /// The daemon has to answer a DNS message.
    Resolve(Question),
}

/// What the far end said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused,
    Unreachable,
    Prohibited,
    Silent,
}

enum State {
    /// The SYN waits here, as a frame, until the far end has answered.
    Held(Vec<u8>),
    /// The second attempt of a program that tries both families; this flow is the first, over IPv6. Both mean one far end,
    /// and won by IPv4 they would leave the program with an address that others cannot use. Whether it is still wanted
    /// once the first is decided, a copy of the SYN tells.
    Second(FlowId),
    /// The far end did not answer: this SYN and its copies are swallowed.
    Silent,
    /// Both kernels talk.
    Open,
    /// The gate is about to connect from its side.
    Expected,
}

struct Flow {
    /// The program's port; also the flow's port on the gate's side.
    near_port: u16,
    /// The other end, as the program sees it.
    far: SocketAddr,
    /// The gate's own port on its side.
    home_port: u16,
    /// First sequence number of the program, to tell a copy of a SYN from a new connection.
    first: u32,
    state: State,
    /// FIN seen from the program, and from the gate.
    finished: (bool, bool),
    last: Instant,
}

/// An open connection, as another process goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFlow {
    id: u32,
    near_port: u16,
    far: SocketAddr,
    home_port: u16,
    first: u32,
    finished: (bool, bool),
}

/// Addresses that a reflector works with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    /// The identity's address.
    pub(super) address: ApAddress,
    /// Port on which the gate accepts in its namespace.
    pub(super) listener: u16,
}

/// The table of flows of one gate.
pub(super) struct Reflector {
    config: Config,
    aliases: Arc<Mutex<Aliases>>,
    flows: HashMap<FlowId, Flow>,
    by_ends: HashMap<(u16, SocketAddr), FlowId>,
    /// To each end over IPv6, the newest attempt that is held, and since when.
    attempts: HashMap<SocketAddr, (FlowId, Instant)>,
    held: usize,
    next: u32,
}

impl Reflector {
    /// An empty table.
    pub(super) fn new(config: Config, aliases: Arc<Mutex<Aliases>>) -> Self {
        let (flows, by_ends, attempts) = Default::default();
        Self { config, aliases, flows, by_ends, attempts, held: 0, next: 1 }
    }

    /// The connections that are open. What waits for the far end does not count: its program's kernel asks again.
    pub(super) fn open_flows(&self) -> Vec<KeptFlow> {
        let open = self.flows.iter().filter(|(_, flow)| matches!(flow.state, State::Open));
        let kept = |(id, flow): (&FlowId, &Flow)| KeptFlow {
            id: id.0,
            near_port: flow.near_port,
            far: flow.far,
            home_port: flow.home_port,
            first: flow.first,
            finished: flow.finished,
        };
        open.map(kept).collect()
    }

    /// Takes over what another process has kept, before anything else.
    pub(super) fn go_on(&mut self, now: Instant, kept: &[KeptFlow]) {
        for flow in kept.iter().filter(|flow| (1..=FLOW_ID_MAX).contains(&flow.id)).take(MAX_FLOWS) {
            let KeptFlow { id, near_port, far, home_port, first, finished } = *flow;
            self.flows
                .insert(FlowId(id), Flow { near_port, far, home_port, first, state: State::Open, finished, last: now });
            self.by_ends.insert((near_port, far), FlowId(id));
        }
    }

    /// Decides about one frame (virtio header and IP packet) that came from `side`.
    pub(super) fn handle(&mut self, now: Instant, side: Side, frame: &mut [u8]) -> Action {
        let Some(view) = packet::parse(frame) else { return Action::Drop };
        match (side, view.protocol) {
            (Side::Gate, packet::TCP) => self.gate_segment(now, frame, &view),
            (Side::Program, packet::TCP) if self.is_own(view.source) => self.program_segment(now, frame, &view),
            (Side::Program, packet::UDP) if self.is_own(view.source) => program_datagram(frame, &view),
            _ => Action::Drop,
        }
    }

    /// Carries out what the far end said about a held SYN: at most one frame, and where it goes.
    pub(super) fn verdict(&mut self, now: Instant, id: FlowId, verdict: Verdict) -> Option<(Side, Action)> {
        let home = self.config.listener;
        let flow = self.flows.get_mut(&id)?;
        let State::Held(syn) = &mut flow.state else { return None };
        let mut syn = std::mem::take(syn);
        self.held -= 1;
        no_longer_held(&mut self.attempts, flow.far, id);
        flow.last = now;
        let view = packet::parse(&syn)?;
        match verdict {
            Verdict::Accepted => {
                flow.state = State::Open;
                flow.home_port = home;
                let (source, destination) = flow.gate_ends(id);
                packet::rewrite(&mut syn, &view, source, destination);
                return Some((Side::Gate, Action::Answer(syn)));
            }
            Verdict::Silent => {
                flow.state = State::Silent;
                return None;
            }
            _ => {}
        }
        self.remove(id);
        let answer = match verdict {
            Verdict::Refused => Action::Answer(packet::reset(&packet::segment(&syn, &view)?)),
            Verdict::Prohibited => Action::AnswerTwice(packet::unreachable(&syn, &view, Obstacle::Prohibited)),
            _ => Action::AnswerTwice(packet::unreachable(&syn, &view, Obstacle::Host)),
        };
        Some((Side::Program, answer))
    }

    /// Prepares a connection from the gate to the program's port `near_port`, which will see it come from `far`.
    /// None if the table is full or the two ends are connected already.
    pub(super) fn expect(&mut self, now: Instant, far: SocketAddr, near_port: u16) -> Option<FlowId> {
        if self.by_ends.contains_key(&(near_port, far)) {
            return None;
        }
        self.insert(now, State::Expected, near_port, far, 0)
    }

    /// Forgets a flow; its two ends learn it by resets when they next say something.
    pub(super) fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_ends.remove(&(flow.near_port, flow.far));
            no_longer_held(&mut self.attempts, flow.far, id);
            // A verdict has taken the SYN out already: then it no longer counts as held.
            self.held -= usize::from(matches!(&flow.state, State::Held(syn) if !syn.is_empty()));
        }
    }

    /// Forgets what has been idle for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let old: Vec<FlowId> = self.flows.iter().filter(|(_, flow)| flow.is_over(now)).map(|(id, _)| *id).collect();
        for id in old {
            self.remove(id);
        }
    }

    /// Flows in the table.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.flows.len(), self.by_ends.len());
        assert!(self.attempts.values().all(|(id, _)| matches!(self.flows[id].state, State::Held(_))));
        assert_eq!(self.held, self.flows.values().filter(|f| matches!(f.state, State::Held(_))).count());
        self.flows.len()
    }

    fn is_own(&self, source: IpAddr) -> bool {
        source == IpAddr::V6(self.config.address.ipv6()) || source == IpAddr::V4(OWN_IPV4)
    }

    fn insert(&mut self, now: Instant, state: State, near_port: u16, far: SocketAddr, first: u32) -> Option<FlowId> {
        let is_held = matches!(state, State::Held(_));
        if self.flows.len() >= MAX_FLOWS || (is_held && self.held >= MAX_HELD) {
            return None;
        }
        // Ends soon: the table holds far fewer flows than there are numbers.
        while self.flows.contains_key(&FlowId(self.next)) {
            self.next = self.next % FLOW_ID_MAX + 1;
        }
        let id = FlowId(self.next);
        self.next = self.next % FLOW_ID_MAX + 1;
        self.held += usize::from(is_held);
        if is_held && far.is_ipv6() {
            self.attempts.insert(far, (id, now));
        }
        let flow = Flow { near_port, far, home_port: 0, first, state, finished: (false, false), last: now };
        self.flows.insert(id, flow);
        self.by_ends.insert((near_port, far), id);
        Some(id)
    }

    fn program_segment(&mut self, now: Instant, frame: &mut [u8], view: &View) -> Action {
        let Some(segment) = packet::segment(frame, view) else { return Action::Drop };
        let known = self.by_ends.get(&(segment.source.port(), segment.destination)).copied();
        let Some(id) = known else { return self.unknown(now, frame, view, &segment) };
        let Some(flow) = self.flows.get_mut(&id) else { return Action::Drop };
        if segment.opens() && segment.sequence != flow.first && !matches!(flow.state, State::Held(_)) {
            // The program's kernel has forgotten the old connection: so must we.
            self.remove(id);
            return self.unknown(now, frame, view, &segment);
        }
        flow.last = now;
        match &mut flow.state {
            State::Second(first) if segment.opens() => {
                let first = *first;
                if self.is_held(first) {
                    return Action::Drop;
                }
                self.remove(id);
                self.begin(now, frame, view, &segment, false)
            }
            State::Open => {
                let (source, destination) = flow.gate_ends(id);
                self.forward(id, frame, view, &segment, Side::Gate, (source, destination))
            }
            State::Held(_) | State::Second(_) if segment.flags & packet::RST != 0 => {
                self.remove(id);
                Action::Drop
            }
            State::Held(syn) if segment.opens() && frame.len() <= MAX_SYN => {
                // The newest copy counts: its time stamps are fresh, and it may belong to a new attempt.
                syn.clear();
                syn.extend_from_slice(frame);
                flow.first = segment.sequence;
                Action::Drop
            }
            _ => Action::Drop,
        }
    }

    /// A segment of the program that belongs to no flow.
    fn unknown(&mut self, now: Instant, frame: &[u8], view: &View, segment: &Segment) -> Action {
        if !segment.opens() {
            return stray(segment);
        }
        self.begin(now, frame, view, segment, true)
    }

    /// An attempt to connect; `may_wait` for another one of the same program.
    fn begin(&mut self, now: Instant, frame: &[u8], view: &View, segment: &Segment, may_wait: bool) -> Action {
        let destination = match self.classify(segment.destination) {
            Ok(address) => address,
            Err(action) => return action.unwrap_or_else(|obstacle| refuse(frame, view, segment, obstacle)),
        };
        if frame.len() > MAX_SYN {
            return Action::Drop;
        }
        let (near_port, far) = (segment.source.port(), segment.destination);
        if may_wait && let Some(first) = self.first_attempt(now, destination, far) {
            self.insert(now, State::Second(first), near_port, far, segment.sequence);
            return Action::Drop;
        }
        let state = State::Held(frame.to_vec());
        let Some(flow) = self.insert(now, state, near_port, far, segment.sequence) else { return Action::Drop };
        Action::Connect(Connect { flow, destination, port: far.port(), source_port: near_port })
    }

    /// The attempt over IPv6 that one over IPv4 was begun beside.
    fn first_attempt(&self, now: Instant, destination: Option<ApAddress>, far: SocketAddr) -> Option<FlowId> {
        let same = SocketAddr::new(destination.filter(|_| far.is_ipv4())?.ipv6().into(), far.port());
        let (first, since) = self.attempts.get(&same)?;
        (now.saturating_duration_since(*since) <= RACE).then_some(*first)
    }

    fn is_held(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_some_and(|flow| matches!(flow.state, State::Held(_)))
    }

    /// Which AP address a destination means, none for the resolver; else what to do about it: an action, or an obstacle to report (none: reset).
    fn classify(&self, far: SocketAddr) -> Result<Option<ApAddress>, Result<Action, Option<Obstacle>>> {
        if far.port() == 0 {
            return Err(Ok(Action::Drop));
        }
        match far.ip() {
            IpAddr::V6(ip) if is_nobody_v6(ip) => Err(Ok(Action::Drop)),
            IpAddr::V6(ip) => ApAddress::from_ipv6(ip).map(Some).ok_or(Err(Some(Obstacle::Prohibited))),
            IpAddr::V4(ip) if is_nobody_v4(ip) => Err(Ok(Action::Drop)),
            IpAddr::V4(RESOLVER) if far.port() == DNS_PORT => Ok(None),
            IpAddr::V4(ip) if aliases::is_reserved(ip) => Err(Err(None)),
            IpAddr::V4(ip) if aliases::in_range(ip) => {
                let aliases = self.aliases.lock().unwrap_or_else(PoisonError::into_inner);
                aliases.behind(ip).map(Some).ok_or(Err(Some(Obstacle::Host)))
            }
            IpAddr::V4(_) => Err(Err(Some(Obstacle::Prohibited))),
        }
    }

    fn gate_segment(&mut self, now: Instant, frame: &mut [u8], view: &View) -> Action {
        let Some(segment) = packet::segment(frame, view) else { return Action::Drop };
        let id = FlowId::from_address(view.destination);
        let Some((id, flow)) = id.and_then(|id| Some((id, self.flows.get_mut(&id)?))) else { return stray(&segment) };
        if flow.near_port != segment.destination.port() || flow.far.is_ipv4() != view.source.is_ipv4() {
            return stray(&segment);
        }
        match flow.state {
            State::Expected if segment.opens() => {
                flow.state = State::Open;
                flow.home_port = segment.source.port();
            }
            State::Open if flow.home_port == segment.source.port() => {}
            _ => return stray(&segment),
        }
        flow.last = now;
        let own = if flow.far.is_ipv4() { OWN_IPV4.into() } else { self.config.address.ipv6().into() };
        let ends = (flow.far, SocketAddr::new(own, flow.near_port));
        self.forward(id, frame, view, &segment, Side::Program, ends)
    }

    /// Sends a frame of an open flow to the other side, and follows how far the connection is closed.
    fn forward(
        &mut self,
        id: FlowId,
        frame: &mut [u8],
        view: &View,
        segment: &Segment,
        to: Side,
        (source, destination): (SocketAddr, SocketAddr),
    ) -> Action {
        if !packet::rewrite(frame, view, source, destination) {
            return Action::Drop;
        }
        if segment.flags & packet::RST != 0 {
            self.remove(id);
        } else if segment.flags & packet::FIN != 0
            && let Some(flow) = self.flows.get_mut(&id)
        {
            let seen = if to == Side::Gate { &mut flow.finished.0 } else { &mut flow.finished.1 };
            *seen = true;
        }
        Action::Forward(to)
    }
}

impl Flow {
    /// Source and destination of the program's packets on the gate's side.
    fn gate_ends(&self, id: FlowId) -> (SocketAddr, SocketAddr) {
        let v4 = self.far.is_ipv4();
        let home = if v4 { HOME_V4.into() } else { HOME_V6.into() };
        (SocketAddr::new(id.address(v4), self.near_port), SocketAddr::new(home, self.home_port))
    }

    fn is_over(&self, now: Instant) -> bool {
        let patience = match self.state {
            State::Held(_) | State::Second(_) | State::Silent => HELD_IDLE,
            State::Expected => EXPECTED_IDLE,
            State::Open if self.finished == (true, true) => CLOSED_IDLE,
            State::Open => OPEN_IDLE,
        };
        now.saturating_duration_since(self.last) > patience
    }
}

fn no_longer_held(attempts: &mut HashMap<SocketAddr, (FlowId, Instant)>, far: SocketAddr, id: FlowId) {
    if attempts.get(&far).is_some_and(|(newest, _)| *newest == id) {
        attempts.remove(&far);
    }
}

/// A segment that belongs to nothing is answered by a reset, unless it is one.
fn stray(segment: &Segment) -> Action {
    if segment.flags & packet::RST != 0 { Action::Drop } else { Action::Answer(packet::reset(segment)) }
}

fn refuse(frame: &[u8], view: &View, segment: &Segment, obstacle: Option<Obstacle>) -> Action {
    match obstacle {
        Some(obstacle) => Action::Outside(segment.destination.ip(), packet::unreachable(frame, view, obstacle)),
        None => Action::Answer(packet::reset(segment)),
    }
}

fn program_datagram(frame: &[u8], view: &View) -> Action {
    let Some((from, to, message)) = packet::datagram(frame, view) else { return Action::Drop };
    match view.destination {
        IpAddr::V4(ip) if is_nobody_v4(ip) => return Action::Drop,
        IpAddr::V6(ip) if is_nobody_v6(ip) => return Action::Drop,
        _ => {}
    }
    if to != DNS_PORT {
        return Action::Answer(packet::unreachable(frame, view, Obstacle::Port));
    }
    if message.len() > MAX_QUESTION {
        return Action::Drop;
    }
    Action::Resolve(Question {
        from: SocketAddr::new(view.source, from),
        to: SocketAddr::new(view.destination, to),
        message: message.to_vec(),
    })
}

/// Addresses that nobody answers for, not even with an error.
fn is_nobody_v4(ip: Ipv4Addr) -> bool {
    ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified() || ip.is_loopback()
}

fn is_nobody_v6(ip: Ipv6Addr) -> bool {
    ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()
}

#[cfg(test)]
mod tests;
