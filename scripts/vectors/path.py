#!/usr/bin/env python3
"""Computes vectors of path building from docs/protocol.md, section 4, with other libraries than the code's.

Needs the PyPI packages `blake3` and `cryptography`. Prints lines: what, then its inputs, then its results, in hex.
"""
from blake3 import blake3

from wide import encipher

SLOTS, SLOT, REPLY = 12, 2560, 1168


def hasher(start, parts):
    for part in parts:
        start.update(len(part).to_bytes(8, "big") + part)
    return start


def derive(context, *parts, length=32):
    return hasher(blake3(derive_key_context=context), parts).digest(length=length)


def mac(key, *parts):
    return hasher(blake3(key=key), parts).digest()


def stream(seed, length=32):
    return blake3(seed.encode()).digest(length=length)


def cut(array, size):
    return [array[at:at + size] for at in range(0, len(array), size)]


def order(key):
    draws = cut(derive("phantom v1 array order", key, length=4 * (SLOTS - 1)), 4)
    result = list(range(SLOTS))
    for last, draw in zip(range(SLOTS - 1, 0, -1), draws):
        other = int.from_bytes(draw, "big") % (last + 1)
        result[last], result[other] = result[other], result[last]
    return result


def pass_setup(key, own, array):
    wide, slots = derive("phantom v1 array slots", key), cut(array, SLOT)
    passed = [derive("phantom v1 array fill", key, length=SLOT) if i == own else encipher(wide, bytes(15) + bytes([i]), slot)
              for i, slot in enumerate(slots)]
    return b"".join(passed[old] for old in order(key))


def pass_replies(key, own, reply, array):
    wide, slots = derive("phantom v1 array slots", key), cut(array, REPLY)
    return b"".join(reply if i == own else encipher(wide, b"\x01" + bytes(14) + bytes([i]), slot)
                    for i, slot in enumerate(slots))


def array_mac(key, own, array):
    slots = cut(array, SLOT)
    slots[own] = bytes(SLOT)
    return mac(derive("phantom v1 array mac", key), b"".join(slots))


def contact(name):
    ip = bytes(10) + b"\xff\xff" + bytes([10, 1, 2, 3])
    return stream(name + " key") + ip + (443).to_bytes(2, "big") + stream(name + " link secret")


def side(name, dial):
    return contact(name) + stream(name + " path id", 16) + bytes([dial])


def first_package():
    return b"".join([
        b"\x01", (1_800_000_000).to_bytes(8, "big"), stream("ephemeral", 1184), stream("array key"), stream("array mac"),
        b"\x07", stream("previous"), stream("build in", 16), stream("build out", 16), contact("next"),
    ])


def second_package(role, tail):
    return bytes([role]) + stream("array mac") + tail


def show(what, *fields):
    print(what, *(field.hex() for field in fields))


def main():
    print("# what inputs results; made by scripts/vectors/path.py")
    print("# An input that is text, as hex, stands for bytes: as many as are needed of the BLAKE3 hash of the text, whose output has any")
    print("# length. Arrays that result are given by their BLAKE3 hash. first, second: payloads of packages in clear, without padding.")
    for case in range(4):
        key, own = stream(f"array key {case}"), 3 * case
        setup, replies = stream(f"setup {case}", SLOTS * SLOT), stream(f"replies {case}", SLOTS * REPLY)
        reply = stream(f"reply {case}", REPLY)
        show("order", key, bytes(order(key)))
        show("mac", key, bytes([own]), f"setup {case}".encode(), array_mac(key, own, setup))
        show("setup", key, bytes([own]), f"setup {case}".encode(), blake3(pass_setup(key, own, setup)).digest())
        show("replies", key, bytes([own]), f"reply {case}".encode(), f"replies {case}".encode(),
             blake3(pass_replies(key, own, reply, replies)).digest())
        identity, dh, ct = stream(f"identity {case}"), stream(f"dh {case}"), stream(f"ct {case}", 1088)
        show("tag", identity, dh, f"ct {case}".encode(), mac(derive("phantom v1 slot key", identity, dh), ct)[:16])
        keys = stream(f"to responder {case}"), stream(f"to initiator {case}")
        show("shared", *keys, derive("phantom v1 array key 2", *keys), derive("phantom v1 slot tag 2", *keys)[:16],
             derive("phantom v1 path secret", *keys))
    until = (1_800_003_600).to_bytes(8, "big")
    show("first", first_package())
    show("second", second_package(1, b""))
    show("second", second_package(2, until + side("one", 1) + side("two", 0)))
    show("second", second_package(3, until + side("one", 0)))
    show("handle", stream("path secret"), derive("phantom v1 handle", stream("path secret"))[:16])


if __name__ == "__main__":
    main()
