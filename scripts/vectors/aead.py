#!/usr/bin/env python3
"""Computes vectors of ChaCha20-Poly1305 (RFC 8439) with Noise's nonces, with another library than the code's.

Needs the PyPI package `cryptography`. Prints lines: key nonce(decimal) associated-data plain sealed, in hex, "-" for none.
"""
import hashlib

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

print("# key nonce aad plain sealed; made by scripts/vectors/aead.py")
for nonce, aad, plain in [(0, b"", b""), (1, b"aad", b"plain"), (258, b"", bytes(100)), (2**64 - 1, b"x" * 17, b"last")]:
    key = hashlib.sha256(b"key%d" % nonce).digest()
    sealed = ChaCha20Poly1305(key).encrypt(bytes(4) + nonce.to_bytes(8, "little"), plain, aad)
    print(key.hex(), nonce, aad.hex() or "-", plain.hex() or "-", sealed.hex())
