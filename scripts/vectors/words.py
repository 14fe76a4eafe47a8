#!/usr/bin/env python3
"""Writes the data of one cell of each kind as docs/protocol.md, section 5.2, has it, and some that are none.

Needs the PyPI packages `blake3` and `cryptography`. Prints lines of the cell's number, name and data in hex; - is no data.
"""
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

key = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key().public_bytes_raw()
framed = b"".join(len(part).to_bytes(8, "big") + part for part in (b"\x01", key))
ADDRESS = b"\xfd\x70" + blake3(framed, derive_key_context="phantom v1 ap address").digest()[:14]
NODE, HANDLE, CELL_DATA = b"\xa1" * 32, b"\xb2" * 16, 4092 - 16 - 1 - 2

print("# kind name data; made by scripts/vectors/words.py")
for kind, name, data in (
    (1, "open", NODE + HANDLE + b"first"),
    (1, "open-alone", NODE + HANDLE),
    (2, "lookup", ADDRESS),
    (3, "data", b"data"),
    (4, "end", b""),
    (5, "abort", b"\x02"),
    (6, "padding", b""),
    (7, "incoming", b"first"),
    (8, "serve", b"record"),
    (8, "withdraw", b""),
    (9, "found", b"record"),
    (1, "bad-open", (NODE + HANDLE)[:-1]),
    (1, "bad-open-too-long", NODE + HANDLE + bytes(CELL_DATA - 48 + 1)),
    (2, "bad-lookup", ADDRESS + b"\0"),
    (2, "bad-lookup-no-ap-address", b"\x20\x01" + bytes(14)),
    (4, "bad-end", b"\0"),
    (5, "bad-abort", b""),
    (5, "bad-abort-two", b"\x02\x02"),
    (6, "bad-padding", b"\0"),
):
    print(kind, name, data.hex() or "-")
