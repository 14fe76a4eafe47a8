//! A record holds only when all of it holds.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::crypto::kem::KEM_PUBLIC_LEN;
use crate::wire::NodeContact;

const NOW: u64 = 1_800_000_000;

fn contact(key: &SigningKey) -> NodeContact {
    NodeContact { identity: key.verifying_key(), addr: "127.1.2.3:443".parse().unwrap(), link_secret: [3; 32] }
}

fn node_record() -> (NodeRecord, SigningKey) {
    let key = SigningKey::from_seed(&[1; 32]);
    let contact = contact(&key);
    let keys = |dh, kem| PublicPathKeys { dh: [dh; 32], kem: Arc::new([kem; KEM_PUBLIC_LEN]) };
    let extension = |kind, value: &[u8]| Extension { kind, value: value.to_vec() };
    let record = NodeRecord {
        epoch: Epoch::at(&contact.node_id(), NOW),
        contact,
        revision: 3,
        keys: [keys(4, 5), keys(6, 7)],
        extensions: Extensions::new(vec![extension(1, b"what"), extension(0x8001, b"")]).unwrap(),
    };
    (record, key)
}

fn ap_record() -> (ApRecord, SigningKey) {
    let key = SigningKey::from_seed(&[2; 32]);
    let entry = RoutingEntry { entry_node: contact(&key), handle: [6; 16], until: NOW + 659 };
    let entries = vec![entry.clone(), entry];
    (ApRecord::on_grid(key.verifying_key(), NOW / STEP, 7, entries), key)
}

#[test]
fn a_good_record_holds() {
    let (record, key) = node_record();
    assert_eq!(Signed::sign(&record, &key).check(NOW), Ok(record));
    let (record, key) = ap_record();
    assert_eq!(Signed::sign(&record, &key).check(NOW), Ok(record));
}

#[test]
fn times_are_checked() {
    let (mut record, key) = ap_record();
    let signed = Signed::sign(&record, &key);
    assert_eq!(signed.check(NOW + STEPS_HELD * STEP), Err(RecordError::Expired));
    assert_eq!(signed.check(NOW - CLOCK_SKEW - 1), Err(RecordError::FromTheFuture));
    assert!(signed.check(NOW - CLOCK_SKEW).is_ok());
    record.expires = NOW + ApRecord::MAX_LIFE + 1;
    assert_eq!(Signed::sign(&record, &key).check(NOW), Err(RecordError::TooLongLived));
}

/// A1: what the record says is the same whenever in the step it was made, and no other may be told.
// protocol: R2
#[test]
fn times_lie_on_the_grid() {
    let (record, key) = ap_record();
    assert_eq!((record.issued, record.expires, record.serial), (NOW, NOW + 3 * STEP, (NOW / STEP) << 16 | 7));
    assert_eq!(record.entries[0].until, NOW + 600);
    let off: [fn(&mut ApRecord); 4] = [
        |record| record.issued += 1,
        |record| record.expires -= 1,
        |record| record.serial += 1 << 16,
        |record| record.entries[1].until += 1,
    ];
    for change in off {
        let mut record = record.clone();
        change(&mut record);
        let checked = Signed::sign(&record, &key).check(NOW + 1);
        assert_eq!(checked, Err(RecordError::OffGrid));
    }
}

/// An owner uses the keys of the epoch that its clock says, and no record beyond the second one.
// protocol: E3, R4
#[test]
fn a_node_record_holds_for_two_epochs() {
    let (record, key) = node_record();
    let signed = Signed::sign(&record, &key);
    let (start, end) = (record.epoch.start(), record.epoch.end());
    let used = |now| signed.check(now).map(|record| record.keys_at(now).map(|keys| keys.dh[0]));
    assert_eq!(used(start - CLOCK_SKEW - 1), Err(RecordError::FromTheFuture));
    assert_eq!([used(start - CLOCK_SKEW), used(start), used(end - 1)], [Ok(Some(4)); 3]);
    assert_eq!([used(end), used(end + EPOCH - 1)], [Ok(Some(6)); 2]);
    assert_eq!(used(end + EPOCH), Err(RecordError::Expired));
    assert_eq!(record.keys_at(end + EPOCH), None);
}

/// Times that are not the node's grid would say when it did something.
// protocol: R4
#[test]
fn a_node_record_off_its_epochs_is_malformed() {
    let (record, key) = node_record();
    let mut bytes = record.to_bytes();
    bytes[83 + 7] ^= 1;
    let signature = key.sign(NodeRecord::CONTEXT, &bytes);
    let signed = Signed::<NodeRecord>::from_bytes(&[&bytes[..], &signature].concat()).unwrap();
    assert_eq!(signed.check(NOW), Err(RecordError::Malformed(WireError::Value)));
}

// protocol: R1, R7
#[test]
fn the_longest_node_record_is_a_record() {
    let (mut record, key) = node_record();
    let value = vec![1; EXTENSIONS_MAX - 4];
    record.extensions = Extensions::new(vec![Extension { kind: 9, value }]).unwrap();
    let signed = Signed::sign(&record, &key);
    assert!(signed.bytes().len() <= MAX_RECORD_LEN);
    let read = Signed::<NodeRecord>::from_bytes(signed.bytes()).unwrap().check(NOW).unwrap();
    assert_eq!((read.extensions.value(9), read.extensions.value(8)), (record.extensions.value(9), None));
}

/// I6: nobody but the key's holder can make a record for its address.
#[test]
fn another_key_cannot_sign() {
    let (record, _) = ap_record();
    let forged = Signed::sign(&record, &SigningKey::from_seed(&[9; 32]));
    assert_eq!(forged.check(NOW), Err(RecordError::Signature));
}

// protocol: E1, E2, R1, R6
#[test]
fn the_encoding_is_the_one_in_the_vectors() {
    let expected = include_str!("../../vectors/records.txt");
    let (node, node_key) = node_record();
    let (ap, ap_key) = ap_record();
    let lines = [Signed::sign(&node, &node_key).bytes().to_vec(), Signed::sign(&ap, &ap_key).bytes().to_vec()];
    let read: Vec<_> =
        expected.lines().filter(|line| !line.starts_with('#')).map(|line| hex::decode(line).unwrap()).collect();
    assert_eq!(read, lines);
}

proptest! {
    #[test]
    fn a_changed_bit_is_noticed(bit in 0usize..1000 * 8) {
        let (record, key) = ap_record();
        let mut bytes = Signed::sign(&record, &key).bytes().to_vec();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let result = Signed::<ApRecord>::from_bytes(&bytes).unwrap().check(NOW);
        prop_assert!(result.is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        if let Ok(signed) = Signed::<ApRecord>::from_bytes(&bytes) { let _ = signed.check(NOW); }
        if let Ok(signed) = Signed::<NodeRecord>::from_bytes(&bytes) { let _ = signed.check(NOW); }
    }
}
