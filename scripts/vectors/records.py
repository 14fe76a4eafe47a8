#!/usr/bin/env python3
"""Computes the vectors of records from docs/protocol.md. Needs the PyPI packages `blake3` and `cryptography`."""
from ipaddress import IPv6Address
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = 1_800_000_000
EPOCH = 6 * 3600


def u64(value):
    return value.to_bytes(8, "big")


def public(key):
    return key.public_key().public_bytes_raw()


def contact(key):
    return public(key) + IPv6Address("::ffff:127.1.2.3").packed + (443).to_bytes(2, "big") + b"\x03" * 32


def sign(key, context, body):
    return body + key.sign(context + b"\0" + body)


def derive(context, *parts):
    return blake3(b"".join(u64(len(part)) + part for part in parts), derive_key_context=context).digest()


def epoch(key, now):
    """The start of the node's epoch at a time."""
    offset = int.from_bytes(derive("phantom v1 epoch", derive("phantom v1 node id", public(key)))[:8], "big") % EPOCH
    return now - (now - offset) % EPOCH


def extension(kind, value):
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


node, ap = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
print("# a node record and an AP record, signed; made by scripts/vectors/records.py")
print("# Seeds of the Ed25519 keys (RFC 8032): 32 times 01 for the node, 32 times 02 for the AP address.")
keys = b"\x04" * 32 + b"\x05" * 1184 + b"\x06" * 32 + b"\x07" * 1184
extensions = extension(1, b"what") + extension(0x8001, b"")
body = b"\x01" + contact(node) + u64(epoch(node, NOW)) + (3).to_bytes(2, "big") + keys
body += len(extensions).to_bytes(2, "big") + extensions
print(sign(node, b"phantom v1 node record", body).hex())
entry = contact(ap) + b"\x06" * 16 + u64(NOW + 600)
serial = (NOW // 3600 << 16) + 7
body = b"\x01" + public(ap) + u64(serial) + u64(NOW) + u64(NOW + 3 * 3600) + b"\x02" + entry * 2
print(sign(ap, b"phantom v1 ap record", body).hex())
