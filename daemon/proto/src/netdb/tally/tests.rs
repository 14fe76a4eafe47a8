use std::sync::Arc;

use super::*;
use crate::crypto::SigningKey;
use crate::netdb::{ap_key, node_key};
use crate::record::{ApRecord, Epoch, Extensions, PublicPathKeys, STEP, Signed};
use crate::wire::NodeContact;

const NOW: u64 = 1_800_000_000;

fn operators(count: u8) -> Vec<Operator> {
    (0..count).map(|number| Operator::V4([10, number])).collect()
}

fn record(number: u16) -> (Key, Vec<u8>) {
    let key = SigningKey::from_seed(&[1; 32]);
    let record = ApRecord::on_grid(key.verifying_key(), NOW / STEP, number, Vec::new());
    (ap_key(&record.address()), Signed::sign(&record, &key).bytes().to_vec())
}

fn node_record(keys: u8, revision: u16) -> (Key, Vec<u8>) {
    let signer = SigningKey::from_seed(&[7; 32]);
    let contact =
        NodeContact { identity: signer.verifying_key(), addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let pair = |dh: u8| PublicPathKeys { dh: [dh; 32], kem: Arc::new([2; 1184]) };
    let epoch = Epoch::at(&contact.node_id(), NOW);
    let key = node_key(&contact.node_id());
    let keys = [pair(keys), pair(100)];
    let record = NodeRecord { contact, epoch, revision, keys, extensions: Extensions::default() };
    (key, Signed::sign(&record, &signer).bytes().to_vec())
}

/// What comes out of these answers, all of different operators.
fn after(key: Key, answers: Vec<Option<Answer>>) -> Option<Verdict> {
    let asked = operators(answers.len() as u8);
    let mut tally = Tally::new(key, asked.iter().copied(), true);
    asked.iter().zip(answers).for_each(|(operator, answer)| tally.hear(NOW, *operator, answer));
    tally.verdict()
}

fn newest(verdict: Option<Verdict>) -> Option<Vec<u8>> {
    match verdict {
        Some(Verdict::Found(found)) => Some(found.1),
        _ => None,
    }
}

// protocol: D6, D14
#[test]
fn the_newest_wins_once_more_than_half_have_answered() {
    let ((key, old), (_, new)) = (record(1), record(2));
    let asked = operators(4);
    let mut tally = Tally::new(key, asked.iter().copied(), true);
    tally.hear(NOW, asked[0], Some(Answer::Record(old)));
    tally.hear(NOW, asked[1], Some(Answer::Nothing));
    assert_eq!(tally.verdict(), None, "half is not more than half: a stale record does not win by being fast");
    tally.hear(NOW, asked[2], Some(Answer::Record(new.clone())));
    assert_eq!(newest(tally.verdict()), Some(new));
}

#[test]
fn one_record_is_found_among_many_who_keep_it_back_or_are_silent() {
    let (key, record) = record(1);
    let mut answers = vec![Some(Answer::Nothing); 30];
    answers.extend(vec![None; 30]);
    answers.push(Some(Answer::Record(record.clone())));
    assert_eq!(newest(after(key, answers)), Some(record));
}

// protocol: D7
#[test]
fn there_is_none_only_when_nine_of_ten_say_so_and_nobody_is_silent() {
    let (key, _) = record(1);
    let nothing = |count| vec![Some(Answer::Nothing); count];
    let with = |count, other: Option<Answer>| [nothing(count), vec![other]].concat();
    assert_eq!(after(key, nothing(1)), Some(Verdict::Absent));
    assert_eq!(after(key, nothing(20)), Some(Verdict::Absent));
    assert_eq!(after(key, with(100, None)), Some(Verdict::Unsure), "one is silent");
    let rubbish = Some(Answer::Record(b"rubbish".to_vec()));
    assert_eq!(after(key, with(9, rubbish.clone())), Some(Verdict::Absent));
    assert_eq!(after(key, with(8, rubbish)), Some(Verdict::Unsure));
    assert_eq!(after(key, Vec::new()), Some(Verdict::Unsure), "nobody was asked");
}

/// Who answered the look-up in time were hostile nodes alone, and all of them say so.
// protocol: D40
#[test]
fn there_is_none_only_where_the_region_was_met() {
    let (key, record) = record(1);
    let asked = operators(10);
    let after = |is_whole, last: Answer| {
        let mut tally = Tally::new(key, asked.iter().copied(), is_whole);
        asked[1..].iter().for_each(|operator| tally.hear(NOW, *operator, Some(Answer::Nothing)));
        tally.hear(NOW, asked[0], Some(last));
        tally.verdict()
    };
    assert_eq!(after(true, Answer::Nothing), Some(Verdict::Absent));
    assert_eq!(after(false, Answer::Nothing), Some(Verdict::Unsure));
    assert_eq!(newest(after(false, Answer::Record(record.clone()))), Some(record), "what is there is there");
}

/// Of two nodes of one operator both must say it; and a thousand of one operator say it once.
// protocol: D7
#[test]
fn an_operator_has_one_voice() {
    let (key, _) = record(1);
    let [one, other] = [Operator::V4([10, 1]), Operator::V4([10, 2])];
    let mut tally = Tally::new(key, [one; 1000].into_iter().chain([other]), true);
    (0..1000).for_each(|_| tally.hear(NOW, one, Some(Answer::Nothing)));
    assert_eq!(tally.verdict(), None);
    tally.hear(NOW, other, Some(Answer::Stands));
    assert_eq!(tally.verdict(), Some(Verdict::Unsure), "half of the operators said no such thing");
    let mut tally = Tally::new(key, [one; 2].into_iter(), true);
    tally.hear(NOW, one, Some(Answer::Nothing));
    assert_eq!(tally.verdict(), None);
    tally.hear(NOW, one, Some(Answer::Nothing));
    assert_eq!(tally.verdict(), Some(Verdict::Absent));
}

/// A node that gives different askers different keys is known to whoever hears of two of them.
// protocol: D33
#[test]
fn different_keys_for_one_epoch_are_noticed_and_none_is_taken() {
    let ((key, one), (_, other), (_, moved)) = (node_record(1, 0), node_record(2, 1), node_record(1, 2));
    let found = |record: &Vec<u8>| Some(Answer::Record(record.clone()));
    let both = vec![found(&one), found(&one), found(&other), Some(Answer::Nothing)];
    assert_eq!(after(key, both), Some(Verdict::Contradicted));
    assert_eq!(newest(after(key, vec![found(&one), found(&moved), None])), Some(moved), "another address is none");
    let asked = operators(3);
    let mut tally = Tally::new(key, asked.iter().copied(), true);
    tally.know(NOW, other);
    asked[..2].iter().for_each(|operator| tally.hear(NOW, *operator, Some(Answer::Nothing)));
    assert_eq!(tally.verdict(), None, "the last one may have another");
    tally.hear(NOW, asked[2], found(&one));
    assert_eq!(tally.verdict(), Some(Verdict::Contradicted));
}

// protocol: D34
#[test]
fn a_record_stands_when_more_than_half_keep_it() {
    let outcome = |answers: &[Option<Answer>]| {
        let asked = operators(answers.len() as u8);
        let mut ballot = Ballot::new(asked.iter().copied());
        assert!(answers.is_empty() || ballot.outcome().is_none());
        asked.iter().zip(answers).for_each(|(operator, answer)| ballot.hear(*operator, answer.as_ref()));
        ballot.outcome().unwrap()
    };
    let (stands, refused) = (Some(Answer::Stands), Some(Answer::Refused));
    let three = [stands.clone(), stands.clone(), None];
    assert_eq!(outcome(&three), Written::Stands(Standing { keep: 2, asked: 3 }));
    let half = [stands.clone(), None];
    assert_eq!(outcome(&half), Written::TooFew(Standing { keep: 1, asked: 2 }));
    assert_eq!(outcome(&[stands, refused.clone(), refused]), Written::Refused(Standing { keep: 1, asked: 3 }));
    assert_eq!(outcome(&[]), Written::TooFew(Standing::default()));
}
