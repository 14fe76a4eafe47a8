//! BLAKE3 in its three modes: domain-separated derivation, keyed MAC, and output of any length; and the SHA-256 of the DHT.

use zeroize::Zeroize;

/// 32 bytes of hash, key or MAC.
pub type Hash32 = [u8; 32];

/// Derives 32 bytes from `parts` under a `context` that is unique to one purpose (BLAKE3 `derive_key` mode).
///
/// Every part is preceded by its length as a big-endian u64, so that no two lists of parts collide.
pub fn derive(context: &'static str, parts: &[&[u8]]) -> Hash32 {
    let mut out = [0; 32];
    derive_into(context, parts, &mut out);
    out
}

/// As [`derive()`], for any length of output.
// protocol: G3
pub fn derive_into(context: &'static str, parts: &[&[u8]], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    absorb(&mut hasher, parts);
    hasher.finalize_xof().fill(out);
    hasher.zeroize();
}

/// MAC of `parts` under a 32-byte key (BLAKE3 keyed mode); the parts are framed as in [`derive()`].
///
/// Compare it with [`same`], never with `==`.
pub fn keyed(key: &Hash32, parts: &[&[u8]]) -> Hash32 {
    let mut hasher = blake3::Hasher::new_keyed(key);
    absorb(&mut hasher, parts);
    let out = *hasher.finalize().as_bytes();
    hasher.zeroize();
    out
}

/// SHA-256 of `bytes`: libp2p's Kademlia places keys and nodes by it.
pub fn sha256(bytes: &[u8]) -> Hash32 {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

/// Compares two strings of bytes in constant time.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(left, right).into()
}

// protocol: G2
fn absorb(hasher: &mut blake3::Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed() {
        assert_ne!(derive("test", &[b"ab", b"c"]), derive("test", &[b"a", b"bc"]));
        assert_ne!(keyed(&[1; 32], &[b"ab", b"c"]), keyed(&[1; 32], &[b"a", b"bc"]));
    }

    #[test]
    fn contexts_and_keys_separate() {
        assert_ne!(derive("one", &[b"x"]), derive("two", &[b"x"]));
        assert_ne!(keyed(&[1; 32], &[b"x"]), keyed(&[2; 32], &[b"x"]));
    }
}
