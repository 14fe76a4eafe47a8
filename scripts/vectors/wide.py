#!/usr/bin/env python3
"""Computes vectors of the wide-block permutation from its description, with other libraries than the code's.

Needs the PyPI packages `blake3` and `cryptography`. Prints lines: key tweak plain cipher, in hex.
"""
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def derive(context, *parts):
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()


def aes(key, block):
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right))


NAMES = ("hash", "tweak", "block", "counter", "stream")


def encipher(key, tweak, block):
    sub = {name: derive(f"phantom v1 wide {name}", key) for name in NAMES}
    left, right = block[:16], block[16:]
    mask = xor(AESGCM(sub["hash"]).encrypt(bytes(12), b"", right), aes(sub["tweak"], tweak))
    left = xor(aes(sub["block"], xor(left, mask)), mask)
    start = xor(left, aes(sub["counter"], tweak))
    return left + Cipher(algorithms.AES(sub["stream"]), modes.CTR(start)).encryptor().update(right)


if __name__ == "__main__":
    print("# key tweak plain cipher; made by scripts/vectors/wide.py")
    for case, length in enumerate((32, 33, 47, 48, 64, 100, 1168, 2560, 4092)):
        key, tweak = blake3(b"key%d" % case).digest(), blake3(b"tweak%d" % case).digest()[:16]
        plain = blake3(b"plain%d" % case).digest(length=length)
        print(key.hex(), tweak.hex(), plain.hex(), encipher(key, tweak, plain).hex())
