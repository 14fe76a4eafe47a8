#!/usr/bin/env python3
"""Writes one frame of each kind as docs/protocol.md, section 3.2, has it, and some that are none. Needs nothing beside Python.

Prints lines of name, header and payload in hex; one byte over and over is byte*count, - is nothing.
"""
ARRAY, BLOCK, CELL, BYTES, RECORD = 16 + 12 * (2560 + 1168), 64, 4092, 65_536, 4096


def line(name, kind, payload):
    body = f"{payload[0]}*{len(payload)}" if len(payload) > 200 and len(set(payload)) == 1 else payload.hex() or "-"
    print(name, bytes([kind]).hex() + len(payload).to_bytes(3, "big").hex(), body)


tunnel = b"\xa1" * 16 + b"\xc3" * BLOCK + b"\xd4" * BLOCK

print("# name header payload; made by scripts/vectors/frames.py")
for name, kind, payload in (
    ("array", 0x01, b"\x05" * ARRAY),
    ("home", 0x02, b""),
    ("attach", 0x10, b"\xb2" * 16),
    ("attached", 0x11, b""),
    ("seed", 0x12, b"\xe5" * BLOCK),
    ("record", 0x13, b"record"),
    ("largest-record", 0x13, b"\x09" * RECORD),
    ("alive", 0x14, b""),
    ("tunnel", 0x20, tunnel),
    ("confirm", 0x21, b"\xe5" * BLOCK),
    ("await", 0x22, b"\xa1" * 16),
    ("cell", 0x30, b"\xf6" * CELL),
    ("join", 0x40, b"\x17" * 16),
    ("refused", 0x42, b"\x03"),
    ("bytes", 0x43, b"bytes"),
    ("largest-bytes", 0x43, b"\x07" * BYTES),
    ("end", 0x44, b""),
    ("close", 0x50, b""),
    ("bad-array", 0x01, b"\x05" * (ARRAY - 1)),
    ("bad-home", 0x02, b"\0"),
    ("bad-attach", 0x10, b"\xb2" * 17),
    ("bad-attached", 0x11, b"\0"),
    ("bad-seed", 0x12, b"\xe5" * (BLOCK - 1)),
    ("bad-record", 0x13, b""),
    ("bad-record-too-long", 0x13, b"\x09" * (RECORD + 1)),
    ("bad-alive", 0x14, b"\0"),
    ("bad-tunnel", 0x20, tunnel + b"\0"),
    ("bad-confirm", 0x21, b""),
    ("bad-await", 0x22, b"\xa1" * 17),
    ("bad-cell", 0x30, b"\xf6" * (CELL + 4)),
    ("bad-join", 0x40, b"\x17" * 15),
    ("bad-refused", 0x42, b""),
    ("bad-bytes", 0x43, b""),
    ("bad-bytes-too-many", 0x43, b"\x07" * (BYTES + 1)),
    ("bad-end", 0x44, b"\0"),
    ("bad-close", 0x50, b"\0"),
    ("bad-kind", 0x41, b""),
):
    line(name, kind, payload)
