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


EXPORTER, SECRET, SERVER, CLIENT = bytes(range(32)), b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
S, C = public(SERVER), public(CLIENT)
token = blake3(framed([b"token", EXPORTER]), key=SECRET).digest()
websocket_key = blake3(framed([EXPORTER]), derive_key_context="phantom v1 link websocket key").digest()[:16]
opening = C + sign(CLIENT, b"phantom v1 link client", EXPORTER + S + C)

print("# name value, in hex; made by scripts/vectors/link.py")
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
    ("largest-header", b"\x01" + (131_072).to_bytes(3, "big")),
    ("too-large-header", b"\x01" + (131_073).to_bytes(3, "big")),
):
    print(name, value.hex())
