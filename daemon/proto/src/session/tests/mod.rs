//! Two sessions against each other, in chunks of any size.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

mod hostile;
mod resume;
mod transcript;

const PORT: u16 = 80;
const SRC: u16 = 40_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

struct Pair {
    client: Session,
    server: Session,
    client_events: Vec<Event>,
    server_events: Vec<Event>,
    client_got: Vec<u8>,
    server_got: Vec<u8>,
    listens: bool,
    /// How many bytes travel at once.
    chunk: usize,
    /// Flights from client and server.
    flights: usize,
}

impl Pair {
    fn new(listens: bool, chunk: usize) -> Self {
        let server_key = key(2);
        let owner = server_key.verifying_key();
        let client = Session::connect(&mut StdRng::seed_from_u64(1), &key(1), &owner, PORT, SRC).unwrap();
        Self {
            client,
            server: Session::accept(Arc::new(server_key)),
            client_events: Vec::new(),
            server_events: Vec::new(),
            client_got: Vec::new(),
            server_got: Vec::new(),
            listens,
            chunk,
            flights: 0,
        }
    }

    /// One flight each way; false when nothing moved.
    fn step(&mut self) -> Result<bool, SessionError> {
        let there = carry(&mut self.client, &mut self.server, self.chunk)?;
        while let Some(event) = self.server.poll() {
            if matches!(event, Event::Hello { .. }) {
                self.server.verdict(self.listens)?;
            }
            self.server_events.push(event);
        }
        take(&mut self.server, &mut self.server_got);
        let back = carry(&mut self.server, &mut self.client, self.chunk)?;
        self.client_events.extend(std::iter::from_fn(|| self.client.poll()));
        take(&mut self.client, &mut self.client_got);
        self.flights += usize::from(there) + usize::from(back);
        Ok(there || back)
    }

    fn drive(&mut self) -> Result<(), SessionError> {
        while self.step()? {}
        Ok(())
    }
}

fn carry(from: &mut Session, to: &mut Session, chunk: usize) -> Result<bool, SessionError> {
    let mut bytes = Vec::new();
    from.take_far(&mut bytes);
    for part in bytes.chunks(chunk) {
        to.far_input(part)?;
    }
    Ok(!bytes.is_empty())
}

fn take(session: &mut Session, got: &mut Vec<u8>) {
    let before = got.len();
    session.take_app(got);
    session.app_took(got.len() - before);
}

/// One round trip until connect() returns, a second until the first answer byte.
// protocol: S7, S8, S10
#[test]
fn accepted_after_one_round_trip_and_answered_after_two() {
    let mut pair = Pair::new(true, 16_384);
    assert!(pair.step().unwrap());
    assert_eq!(pair.client_events, [Event::Accepted]);
    assert_eq!(pair.flights, 2);
    pair.client.app_input(b"question").unwrap();
    assert!(carry(&mut pair.client, &mut pair.server, 16_384).unwrap());
    take(&mut pair.server, &mut pair.server_got);
    assert_eq!(pair.server_got, b"question");
    pair.server.app_input(b"answer").unwrap();
    pair.step().unwrap();
    assert_eq!(pair.client_got, b"answer");
    let address = ApAddress::of(&key(1).verifying_key());
    assert_eq!(
        pair.server_events,
        [Event::Hello { port: PORT }, Event::Peer { address, src_port: SRC, dst_port: PORT }]
    );
}

// protocol: S7
#[test]
fn nothing_listens_is_refused() {
    let mut pair = Pair::new(false, 100);
    pair.drive().unwrap();
    assert_eq!(pair.client_events[0], Event::Refused);
    assert!(pair.client_got.is_empty() && pair.server_got.is_empty());
}

// protocol: S12
#[test]
fn half_close_works_in_each_order() {
    for client_first in [true, false] {
        let mut pair = Pair::new(true, 1000);
        pair.drive().unwrap();
        let end = |pair: &mut Pair, client: bool| if client { pair.client.app_end() } else { pair.server.app_end() };
        end(&mut pair, client_first).unwrap();
        pair.drive().unwrap();
        assert_eq!(pair.server_events.contains(&Event::End), client_first);
        assert_eq!(pair.client_events.contains(&Event::End), !client_first);
        assert!(!pair.client.is_over() && !pair.server.is_over());
        // The other direction still works.
        if client_first { pair.server.app_input(b"late") } else { pair.client.app_input(b"late") }.unwrap();
        end(&mut pair, !client_first).unwrap();
        pair.drive().unwrap();
        assert_eq!(if client_first { &pair.client_got } else { &pair.server_got }, b"late");
        assert!(pair.client.is_over() && pair.server.is_over());
        assert!(!pair.client_events.contains(&Event::Reset) && !pair.server_events.contains(&Event::Reset));
    }
}

#[test]
fn an_abort_is_a_reset_after_the_bytes_that_came_before() {
    let mut pair = Pair::new(true, 1000);
    pair.drive().unwrap();
    pair.client.app_input(b"before").unwrap();
    pair.client.app_abort();
    pair.drive().unwrap();
    assert_eq!((pair.server_got.as_slice(), pair.server_events.last()), (&b"before"[..], Some(&Event::Reset)));
    assert!(pair.client.is_over() && pair.server.is_over());
}

/// I6: an exit node that plays the server itself has another key.
// protocol: S10
#[test]
fn another_key_is_not_the_owner() {
    let mut pair = Pair::new(true, 1000);
    pair.server = Session::accept(Arc::new(key(3)));
    pair.drive().unwrap();
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
}

/// I6: the record must name the very key that TLS proves, not just one of the same address.
// protocol: S10
#[test]
fn a_record_of_another_key_with_the_same_address_is_refused() {
    let mut pair = Pair::new(true, 1000);
    let Phase::Begins(begin) = &mut pair.client.phase else { unreachable!() };
    // Nobody finds such a key; hence past the check of addresses.
    begin.wants(key(3).verifying_key());
    assert_eq!(pair.drive(), Err(SessionError::Misbehaved("the AP record has another key")));
    assert!(pair.client_events.is_empty());
}

/// Bytes and the end of a program that does not wait for the answer go out after it, in order.
#[test]
fn a_client_that_does_not_wait_for_the_answer_is_served() {
    let mut pair = Pair::new(true, 1000);
    pair.client.app_input(b"early").unwrap();
    pair.client.app_end().unwrap();
    pair.drive().unwrap();
    assert_eq!(pair.server_got, b"early");
    assert_eq!(pair.server_events.last(), Some(&Event::End));
    assert!(pair.server.wants_app() && !pair.client.wants_app());
    pair.server.app_input(b"answer").unwrap();
    pair.server.app_end().unwrap();
    pair.drive().unwrap();
    assert_eq!((&pair.client_got[..], pair.client_events.last()), (&b"answer"[..], Some(&Event::End)));
    assert!(pair.client.is_over() && pair.server.is_over());
}

#[test]
fn early_bytes_are_bounded() {
    let mut client = Pair::new(true, 1000).client;
    let mut sent = 0;
    while client.wants_app() {
        client.app_input(&[0; 1000]).unwrap();
        sent += 1000;
        assert!(sent < 1 << 20, "unbounded");
    }
}

#[test]
fn wrong_use_is_told_and_breaks_nothing() {
    let mut pair = Pair::new(true, 1000);
    let local = |result: Result<(), SessionError>| assert!(matches!(result, Err(SessionError::Local(_))));
    local(pair.client.verdict(true));
    local(pair.server.verdict(true));
    assert!(!pair.server.wants_app());
    local(pair.server.app_input(b"before the peer"));
    pair.drive().unwrap();
    local(pair.server.verdict(true));
    local(pair.client.app_input(&vec![0; APP_MAX + 1]));
    pair.client.app_end().unwrap();
    local(pair.client.app_input(b"after the end"));
    pair.client.app_end().unwrap();
    pair.server.app_input(b"still works").unwrap();
    pair.drive().unwrap();
    assert_eq!(pair.client_got, b"still works");
}

/// A half-closed direction ends when the other does, whichever way each ended.
// protocol: S22
#[test]
fn an_abort_after_a_half_close_is_a_reset() {
    let mut pair = Pair::new(true, 1000);
    pair.drive().unwrap();
    pair.client.app_end().unwrap();
    pair.drive().unwrap();
    pair.client.app_abort();
    pair.drive().unwrap();
    assert_eq!(pair.server_events[2..], [Event::End, Event::Reset]);
    assert!(pair.server.is_over());
}

/// What all keys after the handshake derive from is the same at both ends, and of one session only.
// protocol: S28
#[test]
fn both_ends_have_the_same_secret() {
    let opened = || {
        let mut pair = Pair::new(true, 1000);
        assert!(pair.client.secret().is_none() && pair.server.secret().is_none());
        pair.drive().unwrap();
        pair
    };
    let pair = opened();
    let (ours, theirs) = (pair.client.secret().unwrap(), pair.server.secret().unwrap());
    assert_eq!(ours.hex(), theirs.hex());
    assert_ne!(ours.hex(), opened().client.secret().unwrap().hex());
}

/// Bytes that were taken are forgotten: at a mark of bytes, or beside bytes that go the other way.
// protocol: S14
#[test]
fn both_ends_forget_what_has_arrived() {
    let mut pair = Pair::new(true, 16_384);
    pair.drive().unwrap();
    pair.client.app_input(b"question").unwrap();
    pair.drive().unwrap();
    assert!(pair.client.stream.held() > 0);
    pair.server.app_input(b"answer").unwrap();
    pair.drive().unwrap();
    assert_eq!(pair.client.stream.held(), 0);
    for _ in 0..40 {
        pair.client.app_input(&[1; 50_000]).unwrap();
        pair.drive().unwrap();
        assert!(pair.client.stream.held() < 320 * 1024, "{}", pair.client.stream.held());
    }
}

/// What waits for a program that does not read counts as taken up to a mark, so that it never waits for what it may not be sent.
// protocol: S14
#[test]
fn little_that_waits_for_a_program_counts_as_taken_and_much_does_not() {
    let mut pair = Pair::new(true, 16_384);
    pair.drive().unwrap();
    let comes = |pair: &mut Pair| {
        pair.client.app_input(&[1; 64 * 1024]).unwrap();
        carry(&mut pair.client, &mut pair.server, 16_384).unwrap();
        carry(&mut pair.server, &mut pair.client, 16_384).unwrap();
        (pair.server.unread(), pair.client.stream.held())
    };
    let untaken: Vec<_> = (0..32).map(|_| comes(&mut pair)).collect();
    for (unread, held) in untaken {
        let taken = unread - held;
        // A message may lie beyond the mark.
        assert!(held < 256 * 1024 + 64 * 1024 || taken > 512 * 1024 - 256 * 1024 - 64 * 1024, "{unread} {held}");
        assert!(taken <= 512 * 1024, "{unread} {held}");
    }
    take(&mut pair.server, &mut pair.server_got);
    carry(&mut pair.server, &mut pair.client, 16_384).unwrap();
    assert!(pair.client.stream.held() < 256 * 1024 && pair.server.unread() == 0);
}

#[test]
fn nothing_is_shown_by_debug() {
    let pair = Pair::new(true, 1000);
    assert_eq!(format!("{:?}{:?}", pair.client, pair.server), "Session(…)Session(…)");
    let address = ApAddress::of(&key(1).verifying_key());
    let shown = format!("{:?}", Event::Peer { address, src_port: SRC, dst_port: PORT });
    assert!(!shown.contains(&address.to_string()) && shown.contains("ApAddress(…)"));
}

/// I3: whatever is changed between exit and entry node, nothing wrong is delivered.
#[test]
fn changed_bytes_are_never_delivered() {
    for at in (0..3000).step_by(61) {
        let mut pair = Pair::new(true, 16_384);
        let mut passed = 0;
        let mut tamper = |from: &mut Session, to: &mut Session| {
            let mut bytes = Vec::new();
            from.take_far(&mut bytes);
            if (passed..passed + bytes.len()).contains(&at) {
                bytes[at - passed] ^= 1;
            }
            passed += bytes.len();
            to.far_input(&bytes)
        };
        for _ in 0..3 {
            let there = tamper(&mut pair.client, &mut pair.server);
            while let Some(event) = pair.server.poll() {
                if matches!(event, Event::Hello { .. }) {
                    let _ = pair.server.verdict(true);
                }
            }
            let back = tamper(&mut pair.server, &mut pair.client);
            if there.is_err() || back.is_err() {
                break;
            }
            let _ = pair.client.app_input(b"hello hello hello");
        }
        take(&mut pair.server, &mut pair.server_got);
        assert!(b"hello hello hello".repeat(3).starts_with(&pair.server_got), "{at}");
        let heard = pair.server.poll().into_iter().chain(pair.client.poll());
        assert!(pair.client.secret().is_none() || heard.eq([Event::Accepted]), "nobody between ends what stands: {at}");
    }
}

/// I7: a program that does not read stops the sender at the window, and all goes on when it reads.
#[test]
fn a_program_that_does_not_read_stops_the_sender() {
    let mut pair = Pair::new(true, 1 << 20);
    pair.drive().unwrap();
    let (mut sent, mut kept) = (0u64, Vec::new());
    while pair.client.wants_app() {
        pair.client.app_input(&[5; 65_536]).unwrap();
        sent += 65_536;
        carry(&mut pair.client, &mut pair.server, 1 << 20).unwrap();
        pair.server.take_app(&mut kept);
        carry(&mut pair.server, &mut pair.client, 1 << 20).unwrap();
    }
    assert!((WINDOW - (1 << 20)..WINDOW + (1 << 20)).contains(&sent), "{sent}");
    pair.server.app_took(kept.len());
    pair.drive().unwrap();
    assert!(pair.client.wants_app());
    assert_eq!(kept.len() as u64, sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_right(
        there in prop::collection::vec(any::<u8>(), 0..200_000),
        back in prop::collection::vec(any::<u8>(), 0..200_000),
        chunk in 1usize..40_000,
        part in 1usize..70_000,
    ) {
        let mut pair = Pair::new(true, chunk);
        for piece in there.chunks(part) {
            pair.client.app_input(piece).unwrap();
            pair.step().unwrap();
        }
        pair.drive().unwrap();
        for piece in back.chunks(part) {
            pair.server.app_input(piece).unwrap();
        }
        pair.client.app_end().unwrap();
        pair.server.app_end().unwrap();
        pair.drive().unwrap();
        prop_assert!(pair.server_got == there && pair.client_got == back);
        prop_assert!(pair.client.is_over() && pair.server.is_over());
    }

    /// Writes, ends and travelling bytes in any order: each program gets what the other sent, then its end, and memory stays bounded.
    #[test]
    fn any_history_ends_well(
        steps in prop::collection::vec((0u8..8, 1usize..60_000), 0..60),
        chunk in 1usize..20_000,
    ) {
        let mut pair = Pair::new(true, chunk);
        let mut sent = [Vec::new(), Vec::new()];
        for (step, count) in steps {
            match step {
                0..4 => {
                    let (side, from) = (usize::from(step % 2), sent[usize::from(step % 2)].len());
                    let session = if side == 0 { &mut pair.client } else { &mut pair.server };
                    if session.wants_app() {
                        let bytes: Vec<u8> = (0..count).map(|at| ((from + at) % 251) as u8).collect();
                        session.app_input(&bytes).unwrap();
                        sent[side].extend(bytes);
                    }
                }
                4 => { carry(&mut pair.client, &mut pair.server, chunk).unwrap(); }
                5 => { carry(&mut pair.server, &mut pair.client, chunk).unwrap(); }
                6 => { pair.step().unwrap(); }
                _ if count % 4 == 0 => {
                    let side = count / 4 % 2;
                    let session = if side == 0 { &mut pair.client } else { &mut pair.server };
                    session.app_end().unwrap();
                }
                _ => {}
            }
        }
        pair.client.app_end().unwrap();
        pair.server.app_end().unwrap();
        pair.drive().unwrap();
        prop_assert!(pair.server_got == sent[0] && pair.client_got == sent[1]);
        prop_assert_eq!(pair.client_events.as_slice(), &[Event::Accepted, Event::End]);
        prop_assert_eq!(pair.server_events.last(), Some(&Event::End));
        prop_assert!(pair.client.is_over() && pair.server.is_over());
    }

    #[test]
    fn any_bytes_are_taken_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut server = Session::accept(Arc::new(key(2)));
        let _ = server.far_input(&bytes);
        let mut hello = Vec::new();
        Message::Hello(super::hello(&key(2).verifying_key(), [0; 16], 1, &bytes)).write(&mut hello);
        let data = hello.len();
        if !bytes.is_empty() {
            Message::Tls(&bytes).write(&mut hello);
        }
        let _ = Session::accept(Arc::new(key(2))).far_input(&hello);
        let mut client = Pair::new(true, 1).client;
        let _ = client.far_input(&hello[data..]);
    }
}
