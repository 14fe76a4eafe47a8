//! Vectors of scripts/vectors/path.py, which computes them from docs/protocol.md with other libraries.

use zeroize::Zeroizing;

use super::*;
use crate::crypto::noise::NoiseKeys;
use crate::crypto::{Hash32, PathSecret, VerifyingKey};
use crate::ident::PathId;
use crate::path::array::{ArrayKey, Shared, first_tag, slot_key};
use crate::wire::Wire;
use crate::wire::array::{
    BuildId, FIRST_LEN, FirstPackage, Orders, REPLY_LEN, SECOND_LEN, SLOT_LEN, SLOTS, SecondPackage, Segment, empty,
    read_padded, write_padded,
};

/// BLAKE3 output of any length over a short seed.
fn stream<const LEN: usize>(seed: impl AsRef<[u8]>) -> [u8; LEN] {
    let mut out = [0; LEN];
    fill(seed.as_ref(), &mut out);
    out
}

fn fill(seed: &[u8], out: &mut [u8]) {
    blake3::Hasher::new().update(seed).finalize_xof().fill(out);
}

fn array<const LEN: usize>(seed: &[u8]) -> Box<[[u8; LEN]; SLOTS]> {
    let mut array = empty::<LEN>();
    fill(seed, array.as_flattened_mut());
    array
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    blake3::hash(bytes).as_bytes().to_vec()
}

fn contact(name: &str) -> NodeContact {
    let identity = VerifyingKey(stream(format!("{name} key")));
    NodeContact { identity, addr: ([10, 1, 2, 3], 443).into(), link_secret: stream(format!("{name} link secret")) }
}

fn side(name: &str, dial: bool) -> Segment {
    Segment { neighbour: contact(name), path: PathId(stream(format!("{name} path id"))), dial }
}

fn first_package() -> FirstPackage {
    FirstPackage {
        expires: 1_800_000_000,
        ephemeral: Box::new(stream("ephemeral")),
        array_key: Zeroizing::new(stream("array key")),
        array_mac: stream("array mac"),
        reply_index: 7,
        previous: NodeId(stream("previous")),
        build_in: BuildId(stream("build in")),
        build_out: BuildId(stream("build out")),
        next: contact("next"),
    }
}

fn second_package(role: u8) -> SecondPackage {
    let until = 1_800_003_600;
    let orders = match role {
        1 => Orders::Forget,
        2 => Orders::Relay { until, sides: Box::new([side("one", true), side("two", false)]) },
        _ => Orders::Terminate { until, side: side("one", false) },
    };
    SecondPackage { array_mac: stream("array mac"), orders }
}

/// What is in a package, as it is written and read with its padding.
fn payload<T: Wire + PartialEq>(package: &T, len: usize) -> Vec<u8> {
    let padded = write_padded(package, len).unwrap();
    assert!(read_padded::<T>(&padded).is_ok_and(|read| read == *package));
    let bytes = package.to_bytes();
    assert!(padded.len() == len && padded.starts_with(&bytes) && padded[bytes.len()..].iter().all(|byte| *byte == 0));
    bytes
}

/// What the code makes of a line's inputs, to be compared with its results.
fn computed(what: &str, fields: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let key = |index: usize| -> Hash32 { fields[index].as_slice().try_into().unwrap() };
    let array_key = || ArrayKey::new(&key(0));
    let own = || usize::from(fields[1][0]);
    match what {
        "order" => {
            let mut order = vec![0; SLOTS];
            (0..SLOTS).for_each(|old| order[array_key().leaves_at(old)] = old as u8);
            vec![order]
        }
        "mac" => {
            let mut setup = array::<SLOT_LEN>(&fields[2]);
            setup[own()] = [0; SLOT_LEN];
            vec![array_key().mac(&setup).to_vec()]
        }
        "setup" => vec![hash(array_key().pass_setup(own(), &mut array(&fields[2])).as_flattened())],
        "replies" => {
            let (reply, mut replies) = (stream::<REPLY_LEN>(&fields[2]), array::<REPLY_LEN>(&fields[3]));
            array_key().pass_replies(own(), &reply, &mut replies);
            vec![hash(replies.as_flattened())]
        }
        "tag" => vec![first_tag(&slot_key(&VerifyingKey(key(0)), &key(1)), &stream(&fields[2])).to_vec()],
        "shared" => {
            let keys = NoiseKeys { to_responder: Zeroizing::new(key(0)), to_initiator: Zeroizing::new(key(1)) };
            let shared = Shared::new(&keys);
            vec![shared.array_key.to_vec(), shared.tag.to_vec(), shared.path_secret.0.to_vec()]
        }
        "first" => vec![payload(&first_package(), FIRST_LEN)],
        "second" => vec![payload(&second_package(fields[0][0]), SECOND_LEN)],
        "handle" => vec![handle(&PathSecret(Zeroizing::new(key(0)))).to_vec()],
        other => panic!("no vectors of {other} are known"),
    }
}

// protocol: G2, G3, P9, Q1, Q3, Q4, Z1, Z2
#[test]
fn independently_computed_vectors() {
    let lines = include_str!("../../../vectors/path.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let (what, fields) = line.split_once(' ').unwrap();
        let fields: Vec<Vec<u8>> = fields.split(' ').map(|field| hex::decode(field).unwrap()).collect();
        let computed = computed(what, &fields);
        assert_eq!(computed, fields[fields.len() - computed.len()..], "{what}");
        count += 1;
    }
    assert_eq!(count, 29);
}
