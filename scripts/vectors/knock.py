#!/usr/bin/env python3
"""Computes knocks from docs/protocol.md, section 6, with another library than the code's.

Needs the PyPI package `blake3`.
"""
from blake3 import blake3


def framed(hasher, parts):
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()


def main():
    print("# AP key, session id, port, first flight, covered port, knock; AP key, attempt id, knock of RESUME; made by scripts/vectors/knock.py")
    for key, session, port, first in (
        (bytes([1]) * 32, bytes([0xAB]) * 16, 80, b"first flight"),
        (bytes(range(32)), bytes(range(16)), 65535, bytes(range(256)) * 6),
        (bytes([255]) * 32, bytes(16), 0, b"\0"),
    ):
        door = framed(blake3(derive_key_context="phantom v1 knock"), (key,))
        pad = framed(blake3(key=door), (b"port", session))
        covered = bytes(a ^ b for a, b in zip(port.to_bytes(2, "big"), pad))
        knock = framed(blake3(key=door), (b"hello", session, covered, first))[:16]
        print(*(field.hex() for field in (key, session, port.to_bytes(2, "big"), first, covered, knock)))
    key, attempt = bytes([1]) * 32, bytes([0xCD]) * 16
    door = framed(blake3(derive_key_context="phantom v1 knock"), (key,))
    print(key.hex(), attempt.hex(), framed(blake3(key=door), (b"resume", attempt))[:16].hex())


if __name__ == "__main__":
    main()
