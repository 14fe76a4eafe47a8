#!/usr/bin/env python3
"""Computes the vectors of the link from docs/protocol.md. Needs the PyPI packages `blake3` and `cryptography`."""
from base64 import b64encode, urlsafe_b64encode

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def framed(parts):
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed, context, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(context + b"\0" + message)


def frame(kind, payload):
    return bytes([kind]) + len(payload).to_bytes(3, "big") + payload


# What frames carry here: an id or handle, and a block.
ID, BLOCK = bytes(range(0xA0, 0xB0)), bytes(range(64))
EXPORTER, SECRET, SERVER, CLIENT = bytes(range(32)), b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
S, C = public(SERVER), public(CLIENT)
token = blake3(framed([b"token", EXPORTER]), key=SECRET).digest()
websocket_key = blake3(framed([EXPORTER]), derive_key_context="phantom v1 link websocket key").digest()[:16]
opening = C + sign(CLIENT, b"phantom v1 link client", EXPORTER + S + C)

print("# name value, in hex; made by scripts/vectors/link.py")
print("# In frames every id and handle is a0 … af, every block 00 … 3f, the cell 4092 zeros, the reason busy. An ARRAY frame is in build.txt.")
for name, value in (
    ("exporter", EXPORTER),
    ("link-secret", SECRET),
    ("server-seed", SERVER),
    ("client-seed", CLIENT),
    ("cookie", b"sid=" + urlsafe_b64encode(token).rstrip(b"=")),
    ("websocket-key", b64encode(websocket_key)),
    ("server-proof", S + sign(SERVER, b"phantom v1 link server", EXPORTER + S)),
    ("opening", opening + b"\x02"),
    ("refused-opening", opening + b"\x03"),
    ("array-header", b"\x01" + (16 + 12 * (2560 + 1168)).to_bytes(3, "big")),
    ("attach-header", b"\x10" + (16).to_bytes(3, "big")),
    ("attached-header", b"\x11" + bytes(3)),
    ("seed-header", b"\x12" + (64).to_bytes(3, "big")),
    ("tunnel-header", b"\x20" + (16 + 64 + 64).to_bytes(3, "big")),
    ("confirm-header", b"\x21" + (64).to_bytes(3, "big")),
    ("cell-header", b"\x30" + (4092).to_bytes(3, "big")),
    ("join-header", b"\x40" + (16).to_bytes(3, "big")),
    ("refused-header", b"\x42" + (1).to_bytes(3, "big")),
    ("largest-bytes-header", b"\x43" + (65_536).to_bytes(3, "big")),
    ("end-header", b"\x44" + bytes(3)),
    ("largest-header", b"\x01" + (131_072).to_bytes(3, "big")),
    ("too-large-header", b"\x01" + (131_073).to_bytes(3, "big")),
    ("attach-frame", frame(0x10, ID)),
    ("attached-frame", frame(0x11, b"")),
    ("seed-frame", frame(0x12, BLOCK)),
    ("tunnel-frame", frame(0x20, ID + BLOCK + BLOCK)),
    ("confirm-frame", frame(0x21, BLOCK)),
    ("cell-frame", frame(0x30, bytes(4092))),
    ("join-frame", frame(0x40, ID)),
    ("refused-frame", frame(0x42, b"\x03")),
    ("bytes-frame", frame(0x43, b"bytes")),
    ("end-frame", frame(0x44, b"")),
):
    print(name, value.hex())
