//! One end of a session against a stranger who says anything, with its caller doing anything: no panic, bounded memory.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::{key, rng};
use phantom_proto::crypto::SigningKey;
use phantom_proto::session::{Event, Session, gone, hello};
use phantom_proto::wire::session::{Hello, Message, ResetCode};

#[derive(Arbitrary, Debug)]
enum Op {
    Raw(Vec<u8>),
    Hello(u16),
    Tls(Vec<u8>),
    Sealed(Vec<u8>),
    /// The next bytes of a real other end.
    Real {
        limit: u16,
    },
    Reset,
    Gone(u8),
    Resume,
    ResumeOn {
        attempt: u32,
        bytes: Vec<u8>,
    },
    Verdict(bool),
    /// HELLO and a first flight of somebody who knows the address.
    Knock {
        port: u16,
        bytes: Vec<u8>,
    },
    App(Vec<u8>),
    AppEnd,
    AppAbort,
    Took(u16),
    Lost,
    GiveUp,
}

#[derive(Arbitrary, Debug)]
struct Case {
    server: bool,
    ops: Vec<Op>,
}

fn pair(server: bool) -> (Session, Session) {
    let owner = SigningKey::from_seed(key(2).seed());
    let mut client = Session::connect(&mut rng(1), key(1), &owner.verifying_key(), 80, 4000).expect("good keys");
    let mut accepted = Session::accept(Arc::new(owner));
    if server {
        return (accepted, client);
    }
    let mut flight = Vec::new();
    client.take_far(&mut flight);
    accepted.far_input(&flight).expect("honest");
    accepted.verdict(true).expect("honest");
    (client, accepted)
}

fuzz_target!(|case: Case| {
    let (mut session, mut other) = pair(case.server);
    let mut real = Vec::new();
    other.take_far(&mut real);
    let mut out = Vec::new();
    for op in case.ops.into_iter().take(64) {
        let mut message = Vec::new();
        let _ = match op {
            Op::Raw(bytes) => session.far_input(&bytes),
            Op::Hello(port) => {
                let hello = Hello { session: [0; 16], port: port.to_be_bytes(), knock: [0; 16] };
                Message::Hello(hello).write(&mut message);
                session.far_input(&message)
            }
            Op::Knock { port, bytes } => {
                Message::Hello(hello(&key(2).verifying_key(), [0; 16], port, &bytes)).write(&mut message);
                Message::Tls(&bytes).write(&mut message);
                session.far_input(&message)
            }
            Op::Tls(bytes) => {
                Message::Tls(&bytes).write(&mut message);
                session.far_input(&message)
            }
            Op::Sealed(bytes) => {
                Message::Sealed(&bytes).write(&mut message);
                session.far_input(&message)
            }
            Op::Real { limit } => {
                let part: Vec<u8> = real.drain(..real.len().min(limit.into())).collect();
                session.far_input(&part)
            }
            Op::Gone(attempt) => {
                // Of another session, if this one has a secret at all.
                session.far_input(&gone(&key(2), &[attempt; 16]))
            }
            Op::Resume => session.resume(),
            Op::ResumeOn { attempt, bytes } => session.resume_on(attempt, &bytes),
            Op::Reset => {
                Message::Reset(ResetCode::Busy).write(&mut message);
                session.far_input(&message)
            }
            Op::Verdict(accepted) => session.verdict(accepted),
            Op::App(bytes) => session.app_input(&bytes),
            Op::AppEnd => session.app_end(),
            Op::AppAbort => {
                session.app_abort();
                Ok(())
            }
            Op::Took(count) => {
                session.take_app(&mut out);
                session.app_took(count.into());
                Ok(())
            }
            Op::Lost => {
                session.far_lost();
                Ok(())
            }
            Op::GiveUp => {
                session.give_up();
                Ok(())
            }
        };
        while let Some(event) = session.poll() {
            // The real other end's program said nothing: nobody but it could have.
            assert!(!matches!(event, Event::End), "an end that nobody proved");
        }
        session.take_app(&mut out);
        assert!(out.is_empty(), "bytes that nobody sent");
        let mut far = Vec::new();
        session.take_far(&mut far);
        let _ = session.wants_app() || session.is_over() || session.app_is_over();
    }
});
