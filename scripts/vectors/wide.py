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


def xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right))


class Wide:
    def __init__(self, key):
        self.key = {name: derive(f"phantom v1 wide {name}", key) for name in ("hash", "tweak", "block", "counter", "stream")}

    def ecb(self, name):
        return Cipher(algorithms.AES(self.key[name]), modes.ECB())

    def aes(self, name, block):
        return self.ecb(name).encryptor().update(block)

    def mask(self, tweak, right):
        return xor(AESGCM(self.key["hash"]).encrypt(bytes(12), b"", right), self.aes("tweak", tweak))

    def stream(self, tweak, left, right):
        start = xor(left, self.aes("counter", tweak))
        return Cipher(algorithms.AES(self.key["stream"]), modes.CTR(start)).encryptor().update(right)

    def encipher(self, tweak, block):
        left, right = block[:16], block[16:]
        mask = self.mask(tweak, right)
        left = xor(self.aes("block", xor(left, mask)), mask)
        return left + self.stream(tweak, left, right)

    def decipher(self, tweak, block):
        left, right = block[:16], block[16:]
        right = self.stream(tweak, left, right)
        mask = self.mask(tweak, right)
        return xor(self.ecb("block").decryptor().update(xor(left, mask)), mask) + right


def encipher(key, tweak, block):
    return Wide(key).encipher(tweak, block)


def main():
    print("# key tweak plain cipher; made by scripts/vectors/wide.py")
    for case, length in enumerate((32, 33, 47, 48, 64, 100, 1168, 2560, 4092)):
        key, tweak = blake3(b"key%d" % case).digest(), blake3(b"tweak%d" % case).digest()[:16]
        plain = blake3(b"plain%d" % case).digest(length=length)
        cipher = encipher(key, tweak, plain)
        assert Wide(key).decipher(tweak, cipher) == plain
        print(key.hex(), tweak.hex(), plain.hex(), cipher.hex())


if __name__ == "__main__":
    main()
