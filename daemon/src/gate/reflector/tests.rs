//! The reflector under any packets, and its checksums against a straightforward reference.

use super::super::packet::{MAX_FRAME, VNET};
use super::*;
use proptest::prelude::*;

const LISTENER: u16 = 40_000;

fn ap(number: u16) -> ApAddress {
    ApAddress::from_ipv6(Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, number)).unwrap()
}

fn reflector() -> (Reflector, Ipv4Addr) {
    let aliases = Arc::new(Mutex::new(Aliases::default()));
    let alias = aliases.lock().unwrap().of(ap(2));
    (Reflector::new(Config { address: ap(1), listener: LISTENER }, aliases), alias)
}

/// The checksum over pseudo header and message as the standards say it, one byte pair after the other.
fn reference(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let mut all = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(a) => all.extend(a.octets()),
            IpAddr::V6(a) => all.extend(a.octets()),
        }
    }
    all.extend([0, protocol]);
    all.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    all.extend(message);
    ones(&all)
}

fn ones(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap()
}

/// A TCP frame with right checksums; `partial`: only the pseudo header is summed, as a kernel does with offload.
fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, sequence: u32, payload: &[u8], partial: bool) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(from.port().to_be_bytes());
    message.extend(to.port().to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(7u32.to_be_bytes());
    message.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    message.extend(payload);
    let checksum = if partial {
        let zeroes = vec![0; message.len()];
        !reference(from.ip(), to.ip(), packet::TCP, &zeroes)
    } else {
        reference(from.ip(), to.ip(), packet::TCP, &message)
    };
    message[16..18].copy_from_slice(&checksum.to_be_bytes());
    ip(from.ip(), to.ip(), packet::TCP, &message, partial)
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8], partial: bool) -> Vec<u8> {
    let mut frame = vec![0; VNET];
    let length = u16::try_from(message.len()).unwrap();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([1, 2, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let checksum = ones(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("families differ"),
    }
    if partial {
        let start = u16::try_from(frame.len() - VNET).unwrap();
        frame[0] = 1;
        frame[6..8].copy_from_slice(&start.to_ne_bytes());
        frame[8..10].copy_from_slice(&16u16.to_ne_bytes());
    }
    frame.extend(message);
    frame
}

/// What another process goes on with.
#[test]
fn an_open_connection_goes_on_in_another_reflector_and_one_that_waits_is_asked_for_again() {
    let (mut before, _) = reflector();
    let now = Instant::now();
    let far: SocketAddr = (ap(2).ipv6(), 80).into();
    let near = |port: u16| SocketAddr::from((ap(1).ipv6(), port));
    let asks = |reflector: &mut Reflector, port| {
        let mut syn = tcp(near(port), far, packet::SYN, 1, &[], false);
        reflector.handle(now, Side::Program, &mut syn)
    };
    let Action::Connect(connect) = asks(&mut before, 1000) else { panic!("not asked for") };
    before.verdict(now, connect.flow, Verdict::Accepted).unwrap();
    assert!(matches!(asks(&mut before, 1001), Action::Connect(_)));
    let kept = before.open_flows();
    assert_eq!(kept.len(), 1);
    let (mut after, _) = reflector();
    after.go_on(now, &kept);
    for reflector in [&mut before, &mut after] {
        let mut data = tcp(near(1000), far, 0, 2, b"data", false);
        assert_eq!(reflector.handle(now, Side::Program, &mut data), Action::Forward(Side::Gate));
        let ends = (SocketAddr::from((HOME_V6, LISTENER)), SocketAddr::new(connect.flow.address(false), 1000));
        let mut answer = tcp(ends.0, ends.1, 0, 9, b"answer", false);
        assert_eq!(reflector.handle(now, Side::Gate, &mut answer), Action::Forward(Side::Program));
    }
    assert!(matches!(asks(&mut after, 1001), Action::Connect(_)), "its kernel's next SYN is the first here");
    assert_eq!(after.len(), 2);
}

/// Whether all checksums of a frame are right, in the way that its virtio header says.
fn checksums_are_right(frame: &[u8]) -> bool {
    let Some(view) = packet::parse(frame) else { return icmp6_is_right(frame) };
    let message = &frame[view.l4..];
    let header_fits = view.source.is_ipv6() || ones(&frame[VNET..view.l4]) == 0;
    let message_fits = match view.protocol {
        packet::TCP if frame[0] == 1 => {
            let zeroes = vec![0; message.len()];
            message[16..18] == (!reference(view.source, view.destination, view.protocol, &zeroes)).to_be_bytes()
        }
        packet::TCP | packet::UDP => reference(view.source, view.destination, view.protocol, message) == 0,
        _ => ones(message) == 0,
    };
    header_fits && message_fits
}

fn icmp6_is_right(frame: &[u8]) -> bool {
    let address = |at: usize| IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap()));
    let message = &frame[VNET + 40..];
    frame[VNET + 6] == 58 && reference(address(VNET + 8), address(VNET + 24), 58, message) == 0
}

fn own(v4: bool, port: u16) -> SocketAddr {
    if v4 { (OWN_IPV4, port).into() } else { (ap(1).ipv6(), port).into() }
}

/// Opens a connection from the program; returns its number.
fn open(reflector: &mut Reflector, now: Instant, from: SocketAddr, to: SocketAddr) -> FlowId {
    let mut syn = tcp(from, to, packet::SYN, 1, &[], false);
    let Action::Connect(connect) = reflector.handle(now, Side::Program, &mut syn) else { panic!("no new flow") };
    let (side, Action::Answer(frame)) = reflector.verdict(now, connect.flow, Verdict::Accepted).unwrap() else {
        panic!("the SYN goes on")
    };
    assert!(side == Side::Gate && checksums_are_right(&frame));
    connect.flow
}

proptest! {
    #[test]
    fn rewritten_frames_have_right_checksums(
        v4: bool, partial: bool, flow in 0u32..200, ports: (u16, u16), flags in 0u8..64, payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (mut reflector, alias) = reflector();
        let now = Instant::now();
        reflector.next = flow * 83_000 + 1;
        let (near, far_port) = (ports.0, ports.1.max(1));
        let far: SocketAddr = if v4 { (alias, far_port).into() } else { (ap(2).ipv6(), far_port).into() };
        let from = own(v4, near);
        let id = open(&mut reflector, now, from, far);
        let home = SocketAddr::new(if v4 { HOME_V4.into() } else { HOME_V6.into() }, LISTENER);
        let there = SocketAddr::new(id.address(v4), near);
        prop_assert_eq!(FlowId::from_address(id.address(v4)), Some(id));
        let flags = flags & !(packet::RST | packet::SYN);
        for (side, source, destination, to, seen) in [
            (Side::Program, from, far, Side::Gate, (there, home)),
            (Side::Gate, home, there, Side::Program, (far, from)),
        ] {
            let mut frame = tcp(source, destination, flags, 9, &payload, partial);
            prop_assert!(checksums_are_right(&frame));
            let virtio = frame[..VNET].to_vec();
            prop_assert_eq!(reflector.handle(now, side, &mut frame), Action::Forward(to));
            prop_assert!(checksums_are_right(&frame));
            prop_assert_eq!(&frame[..VNET], &virtio[..]);
            let view = packet::parse(&frame).unwrap();
            let segment = packet::segment(&frame, &view).unwrap();
            prop_assert_eq!((segment.source, segment.destination), seen);
            prop_assert!(frame.ends_with(&payload));
        }
    }

    #[test]
    fn answers_have_right_checksums(v4: bool, verdict in 0usize..3, port in 1u16.., payload in prop::collection::vec(any::<u8>(), 0..1400)) {
        let (mut reflector, alias) = reflector();
        let now = Instant::now();
        let far: SocketAddr = if v4 { (alias, port).into() } else { (ap(2).ipv6(), port).into() };
        let mut syn = tcp(own(v4, port), far, packet::SYN, 1, &payload, false);
        let Action::Connect(connect) = reflector.handle(now, Side::Program, &mut syn) else { panic!() };
        let verdict = [Verdict::Refused, Verdict::Unreachable, Verdict::Prohibited][verdict];
        let (side, action) = reflector.verdict(now, connect.flow, verdict).unwrap();
        let (Action::Answer(frame) | Action::AnswerTwice(frame)) = action else { panic!() };
        prop_assert_eq!(side, Side::Program);
        prop_assert!(checksums_are_right(&frame));
        prop_assert_eq!(reflector.len(), 0);
        let answer = packet::udp(far, own(v4, port), &payload);
        prop_assert!(checksums_are_right(&answer));
    }

    #[test]
    fn any_bytes_are_borne(frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        let (mut reflector, _) = reflector();
        let now = Instant::now();
        for (program, mut frame) in frames {
            let side = if program { Side::Program } else { Side::Gate };
            reflector.handle(now, side, &mut frame);
            // The same with a header that gets further.
            if frame.len() > VNET + 40 {
                let length = u16::try_from(frame.len() - VNET - 40).unwrap();
                frame[..VNET].fill(0);
                frame[VNET] = 0x60;
                frame[VNET + 4..VNET + 6].copy_from_slice(&length.to_be_bytes());
                frame[VNET + 6] = if frame[VNET + 7] & 1 == 0 { packet::TCP } else { packet::UDP };
                frame[VNET + 8..VNET + 24].copy_from_slice(&ap(1).octets());
                reflector.handle(now, side, &mut frame);
            }
        }
        reflector.len();
    }

    /// Any order of segments, verdicts, expectations and time leaves the tables consistent, and everything expires.
    #[test]
    fn any_history_is_borne(steps in prop::collection::vec((0u8..6, 0u16..4, 0u16..4, 0u8..64, any::<bool>(), 0u32..5), 0..200)) {
        let (mut reflector, alias) = reflector();
        let mut now = Instant::now();
        for (kind, a, b, flags, v4, number) in steps {
            let far: SocketAddr = if v4 { (alias, b + 1).into() } else { (ap(2).ipv6(), b + 1).into() };
            let near = own(v4, a);
            let id = FlowId(number + 1);
            match kind {
                0 | 1 => {
                    let mut frame = tcp(near, far, flags, number, b"x", v4);
                    reflector.handle(now, Side::Program, &mut frame);
                }
                2 => {
                    let home = if v4 { HOME_V4.into() } else { HOME_V6.into() };
                    let mut frame = tcp(SocketAddr::new(home, LISTENER), SocketAddr::new(id.address(v4), a), flags, 3, b"", true);
                    reflector.handle(now, Side::Gate, &mut frame);
                }
                3 => {
                    let all = [Verdict::Accepted, Verdict::Refused, Verdict::Unreachable, Verdict::Prohibited, Verdict::Silent];
                    reflector.verdict(now, id, all[number as usize]);
                }
                4 => drop(reflector.expect(now, far, a)),
                _ => {
                    now += Duration::from_secs(u64::from(flags));
                    reflector.expire(now);
                }
            }
            prop_assert!(reflector.len() <= 200);
        }
        reflector.expire(now + OPEN_IDLE + Duration::from_secs(1));
        prop_assert_eq!(reflector.len(), 0);
    }
}

#[test]
fn a_held_syn_is_asked_about_once() {
    let (mut reflector, _) = reflector();
    let now = Instant::now();
    let far: SocketAddr = (ap(2).ipv6(), 80).into();
    let mut syn = tcp(own(false, 5), far, packet::SYN, 1, &[], false);
    let Action::Connect(connect) = reflector.handle(now, Side::Program, &mut syn) else { panic!() };
    assert_eq!((connect.destination, connect.port, connect.source_port), (Some(ap(2)), 80, 5));
    assert_eq!(reflector.handle(now, Side::Program, &mut syn), Action::Drop);
    assert_eq!(reflector.verdict(now, connect.flow, Verdict::Silent), None);
    assert_eq!(reflector.handle(now, Side::Program, &mut syn), Action::Drop);
    // A new attempt from the same port is asked about again.
    let mut syn = tcp(own(false, 5), far, packet::SYN, 2, &[], false);
    assert!(matches!(reflector.handle(now, Side::Program, &mut syn), Action::Connect(_)));
    assert_eq!(reflector.len(), 1);
}

/// Happy eyeballs: who tries both families gets IPv6, and the other attempt does not leave unless it is wanted afterwards.
#[test]
fn of_two_families_the_first_attempt_is_asked_about() {
    for verdict in [Verdict::Accepted, Verdict::Refused, Verdict::Unreachable, Verdict::Silent] {
        let (mut reflector, alias) = reflector();
        let now = Instant::now();
        let (v6, v4): (SocketAddr, SocketAddr) = ((ap(2).ipv6(), 80).into(), (alias, 80).into());
        let syn = |v4, port, to| tcp(own(v4, port), to, packet::SYN, 1, &[], false);
        let Action::Connect(first) = reflector.handle(now, Side::Program, &mut syn(false, 5, v6)) else { panic!() };
        for _ in 0..2 {
            assert_eq!(reflector.handle(now, Side::Program, &mut syn(true, 6, v4)), Action::Drop);
        }
        // Another port is another end; and what has waited for long is no race.
        let other: SocketAddr = (alias, 81).into();
        assert!(matches!(reflector.handle(now, Side::Program, &mut syn(true, 7, other)), Action::Connect(_)));
        let later = now + RACE + Duration::from_millis(1);
        assert!(matches!(reflector.handle(later, Side::Program, &mut syn(true, 8, v4)), Action::Connect(_)));
        // One attempt waits for one other, and not for whatever is begun after it.
        reflector.verdict(now, first.flow, verdict);
        assert!(matches!(reflector.handle(now, Side::Program, &mut syn(false, 9, v6)), Action::Connect(_)));
        let Action::Connect(second) = reflector.handle(now, Side::Program, &mut syn(true, 6, v4)) else { panic!() };
        assert_eq!((second.destination, second.source_port), (Some(ap(2)), 6));
        assert!(reflector.len() >= 4);
        reflector.expire(later + OPEN_IDLE + Duration::from_secs(1));
        assert_eq!((reflector.len(), reflector.attempts.len()), (0, 0));
    }
}

#[test]
fn the_tables_are_bounded() {
    let (mut reflector, _) = reflector();
    let now = Instant::now();
    let mut held = Vec::new();
    for number in 0..=MAX_HELD {
        let far: SocketAddr = (ap(2).ipv6(), 80).into();
        let from = own(false, u16::try_from(number).unwrap());
        match reflector.handle(now, Side::Program, &mut tcp(from, far, packet::SYN, 1, &[], false)) {
            Action::Connect(connect) => held.push(connect.flow),
            action => assert_eq!((action, number), (Action::Drop, MAX_HELD)),
        }
    }
    assert_eq!(held.len(), MAX_HELD);
    for number in 0..MAX_FLOWS {
        let far: SocketAddr = (ap(3).ipv6(), u16::try_from(number & 0xffff).unwrap()).into();
        assert_eq!(reflector.expect(now, far, 9).is_some(), number < MAX_FLOWS - MAX_HELD);
    }
    assert_eq!(reflector.len(), MAX_FLOWS);
    reflector.expire(now + HELD_IDLE + Duration::from_secs(1));
    assert_eq!(reflector.len(), 0);
}

#[test]
fn closed_and_reset_flows_go() {
    let (mut reflector, _) = reflector();
    let now = Instant::now();
    let far: SocketAddr = (ap(2).ipv6(), 80).into();
    let home: SocketAddr = (HOME_V6, LISTENER).into();
    let closed = open(&mut reflector, now, own(false, 1), far);
    let reset = open(&mut reflector, now, own(false, 2), far);
    let there = SocketAddr::new(closed.address(false), 1);
    let fin = packet::FIN | packet::ACK;
    let mut frame = tcp(own(false, 1), far, fin, 2, &[], false);
    assert_eq!(reflector.handle(now, Side::Program, &mut frame), Action::Forward(Side::Gate));
    let later = now + CLOSED_IDLE + Duration::from_secs(1);
    reflector.expire(later);
    assert_eq!(reflector.len(), 2, "a half-close is no close");
    let mut frame = tcp(home, there, fin, 2, &[], false);
    assert_eq!(reflector.handle(later, Side::Gate, &mut frame), Action::Forward(Side::Program));
    reflector.expire(later + CLOSED_IDLE + Duration::from_secs(1));
    assert_eq!(reflector.len(), 1);
    let mut frame = tcp(home, SocketAddr::new(reset.address(false), 2), packet::RST, 2, &[], false);
    assert_eq!(reflector.handle(now, Side::Gate, &mut frame), Action::Forward(Side::Program));
    assert_eq!(reflector.len(), 0);
}

#[test]
fn nothing_but_what_is_known_gets_through() {
    let (mut reflector, alias) = reflector();
    let now = Instant::now();
    let far: SocketAddr = (ap(2).ipv6(), 80).into();
    let syn = |from: SocketAddr, to: SocketAddr| tcp(from, to, packet::SYN, 1, &[], false);
    // Foreign sources, multicast and loopback destinations, oversized frames.
    let foreign: SocketAddr = (ap(7).ipv6(), 1).into();
    let multicast: SocketAddr = ("ff02::1".parse::<Ipv6Addr>().unwrap(), 80).into();
    let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 80).into();
    for mut frame in [syn(foreign, far), syn(own(false, 1), multicast), syn(own(true, 1), loopback), vec![0; MAX_FRAME]]
    {
        assert_eq!(reflector.handle(now, Side::Program, &mut frame), Action::Drop);
    }
    // A fragment, IP options, an extension header, segmentation of the wrong kind.
    let (mut fragment, mut options) = (syn(own(true, 1), (alias, 1).into()), syn(own(true, 1), (alias, 1).into()));
    fragment[VNET + 6] = 0x20;
    options[VNET] = 0x46;
    let (mut extension, mut segmented) = (syn(own(false, 1), far), syn(own(false, 1), far));
    extension[VNET + 6] = 0;
    segmented[1] = 1;
    for mut frame in [fragment, options, extension, segmented] {
        assert_eq!(reflector.handle(now, Side::Program, &mut frame), Action::Drop);
    }
    // The gate's side opens nothing by itself.
    let stranger = SocketAddr::new(FlowId(77).address(false), 1);
    let mut frame = syn((HOME_V6, 9).into(), stranger);
    assert!(matches!(reflector.handle(now, Side::Gate, &mut frame), Action::Answer(_)));
    assert_eq!(reflector.len(), 0);
}
