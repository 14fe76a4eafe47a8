#!/usr/bin/env python3
"""Computes ids, addresses, names, peer strings and keys of the database from docs/protocol.md, sections 2, 7.2 and 7.3.

Needs the PyPI packages `blake3` and `cryptography`. Prints lines: name value; in hex, texts as they are.
"""
from base64 import b32encode, urlsafe_b64encode
from hashlib import sha256
from ipaddress import ip_address

from path import derive

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def contact(key, ip, port, secret):
    ip = ip_address(ip).packed
    mapped = ip if len(ip) == 16 else bytes(10) + b"\xff\xff" + ip
    return key + mapped + port.to_bytes(2, "big") + secret


def node_id(key):
    return derive("phantom v1 node id", key)


def address(key):
    return b"\xfd\x70" + derive("phantom v1 ap address", b"\x01", key)[:14]


def ap_name(key):
    checksum = derive("phantom v1 ap name checksum", b"\x01", key)[:2]
    return b32encode(key + checksum + b"\x01").decode().rstrip("=").lower() + ".phantom"


def peer_string(contact):
    checksum = derive("phantom v1 peer string checksum", contact)[:4]
    return "phantom-peer:" + urlsafe_b64encode(contact + checksum).decode().rstrip("=")


def peer_id(key):
    return bytes.fromhex("002408011220") + key


def multiaddr(key, ip, port, secret):
    ip = ip_address(ip).packed
    return (
        (b"\x04" if len(ip) == 4 else b"\x29") + ip + b"\x06" + port.to_bytes(2, "big")
        + bytes.fromhex("d203220020") + secret + bytes.fromhex("a50326") + peer_id(key)
    )


def main():
    print("# name value; made by scripts/vectors/names.py")
    seed, secret = bytes(range(1, 33)), b"\x2a" * 32
    key = public(seed)
    lines = {
        "seed": seed, "key": key, "link-secret": secret, "port": (8443).to_bytes(2, "big"),
        "node-id": node_id(key), "ap-address": address(key), "ap-name": ap_name(key),
        "node-db-key": b"n" + derive("phantom v1 netdb node key", node_id(key)),
        "ap-db-key": b"a" + derive("phantom v1 netdb ap key", address(key)),
        "peer-id": peer_id(key),
    }
    places = [sha256(lines["peer-id"]).digest(), sha256(lines["ap-db-key"]).digest()]
    lines |= {"node-place": places[0], "ap-place": places[1], "distance": bytes(a ^ b for a, b in zip(*places))[:16]}
    for version, ip in (("4", "192.0.2.7"), ("6", "2001:db8::7")):
        where = (key, ip, 8443, secret)
        lines |= {
            f"ip-{version}": ip, f"contact-{version}": contact(*where), f"peer-string-{version}": peer_string(contact(*where)),
            f"multiaddr-{version}": multiaddr(*where),
        }
    for name, value in lines.items():
        print(name, value if isinstance(value, str) else value.hex())


if __name__ == "__main__":
    main()
