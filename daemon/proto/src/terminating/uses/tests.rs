use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::crypto::SigningKey;
use crate::record::RoutingEntry;
use crate::wire::{NodeContact, Wire};

const STEP_MS: u64 = STEP * 1000;

/// The middle of a step.
const NOW: u64 = 500_000 * STEP_MS + STEP_MS / 2;

const HANDLE: Handle = [7; 16];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

fn address() -> ApAddress {
    ApAddress::of(&key(9).verifying_key())
}

fn open(number: usize) -> Open {
    let mut node = [0; 32];
    node[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Open { node: NodeId(node), handle: HANDLE, first: b"first".to_vec() }
}

/// A record of an owner for node 1, of a step relative to that of `NOW`.
fn record(owner: u8, ahead: u64, count: u16) -> Vec<u8> {
    let entry_node =
        NodeContact { identity: key(1).verifying_key(), addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let entry = RoutingEntry { entry_node, handle: HANDLE, until: NOW / 1000 + 7200 };
    let step = NOW / STEP_MS + ahead;
    let record = ApRecord::on_grid(key(owner).verifying_key(), step, count, vec![entry]);
    Signed::sign(&record, &key(owner)).bytes().to_vec()
}

fn serve(uses: &mut Uses, now: u64, record: Vec<u8>) -> Result<Publication, RecordRefused> {
    uses.serve(now, &key(1).verifying_key(), &mut rng(), 0, record)
}

/// How long a record of the present step may be held.
const HOLD: u64 = 10_000;

fn serve_held(uses: &mut Uses, now: u64, record: Vec<u8>) -> Result<Publication, RecordRefused> {
    uses.serve(now, &key(1).verifying_key(), &mut rng(), HOLD, record)
}

fn says(uses: &mut Uses, word: &Word<'_>) -> First {
    uses.first(word.kind(), &word.data())
}

/// Each order of two of the words that decide, and each kind of cell that must not be the first.
// protocol: U3, U4, U5
#[test]
fn the_first_word_that_decides_binds_all_that_follow() {
    let words = [Word::Open(open(1)), Word::Lookup(Lookup(address())), Word::Serve(b"record")];
    for (first, word) in words.iter().enumerate() {
        for (second, other) in words.iter().enumerate() {
            let mut uses = Uses::new(HANDLE);
            assert_eq!(says(&mut uses, &Word::Padding), First::Control, "it decides nothing");
            assert_ne!(says(&mut uses, word), First::Misused);
            assert_eq!(says(&mut uses, other) == First::Misused, first != second, "{word:?}, then {other:?}");
            // A path that was misused ends; who asks before hears the same as before.
            assert_ne!(says(&mut uses, word), First::Misused);
        }
    }
    let mut uses = Uses::new(HANDLE);
    assert_eq!(says(&mut uses, &words[0]), First::Open { open: open(1), anew: true });
    assert_eq!(says(&mut Uses::new(HANDLE), &words[1]), First::LookUp(address()));
    assert_eq!(says(&mut Uses::new(HANDLE), &words[2]), First::Serve(b"record".to_vec()));
}

// protocol: U4
#[test]
fn what_may_not_be_the_first_cell_is_misuse_and_decides_nothing() {
    let no_address = Lookup(address()).to_bytes()[..15].to_vec();
    let bad = [
        (CellKind::Data, b"data".to_vec()),
        (CellKind::End, Vec::new()),
        (CellKind::Abort, vec![2]),
        (CellKind::Incoming, b"first".to_vec()),
        (CellKind::Found, b"record".to_vec()),
        (CellKind::Padding, b"x".to_vec()),
        (CellKind::Open, vec![1; 47]),
        (CellKind::Lookup, no_address),
    ];
    for (kind, data) in bad {
        let mut uses = Uses::new(HANDLE);
        assert_eq!(uses.first(kind, &data), First::Misused, "{kind:?}");
        assert!(uses.used_for.is_none());
    }
}

// protocol: U3, U4
#[test]
fn an_owner_hears_of_connections_where_it_serves_and_else_only_padding() {
    for serves in [false, true] {
        for kind in CellKind::ALL {
            for data in [vec![], vec![2], vec![2; 16], open(1).to_bytes()] {
                let expected = match kind {
                    CellKind::Incoming if serves => First::Incoming(data.clone()),
                    CellKind::Padding if data.is_empty() => First::Control,
                    _ => First::Misused,
                };
                assert_eq!(First::at_owner(serves, kind, &data), expected, "{kind:?}");
            }
        }
    }
}

/// Those beyond what is remembered counted as known, and were led over warm links.
// protocol: B7, B8
#[test]
fn an_entry_node_is_new_once_and_beyond_what_is_remembered_always() {
    let mut uses = Uses::new(HANDLE);
    let mut is_new = |number| match says(&mut uses, &Word::Open(open(number))) {
        First::Open { anew, .. } => anew,
        _ => panic!("it is no connection"),
    };
    assert!((0..LED).all(&mut is_new));
    assert!(!(0..LED).any(&mut is_new));
    assert!((0..2).all(|_| is_new(LED)));
    assert_eq!(uses.led.len(), LED);
}

// protocol: U12, H9
#[test]
fn a_record_of_this_step_is_published_at_once_and_one_of_the_next_within_it() {
    let mut uses = Uses::new(HANDLE);
    assert_eq!(serve(&mut uses, NOW, record(9, 0, 0)), Ok(Publication::Now(record(9, 0, 0))));
    assert_eq!(serve(&mut uses, NOW, record(9, 1, 0)), Ok(Publication::Later));
    let at = uses.publishes().unwrap();
    assert!((NOW + STEP_MS / 2..NOW + STEP_MS * 3 / 2).contains(&at));
    assert_eq!(uses.due(at - 1), None);
    assert_eq!(uses.due(at), Some(Ok(record(9, 1, 0))));
    assert_eq!(uses.due(at), None, "it is published once");
    // Withdrawn, or followed by one of the present step, it is not published at all.
    for last in [Vec::new(), record(9, 0, 1)] {
        let mut uses = Uses::new(HANDLE);
        assert_eq!(serve(&mut uses, NOW, record(9, 1, 0)), Ok(Publication::Later));
        let withdrawn = last.is_empty();
        assert_eq!(serve(&mut uses, NOW, last) == Ok(Publication::Withdrawn), withdrawn);
        assert_eq!(uses.due(NOW + 3 * STEP_MS), None);
    }
}

/// What is held keeps its moment when the record of the next step comes meanwhile, and goes when it is withdrawn.
// protocol: U12, H9
#[test]
fn a_record_that_is_held_is_published_whatever_follows_it() {
    let mut uses = Uses::new(HANDLE);
    assert_eq!(serve_held(&mut uses, NOW, record(9, 0, 0)), Ok(Publication::Later));
    let at = uses.publishes().unwrap();
    assert!((NOW..=NOW + HOLD).contains(&at));
    assert_eq!(serve_held(&mut uses, NOW, record(9, 1, 0)), Ok(Publication::Later));
    assert_eq!(uses.publishes(), Some(at));
    assert_eq!(uses.due(at), Some(Ok(record(9, 0, 0))));
    assert_eq!(uses.due(NOW + 2 * STEP_MS), Some(Ok(record(9, 1, 0))));
    // A newer one of the present step takes its place.
    assert_eq!(serve_held(&mut uses, NOW, record(9, 0, 1)), Ok(Publication::Later));
    assert_eq!(serve_held(&mut uses, NOW, record(9, 0, 2)), Ok(Publication::Later));
    assert_eq!(uses.due(NOW + HOLD), Some(Ok(record(9, 0, 2))));
    assert_eq!(serve_held(&mut uses, NOW, record(9, 0, 3)), Ok(Publication::Later));
    assert_eq!(serve_held(&mut uses, NOW, Vec::new()), Ok(Publication::Withdrawn));
    assert_eq!((uses.publishes(), uses.due(NOW + HOLD)), (None, None));
}

/// This computer slept through the step of a record, and through its life.
// protocol: H9
#[test]
fn a_record_that_expired_before_its_moment_came_is_not_published() {
    let mut uses = Uses::new(HANDLE);
    assert_eq!(serve(&mut uses, NOW, record(9, 1, 0)), Ok(Publication::Later));
    assert_eq!(uses.due(NOW + 5 * STEP_MS), Some(Err(RecordError::Expired)));
}

// protocol: H5, H6, H7, H8, U5
#[test]
fn what_does_not_hold_or_belongs_elsewhere_is_refused() {
    let refused = |record| serve(&mut Uses::new(HANDLE), NOW, record);
    assert_eq!(refused(record(9, 2, 0)), Err(RecordRefused::Record(RecordError::FromTheFuture)));
    assert!(matches!(refused(b"rubbish".to_vec()), Err(RecordRefused::Record(RecordError::Malformed(_)))));
    let mut forged = record(9, 0, 0);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(forged), Err(RecordRefused::Record(RecordError::Signature)));
    let mut elsewhere = Uses::new([8; 16]);
    assert_eq!(serve(&mut elsewhere, NOW, record(9, 0, 0)), Err(RecordRefused::Misused), "it names another path");
    let another = Uses::new(HANDLE).serve(NOW, &key(2).verifying_key(), &mut rng(), 0, record(9, 0, 0));
    assert_eq!(another, Err(RecordRefused::Misused), "it names another node");
    let mut uses = Uses::new(HANDLE);
    assert!(serve(&mut uses, NOW, record(9, 1, 0)).is_ok());
    assert_eq!(serve(&mut uses, NOW, Vec::new()), Ok(Publication::Withdrawn));
    assert_eq!(serve(&mut uses, NOW, record(8, 0, 0)), Err(RecordRefused::Misused), "it is of another address");
    let mut connects = Uses::new(HANDLE);
    says(&mut connects, &Word::Open(open(1)));
    assert_eq!(serve(&mut connects, NOW, record(9, 0, 0)), Err(RecordRefused::Misused));
}

// protocol: H7
#[test]
fn records_count_within_a_step_also_those_that_are_withdrawals_or_hold_not() {
    for record in [Vec::new(), b"rubbish".to_vec(), record(9, 0, 0)] {
        let mut uses = Uses::new(HANDLE);
        let counts =
            (0..RECORDS_PER_STEP).filter(|_| serve(&mut uses, NOW, record.clone()) != Err(RecordRefused::Misused));
        assert_eq!(counts.count(), RECORDS_PER_STEP as usize);
        assert_eq!(serve(&mut uses, NOW, record.clone()), Err(RecordRefused::Misused));
        assert_ne!(serve(&mut uses, NOW + STEP_MS, record), Err(RecordRefused::Misused));
    }
}

#[derive(Debug, Clone)]
enum Op {
    First(CellKind, Vec<u8>),
    Serve(Vec<u8>),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(&CellKind::ALL[..]);
    let data = prop_oneof![
        Just(Vec::new()),
        (0..2_000_usize).prop_map(|number| open(number).to_bytes()),
        Just(address().octets().to_vec()),
        prop::collection::vec(any::<u8>(), 0..60),
    ];
    let served = prop_oneof![
        Just(Vec::new()),
        (8..10_u8, 0..3_u64, 0..3_u16).prop_map(|(owner, ahead, count)| record(owner, ahead, count)),
        prop::collection::vec(any::<u8>(), 0..60),
    ];
    prop_oneof![
        (kind, data).prop_map(|(kind, data)| Op::First(kind, data)),
        served.prop_map(Op::Serve),
        (0..2 * STEP_MS).prop_map(Op::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever its owner says, a path has one use and one address, and what is published holds.
    #[test]
    fn whatever_comes_a_path_has_one_use_and_one_address(ops in prop::collection::vec(op(), 0..60)) {
        let (mut uses, mut now) = (Uses::new(HANDLE), NOW);
        let (mut kinds, mut published) = (BTreeSet::new(), Vec::new());
        for op in ops {
            match op {
                Op::First(kind, data) => match uses.first(kind, &data) {
                    First::Open { .. } => drop(kinds.insert("connect")),
                    First::LookUp(_) => drop(kinds.insert("ask")),
                    First::Serve(_) => drop(kinds.insert("serve")),
                    First::Incoming(_) | First::Control | First::Misused => {}
                },
                Op::Serve(record) => {
                    let empty = record.is_empty();
                    let taken = if now % 2 == 0 { serve(&mut uses, now, record) } else { serve_held(&mut uses, now, record) };
                    match taken {
                        Ok(Publication::Now(record)) => published.push(record),
                        Ok(Publication::Withdrawn) => prop_assert!(empty),
                        Ok(Publication::Later) | Err(_) => {}
                    }
                }
                Op::Pass(by) => now += by,
            }
            published.extend(uses.due(now).and_then(Result::ok));
            for record in published.drain(..) {
                kinds.insert("serve");
                let checked = Signed::<ApRecord>::from_bytes(&record).unwrap().check(now / 1000);
                prop_assert_eq!(checked.map(|checked| checked.address()).ok(), uses.address);
            }
            prop_assert!(kinds.len() <= 1 && uses.led.len() <= LED);
        }
    }
}
