#!/usr/bin/env python3
"""Computes vectors of tunnel set-up from docs/protocol.md, section 5, with other libraries than the code's.

Needs the PyPI packages `blake3` and `cryptography`. A path of owner, two hops and the terminating node, with secrets 01…, 02…,
03… and, from the owner outwards, segments 10…, 20…, 30…; one line per starter and thing: starter, name, then its value on each segment (or at each node), nearest the owner first.
"""
from blake3 import blake3

from wide import Wide, derive

SECRETS = [bytes([n]) * 32 for n in (1, 2, 3)]
SEGMENTS = [bytes([n]) * 16 for n in (0x10, 0x20, 0x30)]
WIDES = [Wide(derive("phantom v1 path blocks", secret)) for secret in SECRETS[:2]]


def proof(key, letter):
    hasher = blake3(derive_key_context="phantom v1 tunnel proof")
    for part in (key, letter.encode()):
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest(length=64)


def tunnel_id(seed):
    return derive("phantom v1 tunnel id", seed)[:16]


def tweak(letter, name):
    return letter.encode() + name[:15]


def outward(letter, names, block):
    """On each segment, when the owner sends it."""
    views = [block]
    for wide, name in zip(WIDES, names):
        views.append(wide.encipher(tweak(letter, name), views[-1]))
    return views


def inward(letter, names, block):
    """On each segment, when the terminating node sends it."""
    views = [block]
    for wide, name in reversed(list(zip(WIDES, names))):
        views.insert(0, wide.encipher(tweak(letter, name), views[0]))
    return views


def aimed(letter, names, block):
    """On each segment, when the owner sends what must be `block` on the last one."""
    views = [block]
    for wide, name in reversed(list(zip(WIDES, names))):
        views.insert(0, wide.decipher(tweak(letter, name), views[0]))
    return views


def main():
    print("# starter name values; made by scripts/vectors/tunnel.py")
    print("# Path secrets: 32 times 01, 02, 03, nearest hop first, the terminating node last. Path ids: 16 times 10, 20, 30, the owner's first.")
    for starter in ("owner", "end"):
        first, back = (outward, inward) if starter == "owner" else (inward, outward)
        prove_first, prove_back = (aimed, inward) if starter == "owner" else (inward, aimed)
        seed, r = (blake3(f"{starter} {letter}".encode()).digest(length=64) for letter in "SR")
        seeds = first("S", SEGMENTS[:2] if starter == "owner" else SEGMENTS[1:], seed)
        # Each hop has the seed from the starter's side.
        names = [tunnel_id(view) for view in (seeds[:2] if starter == "owner" else seeds[1:])]
        rs = back("R", names, r)
        received = (seeds, rs[1:] + rs[-1:]) if starter == "owner" else (seeds[1:] + seeds[-1:], rs)
        keys = [derive("phantom v1 tunnel key", secret, s, r) for secret, s, r in zip(SECRETS, *received)]
        lines = {
            "S": seeds, "id": [tunnel_id(view) for view in seeds], "R": rs, "key": keys,
            "P": prove_back("P", names, proof(keys[2], "P")),
            "Q": prove_first("Q", names, proof(keys[2], "Q")),
            "V": prove_back("V", names, proof(keys[2], "V")),
        }
        for name, values in lines.items():
            print(starter, name, *(value.hex() for value in values))


if __name__ == "__main__":
    main()
