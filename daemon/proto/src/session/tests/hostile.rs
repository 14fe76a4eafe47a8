//! Ends that do not keep to the protocol, made from a bare TLS: none gets anything delivered, none makes a session hang or grow.

use std::io::Write;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::session::tls;
use crate::wire::session::{DATA_MAX, Hello, VERSION};

/// One end that is only TLS and messages.
struct Bare {
    here: End,
    tls: Connection,
    channel: Option<(Sealer, Opener)>,
    sent: u64,
    got: Vec<u8>,
    heard: Vec<String>,
    partial: Vec<u8>,
}

impl Bare {
    fn client(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let target = ApAddress::of(&key(2).verifying_key());
        let mut config = tls::client_config(&key(1), target).unwrap();
        change(&mut config);
        let name = ServerName::IpAddress(target.ipv6().into());
        Self::new(End::Client, ClientConnection::new(Arc::new(config), name).unwrap().into())
    }

    fn server(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = tls::server_config(&key(2), true).unwrap();
        change(&mut config);
        Self::new(End::Server, ServerConnection::new(Arc::new(config)).unwrap().into())
    }

    fn new(here: End, tls: Connection) -> Self {
        Self { here, tls, channel: None, sent: 0, got: Vec::new(), heard: Vec::new(), partial: Vec::new() }
    }

    /// What TLS has to send.
    fn flight(&mut self) -> Vec<u8> {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes.chunks(DATA_MAX).for_each(|part| Message::Tls(part).write(&mut out));
        out
    }

    /// Behind what TLS still has to send.
    fn seal(&mut self, what: Sealed<'_>) -> Vec<u8> {
        let mut out = self.flight();
        self.channel().0.say(&what, &mut out);
        out
    }

    fn channel(&mut self) -> &mut (Sealer, Opener) {
        let (tls, here) = (&self.tls, self.here);
        self.channel.get_or_insert_with(|| {
            let secret = Secret::of(tls).expect("the handshake is done");
            (Sealer::new(&secret, 0, here), Opener::new(&secret, 0, here.other()))
        })
    }

    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for bytes in bytes.chunks(DATA_MAX) {
            out.extend(self.seal(Sealed::Data { offset: self.sent, bytes }));
            self.sent += bytes.len() as u64;
        }
        out
    }

    /// Takes what a session sent.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        self.partial.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.partial);
        let mut at = 0;
        while let Some((message, len)) = Message::read(&input[at..]).unwrap() {
            match message {
                Message::Tls(mut bytes) => {
                    while !bytes.is_empty() {
                        self.tls.read_tls(&mut bytes).unwrap();
                        self.tls.process_new_packets()?;
                    }
                }
                Message::Sealed(_) => {
                    let sealed = &mut input[at + HEADER..at + len];
                    match self.channel().1.open(sealed).expect("it opens") {
                        Sealed::Data { bytes, .. } => self.got.extend_from_slice(bytes),
                        other => self.heard.push(format!("{other:?}")),
                    }
                }
                other => self.heard.push(format!("{other:?}")),
            }
            at += len;
        }
        self.partial = input[at..].to_vec();
        Ok(())
    }

    fn reset(&self) -> bool {
        self.heard.contains(&"Reset(Protocol)".to_owned())
    }
}

fn far(session: &mut Session) -> Vec<u8> {
    let mut out = Vec::new();
    session.take_far(&mut out);
    out
}

fn message(message: Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.write(&mut out);
    out
}

/// HELLO before a first flight, of somebody who knows the address.
fn hello(flight: &[u8]) -> Vec<u8> {
    let Ok(Some((Message::Tls(bytes), _))) = Message::read(flight) else { panic!("no first flight") };
    message(Message::Hello(super::hello(&key(2).verifying_key(), [7; 16], PORT, bytes)))
}

const fn ports(dst: u16) -> Sealed<'static> {
    Sealed::Ports { src: SRC, dst }
}

/// A server that has answered `bare`'s first flight with "accepted"; and what its client made of that.
fn answered(bare: &mut Bare) -> (Session, Result<(), SessionError>, Result<(), rustls::Error>) {
    let mut server = Session::accept(Arc::new(key(2)));
    let flight = bare.flight();
    server.far_input(&hello(&flight)).unwrap();
    let first = server.far_input(&flight).and_then(|()| server.verdict(true));
    let heard = bare.hear(&far(&mut server));
    (server, first, heard)
}

/// A server and a bare client, past handshake and ports.
fn opened() -> (Session, Bare) {
    let mut bare = Bare::client(|_| {});
    let (mut server, first, heard) = answered(&mut bare);
    first.unwrap();
    heard.unwrap();
    server.far_input(&bare.seal(ports(PORT))).unwrap();
    assert!(matches!(events(&mut server)[..], [Event::Hello { .. }, Event::Peer { .. }]));
    (server, bare)
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn app(session: &mut Session) -> Vec<u8> {
    let mut got = Vec::new();
    take(session, &mut got);
    got
}

/// The server refused: it told no peer, gave nothing to the program, and said so.
fn assert_refused(mut server: Session, bare: &mut Bare, result: Result<(), SessionError>) {
    assert!(result.is_err(), "accepted");
    assert!(!events(&mut server).iter().any(|event| matches!(event, Event::Peer { .. })));
    assert!(app(&mut server).is_empty() && server.is_over());
    let _ = bare.hear(&far(&mut server));
    assert!(bare.reset());
}

#[test]
fn a_bare_client_that_keeps_to_the_protocol_is_served() {
    let (mut server, mut bare) = opened();
    server.far_input(&bare.say(b"question")).unwrap();
    assert_eq!(app(&mut server), b"question");
    server.app_input(b"answer").unwrap();
    bare.hear(&far(&mut server)).unwrap();
    assert_eq!(bare.got, b"answer");
}

/// I8: no weaker mode is fallen back to.
// protocol: S5
#[test]
fn a_client_without_a_key_is_refused() {
    let mut bare = Bare::client(|config| {
        config.client_auth_cert_resolver = Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(Arc::new(
            rustls::sign::CertifiedKey::new(Vec::new(), tls::certified(&key(1)).unwrap().key.clone()),
        )));
    });
    let (mut server, first, heard) = answered(&mut bare);
    first.unwrap();
    heard.unwrap();
    let result = server.far_input(&bare.flight());
    assert_refused(server, &mut bare, result);
}

// protocol: S9
#[test]
fn other_protocols_or_none_are_refused() {
    for offered in [vec![], vec![b"h2".to_vec()], vec![b"phantom/2".to_vec()], vec![tls::REFUSED.to_vec()]] {
        let mut bare = Bare::client(|config| config.alpn_protocols = offered.clone());
        let (mut server, first, heard) = answered(&mut bare);
        let result = first.and_then(|()| {
            heard.unwrap();
            server.far_input(&bare.flight())
        });
        assert_refused(server, &mut bare, result);
    }
}

// protocol: S4, S6
#[test]
fn a_client_without_post_quantum_keys_is_refused() {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let target = ApAddress::of(&key(2).verifying_key());
    let config = tls::client_config_of(Arc::new(provider), &key(1), target).unwrap();
    let address = ServerName::IpAddress(target.ipv6().into());
    let mut bare = Bare::new(End::Client, ClientConnection::new(Arc::new(config), address).unwrap().into());
    let (server, first, _) = answered(&mut bare);
    assert_refused(server, &mut bare, first);
}

/// A ClientHello as TLS 1.2 has it: no supported_versions, hence no 1.3.
// protocol: S6
#[test]
fn tls_1_2_is_refused() {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f];
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let schemes = [0, 13, 0, 4, 0, 2, 8, 7];
    let alpn = [&[0, 16, 0, 12, 0, 10, 9], &b"phantom/1"[..]].concat();
    let extensions = [&groups[..], &schemes, &alpn].concat();
    let mut body = vec![3, 3];
    body.extend_from_slice(&[9; 32]);
    body.extend_from_slice(&[0, 0, 4]);
    body.extend_from_slice(&suites);
    body.extend_from_slice(&[1, 0, 0, extensions.len() as u8]);
    body.extend_from_slice(&extensions);
    let handshake = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let record = [&[22, 3, 1, 0, handshake.len() as u8][..], &handshake].concat();
    let mut server = Session::accept(Arc::new(key(2)));
    let flight = message(Message::Tls(&record));
    server.far_input(&[hello(&flight), flight].concat()).unwrap();
    let result = server.verdict(true);
    assert!(format!("{result:?}").contains("incompatible"), "{result:?}");
    assert_refused(server, &mut Bare::client(|_| {}), result);
}

// protocol: S11
#[test]
fn another_port_than_in_hello_is_refused() {
    let mut bare = Bare::client(|_| {});
    let (mut server, ..) = answered(&mut bare);
    let result = server.far_input(&bare.seal(ports(PORT + 1)));
    assert_refused(server, &mut bare, result);
}

/// Nothing but its ports may be the first that a client seals, and they come once.
// protocol: S11, S27
#[test]
fn a_client_says_its_ports_first_and_once() {
    for first in [Sealed::Data { offset: 0, bytes: b"x" }, Sealed::Ack { arrived: 0, taken: 0 }, Sealed::Fin(0)] {
        let mut bare = Bare::client(|_| {});
        let (mut server, ..) = answered(&mut bare);
        let result = server.far_input(&bare.seal(first));
        assert_refused(server, &mut bare, result);
    }
    let (mut server, mut bare) = opened();
    assert!(matches!(server.far_input(&bare.seal(ports(PORT))), Err(SessionError::Misbehaved(_))));
    bare.hear(&far(&mut server)).unwrap();
    assert!(bare.reset() && server.is_over());
}

/// TLS ends with its handshake: what more it carries, no rule of this protocol bounds.
// protocol: S28
#[test]
fn tls_carries_nothing_behind_its_handshake() {
    for close in [false, true] {
        let mut bare = Bare::client(|_| {});
        let (mut server, ..) = answered(&mut bare);
        if close {
            bare.tls.send_close_notify();
        } else {
            bare.tls.writer().write_all(b"x").unwrap();
        }
        let result = server.far_input(&bare.flight());
        assert_refused(server, &mut bare, result);
    }
}

/// Only what the other end has sealed ends a session; the loss of a tunnel does not, nor what others say.
// protocol: S15, S32, S37
#[test]
fn nothing_but_a_sealed_end_ends_a_session_that_stands() {
    let unknown = vec![9, 0, 1, 0];
    let long = vec![2, 0xff, 0xff];
    let empty = vec![2, 0, 0];
    let short = vec![3, 0, 16, 0];
    let tls = message(Message::Tls(b"x"));
    let reset = message(Message::Reset(ResetCode::Protocol));
    let resume = message(Message::Resume { id: [7; 16], knock: [0; 16] });
    let gone = message(Message::Gone([0; 64]));
    let forged = message(Message::Sealed(&[0; 20]));
    let hello = hello(&message(Message::Tls(b"x")));
    for bad in [unknown, long, empty, short, tls, reset, resume, gone, forged, hello] {
        let (mut server, mut bare) = opened();
        server.far_input(&bare.say(b"before")).unwrap();
        let more = [&bad[..], &[0; 20]].concat();
        assert!(matches!(server.far_input(&more), Err(SessionError::Lost(_))), "{bad:?}");
        assert!(server.wants_tunnel() && !server.is_over() && far(&mut server).is_empty(), "{bad:?}");
        // What comes after on that tunnel is nothing; a program may say a little meanwhile.
        assert!(server.far_input(&bare.say(b"more")).is_err());
        assert_eq!((app(&mut server), events(&mut server)), (b"before".to_vec(), vec![]));
        assert!(server.wants_app());
    }
    let (mut server, mut bare) = opened();
    server.far_input(&bare.seal(Sealed::Fin(0))).unwrap();
    server.far_lost();
    assert_eq!(events(&mut server), [Event::End]);
    assert!(server.wants_tunnel());
    server.give_up();
    assert_eq!(events(&mut server), [Event::Reset]);
    assert!(server.is_over() && !server.wants_tunnel());
}

/// A bit of any message, on its way: the one after it does not open, and nothing of it is delivered.
// protocol: S37
#[test]
fn a_changed_bit_loses_the_tunnel_and_nothing_else() {
    let (mut server, mut bare) = opened();
    let mut bytes = bare.say(b"changed");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(server.far_input(&bytes), Err(SessionError::Lost(_))));
    let (mut server, mut bare) = opened();
    let (first, second) = (bare.say(b"first"), bare.say(b"second"));
    server.far_input(&second).unwrap_err();
    assert!(server.wants_tunnel());
    let (mut server, mut bare) = opened();
    let third = bare.say(b"third");
    server.far_input(&third).unwrap();
    assert!(matches!(server.far_input(&third), Err(SessionError::Lost(_))), "a second time");
    assert_eq!((app(&mut server), first.len()), (b"third".to_vec(), 33));
}

/// What only the other end can have made, and must not.
// protocol: S16
#[test]
fn what_the_other_end_must_not_say_is_answered_with_reset() {
    let gap = Sealed::Data { offset: 1 << 40, bytes: b"x" };
    let overflow = Sealed::Data { offset: u64::MAX, bytes: b"x" };
    let ack = Sealed::Ack { arrived: 1 << 40, taken: 0 };
    let taken = Sealed::Ack { arrived: 0, taken: 1 };
    let unsaid = Sealed::Ack { arrived: 1, taken: 0 };
    let fin = Sealed::Fin(1);
    for bad in [gap, overflow, ack, taken, unsaid, fin] {
        let (mut server, mut bare) = opened();
        assert!(matches!(server.far_input(&bare.seal(bad)), Err(SessionError::Misbehaved(_))), "{bad:?}");
        bare.hear(&far(&mut server)).unwrap();
        assert!(bare.reset(), "{bad:?}");
        assert!(server.is_over() && !server.wants_app());
        // It is over: nothing more is taken or said.
        server.far_input(&bare.say(b"more")).unwrap();
        assert!(app(&mut server).is_empty() && far(&mut server).is_empty());
    }
}

/// Before there is a secret nothing can go on elsewhere.
// protocol: S15, S16, S20
#[test]
fn what_does_not_belong_before_the_handshake_is_done_is_its_end() {
    let sealed = message(Message::Sealed(&[0; 20]));
    let gone = message(Message::Gone([0; 64]));
    for bad in [sealed, gone, vec![9, 0, 1, 0], hello(&message(Message::Tls(b"x")))] {
        let mut bare = Bare::client(|_| {});
        let (mut server, ..) = answered(&mut bare);
        let result = server.far_input(&bad);
        assert_refused(server, &mut bare, result);
    }
    let (mut server, ..) = answered(&mut Bare::client(|_| {}));
    events(&mut server);
    server.far_lost();
    assert_eq!(events(&mut server), [Event::Reset]);
    assert!(server.is_over() && !server.wants_tunnel());
}

/// Whoever has a handle from a public record, and not the address, hears nothing, and nobody computes anything for it.
// protocol: S20, S24, S25, S26, Y5
#[test]
fn who_does_not_know_the_address_gets_silence() {
    let flight = Bare::client(|_| {}).flight();
    let hello = hello(&flight);
    let mut other_version = hello.clone();
    other_version[3] = VERSION + 1;
    let no_knock = message(Message::Hello(Hello { session: [7; 16], port: [0, 80], knock: [0; 16] }));
    let mut another_port = hello.clone();
    another_port[21] ^= 1;
    let data = message(Message::Tls(b"x"));
    for bad in [
        other_version,
        data.clone(),
        message(Message::Sealed(&[0; 20])),
        message(Message::Reset(ResetCode::Protocol)),
        message(Message::Resume { id: [7; 16], knock: [0; 16] }),
        vec![1, 0, 0],
        vec![9, 0, 1, 0],
        [&no_knock[..], &flight].concat(),
        [&another_port[..], &flight].concat(),
        [&hello[..], &data].concat(),
        [&hello[..], &hello].concat(),
    ] {
        let mut server = Session::accept(Arc::new(key(2)));
        server.far_input(&bad).unwrap();
        // As for somebody who says nothing more; what would have been right comes too late.
        let Phase::Begins(begin) = &server.phase else { panic!("{bad:?}") };
        assert!(server.deaf && !server.is_over() && !begin.has_begun_tls(), "{bad:?}");
        server.far_input(&[&hello[..], &flight].concat()).unwrap();
        assert!(server.poll().is_none() && far(&mut server).is_empty(), "{bad:?}");
        assert_eq!(server.partial.capacity(), 0);
    }
}

/// I7: a client that sends on without a verdict is cut off.
// protocol: S21
#[test]
fn bytes_before_the_verdict_are_bounded() {
    let mut server = Session::accept(Arc::new(key(2)));
    let flight = message(Message::Tls(&[0; 1000]));
    server.far_input(&[&hello(&flight)[..], &flight].concat()).unwrap();
    let mut sent = 1000;
    while server.far_input(&flight).is_ok() {
        sent += 1000;
        assert!(sent < 1 << 20, "unbounded");
    }
}

/// I6: a server that answers whoever comes is still not the owner of the address that was dialed.
#[test]
fn the_server_is_bound_to_the_address_that_was_dialed() {
    let owner = key(3).verifying_key();
    let mut client = Session::connect(&mut StdRng::seed_from_u64(1), &key(1), &owner, PORT, SRC).unwrap();
    let mut bare = Bare::server(|_| {});
    bare.hear(&far(&mut client)).unwrap();
    assert!(matches!(client.far_input(&bare.flight()), Err(SessionError::Tls(_))));
    assert!(events(&mut client).is_empty() && app(&mut client).is_empty());
    bare.hear(&far(&mut client)).unwrap();
    assert!(bare.reset());
}

#[test]
fn a_server_without_a_verdict_is_refused() {
    for chosen in [vec![], vec![b"h2".to_vec()]] {
        let mut pair = Pair::new(true, 1000);
        let mut bare = Bare::server(|config| config.alpn_protocols = chosen.clone());
        let heard = bare.hear(&far(&mut pair.client));
        let flight = bare.flight();
        let result = pair.client.far_input(&flight);
        assert!(heard.is_err() || result.is_err(), "{chosen:?}");
        assert!(events(&mut pair.client).is_empty());
    }
}

/// I7: a peer that acknowledges nothing stops the program at the window.
// protocol: S13
#[test]
fn what_a_peer_does_not_acknowledge_is_bounded() {
    let (mut server, _) = opened();
    let mut sent = 0;
    while server.wants_app() {
        server.app_input(&[0; APP_MAX]).unwrap();
        sent += APP_MAX as u64;
        far(&mut server);
    }
    assert!(sent >= WINDOW - 3 * WINDOW_RESERVE && server.held() <= WINDOW, "{sent}");
    assert!(matches!(server.app_input(b"x"), Err(SessionError::Local(_))));
    assert!(!server.is_over());
}

/// I7: a peer that ignores our window is cut off at it, though our program reads nothing.
// protocol: S13
#[test]
fn a_peer_that_ignores_the_window_is_cut_off() {
    let (mut server, mut bare) = opened();
    let (mut sent, mut got) = (0u64, Vec::new());
    while server.far_input(&bare.say(&[0; 65_536])).is_ok() {
        server.take_app(&mut got);
        sent += 65_536;
        assert!(sent <= WINDOW + BACKLOG as u64 + (1 << 20), "unbounded");
    }
    assert!(sent >= WINDOW / 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a TLS of either side is fed in place of a handshake, or after it.
    #[test]
    fn any_tls_bytes_are_taken_without_panic(bytes in prop::collection::vec(any::<u8>(), 1..2000), record: bool) {
        let mut wire = Vec::new();
        if record {
            wire = [&[22, 3, 3][..], &(bytes.len() as u16).to_be_bytes()].concat();
        }
        wire.extend_from_slice(&bytes);
        wire.truncate(DATA_MAX);
        let first = message(Message::Tls(&wire));
        let mut server = Session::accept(Arc::new(key(2)));
        server.far_input(&[hello(&first), first.clone()].concat()).unwrap();
        let _ = server.verdict(true);
        prop_assert!(app(&mut server).is_empty());
        let mut client = Pair::new(true, 1).client;
        let _ = client.far_input(&first);
        prop_assert!(app(&mut client).is_empty());
        let (mut server, _) = opened();
        prop_assert!(server.far_input(&first).is_err());
        prop_assert!(app(&mut server).is_empty());
    }
}
