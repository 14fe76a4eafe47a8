#!/usr/bin/env python3
"""Computes a bundle of peers from docs/protocol.md, section 2: two nodes, signed by a third one.

Needs the PyPI packages `blake3` and `cryptography`. Prints the bundle as it is.
"""
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from names import contact, peer_string, public

SIGNER = b"\x07" * 32
MADE = "Fri, 15 Jan 2027 08:00:00 GMT"


def main():
    nodes = [(b"\x01" * 32, "192.0.2.1", 443), (b"\x02" * 32, "2001:db8::2", 8443)]
    peers = [peer_string(contact(public(seed), ip, port, seed)) for seed, ip, port in nodes]
    lines = ["# phantom peers 1", f"# made {MADE}", f"# by {public(SIGNER).hex()}", *peers]
    signed = "".join(line + "\n" for line in lines)
    signature = Ed25519PrivateKey.from_private_bytes(SIGNER).sign(b"phantom v1 peers\0" + signed.encode())
    print(f"{signed}# signature {signature.hex()}")


if __name__ == "__main__":
    main()
