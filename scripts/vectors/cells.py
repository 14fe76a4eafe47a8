#!/usr/bin/env python3
"""Computes vectors of the cell layer: what three hops and the terminating node do to consecutive cells of one tunnel.

Needs the PyPI packages `blake3` and `cryptography`, and wide.py beside it. Prints one line per cell:
direction, tunnel keys (nearest hop first, the terminating node's last), cell number, kind, data, and the first 64 bytes and the BLAKE3 hash of
the cell on the owner's link. Lines of one direction belong to one tunnel, in order.
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

print("# direction keys number kind data head hash; made by scripts/vectors/cells.py")
for direction in ("onward", "backward"):
    layers = [Layer(key, direction) for key in KEYS]
    for number, (kind, data) in enumerate(CELLS):
        cell = plain(kind, data)
        for layer in reversed(layers):
            # Onward the owner has applied the inverses, farthest first; backward the end begins, then its neighbour.
            cell = layer.decipher(cell) if direction == "onward" else layer.encipher(cell)
        print(direction, ",".join(key.hex() for key in KEYS), number, kind, data.hex() or "-", cell[:64].hex(), blake3(cell).hexdigest())
