#!/usr/bin/env python3
"""Computes resume tokens from docs/protocol.md, section 6, with another library than the code's.

Needs the PyPI package `blake3`. The exporter's output is 07 (32 times), the session id ab (16 times).
"""
from blake3 import blake3


def mac(key, *parts):
    hasher = blake3(key=key)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()


def main():
    print("# end attempt offset token; made by scripts/vectors/resume.py")
    print("# The exporter's output is 32 times 07, the session id 16 times ab.")
    for end, attempt, offset in (("client", 1, 0), ("server", 1, 65536), ("client", 2, 2**40)):
        parts = (b"resume", end.encode(), bytes([0xAB]) * 16, attempt.to_bytes(4, "big"), offset.to_bytes(8, "big"))
        print(end, attempt, offset, mac(bytes([7]) * 32, *parts).hex())


if __name__ == "__main__":
    main()
