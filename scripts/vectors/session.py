#!/usr/bin/env python3
"""Writes each message of a session from docs/protocol.md, section 6. Prints lines: name, its bytes in hex."""


def message(kind, *parts):
    body = b"".join(parts)
    return bytes([kind]) + len(body).to_bytes(2, "big") + body


def u64(value):
    return value.to_bytes(8, "big")


SESSION, TOKEN = b"\xab" * 16, b"\xcd" * 32

print("# name bytes; made by scripts/vectors/session.py")
print("# Session id: 16 times ab; covered port 0050, knock 16 times cd; data `bytes` at 0102030405060708; acknowledged 65 536; end 2^64 - 1; code protocol; resumed at")
print("# the second attempt, 2^40 bytes received, token 32 times cd.")
for name, value in (
    ("hello", message(1, b"\x01", SESSION, (80).to_bytes(2, "big"), b"\xcd" * 16)),
    ("data", message(2, bytes(range(1, 9)), b"bytes")),
    ("ack", message(3, u64(65_536))),
    ("fin", message(4, u64(2**64 - 1))),
    ("reset", message(5, b"\x02")),
    ("resume", message(6, SESSION, (2).to_bytes(4, "big"), u64(2**40), TOKEN)),
):
    print(name, value.hex())
