#!/usr/bin/env python3
"""Computes vectors of the cell layer: what three hops and the terminating node do to consecutive cells of one tunnel.

Needs the PyPI packages `blake3` and `cryptography`, and wide.py beside it. Prints one line per cell:
who started the tunnel (owner or end), direction, tunnel keys (nearest hop first, the terminating node's last), cell number, kind, data, and the
first 64 bytes and the BLAKE3 hash of the cell on the owner's link. Lines of one starter and direction belong to one tunnel, in order.
"""
from blake3 import blake3
from wide import Wide, derive, xor

CELL_LEN = 4092


class Layer:
    def __init__(self, key, direction):
        self.wide, self.tweak = Wide(derive(f"phantom v1 cells {direction}", key)), bytes(16)

    def turn(self, permute, cell):
        out = permute(self.tweak, cell)
        self.tweak = xor(cell[:16], out[:16])
        return out

    def encipher(self, cell):
        return self.turn(self.wide.encipher, cell)

    def decipher(self, cell):
        return self.turn(self.wide.decipher, cell)


def plain(kind, data):
    return (bytes(16) + bytes([kind]) + len(data).to_bytes(2, "big") + data).ljust(CELL_LEN, b"\0")


KEYS = [blake3(b"hop%d" % hop).digest() for hop in (1, 2, 3)]
CELLS = [(1, bytes(range(16))), (3, b"hello"), (3, blake3(b"data").digest(length=CELL_LEN - 19)), (6, b""), (4, b"")]

print("# starter direction keys number kind data head hash; made by scripts/vectors/cells.py")
for starter in ("owner", "end"):
    for direction in ("onward", "backward"):
        layers = [Layer(key, direction) for key in KEYS]
        from_owner = (starter == "owner") == (direction == "onward")
        for number, (kind, data) in enumerate(CELLS):
            cell = plain(kind, data)
            for layer in reversed(layers):
                # What the owner sends has had the inverses applied, farthest first; what the end sends it enciphers first, then its neighbour.
                cell = layer.decipher(cell) if from_owner else layer.encipher(cell)
            keys = ",".join(key.hex() for key in KEYS)
            print(starter, direction, keys, number, kind, data.hex() or "-", cell[:64].hex(), blake3(cell).hexdigest())
