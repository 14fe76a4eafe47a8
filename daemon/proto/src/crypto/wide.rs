//! The wide-block permutation: keyed, tweakable, length-preserving; a change of one bit changes everything.
//!
//! It is the one primitive that Phantom builds itself, from AES-256 and GHASH of the library, after the UIV construction of
//! Tor proposal 359. Block of n bytes, n at least 32; `L` = first 16 bytes, `R` = the rest; tweak `T` of 16 bytes:
//!
//! ```text
//! encipher                                    decipher
//! h  = GMAC(Kh, R) xor AES(Kt, T)             R  = R' xor CTR(Ks, L' xor AES(Ku, T))
//! L' = AES(Ke, L xor h) xor h                 h  = GMAC(Kh, R) xor AES(Kt, T)
//! R' = R xor CTR(Ks, L' xor AES(Ku, T))       L  = AES⁻¹(Ke, L' xor h) xor h
//! ```
//!
//! AES is AES-256 on one block. GMAC(K, R) is the tag of AES-256-GCM under K with a nonce of 12 zero bytes, associated data R
//! and no plaintext. CTR(K, c) is AES(K, c) ‖ AES(K, c + 1) ‖ …, cut to the length of R; c counts as a big-endian number
//! modulo 2^128. Kh, Kt, Ke, Ks, Ku = `derive("phantom v1 wide hash" | "… tweak" | "… block" | "… stream" | "… counter", key)`.
//!
//! **Why it holds.** Under a fixed nonce, GMAC is GHASH of R and its length, plus a constant: an almost-xor-universal hash
//! (collisions at most (n/16 + 1) / 2^128). It never leaves this file but as the mask `h`; with the second term, a random
//! function of T, `h` is almost-xor-universal in (T, R). The line of L' is then LRW2, a tweakable block cipher with tweak
//! (T, R). So a changed bit of T, L or R gives an unpredictable L', hence a counter never used, hence a fresh stream: in the
//! encipher direction all of the output changes. Everything is lost at about 2^64 blocks under one key only.
//!
//! **What does not hold.** In the decipher direction a change confined to R' passes through to the same bits of R, and
//! randomizes L. Hops therefore only ever encipher, and what an end deciphers carries its redundancy in L. T is part of the
//! counter (it is not in proposal 359) since an owner deciphers many cells whose L' is the same constant: without it they would all
//! get one stream. A repeated pair of T and L' in the decipher direction still repeats the stream: callers change T.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use zeroize::Zeroize;

use super::hash::derive;

/// Shortest block in bytes: two AES blocks.
// protocol: W1
pub const WIDE_MIN: usize = 32;

/// A key of the wide-block permutation, expanded. The library wipes its key schedules when they are dropped.
pub struct WideKey {
    hash: LessSafeKey,
    tweak: EncryptingKey,
    block: EncryptingKey,
    unblock: DecryptingKey,
    counter: EncryptingKey,
    stream: EncryptingKey,
}

impl WideKey {
    /// Expands a 32-byte key.
    // protocol: W3
    pub fn new(key: &[u8; 32]) -> Self {
        let mut hash = derive("phantom v1 wide hash", &[key]);
        let unbound = UnboundKey::new(&AES_256_GCM, &hash).expect("32 bytes are an AES-256 key");
        hash.zeroize();
        Self {
            hash: LessSafeKey::new(unbound),
            tweak: EncryptingKey::ecb(aes("phantom v1 wide tweak", key)).expect("AES-256 has ECB"),
            block: EncryptingKey::ecb(aes("phantom v1 wide block", key)).expect("AES-256 has ECB"),
            unblock: DecryptingKey::ecb(aes("phantom v1 wide block", key)).expect("AES-256 has ECB"),
            counter: EncryptingKey::ecb(aes("phantom v1 wide counter", key)).expect("AES-256 has ECB"),
            stream: EncryptingKey::ctr(aes("phantom v1 wide stream", key)).expect("AES-256 has CTR"),
        }
    }

    /// Enciphers `block` in place.
    ///
    /// # Panics
    /// When `block` is shorter than [`WIDE_MIN`]: lengths are constants of the protocol.
    // protocol: W2
    pub fn encipher(&self, tweak: &[u8; 16], block: &mut [u8]) {
        let (left, right) = split(block);
        let mask = self.mask(tweak, right);
        xor(left, &mask);
        one_block(&self.block, left);
        xor(left, &mask);
        self.apply_stream(tweak, left, right);
    }

    /// Undoes [`WideKey::encipher`].
    ///
    /// # Panics
    /// As [`WideKey::encipher`].
    // protocol: W5
    pub fn decipher(&self, tweak: &[u8; 16], block: &mut [u8]) {
        let (left, right) = split(block);
        self.apply_stream(tweak, left, right);
        let mask = self.mask(tweak, right);
        xor(left, &mask);
        self.unblock.decrypt(left, DecryptionContext::None).expect("one whole AES block");
        xor(left, &mask);
    }

    fn mask(&self, tweak: &[u8; 16], right: &[u8]) -> [u8; 16] {
        let mut mask = *tweak;
        one_block(&self.tweak, &mut mask);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self
            .hash
            .seal_in_place_separate_tag(nonce, Aad::from(right), &mut [])
            .expect("associated data is far below GCM's limit");
        for (byte, hash) in mask.iter_mut().zip(tag.as_ref()) {
            *byte ^= hash;
        }
        mask
    }

    // protocol: W4
    fn apply_stream(&self, tweak: &[u8; 16], left: &[u8; 16], right: &mut [u8]) {
        let mut start = *tweak;
        one_block(&self.counter, &mut start);
        xor(&mut start, left);
        let counter = EncryptionContext::Iv128((&start).into());
        self.stream.less_safe_encrypt(right, counter).expect("CTR takes any length");
    }
}

fn one_block(key: &EncryptingKey, block: &mut [u8; 16]) {
    key.encrypt(block).expect("one whole AES block");
}

impl std::fmt::Debug for WideKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WideKey(…)")
    }
}

fn aes(context: &'static str, key: &[u8; 32]) -> UnboundCipherKey {
    let mut bytes = derive(context, &[key]);
    let unbound = UnboundCipherKey::new(&AES_256, &bytes).expect("32 bytes are an AES-256 key");
    bytes.zeroize();
    unbound
}

fn split(block: &mut [u8]) -> (&mut [u8; 16], &mut [u8]) {
    assert!(block.len() >= WIDE_MIN, "a block of the protocol");
    block.split_first_chunk_mut().expect("longer than 16 bytes")
}

fn xor(block: &mut [u8; 16], mask: &[u8; 16]) {
    for (byte, mask) in block.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Vectors of scripts/vectors/wide.py, which computes them from the text above with another library.
    // protocol: W2, W3, W4
    #[test]
    fn independently_computed_vectors() {
        let mut count = 0;
        for line in include_str!("../../vectors/wide.txt").lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<_> = line.split(' ').map(|field| hex::decode(field).unwrap()).collect();
            let [key, tweak, plain, cipher] = fields.try_into().unwrap();
            let key = WideKey::new(&key.try_into().unwrap());
            let tweak = tweak.try_into().unwrap();
            let mut block = plain.clone();
            key.encipher(&tweak, &mut block);
            assert_eq!(hex::encode(&block), hex::encode(&cipher));
            key.decipher(&tweak, &mut block);
            assert_eq!(block, plain);
            count += 1;
        }
        assert!(count >= 8);
    }

    proptest! {
        // protocol: W1
        #[test]
        fn decipher_undoes_encipher(key: [u8; 32], tweak: [u8; 16], block in prop::collection::vec(any::<u8>(), 32..5000)) {
            let wide = WideKey::new(&key);
            let mut work = block.clone();
            wide.encipher(&tweak, &mut work);
            prop_assert_ne!(&work, &block);
            wide.decipher(&tweak, &mut work);
            prop_assert_eq!(work, block);
        }

        /// Encipher direction: a changed bit of tweak or block changes about half of every 16 bytes.
        #[test]
        fn one_bit_changes_every_part(key: [u8; 32], len in WIDE_MIN..600, at: prop::sample::Index, zero: bool) {
            let wide = WideKey::new(&key);
            let mut tweak = [0u8; 16];
            let mut first: Vec<_> = (0..len).map(|index| if zero { 0 } else { index as u8 }).collect();
            let mut second = first.clone();
            wide.encipher(&tweak, &mut first);
            let at = at.index((16 + len) * 8);
            match at / 8 {
                byte @ 0..16 => tweak[byte] ^= 1 << (at % 8),
                byte => second[byte - 16] ^= 1 << (at % 8),
            }
            wide.encipher(&tweak, &mut second);
            for (one, two) in first.chunks_exact(16).zip(second.chunks_exact(16)) {
                let differing: u32 = one.iter().zip(two).map(|(a, b)| (a ^ b).count_ones()).sum();
                // 128 bits, mean 64, deviation 5.7: eight deviations to each side.
                prop_assert!((19..=109).contains(&differing), "{differing} of 128 bits differ");
            }
        }

        /// Decipher direction: so does a changed bit of the tweak or of L', but one of R' passes through: the known weakness.
        // protocol: W5
        #[test]
        fn what_deciphering_lets_through(key: [u8; 32], at in 0usize..(16 + 16 + 200) * 8) {
            let wide = WideKey::new(&key);
            let (mut tweak, mut first) = ([0u8; 16], vec![0u8; 216]);
            let mut second = first.clone();
            wide.decipher(&tweak, &mut first);
            let bit = 1 << (at % 8);
            match at / 8 {
                byte @ 0..16 => tweak[byte] ^= bit,
                byte => second[byte - 16] ^= bit,
            }
            wide.decipher(&tweak, &mut second);
            let equal = first.iter().zip(&second).filter(|(a, b)| a == b).count();
            if at / 8 >= 32 {
                second[at / 8 - 16] ^= bit;
                prop_assert_eq!(&first[16..], &second[16..]);
                prop_assert_ne!(&first[..16], &second[..16]);
            } else {
                prop_assert!(equal < 20, "{equal} of 216 bytes are equal");
            }
        }
    }
}
