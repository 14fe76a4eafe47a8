#!/usr/bin/env python3
"""Computes a vector of ML-KEM-768 and of the secret that Phantom derives from it, with another library than the code's.

Needs the PyPI packages `blake3` and `kyber-py`. Prints lines "name value", in hex: the stored form of the secret key
(public ‖ decapsulation key), a ciphertext and its secret, and a changed ciphertext with the secret of implicit rejection.
"""
from blake3 import blake3
from kyber_py.ml_kem import ML_KEM_768
from wide import derive

public, secret = ML_KEM_768.key_derive(blake3(b"ml-kem seed").digest(length=64))
shared, ciphertext = ML_KEM_768._encaps_internal(public, blake3(b"ml-kem message").digest())
assert ML_KEM_768.decaps(secret, ciphertext) == shared
changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]

print("# made by scripts/vectors/kem.py")
print("# seed: d and z of FIPS 203, key generation; message: m of encapsulation; key: public, then decapsulation key")
print("seed", blake3(b"ml-kem seed").digest(length=64).hex())
print("message", blake3(b"ml-kem message").digest().hex())
print("key", (public + secret).hex())
print("ciphertext", ciphertext.hex())
print("secret", derive("phantom v1 kem", shared, ciphertext).hex())
print("changed", changed.hex())
print("rejected", derive("phantom v1 kem", ML_KEM_768.decaps(secret, changed), changed).hex())
