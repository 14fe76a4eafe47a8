//! X25519 (RFC 7748).

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::CryptoError;

/// An X25519 private key, wiped when dropped.
pub struct DhSecret {
    bytes: Zeroizing<[u8; 32]>,
    key: PrivateKey,
    public: [u8; 32],
}

impl DhSecret {
    /// Makes a new key from `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self::from_bytes(&bytes)
    }

    /// The key with these bytes; any 32 bytes are one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let key = PrivateKey::from_private_key(&X25519, bytes).expect("every 32-byte string is an X25519 key");
        let public = key.compute_public_key().expect("every X25519 key has a public half");
        let public = public.as_ref().try_into().expect("RFC 7748: 32 bytes");
        Self { bytes: Zeroizing::new(*bytes), key, public }
    }

    /// The key's bytes, to be stored.
    pub fn to_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The public half, borrowed.
    pub(super) fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    /// The shared secret; fails for a point of small order.
    pub fn agree(&self, public: &[u8]) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        agreement::agree(&self.key, UnparsedPublicKey::new(&X25519, public), CryptoError, |secret| {
            Ok(Zeroizing::new(secret.try_into().map_err(|_| CryptoError)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1.
    #[test]
    fn vector_of_rfc_7748() {
        let key = |text| DhSecret::from_bytes(hex::decode(text).unwrap().as_slice().try_into().unwrap());
        let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        assert_eq!(hex::encode(alice.public()), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(hex::encode(bob.public()), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = alice.agree(&bob.public()).unwrap();
        assert_eq!(hex::encode(*shared), "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(bob.agree(&alice.public()).unwrap(), shared);
    }

    #[test]
    fn points_that_are_no_keys_are_refused() {
        let short = [9; 31];
        assert!(DhSecret::from_bytes(&[7; 32]).agree(&short).is_err());
        assert!(DhSecret::from_bytes(&[7; 32]).agree(&[0; 32]).is_err());
    }
}
