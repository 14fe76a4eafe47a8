//! When a router is asked, and what of its answers is taken.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const HERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 5), 8443);
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 8), 8443);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn granted(outside: SocketAddrV4, lasts: Option<u64>) -> Result<Granted, Refused> {
    Ok(Granted { outside, lasts: lasts.map(seconds) })
}

/// It has just asked.
fn asking(now: Instant) -> Lease {
    let mut lease = Lease::default();
    lease.at(now, Some(HERE));
    assert_eq!(lease.poll(now), Some(Step::Ask { to: HERE, outside: 8443 }));
    lease
}

#[test]
fn nobody_is_asked_where_it_cannot_help() {
    let (mut lease, now) = (Lease::default(), Instant::now());
    lease.at(now, None);
    lease.moved(now);
    assert_eq!((lease.poll(now), lease.deadline(), lease.outside()), (None, None, None));
    // And nobody any more where it could before.
    let mut lease = asking(now);
    lease.answered(now, granted(OUTSIDE, Some(3600)));
    lease.at(now, None);
    assert_eq!((lease.poll(now + seconds(9999)), lease.outside()), (None, None));
}

#[test]
fn it_is_renewed_at_half_its_time_by_the_port_that_others_know() {
    let now = Instant::now();
    let mut lease = asking(now);
    assert_eq!(lease.poll(now), None, "one at a time");
    let other = SocketAddrV4::new(*OUTSIDE.ip(), 40_000);
    lease.answered(now, granted(other, Some(1000)));
    assert_eq!((lease.outside(), lease.deadline()), (Some(other), Some(now + seconds(500))));
    assert_eq!(lease.poll(now + seconds(499)), None);
    assert_eq!(lease.poll(now + seconds(500)), Some(Step::Ask { to: HERE, outside: 40_000 }));
    assert_eq!(lease.outside(), Some(other), "it stands meanwhile");
}

#[test]
fn a_router_has_this_node_ask_neither_all_the_time_nor_never_again() {
    let now = Instant::now();
    for (said, half) in [(Some(0), 60), (Some(5), 60), (Some(u64::from(u32::MAX)), 1800), (None, 1800)] {
        let mut lease = asking(now);
        lease.answered(now, granted(OUTSIDE, said));
        assert_eq!(lease.deadline(), Some(now + seconds(half)), "{said:?}");
    }
}

#[test]
fn pauses_after_failures_grow_to_an_hour_and_begin_anew_elsewhere() {
    let mut now = Instant::now();
    let mut lease = asking(now);
    for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        lease.answered(now, Err(Refused::Silent));
        assert_eq!((lease.deadline(), lease.refused()), (Some(now + seconds(pause)), Some(Refused::Silent)));
        assert_eq!(lease.poll(now + seconds(pause - 1)), None);
        now += seconds(pause);
        assert!(matches!(lease.poll(now), Some(Step::Ask { .. })));
    }
    lease.moved(now);
    assert!(matches!(lease.poll(now), Some(Step::Ask { .. })) && lease.refused().is_none());
    lease.answered(now, Err(Refused::No));
    assert_eq!(lease.deadline(), Some(now + seconds(60)));
}

#[test]
fn what_is_not_renewed_stands_until_it_ends() {
    let now = Instant::now();
    let mut lease = asking(now);
    lease.answered(now, granted(OUTSIDE, Some(3600)));
    let mut later = now + seconds(1800);
    while later < now + seconds(3600) {
        assert!(matches!(lease.poll(later), Some(Step::Ask { .. })));
        lease.answered(later, Err(Refused::Silent));
        assert_eq!(lease.outside(), Some(OUTSIDE), "{:?}", later - now);
        later = lease.deadline().unwrap();
    }
    lease.poll(later);
    assert_eq!(lease.outside(), None);
}

#[test]
fn an_address_to_which_nobody_can_come_is_not_taken_and_given_up() {
    let now = Instant::now();
    for (ip, port, why) in [
        ("10.1.2.3", 1, Refused::Behind),
        ("192.168.1.1", 1, Refused::Behind),
        ("100.64.7.7", 1, Refused::Behind),
        ("127.0.0.1", 1, Refused::Behind),
        ("169.254.1.1", 1, Refused::Behind),
        ("198.18.0.1", 1, Refused::Behind),
        ("203.0.113.5", 1, Refused::Behind),
        ("0.0.0.0", 1, Refused::Behind),
        ("224.0.0.1", 1, Refused::Behind),
        ("255.255.255.255", 1, Refused::Behind),
        ("5.6.7.8", 0, Refused::Nonsense),
    ] {
        let mut lease = asking(now);
        lease.answered(now, granted(OUTSIDE, Some(3600)));
        let then = now + seconds(1800);
        assert!(matches!(lease.poll(then), Some(Step::Ask { .. })));
        lease.answered(then, granted(SocketAddrV4::new(ip.parse().unwrap(), port), Some(3600)));
        assert_eq!((lease.outside(), lease.refused()), (None, Some(why)), "{ip}");
        assert_eq!((lease.poll(then), lease.poll(then)), (Some(Step::GiveUp), None), "{ip}");
    }
}

#[test]
fn what_was_asked_elsewhere_says_nothing_of_here() {
    let now = Instant::now();
    let mut lease = asking(now);
    lease.moved(now);
    lease.answered(now, granted(OUTSIDE, Some(3600)));
    assert_eq!(lease.outside(), None);
    assert!(matches!(lease.poll(now), Some(Step::Ask { .. })), "it is asked anew");
    lease.answered(now, granted(OUTSIDE, Some(3600)));
    lease.moved(now);
    assert_eq!(lease.outside(), None);
    assert!(matches!(lease.poll(now), Some(Step::Ask { .. })), "nobody there knows what it would give up");
}

#[test]
fn a_stop_gives_up_what_stands_or_may_come_about_and_nothing_else() {
    let now = Instant::now();
    let mut stood = asking(now);
    stood.answered(now, granted(OUTSIDE, None));
    let mut refused = asking(now);
    refused.answered(now, Err(Refused::No));
    for (mut lease, step) in [(stood, Some(Step::GiveUp)), (asking(now), Some(Step::GiveUp)), (refused, None)] {
        lease.stop();
        assert_eq!((lease.poll(now), lease.outside()), (step, None));
        assert_eq!((lease.poll(now + LEASE), lease.deadline()), (None, None));
    }
}

/// What happens to a lease.
#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    At(Option<u8>),
    Moved,
    Answer(Result<(u32, u16, Option<u32>), ()>),
}

fn event() -> impl Strategy<Value = Event> {
    let answer = prop_oneof![
        any::<(u32, u16, Option<u32>)>().prop_map(Ok),
        any::<(u16, Option<u32>)>().prop_map(|(port, lasts)| Ok((u32::from(*OUTSIDE.ip()), port, lasts))),
        Just(Err(())),
    ];
    prop_oneof![
        (0_u64..5000).prop_map(Event::Wait),
        any::<Option<u8>>().prop_map(Event::At),
        Just(Event::Moved),
        answer.prop_map(Event::Answer),
    ]
}

proptest! {
    /// Whatever routers say and whenever: only what others can use is told, never for longer than an hour after a router has said it, and
    /// no router is asked twice within a minute but in another network.
    #[test]
    fn no_answer_makes_it_tell_nonsense_or_ask_without_end(events in vec(event(), 0..60)) {
        let mut now = Instant::now();
        let (mut lease, mut last_asked, mut last_granted) = (Lease::default(), None, None);
        for event in events {
            match event {
                Event::Wait(count) => now += seconds(count),
                Event::At(last) => {
                    let here = last.map(|last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 8443));
                    // Another address may be asked for at once.
                    last_asked = last_asked.filter(|_| here == lease.here);
                    lease.at(now, here);
                }
                Event::Moved => (last_asked, _) = (None, lease.moved(now)),
                Event::Answer(answer) => {
                    let granted = |(ip, port, lasts): (u32, u16, Option<u32>)| Granted {
                        outside: SocketAddrV4::new(ip.into(), port),
                        lasts: lasts.map(|lasts| seconds(lasts.into())),
                    };
                    lease.answered(now, answer.map(granted).map_err(|()| Refused::No));
                    last_granted = answer.is_ok().then_some(now).or(last_granted);
                }
            }
            while let Some(step) = lease.poll(now) {
                if let Step::Ask { to, .. } = step {
                    prop_assert_eq!(Some(to), lease.here);
                    prop_assert!(last_asked.is_none_or(|last| now >= last + seconds(60)));
                    last_asked = Some(now);
                }
            }
            if let Some(outside) = lease.outside() {
                prop_assert!(is_open(IpAddr::V4(*outside.ip())) && outside.port() != 0);
                prop_assert!(last_granted.is_some_and(|last| now < last + LEASE));
            }
            prop_assert!(lease.deadline().is_none_or(|deadline| deadline > now));
        }
        lease.stop();
        lease.poll(now);
        prop_assert_eq!((lease.poll(now + LEASE), lease.outside(), lease.deadline()), (None, None, None));
    }
}
