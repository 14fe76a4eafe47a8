//! ChaCha20-Poly1305 (RFC 8439) and, for bulk, AES-256-GCM, with a counter as nonce.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::CryptoError;

/// Length of the tag in bytes.
pub const AEAD_TAG_LEN: usize = 16;

/// Seals `plain`; the tag follows it. A pair of key and nonce must be used once only.
pub fn seal(key: &[u8; 32], nonce: u64, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + AEAD_TAG_LEN);
    out.extend_from_slice(plain);
    sealing_key(key)
        .seal_in_place_append_tag(counter(nonce), Aad::from(aad), &mut out)
        .expect("messages of the protocol are far below the limit of RFC 8439");
    out
}

/// Opens what [`seal`] made.
pub fn open(key: &[u8; 32], nonce: u64, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut out = sealed.to_vec();
    let plain = sealing_key(key).open_in_place(counter(nonce), Aad::from(aad), &mut out).map_err(|_| CryptoError)?;
    let len = plain.len();
    out.truncate(len);
    Ok(out)
}

/// A key of AES-256-GCM, for bulk: it is made once, and seals in place.
pub struct BulkKey(LessSafeKey);

impl BulkKey {
    /// From 32 bytes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key")))
    }

    /// Seals what stands at the end of `bytes`, from `from` on; the tag follows it. A nonce must be used once only.
    pub fn seal(&self, nonce: u64, bytes: &mut Vec<u8>, from: usize) {
        let sealed = self.0.seal_in_place_separate_tag(big_endian(nonce), Aad::empty(), &mut bytes[from..]);
        let tag = sealed.expect("messages of the protocol are far below the limit of AES-GCM");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens in place what [`BulkKey::seal`] made.
    pub fn open<'a>(&self, nonce: u64, sealed: &'a mut [u8]) -> Result<&'a [u8], CryptoError> {
        let plain = self.0.open_in_place(big_endian(nonce), Aad::empty(), sealed).map_err(|_| CryptoError)?;
        Ok(plain)
    }
}

/// Four zero bytes, then the counter, as TLS has it (RFC 8446, section 5.3, with an IV of zeros: the key is of one use).
fn big_endian(nonce: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn sealing_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a ChaCha20 key"))
}

/// Four zero bytes, then the counter in little-endian, as Noise has it (revision 34, section 12.3).
fn counter(nonce: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of scripts/vectors/aead.py, which computes them with another library.
    // protocol: Q5
    #[test]
    fn independently_computed_vectors() {
        let lines = include_str!("../../vectors/aead.txt").lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in lines {
            let fields: Vec<_> = line.split(' ').collect();
            let [key, nonce, aad, plain, sealed] = fields.try_into().unwrap();
            let bytes = |text: &str| if text == "-" { Vec::new() } else { hex::decode(text).unwrap() };
            let (key, nonce) = (bytes(key).try_into().unwrap(), nonce.parse().unwrap());
            assert_eq!(seal(&key, nonce, &bytes(aad), &bytes(plain)), bytes(sealed));
            assert_eq!(open(&key, nonce, &bytes(aad), &bytes(sealed)).unwrap(), bytes(plain));
            count += 1;
        }
        assert_eq!(count, 4);
    }

    #[test]
    fn bulk_opens_only_what_was_sealed() {
        let key = BulkKey::new(&[1; 32]);
        let mut sealed = b"headplain".to_vec();
        key.seal(5, &mut sealed, 4);
        assert_eq!((&sealed[..4], sealed.len()), (&b"head"[..], 9 + AEAD_TAG_LEN));
        let open = |key: &BulkKey, nonce, sealed: &[u8]| key.open(nonce, &mut sealed.to_vec()).map(<[u8]>::to_vec);
        assert_eq!(open(&key, 5, &sealed[4..]).unwrap(), b"plain");
        assert!(open(&key, 6, &sealed[4..]).is_err() && open(&key, 5, &sealed[5..]).is_err());
        assert!(open(&BulkKey::new(&[2; 32]), 5, &sealed[4..]).is_err() && open(&key, 5, b"short").is_err());
    }

    #[test]
    fn opens_only_what_was_sealed() {
        let sealed = seal(&[1; 32], 5, b"aad", b"plain");
        assert_eq!(open(&[1; 32], 5, b"aad", &sealed).unwrap(), b"plain");
        assert!(open(&[2; 32], 5, b"aad", &sealed).is_err());
        assert!(open(&[1; 32], 6, b"aad", &sealed).is_err());
        assert!(open(&[1; 32], 5, b"", &sealed).is_err());
        assert!(open(&[1; 32], 5, b"aad", &sealed[1..]).is_err());
        assert!(open(&[1; 32], 5, b"aad", b"short").is_err());
    }
}
