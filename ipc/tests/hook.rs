//! The hook's dialect: round trips, vectors, and what must be refused.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panic

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use phantom_ipc::hook::*;
use proptest::prelude::*;

fn identity() -> impl Strategy<Value = IdentityRef> {
    prop_oneof!["[^\0]{1,16}".prop_map(IdentityRef::Named), any::<[u8; 16]>().prop_map(IdentityRef::Session)]
}

fn value() -> impl Strategy<Value = OptionValue> {
    prop::collection::vec(any::<u8>(), 0..=MAX_OPTION).prop_map(|bytes| OptionValue::new(&bytes).unwrap())
}

/// Addresses without what the dialect leaves out.
fn endpoint() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        any::<[i32; 3]>().prop_map(|[domain, kind, protocol]| Call::Open { domain, kind, protocol }),
        (endpoint(), any::<bool>()).prop_map(|(address, wait)| Call::Connect { address, wait }),
        Just(Call::Disconnect),
        endpoint().prop_map(|address| Call::Bind { address }),
        any::<i32>().prop_map(|backlog| Call::Listen { backlog }),
        Just(Call::Name),
        Just(Call::Peer),
        any::<[i32; 2]>().prop_map(|[level, option]| Call::Option { level, option }),
        (any::<[i32; 2]>(), value()).prop_map(|([level, option], value)| Call::SetOption { level, option, value }),
        Just(Call::Shutdown),
    ]
}

fn loopback() -> impl Strategy<Value = Loopback> {
    prop_oneof![
        (endpoint(), endpoint()).prop_map(|(to, from)| Loopback::Connect { to, from }),
        (endpoint(), endpoint()).prop_map(|(local, at)| Loopback::Listen { local, at }),
        endpoint().prop_map(|source| Loopback::Peer { source }),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    prop_oneof![(1u16..).prop_map(Ports::One), Just(Ports::All)]
}

fn note() -> impl Strategy<Value = Note> {
    let about = prop_oneof![Just(About::Reached), Just(About::Unreached), Just(About::Hint)];
    (about, "[^\0]{1,60}").prop_map(|(about, text)| Note { about, text })
}

fn request() -> impl Strategy<Value = Request> {
    let socket = (identity(), any::<[i32; 3]>()).prop_map(|(identity, [domain, kind, protocol])| Request::Socket {
        identity,
        domain,
        kind,
        protocol,
    });
    prop_oneof![
        socket,
        identity().prop_map(|identity| Request::Enter { identity }),
        (identity(), "[^\0]{1,60}").prop_map(|(identity, name)| Request::Resolve { identity, name }),
        (identity(), any::<IpAddr>()).prop_map(|(identity, address)| Request::Reverse { identity, address }),
        identity().prop_map(|identity| Request::Info { identity }),
        (identity(), any::<u64>(), call()).prop_map(|(identity, socket, call)| Request::Emulated {
            identity,
            socket,
            call
        }),
        (identity(), loopback()).prop_map(|(identity, call)| Request::Loopback { identity, call }),
        identity().prop_map(|identity| Request::Hold { identity }),
        identity().prop_map(|identity| Request::ProgramSocket { identity }),
        (identity(), any::<bool>()).prop_map(|(identity, emulated)| Request::Line { identity, emulated }),
        (identity(), any::<[u8; 16]>()).prop_map(|(identity, token)| Request::Lend { identity, token }),
        (identity(), ports(), prop::option::of("[^\0]{1,16}"), any::<bool>())
            .prop_map(|(identity, ports, at, stays)| Request::Publish { identity, ports, at, stays }),
        identity().prop_map(|identity| Request::Follow { identity }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let who = || (any::<[u8; 16]>(), any::<[u8; 4]>(), "[^\0]{1,60}");
    prop_oneof![
        Just(Reply::Descriptor),
        (who(), any::<bool>()).prop_map(|((address, ipv4, name), has_user_namespace)| Reply::Entered {
            address,
            ipv4,
            name,
            has_user_namespace
        }),
        any::<(Option<[u8; 16]>, Option<[u8; 4]>)>().prop_map(|(v6, v4)| Reply::Addresses { v6, v4 }),
        Just(Reply::NotFound),
        "[^\0]{1,60}".prop_map(Reply::Name),
        who().prop_map(|(address, ipv4, name)| Reply::Info { address, ipv4, name }),
        (any::<[u8; 16]>(), "[^\0]{1,60}", any::<bool>()).prop_map(|(address, name, is_new)| Reply::Published {
            address,
            name,
            is_new
        }),
        (any::<i32>(), "[^\0]{1,60}").prop_map(|(errno, message)| Reply::Failed { errno, message }),
        endpoint().prop_map(Reply::Address),
        value().prop_map(Reply::Value),
        Just(Reply::Done),
        Just(Reply::Pending),
        note().prop_map(Reply::Note),
    ]
}

/// The body of the one frame in `bytes`.
fn body(bytes: &[u8]) -> &[u8] {
    let (body, used) = split_frame(bytes).unwrap().unwrap();
    assert_eq!(used, bytes.len());
    body
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        prop_assert_eq!(Request::decode(body(&request.encode().unwrap())), Ok(request));
    }

    #[test]
    fn replies_round_trip(reply in reply()) {
        prop_assert_eq!(Reply::decode(body(&reply.encode().unwrap())), Ok(reply));
    }

    #[test]
    fn what_is_read_is_the_one_encoding(bytes in prop::collection::vec(0u8..8, 0..40)) {
        if let Ok(request) = Request::decode(&bytes) {
            let encoded = request.encode().unwrap();
            prop_assert_eq!(body(&encoded), &bytes[..]);
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            let encoded = reply.encode().unwrap();
            prop_assert_eq!(body(&encoded), &bytes[..]);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = (Request::decode(&bytes), Reply::decode(&bytes), split_frame(&bytes).is_ok());
    }

    #[test]
    fn no_part_of_a_message_is_a_message(reply in reply(), request in request()) {
        let (reply, request) = (reply.encode().unwrap(), request.encode().unwrap());
        for end in 0..body(&reply).len() {
            prop_assert!(Reply::decode(&body(&reply)[..end]).is_err());
        }
        for end in 0..body(&request).len() {
            prop_assert!(Request::decode(&body(&request)[..end]).is_err());
        }
        let longer = [body(&reply), &[0]].concat();
        prop_assert_eq!(Reply::decode(&longer), Err(Malformed::Leftover));
    }

    #[test]
    fn the_short_way_for_sockets_says_the_same(identity in identity(), [domain, kind, protocol]: [i32; 3], reply in reply()) {
        let frame = SocketFrame::new(&identity).unwrap().with(domain, kind, protocol);
        let request = Request::Socket { identity, domain, kind, protocol }.encode().unwrap();
        prop_assert_eq!(frame.bytes(), &request[..]);
        let encoded = reply.encode().unwrap();
        let short = SocketReply::decode(body(&encoded));
        match &reply {
            Reply::Descriptor => prop_assert_eq!(short, Ok(SocketReply::Descriptor)),
            Reply::Failed { errno, message } => prop_assert_eq!(short, Ok(SocketReply::Failed(*errno, message))),
            _ => prop_assert!(short.is_err()),
        }
    }

    #[test]
    fn the_short_way_for_calls_says_the_same(identity in identity(), socket: u64, call in call(), reply in reply()) {
        let frame = CallFrame::new(&identity).unwrap().with(socket, &call);
        let request = Request::Emulated { identity, socket, call }.encode().unwrap();
        prop_assert_eq!(frame.bytes(), &request[..]);
        let encoded = reply.encode().unwrap();
        let short = CallReply::decode(body(&encoded));
        match &reply {
            Reply::Descriptor => prop_assert_eq!(short, Ok(CallReply::Descriptor)),
            Reply::Failed { errno, message } => prop_assert_eq!(short, Ok(CallReply::Failed(*errno, message))),
            Reply::Address(address) => prop_assert_eq!(short, Ok(CallReply::Address(*address))),
            Reply::Value(value) => prop_assert_eq!(short, Ok(CallReply::Value(*value))),
            Reply::Done => prop_assert_eq!(short, Ok(CallReply::Done)),
            Reply::Pending => prop_assert_eq!(short, Ok(CallReply::Pending)),
            _ => prop_assert!(short.is_err()),
        }
    }

    #[test]
    fn names_of_emulated_sockets_round_trip(socket: u64, v6: bool, stream: bool, at in 0..NAME, with: u8) {
        let name = SocketName { socket, v6, stream };
        let mut bytes = name.encode();
        prop_assert_eq!(SocketName::decode(&bytes), Some(name));
        prop_assert_eq!(SocketName::decode(&bytes[..NAME - 1]), None);
        bytes[at] = with;
        // One name has one form.
        if let Some(other) = SocketName::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn records_of_listeners_round_trip(peer in endpoint(), at in 0..RECORD, with: u8) {
        let mut bytes = encode_record(&peer);
        prop_assert_eq!(decode_record(&bytes), Some(peer));
        bytes[at] = with;
        if let Some(other) = decode_record(&bytes) {
            prop_assert_eq!(encode_record(&other), bytes);
        }
    }

    #[test]
    fn session_tokens_round_trip(token: [u8; 16]) {
        prop_assert_eq!(parse_session(&format_session(&token)), Some(token));
    }

    #[test]
    fn any_message_fits_a_failure(message: String, errno: i32) {
        let reply = Reply::failed(errno, &message.repeat(40));
        prop_assert_eq!(Reply::decode(body(&reply.encode().unwrap())), Ok(reply));
    }
}

#[test]
fn limits_hold_on_both_sides() {
    let resolve = |length| Request::Resolve { identity: IdentityRef::Session([0; 16]), name: "n".repeat(length) };
    assert!(resolve(MAX_NAME).encode().is_ok());
    assert_eq!(resolve(MAX_NAME + 1).encode(), Err(Malformed::Text));
    assert_eq!(resolve(0).encode(), Err(Malformed::Text));
    let info = |name: &str| Request::Info { identity: IdentityRef::Named(name.to_owned()) }.encode();
    assert!(info(&"i".repeat(MAX_IDENTITY)).is_ok());
    assert!(SocketFrame::new(&IdentityRef::Named("i".repeat(MAX_IDENTITY))).is_ok());
    assert_eq!(info(&"i".repeat(MAX_IDENTITY + 1)), Err(Malformed::Text));
    assert_eq!(info("zero\0byte"), Err(Malformed::Text));
    assert_eq!(OptionValue::new(&[0; MAX_OPTION + 1]), None);
    let longest = Call::SetOption { level: 0, option: 0, value: OptionValue::new(&[0; MAX_OPTION]).unwrap() };
    let calls = CallFrame::new(&IdentityRef::Named("i".repeat(MAX_IDENTITY))).unwrap();
    assert_eq!(calls.with(0, &longest).bytes().len(), HEADER + 1 + 3 + MAX_IDENTITY + 8 + 1 + 8 + 2 + MAX_OPTION);
    let longer = [&[17, 0, MAX_OPTION as u8 + 1][..], &[0; MAX_OPTION + 1]].concat();
    assert_eq!(Reply::decode(&longer), Err(Malformed::Text));
    let long = [&[5u8, 1, 0][..], &[b'n'; 256]].concat();
    assert_eq!(Reply::decode(&long), Err(Malformed::Text));
    assert_eq!(Reply::decode(&[5, 0, 1, 0xff]), Err(Malformed::Text));
    assert_eq!(Reply::decode(&[9]), Err(Malformed::Tag(9)));
    assert_eq!(Request::decode(&[0]), Err(Malformed::Tag(0)));
}

#[test]
fn frames_are_bounded_and_may_come_in_pieces() {
    assert_eq!(split_frame(&[0, 0]), Ok(None));
    assert_eq!(split_frame(&[0, 0, 0, 2, 9]), Ok(None));
    assert_eq!(split_frame(&[0, 0, 0, 2, 9, 8, 7]), Ok(Some((&[9, 8][..], 6))));
    assert_eq!(split_frame(&[0, 0, 0, 0]), Err(Malformed::Length(0)));
    assert_eq!(split_frame(&[0, 0, 0x10, 1]), Err(Malformed::Length(MAX_FRAME + 1)));
}

#[test]
fn replies_say_how_many_descriptors_come_with_them() {
    let entered = |has_user_namespace| Reply::Entered {
        address: [0; 16],
        ipv4: [0; 4],
        name: "n".to_owned(),
        has_user_namespace,
    };
    assert_eq!(Reply::Descriptor.descriptors(), 1);
    assert_eq!((entered(false).descriptors(), entered(true).descriptors()), (1, 2));
    assert_eq!(Reply::NotFound.descriptors(), 0);
}

#[test]
fn tokens_of_another_form_are_refused() {
    for text in ["", "0", &"0".repeat(31), &"0".repeat(33), &"0".repeat(64), &"g".repeat(32), &"A".repeat(32)] {
        assert_eq!(parse_session(text), None, "{text}");
    }
}

/// Address of the vectors: fd70::1.
const ADDRESS: [u8; 16] = [0xfd, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const IPV4: [u8; 4] = [198, 18, 0, 1];
const SOCKET: u64 = 0x0123_4567_89ab_cdef;

/// The messages that `vectors/hook.txt` holds, by name, written out from the layout in the module's documentation.
fn vectors() -> (BTreeMap<&'static str, Request>, BTreeMap<&'static str, Reply>) {
    let token = || IdentityRef::Session([0x11; 16]);
    let web = || IdentityRef::Named("web".to_owned());
    let name = || "a.phantom".to_owned();
    let emulated = |socket, call| Request::Emulated { identity: web(), socket, call };
    let (own, loopback) = (([127, 0, 0, 1], 7000).into(), |call| Request::Loopback { identity: web(), call });
    let publish = |ports, at, stays| Request::Publish { identity: web(), ports, at, stays };
    let value = OptionValue::new(&[1, 0, 0, 0]).unwrap();
    let requests = BTreeMap::from([
        ("socket", Request::Socket { identity: web(), domain: 10, kind: 0x80801, protocol: -1 }),
        ("enter", Request::Enter { identity: token() }),
        ("resolve", Request::Resolve { identity: token(), name: name() }),
        ("reverse6", Request::Reverse { identity: web(), address: ADDRESS.into() }),
        ("reverse4", Request::Reverse { identity: web(), address: IPV4.into() }),
        ("info", Request::Info { identity: web() }),
        ("publish", publish(Ports::One(80), Some("shop".to_owned()), false)),
        ("publish-all", publish(Ports::All, None, true)),
        ("follow", Request::Follow { identity: web() }),
        ("lend", Request::Lend { identity: web(), token: [0x22; 16] }),
        ("hold", Request::Hold { identity: token() }),
        ("program_socket", Request::ProgramSocket { identity: token() }),
        ("line", Request::Line { identity: token(), emulated: true }),
        ("open", emulated(0, Call::Open { domain: 10, kind: 0x80801, protocol: -1 })),
        ("connect", emulated(SOCKET, Call::Connect { address: (ADDRESS, 80).into(), wait: true })),
        ("disconnect", emulated(SOCKET, Call::Disconnect)),
        ("bind", emulated(SOCKET, Call::Bind { address: (IPV4, 80).into() })),
        ("listen", emulated(SOCKET, Call::Listen { backlog: -1 })),
        ("getsockname", emulated(SOCKET, Call::Name)),
        ("getpeername", emulated(SOCKET, Call::Peer)),
        ("getsockopt", emulated(SOCKET, Call::Option { level: 1, option: 4 })),
        ("setsockopt", emulated(SOCKET, Call::SetOption { level: 6, option: 1, value })),
        ("shutdown", emulated(SOCKET, Call::Shutdown)),
        ("loopback-connect", loopback(Loopback::Connect { to: (ADDRESS, 80).into(), from: own })),
        ("loopback-listen", loopback(Loopback::Listen { local: ([0; 4], 80).into(), at: own })),
        ("loopback-peer", loopback(Loopback::Peer { source: own })),
    ]);
    let replies = BTreeMap::from([
        ("descriptor", Reply::Descriptor),
        ("entered", Reply::Entered { address: ADDRESS, ipv4: IPV4, name: name(), has_user_namespace: true }),
        ("addresses", Reply::Addresses { v6: Some(ADDRESS), v4: Some(IPV4) }),
        ("addresses4", Reply::Addresses { v6: None, v4: Some(IPV4) }),
        ("not-found", Reply::NotFound),
        ("name", Reply::Name(name())),
        ("who", Reply::Info { address: ADDRESS, ipv4: IPV4, name: name() }),
        ("published", Reply::Published { address: ADDRESS, name: name(), is_new: true }),
        ("failed", Reply::Failed { errno: 100, message: "not ready".to_owned() }),
        ("address6", Reply::Address((ADDRESS, 80).into())),
        ("address", Reply::Address((IPV4, 80).into())),
        ("value", Reply::Value(value)),
        ("done", Reply::Done),
        ("pending", Reply::Pending),
        ("note", Reply::Note(Note { about: About::Reached, text: "ready".to_owned() })),
    ]);
    (requests, replies)
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn vectors_are_what_is_sent_and_read() {
    let (mut requests, mut replies) = vectors();
    let lines = include_str!("../vectors/hook.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines {
        let (name, hex) = line.split_once(':').unwrap();
        let bytes = from_hex(hex);
        if name == "preamble" {
            assert_eq!(bytes, PREAMBLE);
        } else if let Some(request) = requests.remove(name) {
            assert_eq!(request.encode().unwrap(), bytes, "{name}");
            assert_eq!(Request::decode(body(&bytes)), Ok(request), "{name}");
        } else {
            let reply = replies.remove(name).unwrap_or_else(|| panic!("no message for {name}"));
            assert_eq!(reply.encode().unwrap(), bytes, "{name}");
            assert_eq!(Reply::decode(body(&bytes)), Ok(reply), "{name}");
        }
    }
    let name = SocketName { socket: SOCKET, v6: true, stream: true };
    assert_eq!(&name.encode(), b"phantom-emulated/s6/0123456789abcdef");
    assert!(requests.is_empty() && replies.is_empty(), "without vector: {requests:?} {replies:?}");
}
