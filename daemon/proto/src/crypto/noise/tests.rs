//! The handshake: agreement, refusal, and vectors published and computed elsewhere.

use super::*;
use rand::SeedableRng;

fn rng(seed: u64) -> rand_chacha::ChaCha20Rng {
    rand_chacha::ChaCha20Rng::seed_from_u64(seed)
}

fn handshake(psk0: [u8; 32], psk2: [u8; 32]) -> Result<(NoiseKeys, NoiseKeys), CryptoError> {
    let secret = DhSecret::from_bytes(&[5; 32]);
    let (initiator, first) = Initiator::start(&mut rng(1), &secret.public(), b"prologue", &[1; 32], b"there")?;
    let (responder, payload) = Responder::read(&secret, b"prologue", &psk0, &first)?;
    assert_eq!(payload, b"there");
    let (theirs, second) = responder.reply(&mut rng(2), &psk2, b"back")?;
    let (ours, payload) = initiator.finish(&[2; 32], &second)?;
    assert_eq!(payload, b"back");
    Ok((ours, theirs))
}

#[test]
fn both_sides_agree() {
    let (ours, theirs) = handshake([1; 32], [2; 32]).unwrap();
    assert_eq!(ours.to_responder, theirs.to_responder);
    assert_eq!(ours.to_initiator, theirs.to_initiator);
    assert_ne!(ours.to_responder, ours.to_initiator);
}

#[test]
fn both_pre_shared_secrets_are_needed() {
    assert!(handshake([9; 32], [2; 32]).is_err());
    assert!(handshake([1; 32], [9; 32]).is_err());
}

#[test]
fn the_responders_ephemeral_counts() {
    let secret = DhSecret::from_bytes(&[5; 32]);
    let (_, first) = Initiator::start(&mut rng(1), &secret.public(), b"", &[1; 32], b"").unwrap();
    let keys = |seed| {
        let (responder, _) = Responder::read(&secret, b"", &[1; 32], &first).unwrap();
        responder.reply(&mut rng(seed), &[2; 32], b"").unwrap().0.to_responder
    };
    assert_eq!(keys(7), keys(7));
    assert_ne!(keys(7), keys(8));
}

#[test]
fn prologue_static_key_and_every_byte_count() {
    let (secret, other) = (DhSecret::from_bytes(&[5; 32]), DhSecret::from_bytes(&[6; 32]));
    let start = || Initiator::start(&mut rng(1), &secret.public(), b"p", &[1; 32], b"payload").unwrap();
    let (_, first) = start();
    assert!(Responder::read(&other, b"p", &[1; 32], &first).is_err());
    assert!(Responder::read(&secret, b"q", &[1; 32], &first).is_err());
    let reply = || Responder::read(&secret, b"p", &[1; 32], &first).unwrap().0.reply(&mut rng(2), &[2; 32], b"back");
    let (_, second) = reply().unwrap();
    for at in 0..first.len() {
        let mut changed = first.clone();
        changed[at] ^= 1;
        assert!(Responder::read(&secret, b"p", &[1; 32], &changed).is_err(), "{at}");
        assert!(Responder::read(&secret, b"p", &[1; 32], &first[..at]).is_err(), "{at}");
    }
    for at in 0..second.len() {
        let mut changed = second.clone();
        changed[at] ^= 1;
        assert!(start().0.finish(&[2; 32], &changed).is_err(), "{at}");
        assert!(start().0.finish(&[2; 32], &second[..at]).is_err(), "{at}");
    }
    assert!(start().0.finish(&[2; 32], &second).is_ok());
}

#[test]
fn a_payload_that_fits_no_message_is_an_error() {
    let secret = DhSecret::from_bytes(&[5; 32]);
    let long = vec![0; 65_536];
    assert!(Initiator::start(&mut rng(1), &secret.public(), b"", &[1; 32], &long).is_err());
    assert!(Responder::read(&secret, b"", &[1; 32], &long).is_err());
}

#[test]
fn states_can_move_between_threads() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<(Initiator, Responder, NoiseKeys)>();
}

/// Gives one string of bytes, as if drawn.
struct Fixed([u8; 32]);

impl rand::TryRng for Fixed {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        dst.copy_from_slice(&self.0);
        Ok(())
    }
}

impl rand::TryCryptoRng for Fixed {}

struct Vector {
    pattern: String,
    prologue: Vec<u8>,
    psks: Vec<[u8; 32]>,
    secret: [u8; 32],
    ephemerals: [[u8; 32]; 2],
    payloads: [Vec<u8>; 2],
    messages: [Vec<u8>; 2],
    hash: Vec<u8>,
    keys: Option<[[u8; 32]; 2]>,
}

fn vectors() -> Vec<Vector> {
    let bytes = |text: &str| hex::decode(text).unwrap();
    let key = |text: &str| -> [u8; 32] { bytes(text).try_into().unwrap() };
    let lines = include_str!("../../../vectors/noise.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [pattern, prologue, psks, secret, e1, e2, p1, m1, p2, m2, hash, k1, k2] = fields.try_into().unwrap();
            Vector {
                pattern: format!("Noise_{pattern}_25519_ChaChaPoly_SHA256"),
                prologue: bytes(prologue),
                psks: psks.split(',').map(key).collect(),
                secret: key(secret),
                ephemerals: [key(e1), key(e2)],
                payloads: [bytes(p1), bytes(p2)],
                messages: [bytes(m1), bytes(m2)],
                hash: bytes(hash),
                keys: (k1 != "-").then(|| [key(k1), key(k2)]),
            }
        })
        .collect()
}

/// The primitives as snow uses them, against published vectors (provenance in scripts/vectors/noise.py).
#[test]
fn published_and_computed_vectors() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 3);
    for vector in &vectors {
        let public = DhSecret::from_bytes(&vector.secret).public();
        let state = |index: usize| {
            let ephemeral = Ephemeral::default();
            ephemeral.draw(&mut Fixed(vector.ephemerals[index])).unwrap();
            let mut builder = builder(&vector.pattern, &ephemeral).prologue(&vector.prologue).unwrap();
            let places = [0, 2].into_iter().filter(|place| vector.pattern.contains(&format!("psk{place}")));
            for (place, psk) in places.zip(&vector.psks) {
                builder = builder.psk(place, psk).unwrap();
            }
            match index {
                0 => builder.remote_public_key(&public).unwrap().build_initiator().unwrap(),
                _ => builder.local_private_key(&vector.secret).unwrap().build_responder().unwrap(),
            }
        };
        let (mut initiator, mut responder) = (state(0), state(1));
        assert_eq!(write(&mut initiator, &vector.payloads[0]).unwrap(), vector.messages[0]);
        assert_eq!(read(&mut responder, &vector.messages[0]).unwrap(), vector.payloads[0]);
        assert_eq!(write(&mut responder, &vector.payloads[1]).unwrap(), vector.messages[1]);
        assert_eq!(read(&mut initiator, &vector.messages[1]).unwrap(), vector.payloads[1]);
        assert_eq!(initiator.get_handshake_hash(), vector.hash);
        assert_eq!(responder.get_handshake_hash(), vector.hash);
    }
}

/// The public functions, against the vector of the pattern that Phantom uses.
#[test]
fn the_pattern_of_phantom() {
    let vector = vectors().into_iter().find(|vector| vector.pattern == PATTERN).unwrap();
    let secret = DhSecret::from_bytes(&vector.secret);
    let [psk0, psk2] = vector.psks[..] else { panic!("two pre-shared secrets") };
    let (prologue, [one, two]) = (&vector.prologue, &vector.payloads);
    let (initiator, first) =
        Initiator::start(&mut Fixed(vector.ephemerals[0]), &secret.public(), prologue, &psk0, one).unwrap();
    assert_eq!(first, vector.messages[0]);
    let (responder, _) = Responder::read(&secret, prologue, &psk0, &first).unwrap();
    let (theirs, second) = responder.reply(&mut Fixed(vector.ephemerals[1]), &psk2, two).unwrap();
    assert_eq!(second, vector.messages[1]);
    let (ours, _) = initiator.finish(&psk2, &second).unwrap();
    for keys in [ours, theirs] {
        assert_eq!(Some([*keys.to_responder, *keys.to_initiator]), vector.keys);
    }
}
