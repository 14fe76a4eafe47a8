//! The network database's rules, on top of any DHT: which value may stand under which key, and which of two wins; who keeps a record
//! (`region`, `shelf`), who is asked about a key (`search`), for whom (`shares`), and what their answers mean (`tally`); of which nodes paths are made (`sample`);
//! and whether this node can be reached itself (`reach`).
//!
//! A key is `n` ‖ hash of a node id, or `a` ‖ hash of an AP address. A value is a signed record. Every node applies
//! [`admit`] to what others ask it to store, and again to what others answer: the DHT's own fields prove nothing.

mod place;
mod reach;
mod region;
mod request;
mod sample;
mod search;
mod shares;
mod shelf;
mod tally;

pub use place::{Distance, Place, Table};
pub use reach::{ASKED, Reach, Tried};
pub use region::Region;
pub use request::{ANSWER_MAX, Answer, REQUEST_MAX, Request};
pub use sample::{SAMPLE, SPARSE, Sample, Term};
pub use search::{Ended, Met, Search};
pub use shares::{Claim, Room, Shares};
pub use shelf::{NotKept, Publisher, QUOTA, Quota, Shelf};
pub use tally::{Ballot, Standing, Tally, Verdict, Written};

use crate::crypto::{Hash32, derive};
use crate::ident::{ApAddress, NodeId};
use crate::record::{ApRecord, MAX_RECORD_LEN, NodeRecord, Record, RecordError, Signed};

/// Length of a key in bytes.
pub const KEY_LEN: usize = 33;

const NODE: u8 = b'n';
const AP: u8 = b'a';

/// A key of the database.
pub type Key = [u8; KEY_LEN];

/// Where a node's record stands.
// protocol: D1
pub fn node_key(id: &NodeId) -> Key {
    key(NODE, derive("phantom v1 netdb node key", &[&id.0]))
}

/// Where an AP address's record stands.
pub fn ap_key(address: &ApAddress) -> Key {
    key(AP, derive("phantom v1 netdb ap key", &[&address.octets()]))
}

fn key(kind: u8, hash: Hash32) -> Key {
    let mut key = [kind; KEY_LEN];
    key[1..].copy_from_slice(&hash);
    key
}

/// Whether bytes have the form of a key of either table.
pub fn is_key(key: &Key) -> bool {
    matches!(key[0], NODE | AP)
}

/// Why a value is not stored or not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key is of no table.
    #[error("no table has such a key")]
    Key,
    /// The value is longer than any record.
    #[error("the value is too long")]
    TooLong,
    /// The record does not hold.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record belongs under another key.
    #[error("the record belongs under another key")]
    WrongKey,
    /// What stands there already wins.
    #[error("a newer record stands there")]
    Older,
}

/// A value that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of the node table.
    Node(Box<NodeRecord>),
    /// Of the AP table.
    Ap(ApRecord),
}

/// Checks a value against its key and the time (seconds since 1970).
// protocol: D2
pub fn check(now: u64, key: &[u8], bytes: &[u8]) -> Result<Value, Refused> {
    if bytes.len() > MAX_RECORD_LEN {
        return Err(Refused::TooLong);
    }
    let (value, expected) = match key.first() {
        Some(&NODE) => {
            let record = checked::<NodeRecord>(now, bytes)?;
            let expected = node_key(&record.contact.node_id());
            (Value::Node(Box::new(record)), expected)
        }
        Some(&AP) => {
            let record = checked::<ApRecord>(now, bytes)?;
            let expected = ap_key(&record.address());
            (Value::Ap(record), expected)
        }
        _ => return Err(Refused::Key),
    };
    if expected[..] == *key { Ok(value) } else { Err(Refused::WrongKey) }
}

fn checked<T: Record>(now: u64, bytes: &[u8]) -> Result<T, RecordError> {
    Signed::<T>::from_bytes(bytes)?.check(now)
}

/// Decides whether `new` may take the place of `old` under `key`. Equal values are admitted, so that they can be stored anew.
///
/// The larger version wins; of two different records with one version the one with the larger bytes, on every node alike.
// protocol: D2, D3
pub fn admit(now: u64, key: &[u8], new: &[u8], old: Option<&[u8]>) -> Result<Value, Refused> {
    let value = check(now, key, new)?;
    let Some(old) = old else { return Ok(value) };
    // What stands there and does not hold any more loses to anything.
    let Ok(standing) = check(now, key, old) else { return Ok(value) };
    if (version(&value), new) >= (version(&standing), old) { Ok(value) } else { Err(Refused::Older) }
}

fn version(value: &Value) -> (u64, u16) {
    match value {
        Value::Node(record) => record.version(),
        Value::Ap(record) => (record.serial, 0),
    }
}

/// The vote on a look-up: of all answers that hold the one that wins on every node. `None`: no answer holds.
// protocol: D6
pub fn winner(now: u64, key: &[u8], answers: impl IntoIterator<Item = Vec<u8>>) -> Option<(Value, Vec<u8>)> {
    let mut best: Option<(Value, Vec<u8>)> = None;
    for answer in answers {
        let standing = best.as_ref().map(|(_, bytes)| bytes.as_slice());
        if let Ok(value) = admit(now, key, &answer, standing) {
            best = Some((value, answer));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;
    use crate::record::{Epoch, Extensions, PublicPathKeys, STEP};
    use crate::wire::NodeContact;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn record(seed: u8, serial: u64) -> (Key, Vec<u8>) {
        let key = SigningKey::from_seed(&[seed; 32]);
        let record = ApRecord::on_grid(key.verifying_key(), NOW / STEP, serial as u16, Vec::new());
        (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec())
    }

    /// Computed by scripts/vectors/names.py.
    // protocol: D1, D24
    #[test]
    fn independently_computed_keys() {
        let vector = |name: &str| {
            let lines = include_str!("../../vectors/names.txt").lines();
            lines.filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name).unwrap().1
        };
        let key = crate::crypto::VerifyingKey(hex::decode(vector("key")).unwrap().try_into().unwrap());
        assert_eq!(hex::encode(node_key(&NodeId::of(&key))), vector("node-db-key"));
        assert_eq!(hex::encode(ap_key(&ApAddress::of(&key))), vector("ap-db-key"));
        let [node, ap] = [Place::of_node(&key), Place::of_key(&ap_key(&ApAddress::of(&key)))];
        assert_eq!([node, ap].map(|place| place.to_string()), [vector("node-place"), vector("ap-place")]);
        assert_eq!(format!("{:032x}", node.distance(&ap)), vector("distance"));
    }

    // protocol: D2, D6
    #[test]
    fn the_newest_record_wins_and_older_ones_are_refused() {
        let ((key, one), (_, two)) = (record(1, 1), record(1, 2));
        assert!(admit(NOW, &key, &two, Some(&one)).is_ok());
        assert_eq!(admit(NOW, &key, &one, Some(&two)), Err(Refused::Older));
        assert!(admit(NOW, &key, &one, Some(&one)).is_ok());
        assert!(admit(NOW, &key, &one, Some(b"rubbish")).is_ok());
        let answers = [one.clone(), two.clone(), b"rubbish".to_vec(), one];
        assert_eq!(winner(NOW, &key, answers).map(|(_, bytes)| bytes), Some(two));
    }

    /// An owner that signs two records with one serial does not split the network: all take the same one.
    // protocol: D3
    #[test]
    fn of_two_records_with_one_version_the_larger_wins_everywhere() {
        let key = SigningKey::from_seed(&[1; 32]);
        let made = |port: u16| {
            let addr = ([10, 0, 0, 1], port).into();
            let entry_node = NodeContact { identity: key.verifying_key(), addr, link_secret: [0; 32] };
            let entry = crate::record::RoutingEntry { entry_node, handle: [1; 16], until: NOW };
            let record = ApRecord::on_grid(key.verifying_key(), NOW / STEP, 1, vec![entry]);
            (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec())
        };
        let ((key, small), (_, large)) = (made(1), made(2));
        assert!(small < large && admit(NOW, &key, &large, Some(&small)).is_ok());
        assert_eq!(admit(NOW, &key, &small, Some(&large)), Err(Refused::Older));
        for order in [[small.clone(), large.clone()], [large.clone(), small]] {
            assert_eq!(winner(NOW, &key, order).map(|(_, bytes)| bytes), Some(large.clone()));
        }
    }

    /// I6: under an address stands only what its key's holder signed.
    // protocol: D2
    #[test]
    fn records_stand_under_their_own_key_only() {
        let ((_, one), (other, _)) = (record(1, 1), record(2, 1));
        assert_eq!(admit(NOW, &other, &one, None), Err(Refused::WrongKey));
        assert_eq!(check(NOW, b"x", &one), Err(Refused::Key));
        assert_eq!(check(NOW, b"", &one), Err(Refused::Key));
        assert_eq!(check(NOW, &other, &[0; MAX_RECORD_LEN + 1]), Err(Refused::TooLong));
    }

    /// A node that changes its address within an epoch is not kept from it by the larger bytes of its old record.
    #[test]
    fn of_two_node_records_of_one_epoch_the_later_revision_wins() {
        let signer = SigningKey::from_seed(&[7; 32]);
        let made = |revision: u16, port: u16| {
            let addr = ([10, 0, 0, 1], port).into();
            let contact = NodeContact { identity: signer.verifying_key(), addr, link_secret: [0; 32] };
            let keys = PublicPathKeys { dh: [1; 32], kem: std::sync::Arc::new([2; 1184]) };
            let epoch = Epoch::at(&contact.node_id(), NOW);
            let keys = [keys.clone(), keys];
            let record = NodeRecord { contact, epoch, revision, keys, extensions: Extensions::default() };
            Signed::sign(&record, &signer).bytes().to_vec()
        };
        let key = node_key(&NodeId::of(&signer.verifying_key()));
        let (old, new) = (made(0, 9), made(1, 8));
        assert!(old > new && admit(NOW, &key, &new, Some(&old)).is_ok());
        assert_eq!(admit(NOW, &key, &old, Some(&new)), Err(Refused::Older));
    }

    // protocol: D5
    #[test]
    fn expired_records_lose_to_anything() {
        let ((key, old), (_, new)) = (record(1, 9), record(1, 1));
        assert_eq!(check(NOW + 3 * STEP, &key, &old), Err(Refused::Record(RecordError::Expired)));
        assert!(admit(NOW, &key, &new, Some(&old)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = admit(NOW, &key, &value, Some(&value));
            let mut key = key;
            key.insert(0, AP);
            let _ = admit(NOW, &key, &value, None);
        }
    }
}
