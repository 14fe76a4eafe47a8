//! Sessions whose tunnels are lost: at any byte, in any state, with strangers who ask for them too.

use super::*;
use crate::session::stream::FIRST_BYTES;

/// Two ends, the server's table, and what is on its way between them.
struct Ends {
    pair: Pair,
    table: Table<()>,
    no: SessionNo,
}

impl Ends {
    fn new(chunk: usize) -> Self {
        let mut pair = Pair::new(true, chunk);
        pair.drive().unwrap();
        let mut table = Table::default();
        let no = table.enter(pair.server.secret().unwrap(), (), std::time::Duration::ZERO).unwrap();
        Self { pair, table, no }
    }

    fn lose(&mut self) {
        self.pair.client.far_lost();
        self.pair.server.far_lost();
    }

    /// The client's next first flight.
    fn asks(&mut self) -> Vec<u8> {
        self.pair.client.resume().unwrap();
        let mut flight = Vec::new();
        self.pair.client.take_far(&mut flight);
        flight
    }

    /// The server's daemon takes such a flight.
    fn arrives(&mut self, flight: &[u8]) -> Result<(), SessionError> {
        let owner = key(2).verifying_key();
        let asked = asked(&owner, flight).expect("who knows the address");
        if let Some(tombstone) = self.pair.server.tombstone() {
            self.table.end(self.no, Some(tombstone), std::time::Duration::ZERO);
        }
        match self.table.find(&asked.id, asked.rest, std::time::Duration::ZERO) {
            Found::Lives((), attempt) => {
                let taken = self.pair.server.resume_on(attempt, asked.rest);
                self.table.moved(self.no, self.pair.server.attempt());
                taken
            }
            Found::Ended(answer) => self.pair.client.far_input(&answer),
            found => panic!("{found:?}"),
        }
    }

    fn resume(&mut self) {
        self.lose();
        if self.pair.client.wants_tunnel() {
            let flight = self.asks();
            self.arrives(&flight).unwrap();
        }
    }

    /// Both programs end, and both ends come to know it.
    fn end(&mut self) {
        for session in [&mut self.pair.client, &mut self.pair.server] {
            session.app_end().unwrap();
        }
        self.pair.drive().unwrap();
        assert!(self.pair.client.is_over() && self.pair.server.is_over());
    }
}

/// One flight each way, and both programs have what got lost.
// protocol: S31, S35, S36
#[test]
fn a_session_goes_on_over_another_tunnel_after_one_round_trip() {
    let mut ends = Ends::new(4000);
    let (question, answer) = (vec![1; 30_000], vec![2; 40_000]);
    ends.pair.client.app_input(&question).unwrap();
    ends.pair.server.app_input(&answer).unwrap();
    for session in [&mut ends.pair.client, &mut ends.pair.server] {
        session.take_far(&mut Vec::new());
    }
    ends.lose();
    assert!(ends.pair.client.wants_tunnel() && !ends.pair.client.is_proven());
    let flight = ends.asks();
    ends.arrives(&flight).unwrap();
    take(&mut ends.pair.server, &mut ends.pair.server_got);
    assert_eq!(ends.pair.server_got, question);
    carry(&mut ends.pair.server, &mut ends.pair.client, 4000).unwrap();
    take(&mut ends.pair.client, &mut ends.pair.client_got);
    assert!(ends.pair.client_got == answer && ends.pair.client.is_proven());
    ends.end();
}

/// The last acknowledgement may be lost as anything else: who has said it is over, and the other hears of it later.
// protocol: S32, S39
#[test]
fn an_end_that_was_not_heard_is_heard_of_later() {
    for reset in [false, true] {
        let mut ends = Ends::new(4000);
        ends.pair.server.app_input(b"answer").unwrap();
        if reset {
            ends.pair.server.app_abort();
        } else {
            ends.pair.server.app_end().unwrap();
            ends.pair.drive().unwrap();
            assert!(!ends.pair.server.is_over(), "one direction is open");
            ends.pair.client.app_end().unwrap();
            carry(&mut ends.pair.client, &mut ends.pair.server, 4000).unwrap();
        }
        // Its last word is lost with the tunnel.
        ends.pair.server.take_far(&mut Vec::new());
        assert!(ends.pair.server.is_over());
        let tombstone = ends.pair.server.tombstone().unwrap();
        ends.table.end(ends.no, Some(tombstone), std::time::Duration::ZERO);
        ends.pair.client.far_lost();
        assert!(ends.pair.client.wants_tunnel());
        let flight = ends.asks();
        let asked = asked(&key(2).verifying_key(), &flight).unwrap();
        let found = ends.table.find(&asked.id, asked.rest, std::time::Duration::ZERO);
        let Found::Ended(answer) = found else { panic!("not found") };
        ends.pair.client.far_input(&answer).unwrap();
        assert!(ends.pair.client.is_over());
        assert_eq!(ends.pair.client.poll(), reset.then_some(Event::Reset));
    }
}

/// A client whose program is gone tells the server when it can.
// protocol: S22
#[test]
fn a_reset_without_a_tunnel_is_said_over_the_next() {
    let mut ends = Ends::new(4000);
    ends.lose();
    ends.pair.client.app_abort();
    assert!(ends.pair.client.wants_tunnel());
    let flight = ends.asks();
    ends.arrives(&flight).unwrap();
    assert_eq!(ends.pair.server.poll(), Some(Event::Reset));
    ends.pair.client.far_lost();
    assert!(!ends.pair.client.wants_tunnel(), "once");
}

/// Whoever else comes with an attempt's id, or with a whole flight a second time, changes nothing.
// protocol: S31, S33, S34
#[test]
fn nobody_else_and_no_second_time_moves_a_session() {
    let mut ends = Ends::new(4000);
    ends.lose();
    let flight = ends.asks();
    let (id, rest) = {
        let asked = asked(&key(2).verifying_key(), &flight).unwrap();
        (asked.id, asked.rest.to_vec())
    };
    let mut forged = rest.clone();
    forged[HEADER] ^= 1;
    let cut = &rest[..rest.len() - 1];
    for bad in [&forged[..], cut, b"", &message(Message::Tls(b"x")), &message(Message::Sealed(&[0; 20]))] {
        assert!(ends.pair.server.resume_on(1, bad).is_err());
        assert!(ends.pair.server.wants_tunnel() && ends.pair.server.attempt() == 0);
    }
    assert!(ends.pair.server.resume_on(2, &rest).is_err(), "it is of attempt 1");
    ends.arrives(&flight).unwrap();
    let found = ends.table.find(&id, &rest, std::time::Duration::ZERO);
    assert!(matches!(found, Found::Nothing), "neither a session nor gone");
    ends.pair.server.app_input(b"answer").unwrap();
    assert!(ends.pair.server.resume_on(1, &rest).is_err());
    carry(&mut ends.pair.server, &mut ends.pair.client, 100).unwrap();
    take(&mut ends.pair.client, &mut ends.pair.client_got);
    assert_eq!(ends.pair.client_got, b"answer", "the tunnel of the first is still the session's");
}

fn message(message: Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.write(&mut out);
    out
}

/// A later attempt wins, whatever the order in which they come.
// protocol: S34
#[test]
fn the_highest_attempt_that_is_proven_wins() {
    let mut ends = Ends::new(4000);
    ends.lose();
    let first = ends.asks();
    ends.pair.client.far_lost();
    let second = ends.asks();
    ends.arrives(&second).unwrap();
    let rest = asked(&key(2).verifying_key(), &first).unwrap().rest;
    assert_eq!(ends.pair.server.resume_on(1, rest), Err(SessionError::Lost("a later attempt has won")));
    ends.pair.drive().unwrap();
    ends.end();
}

/// The other order: the server has the first when the second comes.
// protocol: S34
#[test]
fn a_tunnel_that_stands_gives_way_to_a_later_attempt() {
    let mut ends = Ends::new(4000);
    for _ in 0..3 {
        ends.pair.server.app_input(b"lost with its tunnel").unwrap();
        ends.pair.server.take_far(&mut Vec::new());
        ends.pair.client.far_lost();
        let flight = ends.asks();
        ends.arrives(&flight).unwrap();
    }
    ends.pair.drive().unwrap();
    assert_eq!(ends.pair.client_got, b"lost with its tunnel".repeat(3));
    ends.end();
}

/// The first thing on another tunnel is ACK, from both ends.
// protocol: S35
#[test]
fn another_tunnel_begins_with_ack() {
    let mut ends = Ends::new(4000);
    let secret = ends.pair.server.secret().unwrap().clone();
    let sealed = |from, what: Sealed<'_>| {
        let mut out = Vec::new();
        Sealer::new(&secret, 1, from).say(&what, &mut out);
        out
    };
    ends.lose();
    assert!(ends.pair.server.resume_on(1, &sealed(End::Client, Sealed::Fin(0))).is_err());
    assert!(!ends.pair.server.is_over() && ends.pair.server.attempt() == 0);
    ends.asks();
    let result = ends.pair.client.far_input(&sealed(End::Server, Sealed::Data { offset: 0, bytes: b"x" }));
    assert!(matches!(result, Err(SessionError::Misbehaved(_))) && ends.pair.client.is_over());
}

/// A server that has lost its sessions says so, and is believed by the attempt that asked alone, and only as the owner.
// protocol: S38
#[test]
fn gone_is_for_the_present_attempt_and_by_the_owner() {
    for (signer, attempt, believed) in [(3, 1, false), (2, 0, false), (2, 2, false), (2, 1, true)] {
        let mut ends = Ends::new(4000);
        let said = gone(&key(signer), &ends.pair.client.secret().unwrap().id(attempt));
        ends.lose();
        ends.asks();
        let heard = ends.pair.client.far_input(&said);
        assert_eq!((heard.is_ok(), ends.pair.client.is_over()), (believed, believed), "{signer} {attempt}");
        assert_eq!(ends.pair.client.poll(), believed.then_some(Event::Reset));
    }
    let mut ends = Ends::new(4000);
    let said = gone(&key(2), &ends.pair.client.secret().unwrap().id(1));
    ends.resume();
    ends.pair.drive().unwrap();
    assert!(matches!(ends.pair.client.far_input(&said), Err(SessionError::Lost(_))), "it has been proven");
}

/// So many attempts that reach nobody, and no more until one does.
// protocol: S33
#[test]
fn attempts_that_reach_nobody_are_bounded() {
    let mut ends = Ends::new(4000);
    ends.lose();
    for _ in 0..AHEAD - 1 {
        ends.asks();
        ends.pair.client.far_lost();
    }
    let flight = ends.asks();
    ends.arrives(&flight).unwrap();
    ends.pair.client.far_lost();
    assert!(matches!(ends.pair.client.resume(), Err(SessionError::Local(_))), "the server proved nothing");
    let mut ends = Ends::new(4000);
    for _ in 0..3 * AHEAD {
        ends.resume();
        ends.pair.drive().unwrap();
    }
    assert_eq!(ends.pair.client.attempt(), 3 * AHEAD);
    ends.end();
}

/// I7: a program that goes on while there is no tunnel fills no memory.
// protocol: S41
#[test]
fn a_session_without_a_tunnel_takes_little_of_its_program() {
    let mut ends = Ends::new(4000);
    ends.lose();
    for session in [&mut ends.pair.client, &mut ends.pair.server] {
        let mut sent = 0;
        while session.wants_app() {
            session.app_input(&[3; 10_000]).unwrap();
            sent += 10_000;
            assert!(sent < 1 << 20, "unbounded");
        }
        assert!((FIRST_BYTES..FIRST_BYTES + 10_000).contains(&sent), "{sent}");
    }
    let flight = ends.asks();
    ends.arrives(&flight).unwrap();
    ends.pair.drive().unwrap();
    assert!(ends.pair.client.wants_app() && ends.pair.server.wants_app());
    assert_eq!((ends.pair.client_got.len(), ends.pair.server_got.len()), (70_000, 70_000));
}

/// I7: each attempt would have opened the window anew, and the receiver would have held all of it.
// protocol: S13, S35
#[test]
fn another_tunnel_opens_no_window() {
    let mut ends = Ends::new(1 << 20);
    let (mut sent, mut kept) = (0, Vec::new());
    for _ in 0..20 {
        while ends.pair.client.wants_app() && sent < 100 << 20 {
            ends.pair.client.app_input(&[5; APP_MAX]).unwrap();
            sent += APP_MAX;
            carry(&mut ends.pair.client, &mut ends.pair.server, 1 << 20).unwrap();
            // Its program takes nothing.
            ends.pair.server.take_app(&mut kept);
            carry(&mut ends.pair.server, &mut ends.pair.client, 1 << 20).unwrap();
        }
        ends.resume();
        carry(&mut ends.pair.server, &mut ends.pair.client, 1 << 20).unwrap();
    }
    assert!(sent <= WINDOW as usize + BACKLOG + APP_MAX, "{sent}");
    ends.pair.server.app_took(kept.len());
    ends.pair.drive().unwrap();
    assert!(ends.pair.client.wants_app());
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        server: bool,
        count: usize,
    },
    End {
        server: bool,
    },
    /// Bytes travel, and the tunnel ends behind so many of them.
    Carry {
        server: bool,
        count: usize,
    },
    All,
    Lose,
    /// The client alone notices, or the server alone.
    LoseAt {
        server: bool,
    },
    /// An attempt of which the server never hears.
    InVain,
    /// Another process goes on with what the one before had.
    Restart {
        server: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 1usize..100_000).prop_map(|(server, count)| Step::Write { server, count }),
        1 => any::<bool>().prop_map(|server| Step::End { server }),
        4 => (any::<bool>(), 0usize..150_000).prop_map(|(server, count)| Step::Carry { server, count }),
        2 => Just(Step::All),
        3 => Just(Step::Lose),
        2 => any::<bool>().prop_map(|server| Step::LoseAt { server }),
        1 => Just(Step::InVain),
        2 => any::<bool>().prop_map(|server| Step::Restart { server }),
    ]
}

/// Both programs, and what each has written.
struct Life {
    ends: Ends,
    sent: [Vec<u8>; 2],
    ended: [bool; 2],
}

impl Life {
    fn play(&mut self, step: Step) {
        let Pair { client, server, client_events, server_events, .. } = &mut self.ends.pair;
        match step {
            Step::Write { server: side, count } => {
                let (session, sent) = if side { (server, &mut self.sent[1]) } else { (client, &mut self.sent[0]) };
                if session.wants_app() {
                    let bytes: Vec<u8> = (0..count).map(|at| ((sent.len() + at) % 251) as u8).collect();
                    session.app_input(&bytes).unwrap();
                    sent.extend(bytes);
                }
            }
            Step::End { server: side } => {
                if side { server } else { client }.app_end().unwrap();
                self.ended[usize::from(side)] = true;
            }
            Step::Carry { server: side, count } => {
                let (from, to) = if side { (server, client) } else { (client, server) };
                let mut bytes = Vec::new();
                from.take_far(&mut bytes);
                let whole = count >= bytes.len();
                bytes.truncate(count);
                if to.is_proven() || to.attempt() == from.attempt() {
                    let _ = to.far_input(&bytes);
                }
                if !whole {
                    self.ends.lose();
                }
            }
            Step::All if !client.wants_tunnel() && !server.wants_tunnel() => self.ends.pair.drive().unwrap(),
            Step::All => {}
            Step::Lose => self.ends.resume(),
            Step::LoseAt { server: true } => server.far_lost(),
            Step::LoseAt { server: false } => client.far_lost(),
            Step::InVain => {
                client.far_lost();
                if client.wants_tunnel() {
                    self.ends.asks();
                    self.ends.lose();
                }
            }
            Step::Restart { server: true } => restart(server, server_events),
            Step::Restart { server: false } => restart(client, client_events),
        }
        let Pair { client, server, client_got, server_got, .. } = &mut self.ends.pair;
        take(client, client_got);
        take(server, server_got);
    }
}

/// One that is over is not taken over.
fn restart(session: &mut Session, events: &mut Vec<Event>) {
    session.far_lost();
    // Its caller has them at once.
    events.extend(std::iter::from_fn(|| session.poll()));
    if let Some(carried) = session.carry(&[]) {
        *session = Session::of_carried(carried);
    }
}

/// Bytes that the program was given and did not take are given again, before all others.
// protocol: S51
#[test]
fn what_the_program_has_not_taken_is_its_own_in_the_next_process_too() {
    let mut ends = Ends::new(4000);
    ends.pair.server.app_input(b"one, two, three").unwrap();
    carry(&mut ends.pair.server, &mut ends.pair.client, 4000).unwrap();
    let mut given = Vec::new();
    ends.pair.client.take_app(&mut given);
    ends.pair.client.app_took(5);
    ends.pair.server.app_input(b", four").unwrap();
    carry(&mut ends.pair.server, &mut ends.pair.client, 4000).unwrap();
    let carried = ends.pair.client.carry(&given[5..]).unwrap();
    ends.pair.client = Session::of_carried(carried);
    ends.resume();
    take(&mut ends.pair.client, &mut ends.pair.client_got);
    assert_eq!(ends.pair.client_got, b"two, three, four");
    ends.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Tunnels that are lost at any byte, in both directions, before and after ends: every byte arrives once, and each end after it.
    #[test]
    fn no_byte_is_lost_or_doubled(steps in prop::collection::vec(step(), 0..60), chunk in 1000usize..20_000) {
        let mut life = Life { ends: Ends::new(chunk), sent: Default::default(), ended: [false; 2] };
        for step in steps {
            life.play(step);
            prop_assert!(life.sent[0].starts_with(&life.ends.pair.server_got));
            prop_assert!(life.sent[1].starts_with(&life.ends.pair.client_got));
        }
        life.ends.pair.client.app_end().unwrap();
        life.ends.pair.server.app_end().unwrap();
        let over = |ends: &Ends| (ends.pair.client.is_over(), ends.pair.server.is_over());
        for _ in 0..3 {
            if over(&life.ends) == (false, false) {
                life.ends.resume();
                life.ends.pair.drive().unwrap();
            }
        }
        let Pair { client, server, client_got, server_got, client_events, server_events, .. } = &mut life.ends.pair;
        // Who is over may be so alone: what the other still waits for is that its end was heard.
        prop_assert!(client.is_over() || server.is_over());
        prop_assert!(*server_got == life.sent[0] && *client_got == life.sent[1]);
        client_events.extend(std::iter::from_fn(|| client.poll()));
        server_events.extend(std::iter::from_fn(|| server.poll()));
        prop_assert_eq!(&client_events[..], &[Event::Accepted, Event::End]);
        prop_assert_eq!(&server_events[2..], &[Event::End]);
    }
}

/// A request to which the program has no answer yet: its end says that it came, for itself.
// protocol: S47, S48
#[test]
fn what_has_come_is_said_whatever_the_program_does() {
    let mut pair = Ends::new(16_384).pair;
    assert!(!pair.client.is_owed() && !pair.server.has_unsaid());
    pair.client.app_input(b"question").unwrap();
    assert!(!pair.client.is_owed(), "nothing was sent");
    assert!(carry(&mut pair.client, &mut pair.server, 16_384).unwrap());
    assert!(pair.client.is_owed() && pair.server.has_unsaid());
    assert!(!carry(&mut pair.server, &mut pair.client, 16_384).unwrap(), "it waits for the answer");
    pair.server.acknowledge_all();
    assert!(carry(&mut pair.server, &mut pair.client, 16_384).unwrap());
    assert!(!pair.client.is_owed() && !pair.server.has_unsaid());
    assert!(!pair.server.is_owed(), "an acknowledgement wants none");
    // Once more, for one who reads nothing: it changes nothing, and shows that somebody is there.
    assert!(pair.client.has_opened() && !pair.client.has_opened());
    pair.server.acknowledge_all();
    assert!(carry(&mut pair.server, &mut pair.client, 16_384).unwrap());
    assert!(pair.client.has_opened() && !pair.client.is_owed());
    pair.client.app_end().unwrap();
    assert!(carry(&mut pair.client, &mut pair.server, 16_384).unwrap());
    assert!(pair.client.is_owed(), "the end is owed, too");
    pair.drive().unwrap();
    assert!(!pair.client.is_owed());
}
