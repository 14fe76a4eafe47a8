//! The gate's pure files, compiled from where they stand, with as much around them as they need.
#![allow(dead_code, unreachable_pub)]

#[path = "../../daemon/src/aliases.rs"]
mod aliases;
#[path = "../../daemon/src/gate/dns.rs"]
mod dns;
#[path = "../../daemon/src/far/found.rs"]
mod found;
#[path = "../../daemon/src/gate/packet.rs"]
mod packet;
#[path = "../../daemon/src/gate/reflector.rs"]
mod reflector;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aliases::Aliases;
use arbitrary::Arbitrary;
use async_trait::async_trait;
use found::{Found, Unanswered};
use phantom_proto::ident::ApAddress;
use reflector::{Action, Config, FlowId, Reflector, Side, Verdict};

/// As much of the gate's network as its resolver asks.
#[async_trait]
trait Network: Send + Sync + 'static {
    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered>;
    async fn name_of(&self, address: ApAddress) -> Option<String>;
}

/// This computer's name is the gate's affair.
fn is_own_name(name: &str) -> bool {
    name == "own"
}

struct Known(ApAddress);

#[async_trait]
impl Network for Known {
    async fn resolve(&self, name: &str) -> Result<Option<Found>, Unanswered> {
        if name.ends_with("example") {
            return Err(Unanswered);
        }
        Ok(name.ends_with("phantom").then_some(Found { address: self.0, lifetime: 60 }))
    }

    async fn name_of(&self, address: ApAddress) -> Option<String> {
        (address == self.0).then(|| "known.phantom".to_owned())
    }
}

fn address(number: u8) -> ApAddress {
    ApAddress::of(&crate::key(number).verifying_key())
}

/// Answers one DNS message; the answer must itself be readable.
pub fn dns_answer(message: &[u8]) -> Option<Vec<u8>> {
    let (aliases, network) = (Mutex::new(Aliases::default()), Known(address(2)));
    let answer = pin!(dns::answer(message, address(1), &network, &aliases));
    match answer.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("nothing waits"),
    }
}

/// What happens to a reflector.
#[derive(Arbitrary, Debug)]
pub enum ReflectorOp {
    Packet { from_gate: bool, frame: Vec<u8> },
    /// A TCP packet whose lengths fit, so that the table is reached.
    Segment { from_gate: bool, v4: bool, far: u8, near: u8, port: u8, flags: u8, sequence: u8, payload: Vec<u8> },
    Verdict { flow: u8, which: u8 },
    Expect { far: u8, port: u8 },
    Remove { flow: u8 },
    Pass { seconds: u16 },
}

/// Lets all of it happen. Frames that come out must be readable again, and nobody's number may run below zero.
pub fn reflect(ops: Vec<ReflectorOp>) {
    let mut now = Instant::now();
    let config = Config { address: address(1), listener: 9 };
    let mut reflector = Reflector::new(config, Arc::new(Mutex::new(Aliases::default())));
    let flow = |number: u8| FlowId::from_address(IpAddr::from([10, 0, 0, number]));
    for op in ops.into_iter().take(200) {
        match op {
            ReflectorOp::Packet { from_gate, mut frame } => check(reflector.handle(now, side(from_gate), &mut frame)),
            ReflectorOp::Segment { from_gate, v4, far, near, port, flags, sequence, payload } => {
                let (source, destination) = ends(from_gate, v4, far, near, port);
                let mut frame = tcp(source, destination, flags, sequence, &payload);
                let length = frame.len();
                check(reflector.handle(now, side(from_gate), &mut frame));
                assert_eq!(frame.len(), length);
            }
            ReflectorOp::Verdict { flow: number, which } => {
                let all = [
                    Verdict::Accepted,
                    Verdict::Refused,
                    Verdict::Unreachable,
                    Verdict::Prohibited,
                    Verdict::Silent,
                ];
                let verdict = all[usize::from(which) % all.len()];
                if let Some((_, action)) = flow(number).and_then(|flow| reflector.verdict(now, flow, verdict)) {
                    check(action);
                }
            }
            ReflectorOp::Expect { far, port } => {
                let far = SocketAddr::new(address(far % 4).ipv6().into(), port.into());
                let _ = reflector.expect(now, far, port.into());
            }
            ReflectorOp::Remove { flow: number } => {
                if let Some(flow) = flow(number) {
                    reflector.remove(flow);
                }
            }
            ReflectorOp::Pass { seconds } => {
                now += Duration::from_secs(seconds.into());
                reflector.expire(now);
            }
        }
    }
}

fn side(gate: bool) -> Side {
    if gate { Side::Gate } else { Side::Program }
}

fn check(action: Action) {
    if let Action::Answer(frame) | Action::AnswerTwice(frame) = action
        && frame.get(packet::VNET + 9) != Some(&1)
        && frame.get(packet::VNET + 6) != Some(&58)
    {
        let view = packet::parse(&frame).expect("our own answer is a packet");
        assert!(packet::segment(&frame, &view).is_some());
    }
}

fn ends(from_gate: bool, v4: bool, far: u8, near: u8, port: u8) -> (SocketAddr, SocketAddr) {
    let own = if v4 { aliases::OWN_IPV4.into() } else { IpAddr::from(address(1).ipv6()) };
    let (near, port) = (u16::from(near % 8) + 1, u16::from(port % 8) + 1);
    if from_gate {
        let home = if v4 { reflector::HOME_V4.into() } else { IpAddr::from(reflector::HOME_V6) };
        let flow = FlowId::from_address(IpAddr::from([10, 0, 0, far.max(1)])).expect("not zero");
        (SocketAddr::new(home, 9), SocketAddr::new(flow.address(v4), near))
    } else {
        let far = if v4 { IpAddr::from([198, 18, 1, far % 4]) } else { address(far % 4).ipv6().into() };
        (SocketAddr::new(own, near), SocketAddr::new(far, port))
    }
}

fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8, sequence: u8, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(4096)];
    let mut frame = vec![0; packet::VNET];
    let length = 20 + payload.len() as u16;
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, packet::TCP, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([packet::TCP, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => unreachable!("both ends are of one family"),
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend([0, 0, 0, sequence, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}
