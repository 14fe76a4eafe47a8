//! Ed25519: the identity keys of nodes and of AP addresses.

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rand::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;

/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// An Ed25519 signature (RFC 8032).
pub type Signature = [u8; SIGNATURE_LEN];

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// Checks `signature` over `message`, which is domain-separated by `context`.
    pub fn verify(&self, context: &str, message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
        UnparsedPublicKey::new(&signature::ED25519, &self.0)
            .verify(&framed(context, message), signature)
            .map_err(|_| CryptoError)
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyingKey({}…)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// An Ed25519 private key. Never printed; its seed is wiped when dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    /// Makes a new key from `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let key = Self::from_seed(&seed);
        seed.zeroize();
        key
    }

    /// The key that belongs to a 32-byte seed (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32-byte string is an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { seed: Zeroizing::new(*seed), pair, public: VerifyingKey(public) }
    }

    /// The seed, to be stored on disk or handed to a library that signs by itself.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.public
    }

    /// Signs `message`, domain-separated by `context`.
    pub fn sign(&self, context: &str, message: &[u8]) -> Signature {
        let mut out = [0; SIGNATURE_LEN];
        out.copy_from_slice(self.pair.sign(&framed(context, message)).as_ref());
        out
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(of {:?})", self.public)
    }
}

/// What is signed: the context, a zero byte, the message. Contexts hold no zero byte.
// protocol: N6
fn framed(context: &str, message: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_rfc_8032_test_1() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(seed.as_slice().try_into().unwrap());
        assert_eq!(
            hex::encode(key.verifying_key().0),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    // protocol: N6
    #[test]
    fn signature_holds_for_its_context_and_message_only() {
        let key = SigningKey::from_seed(&[7; 32]);
        let signature = key.sign("context", b"message");
        let public = key.verifying_key();
        assert_eq!(public.verify("context", b"message", &signature), Ok(()));
        assert_eq!(public.verify("other", b"message", &signature), Err(CryptoError));
        assert_eq!(public.verify("context", b"massage", &signature), Err(CryptoError));
    }
}
