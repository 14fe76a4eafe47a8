#!/usr/bin/env python3
"""Writes each message of a session, and what is sealed in them, from docs/protocol.md, section 6. Prints lines: name, its bytes in hex."""


def message(kind, *parts):
    body = b"".join(parts)
    return bytes([kind]) + len(body).to_bytes(2, "big") + body


def u64(value):
    return value.to_bytes(8, "big")


def main():
    session, knock = b"\xab" * 16, b"\xcd" * 16
    print("# name bytes; made by scripts/vectors/session.py; `in:` before what is sealed, without its tag")
    print("# Session id and attempt id: 16 times ab; covered port 0050, knocks 16 times cd; code protocol; signature 64 times ee.")
    print("# Inside: ports 40000 and 80; `bytes` at 0102030405060708; arrived 2^40, taken 65 536; end 2^64 - 1; code aborted.")
    for name, value in (
        ("hello", message(1, b"\x01", session, (80).to_bytes(2, "big"), knock)),
        ("tls", message(2, b"bytes")),
        ("sealed", message(3, b"seventeen bytes..")),
        ("resume", message(4, session, knock)),
        ("reset", message(5, b"\x02")),
        ("gone", message(6, b"\xee" * 64)),
        ("in:ports", b"\x01" + (40_000).to_bytes(2, "big") + (80).to_bytes(2, "big")),
        ("in:data", b"\x02" + bytes(range(1, 9)) + b"bytes"),
        ("in:ack", b"\x03" + u64(2**40) + u64(65_536)),
        ("in:fin", b"\x04" + u64(2**64 - 1)),
        ("in:reset", b"\x05\x01"),
    ):
        print(name, value.hex())


if __name__ == "__main__":
    main()
