//! The shelf and the tally: whatever strangers bring and answer, in any order, they stay within their bounds, and what does not hold is
//! neither kept nor found.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::{NOW, key};
use phantom_proto::ident::Operator;
use phantom_proto::netdb::{Answer, Ballot, Publisher, Quota, Request, Shelf, Table, Tally, Verdict, ap_key, check};
use phantom_proto::record::{ApRecord, RoutingEntry, STEP, Signed};
use phantom_proto::wire::{NodeContact, Wire};

const QUOTA: Quota = Quota { nodes: 2, addresses: 4 };

#[derive(Arbitrary, Debug)]
enum Op {
    /// A good record, brought by a node that may not be named in it.
    Put {
        address: u8,
        number: u8,
        named: u8,
        by: u8,
        reach: u128,
    },
    Raw {
        key: [u8; 33],
        record: Vec<u8>,
    },
    Restore {
        key: Vec<u8>,
        entry: Vec<u8>,
    },
    Kept,
    Wait(u16),
    Sweep,
    Answer {
        by: u8,
        answer: Vec<u8>,
    },
    Found {
        by: u8,
        address: u8,
        number: u8,
    },
    Silent(u8),
    Request(Vec<u8>),
}

fn operator(by: u8) -> Operator {
    Operator::V4([10, by % 8])
}

fn publisher(by: u8) -> Publisher {
    Publisher { identity: key(by % 8 + 1).verifying_key(), operator: operator(by) }
}

fn record(address: u8, number: u8, named: u8, now: u64) -> ([u8; 33], Vec<u8>) {
    let owner = key(100 + address % 16);
    let entry_node =
        NodeContact { identity: publisher(named).identity, addr: ([10, 0, 0, 1], 443).into(), link_secret: [0; 32] };
    let entry = RoutingEntry { entry_node, handle: [1; 16], until: now };
    let record = ApRecord::on_grid(owner.verifying_key(), now / STEP, number.into(), vec![entry]);
    (ap_key(&record.address()), Signed::sign(&record, owner).bytes().to_vec())
}

fuzz_target!(|input: (bool, Vec<Op>)| {
    let (is_whole, ops) = input;
    let mut now = NOW;
    let mut shelf = Shelf::new(&key(9).verifying_key(), QUOTA);
    let wanted = record(0, 0, 0, now).0;
    let mut tally = Tally::new(wanted, (0..8).map(operator), is_whole);
    let mut ballot = Ballot::new((0..8).map(operator));
    for op in ops.into_iter().take(64) {
        match op {
            Op::Put { address, number, named, by, reach } => {
                let (key, bytes) = record(address, number, named, now);
                let put = shelf.put(now, reach, &key, &bytes, &publisher(by));
                assert!(put.is_err() || named % 8 == by % 8, "who is not named brings it");
                assert!(put.is_err() || shelf.get(now, &key) == Some(&bytes[..]));
            }
            Op::Raw { key, record } => {
                let put = shelf.put(now, u128::MAX, &key, &record, &publisher(0));
                assert!(put.is_err() || check(now, &key, &record).is_ok());
            }
            Op::Restore { key, entry } => {
                let _ = shelf.restore(now, &key, &entry);
            }
            Op::Kept => {
                let kept: Vec<_> = shelf.entries().collect();
                let mut again = Shelf::new(&key(9).verifying_key(), QUOTA);
                for (key, entry) in &kept {
                    let _ = again.restore(now, key, entry);
                }
                shelf.sweep(now);
                assert_eq!(again.entries().collect::<Vec<_>>(), shelf.entries().collect::<Vec<_>>());
            }
            Op::Wait(seconds) => now += u64::from(seconds),
            Op::Sweep => shelf.sweep(now),
            Op::Answer { by, answer } => {
                let answer = Answer::from_bytes(&answer).ok();
                if let Some(answer) = &answer {
                    assert_eq!(Answer::from_bytes(&answer.to_bytes()).as_ref(), Ok(answer));
                }
                ballot.hear(operator(by), answer.as_ref());
                tally.hear(now, operator(by), answer);
            }
            Op::Found { by, address, number } => {
                tally.hear(now, operator(by), Some(Answer::Record(record(address, number, 0, now).1)));
            }
            Op::Silent(by) => {
                ballot.hear(operator(by), None);
                tally.hear(now, operator(by), None);
            }
            Op::Request(bytes) => {
                if let Ok(request) = Request::from_bytes(&bytes) {
                    assert_eq!(request.to_bytes(), bytes);
                }
            }
        }
        assert!(shelf.len(Table::Addresses) <= QUOTA.addresses && shelf.len(Table::Nodes) <= QUOTA.nodes);
        let _ = ballot.outcome();
        assert!(is_whole || !matches!(tally.verdict(), Some(Verdict::Absent)), "the region was not met");
        if let Some(Verdict::Found(found)) = tally.verdict() {
            assert!(
                ap_key(&match &found.0 {
                    phantom_proto::netdb::Value::Ap(record) => record.address(),
                    phantom_proto::netdb::Value::Node(_) => unreachable!("the key is an address's"),
                }) == wanted
            );
        }
    }
});
