use proptest::prelude::*;

use super::*;
use crate::crypto::SigningKey;
use crate::netdb::ap_key;
use crate::record::{ApRecord, RoutingEntry, STEP, STEPS_HELD, Signed};
use crate::wire::NodeContact;

const NOW: u64 = 1_800_000_000;
const SMALL: Quota = Quota { nodes: 4, addresses: 8 };

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn publisher(node: u8) -> Publisher {
    Publisher { identity: signer(node).verifying_key(), operator: Operator::V4([10, node]) }
}

/// The record of an address (`10 * high + low` names it) for the step at `now`, with an entry at a node.
fn record(address: u8, node: u8, now: u64) -> (Key, Vec<u8>) {
    let key = SigningKey::from_seed(&[[address; 16], [77; 16]].concat().try_into().unwrap());
    let addr = ([10, node, 0, 1], 443).into();
    let entry_node = NodeContact { identity: signer(node).verifying_key(), addr, link_secret: [0; 32] };
    let entry = RoutingEntry { entry_node, handle: [1; 16], until: now };
    let record = ApRecord::on_grid(key.verifying_key(), now / STEP, 0, vec![entry]);
    (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec())
}

fn put(shelf: &mut Shelf, address: u8, node: u8, now: u64) -> Result<(), NotKept> {
    let (key, record) = record(address, node, now);
    shelf.put(now, Distance::MAX, &key, &record, &publisher(node))
}

fn has(shelf: &Shelf, address: u8, now: u64) -> bool {
    shelf.get(now, &record(address, 1, now).0).is_some()
}

fn shelf() -> Shelf {
    Shelf::new(&signer(1).verifying_key(), SMALL)
}

// protocol: D25
#[test]
fn only_a_node_that_is_named_in_a_record_brings_it() {
    let mut shelf = shelf();
    let (key, bytes) = record(1, 2, NOW);
    assert_eq!(shelf.put(NOW, Distance::MAX, &key, &bytes, &publisher(3)), Err(NotKept::Foreign));
    assert_eq!(shelf.get(NOW, &key), None);
    assert_eq!(shelf.put(NOW, Distance::MAX, &key, &bytes, &publisher(2)), Ok(()));
    assert_eq!(shelf.get(NOW, &key), Some(&bytes[..]));
    let (old, older) = record(1, 2, NOW - STEP);
    assert_eq!(shelf.put(NOW, Distance::MAX, &old, &older, &publisher(2)), Err(NotKept::Refused(Refused::Older)));
}

// protocol: D25
#[test]
fn a_key_beyond_reach_is_not_kept() {
    let mut shelf = shelf();
    let (key, bytes) = record(1, 2, NOW);
    let distance = shelf.distance(&key);
    assert_eq!(shelf.put(NOW, distance - 1, &key, &bytes, &publisher(2)), Err(NotKept::Far));
    assert_eq!(shelf.put(NOW, distance, &key, &bytes, &publisher(2)), Ok(()));
}

/// What maintainers insert stands everywhere, but never before what is newer; what they throw out is gone from both tables.
// protocol: M13
#[test]
fn maintainers_insert_a_record_anywhere_and_throw_out_what_stands() {
    let mut shelf = shelf();
    let own = Operator::V4([10, 1]);
    let (key, newer) = record(1, 2, NOW);
    let (_, older) = record(1, 2, NOW - STEP);
    assert_eq!(shelf.put(NOW, 0, &key, &newer, &publisher(3)), Err(NotKept::Far));
    assert_eq!(shelf.put_for_maintainers(NOW, &key, &newer, own), Ok(()));
    assert_eq!(shelf.put_for_maintainers(NOW, &key, &older, own), Err(NotKept::Refused(Refused::Older)));
    assert_eq!(shelf.get(NOW, &key), Some(&newer[..]));
    put(&mut shelf, 2, 2, NOW).unwrap();
    shelf.retain(|one, bytes| *one != key || bytes != newer);
    assert!(!has(&shelf, 1, NOW) && has(&shelf, 2, NOW));
}

/// Who came first does not keep all: whoever has most gives way, to whoever has less.
// protocol: D17, D26
#[test]
fn whoever_fills_a_table_takes_the_places_of_its_own() {
    let mut shelf = shelf();
    let full = (0..100).map(|address| put(&mut shelf, address, 2, NOW)).filter(Result::is_err).count();
    assert_eq!(shelf.len(Table::Addresses), SMALL.addresses);
    assert!(full > 0);
    for node in 3..7 {
        assert_eq!(put(&mut shelf, 100 + node, node, NOW), Ok(()), "the first of another operator");
    }
    let _ = (0..100).map(|address| put(&mut shelf, address, 2, NOW)).count();
    assert!((3..7).all(|node| has(&shelf, 100 + node, NOW)), "a flood pushes others out");
    assert_eq!(shelf.len(Table::Addresses), SMALL.addresses);
}

// protocol: D26
#[test]
fn of_one_operators_new_records_the_farthest_goes() {
    let mut shelf = shelf();
    let all: Vec<u8> = (0..100).collect();
    all.iter().for_each(|address| assert_ne!(put(&mut shelf, *address, 2, NOW), Err(NotKept::Far)));
    let mut nearest = all;
    nearest.sort_by_key(|address| shelf.distance(&record(*address, 2, NOW).0));
    let (near, far) = nearest.split_at(SMALL.addresses);
    assert!(near.iter().all(|address| has(&shelf, *address, NOW)));
    assert!(!far.iter().any(|address| has(&shelf, *address, NOW)));
}

/// An honest record of an hour ago stays while new ones of a thousand operators come.
// protocol: D26
#[test]
fn half_of_a_table_is_for_records_that_were_renewed() {
    let mut shelf = shelf();
    let later = NOW + STEP;
    for address in 0..4 {
        put(&mut shelf, address, 2, NOW).unwrap();
        put(&mut shelf, address, 2, later).unwrap();
    }
    for address in 4..200 {
        let _ = put(&mut shelf, address, 3 + address % 50, later);
    }
    assert!((0..4).all(|address| has(&shelf, address, later)), "new ones push renewed ones out");
    // And the other half is for new ones, however many are renewed.
    let mut shelf = self::shelf();
    for address in 0..8 {
        put(&mut shelf, address, 2 + address, NOW).unwrap();
        put(&mut shelf, address, 2 + address, later).unwrap();
    }
    for address in 20..24 {
        assert_eq!(put(&mut shelf, address, 30, later), Ok(()));
    }
    assert!((20..24).all(|address| has(&shelf, address, later)));
}

/// The same record again is no renewal, nor one for the same step, nor one after a gap.
#[test]
fn a_renewal_is_a_record_of_a_later_step_while_the_last_one_holds() {
    let mut shelf = shelf();
    let renewals = |shelf: &Shelf| shelf.addresses.slots.values().next().unwrap().renewals;
    put(&mut shelf, 1, 2, NOW).unwrap();
    put(&mut shelf, 1, 2, NOW).unwrap();
    assert_eq!(renewals(&shelf), 0);
    put(&mut shelf, 1, 2, NOW + STEP).unwrap();
    put(&mut shelf, 1, 2, NOW + 2 * STEP).unwrap();
    assert_eq!(renewals(&shelf), 2);
    put(&mut shelf, 1, 2, NOW + (2 + STEPS_HELD + 1) * STEP).unwrap();
    assert_eq!(renewals(&shelf), 0);
}

// protocol: D5, D26
#[test]
fn what_has_expired_goes_first_and_is_told_nobody() {
    let mut shelf = shelf();
    (0..8).for_each(|address| put(&mut shelf, address, 2 + address, NOW).unwrap());
    let later = NOW + (STEPS_HELD + 1) * STEP;
    assert!((0..8).all(|address| !has(&shelf, address, later)));
    (20..28).for_each(|address| put(&mut shelf, address, 2, later).unwrap());
    assert!((20..28).all(|address| has(&shelf, address, later)));
    shelf.sweep(later + STEPS_HELD * STEP);
    assert!(shelf.is_empty());
}

/// What a disk gives back, whole, torn or for another key.
// protocol: D27
#[test]
fn what_was_kept_is_there_after_a_restart_as_far_as_it_holds() {
    let mut shelf = shelf();
    put(&mut shelf, 1, 2, NOW).unwrap();
    put(&mut shelf, 1, 2, NOW + STEP).unwrap();
    put(&mut shelf, 2, 3, NOW + STEP).unwrap();
    let kept: Vec<_> = shelf.entries().collect();
    let mut again = self::shelf();
    assert!(kept.iter().all(|(key, entry)| again.restore(NOW + STEP, key, entry)));
    assert_eq!(again.addresses.slots, shelf.addresses.slots);
    let mut none = self::shelf();
    for (key, entry) in &kept {
        let mut torn = entry.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert!(!none.restore(NOW + STEP, key, &torn) && !none.restore(NOW + STEP, key, &entry[..5]));
        assert!(!none.restore(NOW + STEP, &key[1..], entry) && !none.restore(NOW + 9 * STEP, key, entry));
    }
    assert!(!none.restore(NOW + STEP, &kept[0].0, &kept[1].1));
    assert!(none.is_empty());
}

#[derive(Debug, Clone)]
enum Op {
    Put { address: u8, node: u8, reach: u8 },
    Wait(u64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..40u8, 2..6u8, any::<u8>()).prop_map(|(address, node, reach)| Op::Put { address, node, reach }),
        1 => (0..2 * STEP).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_shelf_stays_within_its_bounds_and_gives_only_what_holds(ops in prop::collection::vec(op(), 1..120)) {
        let (mut shelf, mut now) = (shelf(), NOW);
        for op in ops {
            match op {
                Op::Wait(seconds) => now += seconds,
                Op::Sweep => shelf.sweep(now),
                Op::Put { address, node, reach } => {
                    let reach = Distance::from(reach) << 120 | Distance::MAX >> 8;
                    let (key, bytes) = record(address, node, now);
                    let before = shelf.get(now, &key).map(<[u8]>::to_vec);
                    let result = shelf.put(now, reach, &key, &bytes, &publisher(node));
                    let after = shelf.get(now, &key).map(<[u8]>::to_vec);
                    prop_assert_eq!(after, if result.is_ok() { Some(bytes) } else { before });
                    prop_assert!(result.is_err() || shelf.distance(&key) <= reach);
                    if result == Err(NotKept::Full) {
                        let of = |operator| shelf.addresses.slots.values()
                            .filter(|slot| slot.renewals == 0 && slot.operator == operator).count();
                        let own = of(publisher(node).operator) + 1;
                        prop_assert!((2..6).all(|other| of(publisher(other).operator) <= own), "others have more");
                    }
                }
            }
            prop_assert!(shelf.len(Table::Addresses) <= SMALL.addresses);
            for (key, _) in shelf.entries() {
                let key = key.try_into().unwrap();
                prop_assert!(shelf.get(now, &key).is_none_or(|bytes| check(now, &key, bytes).is_ok()));
            }
        }
    }

    #[test]
    fn any_bytes_of_a_disk_are_judged_without_panic(key in prop::collection::vec(any::<u8>(), 0..40), entry in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut shelf = shelf();
        prop_assert!(!shelf.restore(NOW, &key, &entry));
    }
}
