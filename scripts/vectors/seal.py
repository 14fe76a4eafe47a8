#!/usr/bin/env python3
"""Computes ids of attempts and sealed messages from docs/protocol.md, section 6, with other libraries than the code's.

Needs the PyPI packages `blake3` and `cryptography`. The exporter's output is 07 (32 times).
"""
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from path import derive

SECRET = bytes([7]) * 32


def u64(value):
    return value.to_bytes(8, "big")


def seal(attempt, end, number, plain):
    key = derive("phantom v1 session seal", SECRET, attempt.to_bytes(4, "big"), end.encode(), u64(number // 2**22))
    sealed = AESGCM(key).encrypt(bytes(4) + u64(number), plain, b"")
    return b"\x03" + len(sealed).to_bytes(2, "big") + sealed


def main():
    print("# attempt end number id plain message; made by scripts/vectors/seal.py")
    print("# The exporter's output is 32 times 07.")
    for attempt, end, number, plain in (
        (0, "client", 0, b"\x01" + (40_000).to_bytes(2, "big") + (80).to_bytes(2, "big")),
        (0, "server", 1, b"\x02" + u64(0) + b"bytes"),
        (1, "client", 0, b"\x03" + u64(2**40) + u64(65_536)),
        (2**32 - 2, "server", 2**22, b"\x05\x02"),
    ):
        ident = derive("phantom v1 session attempt", SECRET, attempt.to_bytes(4, "big"))[:16]
        print(attempt, end, number, ident.hex(), plain.hex(), seal(attempt, end, number, plain).hex())


if __name__ == "__main__":
    main()
