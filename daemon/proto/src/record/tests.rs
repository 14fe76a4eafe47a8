//! A record holds only when all of it holds.

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
    let record = NodeRecord {
        contact: contact(&key),
        path_dh: [4; 32],
        path_kem: Box::new([5; KEM_PUBLIC_LEN]),
        issued: NOW,
        expires: NOW + 3600,
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

/// I6: nobody but the key's holder can make a record for its address.
#[test]
fn another_key_cannot_sign() {
    let (record, _) = ap_record();
    let forged = Signed::sign(&record, &SigningKey::from_seed(&[9; 32]));
    assert_eq!(forged.check(NOW), Err(RecordError::Signature));
}

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
