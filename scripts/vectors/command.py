#!/usr/bin/env python3
"""Computes the vectors of override commands from docs/protocol.md. Needs the PyPI packages `blake3` and `cryptography`."""
from ipaddress import ip_address
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = 1_800_000_000
DAY = 24 * 3600


def number(value, length):
    return value.to_bytes(length, "big")


def public(key):
    return key.public_key().public_bytes_raw()


def derive(context, *parts):
    return blake3(b"".join(number(len(part), 8) + part for part in parts), derive_key_context=context).digest()


def ip_range(text):
    address, prefix = text.split("/")
    address = ip_address(address)
    return number(address.version, 1) + address.packed + number(int(prefix), 1)


def ap_record(key):
    body = b"\x01" + public(key) + number(NOW // 3600 << 16, 8) + number(NOW, 8) + number(NOW + 3 * 3600, 8) + b"\x00"
    return body + key.sign(b"phantom v1 ap record\0" + body)


def command(serial, predecessor, actions, issued=NOW, expires=NOW + 30 * DAY):
    head = b"\x01" + number(serial, 8) + predecessor + number(issued, 8) + number(expires, 8)
    return head + number(len(actions), 1) + b"".join(actions)


def signed(body, indices):
    signatures = [number(i, 1) + keys[i].sign(b"phantom v1 command\0" + root + body) for i in indices]
    return number(len(body), 2) + body + number(len(signatures), 1) + b"".join(signatures)


keys = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
root = derive("phantom v1 command root", b"\x02", *map(public, keys))
node, ap = b"\x0a" * 32, Ed25519PrivateKey.from_private_bytes(b"\x04" * 32)
key = b"n" + derive("phantom v1 netdb node key", node)
record = ap_record(ap)
first = command(1, root, [
    b"\x01" + ip_range("192.0.2.0/24"), b"\x01" + ip_range("2001:db8::/32"), b"\x03" + node,
    b"\x05" + key + number(NOW + DAY, 8), b"\x06" + number(len(record), 2) + record,
])
first_id = derive("phantom v1 command id", first)
second = command(2, first_id, [b"\x02" + ip_range("192.0.0.0/16"), b"\x04" + node], NOW + 60, NOW + DAY)
print("# two of three maintainers' commands, one after the other; made by scripts/vectors/command.py")
print("# Seeds of the Ed25519 keys (RFC 8032): 32 times 01, 02 and 03; of the inserted AP record's 32 times 04.")
print("root", root.hex())
print("first", signed(first, (0, 2)).hex())
print("first-id", first_id.hex())
print("second", signed(second, (1, 2)).hex())
print("second-id", derive("phantom v1 command id", second).hex())
print("above", number(1, 8).hex())
both = [signed(first, (0, 2)), signed(second, (1, 2))]
print("answer", b"".join(number(len(one), 2) + one for one in both).hex())
