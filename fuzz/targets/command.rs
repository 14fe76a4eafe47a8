//! Override commands: any bytes are judged without panic; one value has one encoding; a log that is given whatever there is, in whatever order,
//! keeps its bounds and comes to the same bans.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::{NOW, key};
use phantom_proto::command::{Above, Action, Answer, Bundle, Command, KEPT, KeySet, Log, Signed, Target};
use phantom_proto::ident::NodeId;
use phantom_proto::wire::Wire;

#[derive(Arbitrary, Debug)]
enum Act {
    Raw(Vec<u8>),
    Ban(u8),
    Unban(u8),
}

#[derive(Arbitrary, Debug)]
struct Made {
    serial: u8,
    behind: bool,
    issued: i32,
    life: u32,
    acts: Vec<Act>,
    signers: [bool; 3],
    flip: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Case {
    command: Vec<u8>,
    bundle: Vec<u8>,
    answer: Vec<u8>,
    kept: Vec<u8>,
    made: Vec<Made>,
}

fn keys() -> KeySet {
    KeySet::new(2, (1..=3).map(|number| key(number).verifying_key()).collect()).expect("a set")
}

fn action(act: &Act) -> Option<Action> {
    match act {
        Act::Raw(bytes) => Action::from_bytes(bytes).ok(),
        Act::Ban(node) => Some(Action::Ban(Target::Node(NodeId([*node; 32])))),
        Act::Unban(node) => Some(Action::Unban(Target::Node(NodeId([*node; 32])))),
    }
}

/// The bytes, and whether two maintainers stand behind them as they are.
fn signed(made: &Made, log: &Log) -> (Vec<u8>, bool) {
    let command = Command {
        serial: if made.behind { log.highest() + 1 } else { made.serial.into() },
        predecessor: if made.behind { log.tip() } else { [0; 32] },
        issued: NOW.saturating_add_signed(made.issued.into()),
        expires: NOW.saturating_add_signed(made.issued.into()).saturating_add(made.life.into()),
        actions: made.acts.iter().take(70).filter_map(action).collect(),
    };
    let mut bundle = Bundle::new(command);
    for (number, signs) in (1..=3).zip(made.signers) {
        if signs {
            assert!(bundle.sign(&keys(), key(number)));
        }
    }
    let Some(signed) = bundle.signed(&keys()) else { return (Vec::new(), false) };
    let mut bytes = signed.to_bytes();
    let mut whole = true;
    if let Some((at, with)) = made.flip {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= with;
        whole = with == 0;
    }
    (bytes, whole)
}

fuzz_target!(|case: Case| {
    if let Ok(command) = Command::from_bytes(&case.command) {
        assert_eq!(command.to_bytes(), case.command);
    }
    if let Ok(bundle) = Signed::from_bytes(&case.bundle) {
        assert_eq!(bundle.to_bytes(), case.bundle);
        assert!(bundle.check(&keys()).is_err() && bundle.check(&KeySet::nobody()).is_err());
    }
    let none = BTreeSet::new();
    let mut log = Log::new(keys());
    if let Ok(answer) = Answer::from_bytes(&case.answer) {
        assert_eq!(answer.to_bytes(), case.answer);
        assert!(answer.0.iter().all(|bytes| log.take(NOW, bytes, &none, &[]).is_err()));
    }
    assert!(log.restore(&case.kept).is_err());
    for made in case.made.iter().take(8) {
        let (bytes, whole) = signed(made, &log);
        let taken = log.take(NOW, &bytes, &none, &[]).is_ok();
        assert!(whole || !taken, "a forged command is taken");
        assert!(log.entries().count() as u64 <= KEPT);
    }
    // As they came in whatever order, another has them by asking, and comes to the same.
    let mut other = Log::new(keys());
    for bytes in Answer::of(&log, Above(0)).0 {
        other.take(NOW, &bytes, &none, &[]).expect("it was taken before");
    }
    assert_eq!(other.bans(NOW, &none), log.bans(NOW, &none));
    assert_eq!((other.missing(), other.highest(), other.tip()), (log.missing(), log.highest(), log.tip()));
});
