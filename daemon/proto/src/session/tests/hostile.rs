//! Ends that do not keep to the protocol, made from a bare TLS: none gets anything delivered, none makes a session hang or grow.

use std::io::{Read, Write};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::session::tls;
use crate::wire::session::{DATA_MAX, VERSION};

/// One end that is only TLS and messages.
struct Bare {
    tls: Connection,
    sent: u64,
    got: Vec<u8>,
    messages: Vec<(u8, Vec<u8>)>,
    partial: Vec<u8>,
}

impl Bare {
    fn client(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let target = ApAddress::of(&key(2).verifying_key());
        let mut config = tls::client_config(&key(1), target).unwrap();
        change(&mut config);
        Self::new(ClientConnection::new(Arc::new(config), ServerName::IpAddress(target.ipv6().into())).unwrap().into())
    }

    fn server(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = tls::server_config(&key(2), true).unwrap();
        change(&mut config);
        Self::new(ServerConnection::new(Arc::new(config)).unwrap().into())
    }

    fn new(tls: Connection) -> Self {
        Self { tls, sent: 0, got: Vec::new(), messages: Vec::new(), partial: Vec::new() }
    }

    /// What TLS has to send, in DATA messages.
    fn flight(&mut self) -> Vec<u8> {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        for part in bytes.chunks(DATA_MAX) {
            Message::Data { offset: self.sent, bytes: part }.write(&mut out);
            self.sent += part.len() as u64;
        }
        out
    }

    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(bytes).unwrap();
        self.flight()
    }

    /// Takes what a session sent.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        self.partial.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.partial);
        let mut at = 0;
        while let Some((message, len)) = Message::read(&input[at..]).unwrap() {
            self.messages.push((input[at], input[at + 3..at + len].to_vec()));
            at += len;
            if let Message::Data { mut bytes, .. } = message {
                while !bytes.is_empty() {
                    self.tls.read_tls(&mut bytes).unwrap();
                    let state = self.tls.process_new_packets()?;
                    let start = self.got.len();
                    self.got.resize(start + state.plaintext_bytes_to_read(), 0);
                    self.tls.reader().read_exact(&mut self.got[start..]).unwrap();
                }
            }
        }
        self.partial = input[at..].to_vec();
        Ok(())
    }

    fn reset(&self) -> Option<u8> {
        self.messages.iter().find(|(kind, _)| *kind == 5).map(|(_, body)| body[0])
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
    let Ok(Some((Message::Data { bytes, .. }, _))) = Message::read(flight) else { panic!("no first flight") };
    message(Message::Hello(super::hello(&key(2).verifying_key(), [7; 16], PORT, bytes)))
}

fn ports(dst: u16) -> Vec<u8> {
    [SRC.to_be_bytes(), dst.to_be_bytes()].concat()
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
    server.far_input(&bare.say(&ports(PORT))).unwrap();
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
    assert_eq!(bare.reset(), Some(2));
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
    let second = bare.say(&ports(PORT));
    let result = server.far_input(&second);
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
            server.far_input(&bare.say(&ports(PORT)))
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
    let mut bare = Bare::new(ClientConnection::new(Arc::new(config), address).unwrap().into());
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
    let flight = message(Message::Data { offset: 0, bytes: &record });
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
    let result = server.far_input(&bare.say(&ports(PORT + 1)));
    assert_refused(server, &mut bare, result);
}

/// The program must not see the ports, in however many pieces they come, and whenever the caller asks.
#[test]
fn ports_in_pieces_are_not_bytes_of_the_program() {
    let mut bare = Bare::client(|_| {});
    let (mut server, ..) = answered(&mut bare);
    for byte in ports(PORT) {
        assert_eq!(app(&mut server), b"");
        server.far_input(&bare.say(&[byte])).unwrap();
    }
    server.far_input(&bare.say(b"first")).unwrap();
    assert_eq!(app(&mut server), b"first");
    assert!(matches!(events(&mut server)[..], [Event::Hello { .. }, Event::Peer { .. }]));
}

/// A peer that goes on after close_notify must not hang the session.
#[test]
fn bytes_after_close_notify_are_refused() {
    let (mut server, mut bare) = opened();
    bare.tls.send_close_notify();
    let end = bare.flight();
    server.far_input(&end).unwrap();
    assert_eq!(events(&mut server), [Event::End]);
    let more = message(Message::Data { offset: bare.sent, bytes: &[23, 3, 3, 0, 1, 0] });
    assert!(matches!(server.far_input(&more), Err(SessionError::Misbehaved(_))));
    bare.hear(&far(&mut server)).unwrap();
    assert_eq!(bare.reset(), Some(2));
}

// protocol: S12
#[test]
fn an_end_without_close_notify_is_no_end() {
    let (mut server, mut bare) = opened();
    let bytes = [bare.say(b"before"), message(Message::Fin(bare.sent))].concat();
    assert!(server.far_input(&bytes).is_err());
    assert_eq!(app(&mut server), b"before");
    assert!(!events(&mut server).contains(&Event::End));
    let (mut server, mut bare) = opened();
    server.far_input(&bare.say(b"before")).unwrap();
    server.far_closed();
    assert_eq!((app(&mut server), events(&mut server)), (b"before".to_vec(), vec![Event::Reset]));
}

/// A tunnel that breaks while our direction is still open is a reset, though the other end had ended its own.
// protocol: S15
#[test]
fn a_break_after_a_half_close_is_a_reset() {
    let (mut server, mut bare) = opened();
    bare.tls.send_close_notify();
    let end = [bare.flight(), message(Message::Fin(bare.sent))].concat();
    server.far_input(&end).unwrap();
    server.far_closed();
    assert_eq!(events(&mut server), [Event::End, Event::Reset]);
}

// protocol: S16, S19, S20
#[test]
fn what_is_no_message_is_answered_with_reset() {
    let unknown = vec![9, 0, 1, 0];
    let long = vec![2, 0xff, 0xff];
    let short = vec![2, 0, 3, 0, 0, 0];
    let empty = vec![2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let leftover = vec![3, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let gap = message(Message::Data { offset: 1 << 40, bytes: b"x" });
    let overflow = message(Message::Data { offset: u64::MAX, bytes: b"x" });
    let ack = message(Message::Ack(1 << 40));
    let fin = message(Message::Fin(1));
    let resume = message(Message::Resume { session: [7; 16], attempt: 1, offset: 0, token: [0; 32] });
    let hello = hello(&message(Message::Data { offset: 0, bytes: b"x" }));
    for bad in [unknown, long, short, empty, leftover, gap, overflow, ack, fin, resume, hello] {
        let (mut server, mut bare) = opened();
        assert!(matches!(server.far_input(&bad), Err(SessionError::Misbehaved(_))), "{bad:?}");
        bare.hear(&far(&mut server)).unwrap();
        assert_eq!(bare.reset(), Some(2), "{bad:?}");
        assert!(server.is_over() && !server.wants_app());
        // It is over: nothing more is taken or said.
        server.far_input(&bare.say(b"more")).unwrap();
        assert!(app(&mut server).is_empty() && far(&mut server).is_empty());
    }
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
    let data = message(Message::Data { offset: 0, bytes: b"x" });
    let late = message(Message::Data { offset: 1, bytes: b"x" });
    for bad in [
        other_version,
        data.clone(),
        message(Message::Ack(0)),
        vec![1, 0, 0],
        vec![9, 0, 1, 0],
        [&no_knock[..], &flight].concat(),
        [&another_port[..], &flight].concat(),
        [&hello[..], &data].concat(),
        [&hello[..], &late].concat(),
        [&hello[..], &hello].concat(),
    ] {
        let mut server = Session::accept(Arc::new(key(2)));
        server.far_input(&bad).unwrap();
        // As for somebody who says nothing more; what would have been right comes too late.
        assert!(server.deaf && !server.is_over() && server.tls.is_none(), "{bad:?}");
        server.far_input(&[&hello[..], &flight].concat()).unwrap();
        assert!(server.poll().is_none() && far(&mut server).is_empty(), "{bad:?}");
        assert_eq!(server.partial.capacity() + server.held.capacity(), 0);
    }
}

/// I7: a client that sends on without a verdict is cut off.
// protocol: S21
#[test]
fn bytes_before_the_verdict_are_bounded() {
    let mut server = Session::accept(Arc::new(key(2)));
    let flight = message(Message::Data { offset: 0, bytes: &[0; 1000] });
    server.far_input(&[hello(&flight), flight].concat()).unwrap();
    let mut sent = 1000;
    while server.far_input(&message(Message::Data { offset: sent, bytes: &[0; 1000] })).is_ok() {
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
    assert_eq!(bare.reset(), Some(2));
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

/// I7: whoever asks for new keys again and again makes the session send nothing of its own, so there is nothing to hold for him.
#[test]
fn key_updates_cannot_fill_memory() {
    let (mut server, mut bare) = opened();
    far(&mut server);
    let before = server.stream.in_flight();
    for _ in 0..20 {
        bare.tls.refresh_traffic_keys().unwrap();
        server.far_input(&bare.say(b".")).unwrap();
        assert_eq!(server.stream.in_flight(), before);
        assert!(far(&mut server).is_empty());
    }
    server.app_input(b"answer").unwrap();
    bare.hear(&far(&mut server)).unwrap();
    assert_eq!((&bare.got[..], app(&mut server)), (&b"answer"[..], vec![b'.'; 20]));
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
    assert!(sent >= WINDOW - 3 * WINDOW_RESERVE && server.stream.in_flight() <= WINDOW, "{sent}");
    assert!(matches!(server.app_input(b"x"), Err(SessionError::Local(_))));
    assert!(!server.is_over());
}

/// I7: a peer that ignores our window is cut off at it, though our program reads nothing.
// protocol: S13
#[test]
fn a_peer_that_ignores_the_window_is_cut_off() {
    let (mut server, mut bare) = opened();
    let (mut sent, mut got) = (0u64, Vec::new());
    bare.tls.set_buffer_limit(None);
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
        let first = message(Message::Data { offset: 0, bytes: &wire });
        let mut server = Session::accept(Arc::new(key(2)));
        server.far_input(&[hello(&first), first.clone()].concat()).unwrap();
        let _ = server.verdict(true);
        prop_assert!(app(&mut server).is_empty());
        let mut client = Pair::new(true, 1).client;
        let _ = client.far_input(&first);
        prop_assert!(app(&mut client).is_empty());
        let (mut server, bare) = opened();
        let _ = server.far_input(&message(Message::Data { offset: bare.sent, bytes: &wire }));
        prop_assert!(app(&mut server).is_empty());
    }
}
