//! Noise NK with two pre-shared secrets: `Noise_NKpsk0+psk2_25519_ChaChaPoly_SHA256` (Noise revision 34, section 9.4).
//!
//! ```text
//! <- s                                   the responder's X25519 key, from its node record
//! -> psk0, e, es     payload             psk0: from ML-KEM to the responder's static key
//! <- e, ee, psk2     payload             psk2: from ML-KEM to the initiator's ephemeral key
//! ```
//!
//! The state machine is snow's, the primitives are aws-lc-rs', the randomness is the caller's.

use std::sync::{Arc, Mutex};

use rand::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use super::dh::DhSecret;
use super::{CryptoError, aead};

const PATTERN: &str = "Noise_NKpsk0+psk2_25519_ChaChaPoly_SHA256";

/// Bytes that a message adds to its payload: an X25519 key and a tag.
pub const NOISE_OVERHEAD: usize = 32 + aead::AEAD_TAG_LEN;

/// The raw keys that a handshake ends with.
pub struct NoiseKeys {
    /// From initiator to responder.
    pub to_responder: Zeroizing<[u8; 32]>,
    /// From responder to initiator.
    pub to_initiator: Zeroizing<[u8; 32]>,
}

/// The side that knows the other's static key.
pub struct Initiator(HandshakeState);

impl Initiator {
    /// Writes message 1.
    pub fn start(
        rng: &mut dyn CryptoRng,
        responder_static: &[u8; 32],
        prologue: &[u8],
        psk0: &[u8; 32],
        payload: &[u8],
    ) -> Result<(Self, Vec<u8>), CryptoError> {
        let ephemeral = Ephemeral::default();
        ephemeral.draw(rng)?;
        let mut state = builder(PATTERN, &ephemeral)
            .prologue(prologue)
            .and_then(|b| b.psk(0, psk0))
            .and_then(|b| b.remote_public_key(responder_static))
            .and_then(Builder::build_initiator)
            .map_err(|_| CryptoError)?;
        let message = write(&mut state, payload)?;
        Ok((Self(state), message))
    }

    /// Reads message 2: the keys and its payload.
    pub fn finish(mut self, psk2: &[u8; 32], message: &[u8]) -> Result<(NoiseKeys, Vec<u8>), CryptoError> {
        self.0.set_psk(2, psk2).map_err(|_| CryptoError)?;
        let payload = read(&mut self.0, message)?;
        Ok((split(&mut self.0), payload))
    }
}

/// The side whose static key is known.
pub struct Responder {
    state: HandshakeState,
    ephemeral: Ephemeral,
}

impl Responder {
    /// Reads message 1: the state that answers it, and its payload.
    pub fn read(
        static_secret: &DhSecret,
        prologue: &[u8],
        psk0: &[u8; 32],
        message: &[u8],
    ) -> Result<(Self, Vec<u8>), CryptoError> {
        let ephemeral = Ephemeral::default();
        let mut state = builder(PATTERN, &ephemeral)
            .prologue(prologue)
            .and_then(|b| b.psk(0, psk0))
            .and_then(|b| b.local_private_key(static_secret.to_bytes()))
            .and_then(Builder::build_responder)
            .map_err(|_| CryptoError)?;
        let payload = read(&mut state, message)?;
        Ok((Self { state, ephemeral }, payload))
    }

    /// Writes message 2: the keys and the message.
    pub fn reply(
        mut self,
        rng: &mut dyn CryptoRng,
        psk2: &[u8; 32],
        payload: &[u8],
    ) -> Result<(NoiseKeys, Vec<u8>), CryptoError> {
        self.ephemeral.draw(rng)?;
        self.state.set_psk(2, psk2).map_err(|_| CryptoError)?;
        let message = write(&mut self.state, payload)?;
        Ok((split(&mut self.state), message))
    }
}

fn builder<'a>(pattern: &str, ephemeral: &Ephemeral) -> Builder<'a> {
    let params = pattern.parse().expect("a pattern that snow knows");
    Builder::with_resolver(params, Box::new(Resolver(ephemeral.clone())))
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut message = vec![0; payload.len() + NOISE_OVERHEAD];
    let len = state.write_message(payload, &mut message).map_err(|_| CryptoError)?;
    message.truncate(len);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut payload = vec![0; message.len()];
    let len = state.read_message(message, &mut payload).map_err(|_| CryptoError)?;
    payload.truncate(len);
    Ok(payload)
}

fn split(state: &mut HandshakeState) -> NoiseKeys {
    let (to_responder, to_initiator) = state.dangerously_get_raw_split();
    NoiseKeys { to_responder: Zeroizing::new(to_responder), to_initiator: Zeroizing::new(to_initiator) }
}

/// Hands snow the primitives of aws-lc-rs, and the one ephemeral key that the caller's randomness gave.
struct Resolver(Ephemeral);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519(DhSecret::from_bytes(&[0; 32]))) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256(new_sha256())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::new(ChaChaPoly(Zeroizing::new([0; 32]))) as Box<dyn Cipher>)
    }
}

/// The private ephemeral key of one side. snow takes its randomness when a state is built, a responder gets its only when it
/// answers: this is the place between. It hands the key out once, so that no key can serve twice.
#[derive(Clone, Default)]
struct Ephemeral(Arc<Mutex<Option<Zeroizing<[u8; 32]>>>>);

impl Ephemeral {
    fn draw(&self, rng: &mut dyn CryptoRng) -> Result<(), CryptoError> {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *key);
        *self.0.lock().map_err(|_| CryptoError)? = Some(key);
        Ok(())
    }
}

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.0.lock().ok().and_then(|mut key| key.take()).ok_or(snow::Error::Rng)?;
        dest.get_mut(..key.len()).filter(|dest| dest.len() == 32).ok_or(snow::Error::Rng)?.copy_from_slice(&*key);
        Ok(())
    }
}

struct X25519(DhSecret);

impl X25519 {
    fn replace(&mut self, key: &[u8; 32]) {
        self.0 = DhSecret::from_bytes(key);
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, key: &[u8]) {
        // snow has checked the length against priv_len.
        if let Ok(key) = key.try_into() {
            self.replace(key);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut key = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *key)?;
        self.replace(&key);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.0.public_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.0.to_bytes()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow hands over a buffer of its largest key length.
        let public = public.get(..32).ok_or(snow::Error::Dh)?;
        let secret = self.0.agree(public).map_err(|_| snow::Error::Dh)?;
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&*secret);
        Ok(())
    }
}

struct Sha256(aws_lc_rs::digest::Context);

fn new_sha256() -> aws_lc_rs::digest::Context {
    aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256)
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = new_sha256();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = std::mem::replace(&mut self.0, new_sha256()).finish();
        out[..32].copy_from_slice(digest.as_ref());
    }
}

struct ChaChaPoly(Zeroizing<[u8; 32]>);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0.zeroize();
        *self.0 = *key;
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let sealed = aead::seal(&self.0, nonce, authtext, plaintext);
        out[..sealed.len()].copy_from_slice(&sealed);
        sealed.len()
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let plain = aead::open(&self.0, nonce, authtext, ciphertext).map_err(|_| snow::Error::Decrypt)?;
        out.get_mut(..plain.len()).ok_or(snow::Error::Decrypt)?.copy_from_slice(&plain);
        Ok(plain.len())
    }
}

#[cfg(test)]
mod tests {
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
        let reply =
            || Responder::read(&secret, b"p", &[1; 32], &first).unwrap().0.reply(&mut rng(2), &[2; 32], b"back");
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
        let lines = include_str!("../../vectors/noise.txt").lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let fields: Vec<_> = line.split(' ').collect();
                let [pattern, prologue, psks, secret, e1, e2, p1, m1, p2, m2, hash, k1, k2] =
                    fields.try_into().unwrap();
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
}
