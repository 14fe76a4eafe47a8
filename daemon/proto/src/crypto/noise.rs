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

// protocol: P1
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
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519(None)) as Box<dyn Dh>)
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

/// A place for a key, empty until snow sets or draws one.
struct X25519(Option<DhSecret>);

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
        self.0 = key.try_into().ok().map(DhSecret::from_bytes);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut key = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *key)?;
        self.0 = Some(DhSecret::from_bytes(&key));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.0.as_ref().map_or(&[0; 32], |key| key.public_bytes())
    }

    fn privkey(&self) -> &[u8] {
        self.0.as_ref().map_or(&[0; 32], |key| key.to_bytes())
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.0.as_ref().ok_or(snow::Error::Dh)?;
        // snow hands over a buffer of its largest key length.
        let public = public.get(..32).ok_or(snow::Error::Dh)?;
        let secret = key.agree(public).map_err(|_| snow::Error::Dh)?;
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
mod tests;
