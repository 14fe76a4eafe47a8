//! Two sessions with somebody between them: whatever he does, a program gets a prefix of what the other one sent, and an
//! end only when it is all of it; and over another tunnel, which he leaves alone, all of it arrives.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::{key, rng};
use phantom_proto::crypto::SigningKey;
use phantom_proto::ident::ApAddress;
use phantom_proto::session::{Event, Session, SessionError, asked};

#[derive(Arbitrary, Debug)]
enum Op {
    Write { server: bool, bytes: Vec<u8> },
    Much { server: bool, kilobytes: u8 },
    End { server: bool },
    Abort { server: bool },
    Carry { server: bool, limit: u16 },
    All,
    Change { server: bool, at: u16, with: u8 },
    Drop { server: bool, from: u16, count: u16 },
    Inject { server: bool, at: u16, bytes: Vec<u8> },
    Took { server: bool },
    Cut,
    Resume,
}

struct Side {
    session: Session,
    /// On its way from this side.
    way: Vec<u8>,
    wrote: Vec<u8>,
    got: Vec<u8>,
    untaken: usize,
    ended_here: bool,
    ended_there: bool,
    dead: bool,
}

impl Side {
    fn new(session: Session) -> Self {
        Self {
            session,
            way: Vec::new(),
            wrote: Vec::new(),
            got: Vec::new(),
            untaken: 0,
            ended_here: false,
            ended_there: false,
            dead: false,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if !self.ended_here && self.session.wants_app() && self.session.app_input(bytes).is_ok() {
            self.wrote.extend_from_slice(bytes);
        }
    }

    fn settle(&mut self) {
        while let Some(event) = self.session.poll() {
            match event {
                Event::Hello { port } => self.dead |= self.session.verdict(port == 80).is_err(),
                Event::Peer { address, src_port, dst_port } => {
                    assert_eq!((src_port, dst_port), (4000, 80));
                    assert_eq!(address, ApAddress::of(&key(1).verifying_key()));
                }
                Event::End => self.ended_there = true,
                Event::Accepted | Event::Refused | Event::Reset => {}
            }
        }
        let before = self.got.len();
        self.session.take_app(&mut self.got);
        self.untaken += self.got.len() - before;
        self.session.take_far(&mut self.way);
    }
}

fn carry(sides: &mut [Side; 2], from: usize, limit: usize) -> bool {
    sides[from].settle();
    let count = sides[from].way.len().min(limit);
    let part: Vec<u8> = sides[from].way.drain(..count).collect();
    let to = &mut sides[1 - from];
    if !part.is_empty() && !to.dead {
        let result = to.session.far_input(&part);
        to.dead = result.is_err() && !matches!(result, Err(SessionError::Lost(_)));
    }
    to.settle();
    !part.is_empty()
}

/// Both lose their tunnel.
fn cut(sides: &mut [Side; 2]) {
    for side in sides {
        side.settle();
        side.session.far_lost();
        side.way.clear();
    }
}

/// The client brings another one.
fn resume([client, server]: &mut [Side; 2]) {
    if client.session.resume().is_ok() {
        client.session.take_far(&mut client.way);
        let flight = std::mem::take(&mut client.way);
        let asked = asked(&key(2).verifying_key(), &flight).expect("it knows the address");
        let attempt = client.session.attempt();
        assert_eq!(client.session.secret().map(|secret| secret.id(attempt)), Some(asked.id));
        let _ = server.session.resume_on(attempt, asked.rest);
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let owner = SigningKey::from_seed(key(2).seed());
    let client = Session::connect(&mut rng(1), key(1), &owner.verifying_key(), 80, 4000).expect("good keys");
    let mut sides = [Side::new(client), Side::new(Session::accept(Arc::new(owner)))];
    let (mut tampered, mut aborted) = (false, false);
    for op in ops.into_iter().take(64) {
        match op {
            Op::Write { server, bytes } => sides[usize::from(server)].write(&bytes),
            Op::Much { server, kilobytes } => {
                let bytes: Vec<u8> = (0..usize::from(kilobytes) * 1024).map(|index| (index / 7) as u8).collect();
                sides[usize::from(server)].write(&bytes);
            }
            Op::End { server } => {
                let side = &mut sides[usize::from(server)];
                side.ended_here = true;
                let _ = side.session.app_end();
            }
            Op::Abort { server } => {
                (tampered, aborted) = (true, true);
                sides[usize::from(server)].session.app_abort();
            }
            Op::Carry { server, limit } => drop(carry(&mut sides, usize::from(server), limit.into())),
            Op::All => while carry(&mut sides, 0, 65_536) | carry(&mut sides, 1, 65_536) {},
            Op::Change { server, at, with } => {
                let way = &mut sides[usize::from(server)].way;
                if !way.is_empty() {
                    let at = usize::from(at) % way.len();
                    way[at] ^= with;
                    tampered = true;
                }
            }
            Op::Drop { server, from, count } => {
                let way = &mut sides[usize::from(server)].way;
                let from = usize::from(from).min(way.len());
                let to = (from + usize::from(count)).min(way.len());
                tampered |= way.drain(from..to).count() > 0;
            }
            Op::Inject { server, at, bytes } => {
                let way = &mut sides[usize::from(server)].way;
                let at = usize::from(at).min(way.len());
                way.splice(at..at, bytes);
                tampered = true;
            }
            Op::Took { server } => {
                let side = &mut sides[usize::from(server)];
                side.session.app_took(std::mem::take(&mut side.untaken));
            }
            Op::Cut => {
                tampered = true;
                cut(&mut sides);
            }
            Op::Resume => {
                tampered = true;
                cut(&mut sides);
                resume(&mut sides);
            }
        }
        for (side, other) in [(0, 1), (1, 0)] {
            assert!(sides[other].wrote.starts_with(&sides[side].got), "wrong bytes were delivered");
            assert!(!sides[side].ended_there || sides[side].got == sides[other].wrote, "cut off, and called an end");
        }
    }
    // What happened before both ends had a secret may have ended the session.
    let stands = sides.iter().all(|side| side.session.secret().is_some()) && !aborted;
    if tampered && stands {
        cut(&mut sides);
        resume(&mut sides);
    }
    // Who is over has said so to nobody, perhaps: there the other one waits in vain, and has all.
    let over = sides.iter().any(|side| side.session.is_over());
    if !tampered || (stands && !over) {
        assert!(sides.iter().all(|side| !side.dead), "honest ends failed");
        while carry(&mut sides, 0, 65_536) | carry(&mut sides, 1, 65_536) {}
        for (side, other) in [(0, 1), (1, 0)] {
            assert_eq!(sides[side].got, sides[other].wrote);
            assert_eq!(sides[side].ended_there, sides[other].ended_here);
        }
    }
});
