//! ML-KEM-768 (FIPS 203). The library draws its randomness itself: key generation and encapsulation cannot be seeded.

use aws_lc_rs::kem::{self, Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use zeroize::Zeroizing;

use super::hash::{derive, same};
use super::{CryptoError, Hash32};

/// Length of an encapsulation key in bytes.
pub const KEM_PUBLIC_LEN: usize = 1184;

/// Length of a ciphertext in bytes.
pub const KEM_CIPHERTEXT_LEN: usize = 1088;

/// An ML-KEM-768 decapsulation key. The library wipes it when it is dropped.
pub struct KemSecret {
    key: DecapsulationKey<kem::AlgorithmId>,
    public: Box<[u8; KEM_PUBLIC_LEN]>,
}

impl KemSecret {
    /// Makes a new key with the library's randomness.
    pub fn generate() -> Self {
        let key = DecapsulationKey::generate(&ML_KEM_768).expect("the system has randomness");
        let public = key.encapsulation_key().expect("a generated key has its public half");
        let bytes = public.key_bytes().expect("a generated key has its encoding");
        Self { key, public: Box::new(bytes.as_ref().try_into().expect("FIPS 203, table 3")) }
    }

    /// The public half.
    pub fn public(&self) -> &[u8; KEM_PUBLIC_LEN] {
        &self.public
    }

    /// The secret inside `ciphertext`. A ciphertext for another key gives another secret, not an error (FIPS 203).
    pub fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Result<Zeroizing<Hash32>, CryptoError> {
        let secret = self.key.decapsulate(Ciphertext::from(&ciphertext[..])).map_err(|_| CryptoError)?;
        Ok(bind(secret.as_ref(), ciphertext))
    }

    /// Both halves, to be stored: public key, then the decapsulation key.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let secret = self.key.key_bytes().expect("a key has its encoding");
        Zeroizing::new([&self.public[..], secret.as_ref()].concat())
    }

    /// Reads what [`KemSecret::to_bytes`] wrote; the two halves must belong together.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        let (public, secret) = bytes.split_first_chunk().ok_or(CryptoError)?;
        let key = DecapsulationKey::new(&ML_KEM_768, secret).map_err(|_| CryptoError)?;
        // FIPS 203, algorithm 16: the decapsulation key holds the encapsulation key behind its first 1152 bytes.
        let inner = secret.get(1152..1152 + KEM_PUBLIC_LEN).ok_or(CryptoError)?;
        if !same(inner, public) {
            return Err(CryptoError);
        }
        Ok(Self { key, public: Box::new(*public) })
    }
}

/// Makes a ciphertext for `public` and the secret inside it; fails when `public` is no ML-KEM-768 key.
pub fn encapsulate(
    public: &[u8; KEM_PUBLIC_LEN],
) -> Result<(Box<[u8; KEM_CIPHERTEXT_LEN]>, Zeroizing<Hash32>), CryptoError> {
    let key = EncapsulationKey::new(&ML_KEM_768, public).map_err(|_| CryptoError)?;
    let (ciphertext, secret) = key.encapsulate().map_err(|_| CryptoError)?;
    let ciphertext: [u8; KEM_CIPHERTEXT_LEN] = ciphertext.as_ref().try_into().map_err(|_| CryptoError)?;
    let secret = bind(secret.as_ref(), &ciphertext);
    Ok((Box::new(ciphertext), secret))
}

/// Binds the secret to its ciphertext.
fn bind(secret: &[u8], ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Zeroizing<Hash32> {
    Zeroizing::new(derive("phantom v1 kem", &[secret, ciphertext]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_a_stored_key_is_the_same() {
        let key = KemSecret::generate();
        let (ciphertext, secret) = encapsulate(key.public()).unwrap();
        assert_eq!(key.decapsulate(&ciphertext).unwrap(), secret);
        let stored = KemSecret::from_bytes(&key.to_bytes()).unwrap();
        assert_eq!(stored.decapsulate(&ciphertext).unwrap(), secret);
        assert_eq!(stored.public(), key.public());
    }

    /// Vectors of scripts/vectors/kem.py, which computes them with another library.
    #[test]
    fn independently_computed_vectors() {
        let field = |name: &str| {
            let lines = include_str!("../../vectors/kem.txt").lines();
            let value = lines.filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name).unwrap().1;
            hex::decode(value).unwrap()
        };
        let key = KemSecret::from_bytes(&field("key")).unwrap();
        assert_eq!(*key.to_bytes(), field("key"));
        for (ciphertext, secret) in [("ciphertext", "secret"), ("changed", "rejected")] {
            let ciphertext = field(ciphertext).try_into().unwrap();
            assert_eq!(key.decapsulate(&ciphertext).unwrap()[..], field(secret));
        }
        let (ciphertext, secret) = encapsulate(key.public()).unwrap();
        assert_eq!(key.decapsulate(&ciphertext).unwrap(), secret);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let (one, two) = (KemSecret::generate().to_bytes(), KemSecret::generate().to_bytes());
        assert!(KemSecret::from_bytes(&one[..one.len() - 1]).is_err());
        assert!(KemSecret::from_bytes(&[]).is_err());
        let mixed = [&one[..KEM_PUBLIC_LEN], &two[KEM_PUBLIC_LEN..]].concat();
        assert!(KemSecret::from_bytes(&mixed).is_err());
        // Coefficients that are not below the modulus (FIPS 203, section 7.2).
        assert!(encapsulate(&[0xff; KEM_PUBLIC_LEN]).is_err());
    }

    #[test]
    fn another_ciphertext_gives_another_secret() {
        let key = KemSecret::generate();
        let (mut ciphertext, secret) = encapsulate(key.public()).unwrap();
        ciphertext[0] ^= 1;
        assert_ne!(key.decapsulate(&ciphertext).unwrap(), secret);
    }
}
