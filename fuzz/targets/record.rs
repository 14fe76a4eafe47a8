//! Records of the database: any bytes are judged without panic, and the vote is the same in any order.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use phantom_fuzz::{NOW, key};
use phantom_proto::netdb::{admit, ap_key, check, winner};
use phantom_proto::record::{ApRecord, NodeRecord, RoutingEntry, Signed};
use phantom_proto::wire::Wire;

#[derive(Arbitrary, Debug)]
struct Made {
    serial: u8,
    issued: i32,
    life: u32,
    entries: Vec<[u8; 106]>,
    signer: bool,
    flip: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Case {
    raw: Vec<u8>,
    key: Vec<u8>,
    made: Vec<Made>,
}

fn record(made: &Made) -> Vec<u8> {
    let issued = NOW.saturating_add_signed(made.issued.into());
    let entries = made.entries.iter().take(5).filter_map(|bytes| RoutingEntry::from_bytes(bytes).ok()).collect();
    let record = ApRecord {
        key: key(1).verifying_key(),
        serial: made.serial.into(),
        issued,
        expires: issued.saturating_add(made.life.into()),
        entries,
    };
    let mut bytes = Signed::sign(&record, key(if made.signer { 1 } else { 2 })).bytes().to_vec();
    if let Some((at, with)) = made.flip {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= with;
    }
    bytes
}

fuzz_target!(|case: Case| {
    let Case { raw, key: place, made } = case;
    let _ = check(NOW, &place, &raw);
    let _ = Signed::<NodeRecord>::from_bytes(&raw).map(|signed| signed.check(NOW));
    let _ = Signed::<ApRecord>::from_bytes(&raw).map(|signed| signed.check(NOW));
    let place = ap_key(&phantom_proto::ident::ApAddress::of(&key(1).verifying_key()));
    let mut all: Vec<Vec<u8>> = made.iter().take(4).map(record).collect();
    for (bytes, made) in all.iter().zip(&made) {
        let forged = !made.signer || made.flip.is_some_and(|(_, with)| with != 0);
        assert!(!forged || check(NOW, &place, bytes).is_err(), "a forged record holds");
    }
    all.push(raw);
    let best = winner(NOW, &place, all.clone()).map(|(_, bytes)| bytes);
    all.reverse();
    assert_eq!(winner(NOW, &place, all.clone()).map(|(_, bytes)| bytes), best);
    if let Some(best) = best {
        assert!(all.iter().all(|other| *other == best || admit(NOW, &place, other, Some(&best)).is_err()));
    }
});
